//! Making and destroying keys through a group of tokens: what is known when a host dies, when a
//! deadline passes, and when another token of the group has to follow.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use hsmac::{
    model::{Flow, KeySpec},
    token::{
        Destroyed, Fault, Group, HostEnvironment, HostProgram, Logins, ObjectLocator, Settings,
        TokenKey,
    },
};
use zeroize::Zeroizing;

use crate::support::{
    KEY, KEY_ID, LIMIT, TOKEN, Token, children, fault_module, hex, hmac_sha256, signal, until,
};

/// No token of the group is done with yet.
fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

const ID: [u8; 16] = *b"0123456789abcdef";
const LABEL: &str = "hsmac:key";

fn settings(token: &Token, module: &Path, name: &str, more: serde_json::Value) -> Settings {
    let mut env = serde_json::Map::new();
    env.insert(
        "SOFTHSM2_CONF".into(),
        token.path("softhsm2.conf").display().to_string().into(),
    );
    for (variable, value) in token.fault_environment() {
        env.insert(variable.into(), value.display().to_string().into());
    }
    let mut all = serde_json::json!({
        "uri": format!("pkcs11:token={TOKEN}?module-path={}", module.display()),
        "pin_file": token.path("pin"),
        "sessions": 1,
        "env": env,
    });
    let more = more.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(more);
    let mut settings: Settings = serde_json::from_value(all).unwrap();
    settings.name = name.into();
    settings
}

/// A group whose first token is behind the fault token.
fn start(token: &Token, more: &[serde_json::Value]) -> Arc<Group> {
    let modules = [fault_module(), token.wrapped()];
    let settings = more
        .iter()
        .zip(&modules)
        .zip(["one", "two"])
        .map(|((more, module), name)| settings(token, module, name, more.clone()))
        .collect();
    let environment = HostEnvironment {
        host: HostProgram::Binary(env!("CARGO_BIN_EXE_hsmac").into()),
        state_dir: token.path(""),
    };
    Group::start("tokens", settings, &environment, &Logins::default())
}

fn key(check_value: Option<hsmac::token::CheckValue>) -> Arc<TokenKey> {
    Arc::new(TokenKey::new(
        KEY_ID.parse().unwrap(),
        KeySpec::Hmac256,
        ObjectLocator {
            id: Some(ID.into()),
            label: Some(LABEL.into()),
        },
        check_value,
    ))
}

fn object() -> String {
    format!("{LABEL} {}", hex(&ID))
}

fn soon() -> Instant {
    Instant::now() + LIMIT
}

/// Waits until the module has begun with a call, which the fault token delays.
async fn asked(token: &Token, what: &str) {
    until(what, || {
        let log = fs::read_to_string(token.path("fault.log")).unwrap_or_default();
        log.contains(what).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_is_made_serves_and_is_destroyed_once() {
    let token = Token::new();
    let group = start(&token, &[serde_json::json!({})]);
    let made = group.generate(&key(None), soon()).await.unwrap();
    assert!(made.sensitive && !made.extractable && made.local);
    assert_eq!(made.token, "one");
    let taken = group.generate(&key(None), soon()).await.unwrap_err();
    assert!(matches!(taken, Fault::Key(_)), "{taken}");

    let serving = key(Some(made.check_value.clone()));
    let one = group
        .mac(&serving, "x".into(), Flow::OWN, soon())
        .await
        .unwrap();
    assert_eq!(
        one,
        group
            .mac(&serving, "x".into(), Flow::OWN, soon())
            .await
            .unwrap()
    );

    let unproved = group
        .destroy(&key(None), &mut none(), soon())
        .await
        .unwrap_err();
    assert!(matches!(unproved, Fault::Key(_)), "{unproved}");
    group.forget(&serving).await;
    let closed = group
        .destroy(&serving, &mut none(), soon())
        .await
        .unwrap_err();
    assert_eq!(closed, Fault::Closed);
    let doomed = || key(Some(made.check_value.clone()));
    let destroyed = group.destroy(&doomed(), &mut none(), soon()).await.unwrap();
    assert_eq!(destroyed, Destroyed::Now);
    let destroyed = group.destroy(&doomed(), &mut none(), soon()).await.unwrap();
    assert_eq!(destroyed, Destroyed::WasGone);
    assert_eq!(token.objects(), [""; 0]);
    group.end(soon()).await;
}

#[tokio::test]
async fn given_material_makes_the_macs_that_it_should() {
    let token = Token::new();
    let group = start(&token, &[serde_json::json!({})]);
    let material = Zeroizing::new(KEY.to_vec());
    let made = group.import(&key(None), material, soon()).await.unwrap();
    let key = key(Some(made.check_value));
    let mac = group
        .mac(&key, "x".into(), Flow::OWN, soon())
        .await
        .unwrap();
    assert_eq!(mac, hmac_sha256(&KEY, b"x"));
    group.end(soon()).await;
}

#[tokio::test]
async fn a_creation_whose_host_dies_is_unknown_and_never_done_by_another() {
    let token = Token::new();
    let group = start(&token, &[serde_json::json!({ "hosts": 2 })]);
    until("both hosts", || {
        (*group.generations().borrow() == 2).then_some(())
    })
    .await;
    token.rules("hang C_GenerateKey");
    let creation = tokio::spawn({
        let group = Arc::clone(&group);
        async move { group.generate(&key(None), soon()).await }
    });
    asked(&token, "C_GenerateKey hang").await;
    let log = fs::read_to_string(token.path("fault.log")).unwrap();
    let line = log.lines().find(|line| line.contains("C_GenerateKey"));
    let host: u32 = line.unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(children(std::process::id()).contains(&host));
    signal(host, "KILL");
    let fault = creation.await.unwrap().unwrap_err();
    assert!(matches!(&fault, Fault::Unknown(_)), "{fault}");
    assert!(!fault.is_settled());
    // The other host serves; a third has come. Neither was given the creation.
    until("a third host", || {
        (*group.generations().borrow() == 3).then_some(())
    })
    .await;
    group.random(8, Flow::OWN, soon()).await.unwrap();
    let log = fs::read_to_string(token.path("fault.log")).unwrap();
    assert_eq!(log.matches("C_GenerateKey").count(), 1, "{log}");
    token.rules("");
    let left = group
        .destroy_orphan(&key(None), &mut none(), soon())
        .await
        .unwrap();
    assert_eq!(left, Destroyed::WasGone);
    group.end(soon()).await;
}

#[tokio::test]
async fn what_comes_of_a_creation_is_waited_for_beyond_the_deadline() {
    let token = Token::new();
    let group = start(&token, &[serde_json::json!({})]);
    group.random(8, Flow::OWN, soon()).await.unwrap();
    token.rules("delay C_GenerateKey 4s");
    let until = Instant::now() + Duration::from_secs(2);
    let made = group.generate(&key(None), until).await;
    assert!(made.is_ok() && Instant::now() > until, "{made:?}");
    assert_eq!(token.objects(), [object()]);

    // But a call that could not begin in time does not begin at all.
    let other = group
        .destroy_orphan(&key(None), &mut none(), soon())
        .await
        .unwrap();
    assert_eq!(other, Destroyed::Now);
    let late = group.generate(&key(None), Instant::now()).await;
    let late = late.unwrap_err();
    assert!(
        matches!(late, Fault::Deadline(_)) && late.is_settled(),
        "{late}"
    );
    assert_eq!(token.objects(), [""; 0]);
    token.rules("");
    group.end(soon()).await;
}

#[tokio::test]
async fn a_call_that_hangs_ends_with_its_host() {
    let token = Token::new();
    let group = start(&token, &[serde_json::json!({ "slow_timeout": "500ms" })]);
    group.random(8, Flow::OWN, soon()).await.unwrap();
    token.rules("hang C_GenerateKey");
    let until = Instant::now() + Duration::from_secs(2);
    let fault = group.generate(&key(None), until).await.unwrap_err();
    assert!(matches!(fault, Fault::Unknown(_)), "{fault}");
    token.rules("");
    group.end(soon()).await;
}

#[tokio::test]
async fn a_group_makes_keys_only_if_its_vendor_replicates_them() {
    let token = Token::new();
    let group = start(
        &token,
        &[
            serde_json::json!({ "group": "tokens" }),
            serde_json::json!({ "group": "tokens" }),
        ],
    );
    let fault = group.generate(&key(None), soon()).await.unwrap_err();
    assert!(matches!(fault, Fault::Unsupported(_)), "{fault}");
    assert_eq!(token.objects(), [""; 0]);
    group.end(soon()).await;

    // Two ways to one token: what one member makes, the other has, as soon as it is there.
    token.rules("hide token");
    let member = serde_json::json!({ "group": "tokens", "replicated_by": "vendor" });
    let group = start(&token, &[member.clone(), member]);
    let until_then = Instant::now() + Duration::from_secs(2);
    let fault = group.generate(&key(None), until_then).await.unwrap_err();
    assert!(matches!(fault, Fault::Unavailable(_)), "{fault}");
    assert!(!fault.is_settled());
    assert_eq!(token.objects(), [object()]);
    token.inside(&format!("destroy {LABEL}\n"));

    let creation = tokio::spawn({
        let group = Arc::clone(&group);
        async move { group.generate(&key(None), soon()).await }
    });
    until("the object with one member", || {
        (token.objects() == [object()]).then_some(())
    })
    .await;
    token.rules("");
    let made = creation.await.unwrap().unwrap();
    assert_eq!(made.token, "two");
    let destroyed = group
        .destroy(&key(Some(made.check_value)), &mut none(), soon())
        .await
        .unwrap();
    assert_eq!(destroyed, Destroyed::Now);
    assert_eq!(token.objects(), [""; 0]);
    group.end(soon()).await;
}
