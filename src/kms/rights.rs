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

use super::{DeclaredKey, Kms, Record, unavailable};
use crate::{
    error::{Error, Kind},
    model::{
        AccountId, Caller, KeyId, KeySpec, KeyUsage, MacAlgorithm, Operation, Origin, Tags,
        policy::{
            Context, ContextKey, Decision, Denial, Grounds, Policy, PolicyKind, Question, Rights,
            Values, decide,
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
            let (text, policy) = key.compiled_policy(account)?;
            Ok(DeclaredPolicy {
                account: account.clone(),
                key_id: key.key_id.clone(),
                text,
                policy,
            })
        };
        Ok(Self {
            principals,
            keys: keys.iter().map(policy).collect::<Result<_, String>>()?,
        })
    }
}

/// Reads a policy document from a file, which the policy is called by from then on.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn read_policy(file: &Path, kind: PolicyKind) -> Result<Policy, String> {
    read(file, kind).map(|(_, policy)| policy)
}

/// The same with the document's text.
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
    Ok((text, policy.called(shown.to_string())))
}

/// The policies of all principals.
#[derive(Debug, Default)]
pub(super) struct Principals {
    /// By ARN. A session has those of its role, and its own.
    own: HashMap<String, Vec<Policy>>,
    /// By a role's account and name: what sessions have that are not declared themselves.
    roles: HashMap<(AccountId, String), Vec<Policy>>,
}

impl Principals {
    pub(super) fn new(principals: Vec<Principal>) -> Self {
        let mut all = Self::default();
        for Principal { caller, policies } in &principals {
            if let Some(role) = caller.role() {
                let role = (caller.account().clone(), role.to_owned());
                all.roles
                    .entry(role)
                    .or_default()
                    .extend_from_slice(policies);
            }
        }
        for Principal { caller, policies } in principals {
            let mut own = all.of(&caller).to_vec();
            own.extend(policies);
            all.own.insert(caller.arn().to_owned(), own);
        }
        all
    }

    /// Whether a principal has an entry of its own.
    pub(super) fn has(&self, caller: &Caller) -> bool {
        self.own.contains_key(caller.arn())
    }

    pub(super) fn of(&self, caller: &Caller) -> &[Policy] {
        match self.own.get(caller.arn()) {
            Some(own) => own,
            None => self.of_role(caller),
        }
    }

    fn of_role(&self, session: &Caller) -> &[Policy] {
        let Some(role) = session.session_role() else {
            return &[];
        };
        let role = (session.account().clone(), role.to_owned());
        self.roles.get(&role).map_or(&[], Vec::as_slice)
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
pub(super) fn compiled(text: &str, account: &AccountId) -> Result<Policy, String> {
    let policy = if text.is_empty() {
        Policy::parse(&default_policy(account), PolicyKind::Key)
            .map(|policy| policy.called("KMS's default"))
    } else {
        Policy::parse(text, PolicyKind::Key).map(|policy| policy.called("of the store"))
    };
    policy.map_err(|fault| fault.to_string())
}

/// What stands for a policy that cannot be read: the account's root, and nobody else, may read the
/// text and write another one. Root's own policies can still deny it.
pub(super) fn for_repair(account: &AccountId) -> Policy {
    let text = format!(
        r#"{{
  "Version" : "2012-10-17",
  "Statement" : [ {{
    "Sid" : "Mend it",
    "Effect" : "Allow",
    "Principal" : {{ "AWS" : "{account}" }},
    "Action" : [ "kms:GetKeyPolicy", "kms:PutKeyPolicy" ],
    "Resource" : "*",
    "Condition" : {{ "ArnLike" : {{ "aws:PrincipalArn" : "arn:*:iam::{account}:root" }} }}
  }} ]
}}"#
    );
    Policy::parse(&text, PolicyKind::Key)
        .expect("it is a key policy for every account")
        .called("in place of one that cannot be read")
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
    /// When, in seconds since 1970; now, if absent.
    pub(super) at: Option<u64>,
}

/// What a right is asked for.
#[derive(Clone, Copy)]
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
        let principals = self.principals.load();
        let identity = principals.of(caller);
        let case = self.case(caller, operation, *on, asks, identity);
        let decision = case.decide();
        case.log(decision);
        match decision {
            Decision::Allowed(_) => Ok(()),
            Decision::Denied(denial) => Err(case.refusal(denial)),
        }
    }

    /// Everything that one decision is made of; the caller has these policies of its own.
    pub(super) fn case<'a>(
        &'a self,
        caller: &'a Caller,
        operation: Operation,
        on: On<'a>,
        asks: &'a Asks<'a>,
        identity: &'a [Policy],
    ) -> Case<'a> {
        let (record, resource) = match on {
            On::Key(record) => (Some(record), Some(&*record.arn)),
            On::Arn(arn) => (None, Some(arn)),
            On::Nothing => (None, None),
        };
        Case {
            operation,
            resource,
            rights: Rights {
                key: record.map(|record| (&*record.policy, &record.body.account)),
                identity,
            },
            unreadable: record.and_then(|record| record.unreadable_policy.as_deref()),
            circumstances: Circumstances {
                kms: self,
                caller,
                record,
                asks,
            },
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
        let on = record.map_or(On::Arn(arn), On::Key);
        let principals = self.principals.load();
        let identity = principals.of(caller);
        let case = self.case(caller, Operation::PutKeyPolicy, on, asks, identity);
        matches!(case.under(policy, account).decide(), Decision::Allowed(_))
    }
}

/// One question of rights. Operations and simulations put it alike.
pub(super) struct Case<'a> {
    operation: Operation,
    resource: Option<&'a str>,
    rights: Rights<'a>,
    /// Why the key's own policy is not among them.
    unreadable: Option<&'a str>,
    circumstances: Circumstances<'a>,
}

impl<'a> Case<'a> {
    /// The same under another policy of the key, which is of this account.
    pub(super) fn under(mut self, policy: &'a Policy, account: &'a AccountId) -> Self {
        self.rights.key = Some((policy, account));
        self.unreadable = None;
        self
    }

    pub(super) fn decide(&self) -> Decision {
        decide(&self.rights, &self.question())
    }

    /// The policies that are looked at: the key's first, then the caller's own.
    pub(super) fn policies(&self) -> impl Iterator<Item = (PolicyKind, &'a Policy)> {
        let key = self.rights.key.map(|(policy, _)| (PolicyKind::Key, policy));
        let identity = self.rights.identity.iter();
        key.into_iter()
            .chain(identity.map(|policy| (PolicyKind::Identity, policy)))
    }

    /// Which of the policies decided, and which statement of it; none if nothing that is said did.
    pub(super) fn decider(&self, decision: Decision) -> Option<(usize, usize)> {
        let first = usize::from(self.rights.key.is_some());
        match decision {
            Decision::Allowed(Grounds::KeyPolicy(at)) | Decision::Denied(Denial::KeyPolicy(at)) => {
                Some((0, at))
            }
            Decision::Allowed(Grounds::IdentityPolicy(policy, at))
            | Decision::Denied(Denial::IdentityPolicy(policy, at)) => Some((first + policy, at)),
            Decision::Allowed(Grounds::Root)
            | Decision::Denied(Denial::NoKeyPolicy | Denial::NoIdentityPolicy) => None,
        }
    }

    /// For the operator, who learns more than the client. Costs nothing where `debug` is off.
    fn log(&self, decision: Decision) {
        let caller = self.circumstances.caller;
        let (action, resource) = (self.operation.action(), self.resource);
        let statement = || {
            let (policy, at) = self.decider(decision)?;
            let (kind, policy) = self.policies().nth(policy)?;
            Some(format!(
                "{} of the {kind} policy ({})",
                policy.statement_name(at),
                policy.name()
            ))
        };
        match decision {
            Decision::Allowed(grounds) => {
                tracing::debug!(%caller, action, resource, ?grounds, statement = statement(), "allowed");
            }
            Decision::Denied(denial) => {
                tracing::debug!(%caller, action, resource, ?denial, statement = statement(), "denied");
            }
        }
    }

    /// KMS's sentence. Of a key of another account it tells nothing, not even that it is there.
    pub(super) fn refusal(&self, denial: Denial) -> Error {
        let Circumstances { caller, record, .. } = self.circumstances;
        let action = self.operation.action();
        let on = match (record, self.resource) {
            (Some(record), _) if record.body.account != *caller.account() => {
                if matches!(denial, Denial::NoKeyPolicy | Denial::KeyPolicy(_)) {
                    return no_such_resource(caller, self.operation);
                }
                "this resource".to_owned()
            }
            (Some(record), _) if let Some(fault) = self.unreadable => {
                // It is not that nobody allows it: nobody can know.
                return unavailable(&record.arn)
                    .because(format!("its policy cannot be read: {fault}"));
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

    pub(super) fn question(&self) -> Question<'_> {
        Question {
            caller: self.circumstances.caller,
            action: self.operation.action(),
            resource: self.resource,
            context: &self.circumstances,
        }
    }
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
            ContextKey::CurrentTime | ContextKey::EpochTime => {
                one(Some(asks.at.unwrap_or_else(seconds).to_string()))
            }
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
