//! Makes a token and its keys, for `hsmac dev`: in a process of its own, as everything of PKCS#11.

use std::path::PathBuf;

use cryptoki::{context::Pkcs11, object::Attribute, session::UserType};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    error::{Class, HostError},
    raw,
    templates::GENERATED,
};
use crate::model::MacAlgorithm;

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
    try_provision(wanted).map_err(|error| error.to_string())
}

fn try_provision(wanted: &Provision) -> Result<(), HostError> {
    let pkcs11 = Pkcs11::new(&wanted.module_path)?;
    raw::initialize(&pkcs11, "")?;
    let mut slots = pkcs11.get_slots_with_token()?;
    slots.retain(|slot| {
        pkcs11
            .get_token_info(*slot)
            .is_ok_and(|info| !info.token_initialized())
    });
    let slot = *slots.first().ok_or_else(|| {
        HostError::new(
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
        let algorithm = MacAlgorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.mac_len() as u64 == key.bytes)
            .ok_or_else(|| HostError::new(Class::Configuration, "no HMAC key has that length"))?;
        let [generic_secret, ..] = GENERATED;
        let mut template = generic_secret.attributes(algorithm, Some(&key.id), Some(&key.label));
        template.push(Attribute::ValueLen(key.bytes.into()));
        session.generate_key(&generic_secret.mechanism.of(algorithm), &template)?;
    }
    drop(session);
    pkcs11.finalize()?;
    Ok(())
}
