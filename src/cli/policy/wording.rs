//! Sentences on a decision: why it was made, what is missing, why a statement does not apply.

use crate::{
    kms::{Evaluation, PolicyTrace},
    model::{
        Caller, GrantedTo,
        policy::{
            Decision, Denial, Effect, Grounds, Mismatch, PolicyKind, StatementResult, Values,
        },
    },
};

pub(super) fn allowed_or_denied(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

pub(super) fn because(evaluation: &Evaluation, caller: &Caller) -> String {
    let decider = evaluation
        .decided_by
        .map_or_else(String::new, |(policy, at)| named(evaluation, policy, at));
    // What the key's policy says where it does not decide alone.
    let key = || match lets_in(evaluation) {
        Some((at, StatementResult::AllowsAccount)) => {
            format!(
                "{} leaves it to account {}",
                named(evaluation, 0, at),
                caller.account()
            )
        }
        Some((at, _)) => format!("{} allows it", named(evaluation, 0, at)),
        None => String::new(),
    };
    match evaluation.decision {
        None => "there is no such key that this principal could use from its account".into(),
        Some(Decision::Allowed(grounds)) => {
            let own = match grounds {
                Grounds::KeyPolicy(_) => return format!("{decider} allows it"),
                Grounds::IdentityPolicy(..) => format!("{decider} allows it"),
                Grounds::Grant(how) => {
                    let grant = evaluation.grant.map(|id| id.to_string());
                    let grant = format!("grant {}", grant.unwrap_or_default());
                    return match how {
                        GrantedTo::Itself => format!("{grant} allows it"),
                        GrantedTo::ItsAccount => format!(
                            "{grant} leaves it to account {}, and the principal's own policies allow it",
                            caller.account()
                        ),
                    };
                }
                Grounds::Root => {
                    "the account's root has every right that no policy denies".to_owned()
                }
            };
            match key() {
                none if none.is_empty() => own,
                key => format!("{key}, and {own}"),
            }
        }
        Some(Decision::Denied(denial)) => match denial {
            Denial::KeyPolicy(_) | Denial::IdentityPolicy(..) => format!("{decider} denies it"),
            Denial::NoKeyPolicy => format!(
                "no statement of the key's policy and no grant allows it to {caller}, or leaves it to account {}",
                caller.account()
            ),
            Denial::NoIdentityPolicy => {
                let own = if has_identity_policy(evaluation) {
                    "no statement of the principal's own policies allows it"
                } else {
                    "the principal has no policy of its own"
                };
                match key() {
                    none if none.is_empty() => own.to_owned(),
                    key => format!("{key}, but {own}"),
                }
            }
        },
    }
}

/// The statement that is missing, if no other denies the request.
pub(super) fn missing(evaluation: &Evaluation, caller: &Caller) -> Option<String> {
    let action = evaluation.action;
    let on = evaluation.resource.as_deref().unwrap_or("*");
    match evaluation.decision {
        Some(Decision::Denied(Denial::NoKeyPolicy)) => Some(format!(
            "an Allow of {action} for {caller} or for account {} in the key's policy",
            caller.account()
        )),
        Some(Decision::Denied(Denial::NoIdentityPolicy)) => Some(format!(
            "an Allow of {action} on {on} in the principal's policy_file"
        )),
        Some(
            Decision::Allowed(_)
            | Decision::Denied(Denial::KeyPolicy(_) | Denial::IdentityPolicy(..)),
        )
        | None => None,
    }
}

fn has_identity_policy(evaluation: &Evaluation) -> bool {
    let mut policies = evaluation.policies.iter();
    policies.any(|policy| policy.kind == PolicyKind::Identity)
}

/// The statement of the key's policy that lets the caller or its account in.
fn lets_in(evaluation: &Evaluation) -> Option<(usize, &StatementResult)> {
    let key = evaluation.policies.first()?;
    if key.kind != PolicyKind::Key {
        return None;
    }
    let mut says = key.statements.iter().map(|one| &one.result).enumerate();
    let itself = says
        .clone()
        .find(|(_, says)| **says == StatementResult::Allows);
    itself.or_else(|| says.find(|(_, says)| **says == StatementResult::AllowsAccount))
}

/// A statement's name in [`because`].
fn named(evaluation: &Evaluation, policy: usize, at: usize) -> String {
    let Some(policy) = evaluation.policies.get(policy) else {
        return String::new();
    };
    let sid = policy.statements.get(at).and_then(|one| one.sid.as_ref());
    let name = sid.map_or_else(|| format!("number {}", at + 1), |sid| format!("{sid:?}"));
    format!("statement {name} of the {}", title(policy))
}

pub(super) fn title(policy: &PolicyTrace) -> String {
    format!("{} policy ({})", policy.kind, policy.name)
}

pub(super) fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "Allow",
        Effect::Deny => "Deny",
    }
}

pub(super) fn says(says: &StatementResult) -> String {
    match says {
        StatementResult::Allows => "allows it".into(),
        StatementResult::AllowsAccount => "leaves it to the account".into(),
        StatementResult::Denies => "denies it".into(),
        StatementResult::DoesNotApply(misfits) => {
            let reasons: Vec<String> = misfits.iter().map(reason).collect();
            format!("does not apply: {}", reasons.join("; "))
        }
    }
}

fn reason(misfit: &Mismatch) -> String {
    match misfit {
        Mismatch::Principal => "it is about other principals".into(),
        Mismatch::ReplacedPrincipal => {
            "it is about a principal that had this ARN before, by another id".into()
        }
        Mismatch::Action => "it is about other actions".into(),
        Mismatch::Resource => "it is about other resources".into(),
        Mismatch::Condition {
            operator,
            key,
            wanted,
            seen,
        } => {
            let seen = match seen {
                Values::Absent => "here there is none".into(),
                Values::One(value) => format!("here it is {value}"),
                Values::Several(values) => format!("here it is [{}]", values.join(", ")),
            };
            format!("{operator} {key} [{}]: {seen}", wanted.join(", "))
        }
    }
}
