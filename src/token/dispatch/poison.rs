//! Messages that a token fails with: refused at the door for a while, so that who sends one again and
//! again costs the token nothing more.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use crate::{
    model::seconds,
    token::{key::TokenKey, locks::UNPOISONED, status::Fault},
};

/// The first time for which a message is refused; it doubles up to the longest.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);
/// So many messages are remembered; the oldest make room.
const MOST: usize = 1024;

/// Which messages the token failed with, by key.
#[derive(Default)]
pub(in crate::token) struct PoisonList {
    /// The fast way to know that there is none.
    is_used: AtomicBool,
    /// Security: keyed hashes, not messages. A collision refuses one message too many, for a while.
    hasher: RandomState,
    known: Mutex<HashMap<(u64, u64), Poison>>,
}

struct Poison {
    fault: Fault,
    until: Instant,
    /// For how long it is refused the next time.
    next: Duration,
}

impl PoisonList {
    /// Why a message is refused without asking the token, if it is.
    pub(in crate::token) fn refusal(&self, key: &TokenKey, message: &[u8]) -> Option<Fault> {
        if !self.is_used.load(Ordering::Acquire) {
            return None;
        }
        let known = self.known.lock().expect(UNPOISONED);
        let poison = known.get(&self.name(key, message))?;
        (Instant::now() < poison.until).then(|| poison.fault.clone())
    }

    /// The token failed with a message.
    pub(in crate::token) fn add(&self, key: &TokenKey, message: &[u8], fault: Fault) {
        let now = Instant::now();
        let mut known = self.known.lock().expect(UNPOISONED);
        known.retain(|_, poison| now < poison.until + LONGEST);
        if known.len() >= MOST
            && let Some(oldest) = known
                .iter()
                .min_by_key(|(_, poison)| poison.until)
                .map(|(name, _)| *name)
        {
            known.remove(&oldest);
        }
        let name = self.name(key, message);
        let length = known.get(&name).map_or(FIRST, |poison| poison.next);
        warn!(
            event = "message_refused", key_id = %key.key_id(), bytes = message.len(), refused_for_s = seconds(length), reason = %fault,
            "the token fails with a message; it is refused for a while"
        );
        known.insert(
            name,
            Poison {
                fault,
                until: now + length,
                next: (length * 2).min(LONGEST),
            },
        );
        self.is_used.store(true, Ordering::Release);
    }

    fn name(&self, key: &TokenKey, message: &[u8]) -> (u64, u64) {
        (key.reference(), self.hasher.hash_one(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::KeySpec, token::key::ObjectLocator};

    fn key() -> TokenKey {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap();
        TokenKey::new(id, KeySpec::Hmac256, ObjectLocator::default(), None)
    }

    #[test]
    fn a_message_is_refused_with_its_key_alone_and_longer_each_time() {
        let (list, one, other) = (PoisonList::default(), key(), key());
        assert!(list.refusal(&one, b"bad").is_none());
        list.add(&one, b"bad", Fault::Job("fails".into()));
        assert!(matches!(list.refusal(&one, b"bad"), Some(Fault::Job(_))));
        assert!(list.refusal(&one, b"good").is_none());
        assert!(list.refusal(&other, b"bad").is_none());
        list.add(&one, b"bad", Fault::Job("fails".into()));
        let known = list.known.lock().unwrap();
        let poison = known.values().next().unwrap();
        assert_eq!(poison.next, FIRST * 4);
        assert!(poison.until > Instant::now() + FIRST);
    }

    #[test]
    fn the_list_is_bounded() {
        let (list, key) = (PoisonList::default(), key());
        for number in 0..MOST as u64 + 10 {
            list.add(&key, &number.to_be_bytes(), Fault::Job("fails".into()));
        }
        assert_eq!(list.known.lock().unwrap().len(), MOST);
    }
}
