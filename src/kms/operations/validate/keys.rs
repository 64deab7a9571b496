//! Members of KeyService's requests.
//!
//! Where KMS has both constraints and rules of another exception, the constraints are pushed and the
//! rule comes as the inner error: all broken constraints are told before the first rule.

use super::{
    super::{EnumMember, rotation::IncludeKeyMaterial, tags::TagPair},
    enum_violation, key_id, null, number, optional_text, outside, refuse, required_text,
    text::{
        ALIAS_NAME, CUSTOM_KEY_STORE_ID, DESCRIPTION, MARKER, POLICY, POLICY_NAME, TAG_KEY,
        TAG_VALUE, TextType, XKS_KEY_ID,
    },
};
use crate::{
    error::{Error, Kind, Violation},
    model::{
        AliasFault, AliasName, Description, KeySpec, KeyUsage, Origin, Tag, TagFault, Tags,
        TagsFault,
    },
};

/// A value that KMS knows, whether or not hsmac supports it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::kms) enum KmsValue<T> {
    /// One that hsmac supports.
    Supported(T),
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
    named: &EnumMember<KeyUsage>,
    broken: &mut Vec<Violation>,
) -> Option<KmsValue<KeyUsage>> {
    one_of("keyUsage", named, &KEY_USAGES, broken)
}

/// KMS: KeySpec.
pub(in crate::kms) fn key_spec(
    named: &EnumMember<KeySpec>,
    broken: &mut Vec<Violation>,
) -> Option<KmsValue<KeySpec>> {
    one_of("keySpec", named, &KEY_SPECS, broken)
}

/// KMS: CustomerMasterKeySpec, which has been as it is since KeySpec took its place.
pub(in crate::kms) fn customer_master_key_spec(
    named: &EnumMember<KeySpec>,
    broken: &mut Vec<Violation>,
) -> Option<KmsValue<KeySpec>> {
    one_of("customerMasterKeySpec", named, &KEY_SPECS[..13], broken)
}

/// KMS: OriginType.
pub(in crate::kms) fn origin(
    named: &EnumMember<Origin>,
    broken: &mut Vec<Violation>,
) -> Option<KmsValue<Origin>> {
    let all = ["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"];
    one_of("origin", named, &all, broken)
}

/// KMS: IncludeKeyMaterial.
pub(in crate::kms) fn include_key_material(
    named: &EnumMember<IncludeKeyMaterial>,
    broken: &mut Vec<Violation>,
) {
    let all = IncludeKeyMaterial::ALL.map(IncludeKeyMaterial::name);
    one_of("includeKeyMaterial", named, &all, broken);
}

/// All that KMS's model has, in its order.
const KEY_USAGES: [&str; 5] = [
    "SIGN_VERIFY",
    "ENCRYPT_DECRYPT",
    "GENERATE_VERIFY_MAC",
    "KEY_AGREEMENT",
    "ENCAPSULATE_DECAPSULATE",
];

/// All that KMS's model has, in its order.
const KEY_SPECS: [&str; 20] = [
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
    "SYMMETRIC_DEFAULT",
    "HMAC_224",
    "HMAC_256",
    "HMAC_384",
    "HMAC_512",
    "SM2",
    "ML_DSA_44",
    "ML_DSA_65",
    "ML_DSA_87",
    "ECC_NIST_EDWARDS25519",
    "ML_KEM_512",
    "ML_KEM_768",
    "ML_KEM_1024",
];

fn one_of<T: Copy>(
    member: &'static str,
    named: &EnumMember<T>,
    all: &[&str],
    broken: &mut Vec<Violation>,
) -> Option<KmsValue<T>> {
    match named {
        EnumMember::Absent => None,
        EnumMember::Known(known) => Some(KmsValue::Supported(*known)),
        EnumMember::Unknown(name) if all.contains(&name.as_str()) => {
            Some(KmsValue::Other(name.clone()))
        }
        EnumMember::Unknown(name) => {
            broken.push(enum_violation(member, name, all));
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
    DESCRIPTION
        .check("description", "description", &text, broken)
        .then(|| Description::new(text))
        .flatten()
}

/// KMS: AliasNameType, and the rules that it does not tell.
pub(in crate::kms) fn alias_name(
    text: Option<&str>,
    broken: &mut Vec<Violation>,
) -> Option<Result<AliasName, Error>> {
    let text = required_text("aliasName", &ALIAS_NAME, text, broken)?;
    let error = match text.parse() {
        Ok(name) => return Some(Ok(name)),
        // Told above.
        Err(AliasFault::Length | AliasFault::Characters) => return None,
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
        let key = in_list("tags", at("tagKey"), &TAG_KEY, key, broken);
        let value = in_list("tags", at("tagValue"), &TAG_VALUE, value, broken);
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
        TAG_KEY.check("tagKeys", &at, key, broken);
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

/// Limit and marker of a list that always fits on one page.
pub(in crate::kms) fn page(
    of_limit: Option<i64>,
    of_marker: Option<&str>,
    broken: &mut Vec<Violation>,
) {
    limit(of_limit, 1, 1, broken);
    if let Some(text) = of_marker {
        marker(text, broken);
    }
}

/// KMS: MarkerType.
pub(in crate::kms) fn marker(text: &str, broken: &mut Vec<Violation>) -> bool {
    MARKER.check("marker", "marker", text, broken)
}

/// KMS: PolicyType, where it must be there.
pub(in crate::kms) fn required_policy<'a>(
    text: Option<&'a str>,
    broken: &mut Vec<Violation>,
) -> Option<&'a str> {
    required_text("policy", &POLICY, text, broken)
}

/// KMS: PolicyType.
pub(in crate::kms) fn policy(text: Option<&str>, broken: &mut Vec<Violation>) {
    optional_text("policy", &POLICY, text, broken);
}

/// KMS: CustomKeyStoreIdType.
pub(in crate::kms) fn custom_key_store_id(id: Option<&str>, broken: &mut Vec<Violation>) {
    optional_text("customKeyStoreId", &CUSTOM_KEY_STORE_ID, id, broken);
}

/// KMS: XksKeyIdType.
pub(in crate::kms) fn xks_key_id(id: Option<&str>, broken: &mut Vec<Violation>) {
    optional_text("xksKeyId", &XKS_KEY_ID, id, broken);
}

/// KMS: ResourceOwnersList. Whether the caller's own keys are asked for.
pub(in crate::kms) fn resource_owners(
    owners: Option<&[String]>,
    broken: &mut Vec<Violation>,
) -> bool {
    const SELF: &str = "SELF";
    let Some(owners) = owners else { return true };
    if let Some(bound) = outside(owners.len(), &(1..=2)) {
        let must = format!("Member must have length {bound}");
        let list = format!("[{}]", owners.join(", "));
        broken.push(Violation::new("resourceOwners", must).of(list));
        return false;
    }
    let all = [SELF, "OTHER_ACCOUNTS_VIA_RAM"];
    for (index, owner) in owners.iter().enumerate() {
        if !all.contains(&owner.as_str()) {
            let at = format!("resourceOwners.{}.member", index + 1);
            broken.push(enum_violation("resourceOwners", owner, &all).at(at));
        }
    }
    owners.iter().any(|owner| owner == SELF)
}

/// KMS: PolicyNameType.
pub(in crate::kms) fn policy_name(name: Option<&str>, broken: &mut Vec<Violation>) {
    optional_text("policyName", &POLICY_NAME, name, broken);
}

/// A text within a list, at this path, where it must be there: the text if it holds.
fn in_list(
    member: &'static str,
    at: String,
    of: &TextType,
    text: Option<String>,
    broken: &mut Vec<Violation>,
) -> Option<String> {
    let Some(text) = text else {
        broken.push(Violation::null(member).at(at));
        return None;
    };
    of.check(member, &at, &text, broken).then_some(text)
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
        assert!(broken[0].text(str::to_owned).ends_with("' at 'tags.2.member.tagKey' failed to satisfy constraint: Member must have length less than or equal to 128"));
        assert!(broken[1].text(str::to_owned).ends_with("' at 'tags.2.member.tagValue' failed to satisfy constraint: Member must have length less than or equal to 256"));

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
        let texts: Vec<_> = broken.iter().map(|v| v.text(str::to_owned)).collect();
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
            broken[0].text(str::to_owned),
            "Value '' at 'tagKeys.2.member' failed to satisfy constraint: Member must have length greater than or equal to 1"
        );
    }

    #[test]
    fn wrong_alias_names_are_told_as_kms_tells_them() {
        let mut broken = Vec::new();
        assert!(alias_name(None, &mut broken).is_none());
        assert!(alias_name(Some(""), &mut broken).is_none());
        assert!(alias_name(Some("alias/a b"), &mut broken).is_none());
        let texts: Vec<_> = broken.iter().map(|v| v.text(str::to_owned)).collect();
        assert_eq!(
            texts,
            [
                "Value null at 'aliasName' failed to satisfy constraint: Member must not be null",
                "Value '' at 'aliasName' failed to satisfy constraint: Member must have length greater than or equal to 1",
                "Value '' at 'aliasName' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$",
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
            key_spec(&EnumMember::Unknown("RSA_2048".into()), &mut broken),
            Some(KmsValue::Other("RSA_2048".into()))
        );
        assert_eq!(
            key_usage(&EnumMember::Known(KeyUsage::GenerateVerifyMac), &mut broken),
            Some(KmsValue::Supported(KeyUsage::GenerateVerifyMac))
        );
        assert_eq!(origin(&EnumMember::Absent, &mut broken), None);
        assert!(broken.is_empty());
        key_spec(&EnumMember::Unknown("HMAC_random".into()), &mut broken);
        key_usage(&EnumMember::Unknown("RANDOM".into()), &mut broken);
        assert!(broken[0].text(str::to_owned).starts_with("Value 'HMAC_random' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: ["));
        assert!(broken[1].text(str::to_owned).starts_with("Value 'RANDOM' at 'keyUsage' failed to satisfy constraint: Member must satisfy enum value set: ["));
    }
}
