//! Texts of KMS's model: how long they may be, in characters, and of which characters.

use std::ops::RangeInclusive;

use super::outside;
use crate::{
    error::Violation,
    model::{AliasName, Description, Tag},
};

/// What a text must be.
#[derive(Debug)]
pub struct TextType {
    length: RangeInclusive<usize>,
    pattern: Option<Pattern>,
    /// Errors never tell it.
    secret: bool,
}

/// A regular expression as KMS prints it, and what fits it from beginning to end.
#[derive(Debug)]
struct Pattern {
    printed: &'static str,
    fits: fn(&str) -> bool,
}

impl TextType {
    const fn of(length: RangeInclusive<usize>) -> Self {
        Self {
            length,
            pattern: None,
            secret: false,
        }
    }

    const fn fitting(
        length: RangeInclusive<usize>,
        printed: &'static str,
        fits: fn(&str) -> bool,
    ) -> Self {
        Self {
            length,
            pattern: Some(Pattern { printed, fits }),
            secret: false,
        }
    }

    /// Whether a text is of this type. Each constraint that it breaks is pushed, for the value at `path`
    /// in `member`.
    pub(in crate::kms) fn check(
        &self,
        member: &'static str,
        path: &str,
        text: &str,
        broken: &mut Vec<Violation>,
    ) -> bool {
        let before = broken.len();
        if let Some(bound) = outside(chars(text, *self.length.end()), &self.length) {
            broken.push(Violation::new(
                member,
                format!("Member must have length {bound}"),
            ));
        }
        if let Some(pattern) = &self.pattern
            && !(pattern.fits)(text)
        {
            let printed = pattern.printed;
            broken.push(Violation::new(
                member,
                format!("Member must satisfy regular expression pattern: {printed}"),
            ));
        }
        for violation in &mut broken[before..] {
            let told = violation.clone().at(path.to_owned());
            *violation = if self.secret { told } else { told.of(text) };
        }
        broken.len() == before
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

pub(in crate::kms) static ALIAS_NAME: TextType =
    TextType::fitting(1..=AliasName::LONGEST, AliasName::PATTERN, is_name);
/// KMS: BackingKeyIdType.
pub(in crate::kms) static KEY_MATERIAL_ID: TextType =
    TextType::fitting(64..=64, "^[a-f0-9]+$", |text| {
        all_of(text, |c| matches!(c, 'a'..='f' | '0'..='9'))
    });
pub(in crate::kms) static CUSTOM_KEY_STORE_ID: TextType = TextType::of(1..=64);
pub(in crate::kms) static CUSTOM_KEY_STORE_NAME: TextType = TextType::of(1..=256);
pub(in crate::kms) static DESCRIPTION: TextType = TextType::of(0..=Description::LONGEST);
/// KMS: GrantConstraintSourceArnType.
pub(in crate::kms) static SOURCE_ARN: TextType = TextType::fitting(
    20..=512,
    "^arn:aws[a-z0-9-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:.+$",
    |text| {
        let is_low = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
        let parts: Vec<_> = text.splitn(6, ':').collect();
        let [arn, partition, service, region, account, resource] = parts[..] else {
            return false;
        };
        arn == "arn"
            && partition.starts_with("aws")
            && partition.chars().all(is_low)
            && all_of(service, is_low)
            && region.chars().all(is_low)
            && account.len() == 12
            && all_of(account, |c| c.is_ascii_digit())
            && all_of(resource, |c| {
                !matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
            })
    },
);
pub(in crate::kms) static GRANT_ID: TextType = TextType::of(1..=128);
pub(in crate::kms) static GRANT_NAME: TextType =
    TextType::fitting(1..=256, AliasName::PATTERN, is_name);
/// A bearer's secret.
pub(in crate::kms) static GRANT_TOKEN: TextType = TextType {
    secret: true,
    ..TextType::of(1..=8192)
};
pub(in crate::kms) static KEY_ID: TextType = TextType::of(1..=2048);
pub(in crate::kms) static KEY_MATERIAL_DESCRIPTION: TextType =
    TextType::fitting(0..=256, r"^[a-zA-Z0-9:/_\s.-]+$", |text| {
        all_of(text, |c| {
            is_word(c) || matches!(c, ':' | '/' | '.' | '-' | '\t'..='\r' | ' ')
        })
    });
pub(in crate::kms) static MARKER: TextType =
    TextType::fitting(1..=1024, r"[\u0020-\u00FF]*", |text| {
        text.chars().all(is_latin)
    });
pub(in crate::kms) static POLICY: TextType =
    TextType::fitting(1..=131_072, r"[\u0009\u000A\u000D\u0020-\u00FF]+", |text| {
        all_of(text, |c| is_latin(c) || matches!(c, '\t' | '\n' | '\r'))
    });
pub(in crate::kms) static POLICY_NAME: TextType =
    TextType::fitting(1..=128, r"[\w]+", |text| all_of(text, is_word));
pub(in crate::kms) static PRINCIPAL_ID: TextType =
    TextType::fitting(1..=256, r"^[\w+=,.@:/-]+$", |text| {
        all_of(text, |c| {
            is_word(c) || matches!(c, '+' | '=' | ',' | '.' | '@' | ':' | '/' | '-')
        })
    });
pub(in crate::kms) static REGION: TextType =
    TextType::fitting(1..=32, r"^([a-z]+-){2,3}\d+$", |text| {
        let parts: Vec<_> = text.split('-').collect();
        let Some((number, words)) = parts.split_last() else {
            return false;
        };
        let is_low = |word: &&str| all_of(word, |c| c.is_ascii_lowercase());
        matches!(words.len(), 2 | 3)
            && words.iter().all(is_low)
            && all_of(number, |c| c.is_ascii_digit())
    });
pub(in crate::kms) static SERVICE_PRINCIPAL: TextType = TextType::fitting(
    1..=128,
    r"^([A-Za-z0-9\-]+)\.([A-Za-z0-9\-]+)(\.[A-Za-z0-9\-]+)+$",
    |text| {
        let is_label = |label| all_of(label, |c| c.is_ascii_alphanumeric() || c == '-');
        text.split('.').count() >= 3 && text.split('.').all(is_label)
    },
);
pub(in crate::kms) static TAG_KEY: TextType = TextType::of(1..=Tag::LONGEST_KEY);
pub(in crate::kms) static TAG_VALUE: TextType = TextType::of(0..=Tag::LONGEST_VALUE);
pub(in crate::kms) static XKS_KEY_ID: TextType =
    TextType::fitting(1..=128, "^[a-zA-Z0-9-_.]+$", |text| {
        all_of(text, |c| is_word(c) || matches!(c, '-' | '.'))
    });

/// What aliases and grants are called.
fn is_name(text: &str) -> bool {
    all_of(text, |c| is_word(c) || matches!(c, ':' | '/' | '-'))
}

/// Some characters, and no others than these.
fn all_of(text: &str, is_one: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(is_one)
}

/// `\w`
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// `\u0020-\u00FF`
fn is_latin(c: char) -> bool {
    matches!(c, ' '..='ÿ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(of: &TextType, text: &str) -> Vec<String> {
        let mut broken = Vec::new();
        assert_eq!(
            of.check("member", "member", text, &mut broken),
            broken.is_empty()
        );
        broken.iter().map(|v| v.text(str::to_owned)).collect()
    }

    #[test]
    fn patterns_are_those_of_kms() {
        for (of, good, bad) in [
            (&ALIAS_NAME, "alias/a:B_9-", "alias/a b"),
            (&GRANT_NAME, "a", "ä"),
            (&KEY_MATERIAL_DESCRIPTION, "a b\tc:/_.-", "a,b"),
            (&MARKER, " ~\u{7f}ÿ", "a\n"),
            (&MARKER, "a", "€"),
            (&POLICY, "{\t\r\n ÿ}", "{\u{b}}"),
            (&POLICY, "a", "Ā"),
            (&POLICY_NAME, "aZ_9", "a-b"),
            (&PRINCIPAL_ID, "arn:aws:iam::1:role/a@b,c=d+e.f-g", "a*"),
            (&REGION, "us-gov-west-1", "us-1"),
            (&REGION, "eu-central-12", "a-b-c-d-1"),
            (&REGION, "a-b-1", "eu-central-"),
            (&SERVICE_PRINCIPAL, "a.amazonaws.com", "a.b"),
            (
                &SOURCE_ARN,
                "arn:aws-cn:s3::012345678901:a:b",
                "arn:aws:s3::01234567890:bucket",
            ),
            (&SERVICE_PRINCIPAL, "A-1.b.c.d", "a..b.c"),
            (&XKS_KEY_ID, "a-Z_.9", "a/b"),
        ] {
            assert!(texts(of, good).is_empty(), "{good}");
            let [one] = &texts(of, bad)[..] else {
                panic!("{bad}");
            };
            let printed = of.pattern.as_ref().unwrap().printed;
            assert_eq!(
                *one,
                format!(
                    "Value '{bad}' at 'member' failed to satisfy constraint: Member must satisfy regular expression pattern: {printed}"
                )
            );
        }
    }

    #[test]
    fn all_constraints_that_a_text_breaks_are_told_and_the_text_whole() {
        let long = "€".repeat(129);
        for (text, length) in [
            ("", "greater than or equal to 1"),
            (&long, "less than or equal to 128"),
        ] {
            assert_eq!(
                texts(&POLICY_NAME, text),
                [
                    format!(
                        "Value '{text}' at 'member' failed to satisfy constraint: Member must have length {length}"
                    ),
                    format!(
                        r"Value '{text}' at 'member' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w]+"
                    ),
                ]
            );
        }
        assert_eq!(texts(&MARKER, "").len(), 1);
        assert_eq!(
            texts(&GRANT_TOKEN, &"t".repeat(8193)),
            [
                "Value at 'member' failed to satisfy constraint: Member must have length less than or equal to 8192"
            ]
        );
        assert!(texts(&KEY_ID, &"ä".repeat(2048)).is_empty());
        assert_eq!(texts(&KEY_ID, &"a".repeat(2049)).len(), 1);
    }
}
