use super::{
    super::wire::{Members, bytes},
    Answered, Bytes, Call, answer,
};
use crate::{
    error::{Error, Kind},
    kms::{
        CancelKeyDeletion, CreateAlias, CreateKey, DeleteAlias, DescribeKey, DisableKey, EnableKey,
        GetKeyLastUsage, GetKeyPolicy, IncludeKeyMaterial, Kms, ListAliases, ListKeyPolicies,
        ListKeyRotations, ListKeys, ListResourceTags, Named, PutKeyPolicy, ScheduleKeyDeletion,
        TagPair, TagResource, UntagResource, UpdateAlias, UpdateKeyDescription,
    },
    model::{Caller, KeySpec, KeyUsage, Origin},
};

impl Call<'_> {
    pub(super) async fn create_key(mut self) -> Answered {
        let asked = &mut self.asked;
        let request = CreateKey {
            policy: asked.text("Policy")?,
            description: asked.text("Description")?,
            key_usage: asked.named("KeyUsage", &KeyUsage::ALL, KeyUsage::name)?,
            key_spec: key_spec(asked)?,
            origin: asked.named("Origin", &Origin::ALL, Origin::name)?,
            tags: tags(asked)?.unwrap_or_default(),
            multi_region: asked.flag("MultiRegion")?,
            bypass_policy_lockout_safety_check: asked.flag(BYPASS)?,
        };
        asked.refuse("CustomKeyStoreId")?;
        asked.refuse("XksKeyId")?;
        let made = self.kms.create_key(self.caller, request, self.until);
        Ok(bytes(&answer::Key::from(made.await?)))
    }

    pub(super) async fn describe_key(mut self) -> Answered {
        let request = DescribeKey {
            key_id: self.asked.text("KeyId")?,
            grant_tokens: self.asked.texts("GrantTokens")?,
        };
        let described = self.kms.describe_key(self.caller, request, self.until);
        Ok(bytes(&answer::Key::from(described.await?)))
    }

    pub(super) fn list_keys(mut self) -> Answered {
        let request = ListKeys {
            limit: self.asked.number("Limit")?,
            marker: self.asked.text("Marker")?,
        };
        let page = self.kms.list_keys(self.caller, request)?;
        Ok(bytes(&answer::Keys::from(page)))
    }

    pub(super) async fn update_key_description(mut self) -> Answered {
        let request = UpdateKeyDescription {
            key_id: self.asked.text("KeyId")?,
            description: self.asked.text("Description")?,
        };
        let done = self
            .kms
            .update_key_description(self.caller, request, self.until);
        succeeded(done.await)
    }

    pub(super) async fn enable_key(mut self) -> Answered {
        let key_id = self.asked.text("KeyId")?;
        let request = EnableKey { key_id };
        succeeded(self.kms.enable_key(self.caller, &request, self.until).await)
    }

    pub(super) async fn disable_key(mut self) -> Answered {
        let key_id = self.asked.text("KeyId")?;
        let request = DisableKey { key_id };
        succeeded(
            self.kms
                .disable_key(self.caller, &request, self.until)
                .await,
        )
    }

    pub(super) async fn schedule_key_deletion(mut self) -> Answered {
        let request = ScheduleKeyDeletion {
            key_id: self.asked.text("KeyId")?,
            pending_window_in_days: self.asked.number("PendingWindowInDays")?,
        };
        let scheduled = self
            .kms
            .schedule_key_deletion(self.caller, &request, self.until);
        Ok(bytes(&answer::DeletionScheduled::from(scheduled.await?)))
    }

    pub(super) async fn cancel_key_deletion(mut self) -> Answered {
        let key_id = self.asked.text("KeyId")?;
        let request = CancelKeyDeletion { key_id };
        let cancelled = self
            .kms
            .cancel_key_deletion(self.caller, &request, self.until);
        let key_id = &*cancelled.await?;
        Ok(bytes(&answer::OnlyKeyId { key_id }))
    }

    pub(super) async fn create_alias(mut self) -> Answered {
        let request = CreateAlias {
            alias_name: self.asked.text("AliasName")?,
            target_key_id: self.asked.text("TargetKeyId")?,
        };
        let done = self.kms.create_alias(self.caller, &request, self.until);
        succeeded(done.await)
    }

    pub(super) async fn update_alias(mut self) -> Answered {
        let request = UpdateAlias {
            alias_name: self.asked.text("AliasName")?,
            target_key_id: self.asked.text("TargetKeyId")?,
        };
        let done = self.kms.update_alias(self.caller, &request, self.until);
        succeeded(done.await)
    }

    pub(super) async fn delete_alias(mut self) -> Answered {
        let alias_name = self.asked.text("AliasName")?;
        let request = DeleteAlias { alias_name };
        let done = self.kms.delete_alias(self.caller, &request, self.until);
        succeeded(done.await)
    }

    pub(super) fn list_aliases(mut self) -> Answered {
        let request = ListAliases {
            key_id: self.asked.text("KeyId")?,
            limit: self.asked.number("Limit")?,
            marker: self.asked.text("Marker")?,
        };
        let page = self.kms.list_aliases(self.caller, &request)?;
        Ok(bytes(&answer::Aliases::from(page)))
    }

    pub(super) async fn tag_resource(mut self) -> Answered {
        let request = TagResource {
            key_id: self.asked.text("KeyId")?,
            tags: tags(&mut self.asked)?,
        };
        let done = self.kms.tag_resource(self.caller, request, self.until);
        succeeded(done.await)
    }

    pub(super) async fn untag_resource(mut self) -> Answered {
        let request = UntagResource {
            key_id: self.asked.text("KeyId")?,
            tag_keys: self.asked.texts_if_any("TagKeys")?,
        };
        let done = self.kms.untag_resource(self.caller, &request, self.until);
        succeeded(done.await)
    }

    pub(super) fn list_resource_tags(mut self) -> Answered {
        let request = ListResourceTags {
            key_id: self.asked.text("KeyId")?,
            limit: self.asked.number("Limit")?,
            marker: self.asked.text("Marker")?,
        };
        let page = self.kms.list_resource_tags(self.caller, &request)?;
        Ok(bytes(&answer::Tags::from(page)))
    }

    pub(super) fn get_key_policy(mut self) -> Answered {
        let request = GetKeyPolicy {
            key_id: self.asked.text("KeyId")?,
            policy_name: self.asked.text("PolicyName")?,
        };
        let found = self.kms.get_key_policy(self.caller, &request)?;
        Ok(bytes(&answer::Policy {
            policy: &found.policy,
            policy_name: found.policy_name,
        }))
    }

    pub(super) async fn put_key_policy(mut self) -> Answered {
        let request = PutKeyPolicy {
            key_id: self.asked.text("KeyId")?,
            policy_name: self.asked.text("PolicyName")?,
            policy: self.asked.text("Policy")?,
            bypass_policy_lockout_safety_check: self.asked.flag(BYPASS)?,
        };
        let done = self.kms.put_key_policy(self.caller, request, self.until);
        succeeded(done.await)
    }

    pub(super) fn list_key_policies(mut self) -> Answered {
        let request = ListKeyPolicies {
            key_id: self.asked.text("KeyId")?,
            limit: self.asked.number("Limit")?,
            marker: self.asked.text("Marker")?,
        };
        let names = self.kms.list_key_policies(self.caller, &request)?;
        Ok(bytes(&answer::PolicyNames::of(names)))
    }

    pub(super) fn get_key_last_usage(mut self) -> Answered {
        let key_id = self.asked.text("KeyId")?;
        let request = GetKeyLastUsage { key_id };
        let usage = self.kms.key_last_usage(self.caller, &request)?;
        Ok(bytes(&answer::LastUsage::from(usage)))
    }

    pub(super) fn get_key_rotation_status(mut self) -> Answered {
        let key_id = self.asked.text("KeyId")?;
        let arn = self
            .kms
            .key_rotation_status(self.caller, key_id.as_deref())?;
        Ok(bytes(&answer::RotationStatus {
            key_id: &arn,
            key_rotation_enabled: false,
        }))
    }

    pub(super) fn list_key_rotations(mut self) -> Answered {
        let request = ListKeyRotations {
            key_id: self.asked.text("KeyId")?,
            include_key_material: self.asked.named(
                "IncludeKeyMaterial",
                &IncludeKeyMaterial::ALL,
                IncludeKeyMaterial::name,
            )?,
            limit: self.asked.number("Limit")?,
            marker: self.asked.text("Marker")?,
        };
        self.kms.list_key_rotations(self.caller, &request)?;
        Ok(bytes(&answer::NoRotations::default()))
    }

    /// The operations of the rotation family that only succeed or fail.
    pub(super) fn rotation(
        mut self,
        operation: impl FnOnce(&Kms, &Caller, Option<&str>) -> Result<(), Error>,
    ) -> Answered {
        let key_id = self.asked.text("KeyId")?;
        succeeded(operation(self.kms, self.caller, key_id.as_deref()))
    }
}

/// The answer of an operation that says nothing more.
fn succeeded(done: Result<(), Error>) -> Answered {
    done.map(|()| Bytes::new())
}

/// KeySpec, or what it was called before.
fn key_spec(asked: &mut Members) -> Result<Named<KeySpec>, Error> {
    let spec = asked.named("KeySpec", &KeySpec::ALL, KeySpec::name)?;
    let before = asked.named("CustomerMasterKeySpec", &KeySpec::ALL, KeySpec::name)?;
    match (spec, before) {
        (spec, Named::Absent) => Ok(spec),
        (Named::Absent, before) => Ok(before),
        (Named::Known(_) | Named::Unknown(_), Named::Known(_) | Named::Unknown(_)) => {
            Err(Error::new(
                Kind::Validation,
                "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.",
            ))
        }
    }
}

fn tags(asked: &mut Members) -> Result<Option<Vec<TagPair>>, Error> {
    let pair = |mut tag: Members| Ok((tag.text("TagKey")?, tag.text("TagValue")?));
    asked
        .structures("Tags")?
        .map(|tags| tags.into_iter().map(pair).collect())
        .transpose()
}

const BYPASS: &str = "BypassPolicyLockoutSafetyCheck";
