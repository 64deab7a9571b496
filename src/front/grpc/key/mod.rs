//! `hsmac.v1.KeyService`: protobuf messages to requests of `kms`, and its answers back. Decides nothing. It
//! is one trait, so one file.

mod convert;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use self::convert::{date, include_key_material, key_spec, key_usage, origin, pairs, state};
use super::call_context::CallContext;
use crate::{
    kms::{
        CancelKeyDeletion, CreateAlias, CreateKey, DeleteAlias, DescribeKey, DisableKey, EnableKey,
        EnableKeyRotation, EnumMember, GetKeyLastUsage, GetKeyPolicy, Kms, ListAliases, ListGrants,
        ListKeyPolicies, ListKeyRotations, ListKeys, ListResourceTags, ListRetirableGrants,
        PutKeyPolicy, RetireGrant, RevokeGrant, ScheduleKeyDeletion, TagResource, UntagResource,
        UpdateAlias, UpdateKeyDescription,
    },
    proto::v1::{self, key_service_server::KeyService},
};

/// The implementation of KeyService.
pub(super) struct KeyApi {
    pub(super) kms: Arc<Kms>,
}

#[tonic::async_trait]
impl KeyService for KeyApi {
    async fn create_key(
        self: Arc<Self>,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = CreateKey {
            policy: request.policy,
            description: Some(request.description),
            key_usage: key_usage(request.key_usage),
            key_spec: key_spec(request.key_spec),
            customer_master_key_spec: EnumMember::Absent,
            custom_key_store_id: None,
            xks_key_id: None,
            origin: origin(request.origin),
            tags: pairs(request.tags),
            multi_region: request.multi_region,
            bypass_policy_lockout_safety_check: request.bypass_policy_lockout_safety_check,
        };
        let made = self.kms.create_key(&caller, request, context.until).await;
        context.reply(made, |key| v1::CreateKeyResponse {
            key_metadata: Some(key.into()),
        })
    }

    async fn describe_key(
        self: Arc<Self>,
        request: Request<v1::DescribeKeyRequest>,
    ) -> Result<Response<v1::DescribeKeyResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = DescribeKey {
            key_id: Some(request.key_id),
            grant_tokens: request.grant_tokens,
        };
        let described = self.kms.describe_key(&caller, request, context.until).await;
        context.reply(described, |key| v1::DescribeKeyResponse {
            key_metadata: Some(key.into()),
        })
    }

    async fn list_keys(
        self: Arc<Self>,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = ListKeys {
            limit: request.limit.map(i64::from),
            marker: request.marker,
            ..ListKeys::default()
        };
        let listed = self.kms.list_keys(&caller, request);
        context.reply(listed, |page| v1::ListKeysResponse {
            keys: page
                .keys
                .into_iter()
                .map(|key| v1::KeyListEntry {
                    key_id: key.key_id.to_string(),
                    key_arn: key.arn.as_ref().to_owned(),
                })
                .collect(),
            truncated: page.next_marker.is_some(),
            next_marker: page.next_marker,
        })
    }

    async fn update_key_description(
        self: Arc<Self>,
        request: Request<v1::UpdateKeyDescriptionRequest>,
    ) -> Result<Response<v1::UpdateKeyDescriptionResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = UpdateKeyDescription {
            key_id: Some(request.key_id),
            description: Some(request.description),
        };
        let kms = &self.kms;
        let done = kms.update_key_description(&caller, request, context.until);
        context.reply(done.await, |()| v1::UpdateKeyDescriptionResponse {})
    }

    async fn enable_key(
        self: Arc<Self>,
        request: Request<v1::EnableKeyRequest>,
    ) -> Result<Response<v1::EnableKeyResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = EnableKey {
            key_id: Some(request.key_id),
        };
        let done = self.kms.enable_key(&caller, &request, context.until).await;
        context.reply(done, |()| v1::EnableKeyResponse {})
    }

    async fn disable_key(
        self: Arc<Self>,
        request: Request<v1::DisableKeyRequest>,
    ) -> Result<Response<v1::DisableKeyResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = DisableKey {
            key_id: Some(request.key_id),
        };
        let done = self.kms.disable_key(&caller, &request, context.until).await;
        context.reply(done, |()| v1::DisableKeyResponse {})
    }

    async fn schedule_key_deletion(
        self: Arc<Self>,
        request: Request<v1::ScheduleKeyDeletionRequest>,
    ) -> Result<Response<v1::ScheduleKeyDeletionResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = ScheduleKeyDeletion {
            key_id: Some(request.key_id),
            pending_window_in_days: request.pending_window_in_days.map(i64::from),
        };
        let kms = &self.kms;
        let done = kms.schedule_key_deletion(&caller, &request, context.until);
        context.reply(done.await, |scheduled| v1::ScheduleKeyDeletionResponse {
            key_id: scheduled.key_id.as_ref().to_owned(),
            deletion_date: Some(date(scheduled.deletion_date)),
            key_state: state(scheduled.key_state).into(),
            pending_window_in_days: i32::try_from(scheduled.pending_window_in_days)
                .expect("a window has 30 days at most"),
        })
    }

    async fn cancel_key_deletion(
        self: Arc<Self>,
        request: Request<v1::CancelKeyDeletionRequest>,
    ) -> Result<Response<v1::CancelKeyDeletionResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = CancelKeyDeletion {
            key_id: Some(request.key_id),
        };
        let kms = &self.kms;
        let done = kms.cancel_key_deletion(&caller, &request, context.until);
        context.reply(done.await, |arn| v1::CancelKeyDeletionResponse {
            key_id: arn.as_ref().to_owned(),
        })
    }

    async fn create_alias(
        self: Arc<Self>,
        request: Request<v1::CreateAliasRequest>,
    ) -> Result<Response<v1::CreateAliasResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = CreateAlias {
            alias_name: Some(request.alias_name),
            target_key_id: Some(request.target_key_id),
        };
        let done = self
            .kms
            .create_alias(&caller, &request, context.until)
            .await;
        context.reply(done, |()| v1::CreateAliasResponse {})
    }

    async fn update_alias(
        self: Arc<Self>,
        request: Request<v1::UpdateAliasRequest>,
    ) -> Result<Response<v1::UpdateAliasResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = UpdateAlias {
            alias_name: Some(request.alias_name),
            target_key_id: Some(request.target_key_id),
        };
        let done = self
            .kms
            .update_alias(&caller, &request, context.until)
            .await;
        context.reply(done, |()| v1::UpdateAliasResponse {})
    }

    async fn delete_alias(
        self: Arc<Self>,
        request: Request<v1::DeleteAliasRequest>,
    ) -> Result<Response<v1::DeleteAliasResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = DeleteAlias {
            alias_name: Some(request.alias_name),
        };
        let done = self
            .kms
            .delete_alias(&caller, &request, context.until)
            .await;
        context.reply(done, |()| v1::DeleteAliasResponse {})
    }

    async fn list_aliases(
        self: Arc<Self>,
        request: Request<v1::ListAliasesRequest>,
    ) -> Result<Response<v1::ListAliasesResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = ListAliases {
            key_id: request.key_id,
            limit: request.limit.map(i64::from),
            marker: request.marker,
        };
        let listed = self.kms.list_aliases(&caller, &request);
        context.reply(listed, |page| v1::ListAliasesResponse {
            aliases: page.aliases.into_iter().map(Into::into).collect(),
            truncated: page.next_marker.is_some(),
            next_marker: page.next_marker,
        })
    }

    async fn tag_resource(
        self: Arc<Self>,
        request: Request<v1::TagResourceRequest>,
    ) -> Result<Response<v1::TagResourceResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = TagResource {
            key_id: Some(request.key_id),
            tags: Some(pairs(request.tags)),
        };
        let done = self.kms.tag_resource(&caller, request, context.until).await;
        context.reply(done, |()| v1::TagResourceResponse {})
    }

    async fn untag_resource(
        self: Arc<Self>,
        request: Request<v1::UntagResourceRequest>,
    ) -> Result<Response<v1::UntagResourceResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = UntagResource {
            key_id: Some(request.key_id),
            tag_keys: Some(request.tag_keys),
        };
        let done = self
            .kms
            .untag_resource(&caller, &request, context.until)
            .await;
        context.reply(done, |()| v1::UntagResourceResponse {})
    }

    async fn list_resource_tags(
        self: Arc<Self>,
        request: Request<v1::ListResourceTagsRequest>,
    ) -> Result<Response<v1::ListResourceTagsResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = ListResourceTags {
            key_id: Some(request.key_id),
            limit: request.limit.map(i64::from),
            marker: request.marker,
        };
        let listed = self.kms.list_resource_tags(&caller, &request);
        context.reply(listed, |page| v1::ListResourceTagsResponse {
            tags: page.tags.iter().map(Into::into).collect(),
            truncated: page.next_marker.is_some(),
            next_marker: page.next_marker,
        })
    }

    async fn get_key_policy(
        self: Arc<Self>,
        request: Request<v1::GetKeyPolicyRequest>,
    ) -> Result<Response<v1::GetKeyPolicyResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = GetKeyPolicy {
            key_id: Some(request.key_id),
            policy_name: request.policy_name,
        };
        let found = self.kms.get_key_policy(&caller, &request);
        context.reply(found, |found| v1::GetKeyPolicyResponse {
            policy: found.policy,
            policy_name: found.policy_name.to_owned(),
        })
    }

    async fn put_key_policy(
        self: Arc<Self>,
        request: Request<v1::PutKeyPolicyRequest>,
    ) -> Result<Response<v1::PutKeyPolicyResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = PutKeyPolicy {
            key_id: Some(request.key_id),
            policy_name: request.policy_name,
            policy: request.policy,
            bypass_policy_lockout_safety_check: request.bypass_policy_lockout_safety_check,
        };
        let done = self.kms.put_key_policy(&caller, request, context.until);
        context.reply(done.await, |()| v1::PutKeyPolicyResponse {})
    }

    async fn list_key_policies(
        self: Arc<Self>,
        request: Request<v1::ListKeyPoliciesRequest>,
    ) -> Result<Response<v1::ListKeyPoliciesResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = ListKeyPolicies {
            key_id: Some(request.key_id),
            limit: request.limit.map(i64::from),
            marker: request.marker,
        };
        let listed = self.kms.list_key_policies(&caller, &request);
        context.reply(listed, |names| v1::ListKeyPoliciesResponse {
            policy_names: names.map(str::to_owned).to_vec(),
            next_marker: None,
            truncated: false,
        })
    }

    async fn create_grant(
        self: Arc<Self>,
        request: Request<v1::CreateGrantRequest>,
    ) -> Result<Response<v1::CreateGrantResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let made = self
            .kms
            .create_grant(&caller, &request.into(), context.until)
            .await;
        context.reply(made, |made| v1::CreateGrantResponse {
            grant_token: made.grant_token,
            grant_id: made.grant_id.to_string(),
        })
    }

    async fn list_grants(
        self: Arc<Self>,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = ListGrants {
            key_id: Some(request.key_id),
            limit: request.limit.map(i64::from),
            marker: request.marker,
            grant_id: request.grant_id,
            grantee_principal: request.grantee_principal,
            grantee_service_principal: None,
        };
        let listed = self.kms.list_grants(&caller, &request);
        context.reply(listed, |page| v1::ListGrantsResponse {
            grants: page.grants.into_iter().map(Into::into).collect(),
            truncated: page.next_marker.is_some(),
            next_marker: page.next_marker,
        })
    }

    async fn list_retirable_grants(
        self: Arc<Self>,
        request: Request<v1::ListRetirableGrantsRequest>,
    ) -> Result<Response<v1::ListRetirableGrantsResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = ListRetirableGrants {
            limit: request.limit.map(i64::from),
            marker: request.marker,
            retiring_principal: request.retiring_principal,
            retiring_service_principal: None,
        };
        let listed = self.kms.list_retirable_grants(&caller, &request);
        context.reply(listed, |page| v1::ListRetirableGrantsResponse {
            grants: page.grants.into_iter().map(Into::into).collect(),
            truncated: page.next_marker.is_some(),
            next_marker: page.next_marker,
        })
    }

    async fn retire_grant(
        self: Arc<Self>,
        request: Request<v1::RetireGrantRequest>,
    ) -> Result<Response<v1::RetireGrantResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = RetireGrant {
            grant_token: request.grant_token,
            key_id: request.key_id,
            grant_id: request.grant_id,
            dry_run: request.dry_run,
        };
        let done = self
            .kms
            .retire_grant(&caller, &request, context.until)
            .await;
        context.reply(done, |()| v1::RetireGrantResponse {})
    }

    async fn revoke_grant(
        self: Arc<Self>,
        request: Request<v1::RevokeGrantRequest>,
    ) -> Result<Response<v1::RevokeGrantResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = RevokeGrant {
            key_id: Some(request.key_id),
            grant_id: Some(request.grant_id),
            dry_run: request.dry_run,
        };
        let done = self
            .kms
            .revoke_grant(&caller, &request, context.until)
            .await;
        context.reply(done, |()| v1::RevokeGrantResponse {})
    }

    async fn get_key_last_usage(
        self: Arc<Self>,
        request: Request<v1::GetKeyLastUsageRequest>,
    ) -> Result<Response<v1::GetKeyLastUsageResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = GetKeyLastUsage {
            key_id: Some(request.key_id),
        };
        let told = self.kms.key_last_usage(&caller, &request);
        context.reply(told, |usage| v1::GetKeyLastUsageResponse {
            key_id: usage.key_id.as_ref().to_owned(),
            key_last_usage: usage.last.map(|(operation, at)| v1::KeyLastUsage {
                operation: operation.name().to_owned(),
                timestamp: Some(date(at)),
            }),
            tracking_start_date: Some(date(usage.tracking_start)),
            key_creation_date: usage.key_creation.map(date),
        })
    }

    async fn get_key_rotation_status(
        self: Arc<Self>,
        request: Request<v1::GetKeyRotationStatusRequest>,
    ) -> Result<Response<v1::GetKeyRotationStatusResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let told = self.kms.key_rotation_status(&caller, Some(&request.key_id));
        context.reply(told, |arn| v1::GetKeyRotationStatusResponse {
            key_id: arn.as_ref().to_owned(),
            key_rotation_enabled: false,
        })
    }

    async fn list_key_rotations(
        self: Arc<Self>,
        request: Request<v1::ListKeyRotationsRequest>,
    ) -> Result<Response<v1::ListKeyRotationsResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = ListKeyRotations {
            key_id: Some(request.key_id),
            include_key_material: include_key_material(request.include_key_material),
            limit: request.limit.map(i64::from),
            marker: request.marker,
        };
        let listed = self.kms.list_key_rotations(&caller, &request);
        context.reply(listed, |()| v1::ListKeyRotationsResponse::default())
    }

    async fn enable_key_rotation(
        self: Arc<Self>,
        request: Request<v1::EnableKeyRotationRequest>,
    ) -> Result<Response<v1::EnableKeyRotationResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = EnableKeyRotation {
            key_id: Some(request.key_id),
            rotation_period_in_days: request.rotation_period_in_days.map(i64::from),
        };
        let never = self.kms.enable_key_rotation(&caller, &request);
        context.reply(never, |never| match never {})
    }

    async fn disable_key_rotation(
        self: Arc<Self>,
        request: Request<v1::DisableKeyRotationRequest>,
    ) -> Result<Response<v1::DisableKeyRotationResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let done = self
            .kms
            .disable_key_rotation(&caller, Some(&request.key_id));
        context.reply(done, |()| v1::DisableKeyRotationResponse {})
    }

    async fn rotate_key_on_demand(
        self: Arc<Self>,
        request: Request<v1::RotateKeyOnDemandRequest>,
    ) -> Result<Response<v1::RotateKeyOnDemandResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let never = self
            .kms
            .rotate_key_on_demand(&caller, Some(&request.key_id));
        context.reply(never, |never| match never {})
    }
}
