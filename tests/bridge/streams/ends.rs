//! How a stream ends: all items that were taken are answered first.

use std::time::Duration;

use bytes::Bytes;
use hsmac::proto::v1::GenerateMacsRequest;
use prost::Message as _;
use tonic::Code;

use super::{MacStream, soon, stop};
use crate::{
    operator::with_faults,
    support::{KEY, Token, assert_status, hmac_sha256, request, signal},
};

/// GOAWAY is no end of a stream; its items are answered, and then its status says to go elsewhere.
#[tokio::test]
async fn at_a_shutdown_the_items_that_were_taken_are_answered() {
    let token = Token::with_key();
    let mut server = token.serve(&token.config()).await;
    let mut stream = MacStream::open(server.mac().await).await;
    stream.send(0, b"x").await;
    assert!(stream.answer().await.1.is_ok());
    let host = server.hosts()[0];
    stop(host).await;
    for id in 1..=20 {
        stream.send(id, b"x").await;
    }
    // Items are taken in their order: this one says that the others are.
    stream.send(21, b"").await;
    assert_eq!(stream.answer().await.0, 21);
    signal(server.child.id(), "TERM");
    server
        .until_log("ending: calls in flight are answered")
        .await;
    signal(host, "CONT");
    let (answers, end) = stream.rest().await;
    assert_eq!(answers.len(), 20);
    let right = Ok(hmac_sha256(&KEY, b"x"));
    assert!(answers.values().all(|outcome| *outcome == right));
    let (code, reason) = (Code::Unavailable, "KEY_UNAVAILABLE");
    let mut status = end.unwrap_err();
    // Trailers have no request ID; the head had one.
    let id = "x-request-id";
    status.metadata_mut().insert(id, "x".parse().unwrap());
    assert_status(&status, code, reason, "is ending");
    assert!(soon(server.ended()).await.success());
    assert!(!server.log().contains("calls were dropped"));
}

#[tokio::test]
async fn a_stream_ends_with_its_deadline_and_has_none_of_its_own() {
    let token = Token::with_key();
    let config = with_faults(&token, "hosts = 1\nsessions = 1\n")
        .replace("default_deadline = \"30s\"", "default_deadline = \"2s\"");
    let server = token.serve(&config).await;
    let mut without = MacStream::open(server.mac().await).await;
    let deadline = Some(Duration::from_secs(3));
    let with = MacStream::try_open(server.mac().await, deadline).await;
    let mut with = with.unwrap();
    with.send(1, b"x").await;
    assert!(with.answer().await.1.is_ok());
    let status = with.next().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    // Longer than the default deadline of a call.
    without.send(1, b"x").await;
    assert!(without.answer().await.1.is_ok());
    // Each item has a deadline, though.
    token.rules("hang C_Sign");
    without.send(2, b"late").await;
    let (_, outcome) = without.answer().await;
    let error = outcome.unwrap_err();
    assert_eq!(
        (error.reason.as_str(), error.code),
        ("DEPENDENCY_TIMEOUT", 4)
    );
    token.rules("");
    without.send(3, b"x").await;
    without.close();
    let (answers, end) = without.rest().await;
    assert_eq!((answers.len(), end.is_ok()), (1, true));
}

#[tokio::test]
async fn an_item_that_cannot_be_decoded_ends_the_stream_after_the_answers() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let good = GenerateMacsRequest {
        id: 1,
        request: Some(request(b"good")),
    };
    let good = Bytes::from(good.encode_to_vec());
    let long = Bytes::from(vec![0; (128 << 10) + 1]);
    for (bad, reason, words) in [
        (
            Bytes::from_static(b"\xff"),
            "SERIALIZATION",
            "cannot be decoded",
        ),
        (long, "VALIDATION", "131072"),
    ] {
        let items = vec![good.clone(), bad, good.clone()];
        let (answers, status) = super::pressure::raw(&server, items).await;
        assert_eq!(answers.len(), 1, "{status:?}");
        let mut status = status.unwrap_err();
        let id = "x-request-id";
        status.metadata_mut().insert(id, "x".parse().unwrap());
        assert_status(&status, Code::InvalidArgument, reason, words);
    }
    let mut stream = MacStream::open(server.mac().await).await;
    stream.close();
    let (answers, end) = stream.rest().await;
    assert!(answers.is_empty() && end.is_ok(), "no item is no error");
}

#[tokio::test]
async fn a_connection_has_8_streams_open_at_a_time_and_a_principal_64() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let mut mac = server.mac().await;
    let mut streams = Vec::new();
    for number in 0..64 {
        if number % 8 == 0 {
            mac = server.mac().await;
        }
        streams.push(MacStream::open(mac.clone()).await);
    }
    let refused = MacStream::try_open(mac.clone(), None).await.err().unwrap();
    assert_eq!(
        refused.code(),
        Code::ResourceExhausted,
        "nine of a connection"
    );
    mac = server.mac().await;
    let refused = MacStream::try_open(mac.clone(), None).await.err().unwrap();
    assert_status(
        &refused,
        Code::ResourceExhausted,
        "THROTTLING",
        "Too many streams",
    );
    // A client that leaves gives its place up.
    streams.pop();
    let began = std::time::Instant::now();
    while MacStream::try_open(mac.clone(), None).await.is_err() {
        assert!(began.elapsed() < crate::support::LIMIT);
    }
    for stream in &mut streams {
        stream.send(1, b"x").await;
        assert!(stream.answer().await.1.is_ok());
    }
}
