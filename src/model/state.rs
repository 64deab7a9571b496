//! A key's life: its states, the operations, and which operation each state allows.

use std::fmt;

/// Where a key stands in its life (KMS: KeyState).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyState {
    /// It is being made.
    Creating,
    /// Serves.
    Enabled,
    /// Does not serve until it is enabled.
    Disabled,
    /// Will be deleted at its deletion date, unless that is cancelled.
    PendingDeletion,
    /// Has no material until some is imported.
    PendingImport,
    /// The token has no usable object for it; waiting does not cure that.
    Unavailable,
}

impl KeyState {
    /// In the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Creating,
        Self::Enabled,
        Self::Disabled,
        Self::PendingDeletion,
        Self::PendingImport,
        Self::Unavailable,
    ];

    /// KMS's name, `PendingDeletion`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::PendingDeletion => "PendingDeletion",
            Self::PendingImport => "PendingImport",
            Self::Unavailable => "Unavailable",
        }
    }
}

/// The operations, as rights and refusals name them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(missing_docs, reason = "their names are those of KMS's operations")]
pub enum Operation {
    CancelKeyDeletion,
    CreateAlias,
    CreateKey,
    DeleteAlias,
    DescribeKey,
    DisableKey,
    DisableKeyRotation,
    EnableKey,
    EnableKeyRotation,
    GenerateMac,
    GenerateRandom,
    GetKeyLastUsage,
    GetKeyPolicy,
    GetKeyRotationStatus,
    ListAliases,
    ListKeyPolicies,
    ListKeyRotations,
    ListKeys,
    ListResourceTags,
    PutKeyPolicy,
    RotateKeyOnDemand,
    ScheduleKeyDeletion,
    TagResource,
    UntagResource,
    UpdateAlias,
    UpdateKeyDescription,
    VerifyMac,
    /// One that no HMAC key can do.
    Foreign(Foreign),
}

/// Whether an operation's request names a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum NamesKey {
    Always,
    Optionally,
    Never,
}

/// Operations of keys that are not for MACs. KMS has them, so clients may ask an HMAC key for them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(missing_docs, reason = "their names are those of KMS's operations")]
pub enum Foreign {
    Decrypt,
    DeriveSharedSecret,
    Encrypt,
    GenerateDataKey,
    GenerateDataKeyPair,
    GenerateDataKeyPairWithoutPlaintext,
    GenerateDataKeyWithoutPlaintext,
    GetPublicKey,
    ReEncrypt,
    Sign,
    Verify,
}

impl Operation {
    /// All of them, those first that are called most.
    pub const ALL: [Self; 38] = [
        Self::GenerateMac,
        Self::VerifyMac,
        Self::DescribeKey,
        Self::GenerateRandom,
        Self::CancelKeyDeletion,
        Self::CreateAlias,
        Self::CreateKey,
        Self::DeleteAlias,
        Self::DisableKey,
        Self::DisableKeyRotation,
        Self::EnableKey,
        Self::EnableKeyRotation,
        Self::GetKeyLastUsage,
        Self::GetKeyPolicy,
        Self::GetKeyRotationStatus,
        Self::ListAliases,
        Self::ListKeyPolicies,
        Self::ListKeyRotations,
        Self::ListKeys,
        Self::ListResourceTags,
        Self::PutKeyPolicy,
        Self::RotateKeyOnDemand,
        Self::ScheduleKeyDeletion,
        Self::TagResource,
        Self::UntagResource,
        Self::UpdateAlias,
        Self::UpdateKeyDescription,
        Self::Foreign(Foreign::Decrypt),
        Self::Foreign(Foreign::DeriveSharedSecret),
        Self::Foreign(Foreign::Encrypt),
        Self::Foreign(Foreign::GenerateDataKey),
        Self::Foreign(Foreign::GenerateDataKeyPair),
        Self::Foreign(Foreign::GenerateDataKeyPairWithoutPlaintext),
        Self::Foreign(Foreign::GenerateDataKeyWithoutPlaintext),
        Self::Foreign(Foreign::GetPublicKey),
        Self::Foreign(Foreign::ReEncrypt),
        Self::Foreign(Foreign::Sign),
        Self::Foreign(Foreign::Verify),
    ];

    /// The operation of this name, spelt exactly so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.name() == name)
    }

    /// What policies call it: `kms:GenerateMac`.
    pub const fn action(self) -> &'static str {
        match self {
            Self::CancelKeyDeletion => "kms:CancelKeyDeletion",
            Self::CreateAlias => "kms:CreateAlias",
            Self::CreateKey => "kms:CreateKey",
            Self::DeleteAlias => "kms:DeleteAlias",
            Self::DescribeKey => "kms:DescribeKey",
            Self::DisableKey => "kms:DisableKey",
            Self::DisableKeyRotation => "kms:DisableKeyRotation",
            Self::EnableKey => "kms:EnableKey",
            Self::EnableKeyRotation => "kms:EnableKeyRotation",
            Self::GenerateMac => "kms:GenerateMac",
            Self::GenerateRandom => "kms:GenerateRandom",
            Self::GetKeyLastUsage => "kms:GetKeyLastUsage",
            Self::GetKeyPolicy => "kms:GetKeyPolicy",
            Self::GetKeyRotationStatus => "kms:GetKeyRotationStatus",
            Self::ListAliases => "kms:ListAliases",
            Self::ListKeyPolicies => "kms:ListKeyPolicies",
            Self::ListKeyRotations => "kms:ListKeyRotations",
            Self::ListKeys => "kms:ListKeys",
            Self::ListResourceTags => "kms:ListResourceTags",
            Self::PutKeyPolicy => "kms:PutKeyPolicy",
            Self::RotateKeyOnDemand => "kms:RotateKeyOnDemand",
            Self::ScheduleKeyDeletion => "kms:ScheduleKeyDeletion",
            Self::TagResource => "kms:TagResource",
            Self::UntagResource => "kms:UntagResource",
            Self::UpdateAlias => "kms:UpdateAlias",
            Self::UpdateKeyDescription => "kms:UpdateKeyDescription",
            Self::VerifyMac => "kms:VerifyMac",
            Self::Foreign(foreign) => foreign.action(),
        }
    }

    /// KMS's name, `GenerateMac`.
    pub fn name(self) -> &'static str {
        &self.action()[PREFIX.len()..]
    }

    /// Whether a request names a key.
    pub const fn names_key(self) -> NamesKey {
        match self {
            Self::CreateKey | Self::DeleteAlias | Self::GenerateRandom | Self::ListKeys => {
                NamesKey::Never
            }
            Self::ListAliases => NamesKey::Optionally,
            Self::CancelKeyDeletion
            | Self::CreateAlias
            | Self::DescribeKey
            | Self::DisableKey
            | Self::DisableKeyRotation
            | Self::EnableKey
            | Self::EnableKeyRotation
            | Self::Foreign(_)
            | Self::GenerateMac
            | Self::GetKeyLastUsage
            | Self::GetKeyPolicy
            | Self::GetKeyRotationStatus
            | Self::ListKeyPolicies
            | Self::ListKeyRotations
            | Self::ListResourceTags
            | Self::PutKeyPolicy
            | Self::RotateKeyOnDemand
            | Self::ScheduleKeyDeletion
            | Self::TagResource
            | Self::UntagResource
            | Self::UpdateAlias
            | Self::UpdateKeyDescription
            | Self::VerifyMac => NamesKey::Always,
        }
    }

    /// Whether a request names an alias beside the key that it is to mean.
    pub const fn names_alias(self) -> bool {
        matches!(
            self,
            Self::CreateAlias | Self::DeleteAlias | Self::UpdateAlias
        )
    }

    /// Whether an alias may stand for the key. The others want a key ID or a key ARN, so that what
    /// changes a key cannot hit another one because an alias was moved meanwhile.
    pub const fn takes_alias(self) -> bool {
        matches!(
            self,
            Self::DescribeKey | Self::GenerateMac | Self::VerifyMac | Self::Foreign(_)
        )
    }

    /// Whether a key of another account may be asked for this.
    pub const fn crosses_accounts(self) -> bool {
        matches!(
            self,
            Self::DescribeKey | Self::GenerateMac | Self::GetKeyRotationStatus | Self::VerifyMac
        )
    }

    /// Whether a key in this state may be asked for this: KMS's table of key states. For
    /// UpdateAlias the key is the new target; the old one may be in any state.
    ///
    /// # Errors
    /// What stands in the way.
    pub const fn check(self, state: KeyState) -> Result<(), Refusal> {
        let refusal = match (self, state) {
            (Self::CancelKeyDeletion, KeyState::PendingDeletion) => return Ok(()),
            (
                Self::CancelKeyDeletion,
                KeyState::Creating
                | KeyState::Enabled
                | KeyState::Disabled
                | KeyState::PendingImport
                | KeyState::Unavailable,
            ) => Refusal::NotPendingDeletion,

            (Self::GenerateMac | Self::VerifyMac | Self::Foreign(_), KeyState::Enabled) => {
                return Ok(());
            }
            (Self::GenerateMac | Self::VerifyMac | Self::Foreign(_), KeyState::Creating) => {
                Refusal::Creating
            }
            (Self::GenerateMac | Self::VerifyMac | Self::Foreign(_), KeyState::Disabled) => {
                Refusal::Disabled
            }
            (Self::GenerateMac | Self::VerifyMac | Self::Foreign(_), KeyState::PendingImport) => {
                Refusal::PendingImport
            }
            (Self::GenerateMac | Self::VerifyMac | Self::Foreign(_), KeyState::Unavailable) => {
                Refusal::Unavailable
            }

            (
                Self::DisableKey | Self::EnableKey,
                KeyState::Enabled | KeyState::Disabled | KeyState::Unavailable,
            ) => return Ok(()),
            (Self::DisableKey | Self::EnableKey, KeyState::Creating) => Refusal::Creating,
            (Self::DisableKey | Self::EnableKey, KeyState::PendingImport) => Refusal::PendingImport,

            (
                Self::CreateAlias
                | Self::DisableKey
                | Self::EnableKey
                | Self::DisableKeyRotation
                | Self::EnableKeyRotation
                | Self::Foreign(_)
                | Self::GenerateMac
                | Self::GetKeyRotationStatus
                | Self::ListKeyRotations
                | Self::RotateKeyOnDemand
                | Self::ScheduleKeyDeletion
                | Self::TagResource
                | Self::UntagResource
                | Self::UpdateAlias
                | Self::UpdateKeyDescription
                | Self::VerifyMac,
                KeyState::PendingDeletion,
            ) => Refusal::PendingDeletion,
            (
                Self::DisableKeyRotation
                | Self::EnableKeyRotation
                | Self::GetKeyRotationStatus
                | Self::ListKeyRotations
                | Self::RotateKeyOnDemand,
                KeyState::Creating,
            ) => Refusal::Creating,
            (
                Self::DisableKeyRotation
                | Self::EnableKeyRotation
                | Self::GetKeyRotationStatus
                | Self::ListKeyRotations
                | Self::RotateKeyOnDemand,
                KeyState::Enabled
                | KeyState::Disabled
                | KeyState::PendingImport
                | KeyState::Unavailable,
            ) => return Ok(()),
            (
                Self::CreateAlias
                | Self::ScheduleKeyDeletion
                | Self::TagResource
                | Self::UntagResource
                | Self::UpdateAlias
                | Self::UpdateKeyDescription,
                KeyState::Creating
                | KeyState::Enabled
                | KeyState::Disabled
                | KeyState::PendingImport
                | KeyState::Unavailable,
            ) => return Ok(()),

            // These tell, have no key, or are about rights, which a key has in every state.
            (
                Self::CreateKey
                | Self::DeleteAlias
                | Self::DescribeKey
                | Self::GenerateRandom
                | Self::GetKeyLastUsage
                | Self::GetKeyPolicy
                | Self::ListAliases
                | Self::ListKeyPolicies
                | Self::ListKeys
                | Self::ListResourceTags
                | Self::PutKeyPolicy,
                _,
            ) => return Ok(()),
        };
        Err(refusal)
    }
}

impl Foreign {
    /// KMS's name, `Encrypt`.
    pub fn name(self) -> &'static str {
        &self.action()[PREFIX.len()..]
    }

    const fn action(self) -> &'static str {
        match self {
            Self::Decrypt => "kms:Decrypt",
            Self::DeriveSharedSecret => "kms:DeriveSharedSecret",
            Self::Encrypt => "kms:Encrypt",
            Self::GenerateDataKey => "kms:GenerateDataKey",
            Self::GenerateDataKeyPair => "kms:GenerateDataKeyPair",
            Self::GenerateDataKeyPairWithoutPlaintext => "kms:GenerateDataKeyPairWithoutPlaintext",
            Self::GenerateDataKeyWithoutPlaintext => "kms:GenerateDataKeyWithoutPlaintext",
            Self::GetPublicKey => "kms:GetPublicKey",
            Self::ReEncrypt => "kms:ReEncrypt",
            Self::Sign => "kms:Sign",
            Self::Verify => "kms:Verify",
        }
    }
}

const PREFIX: &str = "kms:";

/// Why a key's state does not allow an operation; its text begins with the key's ARN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// `… is creating.`
    Creating,
    /// `… is disabled.`, KMS's DisabledException; all others are KMSInvalidStateException.
    Disabled,
    /// `… is not pending deletion.`
    NotPendingDeletion,
    /// `… is pending deletion.`
    PendingDeletion,
    /// `… is pending import.`
    PendingImport,
    /// `… is unavailable.`
    Unavailable,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "is creating.",
            Self::Disabled => "is disabled.",
            Self::NotPendingDeletion => "is not pending deletion.",
            Self::PendingDeletion => "is pending deletion.",
            Self::PendingImport => "is pending import.",
            Self::Unavailable => "is unavailable.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Operation as Op, *};

    /// KMS's table: Creating, Enabled, Disabled, PendingDeletion, PendingImport, Unavailable.
    /// `+` allowed; the first letters of a refusal otherwise.
    const TABLE: &[(&[Op], [&str; 6])] = &[
        (
            &[
                Op::GenerateMac,
                Op::VerifyMac,
                Op::Foreign(Foreign::Decrypt),
                Op::Foreign(Foreign::DeriveSharedSecret),
                Op::Foreign(Foreign::Encrypt),
                Op::Foreign(Foreign::GenerateDataKey),
                Op::Foreign(Foreign::GenerateDataKeyPair),
                Op::Foreign(Foreign::GenerateDataKeyPairWithoutPlaintext),
                Op::Foreign(Foreign::GenerateDataKeyWithoutPlaintext),
                Op::Foreign(Foreign::GetPublicKey),
                Op::Foreign(Foreign::ReEncrypt),
                Op::Foreign(Foreign::Sign),
                Op::Foreign(Foreign::Verify),
            ],
            [
                "creating",
                "+",
                "disabled",
                "pending del",
                "pending imp",
                "unavailable",
            ],
        ),
        (
            &[Op::EnableKey, Op::DisableKey],
            ["creating", "+", "+", "pending del", "pending imp", "+"],
        ),
        (
            &[
                Op::DisableKeyRotation,
                Op::EnableKeyRotation,
                Op::GetKeyRotationStatus,
                Op::ListKeyRotations,
                Op::RotateKeyOnDemand,
            ],
            ["creating", "+", "+", "pending del", "+", "+"],
        ),
        (
            &[Op::CancelKeyDeletion],
            ["not", "not", "not", "+", "not", "not"],
        ),
        (
            &[
                Op::ScheduleKeyDeletion,
                Op::CreateAlias,
                Op::UpdateAlias,
                Op::TagResource,
                Op::UntagResource,
                Op::UpdateKeyDescription,
            ],
            ["+", "+", "+", "pending del", "+", "+"],
        ),
        (
            &[
                Op::CreateKey,
                Op::DeleteAlias,
                Op::DescribeKey,
                Op::GenerateRandom,
                Op::GetKeyLastUsage,
                Op::GetKeyPolicy,
                Op::ListAliases,
                Op::ListKeyPolicies,
                Op::ListKeys,
                Op::ListResourceTags,
                Op::PutKeyPolicy,
            ],
            ["+", "+", "+", "+", "+", "+"],
        ),
    ];

    #[test]
    fn every_cell_of_kms_s_table() {
        let mut cells = 0;
        for (operations, row) in TABLE {
            for operation in *operations {
                for (state, cell) in KeyState::ALL.into_iter().zip(row) {
                    cells += 1;
                    match operation.check(state) {
                        Ok(()) => assert_eq!(*cell, "+", "{operation:?} {state:?}"),
                        Err(refusal) => {
                            let text = refusal.to_string();
                            assert!(
                                text.starts_with(&format!("is {cell}")) && text.ends_with('.'),
                                "{operation:?} {state:?}: {text}"
                            );
                        }
                    }
                }
            }
        }
        assert_eq!(cells, Op::ALL.len() * 6);
    }

    #[test]
    fn only_what_does_not_change_a_key_takes_its_alias() {
        for operation in Op::ALL {
            let uses = matches!(
                operation,
                Op::GenerateMac | Op::VerifyMac | Op::DescribeKey | Op::Foreign(_)
            );
            assert_eq!(operation.takes_alias(), uses, "{operation:?}");
        }
    }

    #[test]
    fn every_operation_is_found_by_its_name_alone() {
        for operation in Op::ALL {
            assert_eq!(Op::named(operation.name()), Some(operation));
        }
        for wrong in ["", "generateMac", "GenerateMac ", "CreateGrant"] {
            assert_eq!(Op::named(wrong), None, "{wrong}");
        }
    }
}
