//! What `hsmac check` has found, for people and programs alike.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use crate::{
    app::{CertificateExamination, ListenerExamination, TokenExamination},
    audit::{self, Look},
    cli::CliError,
    kms::{DeclaredKey, Simulator},
    model::KeyId,
    store::{self, CatalogueReport},
    token::{Fault, KeyFacts, State},
};

/// Everything that was found. Names and meaning of the fields stay as they are within a major version.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) configuration: String,
    /// Whether the configuration could be read at all.
    pub(super) is_readable: bool,
    pub(super) warnings: Vec<String>,
    pub(super) listeners: Vec<String>,
    pub(super) addresses: Vec<Address>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) store: Option<StoreFound>,
    pub(super) audit: Option<AuditFound>,
    pub(super) state_dir: Option<String>,
    pub(super) tokens: Vec<TokenFound>,
    pub(super) groups: Vec<GroupFound>,
    /// What a person must mend: exit code 78.
    pub(super) wrong: Vec<String>,
    /// What is not available: exit code 69.
    pub(super) away: Vec<String>,
    pub(super) exit_code: u8,
}

#[derive(Debug, Serialize)]
pub(super) struct Address {
    pub(super) setting: &'static str,
    pub(super) address: String,
    pub(super) fault: Option<String>,
    pub(super) is_in_use: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Certificate {
    pub(super) setting: String,
    pub(super) ends: String,
    pub(super) days_left: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct StoreFound {
    pub(super) path: String,
    /// None: it is not there yet.
    pub(super) revision: Option<u64>,
    pub(super) stored_keys: usize,
    pub(super) used_by: Option<u32>,
    /// When it was restored, if nobody has confirmed it.
    pub(super) restored: Option<String>,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct AuditFound {
    pub(super) directory: String,
    /// By the newest checkpoint; none: there is no log yet, or something is wrong.
    pub(super) records: Option<u64>,
    pub(super) is_in_use: bool,
    /// The token, or group of tokens, that seals it.
    pub(super) sealed_by: Option<String>,
    pub(super) fault: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenFound {
    pub(super) name: String,
    pub(super) group: Option<String>,
    /// `up`, `degraded`, `away`, `pin_refused`, `misconfigured` or `starting`.
    pub(super) state: &'static str,
    /// The state in words.
    pub(super) reason: String,
    pub(super) facts: Option<FactsFound>,
    pub(super) keys: Vec<KeyFound>,
}

#[derive(Debug, Serialize)]
pub(super) struct FactsFound {
    pub(super) module: String,
    pub(super) label: String,
    pub(super) serial: String,
    pub(super) manufacturer: String,
    pub(super) model: String,
    pub(super) algorithms: Vec<&'static str>,
    pub(super) two_calls: bool,
    pub(super) sessions: u32,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct KeyFound {
    pub(super) key_id: String,
    pub(super) aliases: Vec<String>,
    pub(super) key_spec: String,
    pub(super) object: String,
    /// Why it cannot serve; none: a MAC was made.
    pub(super) fault: Option<String>,
    pub(super) check_value: Option<String>,
    pub(super) is_pinned: bool,
    pub(super) attributes: Option<Attributes>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Attributes {
    pub(super) sensitive: bool,
    pub(super) extractable: bool,
    pub(super) never_extractable: bool,
    pub(super) local: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct GroupFound {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) keys: Vec<KeyOfGroup>,
}

#[derive(Debug, Serialize)]
pub(super) struct KeyOfGroup {
    pub(super) key_id: String,
    pub(super) present: Vec<String>,
    pub(super) absent: Vec<String>,
    /// Its tokens have different keys under its name.
    pub(super) differs: bool,
}

impl Report {
    pub(super) fn new(configuration: &Path) -> Self {
        Self {
            configuration: configuration.display().to_string(),
            is_readable: false,
            ..Self::default()
        }
    }

    /// Something ended the examination before its end.
    pub(super) fn ended_early(&mut self, fault: &CliError) {
        let lines = fault.to_string();
        let lines = lines.lines().map(str::to_owned);
        if fault.exit_code() == 69 {
            self.away.extend(lines);
        } else {
            self.wrong.extend(lines);
        }
    }

    pub(super) fn add_address(&mut self, found: ListenerExamination) {
        if found.fault.is_some() && !found.is_in_use {
            self.wrong.push(found.setting.to_owned());
        }
        self.addresses.push(Address {
            setting: found.setting,
            address: found.address,
            fault: found.fault,
            is_in_use: found.is_in_use,
        });
    }

    pub(super) fn add_certificate(&mut self, found: CertificateExamination) {
        if found.days_left < 0 {
            self.wrong.push(found.setting.clone());
        }
        self.certificates.push(Certificate {
            setting: found.setting,
            ends: found.ends,
            days_left: found.days_left,
        });
    }

    /// The catalogue, and what is to be said of the policies in it.
    pub(super) fn add_store(
        &mut self,
        settings: &store::Settings,
        simulator: &Simulator,
        found: Option<&CatalogueReport>,
    ) {
        self.store = Some(StoreFound {
            path: settings.sqlite.path.display().to_string(),
            revision: found.map(|found| found.revision.0),
            stored_keys: simulator.stored_keys(),
            used_by: found.and_then(|found| found.used_by),
            restored: found.and_then(|found| found.restored.map(|at| at.to_string())),
            warnings: simulator.stored_policy_warnings(),
        });
    }

    /// The folder of the audit log, as a start would find it.
    pub(super) fn add_audit(&mut self, settings: &audit::Settings, sealed_by: Option<String>) {
        let looked = audit::look(&settings.directory);
        let (records, is_in_use) = match looked {
            Ok(Look::There { size, is_in_use }) => (Some(size), is_in_use),
            Ok(Look::NotThere) | Err(_) => (None, false),
        };
        let fault = looked.err();
        if fault.is_some() {
            self.wrong.push("audit.directory".to_owned());
        }
        self.audit = Some(AuditFound {
            directory: settings.directory.display().to_string(),
            records,
            is_in_use,
            sealed_by,
            fault,
        });
    }

    pub(super) fn add_token(&mut self, examination: &TokenExamination) {
        let TokenExamination {
            token,
            group,
            state,
            facts,
            keys,
        } = examination;
        match state {
            State::Up | State::Degraded(_) => {}
            State::Misconfigured(_) => self.wrong.push(format!("token.{token}")),
            State::Starting | State::Away(_) | State::PinRefused(_) => {
                self.away.push(format!("token {token}"));
            }
        }
        let facts = facts.as_ref().map(|facts| FactsFound {
            module: facts.module.clone(),
            label: facts.info.label.clone(),
            serial: facts.info.serial.clone(),
            manufacturer: facts.info.manufacturer.clone(),
            model: facts.info.model.clone(),
            algorithms: facts.algorithms.iter().map(|one| one.name()).collect(),
            two_calls: facts.two_calls,
            sessions: facts.sessions,
            warnings: facts.warnings.clone(),
        });
        let keys = keys
            .iter()
            .map(|(key, found)| self.key(key, found))
            .collect();
        self.tokens.push(TokenFound {
            name: token.clone(),
            group: group.clone(),
            state: state.name(),
            reason: state.to_string(),
            facts,
            keys,
        });
    }

    fn key(&mut self, key: &DeclaredKey, found: &Result<KeyFacts, Fault>) -> KeyFound {
        if let Err(fault) = found {
            let of = format!("key {}", key.key_id);
            match fault {
                Fault::Key(_) | Fault::Message(_) | Fault::Job(_) | Fault::Unsupported(_) => {
                    self.wrong.push(of);
                }
                Fault::Saturated(_)
                | Fault::Deadline(_)
                | Fault::Unavailable(_)
                | Fault::Unknown(_)
                | Fault::Closed
                | Fault::Internal(_) => self.away.push(of),
            }
        }
        let facts = found.as_ref().ok();
        KeyFound {
            key_id: key.key_id.to_string(),
            aliases: key.aliases.clone(),
            key_spec: key.key_spec.to_string(),
            object: key.object.0.to_string(),
            fault: found.as_ref().err().map(ToString::to_string),
            check_value: facts.map(|facts| facts.check_value.to_string()),
            is_pinned: key.check_value.is_some(),
            attributes: facts.map(|facts| Attributes {
                sensitive: facts.sensitive,
                extractable: facts.extractable,
                never_extractable: facts.never_extractable,
                local: facts.local,
            }),
        }
    }

    /// Which token of a group has which key, and whether their keys of one name are equal.
    pub(super) fn add_groups(&mut self, examinations: &[TokenExamination]) {
        let mut groups: BTreeMap<&str, Vec<&TokenExamination>> = BTreeMap::new();
        for examination in examinations {
            if let Some(group) = &examination.group {
                groups.entry(group).or_default().push(examination);
            }
        }
        for (group, members) in groups {
            self.add_group(group, &members);
        }
    }

    fn add_group(&mut self, group: &str, members: &[&TokenExamination]) {
        let away = members.iter().filter(|member| !member.state.is_serving());
        let away: Vec<String> = away.map(|member| member.token.clone()).collect();
        let state = match away.len() {
            0 => "up".to_owned(),
            all if all == members.len() => "away".to_owned(),
            _ => format!("degraded: {} cannot be asked", away.join(", ")),
        };
        let mut keys: BTreeMap<&KeyId, Vec<(&str, Option<&KeyFacts>)>> = BTreeMap::new();
        for member in members {
            for (key, found) in &member.keys {
                let here = (member.token.as_str(), found.as_ref().ok());
                keys.entry(&key.key_id).or_default().push(here);
            }
        }
        let keys = keys.into_iter().map(|(key_id, found)| {
            let names = |has: bool| {
                let these = found.iter().filter(|(_, facts)| facts.is_some() == has);
                these.map(|(token, _)| (*token).to_owned()).collect()
            };
            let mut values = found.iter().filter_map(|(_, facts)| *facts);
            let first = values.next().map(|facts| &facts.check_value);
            KeyOfGroup {
                key_id: key_id.to_string(),
                present: names(true),
                absent: names(false),
                differs: values.any(|facts| Some(&facts.check_value) != first),
            }
        });
        let keys: Vec<KeyOfGroup> = keys.collect();
        for key in keys.iter().filter(|key| key.differs) {
            let wrong = format!("key {} in group {group}", key.key_id);
            self.wrong.push(wrong);
        }
        self.groups.push(GroupFound {
            name: group.to_owned(),
            state,
            keys,
        });
    }

    /// The exit code that all of it leads to.
    pub(super) fn settle(&mut self) {
        self.exit_code = match (self.wrong.is_empty(), self.away.is_empty()) {
            (false, _) => 78,
            (true, false) => 69,
            (true, true) => 0,
        };
    }

    /// # Errors
    /// [`CliError::Bug`]: it cannot be written as JSON.
    pub(super) fn json(&self) -> Result<String, CliError> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n")
            .map_err(|error| CliError::Bug(error.to_string()))
    }

    pub(super) fn into_result(self) -> Result<(), CliError> {
        if !self.wrong.is_empty() {
            let wrong = self.wrong.join(", ");
            let fault = CliError::Config(format!("hsmac: mend {wrong}"));
            return Err(fault.then(&format!("hsmac check --config {}", self.configuration)));
        }
        if !self.away.is_empty() {
            let away = self.away.join(", ");
            let fault = CliError::Away(format!("not available: {away}"));
            let refused = self
                .tokens
                .iter()
                .find(|token| token.state == "pin_refused");
            return Err(match refused {
                Some(token) => fault.then(&format!(
                    "correct the PIN file; if it is right: hsmac token unlock {} --config {}",
                    token.name, self.configuration
                )),
                None => fault.then(&format!("hsmac check --config {}", self.configuration)),
            });
        }
        Ok(())
    }
}
