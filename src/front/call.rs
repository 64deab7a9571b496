//! What every call has, over gRPC and over HTTP/1.1: a request ID, and a log line when it fails.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue};
use uuid::{Builder, Uuid};

use super::log_limit::LogLimit;
use crate::{
    error::{Error, Kind},
    model::echo,
    telemetry::{
        CallNotes,
        traces::{self, TraceParent, TracedCall},
    },
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

    pub(super) fn bytes(self) -> [u8; 16] {
        self.0.into_bytes()
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

/// What a client calls its request by, to be kept beside hsmac's own ID.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientIds {
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl ClientIds {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            request_id: headers.get("x-request-id").cloned(),
            traceparent: headers.get("traceparent").cloned(),
        }
    }

    /// `x-request-id`, if it is one word that is not too long.
    pub(super) fn request_id(&self) -> Option<&str> {
        let text = self.request_id.as_ref()?.to_str().ok()?;
        let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        (is_word && text.len() <= LONGEST_ID).then_some(text)
    }

    /// What `traceparent` says, if it is well-formed.
    fn parent(&self) -> Option<TraceParent> {
        TraceParent::parse(self.traceparent.as_ref()?.to_str().ok()?)
    }

    /// The trace ID of `traceparent` (W3C Trace Context): `00-TRACE-PARENT-FLAGS`.
    pub(super) fn trace_id(&self) -> Option<&str> {
        self.parent()?;
        self.traceparent.as_ref()?.to_str().ok()?.split('-').nth(1)
    }
}

/// A call that was answered, as the log tells of it.
pub(super) struct AnsweredCall<'a> {
    pub(super) request_id: RequestId,
    pub(super) ids: &'a ClientIds,
    pub(super) operation: &'static str,
    pub(super) failed: Option<Kind>,
    /// Why, if it is our side's fault.
    pub(super) cause: Option<&'a str>,
    pub(super) took: Duration,
    /// `grpc` or `aws`.
    pub(super) wire: &'static str,
    /// `hsmac.v1.MacService/GenerateMac` or `KMS/GenerateMac`; none unless calls are traced.
    pub(super) span: Option<&'a str>,
    /// Whether the caller has proved who it is.
    pub(super) is_authenticated: bool,
    pub(super) began: Instant,
    pub(super) notes: CallNotes,
}

impl AnsweredCall<'_> {
    /// Traces the call if it is worth that, and logs it.
    pub(super) fn tell(&self) {
        let trace = self.span.and_then(|name| self.trace(name));
        self.log(trace.as_deref());
    }

    /// Gives the ID of the call's trace, if there is one.
    fn trace(&self, name: &str) -> Option<String> {
        traces::record(&TracedCall {
            name,
            wire: self.wire,
            request_id: self.request_id.0,
            exception: self.failed.map(Kind::exception),
            is_our_fault: self.failed.is_some_and(Kind::is_ours),
            is_authenticated: self.is_authenticated,
            parent: self.ids.parent(),
            began: self.began,
            took: self.took,
            notes: &self.notes,
        })
    }

    /// One line at `debug`. What is our side's fault is a warning, as often as [`limit`] lets it: a token
    /// that is away refuses every call, and the token itself says so.
    fn log(&self, trace: Option<&str>) {
        let Self {
            request_id,
            operation,
            ..
        } = self;
        // Of a caller over its limits there is an event that says so.
        let over_limits = self.failed == Some(Kind::Throttling) && self.cause.is_none();
        let failed = self.failed.filter(|_| !over_limits);
        let count = failed.and_then(limit).and_then(LogLimit::pass);
        if count.is_none() && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let exception = self.failed.map(Kind::exception);
        let client_request_id = self.ids.request_id();
        let trace_id = trace.or_else(|| self.ids.trace_id());
        let served_by = self.notes.served_by.as_ref();
        let token = served_by.map(|by| by.token.as_str());
        let host = served_by.map(|by| by.host);
        let (took_s, reason) = (microseconds(self.took), self.cause);
        match count {
            Some(count) => tracing::warn!(
                event = "call_failed", %request_id, operation, exception, reason, took_s, token, host,
                client_request_id, trace_id, not_logged = count - 1, "a call failed"
            ),
            None => tracing::debug!(
                %request_id, operation, exception, reason, took_s, token, host, client_request_id,
                trace_id, "a call was answered"
            ),
        }
    }
}

/// In seconds, to the microsecond.
fn microseconds(time: Duration) -> f64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(micros).as_secs_f64()
}

/// The longest ID of a client that is kept.
const LONGEST_ID: usize = 128;

/// Never a message, a MAC or a grant token: public texts and causes have none. Whether it is a warning too
/// is decided when the call is answered.
pub(super) fn log(error: &Error, request_id: RequestId) {
    let exception = error.kind().exception();
    let reason = error.cause().map(tracing::field::display);
    tracing::debug!(%request_id, exception, reason, "{}", error.say_with(shortened));
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
    fn a_client_s_own_ids_are_kept_if_they_are_what_they_should_be() {
        let ids = |request_id: &str, traceparent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", request_id.parse().unwrap());
            headers.insert("traceparent", traceparent.parse().unwrap());
            let ids = ClientIds::of(&headers);
            let owned = |text: Option<&str>| text.map(str::to_owned);
            (owned(ids.request_id()), owned(ids.trace_id()))
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            ids("order-17", &format!("00-{trace}-00f067aa0ba902b7-01")),
            (Some("order-17".to_owned()), Some(trace.to_owned()))
        );
        for (request_id, traceparent) in
            [("two words", "00-short-00f067aa0ba902b7-01"), ("", trace)]
        {
            assert_eq!(ids(request_id, traceparent), (None, None));
        }
        assert_eq!(ids(&"x".repeat(129), "").0, None);
    }

    #[test]
    fn request_ids_are_uuids_and_differ() {
        let ids: Vec<_> = (0..100).map(|_| RequestId::next().header()).collect();
        for (index, id) in ids.iter().enumerate() {
            assert!(Uuid::try_parse(id.to_str().unwrap()).is_ok());
            assert!(!ids[..index].contains(id));
        }
    }
}
