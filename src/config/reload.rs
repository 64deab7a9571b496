//! Settings that are read again while hsmac runs, and which of them take effect without a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    ConfigFault, ConfigFaults, FileFingerprints, LoadedFiles, Settings, Source, fingerprint,
};
use crate::{front, telemetry};

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
            written: _,
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

    /// The settings that differ from those that hsmac serves with, and that only a restart puts in force:
    /// each by its path, such as `store.path`; a table that came or went as a whole by its own.
    pub fn needing_restart(&self, serving: &Self) -> Vec<String> {
        let (new, old) = (self.without_reloadable(), serving.without_reloadable());
        let sections = [
            ("account", new.account != old.account),
            ("region", new.region != old.region),
            ("state_dir", new.state_dir != old.state_dir),
            ("drain_timeout", new.drain_timeout != old.drain_timeout),
            ("grpc", new.grpc != old.grpc),
            ("aws", new.aws != old.aws),
            ("audit", new.audit != old.audit),
            ("store", new.store != old.store),
            ("admin", new.admin != old.admin),
        ];
        let differing = sections.into_iter().filter(|(_, differs)| *differs);
        differing
            .flat_map(|(section, _)| {
                let paths = differing_paths(&self.source.written, &serving.source.written, section);
                // A default may depend on something else than the file.
                if paths.is_empty() {
                    BTreeSet::from([section.to_owned()])
                } else {
                    paths
                }
            })
            .collect()
    }

    /// These settings without what can be reloaded.
    fn without_reloadable(&self) -> Self {
        let mut rest = self.clone();
        rest.principal.clear();
        rest.organization = None;
        rest.limits = front::LimitsSettings::default();
        rest.log = telemetry::Settings::default();
        rest.key.clear();
        rest.token.clear();
        rest.new_keys = None;
        rest.grpc.tls = None;
        rest.grpc.anonymous = None;
        if let Some(aws) = &mut rest.aws {
            aws.tls = None;
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

/// The paths in a section that are written in another way, or by one of both only.
fn differing_paths(
    new: &BTreeMap<String, u64>,
    old: &BTreeMap<String, u64>,
    section: &str,
) -> BTreeSet<String> {
    let paths = new.keys().chain(old.keys());
    paths
        .filter(|path| is_under(path, section) && new.get(*path) != old.get(*path))
        .filter(|path| !RELOADED.iter().any(|reloaded| is_under(path, reloaded)))
        .map(|path| {
            // The outermost table that one of both has nothing of.
            let ends = path.match_indices('.').map(|(end, _)| &path[..end]);
            let mut tables = ends.filter(|table| {
                let has = |written: &BTreeMap<String, u64>| {
                    written.keys().any(|path| is_under(path, table))
                };
                !has(new) || !has(old)
            });
            tables.next().unwrap_or(path).to_owned()
        })
        .collect()
}

fn is_under(path: &str, table: &str) -> bool {
    path.strip_prefix(table)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Within sections that need a restart, what does not.
const RELOADED: [&str; 3] = ["grpc.tls", "grpc.anonymous", "aws.tls"];

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
