//! The operations of the KMS API, and what the request of each names.

/// The operations, as rights and refusals name them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(missing_docs, reason = "their names are those of KMS's operations")]
pub enum Operation {
    CancelKeyDeletion,
    CreateAlias,
    CreateGrant,
    CreateKey,
    DeleteAlias,
    DescribeCustomKeyStores,
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
    ListGrants,
    ListKeyPolicies,
    ListKeyRotations,
    ListKeys,
    ListResourceTags,
    ListRetirableGrants,
    PutKeyPolicy,
    RetireGrant,
    RevokeGrant,
    RotateKeyOnDemand,
    ScheduleKeyDeletion,
    TagResource,
    UntagResource,
    UpdateAlias,
    UpdateKeyDescription,
    VerifyMac,
    /// One that no key here can do.
    Unsupported(UnsupportedOperation),
}

/// Whether an operation's request names a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum NamesKey {
    Always,
    Optionally,
    Never,
}

/// Operations of keys that are not for MACs, and those that hsmac does not have yet. KMS has them, so
/// clients may ask a key for them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(missing_docs, reason = "their names are those of KMS's operations")]
pub enum UnsupportedOperation {
    Decapsulate,
    Decrypt,
    DeleteImportedKeyMaterial,
    DeriveSharedSecret,
    Encapsulate,
    Encrypt,
    GenerateDataKey,
    GenerateDataKeyPair,
    GenerateDataKeyPairWithoutPlaintext,
    GenerateDataKeyWithoutPlaintext,
    GetParametersForImport,
    GetPublicKey,
    ImportKeyMaterial,
    ReEncrypt,
    ReplicateKey,
    Sign,
    UpdatePrimaryRegion,
    Verify,
}

impl Operation {
    /// All of them, those first that are called most.
    pub const ALL: [Self; 51] = [
        Self::GenerateMac,
        Self::VerifyMac,
        Self::DescribeKey,
        Self::GenerateRandom,
        Self::CancelKeyDeletion,
        Self::CreateAlias,
        Self::CreateGrant,
        Self::CreateKey,
        Self::DeleteAlias,
        Self::DescribeCustomKeyStores,
        Self::DisableKey,
        Self::DisableKeyRotation,
        Self::EnableKey,
        Self::EnableKeyRotation,
        Self::GetKeyLastUsage,
        Self::GetKeyPolicy,
        Self::GetKeyRotationStatus,
        Self::ListAliases,
        Self::ListGrants,
        Self::ListKeyPolicies,
        Self::ListKeyRotations,
        Self::ListKeys,
        Self::ListResourceTags,
        Self::ListRetirableGrants,
        Self::PutKeyPolicy,
        Self::RetireGrant,
        Self::RevokeGrant,
        Self::RotateKeyOnDemand,
        Self::ScheduleKeyDeletion,
        Self::TagResource,
        Self::UntagResource,
        Self::UpdateAlias,
        Self::UpdateKeyDescription,
        Self::Unsupported(UnsupportedOperation::Decapsulate),
        Self::Unsupported(UnsupportedOperation::Decrypt),
        Self::Unsupported(UnsupportedOperation::DeleteImportedKeyMaterial),
        Self::Unsupported(UnsupportedOperation::DeriveSharedSecret),
        Self::Unsupported(UnsupportedOperation::Encapsulate),
        Self::Unsupported(UnsupportedOperation::Encrypt),
        Self::Unsupported(UnsupportedOperation::GenerateDataKey),
        Self::Unsupported(UnsupportedOperation::GenerateDataKeyPair),
        Self::Unsupported(UnsupportedOperation::GenerateDataKeyPairWithoutPlaintext),
        Self::Unsupported(UnsupportedOperation::GenerateDataKeyWithoutPlaintext),
        Self::Unsupported(UnsupportedOperation::GetParametersForImport),
        Self::Unsupported(UnsupportedOperation::GetPublicKey),
        Self::Unsupported(UnsupportedOperation::ImportKeyMaterial),
        Self::Unsupported(UnsupportedOperation::ReEncrypt),
        Self::Unsupported(UnsupportedOperation::ReplicateKey),
        Self::Unsupported(UnsupportedOperation::Sign),
        Self::Unsupported(UnsupportedOperation::UpdatePrimaryRegion),
        Self::Unsupported(UnsupportedOperation::Verify),
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
            Self::CreateGrant => "kms:CreateGrant",
            Self::CreateKey => "kms:CreateKey",
            Self::DeleteAlias => "kms:DeleteAlias",
            Self::DescribeCustomKeyStores => "kms:DescribeCustomKeyStores",
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
            Self::ListGrants => "kms:ListGrants",
            Self::ListKeyPolicies => "kms:ListKeyPolicies",
            Self::ListKeyRotations => "kms:ListKeyRotations",
            Self::ListKeys => "kms:ListKeys",
            Self::ListResourceTags => "kms:ListResourceTags",
            Self::ListRetirableGrants => "kms:ListRetirableGrants",
            Self::PutKeyPolicy => "kms:PutKeyPolicy",
            Self::RetireGrant => "kms:RetireGrant",
            Self::RevokeGrant => "kms:RevokeGrant",
            Self::RotateKeyOnDemand => "kms:RotateKeyOnDemand",
            Self::ScheduleKeyDeletion => "kms:ScheduleKeyDeletion",
            Self::TagResource => "kms:TagResource",
            Self::UntagResource => "kms:UntagResource",
            Self::UpdateAlias => "kms:UpdateAlias",
            Self::UpdateKeyDescription => "kms:UpdateKeyDescription",
            Self::VerifyMac => "kms:VerifyMac",
            Self::Unsupported(other) => other.action(),
        }
    }

    /// KMS's name, `GenerateMac`.
    pub fn name(self) -> &'static str {
        &self.action()[PREFIX.len()..]
    }

    /// Whether a request names a key. RetireGrant's may name the grant by its token instead.
    pub const fn names_key(self) -> NamesKey {
        match self {
            Self::CreateKey
            | Self::DeleteAlias
            | Self::DescribeCustomKeyStores
            | Self::GenerateRandom
            | Self::ListKeys
            | Self::ListRetirableGrants => NamesKey::Never,
            Self::ListAliases => NamesKey::Optionally,
            Self::CancelKeyDeletion
            | Self::CreateAlias
            | Self::CreateGrant
            | Self::DescribeKey
            | Self::DisableKey
            | Self::DisableKeyRotation
            | Self::EnableKey
            | Self::EnableKeyRotation
            | Self::Unsupported(_)
            | Self::GenerateMac
            | Self::GetKeyLastUsage
            | Self::GetKeyPolicy
            | Self::GetKeyRotationStatus
            | Self::ListGrants
            | Self::ListKeyPolicies
            | Self::ListKeyRotations
            | Self::ListResourceTags
            | Self::PutKeyPolicy
            | Self::RetireGrant
            | Self::RevokeGrant
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
        if let Self::Unsupported(other) = self {
            return !other.changes_key();
        }
        matches!(
            self,
            Self::DescribeKey | Self::GenerateMac | Self::VerifyMac
        )
    }

    /// Whether a key of another account may be asked for this.
    pub const fn crosses_accounts(self) -> bool {
        matches!(
            self,
            Self::CreateGrant
                | Self::DescribeKey
                | Self::GenerateMac
                | Self::GetKeyRotationStatus
                | Self::ListGrants
                | Self::RetireGrant
                | Self::RevokeGrant
                | Self::VerifyMac
        )
    }
}

impl UnsupportedOperation {
    /// KMS's name, `Encrypt`.
    pub fn name(self) -> &'static str {
        &self.action()[PREFIX.len()..]
    }

    /// Whether it would change a key, rather than use it.
    const fn changes_key(self) -> bool {
        matches!(
            self,
            Self::DeleteImportedKeyMaterial
                | Self::GetParametersForImport
                | Self::ImportKeyMaterial
                | Self::ReplicateKey
                | Self::UpdatePrimaryRegion
        )
    }

    const fn action(self) -> &'static str {
        match self {
            Self::Decapsulate => "kms:Decapsulate",
            Self::Decrypt => "kms:Decrypt",
            Self::DeleteImportedKeyMaterial => "kms:DeleteImportedKeyMaterial",
            Self::DeriveSharedSecret => "kms:DeriveSharedSecret",
            Self::Encapsulate => "kms:Encapsulate",
            Self::Encrypt => "kms:Encrypt",
            Self::GenerateDataKey => "kms:GenerateDataKey",
            Self::GenerateDataKeyPair => "kms:GenerateDataKeyPair",
            Self::GenerateDataKeyPairWithoutPlaintext => "kms:GenerateDataKeyPairWithoutPlaintext",
            Self::GenerateDataKeyWithoutPlaintext => "kms:GenerateDataKeyWithoutPlaintext",
            Self::GetParametersForImport => "kms:GetParametersForImport",
            Self::GetPublicKey => "kms:GetPublicKey",
            Self::ImportKeyMaterial => "kms:ImportKeyMaterial",
            Self::ReEncrypt => "kms:ReEncrypt",
            Self::ReplicateKey => "kms:ReplicateKey",
            Self::Sign => "kms:Sign",
            Self::UpdatePrimaryRegion => "kms:UpdatePrimaryRegion",
            Self::Verify => "kms:Verify",
        }
    }
}

const PREFIX: &str = "kms:";

#[cfg(test)]
mod tests {
    use super::{Operation as Op, UnsupportedOperation as Other};

    #[test]
    fn only_operations_that_do_not_change_a_key_take_an_alias() {
        for operation in Op::ALL {
            let changes = matches!(
                operation,
                Op::Unsupported(
                    Other::DeleteImportedKeyMaterial
                        | Other::GetParametersForImport
                        | Other::ImportKeyMaterial
                        | Other::ReplicateKey
                        | Other::UpdatePrimaryRegion,
                )
            );
            let uses = matches!(
                operation,
                Op::GenerateMac | Op::VerifyMac | Op::DescribeKey | Op::Unsupported(_)
            ) && !changes;
            assert_eq!(operation.takes_alias(), uses, "{operation:?}");
        }
    }

    #[test]
    fn every_operation_is_found_by_its_name_alone() {
        for operation in Op::ALL {
            assert_eq!(Op::named(operation.name()), Some(operation));
        }
        for wrong in ["", "generateMac", "GenerateMac ", "RevokeGrants"] {
            assert_eq!(Op::named(wrong), None, "{wrong}");
        }
    }
}
