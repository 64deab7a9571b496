//! Each operation: its members, read; the call; its answer, written. Nothing is decided here.

mod answer;
mod key;
mod mac;

use std::time::Instant;

use bytes::Bytes;

use super::wire::Members;
use crate::{
    error::Error,
    kms::Kms,
    model::{Caller, Foreign, Operation},
};

/// One call by a caller who is known.
pub(super) struct Call<'a> {
    pub(super) kms: &'a Kms,
    pub(super) caller: &'a Caller,
    pub(super) asked: Members,
    pub(super) until: Instant,
}

/// An answer's body; empty for what only succeeds.
type Answered = Result<Bytes, Error>;

impl Call<'_> {
    pub(super) async fn answer(mut self, operation: Operation) -> Answered {
        match operation {
            Operation::GenerateMac => self.generate_mac().await,
            Operation::VerifyMac => self.verify_mac().await,
            Operation::GenerateRandom => self.generate_random().await,
            Operation::CreateKey => self.create_key().await,
            Operation::DescribeKey => self.describe_key().await,
            Operation::ListKeys => self.list_keys(),
            Operation::UpdateKeyDescription => self.update_key_description().await,
            Operation::EnableKey => self.enable_key().await,
            Operation::DisableKey => self.disable_key().await,
            Operation::ScheduleKeyDeletion => self.schedule_key_deletion().await,
            Operation::CancelKeyDeletion => self.cancel_key_deletion().await,
            Operation::CreateAlias => self.create_alias().await,
            Operation::UpdateAlias => self.update_alias().await,
            Operation::DeleteAlias => self.delete_alias().await,
            Operation::ListAliases => self.list_aliases(),
            Operation::TagResource => self.tag_resource().await,
            Operation::UntagResource => self.untag_resource().await,
            Operation::ListResourceTags => self.list_resource_tags(),
            Operation::GetKeyPolicy => self.get_key_policy(),
            Operation::PutKeyPolicy => self.put_key_policy().await,
            Operation::ListKeyPolicies => self.list_key_policies(),
            Operation::GetKeyLastUsage => self.get_key_last_usage(),
            Operation::GetKeyRotationStatus => self.get_key_rotation_status(),
            Operation::ListKeyRotations => self.list_key_rotations(),
            Operation::EnableKeyRotation => self.rotation(Kms::enable_key_rotation),
            Operation::DisableKeyRotation => self.rotation(Kms::disable_key_rotation),
            Operation::RotateKeyOnDemand => self.rotation(Kms::rotate_key_on_demand),
            Operation::Foreign(foreign) => Err(self.refuse(foreign)?),
        }
    }

    fn refuse(&mut self, foreign: Foreign) -> Result<Error, Error> {
        let member = match foreign {
            Foreign::ReEncrypt => "SourceKeyId",
            Foreign::Decrypt
            | Foreign::DeriveSharedSecret
            | Foreign::Encrypt
            | Foreign::GenerateDataKey
            | Foreign::GenerateDataKeyPair
            | Foreign::GenerateDataKeyPairWithoutPlaintext
            | Foreign::GenerateDataKeyWithoutPlaintext
            | Foreign::GetPublicKey
            | Foreign::Sign
            | Foreign::Verify => "KeyId",
        };
        let key_id = self.asked.text(member)?;
        Ok(self
            .kms
            .refuse_foreign(self.caller, foreign, key_id.as_deref()))
    }
}

#[cfg(test)]
mod tests;
