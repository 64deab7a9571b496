//! Which of the calls that a rule is about it acts on.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::files;

/// The end of a rule: `always`, `once [WORD]`, `every N`, `probability P`, `one`, and
/// `when-message-contains HEX` besides.
pub(crate) struct When {
    how: How,
    /// Only calls whose message has these bytes in it.
    contains: Option<Vec<u8>>,
}

enum How {
    Always,
    Every { every: u64, calls: AtomicU64 },
    Once { done: AtomicBool, marker: PathBuf },
    One { busy: AtomicBool },
    Probability(f64),
}

impl When {
    /// Reads the words after a rule's own; `line` is the whole rule.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn parse(words: &[&str], line: &str, control: &Path) -> Result<Self, String> {
        let (words, contains) = match *words {
            [ref words @ .., "when-message-contains", hex] => (words, Some(bytes(hex)?)),
            _ => (words, None),
        };
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
                    "{:?}: not always, once, every N, probability P or when-message-contains HEX",
                    words.join(" ")
                ));
            }
        };
        Ok(Self { how, contains })
    }

    /// Whether it wants to see messages.
    pub(crate) fn is_about_messages(&self) -> bool {
        self.contains.is_some()
    }

    /// Whether it is `one`, which only makes sense for what lasts.
    pub(crate) fn is_one(&self) -> bool {
        matches!(self.how, How::One { .. })
    }

    /// Whether the rule acts on this call; counts it.
    pub(crate) fn acts(&self, message: &[u8]) -> bool {
        if let Some(bytes) = &self.contains
            && !message.windows(bytes.len()).any(|part| part == bytes)
        {
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
