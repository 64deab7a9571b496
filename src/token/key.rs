//! A key as the front knows it: how to find its object and how to know that it is the right one.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{
        OnceLock, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::{
    model::{KeyId, KeySpec},
    proto::host::KeyDefinition,
    wire::{monotonic, nanoseconds},
};

/// What finds a key's object in its token; at least one of the two is there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Locator {
    /// CKA_ID
    pub id: Option<Vec<u8>>,
    /// CKA_LABEL
    pub label: Option<String>,
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(label) = &self.label {
            parts.push(format!("CKA_LABEL {label:?}"));
        }
        if let Some(id) = &self.id {
            parts.push(format!("CKA_ID {}", hex(id)));
        }
        f.write_str(&parts.join(" and "))
    }
}

/// A key check value: the MAC of a message that no client can have signed. Not a secret.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct CheckValue(Bytes);

impl CheckValue {
    /// The MAC's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl From<Bytes> for CheckValue {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl FromStr for CheckValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match *pair {
                [high, low] => Some(digit(high)? << 4 | digit(low)?),
                _ => None,
            })
            .collect();
        match bytes {
            Some(bytes) if matches!(bytes.len(), 28 | 32 | 48 | 64) => Ok(Self(bytes.into())),
            Some(_) | None => Err(format!(
                "{text:?} is no check value: it must be 56, 64, 96 or 128 lowercase hex digits, as `hsmac check` prints them"
            )),
        }
    }
}

impl TryFrom<String> for CheckValue {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for CheckValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for CheckValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key of a group of tokens. One `Key` means one object for ever: a changed locator is a new
/// `Key`, and so is a key that was forgotten and serves again.
#[derive(Debug)]
pub struct Key {
    reference: u64,
    key_id: KeyId,
    spec: KeySpec,
    locator: Locator,
    pinned: bool,
    trusted: OnceLock<Trusted>,
    trouble: RwLock<Option<Trouble>>,
    /// The fast way to know that there is no trouble.
    troubled: AtomicBool,
    /// Hosts that do not have the key, and since when that is known.
    absent: RwLock<HashMap<u32, Instant>>,
    /// Until when some host may be known to lack it ([`monotonic`]): the fast way to know that none
    /// is.
    absent_until: AtomicU64,
    /// Tokens, by their place in the group, of which a fresh generation found no object, and when.
    gone: RwLock<HashMap<usize, Instant>>,
    /// No call begins any more.
    closed: AtomicBool,
    /// Calls that have begun.
    uses: AtomicU32,
    unused: Notify,
}

/// The check value that a key must have, and which token of the group said so.
#[derive(Debug)]
struct Trusted {
    value: CheckValue,
    /// `None`: it is pinned.
    by: Option<usize>,
}

/// A call that uses a key; [`Key::forget`](super::Group::forget) waits until it is dropped.
pub(super) struct Use<'a>(&'a Key);

impl Drop for Use<'_> {
    fn drop(&mut self) {
        if self.0.uses.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.is_closed() {
            self.0.unused.notify_waiters();
        }
    }
}

/// What a check value that a host reports is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The key's.
    Right,
    /// Another key's: the host must not use the object.
    Wrong,
}

/// Why a key cannot serve, and since when that is known.
#[derive(Debug)]
struct Trouble {
    reason: String,
    since: Instant,
    /// Nobody asks the token again: only a person can tell what is right.
    standing: bool,
}

/// How long a key that cannot serve is refused before the token is asked again: whoever mends the
/// object need not restart hsmac.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long a token of which a fresh generation found no object is not started anew for that key:
/// some modules see what others have created at C_Initialize alone.
const START_ANEW: Duration = Duration::from_secs(300);

impl Key {
    /// A key that is found by `locator` and proved by `check_value`. Without one the first value
    /// that a host reports is trusted until the process ends.
    pub fn new(
        key_id: KeyId,
        spec: KeySpec,
        locator: Locator,
        check_value: Option<CheckValue>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let pinned = check_value.is_some();
        let trusted = check_value.map_or_else(OnceLock::new, |value| {
            OnceLock::from(Trusted { value, by: None })
        });
        Self {
            reference: NEXT.fetch_add(1, Ordering::Relaxed),
            key_id,
            spec,
            locator,
            pinned,
            trusted,
            trouble: RwLock::default(),
            troubled: AtomicBool::new(false),
            absent: RwLock::default(),
            absent_until: AtomicU64::new(0),
            gone: RwLock::default(),
            closed: AtomicBool::new(false),
            uses: AtomicU32::new(0),
            unused: Notify::new(),
        }
    }

    /// The same key, of which nothing is known yet but what it was made with.
    pub(super) fn anew(&self) -> Self {
        let value = self.trusted.get().map(|trusted| trusted.value.clone());
        Self::new(self.key_id.clone(), self.spec, self.locator.clone(), value)
    }

    /// hsmac's ID of the key.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Its length and algorithm.
    pub fn spec(&self) -> KeySpec {
        self.spec
    }

    /// What finds its object.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }

    /// Whether the check value was known before any host reported one.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// The check value: the pinned one, or the first that a host reported.
    pub fn check_value(&self) -> Option<&CheckValue> {
        self.trusted.get().map(|trusted| &trusted.value)
    }

    /// Why the key cannot serve, if the token has shown that waiting does not cure it.
    pub fn trouble(&self) -> Option<String> {
        if !self.troubled.load(Ordering::Acquire) {
            return None;
        }
        self.trouble
            .read()
            .expect(UNPOISONED)
            .as_ref()
            .map(|trouble| trouble.reason.clone())
    }

    /// The same, while it is too early to ask the token again: for 10 s.
    pub fn refusal(&self) -> Option<String> {
        if !self.troubled.load(Ordering::Acquire) {
            return None;
        }
        let trouble = self.trouble.read().expect(UNPOISONED);
        let standing = trouble
            .as_ref()
            .filter(|trouble| trouble.standing || trouble.since.elapsed() < ASK_AGAIN);
        standing.map(|trouble| trouble.reason.clone())
    }

    /// A call begins to use the key; `None` if it is closed.
    pub(super) fn begin_use(&self) -> Option<Use<'_>> {
        // Security: counted first and looked at second, while who closes does it the other way
        // round: either this call sees the key closed, or the fence waits for this call.
        self.uses.fetch_add(1, Ordering::SeqCst);
        let using = Use(self);
        (!self.is_closed()).then_some(using)
    }

    /// No call begins any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether no call may begin.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether the token may be asked for it now.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_closed() && self.refusal().is_none()
    }

    /// Waits until the last call that uses the key has its answer.
    pub(super) async fn until_unused(&self) {
        loop {
            let unused = self.unused.notified();
            if self.uses.load(Ordering::SeqCst) == 0 {
                return;
            }
            unused.await;
        }
    }

    /// Whether a host is known not to have the key. Asked again after 10 s.
    pub(super) fn is_absent_from(&self, host: u32) -> bool {
        self.is_absent_somewhere()
            && self
                .absent
                .read()
                .expect(UNPOISONED)
                .get(&host)
                .is_some_and(|since| since.elapsed() < ASK_AGAIN)
    }

    /// Whether any host was found not to have the key.
    pub(super) fn is_absent_somewhere(&self) -> bool {
        let until = self.absent_until.load(Ordering::Acquire);
        until != 0 && monotonic() < until
    }

    /// A host does not have the key.
    pub(super) fn set_absent_from(&self, host: u32) {
        let mut absent = self.absent.write().expect(UNPOISONED);
        absent.retain(|_, since| since.elapsed() < ASK_AGAIN);
        absent.insert(host, Instant::now());
        let until = monotonic() + nanoseconds(ASK_AGAIN);
        self.absent_until.store(until, Ordering::Release);
    }

    /// A host has the key.
    fn set_present_in(&self, host: u32) {
        let mut absent = self.absent.write().expect(UNPOISONED);
        absent.remove(&host);
        if absent.is_empty() {
            self.absent_until.store(0, Ordering::Release);
        }
    }

    /// The key cannot serve. Logged once for each reason, not once for each call.
    pub(super) fn set_trouble(&self, reason: String) {
        self.trouble_with(reason, false);
    }

    fn trouble_with(&self, reason: String, standing: bool) {
        let mut trouble = self.trouble.write().expect(UNPOISONED);
        if trouble.as_ref().is_some_and(|before| before.standing) {
            return;
        }
        if trouble
            .as_ref()
            .is_none_or(|before| before.reason != reason)
        {
            error!(key_id = %self.key_id, %reason, "the key is unavailable");
        }
        *trouble = Some(Trouble {
            reason,
            since: Instant::now(),
            standing,
        });
        self.troubled.store(true, Ordering::Release);
    }

    /// A host of a token found the object, and it makes this check value.
    pub(super) fn trust(&self, made: CheckValue, member: usize, host: u32) -> Verdict {
        // Security: the first check value stands, whoever reports another one later.
        let trusted = self.trusted.get_or_init(|| {
            warn!(
                key_id = %self.key_id, check_value = %made,
                "no check_value is set for this key: the first one is trusted until hsmac ends"
            );
            Trusted {
                value: made.clone(),
                by: Some(member),
            }
        });
        if trusted.value != made {
            self.differs(member);
            return Verdict::Wrong;
        }
        self.gone.write().expect(UNPOISONED).remove(&member);
        self.set_present_in(host);
        if self.troubled.load(Ordering::Acquire) {
            let mut trouble = self.trouble.write().expect(UNPOISONED);
            if trouble.take_if(|trouble| !trouble.standing).is_some() {
                self.troubled.store(false, Ordering::Release);
                info!(key_id = %self.key_id, "the key serves again");
            }
        }
        Verdict::Right
    }

    /// The object that a token shows is another key's. True if the key can serve elsewhere.
    pub(super) fn differs(&self, member: usize) -> bool {
        match self.trusted.get().map(|trusted| trusted.by) {
            // Pinned: whoever shows the right object may serve.
            Some(None) => return true,
            // Security: two tokens disagree, and nothing says which is right: neither serves.
            Some(Some(first)) if first != member => self.trouble_with(
                "the tokens of its group have different keys under its name, and no check_value                  says which is right; set it, and restart hsmac"
                    .into(),
                true,
            ),
            Some(Some(_)) | None => {
                self.set_trouble("its check value differs: the object is another key".into());
            }
        }
        false
    }

    /// A fresh generation of a token found no object.
    pub(super) fn set_gone_from(&self, member: usize) {
        let mut gone = self.gone.write().expect(UNPOISONED);
        gone.insert(member, Instant::now());
    }

    /// Whether a fresh generation of a token found no object lately, and none has found one since.
    pub(super) fn is_gone_from(&self, member: usize) -> bool {
        let gone = self.gone.read().expect(UNPOISONED);
        gone.get(&member)
            .is_some_and(|since| since.elapsed() < START_ANEW)
    }

    /// Names the key on the wire.
    pub(super) fn reference(&self) -> u64 {
        self.reference
    }

    /// What a host must know of the key.
    pub fn definition(&self) -> KeyDefinition {
        KeyDefinition {
            reference: self.reference,
            key_id: self.key_id.to_string(),
            digest_bits: self.spec.mac_algorithm().digest_bits(),
            cka_id: self.locator.id.clone().unwrap_or_default().into(),
            label: self.locator.label.clone().unwrap_or_default(),
            check_value: self
                .check_value()
                .map(|value| value.0.clone())
                .unwrap_or_default(),
        }
    }
}

const UNPOISONED: &str = "no holder of a key's lock panics";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap();
        Key::new(id, KeySpec::Hmac256, Locator::default(), None)
    }

    fn value(byte: u8) -> CheckValue {
        Bytes::from(vec![byte; 32]).into()
    }

    #[test]
    fn a_key_that_a_host_lacked_is_like_any_other_once_it_has_it() {
        let key = key();
        key.set_absent_from(7);
        assert!(key.is_absent_somewhere() && key.is_absent_from(7) && !key.is_absent_from(8));
        assert_eq!(key.trust(value(1), 0, 7), Verdict::Right);
        assert!(!key.is_absent_somewhere() && !key.is_absent_from(7));
    }

    /// Security: of two tokens that disagree about an unpinned key neither is believed.
    #[test]
    fn tokens_that_disagree_without_a_pin_make_the_key_unavailable_for_good() {
        let key = key();
        assert_eq!(key.trust(value(1), 0, 7), Verdict::Right);
        assert_eq!(key.trust(value(2), 1, 8), Verdict::Wrong);
        assert!(key.refusal().is_some());
        assert_eq!(key.trust(value(1), 0, 9), Verdict::Right);
        assert!(
            key.refusal().is_some(),
            "the first one's word is not enough"
        );
    }

    #[test]
    fn a_closed_key_is_used_by_nobody_new_and_waited_for() {
        let key = key();
        let using = key.begin_use().unwrap();
        key.close();
        assert!(key.begin_use().is_none());
        assert_eq!(key.uses.load(Ordering::SeqCst), 1);
        drop(using);
        assert_eq!(key.uses.load(Ordering::SeqCst), 0);
    }
}
