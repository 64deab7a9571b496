//! Makes a token and its keys, for `hsmac dev`: in a process of its own, as everything of PKCS#11.

use std::path::PathBuf;

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass},
    session::UserType,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::faults::{Class, Trouble};

/// What `hsmac dev` wants of a token; travels over stdin, since it holds the PIN.
#[derive(Deserialize, Serialize)]
pub struct Provision {
    /// The PKCS#11 library.
    pub module_path: PathBuf,
    /// The new token's label.
    pub label: String,
    /// The new token's user PIN, and its SO PIN: nobody administers a development token.
    pub pin: String,
    /// The keys to generate in it.
    pub keys: Vec<NewKey>,
}

/// A generic secret to generate inside the token.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NewKey {
    /// CKA_LABEL
    pub label: String,
    /// CKA_ID
    pub id: Vec<u8>,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Initialises the first empty slot's token and generates the keys.
///
/// # Errors
/// The fault in words.
pub fn provision(wanted: &Provision) -> Result<(), String> {
    try_provision(wanted).map_err(|trouble| trouble.to_string())
}

fn try_provision(wanted: &Provision) -> Result<(), Trouble> {
    let pkcs11 = Pkcs11::new(&wanted.module_path)?;
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let mut slots = pkcs11.get_slots_with_token()?;
    slots.retain(|slot| {
        pkcs11
            .get_token_info(*slot)
            .is_ok_and(|info| !info.token_initialized())
    });
    let slot = *slots.first().ok_or_else(|| {
        Trouble::new(
            Class::Configuration,
            "the module shows no slot with an empty token",
        )
    })?;
    let pin = SecretString::from(wanted.pin.as_str());
    pkcs11.init_token(slot, &pin, &wanted.label)?;

    let session = pkcs11.open_rw_session(slot)?;
    session.login(UserType::So, Some(&pin))?;
    session.init_pin(&pin)?;
    session.logout()?;
    session.login(UserType::User, Some(&pin))?;
    for key in &wanted.keys {
        session.generate_key(&Mechanism::GenericSecretKeyGen, &template(key))?;
    }
    drop(session);
    pkcs11.finalize()?;
    Ok(())
}

/// A key that signs, and that nobody gets out of the token.
fn template(key: &NewKey) -> [Attribute; 12] {
    [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::ValueLen(key.bytes.into()),
        Attribute::Label(key.label.clone().into_bytes()),
        Attribute::Id(key.id.clone()),
    ]
}
