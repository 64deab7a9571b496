//! Errors of the API as gRPC statuses: one table, and the details beside the status.

use std::{collections::HashMap, error::Error as _, sync::Arc, time::Duration};

use http::{Extensions, HeaderMap};
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{BadRequest, ErrorDetails, ErrorInfo, FieldViolation, RetryInfo, StatusExt as _};

use super::super::{
    call::{RequestId, log, shortened},
    recent::shown_cause,
};
use crate::{
    error::{Error, Kind, Violation},
    proto::v1,
};

/// The status of a fault; its private cause goes to the log with the request's ID.
pub(super) fn status(error: &Error, request_id: RequestId) -> Status {
    log(error, request_id);
    let (reason, code) = row(error.kind());
    let exception = error.kind().exception();
    // Always the first: clients that look at one detail look at this one.
    let metadata: [(String, String); 1] = [("exception".into(), exception.into())];
    let mut details = vec![ErrorInfo::new(reason, DOMAIN, metadata).into()];
    let violations: Vec<_> = error
        .field_violations()
        .iter()
        .map(|it| FieldViolation::new(snake_case(it.member()), it.text(shortened)))
        .collect();
    if !violations.is_empty() {
        details.push(BadRequest::new(violations).into());
    }
    if let Some(pause) = error.pause() {
        details.push(RetryInfo::new(Some(pause)).into());
    }
    let mut status = Status::with_error_details_vec(code, error.say_with(shortened), details);
    if let Some(pause) = error.pause() {
        // What gRPC's own retries go by (gRFC A6); RetryInfo is for programs.
        let pushback = MetadataValue::from(milliseconds(pause));
        status.metadata_mut().insert(RETRY_PUSHBACK, pushback);
    }
    if let Some(cause) = shown_cause(error) {
        // Security: it stays in this process; the network sees code, message and details.
        status.set_source(Arc::new(Cause(cause)));
    }
    status
}

/// The fault of one item of a stream: what [`status`] says of a call.
pub(super) fn item_error(error: &Error, request_id: RequestId) -> v1::ItemError {
    log(error, request_id);
    let (reason, code) = row(error.kind());
    let violation = |it: &Violation| v1::ItemFieldViolation {
        field: snake_case(it.member()),
        description: it.text(shortened),
    };
    v1::ItemError {
        code: code.into(),
        reason: reason.to_owned(),
        message: error.say_with(shortened).into_owned(),
        exception: error.kind().exception().to_owned(),
        field_violations: error.field_violations().iter().map(violation).collect(),
        retry_delay_ms: error.pause().map(milliseconds),
        request_id: request_id.to_string(),
    }
}

fn milliseconds(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}

/// The private cause of an answer's status, if operators are shown it.
pub(super) fn cause_of(extensions: &Extensions) -> Option<Arc<str>> {
    let source = extensions.get::<Status>()?.source()?;
    source.downcast_ref::<Cause>().map(|cause| cause.0.clone())
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(Arc<str>);

/// The status of an error that the gRPC library made, with a reason in the form of KMS's.
pub(super) fn library_error(code: Code, say: &str) -> Status {
    let details = ErrorDetails::with_error_info(library_reason(code), DOMAIN, HashMap::new());
    Status::with_error_details(code, say, details)
}

/// What kind of fault a status of ours tells of.
pub(super) fn kind_of_status(status: &Status) -> Option<Kind> {
    let info = status.get_details_error_info()?;
    Kind::ALL
        .into_iter()
        .find(|kind| row(*kind).0 == info.reason)
}

/// What kind of fault an answer's head tells of; none for a good answer, or for one whose end comes later.
pub(super) fn kind_of(headers: &HeaderMap) -> Option<Kind> {
    headers.get(Status::GRPC_STATUS_DETAILS)?;
    kind_of_status(&Status::from_header_map(headers)?)
}

/// The reason and the gRPC code of a kind.
const fn row(kind: Kind) -> (&'static str, Code) {
    match kind {
        Kind::AccessDenied => ("ACCESS_DENIED", Code::PermissionDenied),
        Kind::AlreadyExists => ("ALREADY_EXISTS", Code::AlreadyExists),
        Kind::CustomKeyStoreNotFound => ("CUSTOM_KEY_STORE_NOT_FOUND", Code::NotFound),
        Kind::DependencyTimeout => ("DEPENDENCY_TIMEOUT", Code::DeadlineExceeded),
        Kind::Disabled => ("DISABLED", Code::FailedPrecondition),
        Kind::DryRun => ("DRY_RUN_OPERATION", Code::FailedPrecondition),
        Kind::IncorrectKey => ("INCORRECT_KEY", Code::InvalidArgument),
        Kind::IncompleteSignature => ("INCOMPLETE_SIGNATURE", Code::Unauthenticated),
        Kind::Internal => ("KMS_INTERNAL", Code::Internal),
        Kind::InvalidAliasName => ("INVALID_ALIAS_NAME", Code::InvalidArgument),
        Kind::InvalidArn => ("INVALID_ARN", Code::InvalidArgument),
        Kind::InvalidCiphertext => ("INVALID_CIPHERTEXT", Code::InvalidArgument),
        Kind::InvalidGrantId => ("INVALID_GRANT_ID", Code::InvalidArgument),
        Kind::InvalidGrantToken => ("INVALID_GRANT_TOKEN", Code::InvalidArgument),
        Kind::InvalidKeyUsage => ("INVALID_KEY_USAGE", Code::InvalidArgument),
        Kind::InvalidMac => ("KMS_INVALID_MAC", Code::InvalidArgument),
        Kind::InvalidMarker => ("INVALID_MARKER", Code::InvalidArgument),
        Kind::InvalidSignature => ("INVALID_SIGNATURE", Code::Unauthenticated),
        Kind::InvalidState => ("KMS_INVALID_STATE", Code::FailedPrecondition),
        Kind::KeyUnavailable => ("KEY_UNAVAILABLE", Code::Unavailable),
        Kind::LimitExceeded => ("LIMIT_EXCEEDED", Code::ResourceExhausted),
        Kind::MalformedPolicyDocument => ("MALFORMED_POLICY_DOCUMENT", Code::InvalidArgument),
        Kind::MissingAuthenticationToken => ("MISSING_AUTHENTICATION_TOKEN", Code::Unauthenticated),
        Kind::NotAuthorized => ("NOT_AUTHORIZED", Code::PermissionDenied),
        Kind::NotFound => ("NOT_FOUND", Code::NotFound),
        Kind::Serialization => ("SERIALIZATION", Code::InvalidArgument),
        Kind::Tag => ("TAG", Code::InvalidArgument),
        Kind::Throttling => ("THROTTLING", Code::ResourceExhausted),
        Kind::UnknownOperation => ("UNKNOWN_OPERATION", Code::Unimplemented),
        Kind::UnrecognizedClient => ("UNRECOGNIZED_CLIENT", Code::Unauthenticated),
        Kind::UnsupportedOperation => ("UNSUPPORTED_OPERATION", Code::Unimplemented),
        Kind::Validation => ("VALIDATION", Code::InvalidArgument),
    }
}

const fn library_reason(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "VALIDATION",
        Code::DeadlineExceeded => "DEPENDENCY_TIMEOUT",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "ACCESS_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNSUPPORTED_OPERATION",
        Code::Internal => "KMS_INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The field's name in the proto: `macAlgorithm` is `mac_algorithm`.
fn snake_case(member: &str) -> String {
    let mut name = String::with_capacity(member.len() + 4);
    for char in member.chars() {
        if char.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(char.to_ascii_lowercase());
    }
    name
}

const DOMAIN: &str = "hsmac";
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use tonic_types::ErrorDetail;

    use super::*;
    use crate::error::Violation;

    #[test]
    fn every_kind_has_a_reason_of_its_own_in_the_form_of_its_exception() {
        let mut reasons = HashSet::new();
        for kind in Kind::ALL {
            let (reason, code) = row(kind);
            assert!(reasons.insert(reason), "{reason} is there twice");
            assert_ne!(code, Code::Ok);
            let name = kind
                .exception()
                .strip_suffix("Exception")
                .unwrap()
                .replace("KMS", "Kms");
            let upper_snake = snake_case(&name).to_ascii_uppercase();
            assert_eq!(upper_snake.trim_start_matches('_'), reason);
        }
    }

    #[test]
    fn a_status_tells_the_reason_the_fields_and_the_pause_but_not_the_cause() {
        let error =
            Error::violations(vec![Violation::null("macAlgorithm")]).because("CKR_DEVICE_ERROR");
        let refused = status(&error, RequestId::next());
        assert_eq!(refused.code(), Code::InvalidArgument);
        let details = refused.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("VALIDATION", "hsmac")
        );
        assert_eq!(info.metadata["exception"], "ValidationException");
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "mac_algorithm"
        );
        assert!(!format!("{refused:?}").contains("CKR"));
        // On AWS's API a value is told whole; here it travels in a header.
        let long = Violation::new("keyId", "Member must be short").of("k".repeat(3000));
        let long = Error::violations(vec![long; 10]);
        assert!(long.say().contains(&"k".repeat(3000)));
        let long = status(&long, RequestId::next());
        assert!(long.message().contains(&format!("'{}…'", "k".repeat(256))));
        assert!(long.message().len() < 4096 && long.details().len() < 8192);

        let pause = Duration::from_millis(100);
        let busy = Error::new(Kind::Throttling, "later").retry_after(pause);
        let busy = status(&busy, RequestId::next());
        let details = busy.get_error_details();
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(pause));
        let pushback = busy.metadata().get("grpc-retry-pushback-ms").unwrap();
        assert_eq!(pushback, "100");
        // In their order: the ErrorInfo is the first.
        for (status, reason) in [(refused, "VALIDATION"), (busy, "THROTTLING")] {
            let first = status.get_error_details_vec().into_iter().next();
            assert!(matches!(first, Some(ErrorDetail::ErrorInfo(info)) if info.reason == reason));
        }
    }
}
