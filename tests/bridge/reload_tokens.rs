//! What operators and health checks see of tokens that a reload adds, changes and takes away.

use std::{fs, time::Instant};

use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    operator::{Operator, watched},
    support::{KEY_ID, LIMIT, Server, TOKEN, Token, declare, signal, until},
};

async fn reload(token: &Token, server: &Server, config: &str) {
    fs::write(token.path("hsmac.new"), config).unwrap();
    fs::rename(token.path("hsmac.new"), token.path("hsmac.toml")).unwrap();
    let reloaded = || server.log().matches(" reloaded ").count();
    let before = reloaded();
    signal(server.child.id(), "HUP");
    until("the reload", || (reloaded() > before).then_some(())).await;
}

async fn health(server: &Server, token: &str) -> Result<ServingStatus, Status> {
    let mut health = HealthClient::new(server.channel().await);
    let service = format!("hsmac.token.{token}");
    let said = health.check(HealthCheckRequest { service }).await?;
    Ok(said.into_inner().status())
}

async fn until_serving(server: &Server, token: &str) {
    let began = Instant::now();
    while health(server, token).await.ok() != Some(ServingStatus::Serving) {
        assert!(began.elapsed() < LIMIT, "{}", server.log());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn health_metrics_and_status_have_the_tokens_that_there_are() {
    let token = Token::with_key();
    let second = Token::with_key();
    let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test") + "token = \"primary\"\n";
    let one = watched(&token, &token.config_with("sessions = 2\n", &key));
    let section = format!(
        "[token.second]\nuri = \"pkcs11:token={TOKEN}?module-path={}\"\npin_file = \"{}\"\nenv = {{ SOFTHSM2_CONF = \"{}\" }}\n",
        second.module().display(),
        second.path("pin").display(),
        second.path("softhsm2.conf").display(),
    );
    let both = "new_keys = \"primary\"\n".to_owned() + &one + &section;
    let server = token.serve(&one).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    let unknown = |said: Result<ServingStatus, Status>| {
        assert_eq!(said.unwrap_err().code(), Code::NotFound);
    };
    let of_second = || operator.ask("/metrics").body.matches("\"second\"").count();
    let macs = "hsmac_token_call_duration_seconds_count{token=\"primary\",function=\"mac\"} ";
    let counted = || {
        let body = operator.ask("/metrics").body;
        let (_, rest) = body.split_once(macs).unwrap();
        rest.lines().next().unwrap().to_owned()
    };
    unknown(health(&server, "second").await);
    assert_eq!(of_second(), 0);

    reload(&token, &server, &both).await;
    until_serving(&server, "second").await;
    assert!(of_second() > 10);
    server.mac_with("alias/test", b"x").await.unwrap();
    let before = counted();
    assert!(before.parse::<f64>().unwrap() >= 1.0, "{before}");

    // Settings that come into force leave what was counted.
    let changed = one.replace("sessions = 2", "sessions = 3");
    assert_ne!(changed, one);
    reload(&token, &server, &changed).await;
    until("the new sessions", || {
        let body = operator.ask("/metrics").body;
        body.contains("hsmac_sessions{token=\"primary\",state=\"limit\"} 3.0")
            .then_some(())
    })
    .await;
    assert_eq!(counted(), before);
    unknown(health(&server, "second").await);
    until("the series of the token that is gone", || {
        (of_second() == 0).then_some(())
    })
    .await;
    let status = operator.ask("/status.json").body;
    assert!(!status.contains("\"name\":\"second\""), "{status}");

    // Those with which no host comes up are told, and nothing else is.
    let wrong = changed.replace(&format!("token={TOKEN}"), "token=hsmac-tset");
    let pending = |flag: &str| {
        let series = "hsmac_token_settings_pending{token=\"primary\"} ";
        let body = operator.ask("/metrics").body;
        body.contains(&format!("{series}{flag}")).then_some(())
    };
    pending("0.0").unwrap();
    reload(&token, &server, &wrong).await;
    until("a word on them", || pending("1.0")).await;
    let words = "No host comes up with the new settings of the token primary";
    until("a reason", || {
        operator
            .ask("/status.json")
            .body
            .contains(words)
            .then_some(())
    })
    .await;
    operator.until_ready(200).await;
    assert_eq!(
        health(&server, "primary").await.unwrap(),
        ServingStatus::Serving
    );
    reload(&token, &server, &changed).await;
    pending("0.0").unwrap();
    assert!(server.terminate().await.success());
}

/// A health check that waits for word of a token hears that it is gone.
#[tokio::test]
async fn who_watches_a_token_hears_of_its_end() {
    let token = Token::with_key();
    let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let usual = token.config_with("", &key);
    let server = token.serve(&usual).await;
    let mut health = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest {
        service: "hsmac.token.primary".into(),
    };
    let mut said = health.watch(request).await.unwrap().into_inner();
    let first = said.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let renamed = usual.replace("[token.primary]", "[token.other]");
    reload(&token, &server, &renamed).await;
    let mut last = first.status();
    while let Some(more) = said.message().await.unwrap() {
        last = more.status();
    }
    assert_eq!(last, ServingStatus::NotServing);
    until_serving(&server, "other").await;
    server.mac_with("alias/test", b"x").await.unwrap();
    assert!(server.terminate().await.success());
}
