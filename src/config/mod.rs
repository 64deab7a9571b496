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

pub(crate) use self::fault::nearest;
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
    #[serde(skip)]
    source: Source,
}

/// Where settings are read from.
#[derive(Clone, Debug, Default)]
struct Source {
    file: PathBuf,
    sets: Vec<String>,
    /// The variables that matter.
    environment: BTreeMap<String, String>,
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
        Self::read(file, sets, environment, Self::check_files)
    }

    /// The same for who is not hsmac itself and only asks about rights: of the files that settings
    /// name it looks at the policies alone.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_policies(
        file: &Path,
        sets: &[String],
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let policies = |settings: &Self| (settings.check_policies(), Vec::new());
        let (settings, _) = Self::read(file, sets, environment, policies)?;
        Ok(settings)
    }

    fn read(
        file: &Path,
        sets: &[String],
        environment: impl Iterator<Item = (String, String)>,
        check_files: impl Fn(&Self) -> (Vec<Fault>, Vec<Warning>),
    ) -> Result<(Self, Vec<Warning>), Faults> {
        let text = fs::read_to_string(file)
            .map_err(|error| Faults::one(format!("{}: {error}", file.display())))?;
        let environment: BTreeMap<String, String> = environment
            .filter(|(name, _)| name.starts_with("HSMAC") || name == STATE_DIRECTORY)
            .collect();
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
        settings.source = Source {
            file: absolute(file).unwrap_or_else(|_| file.to_owned()),
            sets: sets.to_vec(),
            environment: environment.clone(),
        };
        settings.fill_in(file, environment.get(STATE_DIRECTORY));
        faults.extend(settings.rule_faults(&spoiled));
        let (file_faults, mut warnings) = check_files(&settings);
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

    /// Reads the same sources again.
    ///
    /// # Errors
    /// As [`Settings::load`], and if a listener would move, or begin or end to speak TLS: who may come
    /// in was judged by where it listens, and connections that are there already could not follow.
    pub fn again(&self) -> Result<(Self, Vec<Warning>), Faults> {
        let Source {
            file,
            sets,
            environment,
        } = &self.source;
        let (new, warnings) = Self::load(file, sets, environment.clone().into_iter())?;
        const MOVES: &str = "a running listener does not move; restart hsmac";
        const TURNS: &str =
            "a running listener neither begins nor ends to speak TLS; restart hsmac";
        const ENDS: &str = "this listener runs, and ends with hsmac; restart hsmac";
        let (grpc, was_grpc) = (&new.grpc, &self.grpc);
        let mut differences = vec![
            // Security: what only loopback may have must not reach a listener that others reach.
            ("grpc.listen", grpc.listen != was_grpc.listen, MOVES),
            (
                "grpc.tls",
                grpc.tls.is_some() != was_grpc.tls.is_some(),
                TURNS,
            ),
        ];
        match (&new.aws, &self.aws) {
            (Some(aws), Some(was_aws)) => differences.extend([
                ("aws.listen", aws.listen != was_aws.listen, MOVES),
                ("aws.tls", aws.tls.is_some() != was_aws.tls.is_some(), TURNS),
            ]),
            // Security: a listener that is still there must know of principals that are not.
            (None, Some(_)) => differences.push(("aws", true, ENDS)),
            (_, None) => {}
        }
        let faults: Vec<Fault> = differences
            .into_iter()
            .filter(|(_, differs, _)| *differs)
            .map(|(setting, _, text)| new.origins.fault(setting, text))
            .collect();
        if faults.is_empty() {
            Ok((new, warnings))
        } else {
            Err(Faults::new(faults))
        }
    }

    /// The settings that differ from those that serve and are used at the next start only.
    pub fn later_than(&self, serving: &Self) -> Vec<&'static str> {
        let (new, old) = (self.lasting(), serving.lasting());
        [
            ("account", new.account != old.account),
            ("region", new.region != old.region),
            ("new_keys", new.new_keys != old.new_keys),
            ("state_dir", new.state_dir != old.state_dir),
            ("drain_timeout", new.drain_timeout != old.drain_timeout),
            ("grpc", new.grpc != old.grpc),
            ("aws", new.aws != old.aws),
            ("token", new.token != old.token),
            ("store", new.store != old.store),
            ("key", new.key != old.key),
            ("log", new.log != old.log),
        ]
        .into_iter()
        .filter_map(|(setting, differs)| differs.then_some(setting))
        .collect()
    }

    /// The same without what can be reloaded.
    fn lasting(&self) -> Self {
        let mut lasting = self.clone();
        lasting.principal.clear();
        lasting.grpc.tls = None;
        lasting.grpc.anonymous = None;
        if let Some(aws) = &mut lasting.aws {
            aws.tls = None;
        }
        for key in &mut lasting.key {
            key.policy_file = None;
        }
        lasting
    }

    /// The files that can be read again while hsmac runs.
    pub fn reloadable_files(&self) -> Vec<PathBuf> {
        let tls = self.tls().into_iter().flat_map(|(_, tls)| tls.files());
        let principals = self
            .principal
            .iter()
            .flat_map(|principal| [&principal.secret_access_key_file, &principal.policy_file]);
        let keys = self.key.iter().map(|key| &key.policy_file);
        let others = principals.chain(keys).flatten();
        let mut files = vec![self.source.file.clone()];
        files.extend(tls.chain(others).cloned());
        files
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
            if let Some(pin_file) = &mut token.pin_file {
                *pin_file = beside.join(&*pin_file);
            }
        }
    }
}

/// systemd: where a service keeps its state.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

fn twenty_seconds() -> Duration {
    Duration::from_secs(20)
}
