//! The mark of a catalogue that came out of a backup.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Name, Record};
use crate::model::Date;

/// When the catalogue was restored. While its record is there, no operator has confirmed that keys
/// may serve as the backup has them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Restored {
    /// When.
    pub at: Date,
}

#[derive(Deserialize, Serialize)]
struct StoredRestore {
    /// Seconds since 1970.
    at: u64,
}

impl Restored {
    /// The name of its record, as text.
    pub const NAME: &str = "restored";

    /// The name of its record.
    pub fn name() -> Name {
        Name::new(Self::NAME).expect("it is visible ASCII")
    }

    /// Reads the mark. A mark that cannot be read still means that there was a restore.
    pub fn of(record: &Record) -> Self {
        let value = serde_json::from_slice(&record.value).unwrap_or(StoredRestore { at: 0 });
        Self {
            at: Date::of_millis(value.at.saturating_mul(1000)),
        }
    }

    pub(super) fn now() -> Self {
        Self { at: Date::now() }
    }

    pub(super) fn value(self) -> Bytes {
        let at = self.at.millis() / 1000;
        let value = serde_json::to_vec(&StoredRestore { at });
        value.expect("a number is JSON").into()
    }
}

/// The time as RFC 3339 writes it, in whole seconds of UTC.
impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.at.millis() / 1000).unwrap_or(i64::MAX);
        let at = prost_types::Timestamp { seconds, nanos: 0 };
        at.fmt(f)
    }
}
