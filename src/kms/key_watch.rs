//! Looks at declared keys before a caller does: when a host has come to serve, and every few minutes.
//!
//! Promises: an object that is missing, that is one of several, or that makes another check value is in
//! the log and in health (`hsmac.keys`) without a request. Does not: judge; looking is asking the token
//! to describe the key, and what the token answers is kept with the key as it is for any call.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};
use tracing::debug;

use crate::{
    kms::{groups::any_change, service::Kms},
    model::KeyState,
};

/// How often declared keys are looked at, if no host starts meanwhile.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How often, while one of them cannot serve: whoever mends it wants to see that.
const INTERVAL_IN_TROUBLE: Duration = Duration::from_secs(30);
/// After a host has started: its siblings start too, and callers come first.
const SETTLE: Duration = Duration::from_secs(1);
/// How long one look may take. It waits behind searches of callers.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Kms {
    /// Looks at declared keys from now on, until nobody has the operations any more. The receiver says
    /// whether one of them cannot serve.
    pub fn watch_declared_keys(self: &Arc<Self>) -> watch::Receiver<bool> {
        let (failing, receiver) = watch::channel(false);
        tokio::spawn(look_again(Arc::downgrade(self), failing));
        receiver
    }

    /// Asks each token for its declared keys; whether one of them cannot serve.
    async fn look_at_declared_keys(&self) -> bool {
        let mut is_failing = false;
        for record in self.catalogue.declared() {
            // Security: hosts must know nothing of a key that is disabled.
            if record.configured_state() != KeyState::Enabled {
                continue;
            }
            if let Some(group) = self.group(&record)
                && group.available().is_ok()
                && let Err(fault) = group.describe(&record.key, Instant::now() + TIMEOUT).await
            {
                debug!(arn = %record.arn, reason = %fault, "a declared key was looked at");
            }
            is_failing |= record.state() == KeyState::Unavailable;
        }
        is_failing
    }
}

async fn look_again(kms: Weak<Kms>, failing: watch::Sender<bool>) {
    let Some(service) = kms.upgrade() else { return };
    let declared_anew = Arc::clone(&service.declared_anew);
    drop(service);
    loop {
        let Some(service) = kms.upgrade() else { return };
        // Of the groups that there are now: a host that comes up during the look is told after it.
        let mut started = service.hosts_started();
        let is_failing = service.look_at_declared_keys().await;
        failing.send_if_modified(|before| std::mem::replace(before, is_failing) != is_failing);
        drop(service);
        tokio::select! {
            () = any_change(&mut started) => sleep(SETTLE).await,
            () = declared_anew.notified() => {}
            () = sleep(if is_failing { INTERVAL_IN_TROUBLE } else { INTERVAL }) => {}
        }
    }
}
