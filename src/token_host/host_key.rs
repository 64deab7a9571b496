//! A key of the front's as the host knows it: what finds its object, its check value, and its handles
//! once it is open.

use std::sync::{Arc, Mutex, OnceLock, RwLock, atomic::AtomicU64};

use bytes::Bytes;
use cryptoki::{
    object::{Attribute, AttributeType, ObjectHandle},
    session::Session,
};

use super::UNPOISONED;
use crate::{model::MacAlgorithm, proto::host::KeyFacts};

/// A key that the front has defined; one reference means one object for ever.
pub(super) struct HostKey {
    pub(super) reference: u64,
    pub(super) algorithm: MacAlgorithm,
    pub(super) check_message: Vec<u8>,
    pub(super) check_value: OnceLock<Bytes>,
    pub(super) label: Option<String>,
    pub(super) id: Option<Vec<u8>>,
    pub(super) open_key: RwLock<Option<Arc<OpenKey>>>,
    /// The object that made the check value last, in this generation.
    pub(super) proved: Mutex<Option<ObjectHandle>>,
}

/// A key's handles in this generation.
pub(super) struct OpenKey {
    pub(super) object: ObjectHandle,
    pub(super) copy: Option<ObjectHandle>,
    pub(super) proved_in: AtomicU64,
    pub(super) reprove_at: AtomicU64,
}

/// A key's object, not yet proved.
#[derive(Clone, Copy)]
pub(super) struct FoundObject {
    pub(super) object: ObjectHandle,
    pub(super) copy: Option<ObjectHandle>,
}

impl HostKey {
    /// The key's handles, if it is open.
    pub(super) fn open_key(&self) -> Option<Arc<OpenKey>> {
        self.open_key.read().expect(UNPOISONED).clone()
    }

    /// Lets every session use the key from now on.
    pub(super) fn publish(&self, open_key: &Arc<OpenKey>) {
        *self.proved.lock().expect(UNPOISONED) = Some(open_key.object);
        *self.open_key.write().expect(UNPOISONED) = Some(Arc::clone(open_key));
    }

    /// Whether this very object has made the key's check value in this generation.
    pub(super) fn was_proved_by(&self, object: ObjectHandle) -> bool {
        *self.proved.lock().expect(UNPOISONED) == Some(object)
    }

    /// The key's check value, once it was opened or pinned.
    pub(super) fn check_value(&self) -> Bytes {
        self.check_value.get().cloned().unwrap_or_default()
    }

    /// What the token says of the open key's object.
    pub(super) fn open_key_facts(&self, session: &Session, open_key: &OpenKey) -> KeyFacts {
        self.facts(session, open_key.object)
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

    /// The template of a search for it, without the class.
    pub(super) fn template(&self) -> Vec<Attribute> {
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

impl OpenKey {
    /// The handle that MACs are made with.
    pub(super) fn working(&self) -> ObjectHandle {
        self.copy.unwrap_or(self.object)
    }
}
