//! Making and destroying key objects, on a read-write session of their own beside the keeper.
//!
//! What a creation leaves in the token is either a proved key that keeps the secret inside, or
//! nothing; whatever else may have come of it is said to be unsettled, and the front looks for it
//! again. A destruction proves the very handle that it destroys.

use std::{
    iter,
    sync::atomic::{AtomicUsize, Ordering},
};

use cryptoki::{
    mechanism::{Mechanism, MechanismType, vendor_defined::VendorDefinedMechanism},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use cryptoki_sys::{
    CK_KEY_TYPE, CK_MECHANISM_TYPE, CKA_KEY_TYPE, CKK_SHA224_HMAC, CKK_SHA256_HMAC,
    CKK_SHA384_HMAC, CKK_SHA512_HMAC,
};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    faults::{Class, Trouble},
    keys::{Key, Keys, find, first_two, prove},
    module::Module,
};
use crate::{model::MacAlgorithm, proto::host::KeyFacts};

/// The shortest CKA_ID that may stand for an object that has no check value, in bytes.
const RANDOM_ID: usize = 16;

/// What makes and destroys objects.
pub(super) struct Objects<'a> {
    pub(super) module: &'a Module,
    pub(super) keys: &'a Keys,
    pub(super) templates: &'a Templates,
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
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) unsettled: bool,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self {
            trouble,
            unsettled: false,
        }
    }
}

/// The template that this token took last, of those below.
#[derive(Debug, Default)]
pub(super) struct Templates {
    generated: AtomicUsize,
    given: AtomicUsize,
}

impl Objects<'_> {
    /// Makes a key under its definition's CKA_ID and label, and proves it.
    ///
    /// # Errors
    /// `Key` if the CKA_ID is taken; `Unsupported` if the token makes no such key.
    pub(super) fn create(&self, key: &Key, material: &Material) -> Result<KeyFacts, Failure> {
        let session = self.module.open_rw_session()?;
        self.refuse_taken(&session, key)?;
        let (shapes, last_taken) = match material {
            Material::Generated => (&GENERATED[..], &self.templates.generated),
            Material::Given(_) => (&GIVEN[..], &self.templates.given),
        };
        let first = last_taken.load(Ordering::Relaxed);
        let others = (0..shapes.len()).filter(|at| *at != first);
        let mut refused = Vec::new();
        for at in iter::once(first).chain(others) {
            match self.attempt(&session, key, shapes[at], material) {
                Ok(facts) => {
                    last_taken.store(at, Ordering::Relaxed);
                    return Ok(facts);
                }
                Err(failure) if failure.trouble.class == Class::Template => {
                    let words = failure.trouble.to_string();
                    if !refused.contains(&words) {
                        refused.push(words);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Trouble::new(
            Class::Unsupported,
            format!(
                "the token makes no key for {} in any of {} ways: {}",
                key.algorithm(),
                shapes.len(),
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
        keeper: &Session,
        key: &Key,
        proof: Proof,
    ) -> Result<bool, Failure> {
        match proof {
            Proof::CheckValue if key.check_value().is_empty() => {
                let reason = "an object without a known check value is not destroyed";
                return Err(Trouble::new(Class::Key, reason).into());
            }
            // Security: an orphan is known by a CKA_ID of 16 random bytes that hsmac drew for it
            // alone, together with the label that it wrote; nothing else in a token has both.
            Proof::Name
                if key.id().is_none_or(|id| id.len() < RANDOM_ID) || key.label().is_none() =>
            {
                let reason = "an orphan is destroyed by a CKA_ID of 16 bytes and its label only";
                return Err(Trouble::new(Class::Key, reason).into());
            }
            Proof::CheckValue | Proof::Name => {}
        }
        let session = self.module.open_rw_session()?;
        self.keys.close(keeper, key);
        let Some(object) = self.look(&session, key)? else {
            return Ok(true);
        };
        if proof == Proof::CheckValue {
            // Security: the check value is proved on the very handle that is destroyed next, and
            // no search runs in between.
            prove(self.module, &session, key, object)?;
        }
        {
            let _moving = self.keys.moving();
            if let Err(error) = session.destroy_object(object) {
                let trouble = Trouble::from(error).about(&key.name());
                let refused = matches!(trouble.class, Class::Key | Class::Unsupported);
                return Err(Failure {
                    trouble,
                    unsettled: !refused,
                });
            }
        }
        match self.look(&session, key) {
            Ok(None) => Ok(false),
            Ok(Some(_)) => Err(Failure {
                trouble: Trouble::new(
                    Class::Session,
                    format!(
                        "C_DestroyObject said CKR_OK, and the object with {} is still there",
                        key.name()
                    ),
                ),
                unsettled: true,
            }),
            Err(trouble) => Err(Failure {
                trouble,
                unsettled: true,
            }),
        }
    }

    /// One creation with one template. What was made and cannot serve is gone when this returns, or
    /// the failure is unsettled.
    fn attempt(
        &self,
        session: &Session,
        key: &Key,
        shape: Shape,
        material: &Material,
    ) -> Result<KeyFacts, Failure> {
        let mut template = shape.template(key);
        let made = {
            let _moving = self.keys.moving();
            match material {
                Material::Generated => {
                    if shape.length {
                        let bytes = key.algorithm().mac_len() as u64;
                        template.push(Attribute::ValueLen(bytes.into()));
                    }
                    session.generate_key(&shape.mechanism.of(key.algorithm()), &template)
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
            let trouble = Trouble::from(error).about(shape.name());
            let refused = matches!(trouble.class, Class::Template | Class::Unsupported);
            Failure {
                trouble,
                unsettled: !refused,
            }
        })?;
        self.accept(session, key, object).map_err(|trouble| {
            let _moving = self.keys.moving();
            let left = session.destroy_object(object);
            let unsettled = left.is_err();
            let mut trouble = trouble.about(shape.name());
            if let Err(error) = left {
                // Nothing else is tried while this one may still be in the token.
                trouble = Trouble::from(error)
                    .judged(Class::Session)
                    .about(&format!("{trouble}, and the object cannot be destroyed"));
            }
            Failure { trouble, unsettled }
        })
    }

    /// A new object serves if a search finds it and nothing else, if it keeps its secret, and if it
    /// makes the same check value twice.
    fn accept(
        &self,
        session: &Session,
        key: &Key,
        object: ObjectHandle,
    ) -> Result<KeyFacts, Trouble> {
        let found = self.look(session, key)?;
        if found.is_none() {
            return Err(Trouble::new(
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
                return Err(Trouble::new(
                    Class::Unsupported,
                    format!("the token did not honour {promised:?}: it says {read:?}"),
                ));
            }
        }
        // A token may make a key that it then does not sign with (nShield with generic secrets):
        // another template may give one that it does.
        prove(self.module, session, key, object).map_err(|trouble| {
            if trouble.class == Class::Key {
                trouble.judged(Class::Template)
            } else {
                trouble
            }
        })?;
        prove(self.module, session, key, object)?;
        Ok(key.facts(session, object))
    }

    /// The key's object, or none although the token is well.
    fn look(&self, session: &Session, key: &Key) -> Result<Option<ObjectHandle>, Trouble> {
        let _moving = self.keys.moving();
        match find(self.module, session, key) {
            Ok(object) => Ok(Some(object)),
            Err(trouble) if trouble.class == Class::Handle => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    fn refuse_taken(&self, session: &Session, key: &Key) -> Result<(), Trouble> {
        let Some(id) = key.id() else {
            return Err(Trouble::new(Class::Bug, "a new key has no CKA_ID"));
        };
        let _moving = self.keys.moving();
        let taken = first_two(session, &[Attribute::Token(true), Attribute::Id(id.into())])?;
        if taken.is_empty() {
            return self.module.is_well(session);
        }
        Err(Trouble::new(
            Class::Key,
            format!("the token has an object with CKA_ID {id:02x?} already"),
        ))
    }
}

/// One way to ask for an HMAC key. Modules disagree: generic secrets only (openCryptoki), typed keys
/// only (nShield, YubiHSM 2, TPM2), both (SoftHSM, NSS, kryoptic).
#[derive(Clone, Copy, Debug)]
struct Shape {
    mechanism: By,
    key_type: Type,
    attributes: Attributes,
    /// Whether CKA_VALUE_LEN is said: YubiHSM 2 does not know it.
    length: bool,
}

/// The mechanism that generates.
#[derive(Clone, Copy, Debug)]
enum By {
    /// CKM_GENERIC_SECRET_KEY_GEN
    GenericSecret,
    /// CKM_SHA256_KEY_GEN and its like.
    Digest,
    /// nShield's CKM_NC_SHA256_HMAC_KEY_GEN and its like.
    NShield,
}

#[derive(Clone, Copy, Debug)]
enum Type {
    /// CKK_GENERIC_SECRET
    Generic,
    /// CKK_SHA256_HMAC and its like.
    Typed,
}

#[derive(Clone, Copy, Debug)]
enum Attributes {
    /// All that the key may do and may not.
    Full,
    /// What no module can leave out.
    Bare,
}

const fn shape(mechanism: By, key_type: Type, attributes: Attributes) -> Shape {
    Shape {
        mechanism,
        key_type,
        attributes,
        length: true,
    }
}

/// In this order.
const GENERATED: [Shape; 8] = [
    shape(By::GenericSecret, Type::Generic, Attributes::Full),
    shape(By::GenericSecret, Type::Generic, Attributes::Bare),
    shape(By::Digest, Type::Typed, Attributes::Full),
    shape(By::Digest, Type::Typed, Attributes::Bare),
    shape(By::NShield, Type::Typed, Attributes::Bare),
    shape(By::GenericSecret, Type::Typed, Attributes::Full),
    shape(By::GenericSecret, Type::Typed, Attributes::Bare),
    Shape {
        length: false,
        ..shape(By::GenericSecret, Type::Typed, Attributes::Bare)
    },
];

const GIVEN: [Shape; 4] = [
    shape(By::GenericSecret, Type::Generic, Attributes::Full),
    shape(By::GenericSecret, Type::Generic, Attributes::Bare),
    shape(By::GenericSecret, Type::Typed, Attributes::Full),
    shape(By::GenericSecret, Type::Typed, Attributes::Bare),
];

impl Shape {
    /// All but the length or the value.
    fn template(self, key: &Key) -> Vec<Attribute> {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            self.key_type.of(key.algorithm()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ];
        match self.attributes {
            Attributes::Full => template.extend([
                Attribute::Verify(true),
                Attribute::Encrypt(false),
                Attribute::Decrypt(false),
                Attribute::Wrap(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
            ]),
            Attributes::Bare => {}
        }
        template.extend(key.id().map(|id| Attribute::Id(id.into())));
        template.extend(key.label().map(|label| Attribute::Label(label.into())));
        template
    }

    fn name(self) -> &'static str {
        match self.key_type {
            Type::Generic => "a generic secret",
            Type::Typed => "a typed HMAC key",
        }
    }
}

impl By {
    fn of(self, algorithm: MacAlgorithm) -> Mechanism<'static> {
        match (self, algorithm) {
            (Self::GenericSecret, _) => Mechanism::GenericSecretKeyGen,
            (Self::Digest, MacAlgorithm::HmacSha224) => Mechanism::Sha224KeyGen,
            (Self::Digest, MacAlgorithm::HmacSha256) => Mechanism::Sha256KeyGen,
            (Self::Digest, MacAlgorithm::HmacSha384) => Mechanism::Sha384KeyGen,
            (Self::Digest, MacAlgorithm::HmacSha512) => Mechanism::Sha512KeyGen,
            (Self::NShield, MacAlgorithm::HmacSha224) => nshield(0x24),
            (Self::NShield, MacAlgorithm::HmacSha256) => nshield(0x25),
            (Self::NShield, MacAlgorithm::HmacSha384) => nshield(0x26),
            (Self::NShield, MacAlgorithm::HmacSha512) => nshield(0x27),
        }
    }
}

/// A mechanism of nShield's own, without a parameter.
fn nshield(number: CK_MECHANISM_TYPE) -> Mechanism<'static> {
    let mechanism = MechanismType::new_vendor_defined(0xDE43_6972 + number)
        .expect("nShield's numbers are above CKM_VENDOR_DEFINED");
    Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(mechanism, None))
}

impl Type {
    fn of(self, algorithm: MacAlgorithm) -> Attribute {
        // cryptoki 0.12.1 writes CKK_SHA256_HMAC for all four: the true type goes in as raw bytes.
        let key_type: CK_KEY_TYPE = match (self, algorithm) {
            (Self::Generic, _) => return Attribute::KeyType(KeyType::GENERIC_SECRET),
            (Self::Typed, MacAlgorithm::HmacSha224) => CKK_SHA224_HMAC,
            (Self::Typed, MacAlgorithm::HmacSha256) => CKK_SHA256_HMAC,
            (Self::Typed, MacAlgorithm::HmacSha384) => CKK_SHA384_HMAC,
            (Self::Typed, MacAlgorithm::HmacSha512) => CKK_SHA512_HMAC,
        };
        Attribute::VendorDefined((
            AttributeType::VendorDefined(CKA_KEY_TYPE),
            key_type.to_ne_bytes().into(),
        ))
    }
}
