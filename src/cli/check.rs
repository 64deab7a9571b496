//! `hsmac check`: examines configuration, tokens and keys.

use std::{collections::BTreeMap, fmt::Write as _};

use tokio::runtime::Builder;

use super::{CliError, Configuration, print};
use crate::{
    app::{self, TokenExamination},
    config::Settings,
    kms::{DeclaredKey, Simulator},
    model::KeyId,
    token::{self, Fault, KeyFacts, State},
};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let loaded = arguments.configuration.load()?;
    // No log: `check` prints what it finds.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Bug(format!("no runtime: {error}")))?;
    let mut page = format!(
        "configuration  {}: good\n",
        arguments.configuration.config.display()
    );
    for warning in &loaded.warnings {
        let _ = writeln!(page, "  warning: {warning}");
    }
    for listener in loaded.settings.listeners(&loaded.files) {
        let _ = writeln!(page, "listener       {listener}");
    }
    let simulator = app::simulator(&loaded.settings, loaded.files.rights.clone());
    describe_store(&loaded.settings, &runtime.block_on(simulator)?, &mut page);
    let state_dir = loaded.settings.state_dir.clone();
    let was_there = state_dir.is_dir();
    let examinations = runtime.block_on(app::examine(loaded.settings))?;
    let of = match token::foreign_owner(&state_dir) {
        Some(owner) => Some(format!("of uid {owner}, who gets what is noted of logins")),
        None if !was_there && rustix::process::geteuid().is_root() => Some(
            "made now, and root's; if hsmac serves as another user, give it to them (chown -R)"
                .to_owned(),
        ),
        None => None,
    };
    if let Some(of) = of {
        let _ = writeln!(page, "state_dir      {}: {of}", state_dir.display());
    }
    let mut result = CheckResult::default();
    for examination in &examinations {
        describe(examination, &mut page, &mut result);
    }
    for (group, members) in groups(&examinations) {
        describe_group(group, &members, &mut page, &mut result);
    }
    print(page.as_bytes())?;
    result.into_result()
}

/// The catalogue, and what is to be said of the policies in it.
fn describe_store(settings: &Settings, simulator: &Simulator, page: &mut String) {
    let Some(store) = &settings.store else {
        return;
    };
    let path = store.sqlite.path.display();
    let _ = match simulator.revision() {
        Some(_) => writeln!(
            page,
            "store          {path}, stored keys: {}",
            simulator.stored_keys()
        ),
        None => writeln!(page, "store          {path}: not there yet"),
    };
    for warning in simulator.stored_policy_warnings() {
        let _ = writeln!(page, "  warning: {warning}");
    }
}

/// The faults that were found, by the exit code that they lead to.
#[derive(Default)]
struct CheckResult {
    wrong: Vec<String>,
    away: Vec<String>,
}

impl CheckResult {
    fn into_result(self) -> Result<(), CliError> {
        if !self.wrong.is_empty() {
            return Err(CliError::Config(format!(
                "hsmac: mend {}",
                self.wrong.join(", ")
            )));
        }
        if !self.away.is_empty() {
            return Err(CliError::Away(format!(
                "not available: {}",
                self.away.join(", ")
            )));
        }
        Ok(())
    }
}

fn describe(examination: &TokenExamination, page: &mut String, result: &mut CheckResult) {
    let TokenExamination {
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
        State::Misconfigured(_) => result.wrong.push(format!("token.{token}")),
        State::Starting | State::Away(_) | State::PinRefused(_) => {
            result.away.push(format!("token {token}"));
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
        describe_key(key, found, page, result);
    }
}

/// The tokens of each group.
fn groups(examinations: &[TokenExamination]) -> BTreeMap<&str, Vec<&TokenExamination>> {
    let mut groups: BTreeMap<&str, Vec<&TokenExamination>> = BTreeMap::new();
    for examination in examinations {
        if let Some(group) = &examination.group {
            groups.entry(group).or_default().push(examination);
        }
    }
    groups
}

/// Which token of a group has which key, and whether their keys of one name are equal.
fn describe_group(
    group: &str,
    members: &[&TokenExamination],
    page: &mut String,
    result: &mut CheckResult,
) {
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
            result.wrong.push(format!("key {key_id} in group {group}"));
        }
    }
}

fn describe_key(
    key: &DeclaredKey,
    found: &Result<KeyFacts, Fault>,
    page: &mut String,
    result: &mut CheckResult,
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
                Fault::Key(_) | Fault::Message(_) | Fault::Job(_) | Fault::Unsupported(_) => {
                    result.wrong.push(format!("key {}", key.key_id));
                }
                Fault::Saturated(_)
                | Fault::Deadline(_)
                | Fault::Unavailable(_)
                | Fault::Unknown(_)
                | Fault::Closed
                | Fault::Internal(_) => {
                    result.away.push(format!("key {}", key.key_id));
                }
            }
        }
    }
}
