//! Key policies: read, written, and in force once the answer is there.

use std::{collections::BTreeMap, time::Instant};

use super::{keys::CreateKey, marker::only_page, validate};
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::{DEFAULT_POLICY_NAME, RequestContext, Resource},
        policy_documents::{MAX_POLICY_BYTES, default_policy},
        service::Kms,
    },
    model::{
        Caller, KeySpec, Operation,
        policy::{Policy, PolicyFault, PolicyKind},
    },
};

/// KMS: GetKeyPolicyRequest.
#[derive(Clone, Debug)]
pub struct GetKeyPolicy {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// `default`, which it is if absent: a key has one policy.
    pub policy_name: Option<String>,
}

/// KMS: GetKeyPolicyResponse.
#[derive(Clone, Debug)]
pub struct KeyPolicy {
    /// The document as it was written.
    pub policy: String,
    /// Always `default`.
    pub policy_name: &'static str,
}

/// KMS: PutKeyPolicyRequest.
#[derive(Clone, Debug)]
pub struct PutKeyPolicy {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// As in [`GetKeyPolicy`].
    pub policy_name: Option<String>,
    /// An IAM document of at most 32 KiB.
    pub policy: Option<String>,
    /// Whether the policy may take from its writer the right to write another one.
    pub bypass_policy_lockout_safety_check: bool,
}

/// KMS: ListKeyPoliciesRequest.
#[derive(Clone, Debug)]
pub struct ListKeyPolicies {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// 1 to 1,000.
    pub limit: Option<i64>,
    /// There is never a second page, so no marker is one of ours.
    pub marker: Option<String>,
}

impl Kms {
    /// A key's policy.
    ///
    /// # Errors
    /// KMS's for GetKeyPolicy: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`].
    pub fn get_key_policy(
        &self,
        caller: &Caller,
        request: &GetKeyPolicy,
    ) -> Result<KeyPolicy, Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let name = request.policy_name.as_deref();
        validate::policy_name(name, &mut broken);
        let (Some(key_id), true) = (key_id, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let context = RequestContext {
            policy_name: name,
            ..RequestContext::default()
        };
        let record = self.require_key(caller, Operation::GetKeyPolicy, key_id, context)?;
        require_default(name)?;
        let policy = match &record.body.policy {
            none if none.is_empty() => default_policy(&record.body.account),
            some => some.clone(),
        };
        Ok(KeyPolicy {
            policy,
            policy_name: DEFAULT_POLICY_NAME,
        })
    }

    /// Gives a key another policy. When this has returned, no call that the policy denies makes a
    /// MAC with the key.
    ///
    /// # Errors
    /// KMS's for PutKeyPolicy: [`Kind::Validation`], [`Kind::MalformedPolicyDocument`],
    /// [`Kind::LimitExceeded`], [`Kind::AccessDenied`], [`Kind::NotFound`], [`Kind::InvalidArn`],
    /// [`Kind::UnsupportedOperation`], [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn put_key_policy(
        &self,
        caller: &Caller,
        request: PutKeyPolicy,
        until: Instant,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let name = request.policy_name.as_deref();
        validate::policy_name(name, &mut broken);
        let text = validate::required_policy(request.policy.as_deref(), &mut broken);
        let (Some(key_id), Some(text), true) = (key_id, text, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let bypass = request.bypass_policy_lockout_safety_check;
        let context = RequestContext {
            policy_name: name,
            bypass_lockout_check: Some(bypass),
            ..RequestContext::default()
        };
        let record = self
            .change_key(
                caller,
                Operation::PutKeyPolicy,
                key_id,
                context,
                until,
                |record, body| {
                    if name == Some(RAM_POLICY_NAME) {
                        return Err(Error::new(
                            Kind::Validation,
                            "The AWS_RAM policy can only be managed by the RAM service.",
                        ));
                    }
                    if name.is_some_and(|name| name != DEFAULT_POLICY_NAME) {
                        return Err(Error::new(
                            Kind::UnsupportedOperation,
                            "The only valid policy name is default.",
                        ));
                    }
                    let policy = parse(text)?;
                    if !bypass
                        && !self.could_put_policy(
                            caller,
                            (Resource::Key(record), &body.account),
                            &policy,
                            &context,
                        )
                    {
                        return Err(locks_out());
                    }
                    text.clone_into(&mut body.policy);
                    body.policy_principals = self.principal_ids(&policy);
                    // Security: whoever was let in by the old policy loses the key that it held.
                    body.epoch += 1;
                    Ok(())
                },
            )
            .await?;
        self.lifecycle()?.fence_admission(&record).await;
        Ok(())
    }

    /// The names of a key's policies, of which there is one.
    ///
    /// # Errors
    /// KMS's for ListKeyPolicies: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`], [`Kind::InvalidMarker`].
    pub fn list_key_policies(
        &self,
        caller: &Caller,
        request: &ListKeyPolicies,
    ) -> Result<[&'static str; 1], Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let marker = request.marker.as_deref();
        validate::page(request.limit, marker, &mut broken);
        let (Some(key_id), true) = (key_id, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        self.require_key(
            caller,
            Operation::ListKeyPolicies,
            key_id,
            RequestContext::default(),
        )?;
        only_page(marker)?;
        Ok([DEFAULT_POLICY_NAME])
    }

    /// The policy that a new key gets: the text, or none for the default policy; and the immutable IDs of
    /// the principals that it names.
    pub(super) fn new_policy(
        &self,
        caller: &Caller,
        request: &CreateKey,
        arn: &str,
        spec: KeySpec,
    ) -> Result<(String, BTreeMap<String, String>), Error> {
        let Some(text) = &request.policy else {
            return Ok((String::new(), BTreeMap::new()));
        };
        let policy = parse(text)?;
        let context = RequestContext {
            new_key_spec: Some(spec),
            ..RequestContext::default()
        };
        if !request.bypass_policy_lockout_safety_check
            && !self.could_put_policy(
                caller,
                (Resource::Arn(arn), caller.account()),
                &policy,
                &context,
            )
        {
            return Err(locks_out());
        }
        Ok((text.clone(), self.principal_ids(&policy)))
    }

    /// The immutable IDs of the principals that a policy names, as far as they have one now.
    fn principal_ids(&self, policy: &Policy) -> BTreeMap<String, String> {
        let principals = self.principals();
        let id = |arn: &str| Some((arn.to_owned(), principals.id_of(arn)?.to_owned()));
        policy.principal_arns().filter_map(id).collect()
    }
}

/// The name of the policy by which AWS's Resource Access Manager shares a key.
const RAM_POLICY_NAME: &str = "AWS_RAM";

fn parse(text: &str) -> Result<Policy, Error> {
    if text.len() > MAX_POLICY_BYTES {
        return Err(Error::new(
            Kind::LimitExceeded,
            format!(
                "A key policy has at most {MAX_POLICY_BYTES} bytes; this one has {}.",
                text.len()
            ),
        ));
    }
    Policy::parse(text, PolicyKind::Key).map_err(|fault| {
        let kind = match fault {
            PolicyFault::Malformed(_) => Kind::MalformedPolicyDocument,
            PolicyFault::Arn => Kind::InvalidArn,
        };
        Error::new(kind, fault.to_string())
    })
}

fn require_default(name: Option<&str>) -> Result<(), Error> {
    match name {
        None | Some(DEFAULT_POLICY_NAME) => Ok(()),
        Some(_) => Err(Error::new(Kind::NotFound, "No such policy exists")),
    }
}

fn locks_out() -> Error {
    Error::new(
        Kind::MalformedPolicyDocument,
        "The new key policy will not allow you to update the key policy in the future.",
    )
}
