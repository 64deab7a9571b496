//! A key as the front knows it: how to find its object, how to know that it is the right one, and who
//! uses it now.
//!
//! Hides: which host or token lacks the object, and since when. Promises: a closed key is used by no
//! call that begins later; a check value that differs from the first or pinned one is never accepted.
//! Does not: hold a handle (that is the host's) or know who may use the key (that is `kms`).

mod availability;
mod check_value;
mod fence;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use check_value::CheckValue;
pub(in crate::token) use check_value::Verdict;
pub(in crate::token) use fence::Closing;
pub use fence::GrantFence;

use self::{availability::Availability, check_value::TrustedCheckValue, fence::Fence};
use crate::{
    model::{KeyId, KeySpec, encode_hex},
    proto::host::KeyDefinition,
};

/// What finds a key's object in its token; at least one of the two is there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ObjectLocator {
    /// CKA_ID
    pub id: Option<Vec<u8>>,
    /// CKA_LABEL
    pub label: Option<String>,
}

impl fmt::Display for ObjectLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(label) = &self.label {
            parts.push(format!("CKA_LABEL {label:?}"));
        }
        if let Some(id) = &self.id {
            parts.push(format!("CKA_ID {}", encode_hex(id)));
        }
        f.write_str(&parts.join(" and "))
    }
}

/// A key of a group of tokens, as those know it who were admitted by one policy. One `TokenKey` means one
/// object for ever: a changed locator is a new `TokenKey`, and so is a key that was forgotten and serves
/// again. Under another policy it is a new one too, of the same object, and so it is for whom only a grant
/// let in.
#[derive(Debug)]
pub struct TokenKey {
    object: Arc<KeyObject>,
    /// Shared by those whom the same policy, or a grant beside it, let in.
    admission: Arc<Fence>,
    grant: Option<GrantFence>,
}

/// A key's object, whoever may use it.
#[derive(Debug)]
struct KeyObject {
    reference: u64,
    key_id: KeyId,
    spec: KeySpec,
    locator: ObjectLocator,
    trusted: TrustedCheckValue,
    availability: Availability,
    fence: Fence,
}

impl TokenKey {
    /// A key that is found by `locator` and proved by `check_value`. Without one the first value
    /// that a host reports is trusted until the process ends.
    pub fn new(
        key_id: KeyId,
        spec: KeySpec,
        locator: ObjectLocator,
        check_value: Option<CheckValue>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let object = KeyObject {
            reference: NEXT.fetch_add(1, Ordering::Relaxed),
            key_id,
            spec,
            locator,
            trusted: TrustedCheckValue::new(check_value),
            availability: Availability::default(),
            fence: Fence::default(),
        };
        Self {
            object: Arc::new(object),
            admission: Arc::default(),
            grant: None,
        }
    }

    /// The key for those whom another policy admits: hosts keep its handle.
    pub fn admitted_anew(&self) -> Self {
        Self {
            object: Arc::clone(&self.object),
            admission: Arc::default(),
            grant: None,
        }
    }

    /// The key for whom nothing but a grant lets in: closed with the grant, and with this key too.
    pub fn under_grant(&self, grant: &GrantFence) -> Self {
        Self {
            object: Arc::clone(&self.object),
            admission: Arc::clone(&self.admission),
            grant: Some(grant.clone()),
        }
    }

    /// Whether both mean the same object.
    pub fn is_same_object(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.object, &other.object)
    }

    /// Another reference to the same object, of which nothing is known yet but its check value.
    pub(in crate::token) fn without_history(&self) -> Self {
        Self::new(
            self.object.key_id.clone(),
            self.object.spec,
            self.object.locator.clone(),
            self.check_value().cloned(),
        )
    }

    /// hsmac's ID of the key.
    pub fn key_id(&self) -> &KeyId {
        &self.object.key_id
    }

    /// Its length and algorithm.
    pub fn spec(&self) -> KeySpec {
        self.object.spec
    }

    /// What finds its object.
    pub fn locator(&self) -> &ObjectLocator {
        &self.object.locator
    }

    /// Names the key on the host's socket.
    pub(in crate::token) fn reference(&self) -> u64 {
        self.object.reference
    }

    /// What a host must know of the key.
    pub fn definition(&self) -> KeyDefinition {
        KeyDefinition {
            reference: self.object.reference,
            key_id: self.object.key_id.to_string(),
            digest_bits: self.object.spec.mac_algorithm().digest_bits(),
            cka_id: self.object.locator.id.clone().unwrap_or_default().into(),
            label: self.object.locator.label.clone().unwrap_or_default(),
            check_value: self
                .check_value()
                .map(|value| value.bytes().clone())
                .unwrap_or_default(),
        }
    }

    /// Whether the token may be asked for it now.
    pub(in crate::token) fn is_usable(&self) -> bool {
        !self.is_forgotten() && self.refusal().is_none()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// A key of which nobody has seen a check value.
    pub(super) fn key() -> TokenKey {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap();
        TokenKey::new(id, KeySpec::Hmac256, ObjectLocator::default(), None)
    }

    pub(super) fn value(byte: u8) -> CheckValue {
        Bytes::from(vec![byte; 32]).into()
    }
}
