//! AWS's Signature Version 4: authenticates a request by an HMAC over it.
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
use crate::{
    error::{Error, Kind},
    front::{
        auth::access_key::{AccessKey, AccessKeys, SecretAccessKey},
        settings::AccessKeyId,
    },
    model::Caller,
};

/// Whether a request says that it is signed, well or badly.
pub(super) fn is_signed(head: &Parts) -> bool {
    head.headers.contains_key(AUTHORIZATION) || claim::in_query(head, "X-Amz-Algorithm")
}

/// The access key ID that a request names, as short as a log line may have it.
pub(super) fn access_key_id(head: &Parts) -> Option<String> {
    let claim = Claim::of(head).ok()?;
    Some(echo(claim.access_key_id))
}

/// Knows the access keys, and what a signature must be for.
pub(super) struct Verifier {
    credentials: HashMap<AccessKeyId, Credential>,
    /// Verifies in place of an unknown access key, so that both take the same time.
    placeholder: Credential,
    region: String,
    /// In seconds.
    skew: i64,
}

impl Verifier {
    pub(super) fn new(keys: &AccessKeys, region: &str, skew: Duration) -> Self {
        let random = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let secret = SecretAccessKey::parse(&random.as_bytes()[..SecretAccessKey::LEN])
            .expect("hex digits are printable");
        let credentials = keys.0.iter();
        Self {
            credentials: credentials
                .map(|(id, AccessKey { caller, secret })| {
                    let credential = Credential::new(Some(caller.clone()), secret.clone());
                    (id.clone(), credential)
                })
                .collect(),
            placeholder: Credential::new(None, Arc::new(secret)),
            region: region.to_owned(),
            skew: i64::try_from(skew.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// The principal that signed this request.
    ///
    /// # Errors
    /// `MissingAuthenticationToken`, `IncompleteSignature`, `InvalidSignature` and
    /// `UnrecognizedClient`, in KMS's order. None shows what was computed here.
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
        // Security: an unknown access key costs the same work as a known one.
        let credential = self.credentials.get(claim.access_key_id);
        let key = credential
            .unwrap_or(&self.placeholder)
            .key_of(claim.time.date_naive(), &self.region);
        let good = is_signed_with(key, &claim, head, body, &self.region);
        let Some(caller) = credential.and_then(|credential| credential.caller.as_ref()) else {
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
        // A session token belongs to temporary credentials, which hsmac does not have.
        if head.headers.contains_key(SECURITY_TOKEN) {
            return Err(unrecognized());
        }
        Ok(Arc::clone(caller))
    }

    /// Whether a head may be signed by somebody: the signature itself is over the body, too.
    ///
    /// # Errors
    /// As [`caller`](Self::caller)'s, of what the head alone shows.
    pub(super) fn check_head(&self, head: &Parts, now: SystemTime) -> Result<(), Error> {
        let claim = Claim::of(head)?;
        self.check_scope(&claim)?;
        self.check_skew(&claim, now)
    }

    /// Whether a head says that it is signed by an access key that is known, for here and now. Access
    /// key IDs are no secrets: this proves nothing, and says of whom to hear the end.
    pub(super) fn is_promising(&self, head: &Parts, now: SystemTime) -> bool {
        Claim::of(head).is_ok_and(|claim| {
            self.credentials.contains_key(claim.access_key_id)
                && self.check_scope(&claim).is_ok()
                && self.check_skew(&claim, now).is_ok()
        })
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

/// A secret access key with its principal, and the signing key that it gives for a day.
struct Credential {
    caller: Option<Arc<Caller>>,
    secret: Arc<SecretAccessKey>,
    derived: Mutex<Option<DerivedKey>>,
}

impl Credential {
    fn new(caller: Option<Arc<Caller>>, secret: Arc<SecretAccessKey>) -> Self {
        Self {
            caller,
            secret,
            derived: Mutex::new(None),
        }
    }

    /// The signing key of a day. The last one is kept: dates within the skew are of two days at
    /// most, and only around midnight.
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
        *derived = Some(DerivedKey { day, key });
        key
    }
}

/// The signing key of a day, a region and this service.
struct DerivedKey {
    day: NaiveDate,
    key: KSigningKey,
}

impl Drop for DerivedKey {
    fn drop(&mut self) {
        wipe(
            &mut self.key,
            *GetSigningKeyResponse::default().signing_key(),
        );
    }
}

/// Overwrites a key of the library, which does not wipe its keys itself. `black_box` keeps the
/// compiler from removing the write.
fn wipe<T>(key: &mut T, blank: T) {
    *key = blank;
    black_box(key);
}

/// Whether the signature is what this key makes of the request. The library gets only what is
/// signed, so that it cannot read the request in another way than it was checked.
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
    // The library asks for the key with a future. Ours is ready at once, so one poll is enough.
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

/// `x-amz-content-sha256` must be the body's hash: `UNSIGNED-PAYLOAD` and `STREAMING-…` are refused.
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
