//! The configuration: one file, under the environment, under `--set`.
//!
//! Hides: layering, where each setting came from, and how a wrong one is worded. Promises: all
//! faults of a run come at once, each with file and line (or variable, or `--set`) and the nearest
//! right name; the value of a secret is never shown. Does not: read a PIN, open a module, know what
//! a setting does (each room owns its own `Settings`).

mod fault;
mod layers;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf, absolute},
    time::Duration,
};

use serde::Deserialize;

pub use self::fault::{Fault, Faults, Warning};
use self::{
    fault::Origins,
    layers::{Layers, Read},
};
use crate::{front, kms, model::AccountId, store, telemetry, token};

/// All settings of `hsmac serve`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The account of declared keys: 12 digits.
    pub account: AccountId,
    /// The region in every ARN, such as `us-west-2`.
    pub region: String,
    /// The token that new keys and random bytes come from; may be left out when there is one.
    pub new_keys: Option<String>,
    /// Where hsmac keeps what must outlive it, such as the marker of a refused PIN. Default
    /// `$STATE_DIRECTORY` (systemd sets it), else the folder `state` beside the configuration file.
    #[serde(default)]
    pub state_dir: PathBuf,
    /// How long calls in flight and token hosts get at the end. Default 20 s.
    #[serde(default = "twenty_seconds", with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// `[grpc]`
    pub grpc: front::GrpcSettings,
    /// `[aws]`; without it nobody listens for AWS's clients.
    pub aws: Option<front::AwsSettings>,
    /// `[[principal]]`
    #[serde(default)]
    pub principal: Vec<front::DeclaredPrincipal>,
    /// `[token.NAME]`, by name.
    #[serde(default)]
    pub token: BTreeMap<String, token::Settings>,
    /// `[store]`; without it there are declared keys only.
    pub store: Option<store::Settings>,
    /// `[[key]]`
    #[serde(default)]
    pub key: Vec<kms::DeclaredKey>,
    /// `[log]`
    #[serde(default)]
    pub log: telemetry::Settings,
    #[serde(skip)]
    origins: Origins,
}

impl Settings {
    /// Reads `file`, lays `environment` and then `sets` (`section.key=value`) over it, and checks
    /// what can be checked without a token. Of the environment only names that begin with `HSMAC`
    /// matter, and systemd's `STATE_DIRECTORY`.
    ///
    /// # Errors
    /// Every fault there is, in the order of the file; then of the environment, then of `sets`.
    pub fn load(
        file: &Path,
        sets: &[String],
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<Warning>), Faults> {
        let text = fs::read_to_string(file)
            .map_err(|error| Faults::one(format!("{}: {error}", file.display())))?;
        let environment: BTreeMap<String, String> = environment.collect();
        let Read {
            settings,
            spoiled,
            mut faults,
            origins,
        } = Layers::new(file, &text, sets, &environment)?.read();
        let Some(mut settings) = settings else {
            return Err(Faults::new(faults));
        };
        settings.origins = origins;
        settings.fill_in(file, environment.get("STATE_DIRECTORY"));
        faults.extend(settings.rule_faults(&spoiled));
        let (file_faults, mut warnings) = settings.check_files();
        faults.extend(
            file_faults
                .into_iter()
                .filter(|fault| !spoiled.covers(fault.setting())),
        );
        if faults.is_empty() {
            warnings.extend(settings.rule_warnings());
            Ok((settings, warnings))
        } else {
            Err(Faults::new(faults))
        }
    }

    /// Fills in what follows from the rest: token names, the state folder, absolute paths.
    fn fill_in(&mut self, file: &Path, state_directory: Option<&String>) {
        let file = absolute(file).unwrap_or_else(|_| file.to_owned());
        let beside = file.parent().unwrap_or_else(|| Path::new("/"));
        if self.state_dir.as_os_str().is_empty() {
            // systemd joins several folders with colons; the first is the service's own.
            let given = state_directory.and_then(|folders| folders.split(':').next());
            self.state_dir = given
                .filter(|path| !path.is_empty())
                .unwrap_or("state")
                .into();
        }
        self.state_dir = beside.join(&self.state_dir);
        if let Some(store) = &mut self.store {
            store.sqlite.path = beside.join(&store.sqlite.path);
        }
        for principal in &mut self.principal {
            let files = [
                &mut principal.secret_access_key_file,
                &mut principal.policy_file,
            ];
            for file in files.into_iter().flatten() {
                *file = beside.join(&*file);
            }
        }
        for key in &mut self.key {
            if let Some(file) = &mut key.policy_file {
                *file = beside.join(&*file);
            }
        }
        for (name, token) in &mut self.token {
            token.name.clone_from(name);
            token.uri.module_path = beside.join(&token.uri.module_path);
            if let Some(pin_file) = &mut token.pin_file {
                *pin_file = beside.join(&*pin_file);
            }
        }
    }
}

fn twenty_seconds() -> Duration {
    Duration::from_secs(20)
}
