use serde::Deserialize;

use crate::{
    model::{AccountId, KeyId, KeySpec},
    token::{CheckValue, Key, ObjectUri},
};

/// What the operations need to know besides requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The account of declared keys.
    pub account: AccountId,
    /// The region in every ARN.
    pub region: String,
    /// The token that GenerateRandom asks; may be left out when there is one.
    pub new_keys: Option<String>,
    /// The keys that the configuration declares.
    pub keys: Vec<DeclaredKey>,
}

/// `[[key]]`: maps a key ID to an object that is in a token already.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredKey {
    /// A UUID in lowercase: the key ID that clients name.
    pub key_id: KeyId,
    /// The token's name; may be left out when there is one.
    pub token: Option<String>,
    /// The object (RFC 7512): `pkcs11:object=LABEL` and, to be exact, `;id=%01…`.
    pub object: ObjectUri,
    /// HMAC_224, HMAC_256, HMAC_384 or HMAC_512.
    pub key_spec: KeySpec,
    /// Alias names, each beginning with `alias/`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// For people; at most 8,192 characters.
    #[serde(default)]
    pub description: String,
    /// The key check value that the object must have, as `hsmac check` prints it. Without it the
    /// first value is trusted until hsmac ends.
    pub check_value: Option<CheckValue>,
    /// False: the key answers Disabled. Default true.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl DeclaredKey {
    /// The key as its token knows it.
    pub fn token_key(&self) -> Key {
        Key::new(
            self.key_id.clone(),
            self.key_spec,
            self.object.0.clone(),
            self.check_value.clone(),
        )
    }
}

fn yes() -> bool {
    true
}
