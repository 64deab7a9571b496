//! The fences of a key: once one is closed no call begins behind it, and who closes it can wait for the
//! last call that did.
//!
//! There are three, one behind the other. The *object's* is closed when hosts must forget the handle: the
//! key is disabled, or goes. The *admission's* is closed when another policy decides who may call: those
//! whom the old one let in end, and the handle stays. A *grant's* is closed when the grant is revoked or
//! retired: those whom nothing but the grant let in end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

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

/// The fence of a grant: it outlives the policies and objects of its key, and is never opened again.
#[derive(Clone, Debug, Default)]
pub struct GrantFence(pub(super) Arc<Fence>);

/// How much of a key is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::token) enum Closing {
    /// The calls that were admitted by the grant of this [`TokenKey`].
    Grant,
    /// The calls that were admitted by this policy, by itself or with a grant.
    Admission,
    /// All calls, by whomever they were admitted, and the handles besides.
    Object,
}

/// A call that uses a key; who closes the key waits until it is dropped.
pub(in crate::token) struct KeyUse<'a> {
    _grant: Option<FenceUse<'a>>,
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
            _grant: self.grant.as_ref().map(|grant| grant.0.begin()),
            _admission: self.admission.begin(),
            _object: self.object.fence.begin(),
        };
        (!self.is_closed()).then_some(using)
    }

    /// No such call begins any more.
    pub(in crate::token) fn close(&self, closing: Closing) {
        if let Some(fence) = self.fence(closing) {
            fence.closed.store(true, Ordering::SeqCst);
        }
    }

    /// Whether no call may begin.
    pub(in crate::token) fn is_closed(&self) -> bool {
        let by_grant = self.grant.as_ref();
        by_grant.is_some_and(|grant| grant.0.is_closed())
            || self.admission.is_closed()
            || self.is_forgotten()
    }

    /// Whether no call may begin, by whomever it is admitted.
    pub(in crate::token) fn is_forgotten(&self) -> bool {
        self.object.fence.is_closed()
    }

    /// Whether a call with `other` is to end when this key is closed so.
    pub(in crate::token) fn closes(&self, other: &Self, closing: Closing) -> bool {
        match (self.fence(closing), other.fence(closing)) {
            (Some(own), Some(others)) => std::ptr::eq(own, others),
            (Some(_), None) | (None, _) => false,
        }
    }

    /// Waits until the last such call has its answer.
    pub(in crate::token) async fn until_unused(&self, closing: Closing) {
        let Some(fence) = self.fence(closing) else {
            return;
        };
        loop {
            let unused = fence.unused.notified();
            if fence.uses.load(Ordering::SeqCst) == 0 {
                return;
            }
            unused.await;
        }
    }

    /// None: no grant let anybody in with this key.
    fn fence(&self, closing: Closing) -> Option<&Fence> {
        match closing {
            Closing::Grant => self.grant.as_ref().map(|grant| &*grant.0),
            Closing::Admission => Some(&self.admission),
            Closing::Object => Some(&self.object.fence),
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

    /// Security: a grant's end is that of the calls which it let in, by whichever policy of the key; the
    /// end of the policy is theirs too, and they are nobody else's.
    #[test]
    fn who_came_by_a_grant_ends_with_the_grant_with_the_policy_and_with_the_key() {
        let key = key();
        let (grant, other) = (GrantFence::default(), GrantFence::default());
        let (by_grant, by_other) = (key.under_grant(&grant), key.under_grant(&other));
        let using = by_grant.begin_use().unwrap();
        let later = key.admitted_anew().under_grant(&grant);
        later.close(Closing::Grant);
        assert!(later.closes(&by_grant, Closing::Grant));
        assert!(by_grant.begin_use().is_none() && later.begin_use().is_none());
        assert!(key.begin_use().is_some() && by_other.begin_use().is_some());
        assert!(!later.closes(&by_other, Closing::Grant) && !later.closes(&key, Closing::Grant));
        assert!(!is_unused(&later, Closing::Grant) && is_unused(&by_other, Closing::Grant));
        drop(using);
        assert!(is_unused(&later, Closing::Grant));

        let using = by_other.begin_use().unwrap();
        key.close(Closing::Admission);
        assert!(key.closes(&by_other, Closing::Admission) && by_other.begin_use().is_none());
        assert!(!is_unused(&key, Closing::Admission));
        drop(using);
        assert!(is_unused(&key, Closing::Admission));

        // What the front asks of its own accord does not end with a grant.
        assert!(later.admitted_anew().begin_use().is_some());
        key.close(Closing::Object);
        assert!(later.admitted_anew().begin_use().is_none());
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
