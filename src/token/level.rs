//! A number that tasks wait for.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// As a `watch` channel of a number, but those who wait wake in the order in which they came, and not
/// in a random one: what hosts do is the same each time.
#[derive(Default)]
pub(in crate::token) struct Level {
    value: AtomicUsize,
    changed: Notify,
}

impl Level {
    pub(in crate::token) fn get(&self) -> usize {
        self.value.load(Ordering::SeqCst)
    }

    pub(in crate::token) fn set(&self, value: usize) {
        self.value.store(value, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits until the number is more than zero.
    pub(in crate::token) async fn until_positive(&self) {
        self.until(1).await;
    }

    /// Waits until the number is so much at least.
    pub(in crate::token) async fn until(&self, least: usize) {
        loop {
            // Begun before the look: a change after it wakes this one.
            let changed = self.changed.notified();
            if self.get() >= least {
                return;
            }
            changed.await;
        }
    }
}
