//! Constraints on members, worded as KMS words them. Each check gives the value if it holds and
//! pushes a [`Violation`] if not, so that several faults are reported at once.

mod grants;
mod keys;
mod members;
pub(super) mod text;

pub use members::{Member, MemberType, MemberValue};
pub use text::TextType;

pub(in crate::kms) use grants::CREATE_GRANT;
pub(in crate::kms) use keys::{
    KmsValue, alias_name, custom_key_store_id, customer_master_key_spec, description,
    include_key_material, key_spec, key_usage, limit, marker, only_key_id, origin, page, policy,
    policy_name, required_policy, resource_owners, tag_keys, tags, xks_key_id,
};
pub(in crate::kms) use members::check_members;

use std::{fmt::Display, ops::RangeInclusive};

use bytes::Bytes;

use self::text::{GRANT_TOKEN, KEY_ID};
use super::EnumMember;
use crate::{
    error::{Error, Violation},
    model::MacAlgorithm,
};

/// KMS: KeyIdType.
pub(in crate::kms) fn key_id<'a>(
    text: Option<&'a str>,
    broken: &mut Vec<Violation>,
) -> Option<&'a str> {
    key_id_at("keyId", text, broken)
}

/// A key ID in a member of another name.
pub(in crate::kms) fn key_id_at<'a>(
    member: &'static str,
    text: Option<&'a str>,
    broken: &mut Vec<Violation>,
) -> Option<&'a str> {
    required_text(member, &KEY_ID, text, broken)
}

/// A text that must be there: the text if it holds.
pub(in crate::kms) fn required_text<'a>(
    member: &'static str,
    of: &TextType,
    text: Option<&'a str>,
    broken: &mut Vec<Violation>,
) -> Option<&'a str> {
    let Some(text) = text else {
        return null(member, broken);
    };
    of.check(member, member, text, broken).then_some(text)
}

/// A text that may be missing.
pub(in crate::kms) fn optional_text(
    member: &'static str,
    of: &TextType,
    text: Option<&str>,
    broken: &mut Vec<Violation>,
) {
    if let Some(text) = text {
        of.check(member, member, text, broken);
    }
}

/// A blob: its value is never printed.
pub(in crate::kms) fn blob<'a>(
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
            broken.push(Violation::new(
                member,
                format!("Member must have length {bound}"),
            ));
            None
        }
    }
}

/// KMS: MacAlgorithmSpec.
pub(in crate::kms) fn mac_algorithm(
    named: &EnumMember<MacAlgorithm>,
    broken: &mut Vec<Violation>,
) -> Option<MacAlgorithm> {
    match named {
        EnumMember::Known(algorithm) => Some(*algorithm),
        EnumMember::Absent => null("macAlgorithm", broken),
        EnumMember::Unknown(name) => {
            use MacAlgorithm::{HmacSha224, HmacSha256, HmacSha384, HmacSha512};
            // In the order in which AWS was recorded to list them.
            let all = [HmacSha384, HmacSha256, HmacSha224, HmacSha512].map(MacAlgorithm::name);
            broken.push(enum_violation("macAlgorithm", name, &all));
            None
        }
    }
}

/// KMS: GrantTokenList. A grant token is a bearer's secret: it is never printed.
pub(in crate::kms) fn grant_tokens(tokens: &[String], broken: &mut Vec<Violation>) {
    if let Some(bound) = outside(tokens.len(), &(0..=10)) {
        broken.push(Violation::new(
            "grantTokens",
            format!("Member must have length {bound}"),
        ));
        return;
    }
    for (index, token) in tokens.iter().enumerate() {
        let at = format!("grantTokens.{}.member", index + 1);
        GRANT_TOKEN.check("grantTokens", &at, token, broken);
    }
}

/// A whole number in a range.
pub(in crate::kms) fn number(
    member: &'static str,
    value: i64,
    range: RangeInclusive<i64>,
    broken: &mut Vec<Violation>,
) -> Option<usize> {
    match outside(value, &range) {
        None => usize::try_from(value).ok(),
        Some(bound) => {
            let must = format!("Member must have value {bound}");
            broken.push(Violation::new(member, must).of(value.to_string()));
            None
        }
    }
}

/// The error of broken constraints; KMS lists ten at most.
pub(in crate::kms) fn refuse(mut broken: Vec<Violation>) -> Error {
    broken.truncate(10);
    Error::violations(broken)
}

/// A member that must be there, and is not.
pub(in crate::kms) fn missing(member: &'static str, broken: &mut Vec<Violation>) {
    null::<()>(member, broken);
}

fn null<T>(member: &'static str, broken: &mut Vec<Violation>) -> Option<T> {
    broken.push(Violation::null(member));
    None
}

/// A text that is none of these.
fn enum_violation(member: &'static str, text: &str, names: &[&str]) -> Violation {
    let must = format!("Member must satisfy enum value set: [{}]", names.join(", "));
    Violation::new(member, must).of(text)
}

/// The bound that a value breaks, in words.
fn outside<T: PartialOrd + Display>(value: T, range: &RangeInclusive<T>) -> Option<String> {
    if value < *range.start() {
        Some(format!("greater than or equal to {}", range.start()))
    } else if value > *range.end() {
        Some(format!("less than or equal to {}", range.end()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(check: impl FnOnce(&mut Vec<Violation>)) -> Vec<String> {
        let mut broken = Vec::new();
        check(&mut broken);
        broken.iter().map(|v| v.text(str::to_owned)).collect()
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
                    mac_algorithm(&EnumMember::Absent, b);
                }),
                "Value null at 'macAlgorithm' failed to satisfy constraint: Member must not be null",
            ),
            (
                texts(|b| {
                    mac_algorithm(&EnumMember::Unknown("INVALID".into()), b);
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
}
