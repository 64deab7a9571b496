//! Key check values: which one a key must have, and what one that a host reports is worth.

use std::{fmt, str::FromStr, sync::OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use tracing::warn;

use crate::{
    model::{decode_hex, encode_hex},
    token::key::TokenKey,
};

/// A key check value: the MAC of a message that no client can have signed. Not a secret.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct CheckValue(Bytes);

impl CheckValue {
    /// The MAC's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl From<Bytes> for CheckValue {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl FromStr for CheckValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_lowercase = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match decode_hex(text).filter(|_| is_lowercase) {
            Some(bytes) if matches!(bytes.len(), 28 | 32 | 48 | 64) => Ok(Self(bytes.into())),
            Some(_) | None => Err(format!(
                "{text:?} is no check value: it must be 56, 64, 96 or 128 lowercase hex digits, as `hsmac check` prints them"
            )),
        }
    }
}

impl TryFrom<String> for CheckValue {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for CheckValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

impl fmt::Debug for CheckValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The check value that a key must have: pinned from the beginning, or the first that a host reports.
#[derive(Debug)]
pub(super) struct TrustedCheckValue {
    pinned: bool,
    value: OnceLock<Trusted>,
}

#[derive(Debug)]
struct Trusted {
    value: CheckValue,
    /// The token of the group that reported it first; `None`: it is pinned.
    reported_by: Option<usize>,
}

/// What a check value that a host reports is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::token) enum Verdict {
    /// The key's.
    Match,
    /// Another key's: the host must not use the object.
    Mismatch,
}

impl TrustedCheckValue {
    pub(super) fn new(pinned: Option<CheckValue>) -> Self {
        Self {
            pinned: pinned.is_some(),
            value: pinned.map_or_else(OnceLock::new, |value| {
                OnceLock::from(Trusted {
                    value,
                    reported_by: None,
                })
            }),
        }
    }
}

impl TokenKey {
    /// Whether the check value was known before any host reported one.
    pub fn is_pinned(&self) -> bool {
        self.object.trusted.pinned
    }

    /// The check value: the pinned one, or the first that a host reported.
    pub fn check_value(&self) -> Option<&CheckValue> {
        self.object
            .trusted
            .value
            .get()
            .map(|trusted| &trusted.value)
    }

    /// Whether a check value has the length that the key's algorithm gives it.
    pub(in crate::token) fn is_long_enough(&self, value: &CheckValue) -> bool {
        value.bytes().len() == self.object.spec.mac_algorithm().mac_len()
    }

    /// Whether a check value can be the key's, as far as is known.
    pub(in crate::token) fn may_have(&self, value: &CheckValue) -> bool {
        self.is_long_enough(value) && self.check_value().is_none_or(|known| known == value)
    }

    /// Compares the check value that a host of a token reports with the trusted one.
    pub(in crate::token) fn verify_check_value(
        &self,
        reported: CheckValue,
        member: usize,
        host: u32,
    ) -> Verdict {
        // Security: the first check value stands, whoever reports another one later.
        let trusted = self.object.trusted.value.get_or_init(|| {
            warn!(
                event = "key_unpinned", key_id = %self.object.key_id, check_value = %reported,
                "no check_value is set for this key: the first one is trusted until hsmac ends"
            );
            Trusted {
                value: reported.clone(),
                reported_by: Some(member),
            }
        });
        if trusted.value != reported {
            self.report_mismatch(member);
            return Verdict::Mismatch;
        }
        self.set_found(member, host);
        Verdict::Match
    }

    /// The object that a token shows is another key's. True if the key can serve elsewhere.
    pub(in crate::token) fn report_mismatch(&self, member: usize) -> bool {
        let trusted = self.object.trusted.value.get();
        match trusted.map(|trusted| trusted.reported_by) {
            // Pinned: whoever shows the right object may serve.
            Some(None) => return true,
            // Security: two tokens disagree, and nothing says which is right: neither serves.
            Some(Some(first)) if first != member => self.fail_for_good(
                "the tokens of its group have different keys under its name, and no check_value says which is right; set it, and reload"
                    .into(),
            ),
            Some(Some(_)) | None => {
                self.fail_for_now("its check value differs: the object is another key".into());
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::key::tests::{key, value};

    /// Security: of two tokens that disagree about an unpinned key neither is believed.
    #[test]
    fn tokens_that_disagree_without_a_pin_make_the_key_unavailable_for_good() {
        let key = key();
        assert_eq!(key.verify_check_value(value(1), 0, 7), Verdict::Match);
        assert_eq!(key.verify_check_value(value(2), 1, 8), Verdict::Mismatch);
        let reason = key.refusal().unwrap();
        assert!(!reason.contains("  "), "{reason}");
        assert_eq!(key.verify_check_value(value(1), 0, 9), Verdict::Match);
        assert!(
            key.refusal().is_some(),
            "the first one's word is not enough"
        );
    }

    #[test]
    fn check_values_are_lowercase_hex_of_a_digest_s_length() {
        let digits = "0f".repeat(32);
        assert_eq!(digits.parse::<CheckValue>().unwrap().to_string(), digits);
        for refused in ["", "0f", &digits.to_uppercase(), &digits[1..]] {
            let fault = refused.parse::<CheckValue>().unwrap_err();
            assert!(fault.contains("lowercase hex"), "{fault}");
        }
    }
}
