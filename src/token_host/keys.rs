//! The keys that this generation has opened: found once, proved, and used by handle ever after.
//!
//! A handle is a number that the module may give another meaning: at C_Initialize (the generation
//! ends with the process, so no handle survives it) and, on some modules, at a search, a creation or
//! a destruction. So every such call moves the *epoch*, and a key whose proof is of an older epoch
//! is proved again before its next MAC counts.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cryptoki::{
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use subtle::ConstantTimeEq as _;

use super::{
    faults::{Class, Trouble},
    module::Module,
    raw::MAX_MAC,
};
use crate::{
    model::{KeyId, MacAlgorithm, key_check_message},
    proto::host::{KeyDefinition, KeyFacts},
    wire::{monotonic, nanoseconds},
};

/// Whether keys are worked with through session-object copies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Copies {
    /// The token object itself is used.
    None,
    /// A copy is used, and proved against its token object so often.
    Reproved(Duration),
}

/// What the front has defined and what of it is open.
pub(super) struct Keys {
    known: RwLock<HashMap<u64, Arc<Key>>>,
    /// Odd while a search, creation or destruction is on its way.
    epoch: AtomicU64,
    copies: Copies,
}

/// A key that the front has defined; one reference means one object for ever.
pub(super) struct Key {
    pub(super) reference: u64,
    algorithm: MacAlgorithm,
    check_message: Vec<u8>,
    check_value: OnceLock<Bytes>,
    label: Option<String>,
    id: Option<Vec<u8>>,
    opened: RwLock<Option<Arc<Opened>>>,
}

/// A key's handles in this generation.
pub(super) struct Opened {
    object: ObjectHandle,
    copy: Option<ObjectHandle>,
    proved_in: AtomicU64,
    reprove_at: AtomicU64,
}

/// A key's object, not yet proved.
pub(super) struct Found {
    object: ObjectHandle,
    copy: Option<ObjectHandle>,
}

impl Keys {
    pub(super) fn new(copies: Copies) -> Self {
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
    pub(super) fn define(&self, definition: KeyDefinition) -> Result<(), Trouble> {
        let broken = |what: &str| Trouble::new(Class::Bug, format!("a key definition has {what}"));
        let key_id: KeyId = definition.key_id.parse().map_err(|_| broken("no key ID"))?;
        let key = Key {
            reference: definition.reference,
            algorithm: MacAlgorithm::from_digest_bits(definition.digest_bits)
                .ok_or_else(|| broken("no algorithm"))?,
            check_message: key_check_message(&key_id),
            check_value: OnceLock::new(),
            label: Some(definition.label).filter(|label| !label.is_empty()),
            id: Some(definition.cka_id.to_vec()).filter(|id| !id.is_empty()),
            opened: RwLock::new(None),
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
    pub(super) fn key(&self, reference: u64) -> Option<Arc<Key>> {
        self.known
            .read()
            .expect(UNPOISONED)
            .get(&reference)
            .cloned()
    }

    /// Drops a key, its handles and its copy; true if it was known.
    pub(super) fn forget(&self, session: &Session, reference: u64) -> bool {
        let Some(key) = self.known.write().expect(UNPOISONED).remove(&reference) else {
            return false;
        };
        self.close(session, &key);
        true
    }

    /// Makes a MAC with an opened key; `Handle` means: close it, open it again, and try once more.
    pub(super) fn mac(
        &self,
        module: &Module,
        session: &Session,
        key: &Key,
        opened: &Opened,
        message: &[u8],
        mac: &mut [u8; MAX_MAC],
    ) -> Result<usize, Trouble> {
        let before = self.epoch.load(Ordering::SeqCst);
        let settled = before.is_multiple_of(2);
        if let Copies::Reproved(interval) = self.copies
            && opened.copy.is_some()
            && monotonic() >= opened.reprove_at.load(Ordering::Relaxed)
        {
            // A copy outlives its object: somebody may have destroyed or replaced that.
            prove(module, session, key, opened.object).map_err(stale)?;
            opened
                .reprove_at
                .store(monotonic() + nanoseconds(interval), Ordering::Relaxed);
        }
        if settled && opened.proved_in.load(Ordering::SeqCst) != before {
            prove(module, session, key, opened.working()).map_err(stale)?;
            opened.proved_in.store(before, Ordering::SeqCst);
        }
        let length = module
            .sign(session, key.algorithm, opened.working(), message, mac)
            .map_err(stale)?;
        if !settled || self.epoch.load(Ordering::SeqCst) != before {
            // A search ran meanwhile: the handle may have changed its meaning under this MAC.
            prove(module, session, key, opened.working()).map_err(stale)?;
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
        key: &Key,
    ) -> Result<Found, Trouble> {
        let _moving = self.moving();
        let object = find(module, session, key)?;
        let copy = match self.copies {
            Copies::None => None,
            Copies::Reproved(_) => working_copy(session, object),
        };
        Ok(Found { object, copy })
    }

    /// Proves what was found.
    ///
    /// # Errors
    /// `OtherKey` if it is another key; what the token says if it cannot sign with it.
    pub(super) fn open(
        &self,
        module: &Module,
        session: &Session,
        key: &Key,
        found: Found,
    ) -> Result<Arc<Opened>, Trouble> {
        let Found { object, copy } = found;
        let epoch = self.epoch.load(Ordering::SeqCst);
        prove(module, session, key, object)?;
        // A copy that is not the same key, or that the token will not sign with, is not used.
        let copy = copy.filter(|copy| prove(module, session, key, *copy).is_ok());
        let reprove_at = match self.copies {
            Copies::None => u64::MAX,
            Copies::Reproved(interval) => monotonic() + nanoseconds(interval),
        };
        Ok(Arc::new(Opened {
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
    pub(super) fn prove(
        &self,
        module: &Module,
        session: &Session,
        key: &Key,
        opened: &Opened,
    ) -> Result<(), Trouble> {
        prove(module, session, key, opened.working()).map_err(stale)
    }

    /// Drops a key's handles; the next use opens it again.
    pub(super) fn close(&self, session: &Session, key: &Key) {
        let opened = key.opened.write().expect(UNPOISONED).take();
        if let Some(copy) = opened.and_then(|opened| opened.copy) {
            let _moving = self.moving();
            let _ = session.destroy_object(copy);
        }
    }

    /// Marks a search, creation or destruction: handles may change their meaning in it.
    pub(super) fn moving(&self) -> impl Drop + '_ {
        struct Moving<'a>(&'a AtomicU64);
        impl Drop for Moving<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
        Moving(&self.epoch)
    }
}

impl Key {
    /// The key's handles, if it is open.
    pub(super) fn opened(&self) -> Option<Arc<Opened>> {
        self.opened.read().expect(UNPOISONED).clone()
    }

    /// Lets every session use the key from now on.
    pub(super) fn publish(&self, opened: &Arc<Opened>) {
        *self.opened.write().expect(UNPOISONED) = Some(Arc::clone(opened));
    }

    /// The key's check value, once it was opened or pinned.
    pub(super) fn check_value(&self) -> Bytes {
        self.check_value.get().cloned().unwrap_or_default()
    }

    /// What the token says of the open key's object.
    pub(super) fn opened_facts(&self, session: &Session, opened: &Opened) -> KeyFacts {
        self.facts(session, opened.object)
    }

    /// What the token says of an object; what it does not say counts as the weaker answer.
    pub(super) fn facts(&self, session: &Session, object: ObjectHandle) -> KeyFacts {
        let wanted = [
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Local,
        ];
        let mut facts = KeyFacts {
            extractable: true,
            check_value: self.check_value(),
            ..KeyFacts::default()
        };
        // One by one: a module may refuse one attribute and with it the whole answer.
        for attribute in wanted {
            match session
                .get_attributes(object, &[attribute])
                .unwrap_or_default()
                .first()
            {
                Some(Attribute::Sensitive(is)) => facts.sensitive = *is,
                Some(Attribute::Extractable(is)) => facts.extractable = *is,
                Some(Attribute::NeverExtractable(is)) => facts.never_extractable = *is,
                Some(Attribute::Local(is)) => facts.local = *is,
                Some(_) | None => {}
            }
        }
        facts
    }

    /// CKA_ID, where the definition has one.
    pub(super) fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    /// CKA_LABEL, where the definition has one.
    pub(super) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The one algorithm of the key.
    pub(super) fn algorithm(&self) -> MacAlgorithm {
        self.algorithm
    }

    /// What finds it, in words.
    pub(super) fn name(&self) -> String {
        let label = self
            .label
            .as_ref()
            .map(|label| format!("CKA_LABEL {label:?}"));
        let id = self.id.as_ref().map(|id| format!("CKA_ID {id:02x?}"));
        label
            .into_iter()
            .chain(id)
            .collect::<Vec<_>>()
            .join(" and ")
    }

    fn template(&self) -> Vec<Attribute> {
        let mut template = vec![Attribute::Token(true)];
        template.extend(
            self.label
                .iter()
                .map(|label| Attribute::Label(label.clone().into_bytes())),
        );
        template.extend(self.id.iter().cloned().map(Attribute::Id));
        template
    }
}

impl Opened {
    fn working(&self) -> ObjectHandle {
        self.copy.unwrap_or(self.object)
    }
}

const UNPOISONED: &str = "no holder of a lock on keys panics";

/// A key that was proved and now cannot: its handle, its object or the login has changed under it.
fn stale(trouble: Trouble) -> Trouble {
    if matches!(trouble.class, Class::Key | Class::OtherKey) {
        trouble.judged(Class::Handle)
    } else {
        trouble
    }
}

/// Exactly one secret key of that label and CKA_ID, in the token.
pub(super) fn find(module: &Module, session: &Session, key: &Key) -> Result<ObjectHandle, Trouble> {
    let mut template = key.template();
    // By class, never by key type: modules disagree about the type of an HMAC key.
    template.push(Attribute::Class(ObjectClass::SECRET_KEY));
    let found = first_two(session, &template)?;
    match found[..] {
        [object] => {
            refuse_cipher_key(session, key, object)?;
            Ok(object)
        }
        [] => {
            module.is_well(session)?;
            if let Some(other) = first_two(session, &key.template())?.first() {
                let class = session.get_attributes(*other, &[AttributeType::Class])?;
                return Err(Trouble::new(
                    Class::Key,
                    format!(
                        "the object with {} is no secret key but {class:?}",
                        key.name()
                    ),
                ));
            }
            Err(Trouble::new(
                Class::Handle,
                format!("the token has no object with {}", key.name()),
            ))
        }
        _ => Err(Trouble::new(
            Class::Key,
            format!("several objects have {}; name the CKA_ID too", key.name()),
        )),
    }
}

pub(super) fn first_two(
    session: &Session,
    template: &[Attribute],
) -> Result<Vec<ObjectHandle>, Trouble> {
    const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");
    let found: Result<Vec<_>, _> = session
        .iter_objects_with_cache_size(template, TWO)?
        .take(2)
        .collect();
    Ok(found?)
}

/// NSS would make HMACs with an AES key; a key for two purposes is for none.
fn refuse_cipher_key(session: &Session, key: &Key, object: ObjectHandle) -> Result<(), Trouble> {
    let types = session
        .get_attributes(object, &[AttributeType::KeyType])
        .unwrap_or_default();
    let cipher = [KeyType::AES, KeyType::DES, KeyType::DES2, KeyType::DES3];
    match types.first() {
        Some(Attribute::KeyType(is)) if cipher.contains(is) => Err(Trouble::new(
            Class::Key,
            format!(
                "the object with {} is a cipher key ({is}), not an HMAC key",
                key.name()
            ),
        )),
        Some(_) | None => Ok(()),
    }
}

/// A session-object copy without name, or `None` where the token refuses.
fn working_copy(session: &Session, object: ObjectHandle) -> Option<ObjectHandle> {
    let nameless = [
        Attribute::Token(false),
        Attribute::Label(Vec::new()),
        Attribute::Id(Vec::new()),
    ];
    session.copy_object(object, &nameless).ok()
}

/// Makes the key check value with a handle and compares it with the one this key must have.
pub(super) fn prove(
    module: &Module,
    session: &Session,
    key: &Key,
    handle: ObjectHandle,
) -> Result<(), Trouble> {
    let mut mac = [0; MAX_MAC];
    let length = module
        .sign(session, key.algorithm, handle, &key.check_message, &mut mac)
        .map_err(|trouble| {
            trouble.about(&format!(
                "the key with {} cannot do {}",
                key.name(),
                key.algorithm
            ))
        })?;
    let made = &mac[..length];
    let wanted = key.check_value.get_or_init(|| Bytes::copy_from_slice(made));
    // Security: a handle serves only while it makes the check value of the key it stands for.
    if bool::from(wanted.ct_eq(made)) {
        return Ok(());
    }
    Err(Trouble::new(
        Class::OtherKey,
        format!(
            "the object with {} is another key: its check value differs",
            key.name()
        ),
    ))
}
