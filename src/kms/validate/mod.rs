//! Constraints on members, worded as KMS words them. Each check gives the value if it holds and
//! pushes a [`Violation`] if not, so that several faults are reported at once.

mod keys;

pub(super) use keys::{
    Asked, alias_name, description, include_key_material, key_spec, key_usage, limit, marker,
    only_key_id, origin, policy, policy_name, required_policy, tag_keys, tags,
};

use std::{fmt::Write as _, ops::RangeInclusive};

use bytes::Bytes;

use super::Named;
use crate::{
    error::{Error, Violation},
    model::MacAlgorithm,
};

/// KMS: KeyIdType.
pub(super) fn key_id<'a>(text: Option<&'a str>, broken: &mut Vec<Violation>) -> Option<&'a str> {
    key_id_at("keyId", text, broken)
}

/// The same where the member has another name.
pub(super) fn key_id_at<'a>(
    member: &'static str,
    text: Option<&'a str>,
    broken: &mut Vec<Violation>,
) -> Option<&'a str> {
    let Some(text) = text else {
        return null(member, broken);
    };
    length(member, text, 1..=2048, broken).then_some(text)
}

/// A blob: its value is never printed.
pub(super) fn blob<'a>(
    member: &'static str,
    bytes: Option<&'a Bytes>,
    max: usize,
    broken: &mut Vec<Violation>,
) -> Option<&'a Bytes> {
    let Some(bytes) = bytes else {
        return null(member, broken);
    };
    match outside(bytes.len(), &(1..=max)) {
        None => Some(bytes),
        Some(bound) => {
            broken.push(clause(member, &format!("Member must have length {bound}")));
            None
        }
    }
}

/// KMS: MacAlgorithmSpec.
pub(super) fn mac_algorithm(
    named: &Named<MacAlgorithm>,
    broken: &mut Vec<Violation>,
) -> Option<MacAlgorithm> {
    match named {
        Named::Known(algorithm) => Some(*algorithm),
        Named::Absent => null("macAlgorithm", broken),
        Named::Unknown(name) => {
            broken.push(valued(
                "macAlgorithm",
                name,
                "Member must satisfy enum value set: [HMAC_SHA_384, HMAC_SHA_256, HMAC_SHA_224, HMAC_SHA_512]",
            ));
            None
        }
    }
}

/// KMS: GrantTokenList. A grant token is a bearer's secret: it is never printed.
pub(super) fn grant_tokens(tokens: &[String], broken: &mut Vec<Violation>) {
    if let Some(bound) = outside(tokens.len(), &(0..=10)) {
        broken.push(clause(
            "grantTokens",
            &format!("Member must have length {bound}"),
        ));
        return;
    }
    for (index, token) in tokens.iter().enumerate() {
        if let Some(bound) = outside(chars(token, 8192), &(1..=8192)) {
            broken.push(Violation {
                member: "grantTokens",
                text: format!(
                    "Value at 'grantTokens.{}.member' failed to satisfy constraint: Member must have length {bound}",
                    index + 1
                ),
            });
        }
    }
}

/// A whole number in a range.
pub(super) fn number(
    member: &'static str,
    value: i64,
    range: RangeInclusive<i64>,
    broken: &mut Vec<Violation>,
) -> Option<usize> {
    match outside(value, &range) {
        None => usize::try_from(value).ok(),
        Some(bound) => {
            broken.push(valued(
                member,
                &value.to_string(),
                &format!("Member must have value {bound}"),
            ));
            None
        }
    }
}

/// Whether a text's length in characters is in the range.
pub(super) fn length(
    member: &'static str,
    text: &str,
    range: RangeInclusive<usize>,
    broken: &mut Vec<Violation>,
) -> bool {
    let Some(bound) = outside(chars(text, *range.end()), &range) else {
        return true;
    };
    broken.push(valued(
        member,
        text,
        &format!("Member must have length {bound}"),
    ));
    false
}

/// A clause that does not print the value.
pub(super) fn clause(member: &'static str, must: &str) -> Violation {
    Violation {
        member,
        text: format!("Value at '{member}' failed to satisfy constraint: {must}"),
    }
}

/// The error of broken constraints; KMS lists ten at most.
pub(super) fn refuse(mut broken: Vec<Violation>) -> Error {
    broken.truncate(10);
    Error::violations(broken)
}

/// A client's text as far as an error may repeat it. The whole of a status travels in HTTP headers,
/// percent-encoded and once more in base64, and clients refuse more than 8 KiB of them.
pub(super) fn echo(text: &str, limit: usize) -> String {
    let mut left = limit;
    let mut shown = String::with_capacity(text.len().min(limit));
    for char in text.chars() {
        let cost = if matches!(char, ' '..='~') {
            1
        } else {
            3 * char.len_utf8()
        };
        if cost > left {
            shown.push('…');
            break;
        }
        left -= cost;
        shown.push(char);
    }
    shown
}

fn valued(member: &'static str, value: &str, must: &str) -> Violation {
    let mut text = String::new();
    write!(
        text,
        "Value '{}' at '{member}' failed to satisfy constraint: {must}",
        echo(value, VALUE_ECHO)
    )
    .expect("writing to a String cannot fail");
    Violation { member, text }
}

fn null<T>(member: &'static str, broken: &mut Vec<Violation>) -> Option<T> {
    broken.push(null_clause(member));
    None
}

fn null_clause(member: &'static str) -> Violation {
    Violation {
        member,
        text: format!(
            "Value null at '{member}' failed to satisfy constraint: Member must not be null"
        ),
    }
}

/// The bound that a value breaks, in words.
fn outside<T: PartialOrd + std::fmt::Display>(
    value: T,
    range: &RangeInclusive<T>,
) -> Option<String> {
    if value < *range.start() {
        Some(format!("greater than or equal to {}", range.start()))
    } else if value > *range.end() {
        Some(format!("less than or equal to {}", range.end()))
    } else {
        None
    }
}

/// KMS counts characters; a text with no more bytes than that need not be counted.
fn chars(text: &str, max: usize) -> usize {
    if text.len() <= max {
        text.len()
    } else {
        text.chars().count()
    }
}

/// Ten clauses with values of this length still fit a client's header limit.
const VALUE_ECHO: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(check: impl FnOnce(&mut Vec<Violation>)) -> Vec<String> {
        let mut broken = Vec::new();
        check(&mut broken);
        broken.into_iter().map(|violation| violation.text).collect()
    }

    #[test]
    fn clauses_have_kms_s_form() {
        for (said, wanted) in [
            (
                texts(|b| {
                    key_id(None, b);
                }),
                "Value null at 'keyId' failed to satisfy constraint: Member must not be null",
            ),
            (
                texts(|b| {
                    key_id(Some(""), b);
                }),
                "Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1",
            ),
            (
                texts(|b| {
                    blob("message", Some(&Bytes::new()), 4096, b);
                }),
                "Value at 'message' failed to satisfy constraint: Member must have length greater than or equal to 1",
            ),
            (
                texts(|b| {
                    blob("message", Some(&vec![0; 4097].into()), 4096, b);
                }),
                "Value at 'message' failed to satisfy constraint: Member must have length less than or equal to 4096",
            ),
            (
                texts(|b| {
                    mac_algorithm(&Named::Absent, b);
                }),
                "Value null at 'macAlgorithm' failed to satisfy constraint: Member must not be null",
            ),
            (
                texts(|b| {
                    mac_algorithm(&Named::Unknown("INVALID".into()), b);
                }),
                "Value 'INVALID' at 'macAlgorithm' failed to satisfy constraint: Member must satisfy enum value set: [HMAC_SHA_384, HMAC_SHA_256, HMAC_SHA_224, HMAC_SHA_512]",
            ),
            (
                texts(|b| {
                    number("numberOfBytes", 1025, 1..=1024, b);
                }),
                "Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024",
            ),
            (
                texts(|b| grant_tokens(&vec!["t".into(); 11], b)),
                "Value at 'grantTokens' failed to satisfy constraint: Member must have length less than or equal to 10",
            ),
            (
                texts(|b| grant_tokens(&["t".into(), String::new()], b)),
                "Value at 'grantTokens.2.member' failed to satisfy constraint: Member must have length greater than or equal to 1",
            ),
        ] {
            assert_eq!(said, [wanted]);
        }
    }

    #[test]
    fn what_holds_says_nothing() {
        let longest = "ä".repeat(2048);
        let message = Bytes::from(vec![0; 4096]);
        assert!(
            texts(|b| {
                assert_eq!(key_id(Some(&longest), b), Some(longest.as_str()));
                assert_eq!(blob("message", Some(&message), 4096, b), Some(&message));
                assert_eq!(number("limit", 1000, 1..=1000, b), Some(1000));
                grant_tokens(&vec!["t".repeat(8192); 10], b);
            })
            .is_empty()
        );
        assert_eq!(
            texts(|b| {
                key_id(Some(&"a".repeat(2049)), b);
            })
            .len(),
            1
        );
    }

    #[test]
    fn an_echo_fits_into_headers() {
        assert_eq!(echo("key_id", 2048), "key_id");
        assert_eq!(echo(&"a".repeat(3000), 2048).len(), 2048 + "…".len());
        assert!(echo(&"🔑".repeat(2048), 2048).chars().count() <= 171);
    }
}
