//! `*`, `?` and variables in resources and condition values.

use std::borrow::Cow;

use super::{
    context::{Context, Values},
    variable::{Piece, Variable, pieces},
};

/// A text of a policy document that a value of a request is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pattern {
    /// A text without wildcards and variables.
    Plain(String),
    /// It has wildcards, where the comparison knows them.
    Wild(String),
    /// It has variables, which are replaced for each request.
    Template(Vec<Piece>),
}

/// One part of a pattern with wildcards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token {
    Char(char),
    AnyChar,
    AnyRun,
}

impl Token {
    fn of(char: char) -> Self {
        match char {
            '*' => Self::AnyRun,
            '?' => Self::AnyChar,
            char => Self::Char(char),
        }
    }
}

impl Pattern {
    /// Reads a pattern. `variables` is false in documents of a version that has none: `${` means itself
    /// there.
    ///
    /// # Errors
    /// A sentence that quotes the variable that is not known.
    pub(super) fn new(text: &str, variables: bool) -> Result<Self, String> {
        if variables && text.contains("${") {
            return pieces(text).map(Self::Template);
        }
        let text = text.to_owned();
        Ok(if text.contains(['*', '?']) {
            Self::Wild(text)
        } else {
            Self::Plain(text)
        })
    }

    /// Whether each variable has a value in this request, or a default.
    pub(super) fn is_resolved(&self, context: &dyn Context) -> bool {
        match self {
            Self::Plain(_) | Self::Wild(_) => true,
            Self::Template(pieces) => pieces.iter().all(|piece| match piece {
                Piece::Variable(variable) => value(variable, context).is_some(),
                Piece::Text(_) | Piece::Literal(_) => true,
            }),
        }
    }

    /// Whether a value is this text, without wildcards. A variable without a value is equal to nothing.
    pub(super) fn equals(&self, text: &str, context: &dyn Context) -> bool {
        self.resolved(context).is_some_and(|own| own == text)
    }

    /// [`Pattern::equals`], with uppercase and lowercase ASCII letters taken as equal.
    pub(super) fn equals_ignoring_case(&self, text: &str, context: &dyn Context) -> bool {
        self.resolved(context)
            .is_some_and(|own| own.eq_ignore_ascii_case(text))
    }

    /// Whether a value fits the pattern with its wildcards. What a variable stands for has none.
    pub(super) fn fits(&self, text: &str, context: &dyn Context) -> bool {
        match self {
            Self::Plain(own) => own == text,
            Self::Wild(pattern) => fits(pattern, text),
            Self::Template(pieces) => {
                let mut tokens = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => tokens.extend(text.chars().map(Token::of)),
                        Piece::Literal(text) => tokens.extend(text.chars().map(Token::Char)),
                        Piece::Variable(variable) => match value(variable, context) {
                            Some(value) => tokens.extend(value.chars().map(Token::Char)),
                            None => return false,
                        },
                    }
                }
                fits_by(tokens.into_iter(), text, |one, other| one == other)
            }
        }
    }

    fn resolved<'a>(&'a self, context: &'a dyn Context) -> Option<Cow<'a, str>> {
        let pieces = match self {
            Self::Plain(text) | Self::Wild(text) => return Some(Cow::Borrowed(text)),
            Self::Template(pieces) => pieces,
        };
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(own) | Piece::Literal(own) => text.push_str(own),
                Piece::Variable(variable) => text.push_str(&value(variable, context)?),
            }
        }
        Some(Cow::Owned(text))
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) | Self::Wild(text) => f.write_str(text),
            Self::Template(pieces) => pieces.iter().try_for_each(|piece| piece.fmt(f)),
        }
    }
}

/// What a variable stands for in this request.
fn value<'a>(variable: &'a Variable, context: &'a dyn Context) -> Option<Cow<'a, str>> {
    match context.values(&variable.key) {
        Values::One(value) => Some(value),
        // A document with a variable of several values is refused.
        Values::Absent | Values::Several(_) => variable.default.as_deref().map(Cow::Borrowed),
    }
}

/// A pattern of ARNs. They are compared part by part: a `*` never stands for the colon between two of
/// the first six, nor does what stands in the place of a variable.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ArnPattern([Pattern; 6]);

impl ArnPattern {
    /// Reads a pattern of ARNs. Parts that are missing at its end are completed with `*`, as IAM does.
    ///
    /// # Errors
    /// A sentence on the variable that is not known, or that stands where a part is missing.
    pub(super) fn new(text: &str, variables: bool) -> Result<Self, String> {
        let parts = parts(text, variables);
        if variables && parts.len() < 6 && text.contains("${") {
            return Err(format!(
                "{text:?} has a policy variable, so that it must have all six parts of an ARN."
            ));
        }
        let mut patterns = Vec::with_capacity(6);
        for part in parts {
            patterns.push(Pattern::new(part, variables)?);
        }
        patterns.resize(6, Pattern::Wild("*".to_owned()));
        let patterns = patterns.try_into();
        Ok(Self(patterns.expect("an ARN is split into six parts")))
    }

    pub(super) fn fits(&self, arn: &str, context: &dyn Context) -> bool {
        let mut parts = arn.splitn(6, ':');
        let fits = |pattern: &Pattern| parts.next().is_some_and(|part| pattern.fits(part, context));
        self.0.iter().all(fits)
    }

    pub(super) fn is_resolved(&self, context: &dyn Context) -> bool {
        self.0.iter().all(|part| part.is_resolved(context))
    }

    /// The pattern of the service, `kms`, and of the region.
    pub(super) fn service_and_region(&self) -> (&Pattern, &Pattern) {
        (&self.0[2], &self.0[3])
    }
}

impl std::fmt::Display for ArnPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            let colon = if at > 0 { ":" } else { "" };
            write!(f, "{colon}{part}")?;
        }
        Ok(())
    }
}

/// Splits at the first five colons, of which none within a variable counts: `${aws:username}`.
fn parts(text: &str, variables: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut in_variable = false;
    for (at, char) in text.char_indices() {
        match char {
            '$' if variables && text[at..].starts_with("${") => in_variable = true,
            '}' => in_variable = false,
            ':' if !in_variable && parts.len() < 5 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// Whether a text fits a pattern: `*` stands for any characters, `?` for one. Takes time in the
/// order of the product of the lengths at worst, and no memory.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let tokens = pattern.chars().map(Token::of);
    fits_by(tokens, text, |one, other| one == other)
}

/// [`fits`], with uppercase and lowercase ASCII letters taken as equal.
pub(super) fn fits_ignoring_case(pattern: &str, text: &str) -> bool {
    let tokens = pattern.chars().map(Token::of);
    fits_by(tokens, text, |one, other| one.eq_ignore_ascii_case(&other))
}

fn fits_by(
    mut pattern: impl Iterator<Item = Token> + Clone,
    text: &str,
    same: impl Fn(char, char) -> bool,
) -> bool {
    let mut text = text.chars();
    // Where to go on if a guess was wrong: after the last `*`, one character further in the text.
    let mut retry = None;
    loop {
        match (pattern.next(), text.clone().next()) {
            (Some(Token::AnyRun), _) => {
                if pattern.clone().next().is_none() {
                    return true;
                }
                retry = Some((pattern.clone(), text.clone()));
                continue;
            }
            (Some(Token::AnyChar), Some(_)) => {
                text.next();
                continue;
            }
            (Some(Token::Char(wanted)), Some(found)) if same(wanted, found) => {
                text.next();
                continue;
            }
            (None, None) => return true,
            (Some(_) | None, _) => {}
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

    use super::{super::context::ContextKey, *};

    struct User(Option<&'static str>);

    impl Context for User {
        fn values(&self, key: &ContextKey) -> Values<'_> {
            match (key, self.0) {
                (ContextKey::Username, Some(name)) => Values::One(name.into()),
                _ => Values::Absent,
            }
        }
    }

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
            ("arn:aws:kms:us-west-2:11112222333?:key/12*", true),
            // Incomplete ones are completed.
            ("arn:aws:kms", true),
            ("arn:aws:kms:us-west-2:111122223333", true),
            ("arn:aws:s3", false),
            ("*", true),
        ] {
            let pattern = ArnPattern::new(pattern, true).unwrap();
            assert_eq!(pattern.fits(arn, &User(None)), wanted, "{pattern}");
        }
    }

    #[test]
    fn a_variable_stands_for_its_value_and_for_no_wildcard() {
        let with = |pattern: &str, name| {
            let pattern = Pattern::new(pattern, true).unwrap();
            move |text: &str| pattern.fits(text, &User(name))
        };
        assert!(with("a/${aws:username}/*", Some("bob"))("a/bob/c"));
        assert!(!with("a/${aws:username}", Some("*"))("a/bob"));
        assert!(with("a/${AWS:UserName}", Some("*"))("a/*"));
        assert!(!with("a/${aws:username}", None)("a/"));
        assert!(with("a/${aws:username, 'no one'}", None)("a/no one"));
        assert!(with("${*}${?}${$}*", None)("*?$ and more"));
        assert!(!with("${*}", None)("anything"));
        // In a document of 2008 it is a text.
        let old = Pattern::new("${aws:username}", false).unwrap();
        assert!(old.fits("${aws:username}", &User(Some("bob"))));
        // What a user is called cannot move the parts of an ARN.
        let arn = ArnPattern::new("arn:aws:kms:${aws:username}:*:*", true).unwrap();
        assert!(!arn.fits("arn:aws:kms:a:b:c", &User(Some("a:b"))));
        assert!(ArnPattern::new("arn:aws:kms:${aws:username}", true).is_err());
    }

    /// The definition of matching, written as recursion: slow, for comparison.
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

        #[test]
        fn no_pattern_panics(pattern in r"[ab*?:$\{\},' ]{0,30}") {
            let _ = Pattern::new(&pattern, true);
            let _ = ArnPattern::new(&pattern, true);
        }
    }
}
