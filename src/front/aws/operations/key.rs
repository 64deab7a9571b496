//! Operations on keys, aliases, tags and policies: JSON members to requests of `kms`, and its
//! answers back.

use super::{
    super::json::{Members, bytes},
    Answered, Bytes, Call, responses,
};
use crate::{
    error::Error,
    kms::{
        CancelKeyDeletion, CreateAlias, CreateKey, DeleteAlias, DescribeCustomKeyStores,
        DescribeKey, DisableKey, EnableKey, EnableKeyRotation, EnumMember, GetKeyLastUsage,
        GetKeyPolicy, IncludeKeyMaterial, ListAliases, ListKeyPolicies, ListKeyRotations, ListKeys,
        ListResourceTags, PutKeyPolicy, ScheduleKeyDeletion, TagPair, TagResource, UntagResource,
        UpdateAlias, UpdateKeyDescription,
    },
    model::{KeySpec, KeyUsage, Origin},
};

impl Call<'_> {
    pub(super) async fn create_key(mut self) -> Answered {
        let members = &mut self.members;
        let request = CreateKey {
            policy: members.text("Policy")?,
            description: members.text("Description")?,
            key_usage: members.named("KeyUsage", &KeyUsage::ALL, KeyUsage::name)?,
            key_spec: key_spec(members, "KeySpec")?,
            customer_master_key_spec: key_spec(members, "CustomerMasterKeySpec")?,
            origin: members.named("Origin", &Origin::ALL, Origin::name)?,
            tags: tags(members)?.unwrap_or_default(),
            multi_region: members.flag("MultiRegion")?,
            bypass_policy_lockout_safety_check: members.flag(BYPASS)?,
            custom_key_store_id: members.text("CustomKeyStoreId")?,
            xks_key_id: members.text("XksKeyId")?,
        };
        let made = self.kms.create_key(self.caller, request, self.until);
        Ok(bytes(&responses::Key::from(made.await?)))
    }

    pub(super) async fn describe_key(mut self) -> Answered {
        let request = DescribeKey {
            key_id: self.members.text("KeyId")?,
            grant_tokens: self.members.texts("GrantTokens")?,
        };
        let described = self.kms.describe_key(self.caller, request, self.until);
        Ok(bytes(&responses::Key::from(described.await?)))
    }

    pub(super) fn list_keys(mut self) -> Answered {
        let request = ListKeys {
            limit: self.members.number("Limit")?,
            marker: self.members.text("Marker")?,
            resource_owners: self.members.texts_if_any("ResourceOwners")?,
        };
        let page = self.kms.list_keys(self.caller, request)?;
        Ok(bytes(&responses::Keys::from(page)))
    }

    pub(super) async fn update_key_description(mut self) -> Answered {
        let request = UpdateKeyDescription {
            key_id: self.members.text("KeyId")?,
            description: self.members.text("Description")?,
        };
        let done = self
            .kms
            .update_key_description(self.caller, request, self.until);
        succeeded(done.await)
    }

    pub(super) async fn enable_key(mut self) -> Answered {
        let key_id = self.members.text("KeyId")?;
        let request = EnableKey { key_id };
        succeeded(self.kms.enable_key(self.caller, &request, self.until).await)
    }

    pub(super) async fn disable_key(mut self) -> Answered {
        let key_id = self.members.text("KeyId")?;
        let request = DisableKey { key_id };
        succeeded(
            self.kms
                .disable_key(self.caller, &request, self.until)
                .await,
        )
    }

    pub(super) async fn schedule_key_deletion(mut self) -> Answered {
        let request = ScheduleKeyDeletion {
            key_id: self.members.text("KeyId")?,
            pending_window_in_days: self.members.number("PendingWindowInDays")?,
        };
        let scheduled = self
            .kms
            .schedule_key_deletion(self.caller, &request, self.until);
        Ok(bytes(&responses::DeletionScheduled::from(scheduled.await?)))
    }

    pub(super) async fn cancel_key_deletion(mut self) -> Answered {
        let key_id = self.members.text("KeyId")?;
        let request = CancelKeyDeletion { key_id };
        let cancelled = self
            .kms
            .cancel_key_deletion(self.caller, &request, self.until);
        let key_id = &*cancelled.await?;
        Ok(bytes(&responses::OnlyKeyId { key_id }))
    }

    pub(super) async fn create_alias(mut self) -> Answered {
        let request = CreateAlias {
            alias_name: self.members.text("AliasName")?,
            target_key_id: self.members.text("TargetKeyId")?,
        };
        let done = self.kms.create_alias(self.caller, &request, self.until);
        succeeded(done.await)
    }

    pub(super) async fn update_alias(mut self) -> Answered {
        let request = UpdateAlias {
            alias_name: self.members.text("AliasName")?,
            target_key_id: self.members.text("TargetKeyId")?,
        };
        let done = self.kms.update_alias(self.caller, &request, self.until);
        succeeded(done.await)
    }

    pub(super) async fn delete_alias(mut self) -> Answered {
        let alias_name = self.members.text("AliasName")?;
        let request = DeleteAlias { alias_name };
        let done = self.kms.delete_alias(self.caller, &request, self.until);
        succeeded(done.await)
    }

    pub(super) fn list_aliases(mut self) -> Answered {
        let request = ListAliases {
            key_id: self.members.text("KeyId")?,
            limit: self.members.number("Limit")?,
            marker: self.members.text("Marker")?,
        };
        let page = self.kms.list_aliases(self.caller, &request)?;
        Ok(bytes(&responses::Aliases::from(page)))
    }

    pub(super) async fn tag_resource(mut self) -> Answered {
        let request = TagResource {
            key_id: self.members.text("KeyId")?,
            tags: tags(&mut self.members)?,
        };
        let done = self.kms.tag_resource(self.caller, request, self.until);
        succeeded(done.await)
    }

    pub(super) async fn untag_resource(mut self) -> Answered {
        let request = UntagResource {
            key_id: self.members.text("KeyId")?,
            tag_keys: self.members.texts_if_any("TagKeys")?,
        };
        let done = self.kms.untag_resource(self.caller, &request, self.until);
        succeeded(done.await)
    }

    pub(super) fn list_resource_tags(mut self) -> Answered {
        let request = ListResourceTags {
            key_id: self.members.text("KeyId")?,
            limit: self.members.number("Limit")?,
            marker: self.members.text("Marker")?,
        };
        let page = self.kms.list_resource_tags(self.caller, &request)?;
        Ok(bytes(&responses::Tags::from(page)))
    }

    pub(super) fn get_key_policy(mut self) -> Answered {
        let request = GetKeyPolicy {
            key_id: self.members.text("KeyId")?,
            policy_name: self.members.text("PolicyName")?,
        };
        let found = self.kms.get_key_policy(self.caller, &request)?;
        Ok(bytes(&responses::Policy {
            policy: &found.policy,
            policy_name: found.policy_name,
        }))
    }

    pub(super) async fn put_key_policy(mut self) -> Answered {
        let request = PutKeyPolicy {
            key_id: self.members.text("KeyId")?,
            policy_name: self.members.text("PolicyName")?,
            policy: self.members.text("Policy")?,
            bypass_policy_lockout_safety_check: self.members.flag(BYPASS)?,
        };
        let done = self.kms.put_key_policy(self.caller, request, self.until);
        succeeded(done.await)
    }

    pub(super) fn list_key_policies(mut self) -> Answered {
        let request = ListKeyPolicies {
            key_id: self.members.text("KeyId")?,
            limit: self.members.number("Limit")?,
            marker: self.members.text("Marker")?,
        };
        let names = self.kms.list_key_policies(self.caller, &request)?;
        Ok(bytes(&responses::PolicyNames::of(names)))
    }

    pub(super) fn describe_custom_key_stores(mut self) -> Answered {
        let request = DescribeCustomKeyStores {
            custom_key_store_id: self.members.text("CustomKeyStoreId")?,
            custom_key_store_name: self.members.text("CustomKeyStoreName")?,
            limit: self.members.number("Limit")?,
            marker: self.members.text("Marker")?,
        };
        self.kms.describe_custom_key_stores(self.caller, &request)?;
        Ok(bytes(&responses::NoCustomKeyStores::default()))
    }

    pub(super) fn get_key_last_usage(mut self) -> Answered {
        let key_id = self.members.text("KeyId")?;
        let request = GetKeyLastUsage { key_id };
        let usage = self.kms.key_last_usage(self.caller, &request)?;
        Ok(bytes(&responses::LastUsage::from(usage)))
    }

    pub(super) fn get_key_rotation_status(mut self) -> Answered {
        let key_id = self.members.text("KeyId")?;
        let arn = self
            .kms
            .key_rotation_status(self.caller, key_id.as_deref())?;
        Ok(bytes(&responses::RotationStatus {
            key_id: &arn,
            key_rotation_enabled: false,
        }))
    }

    pub(super) fn list_key_rotations(mut self) -> Answered {
        let request = ListKeyRotations {
            key_id: self.members.text("KeyId")?,
            include_key_material: self.members.named(
                "IncludeKeyMaterial",
                &IncludeKeyMaterial::ALL,
                IncludeKeyMaterial::name,
            )?,
            limit: self.members.number("Limit")?,
            marker: self.members.text("Marker")?,
        };
        self.kms.list_key_rotations(self.caller, &request)?;
        Ok(bytes(&responses::NoRotations::default()))
    }

    pub(super) fn enable_key_rotation(mut self) -> Answered {
        let request = EnableKeyRotation {
            key_id: self.members.text("KeyId")?,
            rotation_period_in_days: self.members.number("RotationPeriodInDays")?,
        };
        let never = self.kms.enable_key_rotation(self.caller, &request)?;
        match never {}
    }

    pub(super) fn disable_key_rotation(mut self) -> Answered {
        let key_id = self.members.text("KeyId")?;
        succeeded(
            self.kms
                .disable_key_rotation(self.caller, key_id.as_deref()),
        )
    }

    pub(super) fn rotate_key_on_demand(mut self) -> Answered {
        let key_id = self.members.text("KeyId")?;
        let never = self
            .kms
            .rotate_key_on_demand(self.caller, key_id.as_deref())?;
        match never {}
    }
}

/// The answer of an operation that says nothing more.
fn succeeded(done: Result<(), Error>) -> Answered {
    done.map(|()| Bytes::new())
}

fn key_spec(members: &mut Members, member: &str) -> Result<EnumMember<KeySpec>, Error> {
    members.named(member, &KeySpec::ALL, KeySpec::name)
}

fn tags(members: &mut Members) -> Result<Option<Vec<TagPair>>, Error> {
    let pair = |mut tag: Members| Ok((tag.text("TagKey")?, tag.text("TagValue")?));
    members
        .structures("Tags")?
        .map(|tags| tags.into_iter().map(pair).collect())
        .transpose()
}

const BYPASS: &str = "BypassPolicyLockoutSafetyCheck";
