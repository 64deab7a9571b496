//! Templates of new keys: modules disagree about what they take, so several are tried in order.

use std::sync::atomic::AtomicUsize;

use cryptoki::{
    mechanism::{Mechanism, MechanismType, vendor_defined::VendorDefinedMechanism},
    object::{Attribute, AttributeType, KeyType, ObjectClass},
};
use cryptoki_sys::{
    CK_KEY_TYPE, CK_MECHANISM_TYPE, CKA_KEY_TYPE, CKK_SHA224_HMAC, CKK_SHA256_HMAC,
    CKK_SHA384_HMAC, CKK_SHA512_HMAC,
};

use crate::model::MacAlgorithm;

/// The template that this token took last, of [`GENERATED`] and of [`GIVEN`].
#[derive(Debug, Default)]
pub(super) struct AcceptedTemplates {
    pub(super) generated: AtomicUsize,
    pub(super) given: AtomicUsize,
}

/// One way to ask for an HMAC key. Modules disagree: generic secrets only (openCryptoki), typed keys
/// only (nShield, YubiHSM 2, TPM2), both (SoftHSM, NSS, kryoptic).
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyTemplate {
    pub(super) mechanism: GenerationMechanism,
    key_type: TemplateKeyType,
    attributes: AttributeSet,
    /// Whether CKA_VALUE_LEN is said: YubiHSM 2 does not know it.
    pub(super) length: bool,
}

/// The mechanism that generates.
#[derive(Clone, Copy, Debug)]
pub(super) enum GenerationMechanism {
    /// CKM_GENERIC_SECRET_KEY_GEN
    GenericSecret,
    /// CKM_SHA256_KEY_GEN and its like.
    Digest,
    /// nShield's CKM_NC_SHA256_HMAC_KEY_GEN and its like.
    NShield,
}

#[derive(Clone, Copy, Debug)]
enum TemplateKeyType {
    /// CKK_GENERIC_SECRET
    Generic,
    /// CKK_SHA256_HMAC and its like.
    Typed,
}

#[derive(Clone, Copy, Debug)]
enum AttributeSet {
    /// All that the key may do and may not.
    Full,
    /// What no module can leave out.
    Bare,
}

const fn key_template(
    mechanism: GenerationMechanism,
    key_type: TemplateKeyType,
    attributes: AttributeSet,
) -> KeyTemplate {
    KeyTemplate {
        mechanism,
        key_type,
        attributes,
        length: true,
    }
}

/// Ways to have a key generated, in the order in which they are tried.
pub(super) const GENERATED: [KeyTemplate; 8] = [
    key_template(
        GenerationMechanism::GenericSecret,
        TemplateKeyType::Generic,
        AttributeSet::Full,
    ),
    key_template(
        GenerationMechanism::GenericSecret,
        TemplateKeyType::Generic,
        AttributeSet::Bare,
    ),
    key_template(
        GenerationMechanism::Digest,
        TemplateKeyType::Typed,
        AttributeSet::Full,
    ),
    key_template(
        GenerationMechanism::Digest,
        TemplateKeyType::Typed,
        AttributeSet::Bare,
    ),
    key_template(
        GenerationMechanism::NShield,
        TemplateKeyType::Typed,
        AttributeSet::Bare,
    ),
    key_template(
        GenerationMechanism::GenericSecret,
        TemplateKeyType::Typed,
        AttributeSet::Full,
    ),
    key_template(
        GenerationMechanism::GenericSecret,
        TemplateKeyType::Typed,
        AttributeSet::Bare,
    ),
    KeyTemplate {
        length: false,
        ..key_template(
            GenerationMechanism::GenericSecret,
            TemplateKeyType::Typed,
            AttributeSet::Bare,
        )
    },
];

/// Ways to make a key from given material, in the order in which they are tried.
pub(super) const GIVEN: [KeyTemplate; 4] = [
    key_template(
        GenerationMechanism::GenericSecret,
        TemplateKeyType::Generic,
        AttributeSet::Full,
    ),
    key_template(
        GenerationMechanism::GenericSecret,
        TemplateKeyType::Generic,
        AttributeSet::Bare,
    ),
    key_template(
        GenerationMechanism::GenericSecret,
        TemplateKeyType::Typed,
        AttributeSet::Full,
    ),
    key_template(
        GenerationMechanism::GenericSecret,
        TemplateKeyType::Typed,
        AttributeSet::Bare,
    ),
];

impl KeyTemplate {
    /// The template, without the length or the value.
    pub(super) fn attributes(
        self,
        algorithm: MacAlgorithm,
        id: Option<&[u8]>,
        label: Option<&str>,
    ) -> Vec<Attribute> {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            self.key_type.of(algorithm),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ];
        match self.attributes {
            AttributeSet::Full => template.extend([
                Attribute::Verify(true),
                Attribute::Encrypt(false),
                Attribute::Decrypt(false),
                Attribute::Wrap(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
            ]),
            AttributeSet::Bare => {}
        }
        template.extend(id.map(|id| Attribute::Id(id.into())));
        template.extend(label.map(|label| Attribute::Label(label.into())));
        template
    }

    pub(super) fn name(self) -> &'static str {
        match self.key_type {
            TemplateKeyType::Generic => "a generic secret",
            TemplateKeyType::Typed => "a typed HMAC key",
        }
    }
}

impl GenerationMechanism {
    pub(super) fn of(self, algorithm: MacAlgorithm) -> Mechanism<'static> {
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

impl TemplateKeyType {
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
