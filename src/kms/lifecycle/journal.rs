//! The journal of creations: what may be in a token although no key record names it.
//!
//! A creation first commits an *intent*: the random CKA_ID and the label of the object that it will
//! make. The key's record and the end of the intent are one commit. Whoever finds an intent that
//! nobody works on any more *closes* it; a closed intent never becomes a key, and what it names is
//! destroyed wherever it turns up.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    kms::catalogue::stored::StoredLocator,
    model::{AccountId, Date, KeyId, KeySpec, encode_hex, new_uuid},
    store::{Name, Prefix},
    token,
};

/// For how long a creation of another process is left alone. It cannot take so long: a call of the
/// token ends, or its host is killed, after `slow_timeout`.
const LEASE: Duration = Duration::from_secs(10 * 60);

/// `intent/KEYID/CKA_ID`: an object that may be in a token without a key record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Intent {
    pub(super) key_id: KeyId,
    pub(super) account: AccountId,
    pub(super) spec: KeySpec,
    pub(super) locator: StoredLocator,
    /// The process that works on it.
    pub(super) owner: String,
    /// Until then nobody else touches it.
    pub(super) lease: Date,
    pub(super) created: Date,
    /// Since when nobody works on it: no key can come of it any more.
    pub(super) closed: Option<Date>,
}

impl Intent {
    /// The intent to make a key in a token, under a CKA_ID of its own.
    pub(super) fn new(
        journal: &Journal,
        key_id: KeyId,
        account: AccountId,
        spec: KeySpec,
        token: String,
    ) -> Self {
        let created = Date::now();
        let label = format!("hsmac:{key_id}");
        Self {
            key_id,
            account,
            spec,
            locator: StoredLocator {
                token,
                // Security: 122 random bits that nobody else was given. They alone tell an orphan
                // from everybody's keys, so they are never derived from anything.
                cka_id: Some(new_uuid().as_bytes().to_vec()),
                label: Some(label),
            },
            owner: journal.instance.clone(),
            lease: created.plus(LEASE),
            created,
            closed: None,
        }
    }

    /// Its record's name. A key ID may be tried again while what an earlier try left is searched.
    pub(super) fn name(&self) -> Name {
        let id = encode_hex(self.locator.cka_id.as_deref().unwrap_or_default());
        Name::new(&format!("intent/{}/{id}", self.key_id))
            .expect("key IDs and hex digits are visible ASCII, and short")
    }

    /// The object as its token knows it; nobody has seen its check value.
    pub(super) fn token_key(&self) -> Arc<token::TokenKey> {
        let locator = token::ObjectLocator {
            id: self.locator.cka_id.clone(),
            label: self.locator.label.clone(),
        };
        Arc::new(token::TokenKey::new(
            self.key_id.clone(),
            self.spec,
            locator,
            None,
        ))
    }
}

pub(super) fn all_intents() -> Prefix {
    Prefix::new("intent/").expect("it ends with a slash")
}

/// The creations that this process works on.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) instance: String,
    in_progress: Mutex<HashSet<KeyId>>,
    /// There may be an intent to close.
    pub(super) wake: Notify,
}

impl Journal {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            instance: new_uuid().to_string(),
            in_progress: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Works on a creation until the guard is dropped; then the reaper looks at what is left of it.
    pub(super) fn begin(self: &Arc<Self>, key_id: &KeyId) -> CreationGuard {
        self.in_progress().insert(key_id.clone());
        CreationGuard {
            journal: Arc::clone(self),
            key_id: key_id.clone(),
        }
    }

    pub(super) fn is_in_progress(&self, key_id: &KeyId) -> bool {
        self.in_progress().contains(key_id)
    }

    fn in_progress(&self) -> MutexGuard<'_, HashSet<KeyId>> {
        self.in_progress
            .lock()
            .expect("no holder of this lock panics")
    }
}

/// A creation that this process works on.
pub(super) struct CreationGuard {
    journal: Arc<Journal>,
    key_id: KeyId,
}

impl Drop for CreationGuard {
    fn drop(&mut self) {
        self.journal.in_progress().remove(&self.key_id);
        self.journal.wake.notify_one();
    }
}
