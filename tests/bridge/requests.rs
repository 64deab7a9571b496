//! Wrong requests: each has its own clear error, and the next good call works as if nothing had
//! been.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hsmac::proto::v1::{
    DescribeKeyRequest, DescribeKeyResponse, GenerateMacRequest, GenerateRandomRequest, KeyManager,
    KeyMetadata, KeySpec, KeyState, KeyUsage, ListKeysRequest, ListKeysResponse, MacAlgorithm,
    Origin, VerifyMacRequest, mac_service_client::MacServiceClient,
};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio::{net::UnixStream, task::JoinSet};
use tonic::{Code, Request, Status, codegen::tokio_stream, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use crate::support::{
    CALLER, KEY, KEY_ARN, KEY_ID, LIMIT, PIN, Server, TOKEN, Token, assert_status, declare, hex,
    hmac_sha256, request, said, verify_request,
};

const DISABLED_ID: &str = "2234abcd-12ab-34cd-56ef-1234567890ab";
const MISSING_ID: &str = "9234abcd-12ab-34cd-56ef-1234567890ab";
const MISSING_ARN: &str =
    "arn:aws:kms:us-west-2:111122223333:key/9234abcd-12ab-34cd-56ef-1234567890ab";
/// Words that would be found again in a log or in an answer.
const MESSAGE: &[u8] = b"these words are the client's business";

/// A bridge over the usual key and a disabled one, which logs all it can.
struct Bridge {
    token: Token,
    server: Server,
    mac: MacServiceClient<Channel>,
    /// Everything that was answered, to look for what must not be there.
    answers: String,
}

impl Bridge {
    async fn start() -> Self {
        let token = Token::with_key();
        let usual = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
        let disabled = declare(DISABLED_ID, "gone", "HMAC_512", "alias/disabled");
        let config = token.config_with(
            "hosts = 1\nsessions = 2\n",
            &format!("{usual}\n{disabled}enabled = false\n[log]\nlevel = \"debug\"\n"),
        );
        let server = token.serve(&config).await;
        let mac = server.mac().await;
        Self {
            token,
            server,
            mac,
            answers: String::new(),
        }
    }

    /// GenerateMac says no, in these words; and then a good call is answered.
    async fn refuses_to_make(&mut self, request: GenerateMacRequest, no: No) -> Status {
        let status = self.mac.generate_mac(request).await;
        self.judge(status.map(|answer| format!("{answer:?}")), no)
            .await
    }

    /// The refusal of a VerifyMac.
    async fn refuses_to_verify(&mut self, request: VerifyMacRequest, no: No) -> Status {
        let status = self.mac.verify_mac(request).await;
        self.judge(status.map(|answer| format!("{answer:?}")), no)
            .await
    }

    /// The refusal of both operations, of VerifyMac with the right MAC.
    async fn refuses(&mut self, request: GenerateMacRequest, no: No) {
        let verify = VerifyMacRequest {
            mac: hmac_sha256(&KEY, &request.message).into(),
            key_id: request.key_id.clone(),
            message: request.message.clone(),
            mac_algorithm: request.mac_algorithm,
            grant_tokens: request.grant_tokens.clone(),
            dry_run: request.dry_run,
            message_crc32c: request.message_crc32c,
            mac_crc32c: None,
        };
        self.refuses_to_make(request, no.with("{Operation}", "GenerateMac"))
            .await;
        self.refuses_to_verify(verify, no.with("{Operation}", "VerifyMac"))
            .await;
    }

    async fn judge(&mut self, answer: Result<String, Status>, no: No) -> Status {
        let status = match answer {
            Ok(answer) => panic!("{answer} instead of {no:?}"),
            Err(status) => status,
        };
        assert_status(&status, no.code, no.reason, &no.text);
        assert_eq!(status.message(), no.text, "{}", said(&status));
        self.answers += &format!("{status:?}\n");
        self.still_serves().await;
        status
    }

    async fn still_serves(&mut self) {
        let made = self.mac.generate_mac(request(MESSAGE)).await;
        let made = made.unwrap_or_else(|status| panic!("nothing works after it: {status:?}"));
        assert_eq!(made.into_inner().mac, hmac_sha256(&KEY, MESSAGE));
    }

    /// Nothing that is a secret, a client's or the vendor's is in an answer or in the log.
    async fn ends_with_nothing_said(self) {
        let mac = hmac_sha256(&KEY, MESSAGE);
        let secrets = [
            PIN.to_owned(),
            String::from_utf8_lossy(MESSAGE).into_owned(),
            STANDARD.encode(MESSAGE),
            hex(MESSAGE),
            STANDARD.encode(&mac),
            hex(&mac),
            format!("{mac:?}"),
            format!("{:?}", Bytes::from(mac.clone())),
            hex(&KEY),
            String::from_utf8_lossy(&KEY).into_owned(),
        ];
        let Self {
            token,
            server,
            answers,
            ..
        } = self;
        let status = server.terminate().await;
        assert!(status.success(), "{status}");
        let log = std::fs::read_to_string(token.path("log")).unwrap();
        assert!(log.contains("DEBUG"), "it logs all it can");
        for secret in secrets {
            assert!(!log.contains(&secret), "Security: the log has {secret:?}");
            assert!(
                !answers.contains(&secret),
                "Security: an answer has {secret:?}"
            );
        }
        let answers = answers.to_lowercase();
        for vendor in ["ckr_", "c_sign", "softhsm", "pkcs"] {
            assert!(!answers.contains(vendor), "an answer has {vendor:?}");
        }
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// What a refusal must be.
#[derive(Clone, Debug)]
struct No {
    code: Code,
    reason: &'static str,
    text: String,
}

impl No {
    fn new(code: Code, reason: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            text: text.into(),
        }
    }

    fn not_found(text: &str) -> Self {
        Self::new(Code::NotFound, "NOT_FOUND", text)
    }

    /// One broken constraint.
    fn constraint(text: &str) -> Self {
        Self::validation(&format!("1 validation error detected: {text}"))
    }

    fn validation(text: &str) -> Self {
        Self::new(Code::InvalidArgument, "VALIDATION", text)
    }

    fn invalid_mac() -> Self {
        Self::new(Code::InvalidArgument, "KMS_INVALID_MAC", "")
    }

    fn dry_run() -> Self {
        Self::new(
            Code::FailedPrecondition,
            "DRY_RUN_OPERATION",
            "The request would have succeeded, but the DryRun option is set.",
        )
    }

    fn with(&self, hole: &str, filling: &str) -> Self {
        Self {
            text: self.text.replace(hole, filling),
            ..self.clone()
        }
    }
}

fn of_key(key_id: &str) -> GenerateMacRequest {
    GenerateMacRequest {
        key_id: key_id.into(),
        ..request(MESSAGE)
    }
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request();
    let violations = details.map(|details| details.field_violations);
    violations
        .unwrap_or_default()
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

#[tokio::test]
async fn a_key_that_is_not_there_is_told_as_kms_tells_it() {
    let mut bridge = Bridge::start().await;
    let no_key = No::not_found(&format!("Key '{MISSING_ARN}' does not exist"));
    let no_alias =
        No::not_found("Alias arn:aws:kms:us-west-2:111122223333:alias/none is not found.");
    for (key_id, no) in [
        (MISSING_ID, no_key.clone()),
        (MISSING_ARN, no_key),
        ("key_id", No::not_found("Invalid keyId 'key_id'")),
        (
            "1234ABCD-12AB-34CD-56EF-1234567890AB",
            No::not_found("Invalid keyId '1234ABCD-12AB-34CD-56EF-1234567890AB'"),
        ),
        (
            "1234abcd12ab34cd56ef1234567890ab",
            No::not_found("Invalid keyId '1234abcd12ab34cd56ef1234567890ab'"),
        ),
        (
            "arn:aws:s3:::bucket",
            No::not_found("Invalid arn arn:aws:s3:::bucket"),
        ),
        (
            "arn:aws:kms:us-west-2:111122223333:key/none",
            No::not_found("Invalid arn arn:aws:kms:us-west-2:111122223333:key/none"),
        ),
        (
            "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            No::not_found("Invalid arn eu-west-1"),
        ),
        (
            "arn:aws:kms:eu-west-1:444455556666:alias/test",
            No::not_found("Invalid arn eu-west-1"),
        ),
        ("alias/none", no_alias.clone()),
        ("arn:aws:kms:us-west-2:111122223333:alias/none", no_alias),
    ] {
        bridge.refuses(of_key(key_id), no).await;
    }
    // Of another account nobody learns whether it has such a key.
    for key in [
        "key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "key/9234abcd-12ab-34cd-56ef-1234567890ab",
        "alias/test",
    ] {
        let no = No::new(
            Code::PermissionDenied,
            "ACCESS_DENIED",
            format!(
                "User: {CALLER} is not authorized to perform: kms:{{Operation}} on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"
            ),
        );
        let arn = format!("arn:aws:kms:us-west-2:444455556666:{key}");
        bridge.refuses(of_key(&arn), no).await;
    }
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn every_name_of_a_key_works_and_the_answer_names_it_by_its_arn() {
    let mut bridge = Bridge::start().await;
    for name in [
        KEY_ID,
        KEY_ARN,
        "alias/test",
        "arn:aws:kms:us-west-2:111122223333:alias/test",
    ] {
        let made = bridge.mac.generate_mac(of_key(name)).await.unwrap();
        let made = made.into_inner();
        assert_eq!(made.key_id, KEY_ARN);
        assert_eq!(made.mac_algorithm(), MacAlgorithm::HmacSha256);
        assert_eq!(made.mac, hmac_sha256(&KEY, MESSAGE));
        let verified = bridge
            .mac
            .verify_mac(VerifyMacRequest {
                key_id: name.into(),
                ..verify_request(MESSAGE, &made.mac)
            })
            .await
            .unwrap()
            .into_inner();
        assert_eq!(verified.key_id, KEY_ARN);
        assert_eq!(verified.mac_algorithm(), MacAlgorithm::HmacSha256);
        assert!(verified.mac_valid);
    }
}

#[tokio::test]
async fn an_algorithm_that_does_not_fit_is_named() {
    let mut bridge = Bridge::start().await;
    for (number, no) in [
        (
            MacAlgorithm::HmacSha512.into(),
            No::new(
                Code::InvalidArgument,
                "INVALID_KEY_USAGE",
                "Algorithm HMAC_SHA_512 is incompatible with key spec HMAC_256.",
            ),
        ),
        (
            MacAlgorithm::Unspecified.into(),
            No::constraint(
                "Value null at 'macAlgorithm' failed to satisfy constraint: Member must not be null",
            ),
        ),
        (
            9,
            No::constraint(
                "Value '9' at 'macAlgorithm' failed to satisfy constraint: Member must satisfy enum value set: [HMAC_SHA_384, HMAC_SHA_256, HMAC_SHA_224, HMAC_SHA_512]",
            ),
        ),
        (
            -1,
            No::constraint(
                "Value '-1' at 'macAlgorithm' failed to satisfy constraint: Member must satisfy enum value set: [HMAC_SHA_384, HMAC_SHA_256, HMAC_SHA_224, HMAC_SHA_512]",
            ),
        ),
    ] {
        let request = GenerateMacRequest {
            mac_algorithm: number,
            ..request(MESSAGE)
        };
        bridge.refuses(request, no).await;
    }
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn a_message_has_1_to_4096_bytes_and_none_of_hsmac_s_own() {
    let mut bridge = Bridge::start().await;
    let short = "Value at 'message' failed to satisfy constraint: Member must have length greater than or equal to 1";
    let long = "Value at 'message' failed to satisfy constraint: Member must have length less than or equal to 4096";
    bridge.refuses(request(b""), No::constraint(short)).await;
    bridge
        .refuses(request(&[b'm'; 4097]), No::constraint(long))
        .await;
    let giant = No::validation(
        "The request is too long: MacService takes requests of at most 131072 bytes.",
    );
    bridge.refuses(request(&vec![b'm'; 16 << 20]), giant).await;
    let reserved = "Value at 'message' failed to satisfy constraint: Member must not begin with the 16 bytes that hsmac keeps for its own messages";
    let prefix = b"\0hsmac-reserved\0";
    let check = [prefix, &b"key check v1\0"[..], KEY_ID.as_bytes()].concat();
    for message in [&prefix[..], &check] {
        bridge
            .refuses(request(message), No::constraint(reserved))
            .await;
    }
    // The prefix elsewhere, or not all of it, is a client's own.
    for message in [
        &[b'm'; 4096][..],
        &prefix[..15],
        b" \0hsmac-reserved\0",
        b"\0",
    ] {
        let made = bridge.mac.generate_mac(request(message)).await.unwrap();
        let mac = made.into_inner().mac;
        assert_eq!(mac, hmac_sha256(&KEY, message));
        let verified = bridge.mac.verify_mac(verify_request(message, &mac)).await;
        assert!(verified.unwrap().into_inner().mac_valid);
    }
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn a_mac_that_does_not_match_is_an_error_whatever_is_wrong_with_it() {
    let mut bridge = Bridge::start().await;
    let right = hmac_sha256(&KEY, MESSAGE);
    let with_bit = |bit: usize| {
        let mut mac = right.clone();
        mac[bit / 8] ^= 1 << (bit % 8);
        mac
    };
    let longer = [&right[..], b"\0"].concat();
    for wrong in [
        with_bit(0),
        with_bit(100),
        with_bit(255),
        right[..31].to_vec(),
        right[..16].to_vec(),
        right[..1].to_vec(),
        longer,
        vec![0; 32],
        vec![0; 6144],
    ] {
        let request = verify_request(MESSAGE, &wrong);
        bridge.refuses_to_verify(request, No::invalid_mac()).await;
    }
    // The right MAC of another message.
    let other = verify_request(b"another message", &right);
    bridge.refuses_to_verify(other, No::invalid_mac()).await;
    for (length, bound) in [
        (0, "greater than or equal to 1"),
        (6145, "less than or equal to 6144"),
    ] {
        let no = No::constraint(&format!(
            "Value at 'mac' failed to satisfy constraint: Member must have length {bound}"
        ));
        let request = verify_request(MESSAGE, &vec![0; length]);
        let status = bridge.refuses_to_verify(request, no).await;
        assert_eq!(fields(&status), ["mac"]);
    }
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn several_broken_constraints_are_told_together_by_field() {
    let mut bridge = Bridge::start().await;
    let wrong = VerifyMacRequest {
        grant_tokens: vec![String::new(); 1],
        mac_algorithm: 0,
        ..VerifyMacRequest::default()
    };
    let at = |what: &str| {
        format!(
            "Value at '{what}' failed to satisfy constraint: Member must have length greater than or equal to 1"
        )
    };
    let no = No::validation(&format!(
        "5 validation errors detected: Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1; {}; Value null at 'macAlgorithm' failed to satisfy constraint: Member must not be null; {}; {}",
        at("message"),
        at("grantTokens.1.member"),
        at("mac"),
    ));
    let status = bridge.refuses_to_verify(wrong, no).await;
    assert_eq!(
        fields(&status),
        ["key_id", "message", "mac_algorithm", "grant_tokens", "mac"]
    );

    let long = GenerateMacRequest {
        key_id: "k".repeat(2049),
        ..request(MESSAGE)
    };
    let status = bridge.mac.generate_mac(long).await.unwrap_err();
    assert_status(
        &status,
        Code::InvalidArgument,
        "VALIDATION",
        "at 'keyId' failed to satisfy constraint: Member must have length less than or equal to 2048",
    );
    assert_eq!(fields(&status), ["key_id"]);
    bridge.still_serves().await;
}

#[tokio::test]
async fn checksums_are_checked_before_the_token_sees_anything_and_given_back() {
    let mut bridge = Bridge::start().await;
    let right = hmac_sha256(&KEY, MESSAGE);
    let (of_message, of_mac) = (crc32c::crc32c(MESSAGE), crc32c::crc32c(&right));
    let no = |member: &str, what: &str, sum: u32| {
        No::constraint(&format!(
            "Value '{sum}' at '{member}' failed to satisfy constraint: Member must be the CRC32C of the {what} that arrived"
        ))
    };
    let damaged = GenerateMacRequest {
        message_crc32c: Some(of_message ^ 1),
        ..request(MESSAGE)
    };
    bridge
        .refuses(
            damaged.clone(),
            no("messageCrc32c", "message", of_message ^ 1),
        )
        .await;
    let status = bridge.mac.generate_mac(damaged).await.unwrap_err();
    assert_eq!(fields(&status), ["message_crc32c"]);
    // A checksum of zero is a checksum.
    let zero = GenerateMacRequest {
        message_crc32c: Some(0),
        ..request(MESSAGE)
    };
    bridge
        .refuses(zero, no("messageCrc32c", "message", 0))
        .await;
    // Even of a right MAC.
    let damaged = VerifyMacRequest {
        mac_crc32c: Some(of_mac ^ 1),
        ..verify_request(MESSAGE, &right)
    };
    let status = bridge
        .refuses_to_verify(damaged, no("macCrc32c", "mac", of_mac ^ 1))
        .await;
    assert_eq!(fields(&status), ["mac_crc32c"]);

    for given in [None, Some(of_message)] {
        let made = bridge
            .mac
            .generate_mac(GenerateMacRequest {
                message_crc32c: given,
                ..request(MESSAGE)
            })
            .await
            .unwrap()
            .into_inner();
        assert_eq!(made.verified_message_crc32c, given.is_some());
        assert_eq!(made.mac_crc32c, Some(of_mac));
        for mac_crc32c in [None, Some(of_mac)] {
            let verified = bridge
                .mac
                .verify_mac(VerifyMacRequest {
                    message_crc32c: given,
                    mac_crc32c,
                    ..verify_request(MESSAGE, &right)
                })
                .await
                .unwrap()
                .into_inner();
            assert!(verified.mac_valid);
            assert_eq!(verified.verified_message_crc32c, given.is_some());
            assert_eq!(verified.verified_mac_crc32c, mac_crc32c.is_some());
        }
    }
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn a_dry_run_does_the_work_and_answers_with_an_error_either_way() {
    let mut bridge = Bridge::start().await;
    let dry = GenerateMacRequest {
        dry_run: true,
        ..request(MESSAGE)
    };
    bridge.refuses(dry, No::dry_run()).await;
    let wrong = VerifyMacRequest {
        dry_run: true,
        ..verify_request(MESSAGE, &[0; 32])
    };
    bridge.refuses_to_verify(wrong, No::invalid_mac()).await;
    let missing = GenerateMacRequest {
        dry_run: true,
        ..of_key("key_id")
    };
    bridge
        .refuses(missing, No::not_found("Invalid keyId 'key_id'"))
        .await;
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn grant_tokens_are_none_of_ours_and_at_most_ten() {
    let mut bridge = Bridge::start().await;
    let with = |grant_tokens: Vec<String>| GenerateMacRequest {
        grant_tokens,
        ..request(MESSAGE)
    };
    let unknown = No::new(Code::InvalidArgument, "INVALID_GRANT_TOKEN", "");
    bridge
        .refuses(with(vec!["AQpAM2RhZTk1".into()]), unknown.clone())
        .await;
    bridge
        .refuses(with(vec!["AQpAM2RhZTk1".into(); 10]), unknown)
        .await;
    let many = "Value at 'grantTokens' failed to satisfy constraint: Member must have length less than or equal to 10";
    bridge
        .refuses(with(vec!["AQpAM2RhZTk1".into(); 11]), No::constraint(many))
        .await;
    let long = "Value at 'grantTokens.2.member' failed to satisfy constraint: Member must have length less than or equal to 8192";
    bridge
        .refuses(
            with(vec!["t".into(), "t".repeat(8193)]),
            No::constraint(long),
        )
        .await;
    let log = bridge.server.log();
    assert!(!log.contains("AQpAM2RhZTk1"), "a grant token is a secret");
    assert!(!bridge.answers.contains("AQpAM2RhZTk1"));
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn a_disabled_key_says_so_before_anything_of_its_algorithm() {
    let mut bridge = Bridge::start().await;
    let no = No::new(
        Code::FailedPrecondition,
        "DISABLED",
        format!("arn:aws:kms:us-west-2:111122223333:key/{DISABLED_ID} is disabled."),
    );
    for algorithm in [MacAlgorithm::HmacSha512, MacAlgorithm::HmacSha224] {
        for name in [DISABLED_ID, "alias/disabled"] {
            let request = GenerateMacRequest {
                mac_algorithm: algorithm.into(),
                ..of_key(name)
            };
            bridge.refuses(request, no.clone()).await;
        }
    }
    let described = describe(&bridge.server, DISABLED_ID).await.unwrap();
    assert_eq!(described.key_state(), KeyState::Disabled);
    assert!(!described.enabled);
    bridge.ends_with_nothing_said().await;
}

/// One HTTP/2 request as no gRPC library would make it.
async fn raw(bridge: &Bridge, path: &str, header: (&str, &str), message: &[u8]) -> Status {
    let stream = UnixStream::connect(bridge.token.path("grpc.sock"))
        .await
        .unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let length = u32::try_from(message.len()).unwrap();
    let framed = [&[0], &length.to_be_bytes()[..], message].concat();
    let request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header(header.0, header.1)
        .body(Once(Some(framed.into())))
        .unwrap();
    let answer = tokio::time::timeout(LIMIT, client.send_request(request)).await;
    let answer = answer.expect("no answer").unwrap();
    let status = Status::from_header_map(answer.headers());
    connection.abort();
    status.unwrap_or_else(|| panic!("no error: {answer:?}"))
}

/// A body of one frame.
struct Once(Option<Bytes>);

impl hyper::body::Body for Once {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

const NOTHING: (&str, &str) = ("x-nothing", "");
const GENERATE_MAC: &str = "/hsmac.v1.MacService/GenerateMac";

#[tokio::test]
async fn what_is_no_request_of_ours_is_told_so() {
    let mut bridge = Bridge::start().await;
    let garbage = No::new(
        Code::InvalidArgument,
        "SERIALIZATION",
        "The request cannot be decoded as the operation's message.",
    );
    let unknown = No::new(
        Code::Unimplemented,
        "UNKNOWN_OPERATION",
        "There is no such operation.",
    );
    let good = request(MESSAGE).encode_to_vec();
    for (path, message, no) in [
        (GENERATE_MAC, &b"\xff\xff\xff"[..], &garbage),
        // A length that goes beyond the message.
        (GENERATE_MAC, &good[..good.len() - 10], &garbage),
        // A key ID that is no UTF-8.
        (GENERATE_MAC, b"\x0a\x02\xff\xfe", &garbage),
        ("/hsmac.v1.MacService/VerifyMac", b"\xff", &garbage),
        ("/hsmac.v1.MacService/GenerateRandom", b"\xff", &garbage),
        ("/hsmac.v1.KeyService/DescribeKey", b"\xff", &garbage),
        ("/hsmac.v1.KeyService/ListKeys", b"\xff", &garbage),
        ("/hsmac.v1.MacService/Sign", &good, &unknown),
        ("/hsmac.v1.MacService/generatemac", &good, &unknown),
        ("/hsmac.v1.KeyService/CreateGrants", b"", &unknown),
        ("/hsmac.v2.MacService/GenerateMac", &good, &unknown),
        ("/MacService/GenerateMac", &good, &unknown),
        ("/", b"", &unknown),
    ] {
        let status = raw(&bridge, path, NOTHING, message).await;
        bridge.judge(Err(status), no.clone()).await;
    }
    let compressed = raw(&bridge, GENERATE_MAC, ("grpc-encoding", "gzip"), &good).await;
    assert_eq!(compressed.code(), Code::Unimplemented, "{compressed:?}");
    assert!(compressed.get_details_error_info().is_some());
    bridge.still_serves().await;
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn random_bytes_are_1_to_1024_and_never_the_same() {
    let mut bridge = Bridge::start().await;
    let at = |value: i32, bound: &str| {
        No::constraint(&format!(
            "Value '{value}' at 'numberOfBytes' failed to satisfy constraint: Member must have value {bound}"
        ))
    };
    for (number_of_bytes, no) in [
        (None, No::validation("NumberOfBytes is required.")),
        (Some(0), at(0, "greater than or equal to 1")),
        (Some(-1), at(-1, "greater than or equal to 1")),
        (Some(1025), at(1025, "less than or equal to 1024")),
    ] {
        let request = GenerateRandomRequest { number_of_bytes };
        let answer = bridge.mac.generate_random(request).await;
        bridge
            .judge(answer.map(|answer| format!("{answer:?}")), no)
            .await;
    }
    for number in [1, 32, 1024] {
        let request = GenerateRandomRequest {
            number_of_bytes: Some(number),
        };
        let one = bridge.mac.generate_random(request).await.unwrap();
        let other = bridge.mac.generate_random(request).await.unwrap();
        let (one, other) = (one.into_inner().plaintext, other.into_inner().plaintext);
        assert_eq!((one.len(), other.len()), (number as usize, number as usize));
        assert!(number == 1 || one != other, "the generator repeats itself");
    }
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn keys_are_listed_in_pages_that_miss_and_repeat_none() {
    let token = Token::with_key();
    let ids: Vec<String> = (0..5)
        .map(|index| format!("{index}234abcd-12ab-34cd-56ef-1234567890ab"))
        .collect();
    // Declared out of order; listed in the order of their IDs.
    let declared: String = [3, 0, 4, 1, 2]
        .iter()
        .map(|index| {
            let alias = format!("alias/key-{index}");
            declare(&ids[*index], "mac", "HMAC_256", &alias)
        })
        .collect();
    let server = token.serve(&token.config_with("", &declared)).await;
    let list = async |limit: Option<i32>, marker: Option<String>| {
        let request = ListKeysRequest { limit, marker };
        let answer = server.keys().await.list_keys(request).await?;
        Ok::<ListKeysResponse, Status>(answer.into_inner())
    };

    let mut listed = Vec::new();
    let mut marker = None;
    for more in [true, true, false] {
        let page = list(Some(2), marker.take()).await.unwrap();
        assert_eq!(page.truncated, more);
        assert_eq!(page.next_marker.is_some(), more, "only if there is more");
        assert_eq!(page.keys.len(), if more { 2 } else { 1 });
        for key in page.keys {
            let arn = format!("arn:aws:kms:us-west-2:111122223333:key/{}", key.key_id);
            assert_eq!(key.key_arn, arn);
            listed.push(key.key_id);
        }
        marker = page.next_marker;
    }
    assert_eq!(listed, ids);
    for limit in [None, Some(5), Some(1000)] {
        let all = list(limit, None).await.unwrap();
        assert_eq!(all.keys.len(), 5);
        assert!(!all.truncated && all.next_marker.is_none());
    }

    let at = |value: &str, bound: &str| {
        format!(
            "1 validation error detected: Value '{value}' at 'limit' failed to satisfy constraint: Member must have value {bound}"
        )
    };
    for (limit, marker, reason, text) in [
        (Some(0), None, "VALIDATION", at("0", "greater than or equal to 1")),
        (Some(-1), None, "VALIDATION", at("-1", "greater than or equal to 1")),
        (Some(1001), None, "VALIDATION", at("1001", "less than or equal to 1000")),
        (None, Some("bm9uZQ"), "INVALID_MARKER", String::new()),
        (None, Some("not a marker"), "INVALID_MARKER", String::new()),
        (
            None,
            Some(""),
            "VALIDATION",
            "1 validation error detected: Value '' at 'marker' failed to satisfy constraint: Member must have length greater than or equal to 1".into(),
        ),
    ] {
        let status = list(limit, marker.map(str::to_owned)).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, reason, &text);
        assert_eq!(status.message(), text);
    }
    assert_eq!(list(Some(5), None).await.unwrap().keys.len(), 5);
}

async fn describe(server: &Server, key_id: &str) -> Result<KeyMetadata, Status> {
    let request = DescribeKeyRequest {
        key_id: key_id.into(),
        grant_tokens: Vec::new(),
    };
    let answer = server.keys().await.describe_key(request).await?;
    let DescribeKeyResponse { key_metadata } = answer.into_inner();
    Ok(key_metadata.expect("the answer has KeyMetadata"))
}

#[tokio::test]
async fn a_key_is_described_with_every_field_by_every_name() {
    let token = Token::with_key();
    let check_value = hex(&hmac_sha256(
        &KEY,
        format!("\0hsmac-reserved\0key check v1\0{KEY_ID}").as_bytes(),
    ));
    for pinned in [false, true] {
        let mut declared = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
        declared += "description = \"the rows of the ledger\"\n";
        if pinned {
            declared += &format!("check_value = \"{check_value}\"\n");
        }
        let server = token.serve(&token.config_with("", &declared)).await;
        for name in [
            KEY_ID,
            KEY_ARN,
            "alias/test",
            "arn:aws:kms:us-west-2:111122223333:alias/test",
        ] {
            let mut key = describe(&server, name).await.unwrap();
            let said = key.token.take().expect("the token can be asked");
            let wanted = KeyMetadata {
                aws_account_id: "111122223333".into(),
                key_id: KEY_ID.into(),
                arn: KEY_ARN.into(),
                creation_date: None,
                enabled: true,
                description: "the rows of the ledger".into(),
                key_usage: KeyUsage::GenerateVerifyMac.into(),
                key_state: KeyState::Enabled.into(),
                origin: Origin::AwsCloudhsm.into(),
                key_manager: KeyManager::Customer.into(),
                key_spec: KeySpec::Hmac256.into(),
                multi_region: false,
                mac_algorithms: vec![MacAlgorithm::HmacSha256.into()],
                token: None,
                deletion_date: None,
            };
            assert_eq!(key, wanted);
            assert_eq!(
                (said.name.as_str(), said.label.as_str()),
                ("primary", TOKEN)
            );
            assert!(!said.manufacturer.is_empty() && !said.model.is_empty());
            assert!(!said.serial_number.is_empty());
            assert!(said.sensitive && said.non_extractable);
            // It was imported.
            assert!(!said.never_extractable && !said.local);
            assert_eq!(said.check_value, check_value);
            assert_eq!(said.check_value_pinned, pinned);
        }
        for (name, code, reason, text) in [
            (
                MISSING_ID,
                Code::NotFound,
                "NOT_FOUND",
                format!("Key '{MISSING_ARN}' does not exist"),
            ),
            (
                "key_id",
                Code::NotFound,
                "NOT_FOUND",
                "Invalid keyId 'key_id'".into(),
            ),
            (
                "",
                Code::InvalidArgument,
                "VALIDATION",
                "1 validation error detected: Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1".into(),
            ),
        ] {
            let status = describe(&server, name).await.unwrap_err();
            assert_status(&status, code, reason, &text);
            assert_eq!(status.message(), text);
        }
        let status = server.terminate().await;
        assert!(status.success(), "{status}");
    }
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_said_and_costs_the_next_caller_nothing() {
    let mut bridge = Bridge::start().await;
    let no = No::new(
        Code::DeadlineExceeded,
        "DEPENDENCY_TIMEOUT",
        "The system timed out while trying to fulfill the request. You can retry the request.",
    );
    let message = request(MESSAGE).encode_to_vec();
    for timeout in ["0n", "1n", "0S"] {
        let status = raw(&bridge, GENERATE_MAC, ("grpc-timeout", timeout), &message).await;
        bridge.judge(Err(status), no.clone()).await;
    }
    let unreadable = "1 validation error detected: Value at 'grpc-timeout' failed to satisfy constraint: Member must be 1 to 8 digits and one of the units H, M, S, m, u, n";
    for timeout in ["soon", "1.5S", "123456789S"] {
        let status = raw(&bridge, GENERATE_MAC, ("grpc-timeout", timeout), &message).await;
        bridge.judge(Err(status), No::validation(unreadable)).await;
    }
    // Through the library, which gives up by itself as well.
    let mut hurried = Request::new(request(MESSAGE));
    hurried.set_timeout(Duration::from_nanos(1));
    let status = bridge.mac.generate_mac(hurried).await.unwrap_err();
    let given_up = [Code::DeadlineExceeded, Code::Cancelled];
    assert!(given_up.contains(&status.code()), "{status:?}");
    bridge.still_serves().await;
    bridge.ends_with_nothing_said().await;
}

#[tokio::test]
async fn health_is_told_of_the_server_its_services_and_its_token() {
    let mut bridge = Bridge::start().await;
    let mut health = HealthClient::new(bridge.server.channel().await);
    for service in [
        "",
        "hsmac.v1.MacService",
        "hsmac.v1.KeyService",
        "hsmac.token.primary",
    ] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        // The token was up before anybody was told: a watch tells of the change.
        let mut told = health.watch(request.clone()).await.unwrap().into_inner();
        let serves = async {
            while told.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
        };
        tokio::time::timeout(LIMIT, serves)
            .await
            .unwrap_or_else(|_| panic!("{service:?} does not serve"));
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let request = HealthCheckRequest {
        service: "hsmac.token.other".into(),
    };
    let status = health.check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    bridge.still_serves().await;
}

#[tokio::test]
async fn reflection_tells_of_the_services_in_both_of_its_versions() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let wanted = [
        "grpc.health.v1.Health",
        "hsmac.v1.KeyService",
        "hsmac.v1.MacService",
    ];
    macro_rules! ask {
        ($version:ident, $question:ident($text:expr)) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let question = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::$question($text.into())),
            };
            let answers = ServerReflectionClient::new(server.channel().await)
                .server_reflection_info(tokio_stream::iter([question]))
                .await;
            let answer = answers.unwrap().into_inner().message().await.unwrap();
            match answer.unwrap().message_response {
                Some(MessageResponse::ListServicesResponse(list)) => list
                    .service
                    .into_iter()
                    .map(|service| service.name)
                    .collect::<Vec<_>>(),
                Some(MessageResponse::FileDescriptorResponse(files)) => files
                    .file_descriptor_proto
                    .iter()
                    .map(|file| FileDescriptorProto::decode(&file[..]).unwrap())
                    .flat_map(|file| {
                        let package = file.package().to_owned();
                        let messages = file.message_type.into_iter();
                        messages.map(move |it| format!("{package}.{}", it.name()))
                    })
                    .collect(),
                other => panic!("{other:?}"),
            }
        }};
    }
    for services in [ask!(v1, ListServices("")), ask!(v1alpha, ListServices(""))] {
        for service in wanted {
            assert!(services.iter().any(|name| name == service), "{services:?}");
        }
    }
    // What the details of errors are made of, so that tools can show them.
    for detail in ["ErrorInfo", "BadRequest", "RetryInfo"].map(|it| format!("google.rpc.{it}")) {
        for messages in [
            ask!(v1, FileContainingSymbol(&detail)),
            ask!(v1alpha, FileContainingSymbol(&detail)),
        ] {
            assert!(messages.contains(&detail), "{messages:?}");
        }
    }
    assert!(server.terminate().await.success());

    // A setting: without it there is none.
    let config = token.config().replace("reflection = true", "");
    let server = token.serve(&config).await;
    let mut client =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(
            server.channel().await,
        );
    let refused = client
        .server_reflection_info(tokio_stream::iter([
            tonic_reflection::pb::v1::ServerReflectionRequest::default(),
        ]))
        .await;
    let Err(status) = refused else {
        panic!("reflection is off, and answers")
    };
    assert_status(&status, Code::Unimplemented, "UNKNOWN_OPERATION", "");
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_its_own() {
    let mut bridge = Bridge::start().await;
    let mut seen = Vec::new();
    for round in 0..50 {
        let good = bridge.mac.generate_mac(request(MESSAGE)).await.unwrap();
        let bad = bridge.mac.generate_mac(of_key("key_id")).await.unwrap_err();
        let lost = raw(&bridge, "/x.Y/Z", NOTHING, b"").await;
        for metadata in [good.metadata(), bad.metadata(), lost.metadata()] {
            let id = metadata.get("x-request-id").unwrap_or_else(|| {
                panic!("no x-request-id in round {round}: {metadata:?}");
            });
            let id = id.to_str().unwrap().to_owned();
            assert!(uuid::Uuid::try_parse(&id).is_ok(), "{id}");
            assert!(!seen.contains(&id), "{id} is there twice");
            seen.push(id);
        }
    }
    assert_eq!(seen.len(), 150);
    // By it an operator finds the refused call in the log.
    let log = bridge.server.log();
    assert!(log.contains(&seen[1]), "no {} in the log", seen[1]);
}

#[tokio::test]
async fn a_full_queue_sheds_at_once_and_the_rest_get_their_own_macs() {
    let token = Token::with_key();
    let config = token.config_with(
        "hosts = 1\nsessions = 1\nqueue = 1\n",
        &declare(KEY_ID, "mac", "HMAC_256", "alias/test"),
    );
    let server = token.serve(&config).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(server.mac().await);
    }
    let began = Instant::now();
    let (mut made, mut shed) = (0, 0);
    let mut number = 0_u64;
    while made < 200 || shed < 200 {
        assert!(
            began.elapsed() < LIMIT,
            "{made} MACs and {shed} shed after {LIMIT:?}"
        );
        let mut calls = JoinSet::new();
        for _ in 0..16 {
            for client in &clients {
                number += 1;
                let mut client = client.clone();
                calls.spawn(async move {
                    let message = number.to_be_bytes();
                    (message, client.generate_mac(request(&message)).await)
                });
            }
        }
        while let Some(call) = calls.join_next().await {
            match call.unwrap() {
                (message, Ok(answer)) => {
                    let mac = answer.into_inner().mac;
                    assert_eq!(mac, hmac_sha256(&KEY, &message), "another caller's MAC");
                    made += 1;
                }
                (_, Err(status)) => {
                    assert_status(
                        &status,
                        Code::ResourceExhausted,
                        "THROTTLING",
                        "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
                    );
                    let pause = status.get_details_retry_info().expect("a RetryInfo");
                    assert!(pause.retry_delay.is_some_and(|pause| !pause.is_zero()));
                    shed += 1;
                }
            }
        }
    }
    println!(
        "{made} MACs were made and {shed} calls shed in {:?}",
        began.elapsed()
    );
    let good = server.mac().await.generate_mac(request(MESSAGE)).await;
    assert_eq!(good.unwrap().into_inner().mac, hmac_sha256(&KEY, MESSAGE));
    let log = server.log();
    assert!(!log.contains("panicked"));
    let told =
        format!("reason=\"token primary: the queue is full: 1 calls wait; asked by {CALLER}\"");
    let lines = log.matches(&told).count();
    assert!(lines > 0, "{log}");
    // One a second at most, of hundreds.
    assert!(lines as u64 <= began.elapsed().as_secs() + 2, "{lines}");
}
