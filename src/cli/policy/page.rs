//! What a simulation says, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    kms::{Heard, Judgement, Simulate, Simulation},
    model::{
        Caller,
        policy::{Decision, Denial, Effect, Explained, Grounds, Misfit, PolicyKind, Says, Values},
    },
};

/// One screen for people.
pub(super) fn text(asked: &Simulate, simulation: &Simulation) -> String {
    let mut page = format!(
        "{}: {} by {}\n",
        word(simulation.is_allowed()),
        asked.operation.name(),
        asked.caller
    );
    for judgement in &simulation.judgements {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "\n{} on {}: {}",
            judgement.action,
            judgement.resource.as_deref().unwrap_or("*"),
            word(judgement.is_allowed())
        );
        let _ = writeln!(page, "  because  {}", because(judgement, &asked.caller));
        if let Some(missing) = missing(judgement, &asked.caller) {
            let _ = writeln!(page, "  missing  {missing}");
        }
        if let Some((exception, say)) = &judgement.told {
            let _ = writeln!(page, "  client   {exception}: {say}");
        }
        for policy in &judgement.policies {
            let _ = writeln!(page, "  {}", title(policy));
            for (at, statement) in policy.statements.iter().enumerate() {
                let sid = statement.sid.as_ref();
                let sid = sid.map_or_else(String::new, |sid| format!(" {sid:?}"));
                let _ = writeln!(
                    page,
                    "    {}{sid} ({}) {}",
                    at + 1,
                    effect(statement.effect),
                    says(&statement.says)
                );
            }
            if policy.statements.is_empty() {
                page.push_str("    no statement\n");
            }
        }
    }
    if !simulation.notes.is_empty() {
        page.push('\n');
    }
    for note in &simulation.notes {
        let _ = writeln!(page, "note: {note}");
    }
    page
}

/// The same for programs.
pub(super) fn json(asked: &Simulate, simulation: &Simulation) -> String {
    let rights = simulation.judgements.iter();
    let answer = Answer {
        allowed: simulation.is_allowed(),
        principal: asked.caller.arn(),
        principal_is_declared: simulation.is_declared,
        operation: asked.operation.name(),
        rights: rights
            .map(|judgement| Right::new(judgement, &asked.caller))
            .collect(),
        notes: &simulation.notes,
    };
    let text = serde_json::to_string_pretty(&answer);
    text.expect("texts, numbers and lists have a JSON form") + "\n"
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

fn because(judgement: &Judgement, caller: &Caller) -> String {
    let decider = judgement
        .decided_by
        .map_or_else(String::new, |(policy, at)| named(judgement, policy, at));
    // What the key's policy adds where it does not decide by itself.
    let key = || match lets_in(judgement) {
        Some((at, Says::AllowsAccount)) => {
            format!(
                "{} leaves it to account {}",
                named(judgement, 0, at),
                caller.account()
            )
        }
        Some((at, _)) => format!("{} allows it", named(judgement, 0, at)),
        None => String::new(),
    };
    match judgement.decision {
        None => "there is no such key that this principal could use from its account".into(),
        Some(Decision::Allowed(grounds)) => {
            let own = match grounds {
                Grounds::KeyPolicy(_) => return format!("{decider} allows it"),
                Grounds::IdentityPolicy(..) => format!("{decider} allows it"),
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
                "no statement of the key's policy allows it to {caller}, or leaves it to account {}",
                caller.account()
            ),
            Denial::NoIdentityPolicy => {
                let own = if has_identity_policy(judgement) {
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

/// What would allow it, if nothing denies it.
fn missing(judgement: &Judgement, caller: &Caller) -> Option<String> {
    let action = judgement.action;
    let on = judgement.resource.as_deref().unwrap_or("*");
    match judgement.decision {
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

fn has_identity_policy(judgement: &Judgement) -> bool {
    let mut policies = judgement.policies.iter();
    policies.any(|policy| policy.kind == PolicyKind::Identity)
}

/// The statement of the key's policy that lets the caller or its account in.
fn lets_in(judgement: &Judgement) -> Option<(usize, &Says)> {
    let key = judgement.policies.first()?;
    if key.kind != PolicyKind::Key {
        return None;
    }
    let mut says = key.statements.iter().map(|one| &one.says).enumerate();
    let itself = says.clone().find(|(_, says)| **says == Says::Allows);
    itself.or_else(|| says.find(|(_, says)| **says == Says::AllowsAccount))
}

/// A statement, as `because` calls it.
fn named(judgement: &Judgement, policy: usize, at: usize) -> String {
    let Some(policy) = judgement.policies.get(policy) else {
        return String::new();
    };
    let sid = policy.statements.get(at).and_then(|one| one.sid.as_ref());
    let name = sid.map_or_else(|| format!("number {}", at + 1), |sid| format!("{sid:?}"));
    format!("statement {name} of the {}", title(policy))
}

fn title(policy: &Heard) -> String {
    format!("{} policy ({})", policy.kind, policy.name)
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "Allow",
        Effect::Deny => "Deny",
    }
}

fn says(says: &Says) -> String {
    match says {
        Says::Allows => "allows it".into(),
        Says::AllowsAccount => "leaves it to the account".into(),
        Says::Denies => "denies it".into(),
        Says::Nothing(misfits) => {
            let reasons: Vec<String> = misfits.iter().map(reason).collect();
            format!("does not apply: {}", reasons.join("; "))
        }
    }
}

fn reason(misfit: &Misfit) -> String {
    match misfit {
        Misfit::Principal => "it is about other principals".into(),
        Misfit::Action => "it is about other actions".into(),
        Misfit::Resource => "it is about other resources".into(),
        Misfit::Condition {
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

#[derive(Serialize)]
struct Answer<'a> {
    allowed: bool,
    principal: &'a str,
    principal_is_declared: bool,
    operation: &'static str,
    /// In the order in which they are asked for, up to the first that is denied.
    rights: Vec<Right<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Right<'a> {
    action: &'static str,
    resource: Option<&'a str>,
    allowed: bool,
    /// `grounds` below has them all.
    grounds: &'static str,
    because: String,
    missing: Option<String>,
    decided_by: Option<Decider<'a>>,
    client: Option<Told<'a>>,
    policies: Vec<Policy<'a>>,
}

#[derive(Serialize)]
struct Decider<'a> {
    policy: &'static str,
    source: &'a str,
    statement: usize,
    sid: Option<&'a str>,
}

#[derive(Serialize)]
struct Told<'a> {
    exception: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Policy<'a> {
    policy: &'static str,
    source: &'a str,
    statements: Vec<Statement<'a>>,
}

#[derive(Serialize)]
struct Statement<'a> {
    number: usize,
    sid: Option<&'a str>,
    effect: &'static str,
    /// What it says here: `allow`, `allow_account`, `deny` or `nothing`.
    says: &'static str,
    /// Why it says nothing.
    misfits: Vec<Reason<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "element")]
enum Reason<'a> {
    Principal,
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

impl<'a> Right<'a> {
    fn new(judgement: &'a Judgement, caller: &Caller) -> Self {
        let decider = |(policy, at): (usize, usize)| {
            let policy = judgement.policies.get(policy)?;
            Some(Decider {
                policy: kind(policy.kind),
                source: &policy.name,
                statement: at + 1,
                sid: policy.statements.get(at)?.sid.as_deref(),
            })
        };
        let told = judgement.told.as_ref();
        Self {
            action: judgement.action,
            resource: judgement.resource.as_deref(),
            allowed: judgement.is_allowed(),
            grounds: grounds(judgement.decision),
            because: because(judgement, caller),
            missing: missing(judgement, caller),
            decided_by: judgement.decided_by.and_then(decider),
            client: told.map(|(exception, message)| Told { exception, message }),
            policies: judgement.policies.iter().map(Policy::new).collect(),
        }
    }
}

impl<'a> Policy<'a> {
    fn new(policy: &'a Heard) -> Self {
        let statement = |(at, one): (usize, &'a Explained)| Statement {
            number: at + 1,
            sid: one.sid.as_deref(),
            effect: effect(one.effect),
            says: match one.says {
                Says::Allows => "allow",
                Says::AllowsAccount => "allow_account",
                Says::Denies => "deny",
                Says::Nothing(_) => "nothing",
            },
            misfits: match &one.says {
                Says::Nothing(misfits) => misfits.iter().map(Reason::new).collect(),
                Says::Allows | Says::AllowsAccount | Says::Denies => Vec::new(),
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

impl<'a> Reason<'a> {
    fn new(misfit: &'a Misfit) -> Self {
        match misfit {
            Misfit::Principal => Self::Principal,
            Misfit::Action => Self::Action,
            Misfit::Resource => Self::Resource,
            Misfit::Condition {
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
                    Values::One(value) => Some(vec![value]),
                    Values::Several(values) => Some(values.iter().map(String::as_str).collect()),
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
        Some(Decision::Denied(Denial::KeyPolicy(_))) => "key_policy_denies",
        Some(Decision::Denied(Denial::IdentityPolicy(..))) => "identity_policy_denies",
        Some(Decision::Denied(Denial::NoKeyPolicy)) => "no_key_policy_allows",
        Some(Decision::Denied(Denial::NoIdentityPolicy)) => "no_identity_policy_allows",
    }
}
