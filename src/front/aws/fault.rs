//! Errors of the API as AWS's clients read them: an HTTP status, and a body that names the exception.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value};

use super::{
    super::call::{RequestId, log},
    json,
};
use crate::error::{Error, Kind};

/// The answer for a fault; its private cause goes to the log with the request's ID.
pub(super) fn response(error: &Error, request_id: RequestId) -> Response<Full<Bytes>> {
    log(error, request_id);
    let kind = error.kind();
    let mut body = Map::new();
    body.insert("__type".into(), kind.exception().into());
    // Where KMS has no message, the member itself is missing.
    if !error.say().is_empty() {
        body.insert(message_member(kind).into(), error.say().into());
    }
    let mut response = json::response(status(kind), json::bytes(&Value::Object(body)));
    if let Some(pause) = error.pause() {
        let milliseconds = HeaderValue::from(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        response.headers_mut().insert(RETRY_AFTER, milliseconds);
    }
    response
}

/// When to try again, in milliseconds: botocore's standard mode and the SDKs for JavaScript and Rust wait so long.
const RETRY_AFTER: HeaderName = HeaderName::from_static("x-amz-retry-after");

/// AWS's own status: a client retries what has 500.
const fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::DependencyTimeout | Kind::Internal | Kind::KeyUnavailable => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        Kind::AccessDenied
        | Kind::AlreadyExists
        | Kind::CustomKeyStoreNotFound
        | Kind::Disabled
        | Kind::DryRun
        | Kind::IncompleteSignature
        | Kind::IncorrectKey
        | Kind::InvalidAliasName
        | Kind::InvalidArn
        | Kind::InvalidCiphertext
        | Kind::InvalidGrantId
        | Kind::InvalidGrantToken
        | Kind::InvalidKeyUsage
        | Kind::InvalidMac
        | Kind::InvalidMarker
        | Kind::InvalidSignature
        | Kind::InvalidState
        | Kind::LimitExceeded
        | Kind::MalformedPolicyDocument
        | Kind::MissingAuthenticationToken
        | Kind::NotAuthorized
        | Kind::NotFound
        | Kind::Serialization
        | Kind::Tag
        | Kind::Throttling
        | Kind::UnknownOperation
        | Kind::UnrecognizedClient
        | Kind::UnsupportedOperation
        | Kind::Validation => StatusCode::BAD_REQUEST,
    }
}

/// Two exceptions that are in no service's model spell it with a capital letter; clients read both.
fn message_member(kind: Kind) -> &'static str {
    if matches!(kind, Kind::AccessDenied | Kind::Serialization) {
        "Message"
    } else {
        "message"
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn said(error: &Error) -> (StatusCode, String) {
        let response = response(error, RequestId::next());
        assert_eq!(response.headers()["content-type"], json::CONTENT_TYPE);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_kind_is_answered_with_the_name_of_its_exception() {
        for kind in Kind::ALL {
            let (status, body) = said(&Error::new(kind, "")).await;
            assert_eq!(body, format!(r#"{{"__type":"{}"}}"#, kind.exception()));
            assert!(matches!(status.as_u16(), 400 | 500), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_client_reads_what_kms_says_and_never_the_cause() {
        let lost = Error::new(Kind::KeyUnavailable, "Gone.").because("CKR_DEVICE_ERROR");
        assert_eq!(
            said(&lost).await,
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                r#"{"__type":"KeyUnavailableException","message":"Gone."}"#.into()
            )
        );
        let pause = std::time::Duration::from_millis(1500);
        let busy = Error::new(Kind::Throttling, "Later.").retry_after(pause);
        let busy = response(&busy, RequestId::next());
        assert_eq!(busy.headers()["x-amz-retry-after"], "1500");
        let denied = Error::new(Kind::AccessDenied, "No \"way\".");
        assert_eq!(
            said(&denied).await,
            (
                StatusCode::BAD_REQUEST,
                r#"{"Message":"No \"way\".","__type":"AccessDeniedException"}"#.into()
            )
        );
    }
}
