//! IAM policy documents: who may do what, parsed strictly once, evaluated without a parser.
//!
//! Promises: an element, operator or condition key that neither IAM nor KMS knows is refused when the
//! document is written, never passed over when it is evaluated; one that they know and that no request
//! here has a value for is absent, as IAM has it; adding a Deny never widens what is allowed; the order
//! of statements is irrelevant. Knows: key policies (they are attached to a key and say who) and
//! identity policies (they are attached to a principal). Does not: session policies, permissions
//! boundaries.
//!
//! The rules are IAM's "Policy evaluation logic" and "JSON policy elements", as far as KMS keys need
//! them. A second evaluator in `interpreter.rs`, written from the same rules as plainly as can be,
//! is held against this one.

mod action;
mod condition;
mod context;
mod date;
mod decide;
mod document;
mod explain;
mod json;
mod pattern;
mod principal;
mod unreachable;
mod variable;

pub use self::{
    context::{Context, ContextKey, Values},
    decide::{ApplicablePolicies, Decision, Denial, Grants, Grounds, decide},
    document::{PolicyFault, PolicyKind},
    explain::{Mismatch, StatementResult, StatementTrace},
};

use std::{borrow::Cow, collections::BTreeMap};

use self::{
    action::ActionSet,
    condition::Condition,
    pattern::ArnPattern,
    principal::{Bearer, Principal, Principals},
};
use super::{Caller, Operation};

/// A document that was parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// A file, or the store; for explanations.
    name: Cow<'static, str>,
    statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq)]
struct Statement {
    sid: Option<String>,
    effect: Effect,
    principals: Principals,
    actions: ActionSet,
    resources: Patterns<Resource>,
    conditions: Vec<Condition>,
}

/// One pattern of `Resource` or `NotResource`.
#[derive(Clone, Debug, PartialEq)]
enum Resource {
    /// `*`: also what has no ARN.
    Anything,
    Arn(ArnPattern),
}

/// What a statement does where it applies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// It allows, unless another one denies.
    Allow,
    /// It denies, whatever the others say.
    Deny,
}

/// `Action` or `NotAction`, `Resource` or `NotResource`.
#[derive(Clone, Debug, PartialEq)]
enum Patterns<T> {
    Any(Vec<T>),
    Except(Vec<T>),
}

impl<T> Patterns<T> {
    fn has(&self, fits: impl Fn(&T) -> bool) -> bool {
        match self {
            Self::Any(patterns) => patterns.iter().any(fits),
            Self::Except(patterns) => !patterns.iter().any(fits),
        }
    }
}

/// A request, as policies are evaluated for it.
pub struct PolicyRequest<'a> {
    /// The principal that sends it.
    pub caller: &'a Caller,
    /// The caller's immutable ID, or that of its role, if it has one.
    pub principal_id: Option<&'a str>,
    /// What it asks for.
    pub operation: Operation,
    /// The ARN of the key or alias; None for operations that have neither.
    pub resource: Option<&'a str>,
    /// The values of condition keys.
    pub context: &'a dyn Context,
}

impl<'a> PolicyRequest<'a> {
    fn bearer(&self) -> Bearer<'a> {
        Bearer {
            caller: self.caller,
            id: self.principal_id,
        }
    }
}

/// The statements of one policy that apply to a request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct MatchedStatements {
    /// The first statement that denies.
    deny: Option<usize>,
    /// The first that allows the caller itself.
    allow: Option<usize>,
    /// The first that allows the caller's account, which may then allow the caller.
    delegate: Option<usize>,
}

impl MatchedStatements {
    fn allows(&self) -> bool {
        self.allow.is_some() || self.delegate.is_some()
    }
}

impl Policy {
    /// Gives the policy the name of its place, for explanations: a file, the store.
    pub fn called(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The name that [`Policy::called`] gave; empty without one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A statement's name in explanations: its Sid, or its number from 1.
    pub fn statement_name(&self, statement: usize) -> String {
        match self
            .statements
            .get(statement)
            .and_then(|statement| statement.sid.as_deref())
        {
            Some(sid) => format!("{sid:?}"),
            None => format!("number {}", statement + 1),
        }
    }

    /// The ARNs of users, roles and sessions that it names.
    pub fn principal_arns(&self) -> impl Iterator<Item = &str> {
        let named = self.statements.iter().map(|one| one.principals.named());
        named.flatten().filter_map(|principal| match principal {
            Principal::Arn { arn, .. } => Some(arn.as_str()),
            Principal::Anyone | Principal::Account(_) | Principal::Foreign => None,
        })
    }

    /// Means by each of these ARNs the principal with this immutable ID, and no other that gets the ARN
    /// later.
    #[must_use]
    pub fn of_principals(mut self, ids: &BTreeMap<String, String>) -> Self {
        for statement in &mut self.statements {
            for principal in statement.principals.named_mut() {
                if let Principal::Arn { arn, id } = principal {
                    *id = ids.get(arn.as_str()).cloned();
                }
            }
        }
        self
    }

    fn evaluate(&self, request: &PolicyRequest<'_>) -> MatchedStatements {
        let mut matched = MatchedStatements::default();
        for (at, statement) in self.statements.iter().enumerate() {
            let place = match (
                statement.effect,
                statement.principals.include(request.bearer()),
            ) {
                (_, None) => continue,
                (Effect::Deny, Some(_)) => &mut matched.deny,
                (Effect::Allow, Some(principal::PrincipalMatch::Itself)) => &mut matched.allow,
                (Effect::Allow, Some(principal::PrincipalMatch::ByItsAccount)) => {
                    &mut matched.delegate
                }
            };
            if place.is_none() && statement.applies(request) {
                *place = Some(at);
            }
        }
        matched
    }
}

impl Statement {
    fn applies(&self, request: &PolicyRequest<'_>) -> bool {
        self.actions.has(request.operation)
            && self.has_resource(request)
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(self.effect, request.context))
    }

    fn has_resource(&self, request: &PolicyRequest<'_>) -> bool {
        // Security: "all but" a variable without a value allows nothing.
        if let (Patterns::Except(resources), Effect::Allow) = (&self.resources, self.effect)
            && resources
                .iter()
                .any(|one| !one.is_resolved(request.context))
        {
            return false;
        }
        self.resources.has(|resource| resource.is(request))
    }
}

impl Resource {
    fn is(&self, request: &PolicyRequest<'_>) -> bool {
        match (self, request.resource) {
            (Self::Anything, _) => true,
            (Self::Arn(pattern), Some(arn)) => pattern.fits(arn, request.context),
            (Self::Arn(_), None) => false,
        }
    }

    fn is_resolved(&self, context: &dyn Context) -> bool {
        match self {
            Self::Anything => true,
            Self::Arn(pattern) => pattern.is_resolved(context),
        }
    }
}

#[cfg(test)]
pub(crate) mod interpreter;
#[cfg(test)]
mod ordinary;
#[cfg(test)]
mod tests;
