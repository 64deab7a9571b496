//! Members of KeyService's requests.
//!
//! Where KMS has both constraints and rules of another exception, the constraints are pushed and the
//! rule comes as the inner error: all broken constraints are told before the first rule.

use std::ops::RangeInclusive;

use super::{clause, key_id, length, null, null_clause, number, outside, refuse, valued};
use crate::{
    error::{Error, Kind, Violation},
    kms::{IncludeKeyMaterial, Named, TagPair},
    model::{
        AliasFault, AliasName, Description, KeySpec, KeyUsage, Origin, Tag, TagFault, Tags,
        TagsFault,
    },
};

/// A member that KMS knows, be it one of ours or not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::kms) enum Asked<T> {
    Ours(T),
    /// KMS has it, hsmac does not.
    Other(String),
}

/// The only member of an operation that has but a key.
pub(in crate::kms) fn only_key_id(text: Option<&str>) -> Result<&str, Error> {
    let mut broken = Vec::new();
    key_id(text, &mut broken).ok_or_else(|| refuse(broken))
}

/// KMS: KeyUsageType.
pub(in crate::kms) fn key_usage(
    named: &Named<KeyUsage>,
    broken: &mut Vec<Violation>,
) -> Option<Asked<KeyUsage>> {
    one_of(
        "keyUsage",
        named,
        &["ENCRYPT_DECRYPT", "SIGN_VERIFY", "KEY_AGREEMENT"],
        "ENCRYPT_DECRYPT, SIGN_VERIFY, GENERATE_VERIFY_MAC",
        broken,
    )
}

/// KMS: KeySpec.
pub(in crate::kms) fn key_spec(
    named: &Named<KeySpec>,
    broken: &mut Vec<Violation>,
) -> Option<Asked<KeySpec>> {
    one_of(
        "keySpec",
        named,
        &[
            "RSA_2048",
            "ECC_NIST_P384",
            "ECC_NIST_P256",
            "ECC_NIST_P521",
            "RSA_3072",
            "ECC_SECG_P256K1",
            "RSA_4096",
            "SYMMETRIC_DEFAULT",
        ],
        "RSA_2048, ECC_NIST_P384, ECC_NIST_P256, ECC_NIST_P521, HMAC_384, RSA_3072, ECC_SECG_P256K1, RSA_4096, SYMMETRIC_DEFAULT, HMAC_256, HMAC_224, HMAC_512",
        broken,
    )
}

/// KMS: OriginType.
pub(in crate::kms) fn origin(
    named: &Named<Origin>,
    broken: &mut Vec<Violation>,
) -> Option<Asked<Origin>> {
    one_of(
        "origin",
        named,
        &["EXTERNAL_KEY_STORE"],
        "EXTERNAL, AWS_CLOUDHSM, AWS_KMS, EXTERNAL_KEY_STORE",
        broken,
    )
}

/// KMS: IncludeKeyMaterial.
pub(in crate::kms) fn include_key_material(
    named: &Named<IncludeKeyMaterial>,
    broken: &mut Vec<Violation>,
) {
    one_of(
        "includeKeyMaterial",
        named,
        &[],
        "ALL_KEY_MATERIAL, ROTATIONS_ONLY",
        broken,
    );
}

fn one_of<T: Copy>(
    member: &'static str,
    named: &Named<T>,
    others: &[&str],
    set: &str,
    broken: &mut Vec<Violation>,
) -> Option<Asked<T>> {
    match named {
        Named::Absent => None,
        Named::Known(known) => Some(Asked::Ours(*known)),
        Named::Unknown(name) if others.contains(&name.as_str()) => Some(Asked::Other(name.clone())),
        Named::Unknown(name) => {
            let must = format!("Member must satisfy enum value set: [{set}]");
            broken.push(valued(member, name, &must));
            None
        }
    }
}

/// KMS: DescriptionType.
pub(in crate::kms) fn description(
    text: Option<String>,
    broken: &mut Vec<Violation>,
) -> Option<Description> {
    let Some(text) = text else {
        return null("description", broken);
    };
    length("description", &text, 0..=Description::LONGEST, broken)
        .then(|| Description::new(text))
        .flatten()
}

/// KMS: AliasNameType, and the rules that it does not tell.
pub(in crate::kms) fn alias_name(
    text: Option<&str>,
    broken: &mut Vec<Violation>,
) -> Option<Result<AliasName, Error>> {
    let Some(text) = text else {
        return null("aliasName", broken);
    };
    let error = match text.parse() {
        Ok(name) => return Some(Ok(name)),
        Err(AliasFault::Length) => {
            length("aliasName", text, 1..=AliasName::LONGEST, broken);
            return None;
        }
        Err(AliasFault::Characters) => {
            let must = format!(
                "Member must satisfy regular expression pattern: {}",
                AliasName::PATTERN
            );
            broken.push(valued("aliasName", text, &must));
            return None;
        }
        Err(AliasFault::Prefix) => Error::new(
            Kind::Validation,
            "Alias must start with the prefix \"alias/\". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html",
        ),
        Err(AliasFault::Colon) => Error::new(
            Kind::Validation,
            format!("{text} contains invalid characters for an alias"),
        ),
        Err(AliasFault::Empty) => Error::new(
            Kind::InvalidAliasName,
            "An alias must have a name after the prefix \"alias/\".",
        ),
        Err(AliasFault::Reserved) => Error::new(Kind::NotAuthorized, ""),
    };
    Some(Err(error))
}

/// KMS: TagList.
pub(in crate::kms) fn tags(
    pairs: Option<Vec<TagPair>>,
    broken: &mut Vec<Violation>,
) -> Option<Result<Tags, Error>> {
    let Some(pairs) = pairs else {
        return null("tags", broken);
    };
    let before = broken.len();
    let mut tags = Vec::with_capacity(pairs.len());
    let mut reserved = false;
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        let at = |part: &str| format!("tags.{}.member.{part}", index + 1);
        let key = in_list("tags", &at("tagKey"), key, 1..=Tag::LONGEST_KEY, broken);
        let value = in_list(
            "tags",
            &at("tagValue"),
            value,
            0..=Tag::LONGEST_VALUE,
            broken,
        );
        let (Some(key), Some(value)) = (key, value) else {
            continue;
        };
        match Tag::new(key, value) {
            Ok(tag) => tags.push(tag),
            Err(TagFault::Reserved) => reserved = true,
            // Told above.
            Err(TagFault::Key | TagFault::Value) => {}
        }
    }
    if broken.len() > before {
        return None;
    }
    let refused = |say: &'static str| Some(Err(Error::new(Kind::Tag, say)));
    if reserved {
        return refused("Tags beginning with aws: are reserved");
    }
    match Tags::new(tags) {
        Ok(tags) => Some(Ok(tags)),
        Err(TagsFault::TooMany) => refused("Too many tags"),
        Err(TagsFault::Duplicate) => refused("Duplicate tag keys"),
    }
}

/// KMS: TagKeyList.
pub(in crate::kms) fn tag_keys<'a>(
    keys: Option<&'a [String]>,
    broken: &mut Vec<Violation>,
) -> Option<&'a [String]> {
    let Some(keys) = keys else {
        return null("tagKeys", broken);
    };
    for (index, key) in keys.iter().enumerate() {
        let at = format!("tagKeys.{}.member", index + 1);
        in_list("tagKeys", &at, Some(key), 1..=Tag::LONGEST_KEY, broken);
    }
    Some(keys)
}

/// KMS: LimitType, 1 to 1,000. `default` if absent; a page has at most `most`.
pub(in crate::kms) fn limit(
    limit: Option<i64>,
    default: i64,
    most: usize,
    broken: &mut Vec<Violation>,
) -> Option<usize> {
    number("limit", limit.unwrap_or(default), 1..=1000, broken).map(|limit| limit.min(most))
}

/// KMS: MarkerType.
pub(in crate::kms) fn marker(text: &str, broken: &mut Vec<Violation>) -> bool {
    length("marker", text, 1..=1024, broken)
}

/// KMS: PolicyType.
pub(in crate::kms) fn policy(text: &str, broken: &mut Vec<Violation>) {
    if let Some(bound) = outside(text.chars().count(), &(1..=131_072)) {
        broken.push(clause(
            "policy",
            &format!("Member must have length {bound}"),
        ));
    }
}

/// KMS: PolicyType where it must be there.
pub(in crate::kms) fn required_policy<'a>(
    text: Option<&'a str>,
    broken: &mut Vec<Violation>,
) -> Option<&'a str> {
    let Some(text) = text else {
        return null("policy", broken);
    };
    policy(text, broken);
    Some(text)
}

/// KMS: PolicyNameType.
pub(in crate::kms) fn policy_name(name: Option<&str>, broken: &mut Vec<Violation>) {
    let Some(name) = name else { return };
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if length("policyName", name, 1..=128, broken) && !name.bytes().all(word) {
        let must = "Member must satisfy regular expression pattern: [\\w]+";
        broken.push(valued("policyName", name, must));
    }
}

/// A text within a list, at this path: the text if it holds.
fn in_list<T: AsRef<str>>(
    member: &'static str,
    at: &str,
    text: Option<T>,
    range: RangeInclusive<usize>,
    broken: &mut Vec<Violation>,
) -> Option<T> {
    let Violation { text: clause, .. } = match text {
        None => null_clause(member),
        Some(text) => match outside(text.as_ref().chars().count(), &range) {
            None => return Some(text),
            Some(bound) => {
                let must = format!("Member must have length {bound}");
                valued(member, text.as_ref(), &must)
            }
        },
    };
    let text = clause.replacen(&format!("at '{member}'"), &format!("at '{at}'"), 1);
    broken.push(Violation { member, text });
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<TagPair>> {
        let owned =
            |(key, value): &(&str, &str)| (Some((*key).to_owned()), Some((*value).to_owned()));
        Some(pairs.iter().map(owned).collect())
    }

    #[test]
    fn broken_tags_are_told_as_kms_tells_them() {
        let mut broken = Vec::new();
        let (long, longer) = ("k".repeat(129), "v".repeat(257));
        let given = pairs(&[("ok", ""), (&long, &longer)]);
        assert!(tags(given, &mut broken).is_none());
        assert!(broken[0].text.ends_with("' at 'tags.2.member.tagKey' failed to satisfy constraint: Member must have length less than or equal to 128"));
        assert!(broken[1].text.ends_with("' at 'tags.2.member.tagValue' failed to satisfy constraint: Member must have length less than or equal to 256"));

        for (given, say) in [
            (pairs(&[("a", ""), ("a", "")]), "Duplicate tag keys"),
            (
                pairs(&[("AWS:a", "")]),
                "Tags beginning with aws: are reserved",
            ),
            (
                Some(
                    (0..51)
                        .map(|n| (Some(n.to_string()), Some(String::new())))
                        .collect(),
                ),
                "Too many tags",
            ),
        ] {
            let error = tags(given, &mut Vec::new()).unwrap().unwrap_err();
            assert_eq!((error.kind(), error.say()), (Kind::Tag, say));
        }
        let mut broken = Vec::new();
        assert!(tags(None, &mut broken).is_none());
        tags(Some(vec![(Some("a".into()), None)]), &mut broken);
        assert!(tag_keys(None, &mut broken).is_none());
        let texts: Vec<_> = broken.iter().map(|v| v.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "Value null at 'tags' failed to satisfy constraint: Member must not be null",
                "Value null at 'tags.1.member.tagValue' failed to satisfy constraint: Member must not be null",
                "Value null at 'tagKeys' failed to satisfy constraint: Member must not be null",
            ]
        );
        let mut broken = Vec::new();
        tag_keys(Some(&["a".into(), String::new()]), &mut broken);
        assert_eq!(
            broken[0].text,
            "Value '' at 'tagKeys.2.member' failed to satisfy constraint: Member must have length greater than or equal to 1"
        );
    }

    #[test]
    fn wrong_alias_names_are_told_as_kms_tells_them() {
        let mut broken = Vec::new();
        assert!(alias_name(None, &mut broken).is_none());
        assert!(alias_name(Some(""), &mut broken).is_none());
        assert!(alias_name(Some("alias/a b"), &mut broken).is_none());
        let texts: Vec<_> = broken.iter().map(|v| v.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "Value null at 'aliasName' failed to satisfy constraint: Member must not be null",
                "Value '' at 'aliasName' failed to satisfy constraint: Member must have length greater than or equal to 1",
                "Value 'alias/a b' at 'aliasName' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$",
            ]
        );
        for (text, kind, say) in [
            (
                "pay",
                Kind::Validation,
                "Alias must start with the prefix \"alias/\". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html",
            ),
            (
                "alias/a:b",
                Kind::Validation,
                "alias/a:b contains invalid characters for an alias",
            ),
            (
                "alias/",
                Kind::InvalidAliasName,
                "An alias must have a name after the prefix \"alias/\".",
            ),
            ("alias/aws/x", Kind::NotAuthorized, ""),
        ] {
            let error = alias_name(Some(text), &mut Vec::new())
                .unwrap()
                .unwrap_err();
            assert_eq!((error.kind(), error.say()), (kind, say));
        }
    }

    #[test]
    fn what_kms_has_and_hsmac_has_not_is_no_broken_constraint() {
        let mut broken = Vec::new();
        assert_eq!(
            key_spec(&Named::Unknown("RSA_2048".into()), &mut broken),
            Some(Asked::Other("RSA_2048".into()))
        );
        assert_eq!(
            key_usage(&Named::Known(KeyUsage::GenerateVerifyMac), &mut broken),
            Some(Asked::Ours(KeyUsage::GenerateVerifyMac))
        );
        assert_eq!(origin(&Named::Absent, &mut broken), None);
        assert!(broken.is_empty());
        key_spec(&Named::Unknown("HMAC_random".into()), &mut broken);
        key_usage(&Named::Unknown("RANDOM".into()), &mut broken);
        assert!(broken[0].text.starts_with("Value 'HMAC_random' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: ["));
        assert!(broken[1].text.starts_with("Value 'RANDOM' at 'keyUsage' failed to satisfy constraint: Member must satisfy enum value set: ["));
    }
}
