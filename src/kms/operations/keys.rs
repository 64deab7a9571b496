//! CreateKey, UpdateKeyDescription, EnableKey and DisableKey.

use std::time::Instant;

use super::{
    EnumMember,
    describe::KeyMetadata,
    tags::TagPair,
    validate::{self, KmsValue},
};
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::{RequestContext, Subject},
        catalogue::{KeyRecord, stored::StoredState},
        lifecycle::{NewKey, create},
        service::Kms,
    },
    model::{Caller, KeyId, KeySpec, KeyUsage, Operation, Origin, new_uuid},
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
    pub key_usage: EnumMember<KeyUsage>,
    /// Must be given: KMS's default is no HMAC key.
    pub key_spec: EnumMember<KeySpec>,
    /// What KeySpec was called before; one of the two.
    pub customer_master_key_spec: EnumMember<KeySpec>,
    /// AWS_KMS if absent.
    pub origin: EnumMember<Origin>,
    /// At most 50.
    pub tags: Vec<TagPair>,
    /// There are no multi-Region keys.
    pub multi_region: bool,
    /// There are no custom key stores.
    pub custom_key_store_id: Option<String>,
    /// A key of an external key store.
    pub xks_key_id: Option<String>,
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
    /// KMS's for CreateKey: [`Kind::Validation`], [`Kind::Tag`], [`Kind::AccessDenied`],
    /// [`Kind::UnsupportedOperation`], [`Kind::MalformedPolicyDocument`], [`Kind::LimitExceeded`],
    /// [`Kind::KeyUnavailable`], [`Kind::DependencyTimeout`], [`Kind::Internal`].
    /// [`Kind::DependencyTimeout`]: no key was made that anybody could
    /// name.
    pub async fn create_key(
        &self,
        caller: &Caller,
        request: CreateKey,
        until: Instant,
    ) -> Result<KeyMetadata, Error> {
        let mut broken = Vec::new();
        validate::policy(request.policy.as_deref(), &mut broken);
        let description = validate::description(
            Some(request.description.clone().unwrap_or_default()),
            &mut broken,
        );
        let usage = validate::key_usage(&request.key_usage, &mut broken);
        let spec = validate::key_spec(&request.key_spec, &mut broken);
        let old_spec =
            validate::customer_master_key_spec(&request.customer_master_key_spec, &mut broken);
        let origin = validate::origin(&request.origin, &mut broken);
        let tags = validate::tags(Some(request.tags.clone()), &mut broken);
        validate::custom_key_store_id(request.custom_key_store_id.as_deref(), &mut broken);
        validate::xks_key_id(request.xks_key_id.as_deref(), &mut broken);
        let (Some(description), Some(tags), true) = (description, tags, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let tags = tags?;
        let spec = makes(one_spec(spec, old_spec)?, usage)?;
        let context = RequestContext {
            tags: Some(&tags),
            new_key_spec: Some(spec),
            bypass_lockout_check: Some(request.bypass_policy_lockout_safety_check),
            ..RequestContext::default()
        };
        let key_id: KeyId = new_uuid().to_string().parse().expect("a UUID is a key ID");
        let arn = self.catalogue.key_arn(caller.account(), &key_id);
        let subject = Subject::NewKey(&arn);
        self.require(caller, Operation::CreateKey, subject, context)?;
        let lifecycle = self.lifecycle()?;
        supported(origin.as_ref(), &request)?;
        let (policy, policy_principals) = self.new_policy(caller, &request, &arn, spec)?;
        if self.catalogue.is_held() {
            return Err(Error::new(
                Kind::UnsupportedOperation,
                "The catalogue was restored from a backup; no key can be made until the operator confirms it.",
            ));
        }
        if self.catalogue.count_keys(caller.account()) >= MAX_KEYS {
            return Err(Error::new(
                Kind::LimitExceeded,
                format!("The account has {MAX_KEYS} keys, which is the most."),
            ));
        }

        let new = NewKey {
            account: caller.account().clone(),
            spec,
            description,
            tags,
            policy,
            policy_principals,
        };
        let record = create(lifecycle, new, key_id, None, until).await?;
        Ok(self.metadata(&record, until).await)
    }

    /// Gives a key another description.
    ///
    /// # Errors
    /// KMS's for UpdateKeyDescription: [`Kind::Validation`], [`Kind::AccessDenied`],
    /// [`Kind::NotFound`], [`Kind::InvalidArn`], [`Kind::InvalidState`],
    /// [`Kind::UnsupportedOperation`], [`Kind::DependencyTimeout`], [`Kind::Internal`].
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
            RequestContext::default(),
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
    /// KMS's for EnableKey: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`], [`Kind::InvalidState`], [`Kind::UnsupportedOperation`],
    /// [`Kind::DependencyTimeout`], [`Kind::Internal`].
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
            RequestContext::default(),
            until,
            |record, body| {
                if record.held {
                    return Err(is_held(record));
                }
                if body.state != StoredState::Enabled {
                    body.state = StoredState::Enabled;
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
    /// KMS's for DisableKey: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`], [`Kind::InvalidState`], [`Kind::UnsupportedOperation`],
    /// [`Kind::DependencyTimeout`], [`Kind::Internal`].
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
                RequestContext::default(),
                until,
                |_, body| {
                    body.state = StoredState::Disabled;
                    Ok(())
                },
            )
            .await?;
        // Security: also for a key that was disabled already. Whoever disabled it may still wait
        // here, and this caller is promised the same.
        self.lifecycle()?.fence(&record).await;
        Ok(())
    }
}

/// KeySpec, or what it was called before.
fn one_spec(
    spec: Option<KmsValue<KeySpec>>,
    old_spec: Option<KmsValue<KeySpec>>,
) -> Result<Option<KmsValue<KeySpec>>, Error> {
    if spec.is_some() && old_spec.is_some() {
        return Err(Error::new(
            Kind::Validation,
            "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.",
        ));
    }
    Ok(spec.or(old_spec))
}

/// KMS's rules on KeySpec and KeyUsage, then the one kind of keys that there is.
fn makes(
    spec: Option<KmsValue<KeySpec>>,
    usage: Option<KmsValue<KeyUsage>>,
) -> Result<KeySpec, Error> {
    let spec_name = match &spec {
        Some(KmsValue::Supported(spec)) => spec.name(),
        Some(KmsValue::Other(other)) => other,
        None => SYMMETRIC_DEFAULT,
    };
    let usage_name = match &usage {
        Some(KmsValue::Supported(usage)) => usage.name(),
        Some(KmsValue::Other(other)) => other,
        None if spec_name == SYMMETRIC_DEFAULT => "ENCRYPT_DECRYPT",
        None => {
            return Err(Error::new(
                Kind::Validation,
                "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
            ));
        }
    };
    if !usages(spec_name).contains(&usage_name) {
        return Err(Error::new(
            Kind::Validation,
            format!("KeyUsage {usage_name} is not compatible with KeySpec {spec_name}"),
        ));
    }
    match spec {
        Some(KmsValue::Supported(spec)) => Ok(spec),
        Some(KmsValue::Other(_)) | None => Err(Error::new(
            Kind::UnsupportedOperation,
            format!(
                "KeySpec {spec_name} is not supported: hsmac makes keys of KeySpec HMAC_224, HMAC_256, HMAC_384 and HMAC_512."
            ),
        )),
    }
}

/// What keys of a spec can be for, as KMS's developer guide has it.
fn usages(spec: &str) -> &'static [&'static str] {
    match spec {
        SYMMETRIC_DEFAULT => &["ENCRYPT_DECRYPT"],
        "ECC_NIST_P256" | "ECC_NIST_P384" | "ECC_NIST_P521" => &["SIGN_VERIFY", "KEY_AGREEMENT"],
        "SM2" => &["ENCRYPT_DECRYPT", "SIGN_VERIFY", "KEY_AGREEMENT"],
        hmac if hmac.starts_with("HMAC_") => &["GENERATE_VERIFY_MAC"],
        kem if kem.starts_with("ML_KEM_") => &["ENCAPSULATE_DECAPSULATE"],
        rsa if rsa.starts_with("RSA_") => &["ENCRYPT_DECRYPT", "SIGN_VERIFY"],
        // ECC_SECG_P256K1, ECC_NIST_EDWARDS25519, ML_DSA_44, …
        _ => &["SIGN_VERIFY"],
    }
}

/// What KMS has and hsmac does not.
fn supported(origin: Option<&KmsValue<Origin>>, request: &CreateKey) -> Result<(), Error> {
    let is_elsewhere = request.custom_key_store_id.is_some() || request.xks_key_id.is_some();
    let say = match origin {
        _ if request.multi_region => "hsmac has no multi-Region keys.",
        None | Some(KmsValue::Supported(Origin::AwsKms)) if !is_elsewhere => return Ok(()),
        Some(KmsValue::Supported(Origin::External)) => {
            "This version of hsmac cannot import key material."
        }
        Some(KmsValue::Supported(Origin::AwsKms | Origin::AwsCloudHsm) | KmsValue::Other(_))
        | None => {
            "HMAC keys in custom key stores are not supported; a key that is in a token already is declared in the configuration."
        }
    };
    Err(Error::new(Kind::UnsupportedOperation, say))
}

fn is_held(record: &KeyRecord) -> Error {
    Error::new(
        Kind::InvalidState,
        format!(
            "{} is disabled: the catalogue was restored from a backup, and no key can be enabled until the operator confirms it.",
            record.arn
        ),
    )
}

/// KMS: the key spec of a key that nothing is said of.
const SYMMETRIC_DEFAULT: &str = "SYMMETRIC_DEFAULT";

/// KMS's quota of keys in an account and region.
const MAX_KEYS: usize = 100_000;
