//! Two tokens that hold the same keys.

use tonic::Code;

use super::*;
use crate::support::{assert_status, signal};

#[tokio::test]
async fn a_member_that_is_lost_and_comes_back_costs_no_call() {
    let drill = Drill::pair("").await;
    let load = drill.load().await;
    let mut healed = Vec::new();
    for member in [1, 0] {
        let up = drill.logged("the token is up");
        let away = drill.logged("the token is unavailable");
        drill.members[member].rules("hide token");
        drill.until_logged("the token is unavailable", away).await;
        healed.push(load.goes_on(much(300)).await);
        drill.members[member].rules("");
        drill.until_logged("the token is up", up).await;
        load.goes_on(much(300)).await;
    }
    load.end_without_failure(&drill, "a member lost and back", &healed)
        .await;
}

#[tokio::test]
async fn a_member_that_hangs_costs_no_call() {
    let drill = Drill::pair("call_timeout = \"1s\"\n").await;
    let load = drill.load().await;
    let mut healed = Vec::new();
    for member in [0, 1] {
        let up = drill.logged("the token is up");
        let away = drill.logged("the token is unavailable");
        drill.members[member].rules("hang C_Sign");
        healed.push(load.goes_on(much(300)).await);
        drill.until_logged("the token is unavailable", away).await;
        load.goes_on(much(300)).await;
        drill.members[member].rules("");
        drill.until_logged("the token is up", up).await;
    }
    load.end_without_failure(&drill, "a member hangs and comes back", &healed)
        .await;
}

#[tokio::test]
async fn a_member_whose_module_crashes_all_the_time_costs_no_call() {
    let drill = Drill::pair("").await;
    let load = drill.load().await;
    drill.members[0].rules("crash C_Sign every 50");
    let healed = load.goes_on(much(500)).await;
    drill.members[0].rules("");
    load.goes_on(100).await;
    load.end_without_failure(&drill, "a member crashes at each 50th call", &[healed])
        .await;
}

#[tokio::test]
async fn a_key_that_only_one_member_has_is_served_by_that_one() {
    let drill = Drill::pair("").await;
    let load = drill.load().await;
    drill.members[0].rules("hide key mac");
    let healed = load.goes_on(much(300)).await;
    // Who has it is away: that is the token's trouble, not the key's.
    drill.members[1].rules("hide token");
    drill.until_logged("the token is unavailable", 0).await;
    let mut client = drill.server.mac().await;
    let status = client.generate_mac(request(b"x")).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "KEY_UNAVAILABLE", "");
    drill.members[1].rules("");
    drill.members[0].rules("");
    load.goes_on(much(100)).await;
    let failed = load.end("a key on one member only", &[healed]).await;
    only(&failed, NO_HOST);
    assert_eq!(drill.logged("the key is unavailable"), 0);
}

#[tokio::test]
async fn a_key_that_no_member_has_is_the_key_s_fault_and_serves_again_later() {
    let drill = Drill::pair("").await;
    for member in &drill.members {
        member.rules("hide key mac");
    }
    let mut client = drill.server.mac().await;
    let status = client.generate_mac(request(b"x")).await.unwrap_err();
    let text = "is unavailable.";
    assert_status(&status, Code::FailedPrecondition, "KMS_INVALID_STATE", text);
    for member in &drill.members {
        member.rules("");
    }
    let began = Instant::now();
    while let Err(status) = client.generate_mac(request(b"x")).await {
        assert_status(&status, Code::FailedPrecondition, "KMS_INVALID_STATE", text);
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "asked again after 10 s"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Security: the same name, another key. Nothing says which is right, so neither serves.
#[tokio::test]
async fn members_that_disagree_about_a_key_serve_it_on_neither() {
    let members = vec![Member::new("first"), Member::new("second")];
    members[1].token.inside("destroy mac\n");
    members[1].token.import("mac", "01", &OTHER_KEY);
    let settings = "group = \"twins\"\nhosts = 1\n";
    let drill = Drill::spawn(members, settings).up(2).await;
    let mut client = drill.server.mac().await;
    // Until the second member is asked the first may serve: then nobody does any more.
    let began = Instant::now();
    let refused = loop {
        let (mut one, mut two) = (client.clone(), client.clone());
        let both = tokio::join!(
            one.generate_mac(request(b"x")),
            two.generate_mac(request(b"x"))
        );
        let (Ok(first), Ok(second)) = both else {
            break both.0.err().or_else(|| both.1.err()).unwrap();
        };
        assert_eq!(first.into_inner().mac, second.into_inner().mac, "two keys");
        assert!(began.elapsed() < Duration::from_secs(60));
    };
    let text = "is unavailable.";
    assert_status(
        &refused,
        Code::FailedPrecondition,
        "KMS_INVALID_STATE",
        text,
    );
    for member in [0, 1] {
        let serve = drill.logged("a host serves");
        signal(drill.server.hosts()[member], "KILL");
        drill.until_logged("a host serves", serve).await;
        let status = client.generate_mac(request(b"x")).await.unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "KMS_INVALID_STATE", text);
    }
    let mut other = request(b"x");
    other.key_id = OTHER_ID.into();
    client.generate_mac(other).await.unwrap();
    assert_eq!(drill.logged("the key is unavailable"), 1, "said once");
}

#[tokio::test]
async fn a_pinned_key_is_served_by_the_member_that_has_the_right_one() {
    let members = vec![Member::new("first"), Member::new("second")];
    let right = members[0].token.check(&members[0].token.config());
    let value = right.stdout.split("check_value = ").nth(1).unwrap();
    let value = value.lines().next().unwrap().to_owned();
    members[1].token.inside("destroy mac\n");
    members[1].token.import("mac", "01", &OTHER_KEY);
    let keys = declare(KEY_ID, "mac", "HMAC_256", "alias/test")
        + &format!("check_value = {value}\n")
        + &declare(OTHER_ID, "other", "HMAC_256", "alias/other");
    let settings = "group = \"twins\"\nhosts = 1\n";
    let drill = Drill::spawn_with(members, settings, &keys).up(2).await;
    let load = drill.load().await;
    load.goes_on(much(300)).await;
    load.end_without_failure(&drill, "a member has another key under a pinned name", &[])
        .await;
}

#[tokio::test]
async fn check_shows_which_member_has_which_key_and_that_two_disagree() {
    let members = vec![Member::new("first"), Member::new("second")];
    members[1].token.inside("destroy mac\ndestroy other\n");
    members[1].token.import("mac", "01", &OTHER_KEY);
    let drill = Drill::spawn(members, "group = \"twins\"\nhosts = 1\n");
    let output = drill
        .token()
        .token
        .hsmac(&["check", "--config", "hsmac.toml"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    for words in [
        "token first (group twins): up",
        "token second (group twins): up",
        "group twins: up",
        &format!("key {OTHER_ID}: in first, not in second"),
        &format!(
            "key {KEY_ID}: in first, second\n    its tokens have different keys under this name"
        ),
    ] {
        assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
    }
    drill.members[1].rules("hide token");
    let output = drill
        .token()
        .token
        .hsmac(&["check", "--config", "hsmac.toml"]);
    assert!(
        output
            .stdout
            .contains("group twins: degraded: second cannot be asked"),
        "{output:?}"
    );
}

#[tokio::test]
async fn health_names_each_member_and_serves_while_one_can() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    // Nobody calls: the sign of life finds it.
    let drill = Drill::pair("probe_interval = \"100ms\"\n").await;
    let mut health = HealthClient::new(drill.server.channel().await);
    drill.members[1].rules("hide token");
    drill.until_logged("the token is unavailable", 0).await;
    for (service, wanted) in [
        ("hsmac.token.first", ServingStatus::Serving),
        ("hsmac.token.second", ServingStatus::NotServing),
        ("", ServingStatus::Serving),
    ] {
        let began = Instant::now();
        loop {
            let asked = HealthCheckRequest {
                service: service.into(),
            };
            let status = health.check(asked).await.unwrap().into_inner().status();
            if status == wanted {
                break;
            }
            assert!(began.elapsed() < LIMIT, "{service:?} is {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
