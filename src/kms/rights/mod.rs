//! Who may do what: the key's policy and the caller's own, put to one question.
//!
//! Policies are compiled when they are written or loaded; a call evaluates them. What decided stands
//! in the log at `debug`; the client learns KMS's sentence and no more.

mod circumstances;
mod declared;

pub use declared::{DeclaredRights, Principal, read_policy};

pub(super) use circumstances::Asks;
pub(super) use declared::{
    DeclaredPolicy, LONGEST, Principals, compiled, default_policy, for_repair, read,
};

use circumstances::Circumstances;

use super::{Kms, Record, unavailable};
use crate::{
    error::{Error, Kind},
    model::{
        AccountId, Caller, Operation,
        policy::{Decision, Denial, Grounds, Policy, PolicyKind, Question, Rights, decide},
    },
};

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
