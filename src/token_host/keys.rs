//! The keys that this generation has opened: found once, proved, and used by handle ever after.
//!
//! A handle is a number that the module may give another meaning: at C_Initialize (the generation
//! ends with the process, so no handle survives it) and, on some modules, at a search, a creation or
//! a destruction. So every such call moves the *epoch*, and a key whose proof is of an older epoch
//! is proved again before its next MAC counts.

use std::{
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cryptoki::session::Session;
use rustc_hash::FxHashMap;

use super::{
    UNPOISONED,
    error::{Class, HostError},
    host_key::{FoundObject, HostKey, OpenKey},
    module::Module,
    raw::MAX_MAC,
    search::{find, verify_check_value, working_copy},
};
use crate::{
    host_ipc::{monotonic, nanoseconds},
    model::{KeyId, MacAlgorithm, key_check_message},
    proto::host::KeyDefinition,
};

/// Whether keys are worked with through session-object copies.
#[derive(Clone, Copy, Debug)]
pub(super) enum WorkingCopies {
    /// The token object itself is used.
    None,
    /// A copy is used, and proved against its token object so often.
    Reproved(Duration),
}

/// What the front has defined and what of it is open.
pub(super) struct Keys {
    known: RwLock<FxHashMap<u64, Arc<HostKey>>>,
    /// Odd while a search, creation or destruction is on its way.
    epoch: AtomicU64,
    copies: WorkingCopies,
}

impl Keys {
    pub(super) fn new(copies: WorkingCopies) -> Self {
        Self {
            known: RwLock::default(),
            epoch: AtomicU64::new(0),
            copies,
        }
    }

    /// Learns what a reference means.
    ///
    /// # Errors
    /// The definition breaks the wire's rules.
    pub(super) fn define(&self, definition: KeyDefinition) -> Result<(), HostError> {
        let broken =
            |what: &str| HostError::new(Class::Bug, format!("a key definition has {what}"));
        let key_id: KeyId = definition.key_id.parse().map_err(|_| broken("no key ID"))?;
        let key = HostKey {
            reference: definition.reference,
            algorithm: MacAlgorithm::from_digest_bits(definition.digest_bits)
                .ok_or_else(|| broken("no algorithm"))?,
            check_message: key_check_message(&key_id),
            check_value: OnceLock::new(),
            label: Some(definition.label).filter(|label| !label.is_empty()),
            id: Some(definition.cka_id.to_vec()).filter(|id| !id.is_empty()),
            open_key: RwLock::new(None),
            proved: Mutex::new(None),
        };
        if key.label.is_none() && key.id.is_none() {
            return Err(broken("neither label nor CKA_ID"));
        }
        if !definition.check_value.is_empty() {
            let _ = key.check_value.set(definition.check_value);
        }
        // A reference never changes its meaning: a second definition is the first one again.
        let mut known = self.known.write().expect(UNPOISONED);
        known.entry(key.reference).or_insert_with(|| Arc::new(key));
        Ok(())
    }

    /// The key behind a reference.
    pub(super) fn key(&self, reference: u64) -> Option<Arc<HostKey>> {
        self.known
            .read()
            .expect(UNPOISONED)
            .get(&reference)
            .cloned()
    }

    /// Drops a key and its handles: no job that is taken later finds it. Gives the key, whose copy is
    /// still to be destroyed by [`Keys::close`].
    pub(super) fn forget(&self, reference: u64) -> Option<Arc<HostKey>> {
        self.known.write().expect(UNPOISONED).remove(&reference)
    }

    /// Some open key other than this one, to ask the token a question that it should answer.
    pub(super) fn another_open_key(
        &self,
        but: Option<&HostKey>,
    ) -> Option<(Arc<HostKey>, Arc<OpenKey>)> {
        let known = self.known.read().expect(UNPOISONED);
        let others = known
            .values()
            .filter(|key| but.is_none_or(|but| but.reference != key.reference));
        others
            .filter_map(|key| Some((Arc::clone(key), key.open_key()?)))
            .next()
    }

    /// Makes a MAC with an open key; `Handle` means: close it, open it again, and try once more.
    pub(super) fn mac(
        &self,
        module: &Module,
        session: &Session,
        key: &HostKey,
        open_key: &OpenKey,
        message: &[u8],
        mac: &mut [u8; MAX_MAC],
    ) -> Result<usize, HostError> {
        let before = self.epoch.load(Ordering::SeqCst);
        let settled = before.is_multiple_of(2);
        if let WorkingCopies::Reproved(interval) = self.copies
            && open_key.copy.is_some()
            && monotonic() >= open_key.reprove_at.load(Ordering::Relaxed)
        {
            // A copy outlives its object: somebody may have destroyed or replaced that.
            verify_check_value(module, session, key, open_key.object).map_err(as_stale_handle)?;
            open_key
                .reprove_at
                .store(monotonic() + nanoseconds(interval), Ordering::Relaxed);
        }
        if settled && open_key.proved_in.load(Ordering::SeqCst) != before {
            verify_check_value(module, session, key, open_key.working())
                .map_err(as_stale_handle)?;
            open_key.proved_in.store(before, Ordering::SeqCst);
        }
        let length = module
            .sign(session, key.algorithm, open_key.working(), message, mac)
            .map_err(as_stale_handle)?;
        if !settled || self.epoch.load(Ordering::SeqCst) != before {
            // A search ran meanwhile: the handle may have changed its meaning under this MAC.
            verify_check_value(module, session, key, open_key.working())
                .map_err(as_stale_handle)?;
        }
        Ok(length)
    }

    /// Finds a key's object on the management session. It serves once it is proved and published.
    ///
    /// # Errors
    /// `Key` if its object cannot serve; `Handle` if there is none although the token is well.
    pub(super) fn find(
        &self,
        module: &Module,
        session: &Session,
        key: &HostKey,
    ) -> Result<FoundObject, HostError> {
        let _changing = self.handles_may_change();
        let object = find(module, session, key)?;
        let copy = match self.copies {
            WorkingCopies::None => None,
            WorkingCopies::Reproved(_) => working_copy(session, object),
        };
        Ok(FoundObject { object, copy })
    }

    /// Proves what was found.
    ///
    /// # Errors
    /// `OtherKey` if it is another key; `Generation` if it is the object that was proved before; what the
    /// token says if it cannot sign with it.
    pub(super) fn open(
        &self,
        module: &Module,
        session: &Session,
        key: &HostKey,
        found: FoundObject,
    ) -> Result<Arc<OpenKey>, HostError> {
        let FoundObject { object, copy } = found;
        let epoch = self.epoch.load(Ordering::SeqCst);
        verify_check_value(module, session, key, object).map_err(|error| {
            // Security: whoever replaces a key's object makes another object. A token that shows the
            // same one, and makes another check value with it than before, contradicts itself: what it
            // says of this key, and the MACs of all others, are worth nothing in this generation.
            if error.class == Class::OtherKey && key.was_proved_by(object) {
                error.judged(Class::Generation).about(
                    "the token contradicts itself, since this object was the right one before",
                )
            } else {
                error
            }
        })?;
        // A copy that is not the same key, or that the token will not sign with, is not used.
        let copy = copy.filter(|copy| verify_check_value(module, session, key, *copy).is_ok());
        let reprove_at = match self.copies {
            WorkingCopies::None => u64::MAX,
            WorkingCopies::Reproved(interval) => monotonic() + nanoseconds(interval),
        };
        Ok(Arc::new(OpenKey {
            object,
            copy,
            proved_in: AtomicU64::new(epoch),
            reprove_at: AtomicU64::new(reprove_at),
        }))
    }

    /// Makes the check value of a key once more.
    ///
    /// # Errors
    /// As [`Keys::mac`].
    pub(super) fn verify_check_value(
        &self,
        module: &Module,
        session: &Session,
        key: &HostKey,
        open_key: &OpenKey,
    ) -> Result<(), HostError> {
        verify_check_value(module, session, key, open_key.working()).map_err(as_stale_handle)
    }

    /// Drops a key's handles; the next use opens it again.
    pub(super) fn close(&self, session: &Session, key: &HostKey) {
        let open_key = key.open_key.write().expect(UNPOISONED).take();
        if let Some(copy) = open_key.and_then(|open_key| open_key.copy) {
            let _changing = self.handles_may_change();
            let _ = session.destroy_object(copy);
        }
    }

    /// Marks a search, creation or destruction: handles may change their meaning in it.
    pub(super) fn handles_may_change(&self) -> impl Drop + '_ {
        struct HandlesMayChange<'a>(&'a AtomicU64);
        impl Drop for HandlesMayChange<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
        HandlesMayChange(&self.epoch)
    }
}

/// A key that was proved and now cannot: its handle, its object or the login has changed under it.
fn as_stale_handle(error: HostError) -> HostError {
    if matches!(error.class, Class::Key | Class::OtherKey) {
        error.judged(Class::Handle)
    } else {
        error
    }
}
