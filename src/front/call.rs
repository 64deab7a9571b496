//! What every call has, over gRPC and over HTTP/1.1: a request ID, and a log line when it fails.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use uuid::{Builder, Uuid};

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

/// Never a message, a MAC or a grant token: public texts and causes have none. What is our side's
/// fault is a warning, but no more than one a second: a token that is away refuses every call, and
/// the token itself has said so once.
pub(super) fn log(error: &Error, request_id: RequestId) {
    let exception = error.kind().exception();
    let cause = error.cause().map(tracing::field::display);
    let ours = error.kind().is_ours() || error.kind() == Kind::Throttling;
    if ours && let Some(suppressed) = may_warn() {
        tracing::warn!(%request_id, exception, cause, unsaid = suppressed, "a call failed");
    } else {
        tracing::debug!(%request_id, exception, cause, "{}", error.say_with(shortened));
    }
}

/// The value of a broken constraint where there is no room for a whole one. Ten of them still fit what
/// clients take of headers, where a gRPC status travels.
pub(super) fn shortened(value: &str) -> String {
    echo(value, 256)
}

/// The number of warnings that were suppressed since the last one, if another may be logged now.
fn may_warn() -> Option<u64> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    static SUPPRESSED: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    if LAST.swap(now, Ordering::Relaxed) == now {
        SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        return None;
    }
    Some(SUPPRESSED.swap(0, Ordering::Relaxed))
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
