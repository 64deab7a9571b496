//! What every call gets, whichever service it is for: a request ID, a deadline, and an ErrorInfo in
//! the errors that the gRPC library makes itself.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Response, Status};
use uuid::{Builder, Uuid};

use super::status;
use crate::{
    error::{Error, Kind, Violation},
    model::Caller,
};

/// What a handler knows of its call besides the message.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) until: Instant,
    pub(super) request_id: RequestId,
}

impl Context {
    /// Takes the call's context off a request, and the caller out of it.
    pub(super) fn take<T>(request: tonic::Request<T>) -> Result<(Self, Arc<Caller>, T), Status> {
        let (_, mut extensions, message) = request.into_parts();
        let context: Self = extensions
            .remove()
            .expect("every call passes through Api::answer");
        match context.caller.clone() {
            Some(caller) => Ok((context, caller, message)),
            None => Err(context.status(&Error::new(
                Kind::MissingAuthenticationToken,
                "The request carries no proof of who the caller is, and the server admits nobody without.",
            ))),
        }
    }

    /// An operation's answer, put in the words of the wire.
    pub(super) fn reply<A, W>(
        &self,
        answer: Result<A, Error>,
        wire: impl FnOnce(A) -> W,
    ) -> Result<Response<W>, Status> {
        match answer {
            Ok(answer) => Ok(Response::new(wire(answer))),
            Err(error) => Err(self.status(&error)),
        }
    }

    pub(super) fn status(&self, error: &Error) -> Status {
        status::status(error, self.request_id)
    }
}

/// Names one call in the answer and in the log: a UUID, random in the process and counted in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RequestId(Uuid);

impl RequestId {
    pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

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
        // Not secret, but never the same again: HPACK need not index it, nor the peer keep it.
        header.set_sensitive(true);
        header
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a call must be answered: what its `grpc-timeout` says, an hour at most, or the default.
pub(super) fn deadline(headers: &HeaderMap, default: Duration) -> Result<Instant, Error> {
    let now = Instant::now();
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(now + default);
    };
    match timeout(value.as_bytes()) {
        Some(timeout) => Ok(now + timeout.min(LONGEST)),
        None => Err(Error::violations(vec![Violation {
            member: "grpc-timeout",
            text: "Value at 'grpc-timeout' failed to satisfy constraint: Member must be 1 to 8 digits and one of the units H, M, S, m, u, n".into(),
        }])),
    }
}

/// Gives an error that the library made our text and an ErrorInfo. Errors of our own have details,
/// by which they are told apart; `limit` is the size of a request that the service takes.
pub(super) fn explain(headers: &HeaderMap, limit: Limit, request_id: RequestId) -> Option<Status> {
    let code = headers.get(Status::GRPC_STATUS)?;
    if code == "0" || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return None;
    }
    let made = Status::from_header_map(headers)?;
    let ours = |error: Error| status::status(&error.because(made.clone()), request_id);
    Some(match made.code() {
        // The library says nothing more of a method or service that it does not know.
        Code::Unimplemented if made.message().is_empty() => ours(Error::new(
            Kind::UnknownOperation,
            "There is no such operation.",
        )),
        Code::OutOfRange => {
            let Limit { service, bytes } = limit;
            ours(Error::new(
                Kind::Validation,
                format!(
                    "The request is too long: {service} takes requests of at most {bytes} bytes."
                ),
            ))
        }
        // On the way in: no protobuf message, none at all, or a broken frame.
        Code::Internal => ours(Error::new(
            Kind::Serialization,
            "The request cannot be decoded as the operation's message.",
        )),
        Code::Unimplemented => ours(Error::new(
            Kind::UnsupportedOperation,
            "The request is compressed; hsmac takes requests as they are.",
        )),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => status::foreign(made.code(), made.message()),
    })
}

/// The longest request that a service takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) service: &'static str,
    pub(super) bytes: usize,
}

/// The gRPC specification's TimeoutValue and TimeoutUnit.
fn timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits
        .iter()
        .fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// A caller that would wait longer has no deadline worth the name.
const LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timeouts_have_six_units_and_eight_digits() {
        for (text, wanted) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0S", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(timeout(text.as_bytes()), Some(wanted), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            " 1S",
            "1 S",
            "１S",
        ] {
            assert_eq!(timeout(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_deadline_is_an_hour_at_most_and_the_default_where_there_is_none() {
        let default = Duration::from_secs(5);
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("grpc-timeout"),
                HeaderValue::from_static(value),
            )]);
            deadline(&headers, default).map(|until| until - Instant::now())
        };
        assert!(of("99999999H").unwrap() <= LONGEST);
        assert!(of("1S").unwrap() <= Duration::from_secs(1));
        assert_eq!(of("soon").unwrap_err().kind(), Kind::Validation);
        let left = deadline(&HeaderMap::new(), default).unwrap() - Instant::now();
        assert!(left > Duration::from_secs(4) && left <= default);
    }

    #[test]
    fn request_ids_are_uuids_and_differ() {
        let ids: Vec<_> = (0..100).map(|_| RequestId::next().header()).collect();
        for (index, id) in ids.iter().enumerate() {
            assert!(Uuid::try_parse(id.to_str().unwrap()).is_ok());
            assert!(!ids[..index].contains(id));
        }
    }

    proptest! {
        #[test]
        fn no_timeout_panics(text in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = timeout(&text);
        }
    }
}
