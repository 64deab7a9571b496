//! SigV4 against AWS's own signer and AWS's test vectors: what it signs is accepted, and nothing else.

use std::time::UNIX_EPOCH;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
        sign,
    },
    sign::v4::SigningParams,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
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
        secret: SecretAccessKey::parse(SECRET.as_bytes()).unwrap().into(),
    };
    let id = AccessKeyId::try_from(ID.to_owned()).unwrap();
    Verifier::new(
        &AccessKeys(HashMap::from([(id, key)])),
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
    payload: fn(&[u8]) -> SignableBody<'_>,
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
            payload: |body| SignableBody::Bytes(body),
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
            (self.payload)(&self.body),
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
        verifier
            .caller(&self.head, &self.body, at(now))
            .map(|caller| caller.arn().to_owned())
            .map_err(|error| (error.kind(), error.say().to_owned()))
    }
}

/// A good request, spoilt: what is said to it.
fn refusal(spoil: impl FnOnce(&mut Signed)) -> (Kind, String) {
    let mut signed = Draft::new().signed();
    spoil(&mut signed);
    signed.verified(&verifier(), NOON).unwrap_err()
}

impl Signed {
    fn set(&mut self, name: &'static str, value: &str) {
        let value = HeaderValue::try_from(value).unwrap();
        self.head.headers.insert(name, value);
    }

    fn again(&mut self, name: &'static str, value: &str) {
        let value = HeaderValue::try_from(value).unwrap();
        self.head.headers.append(name, value);
    }

    fn authorization(&self) -> String {
        let header = &self.head.headers[AUTHORIZATION];
        header.to_str().unwrap().to_owned()
    }

    /// Writes something else into the Authorization header.
    fn say(&mut self, instead_of: &str, this: &str) {
        let authorization = self.authorization();
        assert!(authorization.contains(instead_of), "{authorization}");
        self.set("authorization", &authorization.replace(instead_of, this));
    }
}

#[test]
fn what_aws_signs_is_accepted() {
    let plain = Draft::new();
    for draft in [
        plain.clone(),
        plain.clone().header("user-agent", "aws-cli/1.44  md/x  "),
        plain.clone().header("x-amz-api-version", ""),
        Draft {
            uri: "/?b=2&a=%20x%2F1&a".into(),
            ..plain.clone()
        },
        Draft {
            body: Vec::new(),
            ..plain.clone()
        },
        Draft {
            settings: |settings| settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256,
            ..plain
        },
    ] {
        let found = draft.signed().verified(&verifier(), NOON);
        assert_eq!(
            found.unwrap(),
            "arn:aws:iam::111122223333:user/billing",
            "{draft:?}"
        );
    }
}

#[test]
fn spaces_in_the_authorization_header_mean_nothing() {
    let mut signed = Draft::new().signed();
    let authorization = signed.authorization().replace(", ", ",");
    signed.set("authorization", &authorization);
    assert!(signed.verified(&verifier(), NOON).is_ok());
    signed.set(
        "authorization",
        &authorization.replace(',', "  ,  Other=1, "),
    );
    assert!(signed.verified(&verifier(), NOON).is_ok());
}

#[test]
fn without_a_proof_nobody_is_somebody() {
    let missing = (
        Kind::MissingAuthenticationToken,
        "Missing Authentication Token".to_owned(),
    );
    assert_eq!(
        refusal(|signed| {
            signed.head.headers.remove(AUTHORIZATION);
        }),
        missing
    );
    // A signature in the query string proves nothing here, however good it is.
    let in_query = Draft {
        settings: |settings| {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = Some(Duration::from_secs(60));
        },
        ..Draft::new()
    };
    let presigned = in_query.signed();
    assert!(
        presigned
            .head
            .uri
            .query()
            .unwrap()
            .contains("X-Amz-Signature=")
    );
    assert_eq!(presigned.verified(&verifier(), NOON).unwrap_err(), missing);
}

#[test]
fn two_proofs_are_a_contradiction() {
    for query in [
        "/?X-Amz-Algorithm=AWS4-HMAC-SHA256",
        "/?a=b&X%2dAmz-Algorithm",
    ] {
        assert_eq!(
            refusal(|signed| signed.head.uri = Uri::from_static(query)),
            (
                Kind::InvalidSignature,
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
                    .to_owned()
            )
        );
    }
    let again = |signed: &mut Signed| signed.again("authorization", &signed.authorization());
    assert_eq!(
        refusal(again),
        (
            Kind::IncompleteSignature,
            "The header 'authorization' is in the request more than once.".to_owned()
        )
    );
}

#[test]
fn what_the_authorization_header_lacks_is_told_at_once() {
    for (header, said) in [
        (
            "AWS4-HMAC-SHA256",
            "Authorization header requires 'Credential' parameter. \
             Authorization header requires 'Signature' parameter. \
             Authorization header requires 'SignedHeaders' parameter. \
             Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. \
             Authorization=AWS4-HMAC-SHA256",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b",
            "Authorization header requires 'Signature' parameter. \
             Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. \
             Authorization=AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b",
        ),
        (
            "Credential=a,Signature=b,SignedHeaders=c",
            "Authorization header requires 'Credential' parameter. \
             Authorization header requires 'Signature' parameter. \
             Authorization header requires 'SignedHeaders' parameter. \
             Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. \
             Authorization=Credential=a,Signature=b,SignedHeaders=c",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a, Signature",
            "'Signature' not a valid key=value pair (missing equal-sign) in Authorization header: \
             'AWS4-HMAC-SHA256 Credential=a, Signature'.",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a, Credential=b",
            "Authorization header has the 'Credential' parameter more than once.",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=ä",
            "Authorization header has characters other than printable ASCII.",
        ),
    ] {
        let found = refusal(|signed| {
            signed.set("authorization", header);
            signed.head.headers.remove("x-amz-date");
        });
        assert_eq!(found, (Kind::IncompleteSignature, said.to_owned()));
    }
}

#[test]
fn dates_have_one_form() {
    for wrong in [
        "2015-08-30T12:36:00Z",
        "20150830T123600",
        "20150830T123600z",
        "20150830T1236000Z",
        "20150230T123600Z",
        "20150830T243600Z",
        "20150830T123660Z",
        "+0150830T123600Z",
        "Sun, 30 Aug 2015 12:36:00 GMT",
        "",
    ] {
        let said = format!(
            "Date must be in ISO-8601 'basic format'. Got '{wrong}'. See \
             http://en.wikipedia.org/wiki/ISO_8601"
        );
        let found = refusal(|signed| signed.set("x-amz-date", wrong));
        assert_eq!(found, (Kind::IncompleteSignature, said));
    }
}

#[test]
fn there_is_one_algorithm() {
    assert_eq!(
        refusal(|signed| signed.say("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")),
        (
            Kind::IncompleteSignature,
            "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256'.".to_owned()
        )
    );
}

#[test]
fn a_credential_has_five_parts() {
    for wrong in [
        "A/20150830/us-west-2/kms",
        "A/B/20150830/us-west-2/kms/aws4_request",
        "",
    ] {
        let said = format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. \
             keyid/date/region/service/term, got '{wrong}'"
        );
        let scope = format!("{ID}/20150830/us-west-2/kms/aws4_request");
        let found = refusal(|signed| signed.say(&scope, wrong));
        assert_eq!(found, (Kind::IncompleteSignature, said));
    }
}

#[test]
fn host_operation_date_and_session_token_must_be_signed() {
    for (name, shown) in [
        ("host", "Host"),
        ("x-amz-date", "X-Amz-Date"),
        ("x-amz-target", "X-Amz-Target"),
    ] {
        for instead in ["content-type", "", &name[1..]] {
            let found = refusal(|signed| {
                let names = signed.authorization();
                let names = names.split("SignedHeaders=").nth(1).unwrap();
                let names = names.split(',').next().unwrap();
                let others: Vec<&str> = names
                    .split(';')
                    .map(|one| if one == name { instead } else { one })
                    .collect();
                signed.say(names, &others.join(";"));
            });
            let said = format!("'{shown}' must be a 'SignedHeader' in the AWS Authorization.");
            assert_eq!(found, (Kind::InvalidSignature, said));
        }
    }
    assert_eq!(
        refusal(|signed| signed.set("x-amz-security-token", "t")).1,
        "'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization."
    );
    let date = refusal(|signed| {
        let date = signed.head.headers.remove("x-amz-date").unwrap();
        signed.head.headers.insert("date", date);
    });
    assert_eq!(
        date.1,
        "'Date' must be a 'SignedHeader' in the AWS Authorization."
    );
}

#[test]
fn a_signed_header_is_there_once() {
    for name in ["host", "x-amz-target", "content-type"] {
        let found = refusal(|signed| signed.again(name, "another"));
        let said = format!(
            "The 'SignedHeader' '{name}' must be the lowercase name of a header that is in the \
             request exactly once."
        );
        assert_eq!(found, (Kind::InvalidSignature, said));
    }
    assert_eq!(
        refusal(|signed| signed.again("x-amz-date", "20150830T123600Z")),
        (
            Kind::IncompleteSignature,
            "The header 'x-amz-date' is in the request more than once.".to_owned()
        )
    );
    for (names, said) in [
        (
            "content-type;accept",
            "'SignedHeader' 'accept' must be the lowercase name",
        ),
        (
            "Content-Type",
            "'SignedHeader' 'Content-Type' must be the lowercase name",
        ),
        (
            "content-type;host",
            "'host' is a 'SignedHeader' more than once.",
        ),
    ] {
        let (kind, text) = refusal(|signed| signed.say("content-type", names));
        assert_eq!(kind, Kind::InvalidSignature);
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn a_signature_is_for_one_region_service_and_day() {
    let elsewhere = Draft {
        region: "eu-west-1".into(),
        service: "sqs",
        ..Draft::new()
    };
    let mut signed = elsewhere.signed();
    signed.say("aws4_request", "aws5_request");
    signed.say("/20150830/", "/20150829/");
    assert_eq!(
        signed.verified(&verifier(), NOON).unwrap_err(),
        (
            Kind::InvalidSignature,
            "Credential should be scoped to a valid region, not 'eu-west-1'. \
             Credential should be scoped to correct service: 'kms'. \
             Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'. \
             Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from \
             HTTP: '20150829' != '20150830', from '20150830T123600Z'. "
                .to_owned()
        )
    );
    for (instead_of, this, said) in [
        (
            "us-west-2",
            "us-west-1",
            "a valid region, not 'us-west-1'. ",
        ),
        ("/kms/", "/KMS/", "to correct service: 'kms'. "),
        ("aws4_request", "aws4", "'aws4_request', not 'aws4'. "),
        (
            "/20150830/",
            "/2015083/",
            "'2015083' != '20150830', from '20150830T123600Z'. ",
        ),
    ] {
        let (kind, text) = refusal(|signed| signed.say(instead_of, this));
        assert_eq!(kind, Kind::InvalidSignature);
        assert!(text.ends_with(said), "{text}");
    }
}

#[test]
fn a_captured_request_is_good_for_the_skew_and_no_longer() {
    let signed = Draft::new().signed();
    let verifier = verifier();
    for now in [NOON - 300, NOON, NOON + 300] {
        assert!(signed.verified(&verifier, now).is_ok(), "{now}");
    }
    for (now, said) in [
        (
            NOON + 301,
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z \
             (20150830T124101Z - 5 min.)",
        ),
        (
            NOON - 301,
            "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z \
             (20150830T123059Z + 5 min.)",
        ),
    ] {
        let found = signed.verified(&verifier, now).unwrap_err();
        assert_eq!(found, (Kind::InvalidSignature, said.to_owned()));
    }
}

#[test]
fn a_skew_of_seconds_is_said_in_seconds() {
    let mut verifier = verifier();
    verifier.skew = 90;
    let (_, text) = Draft::new()
        .signed()
        .verified(&verifier, NOON + 91)
        .unwrap_err();
    assert!(text.ends_with("(20150830T123731Z - 90 sec.)"), "{text}");
    verifier.skew = i64::MAX;
    assert!(Draft::new().signed().verified(&verifier, 0).is_ok());
}

#[test]
fn around_midnight_both_days_are_good() {
    let midnight = 1_440_979_200;
    let verifier = verifier();
    for time in [midnight - 1, midnight, midnight - 1, midnight] {
        let draft = Draft {
            time,
            ..Draft::new()
        };
        assert!(draft.signed().verified(&verifier, midnight).is_ok());
    }
}

#[test]
fn an_unknown_access_key_costs_what_a_wrong_signature_costs() {
    let verifier = verifier();
    let unknown = Draft {
        id: "AKIDNOBODY",
        ..Draft::new()
    };
    assert_eq!(
        unknown.signed().verified(&verifier, NOON).unwrap_err(),
        (
            Kind::UnrecognizedClient,
            "The security token included in the request is invalid.".to_owned()
        )
    );
    // The same work was done, with a secret that nobody has.
    assert!(verifier.placeholder.derived.lock().unwrap().is_some());
    assert!(verifier.credentials[ID].derived.lock().unwrap().is_none());
}

const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. \
    Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";

#[test]
fn a_wrong_signature_is_told_and_the_right_one_is_not() {
    let wrong = (Kind::InvalidSignature, MISMATCH.to_owned());
    let other = Draft {
        secret: "0123456789012345678901234567890123456789",
        ..Draft::new()
    };
    assert_eq!(
        other.signed().verified(&verifier(), NOON).unwrap_err(),
        wrong
    );
    let spoilers: [fn(&mut Signed); 6] = [
        |signed| signed.body = Bytes::from_static(b"{}"),
        |signed| signed.set("x-amz-target", "TrentService.DisableKey"),
        |signed| signed.set("host", "elsewhere"),
        |signed| signed.head.method = Method::PUT,
        |signed| signed.head.uri = Uri::from_static("/other"),
        |signed| signed.head.uri = Uri::from_static("/?%zz"),
    ];
    for spoil in spoilers {
        assert_eq!(refusal(spoil), wrong);
    }
}

#[test]
fn the_body_s_hash_is_never_taken_on_trust() {
    let said = "The provided 'x-amz-content-sha256' header does not match what was computed.";
    for hash in ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", ""] {
        let signed = Draft::new().header("x-amz-content-sha256", hash).signed();
        let found = signed.verified(&verifier(), NOON).unwrap_err();
        assert_eq!(found, (Kind::InvalidSignature, said.to_owned()));
    }
    // Nor is a signature over no hash at all, with nothing said of it.
    let unsigned = Draft {
        payload: |_| SignableBody::UnsignedPayload,
        ..Draft::new()
    };
    assert_eq!(
        unsigned.signed().verified(&verifier(), NOON).unwrap_err().1,
        MISMATCH
    );
    assert_eq!(
        refusal(|signed| {
            signed.again("x-amz-content-sha256", "a");
            signed.again("x-amz-content-sha256", "b");
        })
        .1,
        "The header 'x-amz-content-sha256' is in the request more than once."
    );
}

#[test]
fn nobody_here_has_a_session_token() {
    let temporary = Draft {
        token: Some("FwoGZXIvYXdzEXAMPLE"),
        ..Draft::new()
    };
    assert_eq!(
        temporary.signed().verified(&verifier(), NOON).unwrap_err(),
        (
            Kind::UnrecognizedClient,
            "The security token included in the request is invalid.".to_owned()
        )
    );
    // Only whoever has the secret learns that it was the token.
    let failure = Draft {
        secret: "0123456789012345678901234567890123456789",
        ..temporary
    };
    assert_eq!(
        failure.signed().verified(&verifier(), NOON).unwrap_err().1,
        MISMATCH
    );
}

#[test]
fn a_date_header_serves_where_x_amz_date_is_not() {
    let mut signed = Draft::new().signed();
    let date = signed.head.headers.remove("x-amz-date").unwrap();
    signed.head.headers.insert("date", date);
    // AWS's own signer never does this; by its book then.
    let mac = |key: &[u8], text: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().to_vec()
    };
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let names = "content-type;date;host;x-amz-target";
    let mut request = "POST\n/\n\n".to_owned();
    for name in names.split(';') {
        request += &format!("{name}:{}\n", signed.head.headers[name].to_str().unwrap());
    }
    request += &format!("\n{names}\n{}", hex(&Sha256::digest(&signed.body)));
    let scope = "20150830/us-west-2/kms/aws4_request";
    let request = hex(&Sha256::digest(request));
    let to_sign = format!("AWS4-HMAC-SHA256\n20150830T123600Z\n{scope}\n{request}");
    let secret = format!("AWS4{SECRET}").into_bytes();
    let key = scope
        .split('/')
        .fold(secret, |key, part| mac(&key, part.as_bytes()));
    let signature = hex(&mac(&key, to_sign.as_bytes()));
    let proof = format!(
        "AWS4-HMAC-SHA256 Credential={ID}/{scope}, SignedHeaders={names}, Signature={signature}"
    );
    signed.set("authorization", &proof);
    assert!(signed.verified(&verifier(), NOON).is_ok());
    signed.set("date", "20150830T123601Z");
    assert_eq!(signed.verified(&verifier(), NOON).unwrap_err().1, MISMATCH);
}

#[test]
fn echoes_are_short_and_harmless() {
    assert_eq!(echo("us-west-2"), "us-west-2");
    assert_eq!(echo("a\u{1b}[31mb\tc"), "a[31mbc…");
    assert_eq!(echo(&"ä".repeat(1000)).chars().count(), 129);
    let (_, text) = refusal(|signed| signed.say("us-west-2", &"x".repeat(5000)));
    assert!(text.len() < 400, "{}", text.len());
}

#[test]
fn the_library_never_logs_what_it_computes() {
    // At trace it would show the signature that it wanted.
    assert_eq!(log::STATIC_MAX_LEVEL, log::LevelFilter::Debug);
}

/// Requests with all that clients may sign besides what they must.
fn drafts() -> impl Strategy<Value = Draft> {
    let extra = prop::sample::subsequence(
        vec![
            "accept",
            "amz-sdk-invocation-id",
            "user-agent",
            "x-amz-api-version",
            "x-amz-user-agent",
        ],
        0..5,
    );
    let value = "[ -~\u{e4}\u{20ac}]{0,60}";
    (
        extra,
        prop::collection::vec(value, 5),
        prop::collection::vec(any::<u8>(), 0..300),
        "[a-z0-9-]{1,20}",
        1..4_000_000_000_u64,
        any::<bool>(),
    )
        .prop_map(|(extra, values, body, region, time, hashed)| {
            let mut draft = Draft {
                region,
                time,
                body,
                ..Draft::new()
            };
            for (name, value) in extra.into_iter().zip(values) {
                draft = draft.header(name, &value);
            }
            if hashed {
                draft.settings =
                    |settings| settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            }
            draft
        })
}

fn verifier_in(region: &str) -> Verifier {
    let mut verifier = verifier();
    region.clone_into(&mut verifier.region);
    verifier
}

/// What HTTP lets stand in a header.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), 32..=126_u8, 128..=255_u8];
    prop::collection::vec(byte, 0..200)
}

/// Puts another printable byte in the place of one.
fn other(text: &str, at: &prop::sample::Index, by: u8) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let place = bytes.get_mut(at.index(text.len().max(1)))?;
    *place = if *place == by { by ^ 1 } else { by };
    String::from_utf8(bytes).ok()
}

proptest! {
    #[test]
    fn whatever_aws_s_signer_signs_is_accepted(draft in drafts(), late in -300..=300_i64) {
        let now = draft.time.saturating_add_signed(late);
        let found = draft.signed().verified(&verifier_in(&draft.region), now);
        prop_assert_eq!(found.unwrap(), "arn:aws:iam::111122223333:user/billing");
    }

    #[test]
    fn whoever_changes_a_signed_byte_is_refused(
        draft in drafts(),
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        by in b'0'..=b'~',
    ) {
        let mut signed = draft.signed();
        let authorization = signed.authorization();
        // What there is to change: signed headers, the proof's values, the body.
        let names = authorization.split("SignedHeaders=").nth(1).unwrap();
        let names: Vec<String> = names.split(',').next().unwrap().split(';').map(str::to_owned).collect();
        let values: Vec<&str> = authorization
            .split([' ', ','])
            .filter_map(|part| part.split_once('=').map(|(_, value)| value))
            .collect();
        let which = which.index(names.len() + values.len() + 1);
        if let Some(name) = names.get(which) {
            let header = HeaderName::try_from(name).unwrap();
            let value = String::from_utf8(signed.head.headers[&header].as_bytes().to_vec()).unwrap();
            let Some(changed) = other(&value, &at, by) else { return Ok(()) };
            signed.head.headers.insert(header, HeaderValue::try_from(changed).unwrap());
        } else if let Some(value) = values.get(which - names.len()) {
            let Some(changed) = other(value, &at, by) else { return Ok(()) };
            signed.say(value, &changed);
        } else {
            let mut body = signed.body.to_vec();
            match body.len() {
                0 => body.push(by),
                len => body[at.index(len)] ^= by,
            }
            signed.body = body.into();
        }
        prop_assert!(signed.verified(&verifier_in(&draft.region), draft.time).is_err());
    }

    #[test]
    fn no_bytes_panic(
        authorization in prop_oneof![
            bytes(),
            "(AWS4-HMAC-SHA256)?[ ,]{0,2}((Credential|Signature|SignedHeaders|X)=?[a-z0-9/;=]{0,30}[, ]{0,2}){0,4}"
                .prop_map(String::into_bytes),
        ],
        date in prop_oneof!["[0-9]{8}T[0-9]{6}Z".prop_map(String::into_bytes), bytes()],
    ) {
        let mut signed = Draft::new().signed();
        for (name, bytes) in [("authorization", authorization), ("x-amz-date", date)] {
            let value = HeaderValue::from_bytes(&bytes).unwrap();
            signed.head.headers.insert(name, value);
        }
        prop_assert!(signed.verified(&verifier(), NOON).is_err());
    }

    #[test]
    fn no_query_panics(query in "[a-zA-Z0-9%&=/.-]{0,40}") {
        let Ok(uri) = Uri::try_from(format!("/?{query}")) else { return Ok(()) };
        let mut signed = Draft::new().signed();
        signed.head.uri = uri;
        let found = signed.verified(&verifier(), NOON);
        // A query of separators alone says nothing.
        let says = query.contains(|char| char != '&' && char != '=');
        prop_assert!(found.is_err() || !says, "{:?}", found);
    }
}
