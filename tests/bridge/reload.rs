//! What a reload gives and takes while hsmac serves, and how one that fails is seen.

use std::{fs, time::Instant};

use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{
    CALLER, KEY, KEY_ID, LIMIT, Server, Token, assert_status, calls, declare, hmac_sha256, request,
    signal,
};

const RELOADED: &str = " reloaded ";
const NOT_RELOADED: &str = "not reloaded: the old settings stay";

/// Writes a configuration, asks for a reload, and waits until the log says how it went.
async fn reload(token: &Token, server: &Server, config: &str, words: &str) {
    let new = token.path("hsmac.new");
    fs::write(&new, config).unwrap();
    fs::rename(new, token.path("hsmac.toml")).unwrap();
    hang_up(server, words).await;
}

async fn hang_up(server: &Server, words: &str) {
    let before = server.log().matches(words).count();
    signal(server.child.id(), "HUP");
    let began = Instant::now();
    while server.log().matches(words).count() <= before {
        let log = server.log();
        assert!(began.elapsed() < LIMIT, "no more {words:?} in {log}");
        tokio::task::yield_now().await;
    }
}

/// Waits until health says so of reloads.
async fn until_health(server: &Server, status: ServingStatus) {
    let mut health = HealthClient::new(server.channel().await);
    let began = Instant::now();
    loop {
        let request = HealthCheckRequest {
            service: "hsmac.reload".into(),
        };
        let now = health.check(request).await.unwrap().into_inner().status();
        if now == status {
            return;
        }
        assert!(began.elapsed() < LIMIT, "it is {now:?} for too long");
        tokio::task::yield_now().await;
    }
}

async fn assert_serves(server: &Server) {
    let made = server.mac().await.generate_mac(request(b"x")).await;
    assert_eq!(made.unwrap().into_inner().mac, hmac_sha256(&KEY, b"x"));
}

#[tokio::test]
async fn a_reload_that_fails_is_in_health_in_the_log_and_in_check_until_it_is_mended() {
    let token = Token::with_key();
    let good = token.config();
    let server = token.serve(&good).await;
    until_health(&server, ServingStatus::Serving).await;

    let broken = good.replace("us-west-2", "US WEST");
    reload(&token, &server, &broken, NOT_RELOADED).await;
    until_health(&server, ServingStatus::NotServing).await;
    let reason = "is no region: it must be lowercase letters";
    assert!(server.log().contains(reason), "{}", server.log());
    // Beside a server that goes on, `check` meets the same files, and says the same of them.
    let checked = token.check(&broken);
    assert_eq!(checked.status.code(), Some(78), "{checked:?}");
    assert!(checked.stderr.contains(reason), "{checked:?}");
    assert_serves(&server).await;

    reload(&token, &server, &good, RELOADED).await;
    until_health(&server, ServingStatus::Serving).await;
    assert!(server.terminate().await.success());
}

/// Security: a secret that others can read by now is not taken over, and what was read before serves.
#[tokio::test]
async fn a_pin_that_others_can_read_by_now_fails_the_reload() {
    use std::os::unix::fs::PermissionsExt as _;

    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let mode = |mode| fs::set_permissions(token.path("pin"), fs::Permissions::from_mode(mode));
    mode(0o644).unwrap();
    hang_up(&server, "pin has mode 0644: others than its owner can read").await;
    until_health(&server, ServingStatus::NotServing).await;
    assert_serves(&server).await;
    mode(0o600).unwrap();
    hang_up(&server, RELOADED).await;
    until_health(&server, ServingStatus::Serving).await;
    assert!(server.terminate().await.success());
}

const SECOND: &str = "2234abcd-12ab-34cd-56ef-1234567890ab";

#[tokio::test]
async fn declared_keys_and_aliases_come_change_and_go_without_a_restart() {
    let token = Token::with_key();
    token.import("second", "02", b"another key, of 32 bytes as well");
    let first = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let second = declare(SECOND, "second", "HMAC_256", "alias/second");
    let both = token.config_with("", &(first.clone() + &second));
    let one = token.config_with("", &first);
    let server = token.serve(&one).await;
    let missing = |refused: Status| assert_status(&refused, Code::NotFound, "NOT_FOUND", "");
    missing(server.mac_with("alias/second", b"x").await.unwrap_err());

    reload(&token, &server, &both, RELOADED).await;
    let made = server.mac_with("alias/second", b"x").await.unwrap();
    assert_eq!(made, hmac_sha256(b"another key, of 32 bytes as well", b"x"));
    assert!(
        server.log().contains("added=1 changed=0 removed=0"),
        "{}",
        server.log()
    );

    let disabled = token.config_with("", &format!("{first}{second}enabled = false\n"));
    reload(&token, &server, &disabled, RELOADED).await;
    for name in [SECOND, "alias/second"] {
        let refused = server.mac_with(name, b"x").await.unwrap_err();
        let words = "is disabled.";
        assert_status(&refused, Code::FailedPrecondition, "DISABLED", words);
    }
    assert_serves(&server).await;

    // The alias of one is the other's, and another object is the key's.
    let swapped = first.replace("alias/test", "alias/second")
        + &second
            .replace("alias/second", "alias/test")
            .replace("object=second", "object=mac");
    reload(&token, &server, &token.config_with("", &swapped), RELOADED).await;
    for name in [SECOND, "alias/test", "alias/second"] {
        let made = server.mac_with(name, b"x").await.unwrap();
        assert_eq!(made, hmac_sha256(&KEY, b"x"), "{name}");
    }

    reload(&token, &server, &one, RELOADED).await;
    for name in [SECOND, "alias/second"] {
        missing(server.mac_with(name, b"x").await.unwrap_err());
    }
    assert_serves(&server).await;
    // What needs a restart is told by its name.
    let more = both.replace("[grpc]", "drain_timeout = \"7s\"\n[grpc]");
    reload(&token, &server, &more, RELOADED).await;
    server.mac_with("alias/second", b"x").await.unwrap();
    let said = server.log();
    let pending = said
        .lines()
        .find(|line| line.contains("event=restart_pending"));
    assert!(
        pending.is_some_and(|line| line.contains("settings=drain_timeout")),
        "{said}"
    );
    assert!(server.terminate().await.success());
}

/// Security: what a reload takes away counts although another part of it is refused.
#[tokio::test]
async fn a_principal_is_removed_although_the_listener_does_not_move() {
    let token = Token::with_key();
    let uid = rustix::process::geteuid().as_raw();
    let principal = |uid: u32| {
        format!(
            "[[principal]]\narn = \"{CALLER}\"\nunix_uid = {uid}\npolicy_file = \"caller.json\"\n"
        )
    };
    let config = |principal: &str| {
        let config = token.config();
        let anonymous = format!("anonymous = \"{CALLER}\"\n");
        let policy = format!("[[principal]]\narn = \"{CALLER}\"\npolicy_file = \"caller.json\"\n");
        assert!(config.contains(&anonymous) && config.contains(&policy));
        config.replace(&anonymous, "").replace(&policy, principal)
    };
    let server = token.serve(&config(&principal(uid))).await;
    assert_serves(&server).await;

    let moved = config(&principal(uid + 1)).replace("grpc.sock", "other.sock");
    reload(
        &token,
        &server,
        &moved,
        "grpc.listen: a running listener does not move",
    )
    .await;
    let refused = server.mac().await.generate_mac(request(b"x")).await;
    assert_status(
        &refused.unwrap_err(),
        Code::Unauthenticated,
        "MISSING_AUTHENTICATION_TOKEN",
        "",
    );
    until_health(&server, ServingStatus::NotServing).await;
    assert!(!token.path("other.sock").exists());
    assert!(server.terminate().await.success());
}

/// Security: calls that the old policy of a declared key has let in, and that no token has yet, are
/// refused when the new one is in force.
#[tokio::test]
async fn a_declared_key_s_new_policy_refuses_the_calls_that_wait() {
    let token = Token::with_key();
    let policy = |effect: &str| {
        let policy = format!(
            r#"{{"Statement":[
                {{"Effect":"Allow","Principal":{{"AWS":"111122223333"}},"Action":"kms:*","Resource":"*"}},
                {{"Effect":"{effect}","Principal":"*","Action":"kms:GenerateMac","Resource":"*"}}]}}"#
        );
        fs::write(token.path("key.new"), policy).unwrap();
        fs::rename(token.path("key.new"), token.path("key.json")).unwrap();
    };
    policy("Allow");
    let config =
        token.config().replace("sessions = 2", "sessions = 1") + "policy_file = \"key.json\"\n";
    let (config, spied) = token.spied(&config);
    let server = token.serve(&config).await;
    assert_serves(&server).await;
    let host = server.hosts()[0];

    // While the host stands still, the calls wait for it.
    signal(host, "STOP");
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let mut client = server.mac().await;
        waiting.spawn(async move { client.generate_mac(request(b"waits")).await });
    }
    policy("Deny");
    // The fence waits for the host that has some of them.
    let before = server.log().matches(RELOADED).count();
    signal(server.child.id(), "HUP");
    let began = Instant::now();
    let mut denied = 0;
    while let Some(ended) = waiting.join_next().await {
        match ended.unwrap() {
            Ok(_) => {}
            Err(status) => {
                denied += u32::from(status.code() == Code::PermissionDenied);
            }
        }
        assert!(began.elapsed() < LIMIT);
    }
    while server.log().matches(RELOADED).count() <= before {
        assert!(began.elapsed() < LIMIT, "{}", server.log());
        tokio::task::yield_now().await;
    }
    assert!(denied > 50, "{denied} were refused: {:?}", calls(&spied));
    let refused = server.mac().await.generate_mac(request(b"x")).await;
    assert_status(
        &refused.unwrap_err(),
        Code::PermissionDenied,
        "ACCESS_DENIED",
        "with an explicit deny in a resource-based policy",
    );
}
