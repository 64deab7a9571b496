//! `*` and `?` in actions, resources and condition values.

/// Whether a text fits a pattern: `*` stands for any characters, `?` for one. Takes time in the
/// order of the product of the lengths at worst, and no memory.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    fits_by(pattern, text, |one, other| one == other)
}

/// The same where ASCII letters are alike, be they large or small.
pub(super) fn fits_ignoring_case(pattern: &str, text: &str) -> bool {
    fits_by(pattern, text, |one, other| one.eq_ignore_ascii_case(&other))
}

/// ARNs are compared part by part: a `*` never stands for the colon between two of the first six.
pub(super) fn fits_arn(pattern: &str, arn: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.splitn(6, ':'), arn.splitn(6, ':'));
    loop {
        match (patterns.next(), parts.next()) {
            (Some(pattern), Some(part)) if fits(pattern, part) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

fn fits_by(pattern: &str, text: &str, same: impl Fn(char, char) -> bool) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Where to go on if a guess was wrong: after the last `*`, one character further in the text.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let rest = pattern.clone();
        match (pattern.next(), text.clone().next()) {
            (Some('*'), _) => {
                retry = Some((pattern.clone(), text.clone()));
                continue;
            }
            (Some(wanted), Some(found)) if wanted == '?' || same(wanted, found) => {
                text.next();
                continue;
            }
            (None, None) => return true,
            (Some(_) | None, _) => drop(rest),
        }
        let Some((after, mut from)) = retry.take() else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (pattern, text) = (after.clone(), from.clone());
        retry = Some((after, from));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, wanted) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("?", "ä", true),
            ("*b*b*", "abab", true),
            ("*bb", "abab", false),
            ("a*b*c", "a-b-b-c", true),
            ("**", "x", true),
            ("a", "ab", false),
            ("ab", "a", false),
        ] {
            assert_eq!(fits(pattern, text), wanted, "{pattern} {text}");
        }
        assert!(fits_ignoring_case("kms:generate*", "kms:GenerateMac"));
        assert!(!fits("kms:generate*", "kms:GenerateMac"));
    }

    #[test]
    fn a_star_does_not_cross_the_parts_of_an_arn() {
        let arn = "arn:aws:kms:us-west-2:111122223333:key/1234";
        for (pattern, wanted) in [
            (arn, true),
            ("arn:aws:kms:*:111122223333:key/*", true),
            ("arn:aws:kms:us-*:*:*", true),
            ("arn:*:key/1234", false),
            ("arn:aws:kms:us-west-2:111122223333", false),
            ("arn:aws:kms:us-west-2:11112222333?:key/12*", true),
        ] {
            assert_eq!(fits_arn(pattern, arn), wanted, "{pattern}");
        }
    }

    /// Slow, and so plain that it is right.
    fn plainly(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| plainly(rest, &text[skip..])),
            Some((wanted, rest)) => text.split_first().is_some_and(|(found, left)| {
                (*wanted == '?' || wanted == found) && plainly(rest, left)
            }),
        }
    }

    proptest! {
        #[test]
        fn fits_as_the_plain_rule_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(fits(&pattern, &text), plainly(&p, &t));
        }
    }
}
