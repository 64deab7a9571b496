//! AWS's Signature Version 4: who sent a request, proved by an HMAC over it.
//!
//! Promises: refusals come in AWS's order and words; what was signed is what is parsed: the body's
//! hash is always over its bytes, and host, operation, date and session token must be under the
//! signature, so that a captured request can be sent again within the skew and is good for nothing
//! else; an unknown access key costs what a wrong signature costs. Does not: take signatures in the
//! query string, unsigned or chunked payloads, temporary credentials; remember requests.

mod claim;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    future::ready,
    hint::black_box,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use http::{HeaderName, Request, header::AUTHORIZATION, request::Parts};
use scratchstack_aws_signature::{
    GetSigningKeyResponse, KSecretKey, KSigningKey, NO_ADDITIONAL_SIGNED_HEADERS, SignatureOptions,
    sigv4_validate_request,
};
use sha2::{Digest as _, Sha256};
use tower::{BoxError, service_fn};
use uuid::Uuid;

use self::claim::{Claim, SECURITY_TOKEN, STAMP, echo, one};
use super::access_key::{AccessKey, AccessKeyId, AccessKeys, SecretAccessKey};
use crate::{
    error::{Error, Kind},
    model::Caller,
};

/// Whether a request says that it is signed, well or badly.
pub(super) fn is_signed(head: &Parts) -> bool {
    head.headers.contains_key(AUTHORIZATION) || claim::in_query(head, "X-Amz-Algorithm")
}

/// Knows the access keys, and what a signature must be for.
pub(super) struct Verifier {
    signers: HashMap<AccessKeyId, Signer>,
    /// Signs in place of an access key that nobody has.
    nobody: Signer,
    region: String,
    /// In seconds.
    skew: i64,
}

impl Verifier {
    pub(super) fn new(keys: AccessKeys, region: &str, skew: Duration) -> Self {
        let random = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let secret = SecretAccessKey::parse(&random.as_bytes()[..SecretAccessKey::LEN])
            .expect("hex digits are printable");
        let signers = keys.0.into_iter();
        Self {
            signers: signers
                .map(|(id, AccessKey { caller, secret })| (id, Signer::new(Some(caller), secret)))
                .collect(),
            nobody: Signer::new(None, secret),
            region: region.to_owned(),
            skew: i64::try_from(skew.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// Who sent this request.
    ///
    /// # Errors
    /// KMS's, in KMS's order. None shows what was computed here.
    pub(super) fn caller(
        &self,
        head: &Parts,
        body: &Bytes,
        now: SystemTime,
    ) -> Result<Arc<Caller>, Error> {
        let claim = Claim::of(head)?;
        self.check_scope(&claim)?;
        self.check_skew(&claim, now)?;
        check_payload(head, body)?;
        // Security: an access key that nobody has takes the same way as one that somebody has.
        let signer = self.signers.get(claim.access_key_id);
        let key = signer
            .unwrap_or(&self.nobody)
            .key_of(claim.time.date_naive(), &self.region);
        let good = is_signed_with(key, &claim, head, body, &self.region);
        let Some(caller) = signer.and_then(|signer| signer.caller.as_ref()) else {
            return Err(unrecognized());
        };
        if !good {
            return Err(Error::new(
                Kind::InvalidSignature,
                "The request signature we calculated does not match the signature you provided. \
                 Check your AWS Secret Access Key and signing method. Consult the service \
                 documentation for details.",
            ));
        }
        // A session token belongs to temporary credentials, which nobody here hands out.
        if head.headers.contains_key(SECURITY_TOKEN) {
            return Err(unrecognized());
        }
        Ok(Arc::clone(caller))
    }

    fn check_scope(&self, claim: &Claim<'_>) -> Result<(), Error> {
        let mut wrong = String::new();
        if claim.region != self.region {
            wrong += &format!(
                "Credential should be scoped to a valid region, not '{}'. ",
                echo(claim.region)
            );
        }
        if claim.service != SERVICE {
            wrong += &format!("Credential should be scoped to correct service: '{SERVICE}'. ");
        }
        if claim.terminator != TERMINATOR {
            wrong += &format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'. ",
                echo(claim.terminator)
            );
        }
        let day = &claim.stamp[..8];
        if claim.day != day {
            wrong += &format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date \
                 from HTTP: '{}' != '{day}', from '{}'. ",
                echo(claim.day),
                claim.stamp
            );
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::new(Kind::InvalidSignature, wrong))
        }
    }

    fn check_skew(&self, claim: &Claim<'_>, now: SystemTime) -> Result<(), Error> {
        let server = DateTime::<Utc>::from(now);
        let (sent, here) = (claim.time.timestamp(), server.timestamp());
        let (first, last) = (
            here.saturating_sub(self.skew),
            here.saturating_add(self.skew),
        );
        let (word, verb, sign, limit) = if sent < first {
            ("expired", "now earlier", '-', first)
        } else if sent > last {
            ("not yet current", "still later", '+', last)
        } else {
            return Ok(());
        };
        let limit = DateTime::from_timestamp(limit, 0).unwrap_or(server);
        let width = if self.skew % 60 == 0 {
            format!("{} min", self.skew / 60)
        } else {
            format!("{} sec", self.skew)
        };
        Err(Error::new(
            Kind::InvalidSignature,
            format!(
                "Signature {word}: {} is {verb} than {} ({} {sign} {width}.)",
                claim.stamp,
                limit.format(STAMP),
                server.format(STAMP)
            ),
        ))
    }
}

/// A secret, and the key that it signs with today.
struct Signer {
    caller: Option<Arc<Caller>>,
    secret: SecretAccessKey,
    derived: Mutex<Option<Derived>>,
}

impl Signer {
    fn new(caller: Option<Arc<Caller>>, secret: SecretAccessKey) -> Self {
        Self {
            caller,
            secret,
            derived: Mutex::new(None),
        }
    }

    /// The key of a day. The last one is kept: dates within the skew are of two days at most, and
    /// only around midnight.
    fn key_of(&self, day: NaiveDate, region: &str) -> KSigningKey {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = derived.as_ref().filter(|kept| kept.day == day) {
            return kept.key;
        }
        let mut secret: KSecretKey = self.secret.reveal().parse().expect("its length is checked");
        let key = secret.to_ksigning(day, region, SERVICE);
        wipe(
            &mut secret,
            "-".repeat(SecretAccessKey::LEN)
                .parse()
                .expect("the same length"),
        );
        *derived = Some(Derived { day, key });
        key
    }
}

/// A key that a secret derived for a day, a region and this service.
struct Derived {
    day: NaiveDate,
    key: KSigningKey,
}

impl Drop for Derived {
    fn drop(&mut self) {
        wipe(
            &mut self.key,
            *GetSigningKeyResponse::default().signing_key(),
        );
    }
}

/// The library's keys do not wipe themselves: writes over one, and lets nobody see that it is for
/// nothing.
fn wipe<T>(key: &mut T, blank: T) {
    *key = blank;
    black_box(key);
}

/// Whether the signature is what this key makes of the request. The library gets no more than what
/// is signed, in the one reading of it that was checked.
fn is_signed_with(
    key: KSigningKey,
    claim: &Claim<'_>,
    head: &Parts,
    body: &Bytes,
    region: &str,
) -> bool {
    let mut request = Request::new(body.clone());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    let headers = request.headers_mut();
    for (name, value) in &claim.signed {
        headers.insert(name.clone(), (*value).clone());
    }
    headers.insert(AUTHORIZATION, claim.proof());
    let answer = GetSigningKeyResponse::builder()
        .signing_key(key)
        .build()
        .expect("nothing else is required");
    let mut keys = service_fn(|_| ready(Ok::<_, BoxError>(answer.clone())));
    // It asks for the key by a future; ours is there at once, so that there is nothing to wait for.
    let checked = pin!(sigv4_validate_request(
        request,
        region,
        SERVICE,
        &mut keys,
        // Its own window is a fixed one, and ours was looked at.
        claim.time,
        &NO_ADDITIONAL_SIGNED_HEADERS,
        SignatureOptions::default(),
    ))
    .poll(&mut Context::from_waker(Waker::noop()));
    matches!(checked, Poll::Ready(Ok(_)))
}

/// What a client says of the body must be so: `UNSIGNED-PAYLOAD` and `STREAMING-…` never are.
fn check_payload(head: &Parts, body: &Bytes) -> Result<(), Error> {
    let Some(said) = one(&head.headers, &CONTENT_SHA256)? else {
        return Ok(());
    };
    let digits = said.as_bytes();
    let hash = Sha256::digest(body);
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    let same = |(byte, pair): (&u8, &[u8])| pair == [digit(byte >> 4), digit(byte & 15)];
    if digits.len() == 2 * hash.len() && hash.iter().zip(digits.chunks(2)).all(same) {
        Ok(())
    } else {
        Err(Error::new(
            Kind::InvalidSignature,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ))
    }
}

fn unrecognized() -> Error {
    Error::new(
        Kind::UnrecognizedClient,
        "The security token included in the request is invalid.",
    )
}

const SERVICE: &str = "kms";
const TERMINATOR: &str = "aws4_request";
static CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
