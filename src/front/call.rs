//! What every call has, over gRPC and over HTTP/1.1: a request ID, and a log line when it fails.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use uuid::{Builder, Uuid};

use super::log_limit::LogLimit;
use crate::{
    error::{Error, Kind},
    model::echo,
};

/// Names one call in its answer and in the log: a UUID whose first half is random for the process, and
/// whose second half is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RequestId(Uuid);

impl RequestId {
    pub(super) fn next() -> Self {
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("hsmac"));
        static CALL: AtomicU64 = AtomicU64::new(0);
        let (process, call) = (u128::from(*PROCESS), CALL.fetch_add(1, Ordering::Relaxed));
        let bytes = (process << 64 | u128::from(call)).to_be_bytes();
        Self(Builder::from_random_bytes(bytes).into_uuid())
    }

    pub(super) fn header(self) -> HeaderValue {
        let text = &mut Uuid::encode_buffer();
        let mut header = HeaderValue::from_str(self.0.hyphenated().encode_lower(text))
            .expect("a UUID is printable ASCII");
        // Not secret, but different each time: sensitive headers stay out of HPACK's tables.
        header.set_sensitive(true);
        header
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Never a message, a MAC or a grant token: public texts and causes have none. What is our side's fault
/// is a warning, as often as [`limit`] lets it: a token that is away refuses every call, and the token
/// itself says so.
pub(super) fn log(error: &Error, request_id: RequestId) {
    let exception = error.kind().exception();
    let reason = error.cause().map(tracing::field::display);
    if let Some(count) = limit(error.kind()).and_then(LogLimit::pass) {
        tracing::warn!(
            event = "call_failed", %request_id, exception, reason, not_logged = count - 1,
            "a call failed"
        );
    } else {
        tracing::debug!(%request_id, exception, reason, "{}", error.say_with(shortened));
    }
}

/// The value of a broken constraint where there is no room for a whole one. Ten of them still fit what
/// clients take of headers, where a gRPC status travels.
pub(super) fn shortened(value: &str) -> String {
    echo(value, 256)
}

/// How often failures of a kind are warned of: those that follow from what the log says anyway once a
/// minute, bugs once a second. None: the caller's own affair, which is no warning.
fn limit(kind: Kind) -> Option<&'static LogLimit> {
    static UNAVAILABLE: LogLimit = LogLimit::new();
    static LATE: LogLimit = LogLimit::new();
    static THROTTLED: LogLimit = LogLimit::new();
    static BUGS: LogLimit = LogLimit::every(Duration::from_secs(1));
    let limits = [
        (Kind::KeyUnavailable, &UNAVAILABLE),
        (Kind::DependencyTimeout, &LATE),
        (Kind::Throttling, &THROTTLED),
    ];
    let known = limits.iter().find(|(one, _)| *one == kind);
    known
        .map(|(_, limit)| *limit)
        .or_else(|| kind.is_ours().then_some(&BUGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuids_and_differ() {
        let ids: Vec<_> = (0..100).map(|_| RequestId::next().header()).collect();
        for (index, id) in ids.iter().enumerate() {
            assert!(Uuid::try_parse(id.to_str().unwrap()).is_ok());
            assert!(!ids[..index].contains(id));
        }
    }
}
