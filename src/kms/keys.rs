use std::time::Instant;

use uuid::Uuid;

use super::{
    Kms, Named,
    catalogue::Record,
    create::{self, NewKey},
    describe::KeyMetadata,
    records::Life,
    rights::{Asks, On},
    tags::TagPair,
    validate::{self, Asked},
};
use crate::{
    error::{Error, Kind},
    model::{Caller, KeyId, KeySpec, KeyUsage, Operation, Origin},
};

/// KMS: CreateKeyRequest.
#[derive(Clone, Debug)]
pub struct CreateKey {
    /// An IAM document; KMS's default key policy if absent.
    pub policy: Option<String>,
    /// Whether a policy may take from its writer the right to write another one.
    pub bypass_policy_lockout_safety_check: bool,
    /// At most 8,192 characters.
    pub description: Option<String>,
    /// Must be given: GENERATE_VERIFY_MAC.
    pub key_usage: Named<KeyUsage>,
    /// Must be given: KMS's default is no HMAC key.
    pub key_spec: Named<KeySpec>,
    /// AWS_KMS if absent.
    pub origin: Named<Origin>,
    /// At most 50.
    pub tags: Vec<TagPair>,
    /// There are no multi-Region keys.
    pub multi_region: bool,
}

/// KMS: UpdateKeyDescriptionRequest.
#[derive(Clone, Debug)]
pub struct UpdateKeyDescription {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// At most 8,192 characters; may be empty.
    pub description: Option<String>,
}

/// KMS: EnableKeyRequest.
#[derive(Clone, Debug)]
pub struct EnableKey {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
}

/// KMS: DisableKeyRequest.
#[derive(Clone, Debug)]
pub struct DisableKey {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
}

impl Kms {
    /// Makes a key inside the token.
    ///
    /// # Errors
    /// Those of KMS's CreateKey. [`Kind::DependencyTimeout`]: no key was made that anybody could
    /// name.
    pub async fn create_key(
        &self,
        caller: &Caller,
        request: CreateKey,
        until: Instant,
    ) -> Result<KeyMetadata, Error> {
        let mut broken = Vec::new();
        if let Some(policy) = &request.policy {
            validate::policy(policy, &mut broken);
        }
        let description = validate::description(
            Some(request.description.clone().unwrap_or_default()),
            &mut broken,
        );
        let usage = validate::key_usage(&request.key_usage, &mut broken);
        let spec = validate::key_spec(&request.key_spec, &mut broken);
        let origin = validate::origin(&request.origin, &mut broken);
        let tags = validate::tags(Some(request.tags.clone()), &mut broken);
        let (Some(description), Some(tags), true) = (description, tags, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let tags = tags?;
        let spec = makes(spec, usage)?;
        let asks = Asks {
            tags: Some(&tags),
            new_key: Some(spec),
            bypass_lockout_check: Some(request.bypass_policy_lockout_safety_check),
            ..Asks::default()
        };
        let key_id: KeyId = Uuid::new_v4()
            .to_string()
            .parse()
            .expect("a UUID is a key ID");
        let arn = self.catalogue.key_arn(caller.account(), &key_id);
        self.may(caller, Operation::CreateKey, &On::Nothing, &asks)?;
        if !tags.as_slice().is_empty() {
            self.may(caller, Operation::TagResource, &On::Arn(&arn), &asks)?;
        }
        self.store()?;
        supported(origin.as_ref(), request.multi_region)?;
        let policy = self.new_policy(caller, &request, &arn, spec)?;
        if self.catalogue.is_held() {
            return Err(Error::new(
                Kind::UnsupportedOperation,
                "The catalogue was restored from a backup; no key can be made until the operator confirms it.",
            ));
        }
        if self.catalogue.count_keys(caller.account()) >= MOST_KEYS {
            return Err(Error::new(
                Kind::LimitExceeded,
                format!("The account has {MOST_KEYS} keys, which is the most."),
            ));
        }

        let new = NewKey {
            account: caller.account().clone(),
            spec,
            description,
            tags,
            policy,
        };
        let record = create::create_with(self, new, key_id, None, until).await?;
        Ok(self.metadata(&record, until).await)
    }

    /// Gives a key another description.
    ///
    /// # Errors
    /// Those of KMS's UpdateKeyDescription.
    pub async fn update_key_description(
        &self,
        caller: &Caller,
        request: UpdateKeyDescription,
        until: Instant,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let description = validate::description(request.description, &mut broken);
        let (Some(key_id), Some(description)) = (key_id, description) else {
            return Err(validate::refuse(broken));
        };
        self.change_key(
            caller,
            Operation::UpdateKeyDescription,
            key_id,
            &Asks::default(),
            until,
            |_, body| {
                body.description = description.clone();
                Ok(())
            },
        )
        .await
        .map(drop)
    }

    /// Lets a key serve; one that does already goes on.
    ///
    /// # Errors
    /// Those of KMS's EnableKey.
    pub async fn enable_key(
        &self,
        caller: &Caller,
        request: &EnableKey,
        until: Instant,
    ) -> Result<(), Error> {
        let key_id = validate::only_key_id(request.key_id.as_deref())?;
        self.change_key(
            caller,
            Operation::EnableKey,
            key_id,
            &Asks::default(),
            until,
            |record, body| {
                if record.held {
                    return Err(is_held(record));
                }
                if body.life != Life::Enabled {
                    body.life = Life::Enabled;
                    // Security: the key that was fenced stays closed; this is another one.
                    body.epoch += 1;
                }
                Ok(())
            },
        )
        .await
        .map(drop)
    }

    /// Stops a key from serving. When this has returned no call that begins makes a MAC with it,
    /// and those that had begun have ended.
    ///
    /// # Errors
    /// Those of KMS's DisableKey.
    pub async fn disable_key(
        &self,
        caller: &Caller,
        request: &DisableKey,
        until: Instant,
    ) -> Result<(), Error> {
        let key_id = validate::only_key_id(request.key_id.as_deref())?;
        let record = self
            .change_key(
                caller,
                Operation::DisableKey,
                key_id,
                &Asks::default(),
                until,
                |_, body| {
                    body.life = Life::Disabled;
                    Ok(())
                },
            )
            .await?;
        // Security: also for a key that was disabled already. Whoever disabled it may still wait
        // here, and this caller is promised the same.
        self.fence(&record).await;
        Ok(())
    }
}

/// The one kind of keys that there is: KMS's rules on KeySpec and KeyUsage.
fn makes(spec: Option<Asked<KeySpec>>, usage: Option<Asked<KeyUsage>>) -> Result<KeySpec, Error> {
    let other = match spec {
        Some(Asked::Ours(spec)) => match usage {
            Some(Asked::Ours(KeyUsage::GenerateVerifyMac)) => return Ok(spec),
            Some(Asked::Other(usage)) => {
                return Err(Error::new(
                    Kind::Validation,
                    format!("KeyUsage {usage} is not compatible with KeySpec {spec}"),
                ));
            }
            None => {
                return Err(Error::new(
                    Kind::Validation,
                    "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
                ));
            }
        },
        Some(Asked::Other(other)) => other,
        None => "SYMMETRIC_DEFAULT".into(),
    };
    Err(Error::new(
        Kind::UnsupportedOperation,
        format!(
            "KeySpec {other} is not supported: hsmac makes keys of KeySpec HMAC_224, HMAC_256, HMAC_384 and HMAC_512."
        ),
    ))
}

/// What KMS has and hsmac does not.
fn supported(origin: Option<&Asked<Origin>>, multi_region: bool) -> Result<(), Error> {
    let say = match origin {
        _ if multi_region => "hsmac has no multi-Region keys.",
        None | Some(Asked::Ours(Origin::AwsKms)) => return Ok(()),
        Some(Asked::Ours(Origin::External)) => "This version of hsmac cannot import key material.",
        Some(Asked::Ours(Origin::AwsCloudHsm) | Asked::Other(_)) => {
            "HMAC keys in custom key stores are not supported; a key that is in a token already is declared in the configuration."
        }
    };
    Err(Error::new(Kind::UnsupportedOperation, say))
}

fn is_held(record: &Record) -> Error {
    Error::new(
        Kind::InvalidState,
        format!(
            "{} is disabled: the catalogue was restored from a backup, and no key can be enabled until the operator confirms it.",
            record.arn
        ),
    )
}

/// KMS's quota of keys in an account and region.
const MOST_KEYS: usize = 100_000;
