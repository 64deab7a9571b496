//! Who may do what: the key's policy, its grants and the caller's own policies, put to one question.
//!
//! Policies are compiled when they are written or loaded; a call evaluates them. What decided stands
//! in the log at `debug`; the client learns KMS's sentence and no more. The rights that an operation
//! needs are declared in `required.rs`.

mod context;
mod grants;
mod required;

pub(in crate::kms) use context::{
    DEFAULT_POLICY_NAME, DEFAULT_WINDOW_IN_DAYS, NewGrant, RequestContext,
};
pub(in crate::kms) use required::{Authorized, Authorizer, Enforce, Subject, require};

use std::{cell::OnceCell, sync::Arc};

use self::{context::ConditionContext, grants::GrantSearch};

use crate::{
    error::{Error, Kind},
    kms::{
        catalogue::{Catalogue, GrantRecord, KeyRecord},
        errors::{no_such_resource, unavailable},
        principals::Principals,
    },
    model::{
        AccountId, Caller, Operation, Principal,
        policy::{
            ApplicablePolicies, Decision, Denial, Grants, Grounds, Policy, PolicyKind,
            PolicyRequest, decide,
        },
    },
};

/// What a right is asked for.
#[derive(Clone, Copy)]
pub(in crate::kms) enum Resource<'a> {
    /// A key.
    Key(&'a KeyRecord),
    /// By its ARN what has no policy of its own: an alias, or a key that is still to be made.
    Arn(&'a str),
    /// Nothing in particular: the operation is about no key.
    Any,
}

/// Security: the place where rights are decided, after the key is known and before its state shows. Gives
/// the grant that alone allows it, if it is one: with it the right ends.
///
/// # Errors
/// [`Kind::AccessDenied`] in KMS's words; [`Kind::InvalidState`] if the key's policy cannot be read.
pub(in crate::kms) fn authorize(
    catalogue: &Catalogue,
    principals: &Principals,
    caller: &Caller,
    operation: Operation,
    resource: Resource<'_>,
    context: &RequestContext<'_>,
) -> Result<Option<Arc<GrantRecord>>, Error> {
    // Security: who was authenticated before a reload has no right that comes with it, since the proof
    // may be another principal's by now; and none that goes with it.
    let (now, then) = principals.now_and_then(caller);
    let id_now = now.and_then(Principal::id);
    let ids = [id_now, then.map_or(id_now, Principal::id)];
    let mut by_grant = None;
    for principal in then.map(Some).into_iter().chain([now]) {
        // A grant must mean both; so both find the same one.
        let request = AuthorizationRequest::new(
            (catalogue, principals),
            (caller, principal),
            operation,
            resource,
            *context,
        )
        .by_grant_to(ids);
        let decision = request.decide();
        request.log(decision);
        match decision {
            Decision::Denied(denial) => return Err(request.denied(denial)),
            Decision::Allowed(Grounds::Grant(_)) => by_grant = request.grant().cloned(),
            Decision::Allowed(
                Grounds::KeyPolicy(_) | Grounds::IdentityPolicy(..) | Grounds::Root,
            ) => {}
        }
    }
    Ok(by_grant)
}

/// Whether somebody who writes this policy could write another one later (KMS: the lockout check).
/// A key that is still to be made has an ARN, and no record.
pub(in crate::kms) fn could_put_policy(
    known: (&Catalogue, &Principals),
    caller: &Caller,
    (resource, account): (Resource<'_>, &AccountId),
    policy: &Policy,
    context: &RequestContext<'_>,
) -> bool {
    let operation = Operation::PutKeyPolicy;
    let principal = known.1.of(caller);
    let request =
        AuthorizationRequest::new(known, (caller, principal), operation, resource, *context);
    let decision = request.under(policy, account).decide();
    matches!(decision, Decision::Allowed(_))
}

/// Everything that one decision on a right is made of.
pub(in crate::kms) struct AuthorizationRequest<'a> {
    operation: Operation,
    resource: Option<&'a str>,
    /// The key's policy and account.
    key: Option<(&'a Policy, &'a AccountId)>,
    /// The policies of the caller.
    identity: &'a [Policy],
    /// The grants on the key, if any count.
    grants: Option<GrantSearch<'a>>,
    /// Why the key's own policy is not among them.
    unreadable: Option<&'a str>,
    context: ConditionContext<'a>,
}

impl<'a> AuthorizationRequest<'a> {
    /// Of a caller, with what the principal has.
    pub(in crate::kms) fn new(
        (catalogue, principals): (&'a Catalogue, &'a Principals),
        (caller, principal): (&'a Caller, Option<&'a Principal>),
        operation: Operation,
        resource: Resource<'a>,
        request: RequestContext<'a>,
    ) -> Self {
        let (record, resource) = match resource {
            Resource::Key(record) => (Some(record), Some(&*record.arn)),
            Resource::Arn(arn) => (None, Some(arn)),
            Resource::Any => (None, None),
        };
        Self {
            operation,
            resource,
            key: record.map(|record| (&*record.policy, &record.body.account)),
            identity: principal.map_or(&[], |principal| &principal.policies),
            grants: record.and_then(KeyRecord::grants_in_force).map(|grants| {
                let id = principal.and_then(Principal::id);
                GrantSearch::new(grants, (caller, [id, id]), request)
            }),
            unreadable: record.and_then(|record| record.unreadable_policy.as_deref()),
            context: ConditionContext {
                catalogue,
                principals,
                caller,
                principal,
                record,
                request,
                source_ip: OnceCell::new(),
            },
        }
    }

    /// Has other policies stand in the place of those that the caller has of its own.
    pub(in crate::kms) fn with_identity(mut self, identity: &'a [Policy]) -> Self {
        self.identity = identity;
        self
    }

    /// Has another policy stand in the place of the key's own; the key is of this account.
    pub(in crate::kms) fn under(mut self, policy: &'a Policy, account: &'a AccountId) -> Self {
        self.key = Some((policy, account));
        self.unreadable = None;
        self
    }

    /// Takes grants for those of a caller with each of these immutable IDs.
    fn by_grant_to(mut self, ids: [Option<&'a str>; 2]) -> Self {
        if let Some(grants) = &mut self.grants {
            grants.bearer.ids = ids;
        }
        self
    }

    pub(in crate::kms) fn decide(&self) -> Decision {
        let rights = ApplicablePolicies {
            key: self.key,
            identity: self.identity,
            grants: self.grants.as_ref().map(|grants| grants as &dyn Grants),
        };
        decide(&rights, &self.question())
    }

    /// The grant that was looked at, if the decision came to one.
    pub(in crate::kms) fn grant(&self) -> Option<&Arc<GrantRecord>> {
        self.grants.as_ref().and_then(GrantSearch::found)
    }

    /// The policies that are looked at: the key's first, then the caller's own.
    pub(in crate::kms) fn policies(&self) -> impl Iterator<Item = (PolicyKind, &'a Policy)> {
        let key = self.key.map(|(policy, _)| (PolicyKind::Key, policy));
        let identity = self.identity.iter();
        key.into_iter()
            .chain(identity.map(|policy| (PolicyKind::Identity, policy)))
    }

    /// Which of the policies decided, and which statement of it; none if nothing that is said did.
    pub(in crate::kms) fn decider(&self, decision: Decision) -> Option<(usize, usize)> {
        let first = usize::from(self.key.is_some());
        match decision {
            Decision::Allowed(Grounds::KeyPolicy(at)) | Decision::Denied(Denial::KeyPolicy(at)) => {
                Some((0, at))
            }
            Decision::Allowed(Grounds::IdentityPolicy(policy, at))
            | Decision::Denied(Denial::IdentityPolicy(policy, at)) => Some((first + policy, at)),
            Decision::Allowed(Grounds::Root | Grounds::Grant(_))
            | Decision::Denied(Denial::NoKeyPolicy | Denial::NoIdentityPolicy) => None,
        }
    }

    /// For the operator, who learns more than the client. Costs nothing where `debug` is off.
    fn log(&self, decision: Decision) {
        let caller = self.context.caller;
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
                let grant = self.grant().map(|grant| tracing::field::display(grant.id));
                tracing::debug!(%caller, action, resource, ?grounds, grant, statement = statement(), "allowed");
            }
            Decision::Denied(denial) => {
                tracing::debug!(%caller, action, resource, ?denial, statement = statement(), "denied");
            }
        }
    }

    /// KMS's sentence. Of a key of another account it tells nothing, not even that it is there.
    pub(in crate::kms) fn denied(&self, denial: Denial) -> Error {
        let ConditionContext { caller, record, .. } = self.context;
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

    pub(in crate::kms) fn question(&self) -> PolicyRequest<'_> {
        PolicyRequest {
            caller: self.context.caller,
            principal_id: self.context.principal.and_then(Principal::id),
            operation: self.operation,
            resource: self.resource,
            context: &self.context,
        }
    }
}
