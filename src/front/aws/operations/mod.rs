//! Each operation: its members are read, `kms` is called, its answer is written. Decides nothing.

mod grants;
mod key;
mod mac;
mod responses;

use std::time::Instant;

use bytes::Bytes;

use super::json::Members;
use crate::{
    error::Error,
    kms::Kms,
    model::{Caller, Operation},
};

/// One call by a caller who is known.
pub(super) struct Call<'a> {
    pub(super) kms: &'a Kms,
    pub(super) caller: &'a Caller,
    pub(super) members: Members,
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
            Operation::EnableKeyRotation => self.enable_key_rotation(),
            Operation::DisableKeyRotation => self.disable_key_rotation(),
            Operation::RotateKeyOnDemand => self.rotate_key_on_demand(),
            Operation::CreateGrant => self.create_grant().await,
            Operation::ListGrants => self.list_grants(),
            Operation::ListRetirableGrants => self.list_retirable_grants(),
            Operation::RetireGrant => self.retire_grant().await,
            Operation::RevokeGrant => self.revoke_grant().await,
            Operation::DescribeCustomKeyStores => self.describe_custom_key_stores(),
            Operation::Unsupported(operation) => {
                let members = self.members.values(operation.members())?;
                let refusal = self
                    .kms
                    .refuse_unsupported(self.caller, operation, &members);
                Err(refusal)
            }
        }
    }
}

#[cfg(test)]
mod tests;
