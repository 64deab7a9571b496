//! The end of keys: at their date, after any restart, and never of an object that is not theirs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hsmac::{
    proto::v1::{
        CreateAliasRequest, CreateGrantRequest, DescribeKeyRequest, ScheduleKeyDeletionRequest,
    },
    store::Expect,
};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;

use crate::{
    creation::{killed, made, serve_until},
    operator::{Operator, watched},
    support::{CALLER, KEY, Server, Token, assert_status, hex, until},
};

/// Five hundred go in a change.
const GRANTS: usize = 520;

fn millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// The time of day as a server that was just ended would have written it down.
async fn steady_clock(token: &Token, ago: Duration) {
    let at = millis() - u64::try_from(ago.as_millis()).unwrap();
    let clock = json!({ "at": at, "held": 0 });
    token.write("clock", clock, Expect::Any).await;
}

/// A key with an alias and more grants than go in one change, whose deletion date has come, and a second key; no server has them.
async fn due() -> (Token, String, String, String) {
    let token = Token::with_key();
    let config = token.config() + &token.store();
    let server = token.serve(&config).await;
    let doomed = server.create().await.unwrap();
    let other = server.create().await.unwrap();
    let mut keys = server.keys().await;
    let alias = CreateAliasRequest {
        alias_name: "alias/doomed".into(),
        target_key_id: doomed.clone(),
    };
    keys.create_alias(alias).await.unwrap();
    let mut grants = JoinSet::new();
    for number in 0..GRANTS {
        let grant = CreateGrantRequest {
            key_id: doomed.clone(),
            grantee_principal: Some(CALLER.into()),
            operations: vec!["GenerateMac".into()],
            name: (number % 2 == 0).then(|| number.to_string()),
            ..Default::default()
        };
        let mut keys = keys.clone();
        grants.spawn(async move { keys.create_grant(grant).await });
    }
    while let Some(made) = grants.join_next().await {
        made.unwrap().unwrap();
    }
    let schedule = ScheduleKeyDeletionRequest {
        key_id: doomed.clone(),
        pending_window_in_days: Some(7),
    };
    keys.schedule_key_deletion(schedule).await.unwrap();
    server.terminate().await;
    let name = format!("key/111122223333/{doomed}");
    let mut record = token.records("key/").await[&name].clone();
    record["life"]["PendingDeletion"]["deletion_date"] = json!(millis() - 1000);
    token.write(&name, record, Expect::Any).await;
    steady_clock(&token, Duration::ZERO).await;
    (token, config, doomed, other)
}

async fn is_gone(server: &Server, key_id: &str) {
    for name in [key_id, "alias/doomed"] {
        let asked = DescribeKeyRequest {
            key_id: name.into(),
            grant_tokens: Vec::new(),
        };
        let status = server.keys().await.describe_key(asked).await.unwrap_err();
        assert_status(&status, Code::NotFound, "NOT_FOUND", "");
    }
    assert!(!server.key_ids().await.contains(&key_id.to_owned()));
}

fn has_object(token: &Token, key_id: &str) -> bool {
    let label = format!("hsmac:{key_id} ");
    made(token).iter().any(|object| object.starts_with(&label))
}

async fn deleted(token: &Token, server: &mut Server, doomed: &str, other: &str) {
    server.until_log("the key is deleted").await;
    assert!(!has_object(token, doomed));
    is_gone(server, doomed).await;
    for prefix in [
        "key/",
        "alias/",
        "usage/",
        "alarm/",
        "grant/",
        "grant-request/",
    ] {
        let records = token.records(prefix).await;
        assert!(
            !records.keys().any(|name| name.contains(doomed)),
            "{records:?}"
        );
        assert!(prefix != "alias/" || records.is_empty(), "{records:?}");
    }
    assert!(has_object(token, other));
    server.mac_with(other, b"x").await.unwrap();
}

#[tokio::test]
async fn a_key_goes_at_its_date_with_its_object_and_its_aliases() {
    let (token, config, doomed, other) = due().await;
    let mut server = token.serve(&config).await;
    deleted(&token, &mut server, &doomed, &other).await;
}

#[tokio::test]
async fn kill_9_at_any_step_of_a_deletion_is_gone_on_from() {
    let (token, config, doomed, other) = due().await;
    for (point, life, object) in [
        ("delete:before-mark", false, true),
        ("delete:marked", true, true),
        ("delete:destroyed", true, false),
        ("delete:grants", true, false),
    ] {
        serve_until_killed(&token, &config, point).await;
        assert_eq!(has_object(&token, &doomed), object, "{point}");
        let name = format!("key/111122223333/{doomed}");
        let record = token.records("key/").await[&name].clone();
        assert_eq!(record["life"] == "Deleting", life, "{point}: {record}");
        assert!(has_object(&token, &other));
        let left = token.records("grant/").await.len();
        let some_are_gone = point == "delete:grants";
        assert_eq!(left < GRANTS, some_are_gone, "{point}: {left}");
        assert!(left > 0, "{point}");
    }
    let mut server = token.serve(&config).await;
    deleted(&token, &mut server, &doomed, &other).await;
}

async fn serve_until_killed(token: &Token, config: &str, point: &str) {
    let server = token.spawn_with(config, &[("FAULT_POINT", point)]);
    killed(server, point).await;
}

#[tokio::test]
async fn a_swapped_object_is_never_destroyed_and_an_operator_is_told() {
    let (token, config, doomed, other) = due().await;
    let object = made(&token)
        .into_iter()
        .find(|object| object.contains(&doomed))
        .unwrap();
    let (label, id) = object.split_once(' ').unwrap();
    token.inside(&format!(
        "destroy {label}\ngeneric {label} {id} {}\n",
        hex(&KEY)
    ));
    for _ in 0..2 {
        let mut server = token.serve(&watched(&token, &config)).await;
        server.until_log("ALARM").await;
        assert_eq!(server.log().matches("ALARM").count(), 1);
        let operator = Operator::new(&token, &server).await;
        operator.until_metric("hsmac_deletion_alarms", "1.0").await;
        assert!(
            server.log().contains("its check value differs"),
            "{}",
            server.log()
        );
        assert!(has_object(&token, &doomed));
        // To clients it is gone; its record stays, with the reason.
        is_gone(&server, &doomed).await;
        server.mac_with(&other, b"x").await.unwrap();
        let name = format!("alarm/111122223333/{doomed}");
        while !token.records("alarm/").await.contains_key(&name) {}
        let alarm = token.records("alarm/").await[&name].clone();
        assert!(
            alarm["reason"]
                .as_str()
                .unwrap()
                .contains("check value differs")
        );
        let record = &token.records("key/").await[&format!("key/111122223333/{doomed}")];
        assert_eq!(record["life"], "Deleting");
        server.terminate().await;
        steady_clock(&token, Duration::ZERO).await;
    }
    // Whoever takes the stranger away lets the key go.
    token.inside(&format!("destroy {label}\n"));
    let mut server = token.serve(&config).await;
    deleted(&token, &mut server, &doomed, &other).await;
}

#[tokio::test]
async fn a_time_that_jumped_and_a_restored_catalogue_delete_nothing() {
    let (token, config, doomed, other) = due().await;
    for ago in [
        Duration::from_secs(600),
        Duration::from_secs(40 * 24 * 3600),
    ] {
        steady_clock(&token, ago).await;
        let mut server = token.serve(&config).await;
        server.until_log("the time of day has jumped").await;
        server
            .until_log("keys are due to be deleted and are held")
            .await;
        assert!(has_object(&token, &doomed));
        server.terminate().await;
        // The hold is written down: the next start goes on with it.
        let held = token.records("").await["clock"]["held"].as_u64().unwrap();
        let whole = u64::try_from(ago.as_millis())
            .unwrap()
            .min(24 * 3600 * 1000);
        assert!((whole - 60_000..=whole + 60_000).contains(&held), "{held}");
    }
    let mut server = token.serve(&config).await;
    server
        .until_log("keys are due to be deleted and are held")
        .await;
    server.terminate().await;

    steady_clock(&token, Duration::ZERO).await;
    token
        .write("restored", json!({ "at": millis() / 1000 }), Expect::Any)
        .await;
    let mut server = token.serve(&config).await;
    server
        .until_log("keys are due to be deleted and are held")
        .await;
    assert!(has_object(&token, &doomed));
    server.terminate().await;
    let confirmed = token.hsmac(&["store", "confirm", "--config", "hsmac.toml"]);
    assert!(confirmed.status.success(), "{confirmed:?}");
    let mut server = token.serve(&config).await;
    deleted(&token, &mut server, &doomed, &other).await;
}

#[tokio::test]
async fn an_object_that_somebody_else_made_stays_when_its_key_goes() {
    let (token, config, doomed, other) = due().await;
    let name = format!("key/111122223333/{doomed}");
    let mut record = token.records("key/").await[&name].clone();
    record["origin"] = json!("AWS_CLOUDHSM");
    token.write(&name, record, Expect::Any).await;
    let mut server = token.serve(&config).await;
    server.until_log("the key is deleted").await;
    is_gone(&server, &doomed).await;
    assert!(has_object(&token, &doomed) && has_object(&token, &other));
}

#[tokio::test]
async fn a_creation_that_a_restored_backup_saw_begin_is_left_to_a_person() {
    let token = Token::with_key();
    let config = token.config() + &token.store();
    let server = serve_until(&token, &config, "create:before-commit").await;
    server.create().await.unwrap_err();
    killed(server, "create:before-commit").await;
    assert_eq!(made(&token).len(), 1);
    token
        .write("restored", json!({ "at": millis() / 1000 }), Expect::Any)
        .await;
    let mut server = token.serve(&config).await;
    server.until_log("it is left alone").await;
    server.terminate().await;
    assert!(token.records("intent/").await.is_empty());
    let confirmed = token.hsmac(&["store", "confirm", "--config", "hsmac.toml"]);
    assert!(confirmed.status.success(), "{confirmed:?}");
    let server = token.serve(&config).await;
    let other = server.create().await.unwrap();
    until("both objects", || (made(&token).len() == 2).then_some(())).await;
    assert!(has_object(&token, &other));
}

#[tokio::test]
async fn a_key_that_hsmac_deletes_by_itself_is_in_the_audit_log() {
    let (token, config, doomed, other) = due().await;
    let audit = "[audit]\ndirectory = \"audit\"\nreserve_mib = 0\nseals = false\n";
    let mut server = token.serve(&(config + audit)).await;
    deleted(&token, &mut server, &doomed, &other).await;
    assert!(server.terminate().await.success());
    let told = token.hsmac(&[
        "audit", "export", "audit", "--format", "json", "--key", &doomed,
    ]);
    let records: Vec<serde_json::Value> = told
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let phases: Vec<_> = records
        .iter()
        .filter(|one| one["operation"] == "DeleteKey" && one["principal"].is_null())
        .map(|one| one["phase"].clone())
        .collect();
    assert_eq!(phases, ["attempt", "outcome"], "{told:?}");
    let events = token.hsmac(&["audit", "export", "audit", "--key", &doomed]);
    assert!(events.stdout.contains("AwsServiceEvent"), "{events:?}");
}
