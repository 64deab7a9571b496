//! Reload of certificates, revocation lists, principals, policies, keys and tokens while hsmac runs.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::Signal,
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::{error, info, warn};

use super::{
    groups::{Groups, wait_for_successors},
    listeners::{Access, Apis},
    policy_warnings::PolicyWarnings,
    signals::notify,
};
use crate::{
    config::{ConfigFault, FileFingerprints, LoadedFiles, Reloaded, Settings},
    front,
    kms::{Kms, TokenGroups},
    telemetry,
};

/// Reads the configuration and its files again, at SIGHUP and when one of them has changed.
pub(super) struct Reload {
    apis: Arc<Apis>,
    /// The settings that hsmac started with: listeners, and what needs a restart, are still as they say.
    started: Arc<Settings>,
    /// The settings that are in force.
    settings: Arc<Settings>,
    /// What the files held that are in force.
    files: LoadedFiles,
    /// The files as they were when they were last read.
    read: FileFingerprints,
    failure: Failure,
    /// Settings that have changed and wait for a restart, for operators.
    pending: watch::Sender<Vec<String>>,
    warned: Instant,
    kms: Arc<Kms>,
    groups: Arc<Groups>,
    policy_warnings: PolicyWarnings,
}

impl Reload {
    /// `settings` are those that hsmac started with, and `read` how their files were before they were read.
    pub(super) fn new(
        (apis, kms, groups): (Arc<Apis>, Arc<Kms>, Arc<Groups>),
        settings: Settings,
        files: LoadedFiles,
        read: FileFingerprints,
        failing: watch::Sender<bool>,
        pending: watch::Sender<Vec<String>>,
    ) -> Self {
        let settings = Arc::new(settings);
        let mut policy_warnings = PolicyWarnings::default();
        policy_warnings.tell(&kms);
        Self {
            apis,
            started: settings.clone(),
            settings,
            files,
            read,
            failure: Failure::new(failing),
            pending,
            warned: Instant::now(),
            kms,
            groups,
            policy_warnings,
        }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self, mut hangups: Signal) {
        let mut last = self.read.clone();
        loop {
            let asked = tokio::select! {
                Some(()) = hangups.recv() => true,
                () = sleep(LOOK) => false,
            };
            let now = self.fingerprints().await;
            if asked {
                let mut begins = vec![NotifyState::Reloading];
                begins.extend(NotifyState::monotonic_usec_now());
                notify(&begins);
                self.attempt("SIGHUP", &now).await;
                notify(&[NotifyState::Ready]);
            } else if now == last && (now != self.read || self.failure.reason.is_some()) {
                // The files have not changed between two looks, so that none is being written now.
                let changed = now.changed_since(&self.read);
                self.attempt(&changed, &now).await;
            }
            last = now;
            self.failure.remind();
            if self.warned.elapsed() >= DAY {
                self.warn();
            }
        }
    }

    async fn fingerprints(&self) -> FileFingerprints {
        let settings = self.settings.clone();
        spawn_blocking(move || settings.fingerprints())
            .await
            .unwrap_or_default()
    }

    /// Reads everything again. What is good takes effect; what is broken stays as it was.
    async fn attempt(&mut self, what: &str, now: &FileFingerprints) {
        let (started, current) = (self.started.clone(), self.settings.clone());
        let (files, limits) = (self.files.clone(), self.apis.limits.clone());
        let read = spawn_blocking(move || reload(&started, &current, &files, &limits)).await;
        let changed = self.read != *now;
        self.read = now.clone();
        let (reloaded, access) = match read.map_err(|error| error.to_string()).flatten() {
            Ok(read) => read,
            Err(reason) => return self.failure.set(what, reason),
        };
        let failure = failure_of(&reloaded.faults);
        // Nothing has changed since the last attempt, which found the same.
        if !changed && failure.is_some() && failure == self.failure.reason {
            return;
        }
        let misdeclared = self.admit(&reloaded.settings, access).await;
        let reasons: Vec<String> = failure.into_iter().chain(misdeclared).collect();
        let failure = (!reasons.is_empty()).then(|| reasons.join("; "));
        // Principals may have other IDs now than those that a policy means.
        self.policy_warnings.tell(&self.kms);
        let pending = reloaded.settings.needing_restart(&self.started);
        self.pending.send_replace(pending.clone());
        if !pending.is_empty() {
            let settings = pending.join(", ");
            warn!(
                event = "restart_pending",
                settings, "these settings have changed: restart hsmac to use them"
            );
        }
        telemetry::apply(&reloaded.settings.log);
        self.settings = Arc::new(reloaded.settings);
        self.files = reloaded.files;
        match failure {
            None => {
                self.failure.clear();
                info!(event = "reloaded", what, "reloaded");
                // Of the files that are named now, which may be others than before.
                self.read = reloaded.fingerprints;
            }
            Some(reason) => self.failure.set(what, reason),
        }
        self.warn();
    }

    /// Puts what was read in force; gives what is wrong with declared keys.
    async fn admit(&self, settings: &Settings, access: Access) -> Vec<String> {
        let Some(changed) = self.groups.change(settings, &self.settings) else {
            return self.apis.admit(access, None).await;
        };
        wait_for_successors(&changed.now, settings, &self.settings).await;
        let tokens = TokenGroups {
            groups: changed.now.clone(),
            new_keys: settings.new_keys.clone(),
        };
        let misdeclared = self.apis.admit(access, Some(tokens)).await;
        self.groups.end_gone(changed);
        misdeclared
    }

    fn warn(&mut self) {
        for warning in self.settings.tls_warnings() {
            warn!(event = "certificate_warning", "{warning}");
        }
        self.warned = Instant::now();
    }
}

/// Why the last reload failed: told when it begins to, and again every hour until it no longer does.
struct Failure {
    reason: Option<String>,
    /// For health.
    failing: watch::Sender<bool>,
    logged: Instant,
}

impl Failure {
    fn new(failing: watch::Sender<bool>) -> Self {
        Self {
            reason: None,
            failing,
            logged: Instant::now(),
        }
    }

    fn set(&mut self, what: &str, reason: String) {
        if self.reason.as_ref() == Some(&reason) {
            return;
        }
        error!(
            event = "reload_failed",
            what, reason, "not reloaded: the old settings stay, and everything else is in force"
        );
        self.reason = Some(reason);
        self.failing.send_replace(true);
        self.logged = Instant::now();
    }

    fn clear(&mut self) {
        self.reason = None;
        self.failing.send_replace(false);
    }

    fn remind(&mut self) {
        if let Some(reason) = &self.reason
            && self.logged.elapsed() >= HOUR
        {
            error!(event = "reload_failed", reason, "still not reloaded");
            self.logged = Instant::now();
        }
    }
}

fn reload(
    started: &Settings,
    current: &Settings,
    files: &LoadedFiles,
    limits: &front::Limits,
) -> Result<(Reloaded, Access), String> {
    let reloaded = started.reload(current, files);
    let access = Access::new(&reloaded.settings, reloaded.files.clone(), limits)?;
    Ok((reloaded, access))
}

fn failure_of(faults: &[ConfigFault]) -> Option<String> {
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// The pause between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
/// How often a reload that keeps failing is logged.
const HOUR: Duration = Duration::from_hours(1);
/// How often expiring certificates are warned of.
const DAY: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::Mutex,
    };

    use tokio::time::advance;

    use super::*;

    /// Keeps the log of this thread.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn lines(&self, with: &str) -> usize {
            let log = self.0.lock().unwrap();
            str::from_utf8(&log).unwrap().matches(with).count()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_in_health_until_it_is_mended_and_in_the_log_at_once_and_every_hour() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _kept = tracing::subscriber::set_default(subscriber.finish());
        let (sender, failing) = watch::channel(false);
        let mut failure = Failure::new(sender);
        let reason = "hsmac.toml:3: region: is no region";

        failure.set("SIGHUP", reason.to_owned());
        assert!(*failing.borrow());
        // Tried again every few seconds, all day.
        for second in 0..=24 * 3600 {
            failure.set("hsmac.toml", reason.to_owned());
            failure.remind();
            assert_eq!(log.lines("not reloaded: the old settings stay"), 1);
            assert_eq!(log.lines("still not reloaded"), second / 3600);
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(log.lines(reason), 25);
        failure.clear();
        assert!(!*failing.borrow());
        advance(HOUR * 2).await;
        failure.remind();
        assert_eq!(log.lines("still not reloaded"), 24);
    }
}
