//! Settings that are read again while hsmac runs, and which of them take effect without a restart.

use std::path::PathBuf;

use super::{
    ConfigFault, ConfigFaults, FileFingerprints, LoadedFiles, Settings, Source, fingerprint,
};
use crate::front;

/// What is in force from a reload on.
#[derive(Debug)]
pub struct Reloaded {
    /// The settings: the new ones, or those from before if these are broken.
    pub settings: Settings,
    /// What the files hold; in the place of what is broken, what they held before.
    pub files: LoadedFiles,
    /// How the configuration and the files were before they were read.
    pub fingerprints: FileFingerprints,
    /// What is broken.
    pub faults: Vec<ConfigFault>,
}

impl Settings {
    /// Reads the same sources again, and the files that they name. What is broken stays as it is in
    /// `current` and `files`; everything else takes effect, so that nobody keeps a right because of an
    /// unrelated file.
    pub fn reload(&self, current: &Self, files: &LoadedFiles) -> Reloaded {
        // Taken before anything is read: a change meanwhile shows as one since then.
        let own = fingerprint::fingerprint(&self.source.file);
        let (settings, mut faults) = match self.parse_again(current) {
            Ok(read) => read,
            Err(faults) => (current.clone(), faults.iter().cloned().collect()),
        };
        let mut fingerprints = settings.fingerprints();
        fingerprints.set(&settings.source.file, own);
        let read = settings.read_files_again(files);
        faults.extend(read.faults);
        Reloaded {
            settings,
            files: read.files,
            fingerprints,
            faults,
        }
    }

    /// The settings as they are now, with the listeners as they run; and what is wrong with that.
    ///
    /// # Errors
    /// [`ConfigFaults`]: those of the settings themselves.
    fn parse_again(&self, current: &Self) -> Result<(Self, Vec<ConfigFault>), ConfigFaults> {
        let Source {
            file,
            sets,
            environment,
        } = &self.source;
        let (mut new, _, faults) = Self::parse(file, sets, environment.clone().into_iter())?;
        if !faults.is_empty() {
            return Err(ConfigFaults::new(faults));
        }
        let mut kept = Vec::new();
        let mut keep = |setting: &str, why: &str| kept.push(new.origins.fault(setting, why));
        if stays(&mut new.grpc.listen, &current.grpc.listen) {
            keep("grpc.listen", MOVES);
        }
        if speaks_on(&mut new.grpc.tls, current.grpc.tls.as_ref()) {
            keep("grpc.tls", TURNS);
        }
        // One that was added since the start does not run yet.
        let runs = self.aws.as_ref().and(current.aws.as_ref());
        match (&mut new.aws, runs) {
            (Some(aws), Some(runs)) => {
                if stays(&mut aws.listen, &runs.listen) {
                    keep("aws.listen", MOVES);
                }
                if speaks_on(&mut aws.tls, runs.tls.as_ref()) {
                    keep("aws.tls", TURNS);
                }
            }
            // It is still there, with the principals that are left.
            (new @ None, Some(runs)) => {
                *new = Some(runs.clone());
                keep("aws", ENDS);
            }
            (_, None) => {}
        }
        // Security: who may call without a proof was judged by where the listener is to be. Whoever may
        // not any more may not; nobody else comes in by it.
        if !kept.is_empty() && new.grpc.anonymous != current.grpc.anonymous {
            new.grpc.anonymous = None;
        }
        Ok((new, kept))
    }

    /// The settings that differ from those that hsmac serves with, and that only a restart puts in force.
    pub fn needing_restart(&self, serving: &Self) -> Vec<&'static str> {
        let (new, old) = (self.without_reloadable(), serving.without_reloadable());
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
            ("admin", new.admin != old.admin),
            ("log", new.log != old.log),
        ]
        .into_iter()
        .filter_map(|(setting, differs)| differs.then_some(setting))
        .collect()
    }

    /// These settings without what can be reloaded.
    fn without_reloadable(&self) -> Self {
        let mut rest = self.clone();
        rest.principal.clear();
        rest.organization = None;
        rest.grpc.tls = None;
        rest.grpc.anonymous = None;
        if let Some(aws) = &mut rest.aws {
            aws.tls = None;
        }
        for key in &mut rest.key {
            key.policy_file = None;
            key.enabled = true;
        }
        rest
    }

    /// The files that can be read again while hsmac runs.
    pub(super) fn reloadable_files(&self) -> Vec<PathBuf> {
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

    /// How these files are now.
    pub fn fingerprints(&self) -> FileFingerprints {
        FileFingerprints::of(self.reloadable_files())
    }
}

/// Whether settings would move a listener that runs, which they do not any more then.
fn stays(listen: &mut front::Listen, runs: &front::Listen) -> bool {
    std::mem::replace(listen, runs.clone()) != *runs
}

/// Whether settings would have a listener that runs begin or end to speak TLS, which they do not any
/// more then.
fn speaks_on(tls: &mut Option<front::TlsSettings>, runs: Option<&front::TlsSettings>) -> bool {
    let turns = tls.is_some() != runs.is_some();
    if turns {
        *tls = runs.cloned();
    }
    turns
}

const MOVES: &str = "a running listener does not move; restart hsmac";
const TURNS: &str = "a running listener neither begins nor ends to speak TLS; restart hsmac";
const ENDS: &str = "this listener runs, and ends with hsmac; restart hsmac";
