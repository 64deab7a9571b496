//! What changes while hsmac runs: certificates, revocation lists, principals, policies.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::Signal,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::{error, info, warn};

use super::{
    notify,
    wires::{Access, Apis},
};
use crate::config::Settings;

/// Reads the configuration and its files again, at SIGHUP and when one of them has changed.
pub(super) struct Reload {
    apis: Arc<Apis>,
    /// With these hsmac started: listeners and whatever waits for a restart are as they say.
    started: Arc<Settings>,
    /// The last that were taken over.
    settings: Arc<Settings>,
    /// The files as they were when they were last read.
    read: Marks,
    /// Why they could not be taken over then.
    trouble: Option<String>,
    warned: Instant,
}

impl Reload {
    /// `settings` are those that hsmac started with, and `read` how their files were before they were read.
    pub(super) fn new(apis: Arc<Apis>, settings: Settings, read: Marks) -> Self {
        let settings = Arc::new(settings);
        Self {
            apis,
            started: settings.clone(),
            settings,
            read,
            trouble: None,
            warned: Instant::now(),
        }
    }

    /// Never ends by itself.
    pub(super) async fn run(mut self, mut hangups: Signal) {
        let mut last = self.read.clone();
        loop {
            let asked = tokio::select! {
                Some(()) = hangups.recv() => true,
                () = sleep(LOOK) => false,
            };
            let now = self.marks().await;
            if asked {
                let mut begins = vec![NotifyState::Reloading];
                begins.extend(NotifyState::monotonic_usec_now());
                notify(&begins);
                self.attempt("SIGHUP", &now).await;
                notify(&[NotifyState::Ready]);
            } else if now == last && (now != self.read || self.trouble.is_some()) {
                // Twice the same: nobody is in the middle of replacing them.
                let changed = now.changed_since(&self.read);
                self.attempt(&changed, &now).await;
            }
            last = now;
            if self.warned.elapsed() >= DAY {
                self.warn();
            }
        }
    }

    async fn marks(&self) -> Marks {
        let settings = self.settings.clone();
        spawn_blocking(move || Marks::of(&settings))
            .await
            .unwrap_or_default()
    }

    /// All of it or nothing.
    async fn attempt(&mut self, what: &str, marks: &Marks) {
        let started = self.started.clone();
        let read = spawn_blocking(move || again(&started)).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string()));
        self.read = marks.clone();
        match read {
            Ok((settings, access)) => {
                self.apis.admit(access);
                let later = settings.later_than(&self.started);
                if !later.is_empty() {
                    let settings = later.join(", ");
                    warn!(
                        settings,
                        "these settings have changed: restart hsmac to use them"
                    );
                }
                self.settings = Arc::new(settings);
                self.trouble = None;
                info!(what, "reloaded");
                self.warn();
                // What is named now may be other files than before.
                self.read = self.marks().await;
            }
            Err(trouble) if self.trouble.as_ref() == Some(&trouble) => {}
            Err(trouble) => {
                error!(
                    what,
                    reason = trouble,
                    "not reloaded: the old settings stay"
                );
                self.trouble = Some(trouble);
            }
        }
    }

    fn warn(&mut self) {
        for warning in self.settings.tls_warnings() {
            warn!("{warning}");
        }
        self.warned = Instant::now();
    }
}

fn again(started: &Settings) -> Result<(Settings, Access), String> {
    let (new, _) = started.again().map_err(|faults| {
        faults
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    let access = Access::read(&new)?;
    Ok((new, access))
}

/// How files are: enough to see that one of them is no longer the same.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Marks(Vec<(PathBuf, Option<Mark>)>);

/// Device, inode, size, and both times in seconds and nanoseconds.
type Mark = [i64; 7];

impl Marks {
    pub(super) fn of(settings: &Settings) -> Self {
        let mark = |file: PathBuf| {
            let found = fs::metadata(&file).ok();
            let mark = found.map(|it| {
                [
                    it.dev().cast_signed(),
                    it.ino().cast_signed(),
                    it.size().cast_signed(),
                    it.mtime(),
                    it.mtime_nsec(),
                    it.ctime(),
                    it.ctime_nsec(),
                ]
            });
            (file, mark)
        };
        Self(settings.reloadable_files().into_iter().map(mark).collect())
    }

    fn changed_since(&self, before: &Self) -> String {
        let changed = self.0.iter().filter(|mark| !before.0.contains(mark));
        let changed: Vec<String> = changed
            .map(|(file, _)| file.display().to_string())
            .collect();
        changed.join(", ")
    }
}

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
/// Certificates that end are warned of as often as this.
const DAY: Duration = Duration::from_hours(24);
