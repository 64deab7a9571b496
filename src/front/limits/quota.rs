//! Quotas: which operations are counted together, under KMS's names in snake_case.

use serde::Deserialize;

use crate::model::Operation;

/// What a rate is of. As in KMS, everything that uses a key's material shares one, and each other operation has
/// its own.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct Quota(u8);

/// GenerateMac, VerifyMac, GenerateRandom.
const SYMMETRIC: &str = "cryptographic_operations_symmetric";
/// What hsmac does not do, and what is no operation: unknown methods, reflection.
const OTHER: &str = "other_operations";

const NAMES: [&str; Quota::COUNT] = [
    SYMMETRIC,
    OTHER,
    "cancel_key_deletion",
    "create_alias",
    "create_grant",
    "create_key",
    "delete_alias",
    "describe_key",
    "disable_key",
    "disable_key_rotation",
    "enable_key",
    "enable_key_rotation",
    "get_key_last_usage",
    "get_key_policy",
    "get_key_rotation_status",
    "list_aliases",
    "list_grants",
    "list_key_policies",
    "list_key_rotations",
    "list_keys",
    "list_resource_tags",
    "list_retirable_grants",
    "put_key_policy",
    "retire_grant",
    "revoke_grant",
    "rotate_key_on_demand",
    "schedule_key_deletion",
    "tag_resource",
    "untag_resource",
    "update_alias",
    "update_key_description",
];

impl Quota {
    /// How many there are.
    pub(in crate::front) const COUNT: usize = 31;

    /// Of the operations that use a key's material, and of random bytes.
    pub(in crate::front) const SYMMETRIC: Self = Self(0);

    /// Of what hsmac does not do, or does not know.
    pub(in crate::front) const OTHER: Self = Self(1);

    /// Every quota.
    pub(in crate::front) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(|index| Self(u8::try_from(index).expect("there are few quotas")))
    }

    /// What an operation is counted under.
    pub(in crate::front) const fn of(operation: Operation) -> Self {
        Self(match operation {
            Operation::GenerateMac | Operation::VerifyMac | Operation::GenerateRandom => 0,
            Operation::DescribeCustomKeyStores | Operation::Unsupported(_) => 1,
            Operation::CancelKeyDeletion => 2,
            Operation::CreateAlias => 3,
            Operation::CreateGrant => 4,
            Operation::CreateKey => 5,
            Operation::DeleteAlias => 6,
            Operation::DescribeKey => 7,
            Operation::DisableKey => 8,
            Operation::DisableKeyRotation => 9,
            Operation::EnableKey => 10,
            Operation::EnableKeyRotation => 11,
            Operation::GetKeyLastUsage => 12,
            Operation::GetKeyPolicy => 13,
            Operation::GetKeyRotationStatus => 14,
            Operation::ListAliases => 15,
            Operation::ListGrants => 16,
            Operation::ListKeyPolicies => 17,
            Operation::ListKeyRotations => 18,
            Operation::ListKeys => 19,
            Operation::ListResourceTags => 20,
            Operation::ListRetirableGrants => 21,
            Operation::PutKeyPolicy => 22,
            Operation::RetireGrant => 23,
            Operation::RevokeGrant => 24,
            Operation::RotateKeyOnDemand => 25,
            Operation::ScheduleKeyDeletion => 26,
            Operation::TagResource => 27,
            Operation::UntagResource => 28,
            Operation::UpdateAlias => 29,
            Operation::UpdateKeyDescription => 30,
        })
    }

    /// KMS's name in snake_case.
    pub const fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }

    pub(in crate::front) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl TryFrom<String> for Quota {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::all()
            .find(|quota| quota.name() == text)
            .ok_or_else(|| {
                format!(
                    "{text:?} is no quota; they are {SYMMETRIC}, {OTHER}, and every other operation's name, as in create_key"
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_the_quota_of_its_own_name_or_shares_one() {
        for operation in Operation::ALL {
            let mut name = String::new();
            for letter in operation.name().chars() {
                if letter.is_ascii_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(letter.to_ascii_lowercase());
            }
            let quota = Quota::of(operation).name();
            let shares = [SYMMETRIC, OTHER].contains(&quota);
            assert!(shares || quota == name, "{operation:?}: {quota}");
        }
        assert_eq!(Quota::of(Operation::VerifyMac), Quota::SYMMETRIC);
        let names: Vec<_> = Quota::all().map(Quota::name).collect();
        for name in &names {
            let found = Quota::try_from((*name).to_owned()).unwrap();
            assert_eq!(found.name(), *name);
        }
        assert!(Quota::try_from("generate_mac".to_owned()).is_err());
    }
}
