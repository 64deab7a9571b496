//! Making and destroying key objects, on a read-write session of their own beside the login session.
//!
//! What a creation leaves in the token is either a proved key that keeps the secret inside, or
//! nothing; whatever else may have come of it is said to be unsettled, and the front looks for it
//! again. A destruction proves the very handle that it destroys.

use std::{iter, sync::atomic::Ordering};

use cryptoki::{
    object::{Attribute, ObjectHandle},
    session::Session,
};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    error::{Class, HostError},
    host_key::HostKey,
    keys::Keys,
    module::Module,
    search::{find, first_two, verify_check_value},
    templates::{AcceptedTemplates, GENERATED, GIVEN, KeyTemplate},
};
use crate::proto::host::KeyFacts;

/// The shortest CKA_ID that may stand for an object that has no check value, in bytes.
const RANDOM_ID: usize = 16;

/// What makes and destroys objects.
pub(super) struct Objects<'a> {
    pub(super) module: &'a Module,
    pub(super) keys: &'a Keys,
    pub(super) templates: &'a AcceptedTemplates,
}

/// Where a new key's secret comes from.
pub(super) enum Material {
    /// The token makes it (C_GenerateKey).
    Generated,
    /// It is given (C_CreateObject).
    Given(Zeroizing<Vec<u8>>),
}

/// How an object shows that it is the one to destroy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proof {
    /// It makes the key's check value.
    CheckValue,
    /// Its CKA_ID and label: an orphan, whose check value nobody has seen.
    Name,
}

/// Why nothing was made or destroyed; or, if `unsettled`, it may have been all the same.
#[derive(Debug)]
pub(super) struct ChangeFailure {
    pub(super) error: HostError,
    pub(super) unsettled: bool,
}

impl From<HostError> for ChangeFailure {
    fn from(error: HostError) -> Self {
        Self {
            error,
            unsettled: false,
        }
    }
}

impl Objects<'_> {
    /// Makes a key under its definition's CKA_ID and label, and proves it.
    ///
    /// # Errors
    /// `Key` if the CKA_ID is taken; `Unsupported` if the token makes no such key.
    pub(super) fn create(
        &self,
        key: &HostKey,
        material: &Material,
    ) -> Result<KeyFacts, ChangeFailure> {
        let session = self.module.open_rw_session()?;
        self.refuse_taken(&session, key)?;
        let (templates, last_taken) = match material {
            Material::Generated => (&GENERATED[..], &self.templates.generated),
            Material::Given(_) => (&GIVEN[..], &self.templates.given),
        };
        let first = last_taken.load(Ordering::Relaxed);
        let others = (0..templates.len()).filter(|at| *at != first);
        let mut refused = Vec::new();
        for at in iter::once(first).chain(others) {
            match self.attempt(&session, key, templates[at], material) {
                Ok(facts) => {
                    last_taken.store(at, Ordering::Relaxed);
                    return Ok(facts);
                }
                Err(failure) if failure.error.class == Class::Template => {
                    let words = failure.error.to_string();
                    if !refused.contains(&words) {
                        refused.push(words);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(HostError::new(
            Class::Unsupported,
            format!(
                "the token makes no key for {} in any of {} ways: {}",
                key.algorithm(),
                templates.len(),
                refused.join("; ")
            ),
        )
        .into())
    }

    /// Destroys the key's object; true if there was none, although the token is well.
    ///
    /// # Errors
    /// `Key` if the object is another one than it should be, or one of several: nothing is destroyed.
    pub(super) fn destroy(
        &self,
        login_session: &Session,
        key: &HostKey,
        proof: Proof,
    ) -> Result<bool, ChangeFailure> {
        match proof {
            Proof::CheckValue if key.check_value().is_empty() => {
                let reason = "an object without a known check value is not destroyed";
                return Err(HostError::new(Class::Key, reason).into());
            }
            // Security: an orphan is known by a CKA_ID of 16 random bytes that hsmac drew for it
            // alone, together with the label that it wrote; nothing else in a token has both.
            Proof::Name
                if key.id().is_none_or(|id| id.len() < RANDOM_ID) || key.label().is_none() =>
            {
                let reason = "an orphan is destroyed by a CKA_ID of 16 bytes and its label only";
                return Err(HostError::new(Class::Key, reason).into());
            }
            Proof::CheckValue | Proof::Name => {}
        }
        let session = self.module.open_rw_session()?;
        self.keys.close(login_session, key);
        let Some(object) = self.look(&session, key)? else {
            return Ok(true);
        };
        if proof == Proof::CheckValue {
            // Security: the check value is proved on the very handle that is destroyed next, and
            // no search runs in between.
            verify_check_value(self.module, &session, key, object)?;
        }
        {
            let _changing = self.keys.handles_may_change();
            if let Err(error) = session.destroy_object(object) {
                let error = HostError::from(error).about(&key.name());
                let refused = matches!(error.class, Class::Key | Class::Unsupported);
                return Err(ChangeFailure {
                    error,
                    unsettled: !refused,
                });
            }
        }
        match self.look(&session, key) {
            Ok(None) => Ok(false),
            Ok(Some(_)) => Err(ChangeFailure {
                error: HostError::new(
                    Class::Session,
                    format!(
                        "C_DestroyObject said CKR_OK, and the object with {} is still there",
                        key.name()
                    ),
                ),
                unsettled: true,
            }),
            Err(error) => Err(ChangeFailure {
                error,
                unsettled: true,
            }),
        }
    }

    /// One creation with one template. What was made and cannot serve is gone when this returns, or
    /// the failure is unsettled.
    fn attempt(
        &self,
        session: &Session,
        key: &HostKey,
        key_template: KeyTemplate,
        material: &Material,
    ) -> Result<KeyFacts, ChangeFailure> {
        let mut template = key_template.attributes(key.algorithm(), key.id(), key.label());
        let made = {
            let _changing = self.keys.handles_may_change();
            match material {
                Material::Generated => {
                    if key_template.length {
                        let bytes = key.algorithm().mac_len() as u64;
                        template.push(Attribute::ValueLen(bytes.into()));
                    }
                    session.generate_key(&key_template.mechanism.of(key.algorithm()), &template)
                }
                Material::Given(value) => {
                    template.push(Attribute::Value(value.to_vec()));
                    let made = session.create_object(&template);
                    if let Some(Attribute::Value(copy)) = template.last_mut() {
                        copy.zeroize();
                    }
                    made
                }
            }
        };
        let object = made.map_err(|error| {
            let error = HostError::from(error).about(key_template.name());
            let refused = matches!(error.class, Class::Template | Class::Unsupported);
            ChangeFailure {
                error,
                unsettled: !refused,
            }
        })?;
        self.accept(session, key, object).map_err(|error| {
            let _changing = self.keys.handles_may_change();
            let left = session.destroy_object(object);
            let unsettled = left.is_err();
            let mut error = error.about(key_template.name());
            if let Err(left) = left {
                // Nothing else is tried while this one may still be in the token.
                error = HostError::from(left)
                    .judged(Class::Session)
                    .about(&format!("{error}, and the object cannot be destroyed"));
            }
            ChangeFailure { error, unsettled }
        })
    }

    /// A new object serves if a search finds it and nothing else, if it keeps its secret, and if it
    /// makes the same check value twice.
    fn accept(
        &self,
        session: &Session,
        key: &HostKey,
        object: ObjectHandle,
    ) -> Result<KeyFacts, HostError> {
        let found = self.look(session, key)?;
        if found.is_none() {
            return Err(HostError::new(
                Class::Unsupported,
                format!("the token does not find the new object by {}", key.name()),
            ));
        }
        // Security: a key that the token would give away, or show before login, is none of ours.
        let promises = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ];
        for promised in promises {
            let read = session
                .get_attributes(object, &[promised.attribute_type()])
                .unwrap_or_default();
            if read.first() != Some(&promised) {
                return Err(HostError::new(
                    Class::Unsupported,
                    format!("the token did not honour {promised:?}: it says {read:?}"),
                ));
            }
        }
        // A token may make a key that it then does not sign with (nShield with generic secrets):
        // another template may give one that it does.
        verify_check_value(self.module, session, key, object).map_err(|error| {
            if error.class == Class::Key {
                error.judged(Class::Template)
            } else {
                error
            }
        })?;
        verify_check_value(self.module, session, key, object)?;
        Ok(key.facts(session, object))
    }

    /// The key's object, or none although the token is well.
    fn look(&self, session: &Session, key: &HostKey) -> Result<Option<ObjectHandle>, HostError> {
        let _changing = self.keys.handles_may_change();
        match find(self.module, session, key) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.class == Class::Handle => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn refuse_taken(&self, session: &Session, key: &HostKey) -> Result<(), HostError> {
        let Some(id) = key.id() else {
            return Err(HostError::new(Class::Bug, "a new key has no CKA_ID"));
        };
        let _changing = self.keys.handles_may_change();
        let taken = first_two(session, &[Attribute::Token(true), Attribute::Id(id.into())])?;
        if taken.is_empty() {
            return self.module.is_well(session);
        }
        Err(HostError::new(
            Class::Key,
            format!("the token has an object with CKA_ID {id:02x?} already"),
        ))
    }
}
