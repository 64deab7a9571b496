//! `hsmac check`: the doctor.

use std::{collections::BTreeMap, fmt::Write as _};

use tokio::runtime::Builder;

use super::{Configuration, Stop, print};
use crate::{
    app::{self, Examination},
    kms::DeclaredKey,
    model::KeyId,
    token::{Fault, KeyFacts, State},
};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Stop> {
    let (settings, warnings) = arguments.configuration.load()?;
    // No log: what `check` finds out it says itself.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::Bug(format!("no runtime: {error}")))?;
    let mut page = format!(
        "configuration  {}: good\n",
        arguments.configuration.config.display()
    );
    for warning in &warnings {
        let _ = writeln!(page, "  warning: {warning}");
    }
    for listener in settings.listeners() {
        let _ = writeln!(page, "listener       {listener}");
    }
    let examinations = runtime.block_on(app::examine(settings))?;
    let mut verdict = Verdict::default();
    for examination in &examinations {
        describe(examination, &mut page, &mut verdict);
    }
    for (group, members) in groups(&examinations) {
        describe_group(group, &members, &mut page, &mut verdict);
    }
    print(page.as_bytes())?;
    verdict.stop()
}

/// What is wrong, by the exit code that it calls for.
#[derive(Default)]
struct Verdict {
    wrong: Vec<String>,
    away: Vec<String>,
}

impl Verdict {
    fn stop(self) -> Result<(), Stop> {
        if !self.wrong.is_empty() {
            return Err(Stop::Config(format!(
                "hsmac: mend {}",
                self.wrong.join(", ")
            )));
        }
        if !self.away.is_empty() {
            return Err(Stop::Away(format!(
                "not available: {}",
                self.away.join(", ")
            )));
        }
        Ok(())
    }
}

fn describe(examination: &Examination, page: &mut String, verdict: &mut Verdict) {
    let Examination {
        token,
        group,
        state,
        facts,
        keys,
    } = examination;
    let of = group
        .as_ref()
        .map_or_else(String::new, |group| format!(" (group {group})"));
    let _ = writeln!(page, "\ntoken {token}{of}: {state}");
    match state {
        State::Up | State::Degraded(_) => {}
        State::Misconfigured(_) => verdict.wrong.push(format!("token.{token}")),
        State::Starting | State::Away(_) | State::PinRefused(_) => {
            verdict.away.push(format!("token {token}"));
        }
    }
    if let Some(facts) = facts {
        let info = &facts.info;
        let _ = writeln!(page, "  module      {}", facts.module);
        let _ = writeln!(
            page,
            "  token       label {:?}, serial {}, {} {}",
            info.label, info.serial, info.manufacturer, info.model
        );
        let algorithms: Vec<&str> = facts.algorithms.iter().map(|one| one.name()).collect();
        let _ = writeln!(page, "  algorithms  {}", algorithms.join(", "));
        let calls = if facts.two_calls {
            "2 (C_SignInit, C_Sign)"
        } else {
            "3: this module does not let us leave out the length query"
        };
        let _ = writeln!(page, "  calls/MAC   {calls}");
        let _ = writeln!(page, "  sessions    {} a host", facts.sessions);
        for warning in &facts.warnings {
            let _ = writeln!(page, "  warning: {warning}");
        }
        if !info.serial.is_empty() {
            let _ = writeln!(
                page,
                "  to pin this very token, add ;serial={} to its uri",
                info.serial
            );
        }
    }
    for (key, found) in keys {
        describe_key(key, found, page, verdict);
    }
}

/// The tokens of each group.
fn groups(examinations: &[Examination]) -> BTreeMap<&str, Vec<&Examination>> {
    let mut groups: BTreeMap<&str, Vec<&Examination>> = BTreeMap::new();
    for examination in examinations {
        if let Some(group) = &examination.group {
            groups.entry(group).or_default().push(examination);
        }
    }
    groups
}

/// Which token of a group has which key, and whether all of them mean the same one.
fn describe_group(group: &str, members: &[&Examination], page: &mut String, verdict: &mut Verdict) {
    let away: Vec<String> = members
        .iter()
        .filter(|member| !member.state.is_serving())
        .map(|member| member.token.clone())
        .collect();
    let state = match away.len() {
        0 => "up".to_owned(),
        all if all == members.len() => "away".to_owned(),
        _ => format!("degraded: {} cannot be asked", away.join(", ")),
    };
    let _ = writeln!(page, "\ngroup {group}: {state}");
    let mut keys: BTreeMap<&KeyId, Vec<(&str, Option<&KeyFacts>)>> = BTreeMap::new();
    for member in members {
        for (key, found) in &member.keys {
            let here = (member.token.as_str(), found.as_ref().ok());
            keys.entry(&key.key_id).or_default().push(here);
        }
    }
    for (key_id, found) in keys {
        let names = |has: bool| {
            let these = found.iter().filter(|(_, facts)| facts.is_some() == has);
            these
                .map(|(token, _)| *token)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (with, without) = (names(true), names(false));
        let mut values = found.iter().filter_map(|(_, facts)| *facts);
        let first = values.next().map(|facts| &facts.check_value);
        let differ = values.any(|facts| Some(&facts.check_value) != first);
        let _ = match (first, without.is_empty()) {
            (None, _) => writeln!(page, "  key {key_id}: in none of its tokens"),
            (Some(_), true) => writeln!(page, "  key {key_id}: in {with}"),
            (Some(_), false) => writeln!(page, "  key {key_id}: in {with}, not in {without}"),
        };
        if differ {
            let _ = writeln!(
                page,
                "    its tokens have different keys under this name: mend the wrong one, and set check_value"
            );
            verdict.wrong.push(format!("key {key_id} in group {group}"));
        }
    }
}

fn describe_key(
    key: &DeclaredKey,
    found: &Result<KeyFacts, Fault>,
    page: &mut String,
    verdict: &mut Verdict,
) {
    let aliases = if key.aliases.is_empty() {
        String::new()
    } else {
        format!(" ({})", key.aliases.join(", "))
    };
    let _ = writeln!(
        page,
        "\n  key {}{aliases}: {}, {}",
        key.key_id, key.key_spec, key.object.0
    );
    match found {
        Ok(facts) => {
            let pinned = if key.check_value.is_some() {
                "pinned"
            } else {
                "unpinned"
            };
            let _ = writeln!(page, "    MAC made; check value {pinned}:");
            let _ = writeln!(page, "    check_value = \"{}\"", facts.check_value);
            let never = if facts.never_extractable {
                ", was never extractable"
            } else {
                ""
            };
            let local = if facts.local {
                ", generated in the token"
            } else {
                ""
            };
            let _ = writeln!(
                page,
                "    {}sensitive, {}extractable{never}{local}",
                if facts.sensitive { "" } else { "NOT " },
                if facts.extractable { "" } else { "not " },
            );
            if facts.extractable || !facts.sensitive {
                let _ = writeln!(
                    page,
                    "    warning: the token would give this key's value away"
                );
            }
        }
        Err(fault) => {
            let _ = writeln!(page, "    {fault}");
            match fault {
                Fault::Key(_) | Fault::Message(_) | Fault::Unsupported(_) => {
                    verdict.wrong.push(format!("key {}", key.key_id));
                }
                Fault::Saturated
                | Fault::Deadline(_)
                | Fault::Unavailable(_)
                | Fault::Unknown(_)
                | Fault::Closed
                | Fault::Internal(_) => {
                    verdict.away.push(format!("key {}", key.key_id));
                }
            }
        }
    }
}
