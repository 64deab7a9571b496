//! `hsmac check`: the doctor.

use std::fmt::Write as _;

use tokio::runtime::Builder;

use super::{Configuration, Stop, print};
use crate::{
    app::{self, Examination},
    kms::DeclaredKey,
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
    let examinations = runtime.block_on(app::examine(settings))?;
    let mut verdict = Verdict::default();
    for examination in &examinations {
        describe(examination, &mut page, &mut verdict);
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
        state,
        facts,
        keys,
    } = examination;
    let _ = writeln!(page, "\ntoken {token}: {state}");
    match state {
        State::Up => {}
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
                | Fault::Internal(_) => {
                    verdict.away.push(format!("key {}", key.key_id));
                }
            }
        }
    }
}
