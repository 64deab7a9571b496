//! Validity periods, and warnings of those that end soon.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use x509_parser::certificate::Validity;

/// From when to when a certificate, an authority or a revocation list is valid.
#[derive(Debug)]
pub(super) struct ValidityPeriod {
    pub(super) setting: &'static str,
    pub(super) what: String,
    /// In seconds since 1970.
    pub(super) begins: i64,
    pub(super) ends: i64,
}

impl ValidityPeriod {
    pub(super) fn of(setting: &'static str, what: String, validity: &Validity) -> Self {
        Self {
            setting,
            what,
            begins: validity.not_before.timestamp(),
            ends: validity.not_after.timestamp(),
        }
    }

    pub(super) fn warning(&self, now: i64) -> Option<String> {
        let Self {
            what, begins, ends, ..
        } = self;
        let soon = (ends.saturating_sub(*begins) / 5).min(FORTNIGHT);
        if now > *ends {
            Some(format!("{what} ended at {}", date(*ends)))
        } else if now < *begins {
            Some(format!("{what} is good from {} on only", date(*begins)))
        } else if ends.saturating_sub(now) < soon {
            Some(format!("{what} ends at {}", date(*ends)))
        } else {
            None
        }
    }
}

/// A time in seconds since 1970, in ISO 8601.
pub(in crate::front) fn date(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0).map_or_else(
        || format!("{seconds} s since 1970"),
        |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// Seconds since 1970.
pub(in crate::front) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// In seconds.
const FORTNIGHT: i64 = 14 * 24 * 3600;
