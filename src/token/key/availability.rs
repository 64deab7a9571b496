//! Where a key can be used: which hosts and tokens lack its object, and why it cannot serve at all.

use std::{
    collections::HashMap,
    sync::{
        RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{error, info};

use crate::{
    host_ipc::{monotonic, nanoseconds},
    token::{key::TokenKey, locks::UNPOISONED},
};

/// How long a key that cannot serve is refused before the token is asked again: whoever mends the
/// object need not restart hsmac. Each time in a row it is twice as long, up to [`LONGEST_REFUSAL`].
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// The longest time for which a key is refused without asking the token.
const LONGEST_REFUSAL: Duration = Duration::from_secs(160);
/// How long a token of which a fresh generation found no object is not started anew for that key:
/// some modules see what others have created at C_Initialize alone.
const START_ANEW: Duration = Duration::from_secs(300);

/// What is known of the places where a key cannot be used.
#[derive(Debug, Default)]
pub(super) struct Availability {
    failure: RwLock<Option<KeyFailure>>,
    /// The fast way to know that there is no failure.
    has_failure: AtomicBool,
    /// Hosts that do not have the key, and since when that is known.
    absent: RwLock<HashMap<u32, Instant>>,
    /// Until when some host may be known to lack it ([`monotonic`]): the fast way to know that none
    /// is.
    absent_until: AtomicU64,
    /// Tokens, by their place in the group, of which a fresh generation found no object, and when.
    gone: RwLock<HashMap<usize, Instant>>,
}

/// Why a key cannot serve, and since when that is known.
#[derive(Debug)]
struct KeyFailure {
    reason: String,
    since: Instant,
    /// For how long the token is not asked again.
    pause: Duration,
    /// Nobody asks the token again: only a person can tell what is right.
    for_good: bool,
}

impl TokenKey {
    /// Why the key cannot serve, if the token has shown that waiting does not cure it.
    pub fn failure(&self) -> Option<String> {
        self.failure_if(|_| true)
    }

    /// Why the key cannot serve, while it is too early to ask the token again: for 10 s after the
    /// token said so first, longer each time in a row, or for good if only a person can tell what is
    /// right.
    pub fn refusal(&self) -> Option<String> {
        self.failure_if(|failure| failure.for_good || failure.since.elapsed() < failure.pause)
    }

    fn failure_if(&self, counts: impl Fn(&KeyFailure) -> bool) -> Option<String> {
        if !self.object.availability.has_failure.load(Ordering::Acquire) {
            return None;
        }
        let failure = self.object.availability.failure.read().expect(UNPOISONED);
        let failure = failure.as_ref().filter(|failure| counts(failure));
        failure.map(|failure| failure.reason.clone())
    }

    /// Whether a host is known not to have the key. Asked again after 10 s.
    pub(in crate::token) fn is_absent_from(&self, host: u32) -> bool {
        self.is_absent_somewhere()
            && self
                .object
                .availability
                .absent
                .read()
                .expect(UNPOISONED)
                .get(&host)
                .is_some_and(|since| since.elapsed() < ASK_AGAIN)
    }

    /// Whether any host was found not to have the key.
    pub(in crate::token) fn is_absent_somewhere(&self) -> bool {
        let until = self
            .object
            .availability
            .absent_until
            .load(Ordering::Acquire);
        until != 0 && monotonic() < until
    }

    /// A host does not have the key.
    pub(in crate::token) fn set_absent_from(&self, host: u32) {
        let mut absent = self.object.availability.absent.write().expect(UNPOISONED);
        absent.retain(|_, since| since.elapsed() < ASK_AGAIN);
        absent.insert(host, Instant::now());
        let until = monotonic() + nanoseconds(ASK_AGAIN);
        self.object
            .availability
            .absent_until
            .store(until, Ordering::Release);
    }

    /// A fresh generation of a token found no object.
    pub(in crate::token) fn set_gone_from(&self, member: usize) {
        let mut gone = self.object.availability.gone.write().expect(UNPOISONED);
        gone.insert(member, Instant::now());
    }

    /// Whether a fresh generation of a token found no object lately, and none has found one since.
    pub(in crate::token) fn is_gone_from(&self, member: usize) -> bool {
        let gone = self.object.availability.gone.read().expect(UNPOISONED);
        gone.get(&member)
            .is_some_and(|since| since.elapsed() < START_ANEW)
    }

    /// The key cannot serve now; the token is asked again after 10 s.
    pub(in crate::token) fn fail_for_now(&self, reason: String) {
        self.fail(reason, false);
    }

    /// The key cannot serve until a person acts.
    pub(super) fn fail_for_good(&self, reason: String) {
        self.fail(reason, true);
    }

    /// Logged once for each reason, not once for each call.
    fn fail(&self, reason: String, for_good: bool) {
        let mut failure = self.object.availability.failure.write().expect(UNPOISONED);
        if failure.as_ref().is_some_and(|before| before.for_good) {
            return;
        }
        if failure
            .as_ref()
            .is_none_or(|before| before.reason != reason)
        {
            error!(event = "key_unavailable", key_id = %self.object.key_id, %reason, "the key is unavailable");
        }
        // Several answers of one moment are one failure.
        let pause = match failure.as_ref() {
            Some(before) if before.since.elapsed() < before.pause => before.pause,
            Some(before) => (before.pause * 2).min(LONGEST_REFUSAL),
            None => ASK_AGAIN,
        };
        *failure = Some(KeyFailure {
            reason,
            since: Instant::now(),
            pause,
            for_good,
        });
        self.object
            .availability
            .has_failure
            .store(true, Ordering::Release);
    }

    /// A host of a token found the right object.
    pub(super) fn set_found(&self, member: usize, host: u32) {
        let known = &self.object.availability;
        known.gone.write().expect(UNPOISONED).remove(&member);
        {
            let mut absent = known.absent.write().expect(UNPOISONED);
            absent.remove(&host);
            if absent.is_empty() {
                known.absent_until.store(0, Ordering::Release);
            }
        }
        self.recovered();
    }

    /// The key has just served. Costs one look where nothing was wrong with it.
    pub(in crate::token) fn recovered(&self) {
        let known = &self.object.availability;
        if !known.has_failure.load(Ordering::Acquire) {
            return;
        }
        let mut failure = known.failure.write().expect(UNPOISONED);
        if failure.take_if(|failure| !failure.for_good).is_some() {
            known.has_failure.store(false, Ordering::Release);
            info!(event = "key_available", key_id = %self.object.key_id, "the key serves again");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::token::key::{
        Verdict,
        tests::{key, value},
    };

    #[test]
    fn a_key_that_a_host_lacked_is_like_any_other_once_it_has_it() {
        let key = key();
        key.set_absent_from(7);
        assert!(key.is_absent_somewhere() && key.is_absent_from(7) && !key.is_absent_from(8));
        assert_eq!(key.verify_check_value(value(1), 0, 7), Verdict::Match);
        assert!(!key.is_absent_somewhere() && !key.is_absent_from(7));
    }
}
