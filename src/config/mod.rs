//! The configuration: one file, under the environment, under `--set`.
//!
//! Hides: layering, where each setting came from, and how a wrong one is worded. Promises: all
//! faults of a run come at once, each with file and line (or variable, or `--set`) and the nearest
//! right name; the value of a secret is never shown; TLS files, secrets and policies are read once, and
//! handed on. Does not: read a PIN, open a module, know what a setting does (each room owns its own
//! `Settings`).

mod fault;
mod files;
mod fingerprint;
mod layers;
mod reload;
mod rules;
mod seal_key;
mod secret_file;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf, absolute},
    time::Duration,
};

use serde::Deserialize;

pub(crate) use self::{fault::nearest, layers::lines::line_of};
pub use self::{
    fault::{ConfigFault, ConfigFaults, ConfigWarning},
    files::LoadedFiles,
    fingerprint::FileFingerprints,
    reload::Reloaded,
    seal_key::SealKey,
};
use self::{
    fault::{InvalidSettings, SettingOrigins},
    layers::{LayeredSettings, Layers},
};
use crate::{
    admin, audit, front,
    kms::{self, DeclaredRights},
    model::{AccountId, Organization},
    store, telemetry, token,
};

/// All settings of `hsmac serve`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The account of declared keys: 12 digits.
    pub account: AccountId,
    /// The region in every ARN, such as `us-west-2`: lowercase letters, digits and `-`.
    pub region: String,
    /// `[organization]` that the account is in, for policies that ask for it.
    pub organization: Option<Organization>,
    /// The token that new keys and random bytes come from; may be left out when there is one.
    pub new_keys: Option<String>,
    /// Where hsmac keeps what must outlive it, such as the marker of a refused PIN. Default
    /// `$STATE_DIRECTORY` (systemd sets it), else the folder `state` beside the configuration file.
    #[serde(default)]
    pub state_dir: PathBuf,
    /// How long calls in flight and token hosts get at the end: at most 1 h. Default 20 s.
    #[serde(default = "twenty_seconds", with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Use private keys, secrets and PINs although others than hsmac can read their files. Default
    /// false: such a file is refused.
    #[serde(default)]
    pub allow_readable_secrets: bool,
    /// `[grpc]`
    pub grpc: front::GrpcSettings,
    /// `[aws]`; without it there is no listener for AWS's clients.
    pub aws: Option<front::AwsSettings>,
    /// `[[principal]]`
    #[serde(default)]
    pub principal: Vec<front::PrincipalSettings>,
    /// `[limits]`
    #[serde(default)]
    pub limits: front::LimitsSettings,
    /// `[token.NAME]`, by name.
    #[serde(default)]
    pub token: BTreeMap<String, token::Settings>,
    /// `[store]`; without it there are declared keys only.
    pub store: Option<store::Settings>,
    /// `[audit]`; without it no log says who did what.
    pub audit: Option<audit::Settings>,
    /// `[[key]]`
    #[serde(default)]
    pub key: Vec<kms::DeclaredKey>,
    /// `[admin]`; without it operators have nothing to look at but the log.
    #[serde(default)]
    pub admin: admin::Settings,
    /// `[log]`
    #[serde(default)]
    pub log: telemetry::Settings,
    /// `[traces]`
    #[serde(default)]
    pub traces: telemetry::traces::Settings,
    #[serde(skip)]
    origins: SettingOrigins,
    #[serde(skip)]
    source: Source,
}

/// Settings, and what was read with them.
#[derive(Debug)]
pub struct Loaded {
    /// The settings, all of them good.
    pub settings: Settings,
    /// What a person should know, though hsmac can start.
    pub warnings: Vec<ConfigWarning>,
    /// What the files hold that the settings name.
    pub files: LoadedFiles,
    /// How the configuration and those files were before they were read.
    pub fingerprints: FileFingerprints,
}

/// Where settings are read from.
#[derive(Clone, Debug, Default)]
struct Source {
    file: PathBuf,
    sets: Vec<String>,
    /// The variables whose names begin with `HSMAC`, and `STATE_DIRECTORY`.
    environment: BTreeMap<String, String>,
    /// A hash of each value that is set somewhere, by its path; to see which are others than before.
    written: BTreeMap<String, u64>,
}

impl Settings {
    /// Reads `file`, lays `environment` and then `sets` (`section.key=value`) over it, reads the
    /// files that the settings name, and checks what can be checked without a token. Of the
    /// environment only names that begin with `HSMAC` matter, and systemd's `STATE_DIRECTORY`.
    ///
    /// # Errors
    /// [`ConfigFaults`]: every fault there is, in the order of the file; then of the environment, then
    /// of `sets`.
    pub fn load(
        file: &Path,
        sets: &[String],
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigFaults> {
        // Taken before anything is read: a change meanwhile shows as one since then.
        let own = fingerprint::fingerprint(file);
        let (settings, invalid, mut faults) = Self::parse(file, sets, environment)?;
        let mut fingerprints = settings.fingerprints();
        fingerprints.set(&settings.source.file, own);
        let read = settings.read_files();
        faults.extend(uncovered(read.faults, &invalid));
        if !faults.is_empty() {
            return Err(ConfigFaults::new(faults));
        }
        let mut warnings = read.warnings;
        warnings.extend(settings.rule_warnings());
        Ok(Loaded {
            settings,
            warnings,
            files: read.files,
            fingerprints,
        })
    }

    /// Reads the settings and their policies, for a program that only asks about rights; does not
    /// look at the other files that settings name.
    ///
    /// # Errors
    /// [`ConfigFaults`]: every fault there is, but for those of modules, PINs, secrets and TLS files.
    pub fn load_policies(
        file: &Path,
        sets: &[String],
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, DeclaredRights), ConfigFaults> {
        let (settings, invalid, mut faults) = Self::parse(file, sets, environment)?;
        let files::ReadPolicies {
            rights,
            faults: of_policies,
            ..
        } = settings.read_policies();
        faults.extend(uncovered(of_policies, &invalid));
        if !faults.is_empty() {
            return Err(ConfigFaults::new(faults));
        }
        Ok((settings, rights))
    }

    /// How to log, before anything else is known: what is not there, or wrong, is as by default. The faults
    /// are for [`load`](Self::load) to report, in this format.
    pub fn log_settings(
        file: &Path,
        sets: &[String],
        environment: impl Iterator<Item = (String, String)>,
    ) -> telemetry::Settings {
        let environment = own_variables(environment);
        // The environment's format counts even if there is no file, or if it is no TOML.
        let text = fs::read_to_string(file).unwrap_or_default();
        let layers = |text: &str| Layers::new(file, text, sets, &environment);
        let layers = layers(&text).or_else(|_| layers(""));
        layers.map(|layers| layers.log()).unwrap_or_default()
    }

    /// Where operators look at an hsmac that has this configuration: `admin.socket`. What else is wrong with
    /// the settings does not matter here, since that is when people look.
    ///
    /// # Errors
    /// [`ConfigFaults`]: the file cannot be read, or is no TOML.
    pub fn admin_socket(
        file: &Path,
        sets: &[String],
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Option<PathBuf>, ConfigFaults> {
        let text = fs::read_to_string(file)
            .map_err(|error| ConfigFaults::one(format!("{}: {error}", file.display())))?;
        let layers = Layers::new(file, &text, sets, &own_variables(environment))?;
        Ok(layers
            .admin_socket()
            .map(|socket| folder(file).join(socket)))
    }

    /// The settings as they are written, with what is wrong with them.
    fn parse(
        file: &Path,
        sets: &[String],
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, InvalidSettings, Vec<ConfigFault>), ConfigFaults> {
        let text = fs::read_to_string(file)
            .map_err(|error| ConfigFaults::one(format!("{}: {error}", file.display())))?;
        let environment = own_variables(environment);
        let LayeredSettings {
            settings,
            invalid,
            mut faults,
            origins,
            written,
        } = Layers::new(file, &text, sets, &environment)?.read();
        let Some(mut settings) = settings else {
            return Err(ConfigFaults::new(faults));
        };
        settings.origins = origins;
        settings.source = Source {
            file: absolute(file).unwrap_or_else(|_| file.to_owned()),
            sets: sets.to_vec(),
            environment: environment.clone(),
            written,
        };
        settings.fill_in(file, environment.get(STATE_DIRECTORY));
        faults.extend(settings.rule_faults(&invalid));
        Ok((settings, invalid, faults))
    }

    /// Each listener's TLS, by its section.
    fn tls(&self) -> Vec<(&'static str, &front::TlsSettings)> {
        let aws = self.aws.as_ref().and_then(|aws| aws.tls.as_ref());
        let grpc = self.grpc.tls.as_ref();
        let both = [("grpc", grpc), ("aws", aws)];
        both.into_iter()
            .filter_map(|(section, tls)| Some((section, tls?)))
            .collect()
    }

    /// Fills in what follows from the rest: token names, the state folder, absolute paths.
    fn fill_in(&mut self, file: &Path, state_directory: Option<&String>) {
        let beside = folder(file);
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
        if let Some(audit) = &mut self.audit {
            audit.directory = beside.join(&audit.directory);
        }
        if let Some(socket) = &mut self.admin.socket {
            *socket = beside.join(&*socket);
        }
        let aws = self.aws.as_mut().and_then(|aws| aws.tls.as_mut());
        for tls in self.grpc.tls.as_mut().into_iter().chain(aws) {
            for file in tls.files_mut() {
                *file = beside.join(&*file);
            }
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
            for pin_file in token.pin_file.iter_mut().chain(&mut token.next_pin_file) {
                *pin_file = beside.join(&*pin_file);
            }
        }
    }
}

/// The variables that hsmac looks at.
fn own_variables(environment: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    environment
        .filter(|(name, _)| name.starts_with("HSMAC") || name == STATE_DIRECTORY)
        .collect()
}

/// The faults that do not follow from a setting whose own fault is reported already.
fn uncovered(
    faults: Vec<ConfigFault>,
    invalid: &InvalidSettings,
) -> impl Iterator<Item = ConfigFault> {
    let faults = faults.into_iter();
    faults.filter(|fault| !invalid.covers(fault.setting()))
}

/// The folder that a configuration file is in, from the root on: where paths in it begin.
fn folder(file: &Path) -> PathBuf {
    let file = absolute(file).unwrap_or_else(|_| file.to_owned());
    file.parent().unwrap_or_else(|| Path::new("/")).to_owned()
}

/// systemd: where a service keeps its state.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

fn twenty_seconds() -> Duration {
    Duration::from_secs(20)
}
