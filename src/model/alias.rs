//! Alias names, with KMS's rules.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An alias's name, with its `alias/`: letters, digits, `/`, `_` and `-`, at most 256 characters,
/// and not one of those that AWS keeps for itself.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String")]
pub struct AliasName(String);

/// Why a text is no alias name, in the order in which KMS looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AliasFault {
    /// Not 1 to 256 characters.
    Length,
    /// A character outside of [`AliasName::PATTERN`].
    Characters,
    /// It does not begin with `alias/`.
    Prefix,
    /// It has a colon, which the pattern allows and KMS does not.
    Colon,
    /// `alias/` alone.
    Empty,
    /// `alias/aws/…`
    Reserved,
}

impl AliasName {
    /// The longest, in characters.
    pub const LONGEST: usize = 256;
    /// The pattern that KMS prints.
    pub const PATTERN: &str = "^[a-zA-Z0-9:/_-]+$";

    /// The name with its `alias/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AliasName {
    type Err = AliasFault;

    fn from_str(text: &str) -> Result<Self, AliasFault> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'/' | b'_' | b'-');
        if text.is_empty() || text.chars().count() > Self::LONGEST {
            return Err(AliasFault::Length);
        }
        if !text.bytes().all(allowed) {
            return Err(AliasFault::Characters);
        }
        match text.strip_prefix("alias/") {
            None => Err(AliasFault::Prefix),
            Some(_) if text.contains(':') => Err(AliasFault::Colon),
            Some("") => Err(AliasFault::Empty),
            Some(name) if name.starts_with("aws/") => Err(AliasFault::Reserved),
            Some(_) => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for AliasName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map_err(|fault| format!("{text:?} is no alias name: {fault:?}"))
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::KeyReference;

    #[test]
    fn wrong_alias_names_are_refused() {
        let long = format!("alias/{}", "a".repeat(251));
        for (text, fault) in [
            ("", AliasFault::Length),
            (long.as_str(), AliasFault::Length),
            ("alias/a b", AliasFault::Characters),
            ("alias/ä", AliasFault::Characters),
            ("pay", AliasFault::Prefix),
            ("Alias/pay", AliasFault::Prefix),
            ("alias/a:b", AliasFault::Colon),
            ("alias/", AliasFault::Empty),
            ("alias/aws/kms", AliasFault::Reserved),
        ] {
            assert_eq!(text.parse::<AliasName>(), Err(fault), "{text}");
        }
        for text in ["alias/a", "alias/x/y_-9", "alias/awsome", &long[..256]] {
            assert_eq!(text.parse::<AliasName>().unwrap().as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn every_alias_name_is_a_key_reference(text in "(alias/)?[a-zA-Z0-9:/_-]{0,20}") {
            if let Ok(name) = text.parse::<AliasName>() {
                prop_assert_eq!(
                    name.as_str().parse(),
                    Ok(KeyReference::Alias(name.to_string()))
                );
            }
        }
    }
}
