//! Numbers, times and rates as people say them.

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// A time that has passed or will: `12 s`, `5 min`, `3 h`, `12 days`.
pub(in crate::cli) fn span(seconds: u64) -> String {
    match seconds {
        ..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..172_800 => format!("{} h", seconds / HOUR),
        _ => format!("{} days", seconds / DAY),
    }
}

/// How long ago: `5 min ago`.
pub(in crate::cli) fn ago(now: u64, then: u64) -> String {
    format!("{} ago", span(now.saturating_sub(then)))
}

/// When something comes, or since when it is over: `in 12 days`, `5 min ago`.
pub(in crate::cli) fn until(now: u64, then: i64) -> String {
    match u64::try_from(then) {
        Ok(then) if then >= now => format!("in {}", span(then - now)),
        Ok(then) => ago(now, then),
        Err(_) => "long ago".to_owned(),
    }
}

/// A count with its thousands apart.
pub(in crate::cli) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 host`, `2 hosts`.
pub(in crate::cli) fn plural(number: u64, word: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {word}{ending}", count(number))
}

/// How often in a second: `0/s`, `0.25/s`, `1,234/s`.
pub(in crate::cli) fn rate(calls: f64) -> String {
    if calls <= 0.0 {
        "0/s".to_owned()
    } else if calls < 0.095 {
        format!("{calls:.2}/s")
    } else if calls < 9.95 {
        format!("{calls:.1}/s")
    } else {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rates are positive, and `as` saturates"
        )]
        let whole = calls.round() as u64;
        format!("{}/s", count(whole))
    }
}

/// What a call took: `250 µs`, `5 ms`, `2.5 s`; `–` where there was none.
pub(in crate::cli) fn took(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".to_owned(),
        Some(seconds) if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_say_them() {
        let spans = [0, 59, 60, 3599, 3600, 172_799, 172_800].map(span);
        assert_eq!(
            spans,
            ["0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 days"]
        );
        assert_eq!(until(100, 100 + 7 * 86_400), "in 7 days");
        assert_eq!(until(100, 40), "1 min ago");
        assert_eq!(until(100, -1), "long ago");
        let counts = [0, 999, 1000, 12_345, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!(
            [plural(1, "host"), plural(2, "host")],
            ["1 host", "2 hosts"]
        );
        let rates = [0.0, 0.01, 0.25, 9.94, 9.96, 1234.4].map(rate);
        assert_eq!(
            rates,
            ["0/s", "0.01/s", "0.2/s", "9.9/s", "10/s", "1,234/s"]
        );
        let times = [None, Some(5e-5), Some(2e-3), Some(2.5)].map(took);
        assert_eq!(times, ["–", "50 µs", "2 ms", "2.5 s"]);
    }
}
