//! The states of a key, and KMS's table of which operation each state allows.

use std::fmt;

use super::{Operation, UnsupportedOperation as Other};

/// The state of a key (KMS: KeyState).
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
    /// In the order in which a key goes through them.
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

impl Operation {
    /// Whether a key in this state may be asked for this: KMS's table of key states. For
    /// UpdateAlias the key is the new target; the old one may be in any state.
    ///
    /// # Errors
    /// The [`Refusal`] that KMS gives for this state.
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

            // A grant can wait for a token.
            (Self::CreateGrant, KeyState::Unavailable) => return Ok(()),

            // An origin is told in nearly every state.
            (
                Self::Unsupported(
                    Other::DeleteImportedKeyMaterial
                    | Other::GetParametersForImport
                    | Other::ImportKeyMaterial,
                ),
                KeyState::Disabled | KeyState::PendingImport | KeyState::Unavailable,
            ) => return Ok(()),

            (
                Self::CreateGrant | Self::GenerateMac | Self::VerifyMac | Self::Unsupported(_),
                KeyState::Enabled,
            ) => return Ok(()),
            (
                Self::CreateGrant | Self::GenerateMac | Self::VerifyMac | Self::Unsupported(_),
                KeyState::Creating,
            ) => Refusal::Creating,
            (
                Self::CreateGrant | Self::GenerateMac | Self::VerifyMac | Self::Unsupported(_),
                KeyState::Disabled,
            ) => Refusal::Disabled,
            (
                Self::CreateGrant | Self::GenerateMac | Self::VerifyMac | Self::Unsupported(_),
                KeyState::PendingImport,
            ) => Refusal::PendingImport,
            (Self::GenerateMac | Self::VerifyMac | Self::Unsupported(_), KeyState::Unavailable) => {
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
                | Self::CreateGrant
                | Self::DisableKey
                | Self::EnableKey
                | Self::DisableKeyRotation
                | Self::EnableKeyRotation
                | Self::Unsupported(_)
                | Self::GenerateMac
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
                Self::DisableKeyRotation | Self::EnableKeyRotation | Self::RotateKeyOnDemand,
                KeyState::Disabled,
            ) => Refusal::Disabled,
            (Self::RotateKeyOnDemand, KeyState::PendingImport) => Refusal::PendingImport,
            // The other two have a text of their own for imported keys, with material or without.
            (
                Self::DisableKeyRotation | Self::EnableKeyRotation | Self::RotateKeyOnDemand,
                KeyState::Enabled | KeyState::PendingImport | KeyState::Unavailable,
            )
            | (
                Self::GetKeyRotationStatus | Self::ListKeyRotations,
                KeyState::Enabled
                | KeyState::Disabled
                | KeyState::PendingDeletion
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

            // These only read, have no key, or are about policies and grants, which a key has in every state.
            (
                Self::CreateKey
                | Self::DeleteAlias
                | Self::DescribeCustomKeyStores
                | Self::DescribeKey
                | Self::GenerateRandom
                | Self::GetKeyLastUsage
                | Self::GetKeyPolicy
                | Self::ListAliases
                | Self::ListGrants
                | Self::ListKeyPolicies
                | Self::ListKeys
                | Self::ListResourceTags
                | Self::ListRetirableGrants
                | Self::PutKeyPolicy
                | Self::RetireGrant
                | Self::RevokeGrant,
                _,
            ) => return Ok(()),
        };
        Err(refusal)
    }
}

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
                Op::Unsupported(Other::Decapsulate),
                Op::Unsupported(Other::Decrypt),
                Op::Unsupported(Other::DeriveSharedSecret),
                Op::Unsupported(Other::Encapsulate),
                Op::Unsupported(Other::Encrypt),
                Op::Unsupported(Other::GenerateDataKey),
                Op::Unsupported(Other::GenerateDataKeyPair),
                Op::Unsupported(Other::GenerateDataKeyPairWithoutPlaintext),
                Op::Unsupported(Other::GenerateDataKeyWithoutPlaintext),
                Op::Unsupported(Other::GetPublicKey),
                Op::Unsupported(Other::ReEncrypt),
                Op::Unsupported(Other::ReplicateKey),
                Op::Unsupported(Other::Sign),
                Op::Unsupported(Other::UpdatePrimaryRegion),
                Op::Unsupported(Other::Verify),
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
            &[Op::CreateGrant],
            [
                "creating",
                "+",
                "disabled",
                "pending del",
                "pending imp",
                "+",
            ],
        ),
        (
            &[
                Op::Unsupported(Other::DeleteImportedKeyMaterial),
                Op::Unsupported(Other::GetParametersForImport),
                Op::Unsupported(Other::ImportKeyMaterial),
            ],
            ["creating", "+", "+", "pending del", "+", "+"],
        ),
        (
            &[Op::EnableKey, Op::DisableKey],
            ["creating", "+", "+", "pending del", "pending imp", "+"],
        ),
        (
            &[Op::DisableKeyRotation, Op::EnableKeyRotation],
            ["creating", "+", "disabled", "pending del", "+", "+"],
        ),
        (
            &[Op::RotateKeyOnDemand],
            [
                "creating",
                "+",
                "disabled",
                "pending del",
                "pending imp",
                "+",
            ],
        ),
        (
            &[Op::GetKeyRotationStatus, Op::ListKeyRotations],
            ["creating", "+", "+", "+", "+", "+"],
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
                Op::DescribeCustomKeyStores,
                Op::DescribeKey,
                Op::GenerateRandom,
                Op::GetKeyLastUsage,
                Op::GetKeyPolicy,
                Op::ListAliases,
                Op::ListGrants,
                Op::ListKeyPolicies,
                Op::ListKeys,
                Op::ListResourceTags,
                Op::ListRetirableGrants,
                Op::PutKeyPolicy,
                Op::RetireGrant,
                Op::RevokeGrant,
            ],
            ["+", "+", "+", "+", "+", "+"],
        ),
    ];

    #[test]
    fn every_cell_of_kms_s_key_state_table() {
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
}
