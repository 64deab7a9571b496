//! A key as the front knows it: how to find its object and how to know that it is the right one.

use std::{
    fmt,
    str::FromStr,
    sync::{
        OnceLock, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::Deserialize;
use tracing::{error, info, warn};

use crate::{
    model::{KeyId, KeySpec},
    proto::host::KeyDefinition,
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

/// A key of a token. One `Key` means one object for ever: a changed locator is a new `Key`.
#[derive(Debug)]
pub struct Key {
    reference: u64,
    key_id: KeyId,
    spec: KeySpec,
    locator: Locator,
    pinned: bool,
    check_value: OnceLock<CheckValue>,
    trouble: RwLock<Option<Trouble>>,
    /// The fast way to know that there is no trouble.
    troubled: AtomicBool,
    gone: AtomicBool,
}

/// Why a key cannot serve, and since when that is known.
#[derive(Debug)]
struct Trouble {
    reason: String,
    since: Instant,
}

/// How long a key that cannot serve is refused before the token is asked again: whoever mends the
/// object need not restart hsmac.
const ASK_AGAIN: Duration = Duration::from_secs(10);

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
        let key = Self {
            reference: NEXT.fetch_add(1, Ordering::Relaxed),
            key_id,
            spec,
            locator,
            pinned,
            check_value: OnceLock::new(),
            trouble: RwLock::new(None),
            troubled: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        };
        if let Some(value) = check_value {
            key.check_value
                .set(value)
                .expect("a new key has no check value yet");
        }
        key
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

    /// Whether the configuration names the check value.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// The check value: the pinned one, or the first that a host reported.
    pub fn check_value(&self) -> Option<&CheckValue> {
        self.check_value.get()
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
            .filter(|trouble| trouble.since.elapsed() < ASK_AGAIN);
        standing.map(|trouble| trouble.reason.clone())
    }

    /// The key cannot serve. Logged once for each reason, not once for each call.
    pub(super) fn set_trouble(&self, reason: String) {
        let mut trouble = self.trouble.write().expect(UNPOISONED);
        if trouble
            .as_ref()
            .is_none_or(|before| before.reason != reason)
        {
            error!(key_id = %self.key_id, %reason, "the key is unavailable");
        }
        *trouble = Some(Trouble {
            reason,
            since: Instant::now(),
        });
        self.troubled.store(true, Ordering::Release);
    }

    /// A host found the object, and it makes this check value. False if it is another key's.
    pub(super) fn trust(&self, made: CheckValue) -> bool {
        // Security: the first check value stands, whoever reports another one later.
        let trusted = self.check_value.get_or_init(|| {
            warn!(
                key_id = %self.key_id, check_value = %made,
                "no check_value is set for this key: the first one is trusted until hsmac ends"
            );
            made.clone()
        });
        if *trusted != made {
            self.set_trouble("its check value differs: the object is another key".into());
            return false;
        }
        self.gone.store(false, Ordering::Relaxed);
        if self.troubled.swap(false, Ordering::AcqRel) {
            *self.trouble.write().expect(UNPOISONED) = None;
            info!(key_id = %self.key_id, "the key serves again");
        }
        true
    }

    /// A fresh generation found no object.
    pub(super) fn set_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Whether a fresh generation found no object, and none has found one since.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
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
