//! Entry points for fuzzers, with what must hold for any input. Tests replay the corpora; the fuzzers
//! themselves are in `tests/fuzz`.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::{Duration, Instant, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::{
    fault,
    json::{Members, require_json},
    operations::Call,
    sigv4::Verifier,
};
use crate::{
    error::{Error, Kind},
    front::{
        auth::access_key::{AccessKey, AccessKeys, SecretAccessKey},
        call::RequestId,
    },
    kms::{self, Kms},
    model::{Caller, Operation},
};

/// A request as text: its target on the first line, then its headers, an empty line, its body.
/// Whether its signature was accepted; it is 2015-08-30T12:36:00Z.
pub fn signature(data: &[u8]) -> bool {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    let verifier = VERIFIER.get_or_init(|| {
        let key = AccessKey {
            caller: Arc::new(caller()),
            secret: Arc::new(SecretAccessKey::parse(SECRET).expect("it has 40 characters")),
        };
        let id = ID.to_owned().try_into().expect("it is a word");
        let keys = AccessKeys([(id, key)].into());
        Verifier::new(&keys, "us-west-2", Duration::from_mins(5))
    });
    let Some((head, body)) = request(data) else {
        return false;
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
    match verifier.caller(&head, &body, now) {
        Ok(_) => {
            for name in ["authorization", "host", "x-amz-target"] {
                assert_eq!(head.headers.get_all(name).iter().count(), 1, "{name}");
            }
            true
        }
        Err(error) => {
            let auth = [
                Kind::IncompleteSignature,
                Kind::InvalidSignature,
                Kind::MissingAuthenticationToken,
                Kind::UnrecognizedClient,
            ];
            assert!(auth.contains(&error.kind()), "{error}");
            assert!(error.say().len() < 2048, "{error}");
            assert!(!error.say().contains(char::is_control), "{error}");
            false
        }
    }
}

/// An operation's name on the first line, then a request's body, whose caller is known. Whether
/// there was anything to call.
pub fn body(data: &[u8]) -> bool {
    static KMS: OnceLock<Arc<Kms>> = OnceLock::new();
    let kms = KMS.get_or_init(|| {
        let settings = kms::Settings {
            account: ACCOUNT.parse().expect("it has 12 digits"),
            region: "us-west-2".into(),
            new_keys: None,
            keys: Vec::new(),
            rights: kms::DeclaredRights::default(),
        };
        Kms::new(settings, [].into()).expect("no keys contradict nothing")
    });
    let (name, body) = line(data);
    let Some(operation) = str::from_utf8(name).ok().and_then(Operation::named) else {
        return false;
    };
    let json = require_json(body);
    let members = match Members::parse(body) {
        Ok(members) => members,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Serialization);
            told(&error);
            return false;
        }
    };
    assert!(json.is_ok(), "members of what is no JSON");
    let call = Call {
        kms,
        caller: &caller(),
        members,
        until: Instant::now() + Duration::from_secs(5),
    };
    // Without tokens and without a store there is nothing to wait for.
    match pin!(call.answer(operation)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => panic!("{operation:?} waits"),
        Poll::Ready(Ok(answer)) => {
            assert!(answer.is_empty() || serde_json::from_slice::<Value>(&answer).is_ok());
        }
        Poll::Ready(Err(error)) => told(&error),
    }
    true
}

/// An error can be told: its body is JSON that names the exception, and not endless.
fn told(error: &Error) {
    let answer = fault::response(error, RequestId::next());
    assert_ne!(answer.status(), StatusCode::OK);
    let mut body = pin!(answer.into_body().collect());
    let Poll::Ready(Ok(body)) = body.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("an answer that is not there");
    };
    let body = body.to_bytes();
    assert!(body.len() < 64 << 10, "{}", body.len());
    let json: Value = serde_json::from_slice(&body).expect("an error's body is JSON");
    assert_eq!(json["__type"], error.kind().exception());
}

fn request(data: &[u8]) -> Option<(Parts, Bytes)> {
    let (target, mut rest) = line(data);
    let mut request = Request::post(target);
    loop {
        let (header, after) = line(rest);
        rest = after;
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|byte| *byte == b':')?;
        let (name, value) = header.split_at(colon);
        request = request.header(
            HeaderName::from_bytes(name).ok()?,
            HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?,
        );
    }
    let (head, ()) = request.body(()).ok()?.into_parts();
    Some((head, Bytes::copy_from_slice(rest)))
}

/// The first line, and what comes after it.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (line, rest) = data.split_at(end.unwrap_or(data.len()));
    (line, rest.get(1..).unwrap_or_default())
}

fn caller() -> Caller {
    Caller::parse(&format!("arn:aws:iam::{ACCOUNT}:root")).expect("it is a root's ARN")
}

const ACCOUNT: &str = "111122223333";
/// The pair that AWS's own documentation shows.
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &[u8] = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fuzz::tests::replay;

    #[test]
    fn the_corpus_of_signatures() {
        replay("signature", signature);
    }

    #[test]
    fn the_corpus_of_bodies() {
        replay("body", body);
    }
}
