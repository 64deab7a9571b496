//! Texts and points in time.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

/// What a key is for, in words for people: at most 8,192 characters, often none.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String")]
pub struct Description(String);

impl Description {
    /// The longest, in characters.
    pub const LONGEST: usize = 8192;

    /// Takes a text for a description; `None` if it is too long.
    pub fn new(text: String) -> Option<Self> {
        (text.chars().count() <= Self::LONGEST).then_some(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Description {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(text).ok_or_else(|| "the description is longer than 8192 characters".into())
    }
}

/// A time in seconds, to the millisecond: what logs and reports show.
pub fn seconds(time: Duration) -> f64 {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// A point in time as KMS has it: milliseconds since the beginning of 1970, UTC.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Date(u64);

impl Date {
    /// So many milliseconds after the beginning of 1970.
    pub const fn of_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the beginning of 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The time of day now.
    pub fn now() -> Self {
        #[cfg(test)]
        if let Some(now) = super::simulated::now() {
            return now;
        }
        SystemTime::now().into()
    }

    /// This point in time and `span`.
    #[must_use]
    pub const fn plus(self, span: Duration) -> Self {
        self.plus_millis(span.as_millis())
    }

    /// This point in time and so many times 24 hours.
    #[must_use]
    pub const fn plus_days(self, days: u32) -> Self {
        self.plus_millis(days as u128 * 24 * 3600 * 1000)
    }

    const fn plus_millis(self, millis: u128) -> Self {
        // u64 holds 584 million years.
        let sum = self.0 as u128 + millis;
        Self(if sum > u64::MAX as u128 {
            u64::MAX
        } else {
            sum as u64
        })
    }
}

/// Times before 1970 count as its beginning.
impl From<SystemTime> for Date {
    fn from(time: SystemTime) -> Self {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// For logs.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s since 1970", self.0 / 1000, self.0 % 1000)
    }
}

/// A client's text as far as an error may repeat it. The whole of a status travels in HTTP headers,
/// percent-encoded and once more in base64, and clients refuse more than 8 KiB of them.
pub fn echo(text: &str, limit: usize) -> String {
    let mut left = limit;
    let mut shown = String::with_capacity(text.len().min(limit));
    for char in text.chars() {
        let cost = if matches!(char, ' '..='~') {
            1
        } else {
            3 * char.len_utf8()
        };
        if cost > left {
            shown.push('…');
            break;
        }
        left -= cost;
        shown.push(char);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_counted_in_characters() {
        assert!(Description::new("ä".repeat(8192)).is_some());
        assert!(Description::new("a".repeat(8193)).is_none());
    }

    #[test]
    fn days_have_24_hours_and_never_overflow() {
        assert_eq!(Date::of_millis(5).plus_days(30).millis(), 2_592_000_005);
        assert_eq!(Date::of_millis(u64::MAX).plus_days(7).millis(), u64::MAX);
    }

    #[test]
    fn an_echo_fits_into_headers() {
        assert_eq!(echo("key_id", 2048), "key_id");
        assert_eq!(echo(&"a".repeat(3000), 2048).len(), 2048 + "…".len());
        assert!(echo(&"🔑".repeat(2048), 2048).chars().count() <= 171);
    }
}
