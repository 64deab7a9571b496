//! IAM policy documents: who may do what, parsed strictly once, evaluated without a parser.
//!
//! Promises: an element, operator or condition key that this evaluator does not know is refused when
//! the document is written, never passed over when it is evaluated; adding a Deny never widens what
//! is allowed; the order of statements is irrelevant. Knows: key policies (they stand on a key and say
//! who) and identity policies (they stand on a principal). Does not: policy variables, network
//! addresses, session policies, permissions boundaries; those documents are refused.
//!
//! The rules are IAM's "Policy evaluation logic" and "JSON policy elements", as far as KMS keys need
//! them.

mod condition;
mod decide;
mod document;
mod explain;
mod json;
mod pattern;
mod principal;

pub use self::{
    condition::{Context, ContextKey, Values},
    decide::{Decision, Denial, Grounds, Rights, decide},
    document::{PolicyFault, PolicyKind},
    explain::{Explained, Misfit, Says},
};

use std::borrow::Cow;

use self::{
    condition::Condition, pattern::fits_arn, pattern::fits_ignoring_case, principal::Principals,
};
use super::Caller;

/// A document that was parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Where it stands, for explanations.
    name: Cow<'static, str>,
    statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq)]
struct Statement {
    sid: Option<String>,
    effect: Effect,
    principals: Principals,
    /// Patterns of `kms:GenerateMac`.
    actions: Among,
    /// Patterns of ARNs.
    resources: Among,
    conditions: Vec<Condition>,
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
enum Among {
    These(Vec<String>),
    AllBut(Vec<String>),
}

impl Among {
    fn has(&self, fits: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::These(patterns) => patterns.iter().any(|pattern| fits(pattern)),
            Self::AllBut(patterns) => !patterns.iter().any(|pattern| fits(pattern)),
        }
    }
}

/// What is asked of a policy.
pub struct Question<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// With its service: `kms:GenerateMac`.
    pub action: &'a str,
    /// The ARN of the key or alias; None for operations that have neither.
    pub resource: Option<&'a str>,
    /// The values of condition keys.
    pub context: &'a dyn Context,
}

/// What one policy says to a question.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Word {
    /// The first statement that denies.
    deny: Option<usize>,
    /// The first that allows the caller itself.
    allow: Option<usize>,
    /// The first that allows the caller's account, which may then allow the caller.
    delegate: Option<usize>,
}

impl Word {
    fn lets_in(&self) -> bool {
        self.allow.is_some() || self.delegate.is_some()
    }
}

impl Policy {
    /// The same policy, with where it stands: a file, the store.
    pub fn called(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Where it stands; empty if nobody said so.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How a statement is called in explanations: its Sid, or its number from 1.
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

    fn says(&self, question: &Question<'_>) -> Word {
        let mut word = Word::default();
        for (at, statement) in self.statements.iter().enumerate() {
            let place = match (
                statement.effect,
                statement.principals.include(question.caller),
            ) {
                (_, None) => continue,
                (Effect::Deny, Some(_)) => &mut word.deny,
                (Effect::Allow, Some(principal::How::Itself)) => &mut word.allow,
                (Effect::Allow, Some(principal::How::ByItsAccount)) => &mut word.delegate,
            };
            if place.is_none() && statement.applies(question) {
                *place = Some(at);
            }
        }
        word
    }
}

impl Statement {
    fn applies(&self, question: &Question<'_>) -> bool {
        self.has_action(question)
            && self.has_resource(question)
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(question.context))
    }

    fn has_action(&self, question: &Question<'_>) -> bool {
        self.actions
            .has(|pattern| fits_ignoring_case(pattern, question.action))
    }

    fn has_resource(&self, question: &Question<'_>) -> bool {
        self.resources.has(|pattern| match question.resource {
            _ if pattern == "*" => true,
            Some(resource) => fits_arn(pattern, resource),
            None => false,
        })
    }
}

#[cfg(test)]
mod tests;
