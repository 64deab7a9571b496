//! Which of the calls that a rule is about it acts on.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::files;

/// The end of a rule: `always`, `once [WORD]`, `every N`, `probability P`, `one`, and conditions
/// such as `when-message-contains HEX` besides.
pub(crate) struct When {
    how: How,
    /// All of them must hold.
    only: Vec<Condition>,
}

enum How {
    Always,
    Every { every: u64, calls: AtomicU64 },
    Once { done: AtomicBool, marker: PathBuf },
    One { busy: AtomicBool },
    Probability(f64),
}

enum Condition {
    Attempt { first: u64, last: u64 },
    KeyId(Vec<u8>),
    KeyLabel(Vec<u8>),
    MessageBegins(Vec<u8>),
    MessageContains(Vec<u8>),
    Session(u64),
}

/// What a call is about, as far as the rules in force ask for it.
#[derive(Default)]
pub(crate) struct Subject<'a> {
    /// The message that the caller passes; empty if none.
    pub(crate) message: &'a [u8],
    /// The key or other object.
    pub(crate) key: Option<KeyName>,
    /// Which of the sessions that the process has opened since C_Initialize, from 1.
    pub(crate) session: Option<u64>,
    /// Which C_Login of the user this is, of all processes together, from 1.
    pub(crate) attempt: Option<u64>,
}

/// What a rule can name an object by.
#[derive(Clone, Default)]
pub(crate) struct KeyName {
    pub(crate) label: Vec<u8>,
    pub(crate) id: Vec<u8>,
}

impl When {
    /// Reads the words after a rule's own; `line` is the whole rule.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn parse(words: &[&str], line: &str, control: &Path) -> Result<Self, String> {
        let is_condition = |word: &&str| word.starts_with("when-");
        let conditions = words.iter().position(is_condition).unwrap_or(words.len());
        let (words, mut rest) = words.split_at(conditions);
        let mut only = Vec::new();
        while let [name, value @ ..] = rest {
            let end = value.iter().position(is_condition).unwrap_or(value.len());
            only.push(Condition::parse(name, &value[..end].join(" "))?);
            rest = &value[end..];
        }
        let how = match *words {
            [] | ["always"] => How::Always,
            ["once"] | ["once", _] => How::Once {
                done: AtomicBool::new(false),
                marker: files::beside(control, &format!("done-{}", slug(line))),
            },
            ["one"] => How::One {
                busy: AtomicBool::new(false),
            },
            ["every", every] => match every.parse() {
                Ok(every) if every > 0 => How::Every {
                    every,
                    calls: AtomicU64::new(0),
                },
                _ => return Err(format!("every {every}: not a whole number from 1")),
            },
            ["probability", chance] => match chance.parse() {
                Ok(chance) if (0.0..=1.0).contains(&chance) => How::Probability(chance),
                _ => return Err(format!("probability {chance}: not a number from 0 to 1")),
            },
            _ => {
                return Err(format!(
                    "{:?}: not always, once, every N, probability P or a condition (when-…)",
                    words.join(" ")
                ));
            }
        };
        Ok(Self { how, only })
    }

    /// Whether it wants to see messages.
    pub(crate) fn is_about_messages(&self) -> bool {
        self.only.iter().any(|condition| {
            matches!(
                condition,
                Condition::MessageBegins(_) | Condition::MessageContains(_)
            )
        })
    }

    /// Whether it wants to know the key.
    pub(crate) fn is_about_keys(&self) -> bool {
        self.only
            .iter()
            .any(|condition| matches!(condition, Condition::KeyId(_) | Condition::KeyLabel(_)))
    }

    /// Whether it wants to know which session it is.
    pub(crate) fn is_about_sessions(&self) -> bool {
        let mut only = self.only.iter();
        only.any(|condition| matches!(condition, Condition::Session(_)))
    }

    /// Whether it counts logins.
    pub(crate) fn is_about_logins(&self) -> bool {
        self.only
            .iter()
            .any(|condition| matches!(condition, Condition::Attempt { .. }))
    }

    /// Whether it is `one`, which only makes sense for what lasts.
    pub(crate) fn is_one(&self) -> bool {
        matches!(self.how, How::One { .. })
    }

    /// Whether the rule acts on this call; counts it.
    pub(crate) fn acts(&self, subject: &Subject<'_>) -> bool {
        if !self.only.iter().all(|condition| condition.holds(subject)) {
            return false;
        }
        match &self.how {
            How::Always => true,
            How::Every { every, calls } => (calls.fetch_add(1, Relaxed) + 1).is_multiple_of(*every),
            How::Once { done, marker } => !done.swap(true, Relaxed) && files::claim(marker),
            How::One { busy } => !busy.swap(true, Relaxed),
            How::Probability(chance) => {
                // The keys of a RandomState differ each time; 53 bits make a fraction.
                let bits = RandomState::new().hash_one(0) >> 11;
                (bits as f64) < chance * (1_u64 << 53) as f64
            }
        }
    }

    /// The call that [`Self::acts`] let in is over.
    pub(crate) fn over(&self) {
        if let How::One { busy } = &self.how {
            busy.store(false, Relaxed);
        }
    }
}

impl Condition {
    fn parse(name: &str, value: &str) -> Result<Self, String> {
        if value.is_empty() {
            return Err(format!("{name}: of what?"));
        }
        match name {
            "when-attempt" => attempts(value),
            "when-key-id" => Ok(Self::KeyId(bytes(value)?)),
            "when-key-label" => Ok(Self::KeyLabel(value.as_bytes().to_vec())),
            "when-message-begins" => Ok(Self::MessageBegins(bytes(value)?)),
            "when-message-contains" => Ok(Self::MessageContains(bytes(value)?)),
            "when-session" => match value.parse() {
                Ok(number) if number > 0 => Ok(Self::Session(number)),
                _ => Err(format!("{name} {value}: not a whole number from 1")),
            },
            _ => Err(format!("{name}: no such condition")),
        }
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Attempt { first, last } => subject
                .attempt
                .is_some_and(|attempt| (*first..=*last).contains(&attempt)),
            Self::KeyId(id) => subject.key.as_ref().is_some_and(|key| key.id == *id),
            Self::KeyLabel(label) => subject.key.as_ref().is_some_and(|key| key.label == *label),
            Self::MessageBegins(bytes) => subject.message.starts_with(bytes),
            Self::MessageContains(bytes) => subject
                .message
                .windows(bytes.len())
                .any(|part| part == bytes),
            Self::Session(number) => subject.session == Some(*number),
        }
    }
}

/// `N`, `N..M` with both ends, or `N..` without an end.
fn attempts(text: &str) -> Result<Condition, String> {
    let wrong = || format!("when-attempt {text}: not N, N..M or N.., from 1");
    let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
    let (first, last) = match text.split_once("..") {
        None => (number(text), number(text)),
        Some((first, "")) => (number(first), Some(u64::MAX)),
        Some((first, last)) => (number(first), number(last)),
    };
    let (first, last) = (first.ok_or_else(wrong)?, last.ok_or_else(wrong)?);
    if first > last {
        return Err(wrong());
    }
    Ok(Condition::Attempt { first, last })
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digits = hex.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return Err(format!("{hex}: not an even number of hex digits"));
    }
    digits
        .chunks(2)
        .map(|pair| {
            let pair = str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{hex}: not hex digits"))
}

/// A rule as part of a file name.
fn slug(line: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    line.chars().map(plain).take(150).collect()
}
