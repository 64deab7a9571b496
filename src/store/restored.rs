//! The mark of a catalogue that came out of a backup.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Name, Record};

/// When the catalogue was restored. While its record is there, nobody has confirmed that keys may
/// serve as the backup has them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Restored {
    /// When.
    pub at: SystemTime,
}

#[derive(Deserialize, Serialize)]
struct Value {
    /// Seconds since 1970.
    at: u64,
}

impl Restored {
    /// What its record is called.
    pub const NAME: &str = "restored";

    /// What its record is called.
    pub fn name() -> Name {
        Name::new(Self::NAME).expect("it is visible ASCII")
    }

    /// Reads the mark. One that cannot be read still says that there was a restore.
    pub fn of(record: &Record) -> Self {
        let value = serde_json::from_slice(&record.value).unwrap_or(Value { at: 0 });
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(value.at));
        Self {
            at: at.unwrap_or(UNIX_EPOCH),
        }
    }

    pub(super) fn now() -> Self {
        Self {
            at: SystemTime::now(),
        }
    }

    pub(super) fn value(self) -> Bytes {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let value = serde_json::to_vec(&Value { at: at.as_secs() });
        value.expect("a number is JSON").into()
    }
}

/// As in RFC 3339, in whole seconds of UTC.
impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = prost_types::Timestamp::from(self.at);
        at.nanos = 0;
        at.fmt(f)
    }
}
