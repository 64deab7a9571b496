//! Names of records, and prefixes of names.

use std::{fmt, sync::Arc};

/// The longest name, in bytes.
const LONGEST: usize = 1024;

/// A record's name, such as `key/111122223333/1234abcd-…`: 1 to 1,024 visible ASCII characters.
/// Parts are set apart by `/`; names sort by their bytes.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<str>);

/// The beginning of names, down to a `/`: `key/111122223333/`.
#[derive(Clone, Eq, PartialEq)]
pub struct Prefix(Arc<str>);

/// Why a text is no name or prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} {1}")]
pub struct NotAName(String, &'static str);

impl Name {
    /// Takes a text for a name.
    ///
    /// # Errors
    /// A sentence: the text is empty, longer than 1,024 bytes, or has a character that is not visible ASCII.
    pub fn new(text: &str) -> Result<Self, NotAName> {
        if text.is_empty() {
            return Err(NotAName(text.into(), "is no name: it is empty"));
        }
        visible(text)?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Prefix {
    /// Takes a text for a prefix; the empty one is the beginning of every name.
    ///
    /// # Errors
    /// A sentence: the text does not end with `/`, or could not begin a name.
    pub fn new(text: &str) -> Result<Self, NotAName> {
        // Without the slash, account 1 would list what account 11 has.
        if !text.is_empty() && !text.ends_with('/') {
            return Err(NotAName(text.into(), "is no prefix: it must end with /"));
        }
        visible(text)?;
        Ok(Self(text.into()))
    }

    /// The beginning of every name.
    pub fn all() -> Self {
        Self("".into())
    }

    /// Whether the name begins with this prefix.
    pub fn covers(&self, name: &Name) -> bool {
        name.0.starts_with(&*self.0)
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn visible(text: &str) -> Result<(), NotAName> {
    if text.len() > LONGEST {
        let begins = text.chars().take(64).collect::<String>() + "…";
        return Err(NotAName(begins, "is no name: it is longer than 1024 bytes"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        let fault = "is no name: it must be visible ASCII";
        return Err(NotAName(text.into(), fault));
    }
    Ok(())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
