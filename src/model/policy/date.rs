//! Dates as policies write them (W3C's profile of ISO 8601, or seconds since 1970).

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat};

/// In milliseconds since 1970. A date without a time is its midnight, and a time without a zone is in
/// UTC.
pub(super) fn date(text: &str) -> Option<i64> {
    let is_year = text.len() == 4;
    if !is_year && let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1000);
    }
    if let Ok(date) = DateTime::parse_from_rfc3339(text) {
        return Some(date.timestamp_millis());
    }
    if let Some((minutes, zone)) = without_seconds(text) {
        let date = DateTime::parse_from_rfc3339(&format!("{minutes}:00{zone}")).ok()?;
        return Some(date.timestamp_millis());
    }
    if text.contains('T') {
        let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
        let time = forms
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())?;
        return Some(time.and_utc().timestamp_millis());
    }
    let day = match text.len() {
        4 => format!("{text}-01-01"),
        7 => format!("{text}-01"),
        _ => text.to_owned(),
    };
    let day = NaiveDate::parse_from_str(&day, "%Y-%m-%d").ok()?;
    Some(
        day.and_time(chrono::NaiveTime::MIN)
            .and_utc()
            .timestamp_millis(),
    )
}

/// `2026-11-22T23:00Z` and `2026-11-22T23:00+01:00`, before and after their missing seconds.
fn without_seconds(text: &str) -> Option<(&str, &str)> {
    let (minutes, zone) = text.split_at_checked(16)?;
    let is_zone = zone == "Z" || zone.starts_with(['+', '-']);
    is_zone.then_some((minutes, zone))
}

pub(super) fn shown_date(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis).map_or_else(
        || millis.to_string(),
        |date| date.to_rfc3339_opts(SecondsFormat::AutoSi, true),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_may_lack_a_time_a_zone_or_seconds() {
        for (text, wanted) in [
            ("2026-11-22T23:00:00Z", "2026-11-22T23:00:00Z"),
            ("2026-11-22T23:00:00.5Z", "2026-11-22T23:00:00.500Z"),
            ("2026-11-22T23:00:00+01:00", "2026-11-22T22:00:00Z"),
            ("2026-11-22T23:00Z", "2026-11-22T23:00:00Z"),
            ("2026-11-22T23:00-02:00", "2026-11-23T01:00:00Z"),
            ("2026-11-22T23:00:01", "2026-11-22T23:00:01Z"),
            ("2026-11-22", "2026-11-22T00:00:00Z"),
            ("2026-11", "2026-11-01T00:00:00Z"),
            ("2026", "2026-01-01T00:00:00Z"),
            ("1795305600", "2026-11-22T00:00:00Z"),
            ("0", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(
                date(text).map(shown_date).as_deref(),
                Some(wanted),
                "{text}"
            );
        }
        for text in [
            "",
            "today",
            "2026-13-01",
            "22.11.2026",
            "2026-11-22T",
            "99999999999999999999",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
