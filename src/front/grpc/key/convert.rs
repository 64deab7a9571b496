//! Members of KeyService's messages, between protobuf and the model.

use prost_types::Timestamp;

use super::super::mac::algorithm_to_proto;
use crate::{
    kms::{
        CreateGrant, EnumMember, GrantConstraints, IncludeKeyMaterial, KeyMetadata, ListedAlias,
        ListedGrant, TagPair, TokenFacts,
    },
    model::{Date, KeySpec, KeyState, KeyUsage, Origin, Tag},
    proto::v1,
};

impl From<KeyMetadata> for v1::KeyMetadata {
    fn from(key: KeyMetadata) -> Self {
        let spec = match key.spec {
            KeySpec::Hmac224 => v1::KeySpec::Hmac224,
            KeySpec::Hmac256 => v1::KeySpec::Hmac256,
            KeySpec::Hmac384 => v1::KeySpec::Hmac384,
            KeySpec::Hmac512 => v1::KeySpec::Hmac512,
        };
        let origin = match key.origin {
            Origin::AwsKms => v1::Origin::AwsKms,
            Origin::External => v1::Origin::External,
            Origin::AwsCloudHsm => v1::Origin::AwsCloudhsm,
        };
        Self {
            aws_account_id: key.account.to_string(),
            key_id: key.key_id.to_string(),
            arn: key.arn.as_ref().to_owned(),
            creation_date: key.created.map(date),
            enabled: key.state == KeyState::Enabled,
            description: key.description.as_str().to_owned(),
            key_usage: v1::KeyUsage::GenerateVerifyMac.into(),
            key_state: state(key.state).into(),
            origin: origin.into(),
            key_manager: v1::KeyManager::Customer.into(),
            key_spec: spec.into(),
            multi_region: false,
            mac_algorithms: vec![algorithm_to_proto(key.spec.mac_algorithm()).into()],
            token: key.token.map(Into::into),
            deletion_date: key.deletion_date.map(date),
        }
    }
}

impl From<TokenFacts> for v1::TokenInfo {
    fn from(token: TokenFacts) -> Self {
        Self {
            name: token.name,
            label: token.label,
            manufacturer: token.manufacturer,
            model: token.model,
            serial_number: token.serial_number,
            sensitive: token.sensitive,
            non_extractable: token.non_extractable,
            never_extractable: token.never_extractable,
            local: token.local,
            check_value: token.check_value,
            check_value_pinned: token.check_value_pinned,
        }
    }
}

impl From<ListedAlias> for v1::AliasListEntry {
    fn from(alias: ListedAlias) -> Self {
        Self {
            alias_name: alias.name.to_string(),
            alias_arn: alias.arn,
            target_key_id: alias.target_key_id.map(|id| id.to_string()),
            creation_date: alias.created.map(date),
            last_updated_date: alias.updated.map(date),
        }
    }
}

impl From<v1::CreateGrantRequest> for CreateGrant {
    fn from(request: v1::CreateGrantRequest) -> Self {
        let constraints = request.constraints.map(|it| GrantConstraints {
            encryption_context_subset: it.encryption_context_subset.len(),
            encryption_context_equals: it.encryption_context_equals.len(),
            source_arn: it.source_arn,
        });
        Self {
            key_id: Some(request.key_id),
            grantee_principal: request.grantee_principal,
            retiring_principal: request.retiring_principal,
            operations: Some(request.operations),
            constraints,
            grant_tokens: request.grant_tokens,
            name: request.name,
            dry_run: request.dry_run,
            grantee_service_principal: None,
            retiring_service_principal: None,
        }
    }
}

impl From<ListedGrant> for v1::GrantListEntry {
    fn from(grant: ListedGrant) -> Self {
        let operations = grant.operations.iter();
        Self {
            key_id: grant.key_id,
            grant_id: grant.grant_id.to_string(),
            name: grant.name,
            creation_date: Some(date(grant.created)),
            grantee_principal: grant.grantee_principal,
            retiring_principal: grant.retiring_principal,
            issuing_account: format!("arn:aws:iam::{}:root", grant.issuing_account),
            operations: operations.map(|one| one.name().to_owned()).collect(),
            constraints: grant.source_arn.map(|source_arn| v1::GrantConstraints {
                source_arn: Some(source_arn),
                ..v1::GrantConstraints::default()
            }),
        }
    }
}

impl From<&Tag> for v1::Tag {
    fn from(tag: &Tag) -> Self {
        Self {
            tag_key: tag.key().to_owned(),
            tag_value: tag.value().to_owned(),
        }
    }
}

pub(super) fn pairs(tags: Vec<v1::Tag>) -> Vec<TagPair> {
    tags.into_iter()
        .map(|tag| (Some(tag.tag_key), Some(tag.tag_value)))
        .collect()
}

pub(super) fn state(state: KeyState) -> v1::KeyState {
    match state {
        KeyState::Creating => v1::KeyState::Creating,
        KeyState::Enabled => v1::KeyState::Enabled,
        KeyState::Disabled => v1::KeyState::Disabled,
        KeyState::PendingDeletion => v1::KeyState::PendingDeletion,
        KeyState::PendingImport => v1::KeyState::PendingImport,
        KeyState::Unavailable => v1::KeyState::Unavailable,
    }
}

pub(super) fn date(date: Date) -> Timestamp {
    let millis = date.millis();
    Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
    }
}

pub(super) fn key_spec(number: i32) -> EnumMember<KeySpec> {
    match v1::KeySpec::try_from(number) {
        Ok(v1::KeySpec::Unspecified) => EnumMember::Absent,
        Ok(v1::KeySpec::Hmac224) => EnumMember::Known(KeySpec::Hmac224),
        Ok(v1::KeySpec::Hmac256) => EnumMember::Known(KeySpec::Hmac256),
        Ok(v1::KeySpec::Hmac384) => EnumMember::Known(KeySpec::Hmac384),
        Ok(v1::KeySpec::Hmac512) => EnumMember::Known(KeySpec::Hmac512),
        Err(_) => EnumMember::Unknown(number.to_string()),
    }
}

pub(super) fn key_usage(number: i32) -> EnumMember<KeyUsage> {
    match v1::KeyUsage::try_from(number) {
        Ok(v1::KeyUsage::Unspecified) => EnumMember::Absent,
        Ok(v1::KeyUsage::GenerateVerifyMac) => EnumMember::Known(KeyUsage::GenerateVerifyMac),
        Err(_) => EnumMember::Unknown(number.to_string()),
    }
}

pub(super) fn origin(number: i32) -> EnumMember<Origin> {
    match v1::Origin::try_from(number) {
        Ok(v1::Origin::Unspecified) => EnumMember::Absent,
        Ok(v1::Origin::AwsKms) => EnumMember::Known(Origin::AwsKms),
        Ok(v1::Origin::External) => EnumMember::Known(Origin::External),
        Ok(v1::Origin::AwsCloudhsm) => EnumMember::Known(Origin::AwsCloudHsm),
        Err(_) => EnumMember::Unknown(number.to_string()),
    }
}

pub(super) fn include_key_material(number: i32) -> EnumMember<IncludeKeyMaterial> {
    match v1::IncludeKeyMaterial::try_from(number) {
        Ok(v1::IncludeKeyMaterial::Unspecified) => EnumMember::Absent,
        Ok(v1::IncludeKeyMaterial::AllKeyMaterial) => {
            EnumMember::Known(IncludeKeyMaterial::AllKeyMaterial)
        }
        Ok(v1::IncludeKeyMaterial::RotationsOnly) => {
            EnumMember::Known(IncludeKeyMaterial::RotationsOnly)
        }
        Err(_) => EnumMember::Unknown(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_meaning() {
        for spec in KeySpec::ALL {
            let number = v1::KeySpec::from_str_name(spec.name()).unwrap();
            assert_eq!(key_spec(number.into()), EnumMember::Known(spec));
        }
        for known in KeyState::ALL {
            let name = format!("{known:?}").to_uppercase();
            assert_eq!(state(known).as_str_name().replace('_', ""), name);
        }
        assert_eq!(key_spec(0), EnumMember::Absent);
        assert_eq!(key_usage(7), EnumMember::Unknown("7".into()));
        assert_eq!(origin(2), EnumMember::Known(Origin::External));
    }

    #[test]
    fn dates_have_milliseconds() {
        let told = date(Date::of_millis(1_669_973_196_214));
        assert_eq!((told.seconds, told.nanos), (1_669_973_196, 214_000_000));
    }
}
