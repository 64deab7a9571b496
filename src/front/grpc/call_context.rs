//! What every call gets, whichever service it is for: its caller, a request ID, a deadline, and an
//! ErrorInfo in the errors that the gRPC library makes itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderMap;
use tonic::{Code, Response, Status};

use super::{
    super::{auth::failure::AuthFailure, call::RequestId},
    status,
};
use crate::{
    error::{Error, Kind, Violation},
    model::Caller,
};

/// What a handler knows of its call besides the message.
#[derive(Clone, Debug)]
pub(super) struct CallContext {
    pub(super) caller: Result<Arc<Caller>, AuthFailure>,
    pub(super) until: Instant,
    /// The deadline that the caller has set, if it has.
    pub(super) own_deadline: Option<Instant>,
    pub(super) request_id: RequestId,
}

impl CallContext {
    /// Takes the call's context off a request, and the caller out of it.
    pub(super) fn take<T>(request: tonic::Request<T>) -> Result<(Self, Arc<Caller>, T), Status> {
        let (_, mut extensions, message) = request.into_parts();
        let context: Self = extensions
            .remove()
            .expect("every call passes through Api::answer");
        match context.caller.clone() {
            Ok(caller) => Ok((context, caller, message)),
            Err(failure) => Err(context.status(&failure.into())),
        }
    }

    /// An operation's answer as a gRPC response.
    pub(super) fn reply<A, W>(
        &self,
        answer: Result<A, Error>,
        to_proto: impl FnOnce(A) -> W,
    ) -> Result<Response<W>, Status> {
        match answer {
            Ok(answer) => Ok(Response::new(to_proto(answer))),
            Err(error) => Err(self.status(&error)),
        }
    }

    pub(super) fn status(&self, error: &Error) -> Status {
        status::status(error, self.request_id)
    }
}

/// When the caller gives its call up: what its `grpc-timeout` says, an hour at most.
pub(super) fn own_deadline(headers: &HeaderMap) -> Result<Option<Instant>, Error> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    match timeout(value.as_bytes()) {
        Some(timeout) => Ok(Some(Instant::now() + timeout.min(LONGEST))),
        None => Err(Error::violations(vec![Violation::new(
            "grpc-timeout",
            "Member must be 1 to 8 digits and one of the units H, M, S, m, u, n",
        )])),
    }
}

/// Our text and an ErrorInfo for an error that the library made. Errors of our own are recognised by
/// their details; `limit` is the size of a request that the service takes.
pub(super) fn describe_library_error(
    headers: &HeaderMap,
    limit: SizeLimit,
    request_id: RequestId,
) -> Option<Status> {
    let code = headers.get(Status::GRPC_STATUS)?;
    if code == "0" || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return None;
    }
    let made = Status::from_header_map(headers)?;
    Some(described(made, limit, request_id))
}

/// As [`describe_library_error`], of a status that the library made.
pub(super) fn described(made: Status, limit: SizeLimit, request_id: RequestId) -> Status {
    if !made.details().is_empty() {
        return made;
    }
    let ours = |error: Error| status::status(&error.because(made.clone()), request_id);
    match made.code() {
        // The library says nothing more of a method or service that it does not know.
        Code::Unimplemented if made.message().is_empty() => ours(Error::new(
            Kind::UnknownOperation,
            "There is no such operation.",
        )),
        Code::OutOfRange => {
            let SizeLimit { service, bytes } = limit;
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
        | Code::Unauthenticated => status::library_error(made.code(), made.message()),
    }
}

/// The longest request that a service takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeLimit {
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

/// The longest deadline that a caller can set.
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
    fn a_caller_s_deadline_is_an_hour_at_most_and_none_where_it_sets_none() {
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                http::HeaderValue::from_static(value),
            )]);
            own_deadline(&headers).map(|until| until.unwrap() - Instant::now())
        };
        assert!(of("99999999H").unwrap() <= LONGEST);
        assert!(of("1S").unwrap() <= Duration::from_secs(1));
        assert_eq!(of("soon").unwrap_err().kind(), Kind::Validation);
        assert_eq!(own_deadline(&HeaderMap::new()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_timeout_panics(text in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = timeout(&text);
        }
    }
}
