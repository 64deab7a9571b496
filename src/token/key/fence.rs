//! The fences of a key: once one is closed no call begins behind it, and who closes it can wait for the
//! last call that did.
//!
//! There are two, one behind the other. The *object's* is closed when hosts must forget the handle: the
//! key is disabled, or goes. The *admission's* is closed when another policy decides who may call: those
//! whom the old one let in end, and the handle stays.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::token::key::TokenKey;

/// Who is behind a fence now, and whether anybody may come.
#[derive(Debug, Default)]
pub(super) struct Fence {
    closed: AtomicBool,
    /// Calls that have begun.
    uses: AtomicU32,
    unused: Notify,
}

/// How much of a key is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::token) enum Closing {
    /// The calls that were admitted with this very [`TokenKey`].
    Admission,
    /// All calls, by whomever they were admitted, and the handles besides.
    Object,
}

/// A call that uses a key; who closes the key waits until it is dropped.
pub(in crate::token) struct KeyUse<'a> {
    _admission: FenceUse<'a>,
    _object: FenceUse<'a>,
}

struct FenceUse<'a>(&'a Fence);

impl Fence {
    fn begin(&self) -> FenceUse<'_> {
        self.uses.fetch_add(1, Ordering::SeqCst);
        FenceUse(self)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

impl Drop for FenceUse<'_> {
    fn drop(&mut self) {
        let last = self.0.uses.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.0.is_closed() {
            self.0.unused.notify_waiters();
        }
    }
}

impl TokenKey {
    /// A call begins to use the key; `None` if it is closed.
    pub(in crate::token) fn begin_use(&self) -> Option<KeyUse<'_>> {
        // Security: counted first and looked at second, while who closes does it the other way
        // round: either this call sees the key closed, or the fence waits for this call.
        let using = KeyUse {
            _admission: self.admission.begin(),
            _object: self.object.fence.begin(),
        };
        (!self.is_closed()).then_some(using)
    }

    /// No such call begins any more.
    pub(in crate::token) fn close(&self, closing: Closing) {
        self.fence(closing).closed.store(true, Ordering::SeqCst);
    }

    /// Whether no call may begin.
    pub(in crate::token) fn is_closed(&self) -> bool {
        self.admission.is_closed() || self.is_forgotten()
    }

    /// Whether no call may begin, by whomever it is admitted.
    pub(in crate::token) fn is_forgotten(&self) -> bool {
        self.object.fence.is_closed()
    }

    /// Whether a call with `other` is to end when this key is closed so.
    pub(in crate::token) fn closes(&self, other: &Self, closing: Closing) -> bool {
        std::ptr::eq(self.fence(closing), other.fence(closing))
    }

    /// Waits until the last such call has its answer.
    pub(in crate::token) async fn until_unused(&self, closing: Closing) {
        let fence = self.fence(closing);
        loop {
            let unused = fence.unused.notified();
            if fence.uses.load(Ordering::SeqCst) == 0 {
                return;
            }
            unused.await;
        }
    }

    fn fence(&self, closing: Closing) -> &Fence {
        match closing {
            Closing::Admission => &self.admission,
            Closing::Object => &self.object.fence,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future as _, pin::pin, task::Context};

    use super::*;
    use crate::token::key::tests::key;

    /// Whether who closes the key is done at once.
    fn is_unused(key: &TokenKey, closing: Closing) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        pin!(key.until_unused(closing))
            .poll(&mut context)
            .is_ready()
    }

    #[test]
    fn a_closed_key_is_used_by_nobody_new_and_waited_for() {
        let key = key();
        let using = key.begin_use().unwrap();
        key.close(Closing::Object);
        assert!(key.begin_use().is_none());
        assert!(!is_unused(&key, Closing::Object));
        drop(using);
        assert!(is_unused(&key, Closing::Object));
    }

    #[test]
    fn who_is_admitted_anew_goes_on_while_those_of_before_end() {
        let old = key();
        let new = old.admitted_anew();
        let (of_old, of_new) = (old.begin_use().unwrap(), new.begin_use().unwrap());
        old.close(Closing::Admission);
        assert!(old.begin_use().is_none() && new.begin_use().is_some());
        assert!(old.closes(&old, Closing::Admission) && !old.closes(&new, Closing::Admission));
        assert!(!is_unused(&old, Closing::Admission));
        drop(of_old);
        assert!(is_unused(&old, Closing::Admission));

        // Security: whoever disables the key stops all of them.
        let of_old = old.admitted_anew();
        let of_old = of_old.begin_use().unwrap();
        new.close(Closing::Object);
        assert!(old.is_forgotten() && new.begin_use().is_none());
        assert!(new.closes(&old, Closing::Object));
        drop(of_new);
        assert!(!is_unused(&new, Closing::Object));
        drop(of_old);
        assert!(is_unused(&new, Closing::Object));
    }
}
