//! Keys that are closed: a host ends their calls, and forgets those whose object is closed, so that no
//! handle and no copy of them is left in its process.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    proto::host::{ForgetKey, to_host},
    token::{
        dispatch::queue::{CloseOrder, HostHandle},
        host::session::{BeingClosed, HostSession},
        key::{Closing, TokenKey},
    },
};

/// How long a host may take for it.
const CLOSE: Duration = Duration::from_secs(2);

impl HostSession {
    /// Begins what other parts ordered of this very host.
    pub(super) fn take_orders(&mut self, handle: &HostHandle) {
        for CloseOrder { key, closing, done } in handle.orders() {
            let must_forget = closing == Closing::Object;
            let was_open = must_forget && self.forget(&key);
            self.closing.push(BeingClosed {
                // One that it was told to forget before, for another reason, it may still have.
                acknowledged: !must_forget || !self.told_to_forget.contains(&key.reference()),
                key,
                closing,
                was_open,
                by: Instant::now() + CLOSE,
                _done: done,
            });
        }
        self.settle_closed();
    }

    /// Has the host drop a key's handle, if it knows the key; it says when it has. Gives whether it had
    /// found the key's object.
    pub(super) fn forget(&mut self, key: &TokenKey) -> bool {
        let reference = key.reference();
        let Some(defined) = self.defined_keys.remove(&reference) else {
            return false;
        };
        self.told_to_forget.insert(reference);
        self.process
            .queue_frame(to_host::Frame::ForgetKey(ForgetKey { reference }));
        defined.open
    }

    /// A key is closed when the host has no job of it any more, and has said that it forgot it if it
    /// must; dropping the sender tells who waits.
    pub(super) fn settle_closed(&mut self) {
        let mut closing = std::mem::take(&mut self.closing);
        closing.retain(|one| {
            let mut pending = self.slots.iter().flatten();
            !one.acknowledged
                || pending.any(|pending| {
                    let key = pending.job.key();
                    key.is_some_and(|key| one.key.closes(key, one.closing))
                })
        });
        self.closing = closing;
    }

    /// Drops the definition of a key that was made for one job alone: the front names another one when
    /// the key serves, and a sign of life must not be asked of this one.
    pub(super) fn release_definition(&mut self, key: &Arc<TokenKey>) {
        let reference = key.reference();
        let mut pending = self.slots.iter().flatten();
        let is_used = pending.any(|pending| {
            let key = pending.job.key();
            key.is_some_and(|key| key.reference() == reference)
        });
        if !is_used {
            self.forget(key);
        }
    }
}
