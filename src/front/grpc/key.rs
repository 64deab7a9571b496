use std::sync::Arc;

use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{layer::Context, mac::wire};
use crate::{
    kms::{DescribeKey, KeyMetadata, Kms, ListKeys, TokenFacts},
    model::{Date, KeySpec, KeyState, Origin},
    proto::v1::{self, key_service_server::KeyService},
};

/// hsmac.v1.KeyService: wire ↔ model, nothing more.
pub(super) struct Key {
    pub(super) kms: Arc<Kms>,
}

#[tonic::async_trait]
impl KeyService for Key {
    async fn describe_key(
        self: Arc<Self>,
        request: Request<v1::DescribeKeyRequest>,
    ) -> Result<Response<v1::DescribeKeyResponse>, Status> {
        let (context, caller, request) = Context::take(request)?;
        let request = DescribeKey {
            key_id: Some(request.key_id),
            grant_tokens: request.grant_tokens,
        };
        match self.kms.describe_key(&caller, request, context.until).await {
            Ok(key) => Ok(Response::new(v1::DescribeKeyResponse {
                key_metadata: Some(key.into()),
            })),
            Err(error) => Err(context.status(&error)),
        }
    }

    async fn list_keys(
        self: Arc<Self>,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let (context, caller, request) = Context::take(request)?;
        let request = ListKeys {
            limit: request.limit.map(i64::from),
            marker: request.marker,
        };
        match self.kms.list_keys(&caller, request) {
            Ok(page) => Ok(Response::new(v1::ListKeysResponse {
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
            })),
            Err(error) => Err(context.status(&error)),
        }
    }
}

impl From<KeyMetadata> for v1::KeyMetadata {
    fn from(key: KeyMetadata) -> Self {
        let spec = match key.spec {
            KeySpec::Hmac224 => v1::KeySpec::Hmac224,
            KeySpec::Hmac256 => v1::KeySpec::Hmac256,
            KeySpec::Hmac384 => v1::KeySpec::Hmac384,
            KeySpec::Hmac512 => v1::KeySpec::Hmac512,
        };
        let state = match key.state {
            KeyState::Creating => v1::KeyState::Creating,
            KeyState::Enabled => v1::KeyState::Enabled,
            KeyState::Disabled => v1::KeyState::Disabled,
            KeyState::PendingDeletion => v1::KeyState::PendingDeletion,
            KeyState::PendingImport => v1::KeyState::PendingImport,
            KeyState::Unavailable => v1::KeyState::Unavailable,
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
            key_state: state.into(),
            origin: origin.into(),
            key_manager: v1::KeyManager::Customer.into(),
            key_spec: spec.into(),
            multi_region: false,
            mac_algorithms: vec![wire(key.spec.mac_algorithm()).into()],
            token: key.token.map(Into::into),
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

fn date(date: Date) -> Timestamp {
    let millis = date.millis();
    Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
    }
}
