//! Records for people.

use chrono::{DateTime, SecondsFormat};

use super::super::paint::{Colour, Paint};
use crate::{
    audit::{Names, Phase},
    proto::audit::{Entry, entry::Entry as Leaf},
};

/// A record for people, on one line; none for names.
pub(super) fn line(index: u64, entry: &Entry, names: &Names, paint: Paint) -> Option<String> {
    let said = |micros, colour, word: &str, rest: String| {
        let time = time(micros);
        let word = paint.paint(colour, &format!("{word:<24}"));
        Some(format!("{index:>8}  {time}  {word}  {rest}"))
    };
    match entry.entry.as_ref()? {
        Leaf::Name(_) => None,
        Leaf::Started(one) => said(
            one.time,
            Colour::Strong,
            "begun",
            format!("hsmac {} goes on in another file", one.version),
        ),
        Leaf::Strangers(one) => said(
            one.time,
            Colour::Warning,
            &one.exception,
            format!("{} calls without a proof {}", one.count, one.source),
        ),
        Leaf::Gap(one) => said(
            one.time,
            Colour::Wrong,
            "GAP",
            format!(
                "{} calls refused and {} answered without a record: {}",
                one.refused, one.answered, one.reason
            ),
        ),
        Leaf::Call(call) => {
            let name = |place| names.name(place);
            let exception = name(call.exception_ref);
            let word = match (call.phase(), exception) {
                (Phase::Attempt, _) => "attempt",
                (Phase::Outcome, exception) => exception.unwrap_or("ok"),
                (Phase::Unspecified, _) => "unknown",
            };
            // What an ARN ends with tells apart what people tell apart.
            let end = |arn: &str| arn.splitn(6, ':').last().unwrap_or_default().to_owned();
            let about = [
                name(call.key_ref).map(end),
                some(&call.alias).map(str::to_owned),
                some(&call.grant_id).map(str::to_owned),
                name(call.mac_algorithm_ref).map(str::to_owned),
                name(call.source_ref).map(|source| format!("from {source}")),
                uuid(&call.request_id),
            ];
            let about: Vec<String> = about.into_iter().flatten().collect();
            let operation = name(call.operation_ref).unwrap_or_default();
            let principal = name(call.principal_ref).map_or_else(|| "hsmac".to_owned(), end);
            let rest = format!("{operation:<16}  {principal:<20}  {}", about.join("  "));
            said(call.time, colour(exception), word, rest)
        }
    }
}

fn time(micros: u64) -> String {
    let time = i64::try_from(micros)
        .ok()
        .and_then(DateTime::from_timestamp_micros);
    time.map_or_else(String::new, |time| {
        time.to_rfc3339_opts(SecondsFormat::Millis, true)
    })
}

fn uuid(bytes: &[u8]) -> Option<String> {
    let uuid = uuid::Uuid::from_slice(bytes).ok()?;
    Some(uuid.to_string())
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// The colour of an outcome.
fn colour(exception: Option<&str>) -> Colour {
    match exception {
        None => Colour::Good,
        Some("KMSInternalException" | "KeyUnavailableException" | "DependencyTimeoutException") => {
            Colour::Wrong
        }
        Some(_) => Colour::Warning,
    }
}
