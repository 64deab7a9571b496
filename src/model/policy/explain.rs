//! Why each statement of a policy applies to a request or not, for people. [`decide`](fn@super::decide)
//! stops at the first part of a statement that does not match; this module names all of them.

use super::{
    Effect, Policy, PolicyRequest, Statement, Values,
    condition::Condition,
    principal::{Principal, PrincipalMatch},
};

/// A statement, evaluated for a request.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementTrace {
    /// Its `Sid`, if it has one.
    pub sid: Option<String>,
    /// What it would do.
    pub effect: Effect,
    /// What it does.
    pub result: StatementResult,
}

/// What a statement does to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum StatementResult {
    /// It allows the caller itself.
    Allows,
    /// It allows the caller's account, whose other policies must allow the caller.
    AllowsAccount,
    /// It denies.
    Denies,
    /// It does not apply, for all these reasons.
    DoesNotApply(Vec<Mismatch>),
}

/// Why a statement does not apply.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// It is about other principals.
    Principal,
    /// It names the caller's ARN, and means a principal that had this ARN when the policy was written.
    ReplacedPrincipal,
    /// It is about other actions.
    Action,
    /// It is about other resources.
    Resource,
    /// A condition does not hold.
    Condition {
        /// The operator as the document writes it, `StringEquals`.
        operator: String,
        /// The condition key as the document writes it, `kms:KeySpec`.
        key: String,
        /// What the document gives.
        wanted: Vec<String>,
        /// What the request has.
        seen: Values<'static>,
    },
}

impl Policy {
    /// What each statement does to a request, in the order of the document.
    pub fn explain(&self, request: &PolicyRequest<'_>) -> Vec<StatementTrace> {
        let explained = |statement: &Statement| StatementTrace {
            sid: statement.sid.clone(),
            effect: statement.effect,
            result: statement.explain(request),
        };
        self.statements.iter().map(explained).collect()
    }
}

impl Statement {
    fn explain(&self, request: &PolicyRequest<'_>) -> StatementResult {
        let bearer = request.bearer();
        let how = self.principals.include(bearer);
        let mut mismatches = Vec::new();
        if how.is_none() {
            let orphan = |principal: &Principal| principal.is_orphan(bearer);
            mismatches.push(match self.principals.named().iter().any(orphan) {
                true => Mismatch::ReplacedPrincipal,
                false => Mismatch::Principal,
            });
        }
        if !self.actions.has(request.operation) {
            mismatches.push(Mismatch::Action);
        }
        if !self.has_resource(request) {
            mismatches.push(Mismatch::Resource);
        }
        let conditions = self.conditions.iter();
        let unmet = |condition: &Condition| condition.unmet(self.effect, request.context);
        mismatches.extend(conditions.filter_map(unmet));
        match (self.effect, how) {
            _ if !mismatches.is_empty() => StatementResult::DoesNotApply(mismatches),
            (Effect::Deny, _) => StatementResult::Denies,
            (Effect::Allow, Some(PrincipalMatch::ByItsAccount)) => StatementResult::AllowsAccount,
            (Effect::Allow, Some(PrincipalMatch::Itself) | None) => StatementResult::Allows,
        }
    }
}
