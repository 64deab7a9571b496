//! Who may do what: the key's policy and the caller's own, put to one question.
//!
//! Policies are compiled when they are written or loaded; a call evaluates them. What decided stands
//! in the log at `debug`; the client learns KMS's sentence and no more.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{DeclaredKey, Kms, Record};
use crate::{
    error::{Error, Kind},
    model::{
        AccountId, Caller, KeyId, KeySpec, KeyUsage, MacAlgorithm, Operation, Origin, Tags,
        policy::{
            Context, ContextKey, Decision, Denial, Policy, PolicyKind, Question, Rights, Values,
            decide,
        },
    },
};

/// A principal, and the policies that are its own.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Who it is.
    pub caller: Caller,
    /// Its identity policies.
    pub policies: Vec<Policy>,
}

impl Principal {
    /// Reads the identity policy of a principal, if it has one.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn read(caller: &Caller, file: Option<&Path>) -> Result<Self, String> {
        let policies = file.map(|file| read(file, PolicyKind::Identity).map(|(_, policy)| policy));
        Ok(Self {
            caller: caller.clone(),
            policies: policies.transpose()?.into_iter().collect(),
        })
    }
}

/// The rights that the configuration's files give, read at one time.
pub struct DeclaredRights {
    pub(super) principals: Vec<Principal>,
    /// Of declared keys.
    pub(super) keys: Vec<DeclaredPolicy>,
}

/// The policy of a declared key.
pub(super) struct DeclaredPolicy {
    pub(super) account: AccountId,
    pub(super) key_id: KeyId,
    pub(super) text: String,
    pub(super) policy: Arc<Policy>,
}

impl DeclaredRights {
    /// Reads the policies of `keys`, which are declared in `account`.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn read(
        account: &AccountId,
        principals: Vec<Principal>,
        keys: &[DeclaredKey],
    ) -> Result<Self, String> {
        let policy = |key: &DeclaredKey| {
            let text = key.policy()?;
            Ok(DeclaredPolicy {
                account: account.clone(),
                key_id: key.key_id.clone(),
                policy: compiled(&text, account)?,
                text,
            })
        };
        Ok(Self {
            principals,
            keys: keys.iter().map(policy).collect::<Result<_, String>>()?,
        })
    }
}

/// Reads a policy document from a file.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub(super) fn read(file: &Path, kind: PolicyKind) -> Result<(String, Policy), String> {
    let shown = file.display();
    let unreadable = |error| format!("{shown}: {error}");
    // Its metadata first: to open a FIFO would wait for a writer.
    let found = fs::metadata(file).map_err(unreadable)?;
    if !found.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    if found.len() > LONGEST as u64 {
        return Err(format!("{shown}: a policy has at most {LONGEST} bytes"));
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    let policy = Policy::parse(&text, kind).map_err(|fault| format!("{shown}: {fault}"))?;
    Ok((text, policy))
}

/// The policies of all principals.
#[derive(Debug, Default)]
pub(super) struct Principals(HashMap<String, Vec<Policy>>);

impl Principals {
    pub(super) fn new(principals: Vec<Principal>) -> Self {
        let mut all: HashMap<String, Vec<Policy>> = HashMap::new();
        for Principal { caller, policies } in principals {
            all.entry(caller.arn().to_owned())
                .or_default()
                .extend(policies);
        }
        Self(all)
    }

    fn of(&self, caller: &Caller) -> &[Policy] {
        self.0.get(caller.arn()).map_or(&[], Vec::as_slice)
    }
}

/// The policy of a key that has none of its own: the account decides, by the policies of its
/// principals (KMS: the default key policy).
pub(super) fn default_policy(account: &AccountId) -> String {
    format!(
        r#"{{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {{
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "arn:aws:iam::{account}:root"
    }},
    "Action" : "kms:*",
    "Resource" : "*"
  }} ]
}}"#
    )
}

/// A key's policy, compiled; an empty text is the default policy.
///
/// # Errors
/// Why it is none. What is written is checked first, so that only a record from elsewhere can be so.
pub(super) fn compiled(text: &str, account: &AccountId) -> Result<Arc<Policy>, String> {
    let policy = if text.is_empty() {
        Policy::parse(&default_policy(account), PolicyKind::Key)
    } else {
        Policy::parse(text, PolicyKind::Key)
    };
    policy.map(Arc::new).map_err(|fault| fault.to_string())
}

/// What a request says besides its key, as far as conditions ask for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asks<'a> {
    /// The key as the request names it.
    pub(super) key_id: Option<&'a str>,
    pub(super) grant_tokens: &'a [String],
    pub(super) mac_algorithm: Option<MacAlgorithm>,
    pub(super) tags: Option<&'a Tags>,
    pub(super) tag_keys: Option<&'a [String]>,
    pub(super) pending_window_in_days: Option<u32>,
    /// CreateKey: of the key that is to be.
    pub(super) new_key: Option<KeySpec>,
    pub(super) policy_name: Option<&'a str>,
    pub(super) bypass_lockout_check: Option<bool>,
}

/// What a right is asked for.
pub(super) enum On<'a> {
    Key(&'a Record),
    /// By its ARN what has no policy of its own: an alias, or a key that is still to be made.
    Arn(&'a str),
    Nothing,
}

impl Kms {
    /// Security: the place where rights are decided, after the key is known and before its state
    /// shows.
    ///
    /// # Errors
    /// [`Kind::AccessDenied`] in KMS's words.
    pub(super) fn may(
        &self,
        caller: &Caller,
        operation: Operation,
        on: &On<'_>,
        asks: &Asks<'_>,
    ) -> Result<(), Error> {
        let (record, resource) = match on {
            On::Key(record) => (Some(*record), Some(&*record.arn)),
            On::Arn(arn) => (None, Some(*arn)),
            On::Nothing => (None, None),
        };
        let principals = self.principals.load();
        let rights = Rights {
            key: record.map(|record| (&*record.policy, &record.body.account)),
            identity: principals.of(caller),
        };
        let question = Question {
            caller,
            action: operation.action(),
            resource,
            context: &Circumstances {
                kms: self,
                caller,
                record,
                asks,
            },
        };
        match decide(&rights, &question) {
            Decision::Allowed(grounds) => {
                tracing::trace!(%caller, action = operation.action(), resource, ?grounds, "allowed");
                Ok(())
            }
            Decision::Denied(denial) => {
                let statement = match denial {
                    Denial::KeyPolicy(at) => record.map(|key| key.policy.statement_name(at)),
                    Denial::IdentityPolicy(policy, at) => rights
                        .identity
                        .get(policy)
                        .map(|own| own.statement_name(at)),
                    Denial::NoKeyPolicy | Denial::NoIdentityPolicy => None,
                };
                tracing::debug!(%caller, action = operation.action(), resource, ?denial, statement, "denied");
                Err(denied(caller, operation, record, resource, denial))
            }
        }
    }

    /// Whether somebody who writes this policy could write another one later (KMS: the lockout check).
    /// A key that is still to be made has an ARN, and no record.
    pub(super) fn could_put(
        &self,
        caller: &Caller,
        (arn, account): (&str, &AccountId),
        record: Option<&Record>,
        policy: &Policy,
        asks: &Asks<'_>,
    ) -> bool {
        let principals = self.principals.load();
        let rights = Rights {
            key: Some((policy, account)),
            identity: principals.of(caller),
        };
        let question = Question {
            caller,
            action: Operation::PutKeyPolicy.action(),
            resource: Some(arn),
            context: &Circumstances {
                kms: self,
                caller,
                record,
                asks,
            },
        };
        matches!(decide(&rights, &question), Decision::Allowed(_))
    }
}

/// KMS's sentence. Of a key of another account it tells nothing, not even that it is there.
fn denied(
    caller: &Caller,
    operation: Operation,
    record: Option<&Record>,
    resource: Option<&str>,
    denial: Denial,
) -> Error {
    let action = operation.action();
    let on = match (record, resource) {
        (Some(record), _) if record.body.account != *caller.account() => {
            if matches!(denial, Denial::NoKeyPolicy | Denial::KeyPolicy(_)) {
                return no_such_resource(caller, operation);
            }
            "this resource".to_owned()
        }
        (_, Some(resource)) => format!("resource: {resource}"),
        (_, None) => "resource: *".to_owned(),
    };
    let why = match denial {
        Denial::KeyPolicy(_) => "with an explicit deny in a resource-based policy".to_owned(),
        Denial::IdentityPolicy(..) => {
            "with an explicit deny in an identity-based policy".to_owned()
        }
        Denial::NoKeyPolicy => {
            format!("because no resource-based policy allows the {action} action")
        }
        Denial::NoIdentityPolicy => {
            format!("because no identity-based policy allows the {action} action")
        }
    };
    Error::new(
        Kind::AccessDenied,
        format!("User: {caller} is not authorized to perform: {action} on {on} {why}"),
    )
}

/// Security: the same words whether a key of another account exists or not.
pub(super) fn no_such_resource(caller: &Caller, operation: Operation) -> Error {
    Error::new(
        Kind::AccessDenied,
        format!(
            "User: {caller} is not authorized to perform: {} on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access",
            operation.action()
        ),
    )
}

/// Where conditions get their values from.
struct Circumstances<'a> {
    kms: &'a Kms,
    caller: &'a Caller,
    record: Option<&'a Record>,
    asks: &'a Asks<'a>,
}

impl Context for Circumstances<'_> {
    fn values(&self, key: &ContextKey) -> Values {
        let one = |value: Option<String>| value.map_or(Values::Absent, Values::One);
        let named = |value: Option<&str>| one(value.map(str::to_owned));
        let asks = self.asks;
        let spec = self.record.map(|record| record.body.spec).or(asks.new_key);
        match key {
            // Date operators read both forms of a time.
            ContextKey::CurrentTime | ContextKey::EpochTime => one(Some(seconds().to_string())),
            ContextKey::PrincipalAccount | ContextKey::CallerAccount => {
                named(Some(self.caller.account().as_str()))
            }
            ContextKey::PrincipalArn => named(Some(self.caller.arn())),
            ContextKey::ResourceTag(name) => {
                named(self.record.and_then(|record| tag(&record.body.tags, name)))
            }
            ContextKey::RequestTag(name) => named(asks.tags.and_then(|tags| tag(tags, name))),
            ContextKey::TagKeys => match (asks.tags, asks.tag_keys) {
                (Some(tags), _) => Values::Several(
                    tags.as_slice()
                        .iter()
                        .map(|tag| tag.key().to_owned())
                        .collect(),
                ),
                (None, Some(keys)) => Values::Several(keys.to_vec()),
                (None, None) => Values::Absent,
            },
            ContextKey::SecureTransport => one(Some(self.caller.is_over_tls().to_string())),
            ContextKey::KeyOrigin => named(match self.record {
                Some(record) => Some(record.body.origin.name()),
                None => asks.new_key.map(|_| Origin::AwsKms.name()),
            }),
            ContextKey::KeySpec => named(spec.map(KeySpec::name)),
            ContextKey::KeyUsage => named(spec.map(|_| KeyUsage::GenerateVerifyMac.name())),
            ContextKey::MacAlgorithm => named(asks.mac_algorithm.map(MacAlgorithm::name)),
            ContextKey::MultiRegion => named(spec.map(|_| "false")),
            ContextKey::PolicyName => named(asks.policy_name),
            ContextKey::BypassPolicyLockoutSafetyCheck => {
                one(asks.bypass_lockout_check.map(|bypass| bypass.to_string()))
            }
            ContextKey::ScheduleKeyDeletionPendingWindowInDays => {
                one(asks.pending_window_in_days.map(|days| days.to_string()))
            }
            ContextKey::RequestAlias => one(asks.key_id.and_then(alias_in).map(str::to_owned)),
            ContextKey::ResourceAliases => match self.record {
                Some(record) => Values::Several(
                    self.kms
                        .catalogue
                        .aliases_of(&record.body.account, &record.body.key_id)
                        .into_iter()
                        .map(|(name, _)| name.to_string())
                        .collect(),
                ),
                None => Values::Absent,
            },
            // No AWS service calls in a principal's place here.
            ContextKey::ViaService => Values::Absent,
        }
    }
}

/// The value of a tag, whose name conditions compare in small letters.
fn tag<'a>(tags: &'a Tags, name: &str) -> Option<&'a str> {
    let tag = tags
        .as_slice()
        .iter()
        .find(|tag| tag.key().eq_ignore_ascii_case(name))?;
    Some(tag.value())
}

/// `alias/…` in an alias name or alias ARN.
fn alias_in(key_id: &str) -> Option<&str> {
    if key_id.starts_with("alias/") {
        return Some(key_id);
    }
    let resource = key_id.splitn(6, ':').nth(5)?;
    resource.starts_with("alias/").then_some(resource)
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// KMS: a key policy has at most 32 KiB.
pub(super) const LONGEST: usize = 32 << 10;
