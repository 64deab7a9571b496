//! Amazon Resource Names, accounts, key IDs, and the ways in which a request names a key.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An AWS account number: 12 digits.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String")]
pub struct AccountId(String);

impl AccountId {
    /// The 12 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is no account: it must be 12 digits"))
        }
    }
}

impl TryFrom<String> for AccountId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key ID: a UUID in lowercase, or `mrk-` and 32 lowercase hex digits.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String")]
pub struct KeyId(String);

impl KeyId {
    /// The ID as KMS prints it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = |part: &str, len: usize| {
            part.len() == len
                && part
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let uuid = || {
            let parts: Vec<&str> = text.split('-').collect();
            parts.len() == 5
                && parts
                    .iter()
                    .zip([8, 4, 4, 4, 12])
                    .all(|(part, len)| hex(part, len))
        };
        if text.strip_prefix("mrk-").is_some_and(|rest| hex(rest, 32)) || uuid() {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is no key ID: it must be a UUID in lowercase"
            ))
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The six parts of an Amazon Resource Name, `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`. Each but
/// the first may be empty, and the resource may have colons of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arn<'a> {
    /// `arn`; a pattern may have something else here.
    pub scheme: &'a str,
    /// `aws`
    pub partition: &'a str,
    /// `kms`, `iam`, `sts`
    pub service: &'a str,
    /// Empty in ARNs of principals.
    pub region: &'a str,
    /// 12 digits, if it is well-formed.
    pub account: &'a str,
    /// All that follows the fifth colon.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// Splits a text at its first five colons; `None` if it has fewer.
    pub fn split(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        Some(Self {
            scheme: parts.next()?,
            partition: parts.next()?,
            service: parts.next()?,
            region: parts.next()?,
            account: parts.next()?,
            resource: parts.next()?,
        })
    }

    /// The parts in their order.
    pub fn parts(&self) -> [&'a str; 6] {
        [
            self.scheme,
            self.partition,
            self.service,
            self.region,
            self.account,
            self.resource,
        ]
    }
}

/// The region and account that an ARN names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ArnScope {
    /// `us-west-2`
    pub region: String,
    /// Whose key it is.
    pub account: AccountId,
}

/// The four ways to name a key (KMS: KeyId).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyReference {
    /// A bare key ID: a key of the caller's account.
    Id(KeyId),
    /// A key ARN.
    Arn(ArnScope, KeyId),
    /// `alias/…`: an alias of the caller's account.
    Alias(String),
    /// An alias ARN; the name includes `alias/`.
    AliasArn(ArnScope, String),
}

/// Why a text names no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReferenceFault {
    /// It begins with `arn:` but is not an ARN of a KMS key or alias.
    Arn,
    /// It is neither a key ID nor an alias.
    KeyId,
}

impl FromStr for KeyReference {
    type Err = ReferenceFault;

    fn from_str(text: &str) -> Result<Self, ReferenceFault> {
        if text.starts_with("arn:") {
            return parse_arn(text).ok_or(ReferenceFault::Arn);
        }
        if is_alias_name(text) {
            return Ok(Self::Alias(text.to_owned()));
        }
        text.parse()
            .map(Self::Id)
            .map_err(|_| ReferenceFault::KeyId)
    }
}

impl fmt::Display for KeyReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Arn(scope, id) => f.write_str(&key_arn(&scope.region, &scope.account, id)),
            Self::Alias(name) => f.write_str(name),
            Self::AliasArn(scope, name) => {
                f.write_str(&alias_arn(&scope.region, &scope.account, name))
            }
        }
    }
}

/// The ARN of a key.
pub fn key_arn(region: &str, account: &AccountId, key_id: &KeyId) -> String {
    format!("arn:aws:kms:{region}:{account}:key/{key_id}")
}

/// The ARN of an alias; `name` includes `alias/`.
pub fn alias_arn(region: &str, account: &AccountId, name: &str) -> String {
    format!("arn:aws:kms:{region}:{account}:{name}")
}

/// `alias/…` in an alias name or alias ARN, whether or not the rest is well-formed.
pub fn alias_in(key_id: &str) -> Option<&str> {
    let name = match key_id.starts_with("arn:") {
        true => Arn::split(key_id)?.resource,
        false => key_id,
    };
    name.starts_with("alias/").then_some(name)
}

fn parse_arn(text: &str) -> Option<KeyReference> {
    let ["arn", "aws", "kms", region, account, resource] = Arn::split(text)?.parts() else {
        return None;
    };
    let in_region = !region.is_empty()
        && region
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !in_region {
        return None;
    }
    let scope = ArnScope {
        region: region.to_owned(),
        account: account.parse().ok()?,
    };
    if is_alias_name(resource) {
        return Some(KeyReference::AliasArn(scope, resource.to_owned()));
    }
    Some(KeyReference::Arn(
        scope,
        resource.strip_prefix("key/")?.parse().ok()?,
    ))
}

/// KMS: `alias/` and letters, digits, `/`, `_`, `-`; at most 256 characters in all.
fn is_alias_name(text: &str) -> bool {
    text.len() <= 256
        && text.strip_prefix("alias/").is_some_and(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-'))
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn a_key_is_named_by_id_key_arn_alias_or_alias_arn() {
        assert_eq!(ID.parse(), Ok(KeyReference::Id(ID.parse().unwrap())));
        let scope = ArnScope {
            region: "us-west-2".into(),
            account: "111122223333".parse().unwrap(),
        };
        assert_eq!(
            format!("arn:aws:kms:us-west-2:111122223333:key/{ID}").parse(),
            Ok(KeyReference::Arn(scope.clone(), ID.parse().unwrap()))
        );
        assert_eq!(
            "alias/a/b".parse(),
            Ok(KeyReference::Alias("alias/a/b".into()))
        );
        assert_eq!(
            "arn:aws:kms:us-west-2:111122223333:alias/x".parse(),
            Ok(KeyReference::AliasArn(scope, "alias/x".into()))
        );
    }

    #[test]
    fn other_texts_are_no_key_reference() {
        for text in [
            "",
            "key_id",
            "alias/",
            "alias/a b",
            &ID.to_uppercase(),
            "mrk-12",
            &ID[1..],
        ] {
            assert_eq!(
                text.parse::<KeyReference>(),
                Err(ReferenceFault::KeyId),
                "{text}"
            );
        }
        for text in [
            "arn:",
            "arn:aws:s3:us-west-2:111122223333:key/x",
            &format!("arn:aws:kms:us-west-2:1111:key/{ID}"),
            &format!("arn:aws:kms::111122223333:key/{ID}"),
            "arn:aws:kms:us-west-2:111122223333:key/not-a-uuid",
            &format!("arn:aws:kms:us-west-2:111122223333:{ID}"),
        ] {
            assert_eq!(
                text.parse::<KeyReference>(),
                Err(ReferenceFault::Arn),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn parse_of_print_is_the_same(
            region in "[a-z]{2}-[a-z]{4}-[0-9]",
            account in "[0-9]{12}",
            id in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            alias in "alias/[a-zA-Z0-9/_-]{1,40}",
        ) {
            let scope = ArnScope { region, account: account.parse().unwrap() };
            let id: KeyId = id.parse().unwrap();
            for reference in [
                KeyReference::Id(id.clone()),
                KeyReference::Arn(scope.clone(), id),
                KeyReference::Alias(alias.clone()),
                KeyReference::AliasArn(scope, alias),
            ] {
                prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = text.parse::<KeyReference>();
        }
    }
}
