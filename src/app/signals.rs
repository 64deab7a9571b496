//! Signals that hsmac acts on, and what systemd is told.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::error;

use super::AppError;

/// The signals that would end a process that does not watch for them.
pub(super) struct Signals {
    pub(super) shutdown: ShutdownSignals,
    /// SIGHUP, which reloads. One that comes during the start is taken after it.
    pub(super) hangup: Signal,
}

impl Signals {
    /// From now on these signals no longer end the process at once.
    ///
    /// # Errors
    /// [`AppError::Internal`]: the system refuses.
    pub(super) fn watch() -> Result<Self, AppError> {
        let watch = |kind| signal(kind).map_err(unwatched);
        Ok(Self {
            shutdown: ShutdownSignals {
                terminate: watch(SignalKind::terminate())?,
                interrupt: watch(SignalKind::interrupt())?,
            },
            hangup: watch(SignalKind::hangup())?,
        })
    }
}

/// SIGTERM and SIGINT.
pub(super) struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn unwatched(error: io::Error) -> AppError {
    AppError::Internal(format!("signals cannot be watched: {error}"))
}

pub(super) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        error!(event = "systemd_unreachable", reason = %error, "systemd cannot be told");
    }
}
