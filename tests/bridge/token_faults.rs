//! What a token answers other than CKR_OK: how it is counted by its cause, and what the client is told.

use std::time::{Duration, Instant};

use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    operator::{Operator, with_faults},
    support::{KEY, KEY_ID, LIMIT, Server, Token, hmac_sha256, request, until},
};

const SIGN: &str =
    "hsmac_token_faults_total{token=\"primary\",function=\"C_Sign\",code=\"CKR_DEVICE_ERROR\"}";

/// The code of gRPC and the reason that errors.md has for it.
async fn refused(server: &Server, message: &[u8]) -> (Code, String) {
    let status = server.mac_with(KEY_ID, message).await.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    (status.code(), info.reason.clone())
}

async fn until_made(server: &Server, message: &[u8]) {
    let mut client = server.mac().await;
    let began = Instant::now();
    loop {
        match client.generate_mac(request(message)).await {
            Ok(made) => return assert_eq!(made.into_inner().mac, hmac_sha256(&KEY, message)),
            // The token is asked for a key again ten seconds after it failed with it.
            Err(status) => assert!(
                matches!(status.code(), Code::FailedPrecondition | Code::Unavailable)
                    && began.elapsed() < LIMIT,
                "{status}"
            ),
        }
        // As in `until`: the next look.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The token answers other questions: so it is the key, and load balancers still send callers here.
#[tokio::test]
async fn a_key_that_the_token_always_fails_with_is_in_trouble_and_its_cause_is_counted() {
    let token = Token::with_key();
    let config = with_faults(&token, "hosts = 1\nsessions = 1\n");
    let server = token.serve(&config).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    until_made(&server, b"before").await;
    assert_eq!(operator.metric(SIGN), None);
    token.rules("return C_Sign CKR_DEVICE_ERROR");
    let invalid_state = (Code::FailedPrecondition, "KMS_INVALID_STATE".to_owned());
    assert_eq!(refused(&server, b"x").await, invalid_state);
    operator.until_counted(SIGN, 1).await;
    let status = operator.status();
    let last = &status["groups"][0]["tokens"][0]["last_fault"];
    assert_eq!(
        (&last["function"], &last["code"]),
        (&"C_Sign".into(), &"CKR_DEVICE_ERROR".into()),
        "{status}"
    );
    let reason = status["troubled_keys"][0]["reason"].as_str().unwrap();
    assert_eq!(
        reason,
        "the token fails with this key and answers others: C_Sign CKR_DEVICE_ERROR"
    );
    assert!(
        status["summary"]
            .as_str()
            .unwrap()
            .contains("One key cannot serve"),
        "{status}"
    );
    assert_eq!(operator.ask_tcp("/readyz").status, 200);
    token.rules("");
    until_made(&server, b"after").await;
    until("the key is in no trouble", || {
        let status = operator.status();
        status["troubled_keys"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
}

/// The token answers nothing any more: so it is the token, and clients are told to come again.
#[tokio::test]
async fn a_token_that_fails_with_everything_is_unavailable_and_each_cause_is_counted() {
    let token = Token::with_key();
    let settings = "hosts = 1\nsessions = 1\nprobe_interval = \"0s\"\n";
    let server = token.serve(&with_faults(&token, settings)).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    until_made(&server, b"before").await;
    token.rules("return C_Sign CKR_DEVICE_ERROR\nreturn C_GenerateRandom CKR_GENERAL_ERROR");
    let unavailable = (Code::Unavailable, "KEY_UNAVAILABLE".to_owned());
    assert_eq!(refused(&server, b"x").await, unavailable);
    let faults = || {
        let metrics = operator.ask_tcp("/metrics").body;
        let lines = metrics.lines();
        let found = lines.filter(|line| line.starts_with("hsmac_token_faults_total"));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    until(&format!("the cause is counted: {:?}", faults()), || {
        faults()
            .iter()
            .any(|line| line.starts_with(SIGN))
            .then_some(())
    })
    .await;
    operator
        .until_counted(
            "hsmac_host_ends_total{token=\"primary\",reason=\"lost\"}",
            1,
        )
        .await;
    let ours = "hsmac_calls_total{wire=\"grpc\",operation=\"GenerateMac\",exception=\"KeyUnavailableException\"}";
    operator.until_counted(ours, 1).await;
    let status = operator.status();
    let cause = status["faults"][0]["cause"].as_str().unwrap();
    assert!(cause.contains("CKR_"), "{status}");
    token.rules("");
    until_made(&server, b"after").await;
}
