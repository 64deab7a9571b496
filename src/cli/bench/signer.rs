//! Signs GenerateMac requests with AWS's Signature Version 4, as AWS's clients do.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use chrono::DateTime;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, header};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::model::{Date, encode_hex};

/// An access key that signs for one region.
pub(super) struct Signer {
    access_key_id: String,
    secret: Zeroizing<String>,
    region: String,
    /// The key of a day.
    derived: Mutex<Option<(String, SigningKey)>>,
}

type SigningKey = Zeroizing<[u8; 32]>;

impl Signer {
    pub(super) fn new(access_key_id: String, secret: Zeroizing<String>, region: String) -> Self {
        Self {
            access_key_id,
            secret,
            region,
            derived: Mutex::new(None),
        }
    }

    /// The request with this body, signed now.
    pub(super) fn request(&self, host: &str, body: Bytes, now: Date) -> Request<Bytes> {
        let millis = i64::try_from(now.millis()).unwrap_or(i64::MAX);
        let now = DateTime::from_timestamp_millis(millis).unwrap_or_default();
        let stamp = now.format("%Y%m%dT%H%M%SZ").to_string();
        let day = &stamp[..8];
        let scope = format!("{day}/{}/kms/aws4_request", self.region);
        let request = format!(
            "POST\n/\n\ncontent-type:{CONTENT_TYPE}\nhost:{host}\nx-amz-date:{stamp}\n\
             x-amz-target:{TARGET}\n\n{SIGNED}\n{}",
            encode_hex(&Sha256::digest(&body))
        );
        let to_sign = format!(
            "{ALGORITHM}\n{stamp}\n{scope}\n{}",
            encode_hex(&Sha256::digest(request))
        );
        let signature = encode_hex(&*mac(&*self.key_of(day), &to_sign));
        let proof = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={SIGNED}, Signature={signature}",
            self.access_key_id
        );
        Request::post("/")
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header("x-amz-target", TARGET)
            .header("x-amz-date", stamp)
            .header(header::AUTHORIZATION, proof)
            .body(body)
            .expect("host and access key were looked at when they were read")
    }

    fn key_of(&self, day: &str) -> SigningKey {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = derived.as_ref().filter(|(of, _)| of == day) {
            return key.clone();
        }
        let secret = Zeroizing::new(format!("AWS4{}", *self.secret));
        let key = [&self.region, "kms", "aws4_request"]
            .into_iter()
            .fold(mac(secret.as_bytes(), day), |key, part| mac(&*key, part));
        *derived = Some((day.to_owned(), key.clone()));
        key
    }
}

fn mac(key: &[u8], text: &str) -> SigningKey {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().into())
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const TARGET: &str = "TrentService.GenerateMac";
const SIGNED: &str = "content-type;host;x-amz-date;x-amz-target";

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_credential_types::Credentials;
    use aws_sigv4::{
        http_request::{SignableBody, SignableRequest, SigningSettings, sign},
        sign::v4::SigningParams,
    };

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    #[test]
    fn signatures_are_those_of_aws_sigv4() {
        let signer = Signer::new(
            "AKIDEXAMPLE".into(),
            Zeroizing::new(SECRET.into()),
            "us-west-2".into(),
        );
        let identity = Credentials::new("AKIDEXAMPLE", SECRET, None, None, "test").into();
        // Twice the same day, and another.
        for seconds in [1_440_938_160, 1_440_938_161, 1_500_000_000] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let ours = signer.request("localhost:8460", Bytes::from_static(b"{}"), time.into());
            let params = SigningParams::builder()
                .identity(&identity)
                .region("us-west-2")
                .name("kms")
                .time(time)
                .settings(SigningSettings::default())
                .build()
                .unwrap()
                .into();
            let signable = SignableRequest::new(
                "POST",
                "http://localhost:8460/",
                [
                    ("content-type", "application/x-amz-json-1.1"),
                    ("x-amz-target", "TrentService.GenerateMac"),
                ]
                .into_iter(),
                SignableBody::Bytes(b"{}"),
            )
            .unwrap();
            let (instructions, _) = sign(signable, &params).unwrap().into_parts();
            let mut theirs = Request::post("/").body(()).unwrap();
            instructions.apply_to_request_http1x(&mut theirs);
            for name in ["authorization", "x-amz-date"] {
                assert_eq!(ours.headers()[name], theirs.headers()[name]);
            }
        }
    }
}
