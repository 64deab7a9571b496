//! Keys whose deletion is due while a token is away, and an end while a search hangs: nobody else is
//! disturbed.

use std::time::{SystemTime, UNIX_EPOCH};

use hsmac::store::Expect;
use serde_json::json;

use super::{
    acted::{head, throughout},
    *,
};
use crate::support::{hex, many_id, signal};

/// How many keys are due at once.
const DUE: usize = 10;

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Puts keys into the store of the first token whose deletion is due; every member has their objects.
async fn seed_due(members: &[Member], group: Option<&str>) {
    let token = &members[0].token;
    for number in 0..DUE {
        let id = format!("dd{number:02x}");
        let (key_id, material) = (many_id(number), [number as u8 + 1; 32]);
        for member in members {
            let label = format!("due{number}");
            member.token.import(&label, &id, &material);
        }
        token.seed(&key_id, &id, "Enabled").await;
        let name = format!("key/111122223333/{key_id}");
        let mut record = token.records("key/").await[&name].clone();
        record["life"] = json!({ "PendingDeletion": { "deletion_date": now() - 1000, "pending_window_in_days": 7 } });
        // Nothing is destroyed that does not prove to be the key.
        let message = format!("\0hsmac-reserved\0key check v1\0{key_id}");
        record["check_value"] = json!(hex(&hmac_sha256(&material, message.as_bytes())));
        if let Some(group) = group {
            record["locator"]["token"] = json!(group);
        }
        token.write(&name, record, Expect::Any).await;
    }
    // As a server that was just ended would have written the time of day down.
    token
        .write("clock", json!({ "at": now(), "held": 0 }), Expect::Any)
        .await;
}

fn config(members: &[Member], settings: &str) -> String {
    let keys = declare(KEY_ID, "mac", "HMAC_256", "alias/test")
        + &declare(OTHER_ID, "other", "HMAC_256", "alias/other");
    let tokens: String = members
        .iter()
        .map(|member| member.section(settings))
        .collect();
    let store = members[0].token.store();
    format!(
        "drain_timeout = \"3s\"\n{}{store}{tokens}{keys}",
        head(&members[0])
    )
}

#[tokio::test]
async fn keys_that_are_due_while_one_token_is_away_disturb_no_host_of_the_other() {
    let members = vec![Member::new("first"), Member::new("second")];
    seed_due(&members, Some("twins")).await;
    members[1].rules("hide token");
    let settings = "group = \"twins\"\nreplicated_by = \"vendor\"\nhosts = 2\n";
    let server = members[0].token.spawn(&config(&members, settings));
    let drill = Drill { members, server };
    let drill = drill.up(2).await;
    assert!(drill.members[1].applied("hide token") > 0);
    let hosts = |drill: &Drill| drill.members[0].asked("C_Initialize");
    let (served, load) = (hosts(&drill), drill.load().await);
    // Deletions are looked at again every ten seconds.
    let time = Duration::from_secs(if long() { 25 } else { 12 });
    throughout(time, || {
        assert_eq!(
            hosts(&drill),
            served,
            "hosts were started anew:\n{}",
            drill.server.log()
        );
    })
    .await;
    load.end_without_failure(&drill, "ten keys due, a member away", &[])
        .await;
    // Nothing is deleted by halves, and all of it when the member is back.
    let log = drill.server.log();
    assert_eq!(drill.logged("the key is deleted"), 0, "{log}");
    let objects = drill.members[0].token.objects();
    let due = objects.iter().filter(|object| object.starts_with("due"));
    assert_eq!(due.count(), DUE, "{objects:?}\n{log}");
    drill.members[1].rules("");
    drill.until_logged("the key is deleted", DUE - 1).await;
    for member in &drill.members {
        let objects = member.token.objects();
        assert!(
            !objects.iter().any(|object| object.starts_with("due")),
            "{objects:?}"
        );
    }
}

#[tokio::test]
async fn sigterm_ends_a_server_whose_search_hangs_within_its_time() {
    let member = Member::new("primary");
    // A key that no host has looked for yet.
    member.token.import("cold", "aa00", &[7; 32]);
    let cold = many_id(0);
    member.token.seed(&cold, "aa00", "Enabled").await;
    let members = vec![member];
    let server = members[0].token.spawn(&config(&members, "hosts = 2\n"));
    let mut drill = Drill { members, server }.up(2).await;
    let mut client = drill.server.mac().await;
    client.generate_mac(request(b"x")).await.unwrap();
    let hang = "hang C_FindObjects*";
    drill.rules(hang);
    let mut asking = request(b"x");
    asking.key_id = cold;
    let searching = tokio::spawn(async move { client.generate_mac(asking).await });
    drill.token().acts(hang, 0).await;
    let hosts = drill.server.hosts();
    let asked = Instant::now();
    signal(drill.server.child.id(), "TERM");
    drill.server.ended().await;
    let took = asked.elapsed();
    println!("a hung search: gone {took:.1?} after SIGTERM, drain_timeout is 3 s");
    assert!(
        took < Duration::from_secs(3) + SLACK,
        "{took:?} after SIGTERM:\n{}",
        drill.server.log()
    );
    for host in hosts {
        until("the hosts' end", || {
            let stat = fs::read_to_string(format!("/proc/{host}/stat"));
            // Who is not reaped yet has ended all the same.
            stat.map_or(true, |stat| stat.contains(") Z "))
                .then_some(())
        })
        .await;
    }
    searching.abort();
}
