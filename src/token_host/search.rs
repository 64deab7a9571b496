//! Finding a key's object, and proving with its check value that it is the right one.

use std::num::NonZeroUsize;

use bytes::Bytes;
use cryptoki::{
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use subtle::ConstantTimeEq as _;

use super::{
    error::{Class, HostError},
    host_key::HostKey,
    module::Module,
    raw::MAX_MAC,
};

/// Exactly one secret key of that label and CKA_ID, in the token.
pub(super) fn find(
    module: &Module,
    session: &Session,
    key: &HostKey,
) -> Result<ObjectHandle, HostError> {
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
                return Err(HostError::new(
                    Class::Key,
                    format!(
                        "the object with {} is no secret key but {class:?}",
                        key.name()
                    ),
                ));
            }
            Err(HostError::new(
                Class::Handle,
                format!("the token has no object with {}", key.name()),
            ))
        }
        _ => Err(HostError::new(
            Class::Key,
            format!("several objects have {}; name the CKA_ID too", key.name()),
        )),
    }
}

pub(super) fn first_two(
    session: &Session,
    template: &[Attribute],
) -> Result<Vec<ObjectHandle>, HostError> {
    const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");
    let found: Result<Vec<_>, _> = session
        .iter_objects_with_cache_size(template, TWO)?
        .take(2)
        .collect();
    Ok(found?)
}

/// NSS would make HMACs with an AES key; a key for two purposes is for none.
fn refuse_cipher_key(
    session: &Session,
    key: &HostKey,
    object: ObjectHandle,
) -> Result<(), HostError> {
    let types = session
        .get_attributes(object, &[AttributeType::KeyType])
        .unwrap_or_default();
    let cipher = [KeyType::AES, KeyType::DES, KeyType::DES2, KeyType::DES3];
    match types.first() {
        Some(Attribute::KeyType(is)) if cipher.contains(is) => Err(HostError::new(
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
pub(super) fn working_copy(session: &Session, object: ObjectHandle) -> Option<ObjectHandle> {
    let nameless = [
        Attribute::Token(false),
        Attribute::Label(Vec::new()),
        Attribute::Id(Vec::new()),
    ];
    session.copy_object(object, &nameless).ok()
}

/// Makes the key check value with a handle and compares it with the one this key must have.
pub(super) fn verify_check_value(
    module: &Module,
    session: &Session,
    key: &HostKey,
    handle: ObjectHandle,
) -> Result<(), HostError> {
    let mut mac = [0; MAX_MAC];
    let length = module
        .sign(
            session,
            key.algorithm(),
            handle,
            &key.check_message,
            &mut mac,
        )
        .map_err(|error| {
            error.about(&format!(
                "the key with {} cannot do {}",
                key.name(),
                key.algorithm()
            ))
        })?;
    let made = &mac[..length];
    let wanted = key.check_value.get_or_init(|| Bytes::copy_from_slice(made));
    // Security: a handle serves only while it makes the check value of the key it stands for.
    if bool::from(wanted.ct_eq(made)) {
        return Ok(());
    }
    Err(HostError::new(
        Class::OtherKey,
        format!(
            "the object with {} is another key: its check value differs",
            key.name()
        ),
    ))
}
