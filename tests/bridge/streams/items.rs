//! Each item is judged as the call alone would be.

use std::time::Duration;

use hsmac::proto::v1::{
    DisableKeyRequest, EnableKeyRequest, GenerateMacRequest, ItemError, MacAlgorithm,
    VerifyMacsRequest, verify_macs_response::Outcome,
};
use tonic::{Code, Status, codegen::tokio_stream};
use tonic_types::StatusExt as _;

use super::{MacStream, soon, stop};
use crate::{
    operator::{Operator, watched, with_faults},
    support::{
        CALLER, KEY, KEY_ID, Token, declare, hmac_sha256,
        pki::client,
        request, signal,
        tls::{Place, principal},
        verify_request,
    },
};

const OWN_ID: &str = "a234abcd-12ab-34cd-56ef-1234567890ab";
const OTHER_ID: &str = "9234abcd-12ab-34cd-56ef-1234567890ab";

/// What a call's status says, in the form of an item's error.
fn of_call(status: &Status, request_id: &str) -> ItemError {
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    let violations = details.bad_request().map(|it| it.field_violations.clone());
    let violations = violations.unwrap_or_default().into_iter();
    let pause = details.retry_info().and_then(|it| it.retry_delay);
    ItemError {
        code: status.code().into(),
        reason: info.reason.clone(),
        message: status.message().to_owned(),
        exception: info.metadata["exception"].clone(),
        field_violations: violations
            .map(|it| hsmac::proto::v1::ItemFieldViolation {
                field: it.field,
                description: it.description,
            })
            .collect(),
        retry_delay_ms: pause.map(|pause| u64::try_from(pause.as_millis()).unwrap()),
        request_id: request_id.to_owned(),
    }
}

#[tokio::test]
async fn an_item_s_error_is_its_answer_with_all_that_the_call_s_error_says() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let mut mac = server.mac().await;
    let mut stream = MacStream::open(server.mac().await).await;
    let bad = |change: fn(&mut GenerateMacRequest)| {
        let mut request = request(b"message");
        change(&mut request);
        request
    };
    let bad = [
        bad(|it| it.message = Vec::new().into()),
        bad(|it| it.message = vec![0; 4097].into()),
        bad(|it| it.key_id = OTHER_ID.into()),
        bad(|it| it.key_id = "?".into()),
        bad(|it| it.mac_algorithm = MacAlgorithm::HmacSha512.into()),
        bad(|it| it.mac_algorithm = 77),
        bad(|it| it.message_crc32c = Some(1)),
        bad(|it| it.dry_run = true),
        bad(|it| it.grant_tokens = vec!["no token".into()]),
        GenerateMacRequest::default(),
    ];
    for (id, request) in (0..).zip(&bad) {
        stream.send_request(id, request.clone()).await;
        let (answered, outcome) = stream.answer().await;
        let error = outcome.unwrap_err();
        let status = mac.generate_mac(request.clone()).await.unwrap_err();
        assert_eq!(answered, id);
        assert_eq!(*error, of_call(&status, &error.request_id));
        assert!(uuid::Uuid::parse_str(&error.request_id).is_ok());
    }
    stream.send(u64::MAX, b"good").await;
    stream.close();
    let (answers, end) = stream.rest().await;
    assert_eq!(answers[&u64::MAX], Ok(hmac_sha256(&KEY, b"good")));
    assert_eq!((answers.len(), end.is_ok()), (1, true));
}

#[tokio::test]
async fn answers_come_as_soon_as_they_are_made_each_under_its_own_id() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let mut stream = MacStream::open(server.mac().await).await;
    stream.send(1, b"first").await;
    assert_eq!(stream.answer().await, (1, Ok(hmac_sha256(&KEY, b"first"))));
    // While the host stands still, what needs no token is answered.
    let host = server.hosts()[0];
    stop(host).await;
    stream.send(2, b"second").await;
    stream.send(3, b"").await;
    let (id, outcome) = stream.answer().await;
    assert_eq!((id, outcome.unwrap_err().reason), (3, "VALIDATION".into()));
    signal(host, "CONT");
    assert_eq!(stream.answer().await, (2, Ok(hmac_sha256(&KEY, b"second"))));
    // Nobody looks whether an ID is used twice.
    for message in [b"a", b"b"] {
        stream.send(7, message).await;
        assert_eq!(stream.answer().await, (7, Ok(hmac_sha256(&KEY, message))));
    }
    stream.close();
    assert_eq!(stream.next().await.unwrap(), None);
}

#[tokio::test]
async fn items_of_one_stream_are_with_the_token_side_by_side() {
    let token = Token::with_key();
    let server = token
        .serve(&with_faults(&token, "hosts = 1\nsessions = 2\n"))
        .await;
    let mut stream = MacStream::open(server.mac().await).await;
    stream.send(1, b"first").await;
    assert_eq!(stream.answer().await, (1, Ok(hmac_sha256(&KEY, b"first"))));
    token.rules("delay C_Sign 5s when-message-contains 736c6f77"); // "slow"
    stream.send(2, b"slow").await;
    for id in 3..10 {
        stream.send(id, b"quick").await;
        assert_eq!(stream.answer().await, (id, Ok(hmac_sha256(&KEY, b"quick"))));
    }
    assert_eq!(stream.answer().await, (2, Ok(hmac_sha256(&KEY, b"slow"))));
}

#[tokio::test]
async fn a_stream_of_many_items_answers_each_once_and_counts_each() {
    let token = Token::with_key();
    let server = token.serve(&watched(&token, &token.config())).await;
    let operator = Operator::new(&token, &server).await;
    let mut mac = server.mac().await;
    let right = |number: u64| hmac_sha256(&KEY, &number.to_be_bytes());
    let items = (0..2000).map(move |id: u64| {
        // Every tenth MAC is another message's.
        let mac = right(if id.is_multiple_of(10) { id + 1 } else { id });
        let request = Some(verify_request(&id.to_be_bytes(), &mac));
        VerifyMacsRequest { id, request }
    });
    let answers = mac.verify_macs(tokio_stream::iter(items)).await.unwrap();
    let (mut answers, mut seen) = (answers.into_inner(), vec![0_u32; 2000]);
    while let Some(answer) = soon(answers.message()).await.unwrap() {
        seen[usize::try_from(answer.id).unwrap()] += 1;
        match answer.outcome.unwrap() {
            Outcome::Response(response) => {
                assert!(response.mac_valid && !answer.id.is_multiple_of(10));
            }
            Outcome::Error(error) => {
                assert!(answer.id.is_multiple_of(10), "{error:?}");
                assert_eq!(error.reason, "KMS_INVALID_MAC");
                assert_eq!(error.exception, "KMSInvalidMacException");
                assert_eq!(error.code, i32::from(Code::InvalidArgument));
            }
        }
    }
    assert!(seen.iter().all(|count| *count == 1));
    let series = "hsmac_calls_total{wire=\"grpc\",operation=\"VerifyMacs\",exception=";
    let count = |exception: &str| operator.metric(&format!("{series}\"{exception}\"}}"));
    assert_eq!(count("").as_deref(), Some("1800"));
    assert_eq!(count("KMSInvalidMacException").as_deref(), Some("200"));
}

/// Security: what is taken away counts for the next item of an open stream.
#[tokio::test]
async fn a_key_that_is_disabled_is_disabled_for_the_next_item_of_an_open_stream() {
    let token = Token::with_key();
    token.import("own", "a1", &KEY);
    token.seed(OWN_ID, "a1", "Enabled").await;
    let server = token.serve(&(token.config() + &token.store())).await;
    let mut stream = MacStream::open(server.mac().await).await;
    let mut keys = server.keys().await;
    let own = GenerateMacRequest {
        key_id: OWN_ID.into(),
        ..request(b"hello")
    };
    let made = Ok(hmac_sha256(&KEY, b"hello"));
    for round in 0..5 {
        stream.send_request(3 * round, own.clone()).await;
        assert_eq!(stream.answer().await, (3 * round, made.clone()));
        let key_id = OWN_ID.to_owned();
        keys.disable_key(DisableKeyRequest { key_id })
            .await
            .unwrap();
        stream.send_request(3 * round + 1, own.clone()).await;
        let (_, outcome) = stream.answer().await;
        let error = outcome.unwrap_err();
        assert_eq!((error.reason.as_str(), error.code), ("DISABLED", 9));
        // Other keys are served meanwhile.
        stream.send(3 * round + 2, b"hello").await;
        assert_eq!(stream.answer().await, (3 * round + 2, made.clone()));
        let key_id = OWN_ID.to_owned();
        keys.enable_key(EnableKeyRequest { key_id }).await.unwrap();
    }
}

/// Security: a policy that a reload brings judges the next item, and a caller that it removes has none.
#[tokio::test]
async fn rights_that_a_reload_takes_away_are_gone_for_the_next_item() {
    let place = Place::new(Token::with_key());
    let arn = "arn:aws:iam::111122223333:user/streamer";
    let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let policy = |effect: &str| {
        format!(
            r#"{{"Statement":[{{"Effect":"{effect}","Action":"kms:GenerateMac","Resource":"*"}}]}}"#
        )
    };
    place.write("streamer.json", &policy("Allow"));
    let known = principal(arn, "streamer", Some("streamer.json"));
    let running = place
        .serve(&place.config("", &format!("{known}\n{key}")))
        .await;
    let reload = async || {
        let reloads = || running.server.log().matches(" reloaded ").count();
        let before = reloads();
        signal(running.server.child.id(), "HUP");
        crate::support::until("a reload", || (reloads() > before).then_some(())).await;
    };
    let certificate = client().dns("streamer").signed_by(&place.clients);
    let mac = running.client(Some(&certificate)).mac().await;
    let mut stream = MacStream::open(mac).await;
    stream.send(1, b"hello").await;
    assert!(stream.answer().await.1.is_ok());

    place.write("streamer.json", &policy("Deny"));
    reload().await;
    stream.send(2, b"hello").await;
    let error = stream.answer().await.1.unwrap_err();
    assert_eq!((error.reason.as_str(), error.code), ("ACCESS_DENIED", 7));
    assert_eq!(error.exception, "AccessDeniedException");

    place.write("streamer.json", &policy("Allow"));
    reload().await;
    stream.send(3, b"hello").await;
    assert!(stream.answer().await.1.is_ok());

    let other = principal(CALLER, "other", None);
    place.write("hsmac.toml", &place.config("", &format!("{other}\n{key}")));
    reload().await;
    stream.send(4, b"hello").await;
    // The connection is told goodbye too, and whichever is sooner ends the stream.
    let status = stream.next().await.unwrap_err();
    let unauthenticated = status.code() == Code::Unauthenticated;
    assert!(
        unauthenticated || status.get_details_error_info().is_none(),
        "{status:?}"
    );
}

#[tokio::test]
async fn each_item_counts_against_its_principal_s_limits_as_the_call_would() {
    let place = Place::new(Token::with_key());
    let arn = "arn:aws:iam::111122223333:user/greedy";
    let limits = format!(
        "[[limits.principal]]\narn = \"{arn}\"\nrates.cryptographic_operations_symmetric = {{ rate = 1, per = \"1h\", burst = 10 }}\n"
    );
    let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let principals = [(arn, "greedy"), (CALLER, "other")];
    let principals = principals.map(|(arn, name)| principal(arn, name, Some("caller.json")));
    let rest = format!("{}{limits}\n{key}", principals.concat());
    let running = place.serve(&place.config("", &rest)).await;
    let known = |name: &str| running.client(Some(&client().dns(name).signed_by(&place.clients)));
    let mut mac = known("greedy").mac().await;
    // Five calls, the stream itself, and four of its items.
    for _ in 0..5 {
        mac.generate_mac(request(b"x")).await.unwrap();
    }
    let mut stream = MacStream::open(mac.clone()).await;
    for id in 0..10 {
        stream.send(id, b"x").await;
    }
    let mut made = 0;
    for _ in 0..10 {
        let (_, outcome) = stream.answer().await;
        let Err(error) = outcome else {
            made += 1;
            continue;
        };
        assert_eq!((error.reason.as_str(), error.code), ("THROTTLING", 8));
        let pause = Duration::from_millis(error.retry_delay_ms.unwrap());
        assert!(pause > Duration::from_secs(3500), "{pause:?}");
    }
    assert_eq!(made, 4);
    let refused = mac.generate_mac(request(b"x")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // Another stream is a call too, and nobody else notices.
    let refused = MacStream::try_open(mac, None).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let mut other = MacStream::open(known("other").mac().await).await;
    for id in 0..50 {
        other.send(id, b"x").await;
        assert!(other.answer().await.1.is_ok());
    }
}

/// Security: a peer without a proof gets nothing from a stream.
#[tokio::test]
async fn a_caller_without_a_proof_is_refused_before_an_item_is_read() {
    let place = Place::new(Token::with_key());
    let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let known = principal(CALLER, "known", Some("caller.json"));
    let running = place
        .serve(&place.config("", &format!("{known}\n{key}")))
        .await;
    let mut mac = running.client(None).mac().await;
    let item = VerifyMacsRequest::default();
    let refused = soon(mac.verify_macs(tokio_stream::iter([item]))).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    let refused = MacStream::try_open(mac, None).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
