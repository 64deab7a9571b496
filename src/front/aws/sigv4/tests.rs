use std::time::UNIX_EPOCH;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation,
        SigningSettings, sign,
    },
    sign::v4::SigningParams,
};
use http::{HeaderName, HeaderValue, Request, Uri};
use proptest::prelude::*;

use super::*;

const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const BODY: &[u8] =
    br#"{"KeyId":"alias/demo","Message":"SGVsbG8gV29ybGQ=","MacAlgorithm":"HMAC_SHA_256"}"#;
/// 2015-08-30T12:36:00Z
const NOON: u64 = 1_440_938_160;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn verifier() -> Verifier {
    let key = AccessKey {
        caller: Arc::new(Caller::parse("arn:aws:iam::111122223333:user/billing").unwrap()),
        secret: SecretAccessKey::parse(SECRET.as_bytes()).unwrap(),
    };
    let id = AccessKeyId::try_from(ID.to_owned()).unwrap();
    Verifier::new(
        AccessKeys(HashMap::from([(id, key)])),
        "us-west-2",
        Duration::from_secs(300),
    )
}

/// A request on its way to be signed by AWS's own signer.
#[derive(Clone, Debug)]
struct Draft {
    id: &'static str,
    secret: &'static str,
    token: Option<&'static str>,
    region: String,
    service: &'static str,
    time: u64,
    uri: String,
    headers: Vec<(String, String)>,
    settings: fn(&mut SigningSettings),
    body: Vec<u8>,
}

impl Draft {
    fn new() -> Self {
        let headers = [
            ("host", "kms.us-west-2.example:8460"),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "TrentService.GenerateMac"),
        ];
        Self {
            id: ID,
            secret: SECRET,
            token: None,
            region: "us-west-2".into(),
            service: "kms",
            time: NOON,
            uri: "/".into(),
            headers: headers
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            settings: |_| {},
            body: BODY.to_vec(),
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn signed(&self) -> Signed {
        let token = self.token.map(str::to_owned);
        let identity = Credentials::new(self.id, self.secret, token, None, "test").into();
        let mut settings = SigningSettings::default();
        settings.excluded_headers = None;
        (self.settings)(&mut settings);
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(at(self.time))
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let headers = self.headers.iter();
        let signable = SignableRequest::new(
            "POST",
            format!("http://{}{}", self.headers[0].1, self.uri),
            headers.map(|(name, value)| (name.as_str(), value.as_str())),
            SignableBody::Bytes(&self.body),
        )
        .unwrap();
        let mut request = Request::post(&self.uri).body(()).unwrap();
        for (name, value) in &self.headers {
            request.headers_mut().append(
                HeaderName::try_from(name).unwrap(),
                HeaderValue::try_from(value).unwrap(),
            );
        }
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Signed {
            head: request.into_parts().0,
            body: self.body.clone().into(),
        }
    }
}

/// A request as it arrives.
#[derive(Clone, Debug)]
struct Signed {
    head: Parts,
    body: Bytes,
}

impl Signed {
    /// Who it is from; or the kind of the fault, and its text.
    fn verified(&self, verifier: &Verifier, now: u64) -> Result<String, (Kind, String)> {
        let verified = verifier.caller(&self.head, &self.body, at(now));
        verified
            .map(|caller| caller.arn().to_owned())
            .map_err(|error| (error.kind(), error.say().to_owned()))
    }
}

#[test]
fn what_aws_signs_is_accepted() {
    let found = Draft::new().signed().verified(&verifier(), NOON);
    assert_eq!(found.unwrap(), "arn:aws:iam::111122223333:user/billing");
}
