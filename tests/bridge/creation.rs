//! CreateKey: what is in the store and in the token, whatever ends when.

use std::{os::unix::process::ExitStatusExt as _, time::Duration};

use hsmac::{
    proto::v1::{
        CreateKeyRequest, DescribeKeyRequest, KeySpec, KeyState, KeyUsage, MacAlgorithm, Origin,
    },
    store::Expect,
};
use serde_json::json;
use tonic::{Code, Request};

use crate::support::{
    KEY, KEY_ID, Server, Token, assert_status, fault_module, hex, request, signal, until,
};

/// The usual token and declared key, and a store.
fn with_store() -> (Token, String) {
    let token = Token::with_key();
    let config = token.config() + &token.store();
    (token, config)
}

/// The same, with the fault token in between.
fn over_faults(settings: &str) -> (Token, String) {
    let (token, config) = with_store();
    let config = over_fault_token(&token, &config).replace("hosts = 1\nsessions = 2\n", settings);
    (token, config)
}

pub(crate) fn over_fault_token(token: &Token, config: &str) -> String {
    let variables: Vec<String> = token
        .fault_environment()
        .iter()
        .map(|(name, value)| format!("{name} = \"{}\", ", value.display()))
        .collect();
    config
        .replace(
            &format!("module-path={}", token.module().display()),
            &format!("module-path={}", fault_module().display()),
        )
        .replace("env = { ", &format!("env = {{ {}", variables.concat()))
}

/// The objects of the token besides the declared key's.
pub(crate) fn made(token: &Token) -> Vec<String> {
    let mut objects = token.objects();
    objects.retain(|object| object != "mac 01");
    objects
}

/// Waits until the token has nothing that hsmac made.
async fn clean(token: &Token) {
    until("a token without orphans", || {
        made(token).is_empty().then_some(())
    })
    .await;
}

/// A server that dies at a point, and its end seen.
pub(crate) async fn serve_until(token: &Token, config: &str, point: &str) -> Server {
    let mut server = token.spawn_with(config, &[("FAULT_POINT", point)]);
    server.until_log("listening").await;
    server
}

pub(crate) async fn killed(mut server: Server, point: &str) {
    let ended = server.ended().await;
    assert_eq!(ended.signal(), Some(9), "{point}: {}", server.log());
}

#[tokio::test]
async fn keys_of_every_spec_are_made_in_the_token_and_outlive_a_restart() {
    let (token, config) = with_store();
    let server = token.serve(&config).await;
    let mut keys = server.keys().await;
    let mut macs = Vec::new();
    for (spec, algorithm, length) in [
        (KeySpec::Hmac224, MacAlgorithm::HmacSha224, 28),
        (KeySpec::Hmac256, MacAlgorithm::HmacSha256, 32),
        (KeySpec::Hmac384, MacAlgorithm::HmacSha384, 48),
        (KeySpec::Hmac512, MacAlgorithm::HmacSha512, 64),
    ] {
        let asked = CreateKeyRequest {
            key_usage: KeyUsage::GenerateVerifyMac.into(),
            key_spec: spec.into(),
            description: "made here".into(),
            ..CreateKeyRequest::default()
        };
        let told = keys.create_key(asked).await.unwrap().into_inner();
        let told = told.key_metadata.unwrap();
        assert_eq!(told.key_state(), KeyState::Enabled);
        assert_eq!(told.origin(), Origin::AwsKms);
        assert_eq!(told.description, "made here");
        let facts = told.token.unwrap();
        assert!(facts.sensitive && facts.non_extractable && facts.never_extractable && facts.local);
        let mut request = request(b"hello");
        request.key_id.clone_from(&told.key_id);
        request.mac_algorithm = algorithm.into();
        let mac = server.mac().await.generate_mac(request.clone()).await;
        let mac = mac.unwrap().into_inner().mac;
        assert_eq!(mac.len(), length);
        macs.push((request, mac));
    }
    let labels = made(&token);
    assert_eq!(labels.len(), 4);
    for (request, _) in &macs {
        let label = format!("hsmac:{} ", request.key_id);
        assert!(
            labels.iter().any(|one| one.starts_with(&label)),
            "{labels:?}"
        );
    }
    assert!(token.records("intent/").await.is_empty());
    server.terminate().await;

    let server = token.serve(&config).await;
    for (request, mac) in macs {
        let again = server.mac().await.generate_mac(request).await.unwrap();
        assert_eq!(again.into_inner().mac, mac);
    }
    assert_eq!(made(&token), labels);
}

#[tokio::test]
async fn kill_9_at_any_step_of_a_creation_loses_no_key_and_leaves_no_object() {
    let (token, config) = with_store();
    let server = token.serve(&config).await;
    let told = server.create().await.unwrap();
    let mac = server.mac_with(&told, b"before").await.unwrap();
    server.terminate().await;
    let mut kept = vec![told.clone()];
    for point in [
        "create:before-intent",
        "create:after-intent",
        "create:after-object",
        "create:before-commit",
        "create:after-commit",
    ] {
        let server = serve_until(&token, &config, point).await;
        server.create().await.unwrap_err();
        killed(server, point).await;
        let objects = made(&token).len();
        let has_object = !matches!(point, "create:before-intent" | "create:after-intent");
        assert_eq!(objects, kept.len() + usize::from(has_object), "{point}");

        let server = token.serve(&config).await;
        let mut there = server.key_ids().await;
        there.retain(|id| id != KEY_ID && !kept.contains(id));
        // What was committed wins, though nobody was told; what was not never becomes a key.
        assert_eq!(
            there.len(),
            usize::from(point == "create:after-commit"),
            "{point}"
        );
        kept.extend(there);
        until("a token without orphans", || {
            (made(&token).len() == kept.len()).then_some(())
        })
        .await;
        for key_id in &kept {
            let object = format!("hsmac:{key_id} ");
            assert!(made(&token).iter().any(|one| one.starts_with(&object)));
            server.mac_with(key_id, b"x").await.unwrap();
        }
        assert_eq!(server.mac_with(&told, b"before").await.unwrap(), mac);
        server.terminate().await;
    }
}

#[tokio::test]
async fn kill_9_while_an_orphan_is_settled_leaves_it_to_the_next_start() {
    let (token, config) = with_store();
    let server = serve_until(&token, &config, "create:after-object").await;
    server.create().await.unwrap_err();
    killed(server, "create:after-object").await;
    assert_eq!(made(&token).len(), 1);
    // Closed, and not searched; then searched, and nobody has written that down.
    for (point, left) in [("settle:closed", 1), ("settle:searched", 0)] {
        let server = token.spawn_with(&config, &[("FAULT_POINT", point)]);
        killed(server, point).await;
        assert_eq!(made(&token).len(), left, "{point}");
        let intents = token.records("intent/").await;
        assert!(intents.values().all(|intent| !intent["closed"].is_null()));
        assert_eq!(intents.len(), 1);
    }
    let server = token.serve(&config).await;
    assert_eq!(server.key_ids().await, [KEY_ID]);
    server.create().await.unwrap();
}

#[tokio::test]
async fn an_object_that_lands_late_is_found_by_a_fresh_host_and_destroyed() {
    let (token, config) = over_faults("hosts = 1\nsessions = 2\n");
    let server = token.serve(&config).await;
    token.rules("hang C_GenerateKey");
    let creation = tokio::spawn({
        let mut keys = server.keys().await;
        async move {
            let asked = CreateKeyRequest {
                key_usage: KeyUsage::GenerateVerifyMac.into(),
                key_spec: KeySpec::Hmac256.into(),
                ..CreateKeyRequest::default()
            };
            keys.create_key(asked).await
        }
    });
    until("a creation that hangs", || {
        let log = std::fs::read_to_string(token.path("fault.log")).unwrap_or_default();
        log.contains("C_GenerateKey hang").then_some(())
    })
    .await;
    let intents = token.records("intent/").await;
    let intent = intents.values().next().unwrap().clone();
    let (label, id) = (&intent["locator"]["label"], &intent["locator"]["cka_id"]);
    let (label, id) = (label.as_str().unwrap(), id.as_str().unwrap());
    signal(server.hosts()[0], "KILL");
    let status = creation.await.unwrap().unwrap_err();
    assert_status(
        &status,
        Code::DeadlineExceeded,
        "DEPENDENCY_TIMEOUT",
        "timed out",
    );
    token.rules("");

    // Searched, and not found: now it lands, as if the HSM had been busy with it all the time.
    let closed = || async {
        let intents = token.records("intent/").await;
        intents.values().all(|intent| !intent["closed"].is_null())
    };
    while !closed().await {}
    until("a search that finds nothing", || {
        let log = std::fs::read_to_string(token.path("fault.log")).unwrap_or_default();
        let after = log.split("C_GenerateKey hang").nth(1)?;
        after.contains("C_FindObjectsFinal").then_some(())
    })
    .await;
    token.inside(&format!("generic {label} {id} {}\n", hex(&KEY)));
    server.mac_with(KEY_ID, b"x").await.unwrap();
    signal(server.hosts()[0], "KILL");
    clean(&token).await;
    assert_eq!(server.key_ids().await, [KEY_ID]);
    // It is searched for a day all the same.
    assert_eq!(token.records("intent/").await.len(), 1);
    server.terminate().await;

    // And after the day once more, before it is forgotten.
    let mut old = intent.clone();
    old["closed"] = json!(old["created"].as_u64().unwrap() - 25 * 3600 * 1000);
    let name = format!("intent/{}/{id}", old["key_id"].as_str().unwrap());
    token.write(&name, old, Expect::Any).await;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let clock = json!({ "at": u64::try_from(now.as_millis()).unwrap(), "held": 0 });
    token.write("clock", clock, Expect::Any).await;
    token.inside(&format!("generic {label} {id} {}\n", hex(&KEY)));
    let _server = token.serve(&config).await;
    clean(&token).await;
    while !token.records("intent/").await.is_empty() {}
}

#[tokio::test]
async fn a_key_whose_caller_has_left_is_destroyed() {
    let (token, config) = over_faults("hosts = 1\nsessions = 2\n");
    let server = token.serve(&config).await;
    token.rules("delay C_GenerateKey 600ms");
    let mut asked = Request::new(CreateKeyRequest {
        key_usage: KeyUsage::GenerateVerifyMac.into(),
        key_spec: KeySpec::Hmac256.into(),
        ..CreateKeyRequest::default()
    });
    asked.set_timeout(Duration::from_millis(200));
    server.keys().await.create_key(asked).await.unwrap_err();
    until("the object", || {
        let log = std::fs::read_to_string(token.path("fault.log")).unwrap_or_default();
        log.contains("C_DestroyObject CKR_OK").then_some(())
    })
    .await;
    assert!(made(&token).is_empty());
    assert_eq!(server.key_ids().await, [KEY_ID]);
}

#[tokio::test]
async fn a_token_that_makes_no_keys_is_told_and_leaves_no_trace() {
    let (token, config) = over_faults("hosts = 1\nsessions = 2\n");
    let mut server = token.serve(&config).await;
    for rules in [
        "return C_GenerateKey CKR_TEMPLATE_INCONSISTENT",
        "return C_OpenSession CKR_TOKEN_WRITE_PROTECTED",
    ] {
        token.rules(rules);
        let status = server.create().await.unwrap_err();
        assert_status(
            &status,
            Code::Unimplemented,
            "UNSUPPORTED_OPERATION",
            "the token does not support the operation",
        );
        assert!(token.records("intent/").await.is_empty());
    }
    // Words for the log alone.
    server.until_log("CKR_TEMPLATE_INCONSISTENT").await;
    token.rules("");
    server.create().await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_away_makes_no_key_and_keeps_no_intent() {
    let (token, config) = over_faults("hosts = 1\nsessions = 2\n");
    token.rules("hide token");
    let mut server = token.spawn(&config);
    server.until_log("the token is unavailable").await;
    server.until_log("listening").await;
    let status = server.create().await.unwrap_err();
    assert_status(
        &status,
        Code::Unavailable,
        "KEY_UNAVAILABLE",
        "not available",
    );
    assert!(token.records("intent/").await.is_empty());
    token.rules("");
    server.until_log("the token is up").await;
    let key_id = server.create().await.unwrap();
    let asked = DescribeKeyRequest {
        key_id,
        grant_tokens: Vec::new(),
    };
    server.keys().await.describe_key(asked).await.unwrap();
}
