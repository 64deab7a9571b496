//! Grant tokens: what CreateGrant gives beside the grant's ID.
//!
//! A token names a grant and is authentic by an HMAC, so that whoever has the catalogue's token key can
//! check one without looking anything up: after a restart, and on another bridge over the same catalogue.
//! It confers nothing by itself. The grant in the catalogue does, to its grantee: a token that outlives
//! its grant, or comes from somebody else, opens no door.
//!
//! ```text
//!  base64( version ‖ n ‖ n random bytes ‖ k ‖ key ID, k bytes ‖ account, 12 digits ‖ grant ID, 32 bytes
//!          ‖ HMAC-SHA-256 of all that, 32 bytes )
//! ```
//!
//! The random bytes make two tokens of one grant differ, in their length too: KMS promises no length, and
//! nobody is to rely on one. Promises: a token key is in no log and no `Debug`.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::Sha256;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::model::{AccountId, GrantId, KeyId, decode_hex, encode_hex};

/// What makes and checks the grant tokens of one catalogue.
#[derive(Clone)]
pub(in crate::kms) struct GrantTokenKey(Zeroizing<[u8; 32]>);

/// The grant that a token is of.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::kms) struct NamedGrant {
    pub(in crate::kms) account: AccountId,
    pub(in crate::kms) key_id: KeyId,
    pub(in crate::kms) grant_id: GrantId,
}

impl GrantTokenKey {
    pub(in crate::kms) fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// A token of a grant; each time another one.
    pub(in crate::kms) fn token_of(&self, grant: &NamedGrant) -> String {
        let random: [u8; 32] = random();
        let padding = &random[..usize::from(16 + random[31] % 16)];
        let key_id = grant.key_id.as_str().as_bytes();
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("both are shorter than 64");
        let mut token = vec![VERSION, length(padding)];
        token.extend(padding);
        token.push(length(key_id));
        token.extend(key_id);
        token.extend(grant.account.as_str().as_bytes());
        token.extend(grant.grant_id.bytes());
        let tag = self.hmac(&token).finalize().into_bytes();
        token.extend(tag);
        STANDARD.encode(token)
    }

    /// The grant that a token is of; none if it is no token by this key.
    pub(in crate::kms) fn open(&self, token: &str) -> Option<NamedGrant> {
        let bytes = STANDARD.decode(token).ok()?;
        let (said, tag) = bytes.split_last_chunk::<32>()?;
        // Security: nothing of it is looked at before it is known to be ours.
        self.hmac(said).verify_slice(tag).ok()?;
        let rest = said.strip_prefix(&[VERSION])?;
        let (padding, rest) = rest.split_first()?;
        let rest = rest.get(usize::from(*padding)..)?;
        let (length, rest) = rest.split_first()?;
        let (key_id, rest) = rest.split_at_checked(usize::from(*length))?;
        let (account, grant_id) = rest.split_at_checked(12)?;
        Some(NamedGrant {
            account: std::str::from_utf8(account).ok()?.parse().ok()?,
            key_id: std::str::from_utf8(key_id).ok()?.parse().ok()?,
            grant_id: GrantId::new(grant_id.try_into().ok()?),
        })
    }

    fn hmac(&self, said: &[u8]) -> Hmac<Sha256> {
        let hmac = Hmac::<Sha256>::new_from_slice(&*self.0);
        let mut hmac = hmac.expect("HMAC takes keys of every length");
        hmac.update(PURPOSE);
        hmac.update(said);
        hmac
    }
}

/// 32 bytes of two random UUIDs each: their six fixed bits are hashed away.
pub(in crate::kms) fn random() -> [u8; 32] {
    use sha2::Digest as _;
    let mut hash = Sha256::new();
    for _ in 0..3 {
        hash.update(Uuid::new_v4().as_bytes());
    }
    hash.finalize().into()
}

/// Says that it is one, and nothing of it.
impl fmt::Debug for GrantTokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantTokenKey")
    }
}

impl Serialize for GrantTokenKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        encode_hex(&*self.0).serialize(to)
    }
}

impl<'de> Deserialize<'de> for GrantTokenKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        let bytes = decode_hex(&text).map(Zeroizing::new);
        let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(&**bytes).ok());
        // The text is a secret: the error must not show it.
        key.map(|key| Self(Zeroizing::new(key)))
            .ok_or_else(|| D::Error::custom("it is no token key of 32 bytes in hex"))
    }
}

const VERSION: u8 = 1;

/// Keeps this use of the key apart from any other that it may come to have.
const PURPOSE: &[u8] = b"hsmac grant token v1\0";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(key_id: &str) -> NamedGrant {
        NamedGrant {
            account: "111122223333".parse().unwrap(),
            key_id: key_id.parse().unwrap(),
            grant_id: GrantId::new([7; 32]),
        }
    }

    const IDS: [&str; 2] = [
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "mrk-1234abcd12ab34cd56ef1234567890ab",
    ];

    #[test]
    fn a_token_is_opened_by_its_key_alone_also_after_the_key_was_stored() {
        let key = GrantTokenKey::generate();
        let stored = serde_json::to_string(&key).unwrap();
        let again: GrantTokenKey = serde_json::from_str(&stored).unwrap();
        for id in IDS {
            let tokens: Vec<_> = (0..64).map(|_| key.token_of(&grant(id))).collect();
            for token in &tokens {
                assert_eq!(again.open(token), Some(grant(id)));
                assert_eq!(GrantTokenKey::generate().open(token), None);
            }
            let lengths: std::collections::HashSet<_> = tokens.iter().map(String::len).collect();
            assert!(lengths.len() > 1, "{lengths:?}");
            let all: std::collections::HashSet<_> = tokens.iter().collect();
            assert_eq!(all.len(), tokens.len());
        }
    }

    /// Security: the key's bytes are nowhere but in the store.
    #[test]
    fn a_token_key_is_not_shown() {
        let key = GrantTokenKey::generate();
        let hex = serde_json::to_string(&key).unwrap();
        assert_eq!(format!("{key:?}"), "GrantTokenKey");
        let wrong = format!("\"{}0\"", hex.trim_matches('"'));
        let error = serde_json::from_str::<GrantTokenKey>(&wrong).unwrap_err();
        assert!(!error.to_string().contains(&hex[1..9]), "{error}");
    }

    proptest! {
        #[test]
        fn no_bit_of_a_token_can_be_changed(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let key = GrantTokenKey::generate();
            let token = key.token_of(&grant(IDS[0]));
            let mut bytes = STANDARD.decode(&token).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(key.open(&STANDARD.encode(&bytes)), None);
            prop_assert_eq!(key.open(&token[..at]), None);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            prop_assert_eq!(GrantTokenKey::generate().open(&text), None);
        }
    }
}
