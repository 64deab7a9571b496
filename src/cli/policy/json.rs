//! What a simulation says, as JSON for programs: the members' names stay.

use serde::Serialize;

use super::wording::{because, effect, missing};
use crate::{
    kms::{Evaluation, PolicyTrace, SimulatedRequest, Simulation},
    model::{
        Caller,
        policy::{
            Decision, Denial, Grounds, Mismatch, PolicyKind, StatementResult, StatementTrace,
            Values,
        },
    },
};

/// The whole answer, indented.
pub(super) fn page(asked: &SimulatedRequest, simulation: &Simulation) -> String {
    let rights = simulation.evaluations.iter();
    let answer = SimulationReport {
        allowed: simulation.is_allowed(),
        principal: asked.caller.arn(),
        principal_is_declared: simulation.is_declared,
        operation: asked.operation.name(),
        rights: rights
            .map(|evaluation| EvaluationReport::new(evaluation, &asked.caller))
            .collect(),
        notes: &simulation.notes,
    };
    let text = serde_json::to_string_pretty(&answer);
    text.expect("texts, numbers and lists have a JSON form") + "\n"
}

#[derive(Serialize)]
struct SimulationReport<'a> {
    allowed: bool,
    principal: &'a str,
    principal_is_declared: bool,
    operation: &'static str,
    /// In the order in which they are asked for, up to the first that is denied.
    rights: Vec<EvaluationReport<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct EvaluationReport<'a> {
    action: &'static str,
    resource: Option<&'a str>,
    allowed: bool,
    /// `grounds` below has them all.
    grounds: &'static str,
    because: String,
    missing: Option<String>,
    decided_by: Option<DecidingStatement<'a>>,
    /// The ID of the grant that allows it.
    grant: Option<String>,
    client: Option<ClientError<'a>>,
    policies: Vec<PolicyReport<'a>>,
}

#[derive(Serialize)]
struct DecidingStatement<'a> {
    policy: &'static str,
    source: &'a str,
    statement: usize,
    sid: Option<&'a str>,
}

#[derive(Serialize)]
struct ClientError<'a> {
    exception: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct PolicyReport<'a> {
    policy: &'static str,
    source: &'a str,
    statements: Vec<StatementReport<'a>>,
}

#[derive(Serialize)]
struct StatementReport<'a> {
    number: usize,
    sid: Option<&'a str>,
    effect: &'static str,
    /// What it says here: `allow`, `allow_account`, `deny` or `nothing`.
    says: &'static str,
    /// Why it says nothing.
    misfits: Vec<MismatchReport<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "element")]
enum MismatchReport<'a> {
    Principal,
    ReplacedPrincipal,
    Action,
    Resource,
    Condition {
        operator: &'a str,
        key: &'a str,
        wanted: &'a [String],
        /// Null: the request has none.
        seen: Option<Vec<&'a str>>,
    },
}

impl<'a> EvaluationReport<'a> {
    fn new(evaluation: &'a Evaluation, caller: &Caller) -> Self {
        let decider = |(policy, at): (usize, usize)| {
            let policy = evaluation.policies.get(policy)?;
            Some(DecidingStatement {
                policy: kind(policy.kind),
                source: &policy.name,
                statement: at + 1,
                sid: policy.statements.get(at)?.sid.as_deref(),
            })
        };
        let told = evaluation.told.as_ref();
        Self {
            action: evaluation.action,
            resource: evaluation.resource.as_deref(),
            allowed: evaluation.is_allowed(),
            grounds: grounds(evaluation.decision),
            because: because(evaluation, caller),
            missing: missing(evaluation, caller),
            decided_by: evaluation.decided_by.and_then(decider),
            grant: evaluation.grant.map(|id| id.to_string()),
            client: told.map(|(exception, message)| ClientError { exception, message }),
            policies: evaluation.policies.iter().map(PolicyReport::new).collect(),
        }
    }
}

impl<'a> PolicyReport<'a> {
    fn new(policy: &'a PolicyTrace) -> Self {
        let statement = |(at, one): (usize, &'a StatementTrace)| StatementReport {
            number: at + 1,
            sid: one.sid.as_deref(),
            effect: effect(one.effect),
            says: match one.result {
                StatementResult::Allows => "allow",
                StatementResult::AllowsAccount => "allow_account",
                StatementResult::Denies => "deny",
                StatementResult::DoesNotApply(_) => "nothing",
            },
            misfits: match &one.result {
                StatementResult::DoesNotApply(misfits) => {
                    misfits.iter().map(MismatchReport::new).collect()
                }
                StatementResult::Allows
                | StatementResult::AllowsAccount
                | StatementResult::Denies => Vec::new(),
            },
        };
        Self {
            policy: kind(policy.kind),
            source: &policy.name,
            statements: policy
                .statements
                .iter()
                .enumerate()
                .map(statement)
                .collect(),
        }
    }
}

impl<'a> MismatchReport<'a> {
    fn new(misfit: &'a Mismatch) -> Self {
        match misfit {
            Mismatch::Principal => Self::Principal,
            Mismatch::ReplacedPrincipal => Self::ReplacedPrincipal,
            Mismatch::Action => Self::Action,
            Mismatch::Resource => Self::Resource,
            Mismatch::Condition {
                operator,
                key,
                wanted,
                seen,
            } => Self::Condition {
                operator,
                key,
                wanted,
                seen: match seen {
                    Values::Absent => None,
                    Values::One(value) => Some(vec![value.as_ref()]),
                    Values::Several(values) => Some(values.iter().map(AsRef::as_ref).collect()),
                },
            },
        }
    }
}

fn kind(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::Key => "key",
        PolicyKind::Identity => "identity",
    }
}

fn grounds(decision: Option<Decision>) -> &'static str {
    match decision {
        None => "no_such_key",
        Some(Decision::Allowed(Grounds::KeyPolicy(_))) => "key_policy_allows",
        Some(Decision::Allowed(Grounds::IdentityPolicy(..))) => "identity_policy_allows",
        Some(Decision::Allowed(Grounds::Root)) => "account_root",
        Some(Decision::Allowed(Grounds::Grant(_))) => "grant",
        Some(Decision::Denied(Denial::KeyPolicy(_))) => "key_policy_denies",
        Some(Decision::Denied(Denial::IdentityPolicy(..))) => "identity_policy_denies",
        Some(Decision::Denied(Denial::NoKeyPolicy)) => "no_key_policy_allows",
        Some(Decision::Denied(Denial::NoIdentityPolicy)) => "no_identity_policy_allows",
    }
}
