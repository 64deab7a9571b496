//! Key policies: read, written, and in force once the answer is there.

use std::time::Instant;

use super::{
    Kms,
    keys::CreateKey,
    rights::{Asks, LONGEST, default_policy},
    validate,
};
use crate::{
    error::{Error, Kind},
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
    /// Those of KMS's GetKeyPolicy.
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
        let asks = Asks {
            policy_name: Some(name.unwrap_or(DEFAULT)),
            ..Asks::default()
        };
        let record = self.admit(caller, Operation::GetKeyPolicy, key_id, &asks)?;
        require_default(name)?;
        let policy = match &record.body.policy {
            none if none.is_empty() => default_policy(&record.body.account),
            some => some.clone(),
        };
        Ok(KeyPolicy {
            policy,
            policy_name: DEFAULT,
        })
    }

    /// Gives a key another policy. When this has returned, no call that the policy denies makes a
    /// MAC with the key.
    ///
    /// # Errors
    /// Those of KMS's PutKeyPolicy.
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
        let asks = Asks {
            policy_name: Some(name.unwrap_or(DEFAULT)),
            bypass_lockout_check: Some(bypass),
            ..Asks::default()
        };
        let record = self
            .change_key(
                caller,
                Operation::PutKeyPolicy,
                key_id,
                &asks,
                until,
                |record, body| {
                    if name.is_some_and(|name| name != DEFAULT) {
                        return Err(Error::new(
                            Kind::UnsupportedOperation,
                            "The only valid policy name is default.",
                        ));
                    }
                    let policy = parse(text)?;
                    if !bypass
                        && !self.could_put(
                            caller,
                            (&record.arn, &body.account),
                            Some(record),
                            &policy,
                            &asks,
                        )
                    {
                        return Err(locks_out());
                    }
                    text.clone_into(&mut body.policy);
                    // Security: whoever was let in by the old policy loses the key that it held.
                    body.epoch += 1;
                    Ok(())
                },
            )
            .await?;
        self.fence(&record).await;
        Ok(())
    }

    /// The names of a key's policies, of which there is one.
    ///
    /// # Errors
    /// Those of KMS's ListKeyPolicies.
    pub fn list_key_policies(
        &self,
        caller: &Caller,
        request: &ListKeyPolicies,
    ) -> Result<[&'static str; 1], Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        validate::limit(request.limit, 100, 1000, &mut broken);
        if let Some(marker) = &request.marker {
            validate::marker(marker, &mut broken);
        }
        let (Some(key_id), true) = (key_id, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        self.admit(caller, Operation::ListKeyPolicies, key_id, &Asks::default())?;
        match request.marker {
            None => Ok([DEFAULT]),
            Some(_) => Err(Error::new(Kind::InvalidMarker, "")),
        }
    }

    /// The policy that a new key gets: the text, or none for the default policy.
    pub(super) fn new_policy(
        &self,
        caller: &Caller,
        request: &CreateKey,
        arn: &str,
        spec: KeySpec,
    ) -> Result<String, Error> {
        let Some(text) = &request.policy else {
            return Ok(String::new());
        };
        let policy = parse(text)?;
        let asks = Asks {
            new_key: Some(spec),
            ..Asks::default()
        };
        if !request.bypass_policy_lockout_safety_check
            && !self.could_put(caller, (arn, caller.account()), None, &policy, &asks)
        {
            return Err(locks_out());
        }
        Ok(text.clone())
    }
}

fn parse(text: &str) -> Result<Policy, Error> {
    if text.len() > LONGEST {
        return Err(Error::new(
            Kind::LimitExceeded,
            format!(
                "A key policy has at most {LONGEST} bytes; this one has {}.",
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
        None | Some(DEFAULT) => Ok(()),
        Some(_) => Err(Error::new(Kind::NotFound, "No such policy exists")),
    }
}

fn locks_out() -> Error {
    Error::new(
        Kind::MalformedPolicyDocument,
        "The new key policy will not allow you to update the key policy in the future.",
    )
}

/// The name of the one policy that a key has.
const DEFAULT: &str = "default";
