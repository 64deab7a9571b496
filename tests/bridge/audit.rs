//! The audit log: what is in it, what never is, and who finds it.

use hsmac::proto::v1::{
    CreateAliasRequest, DisableKeyRequest, ListAliasesRequest,
    key_service_client::KeyServiceClient, mac_service_client::MacServiceClient,
};
use serde_json::Value;
use tonic::Code;

use crate::support::{KEY, KEY_ARN, KEY_ID, LIMIT, PIN, Server, Token, hex, long, request, until};

const AUDIT: &str = "[audit]\ndirectory = \"audit\"\nreserve_mib = 0\nseals = false\n";

fn records(token: &Token) -> Vec<Value> {
    let exported = token.hsmac(&["audit", "export", "audit", "--format", "json"]);
    assert!(exported.status.success(), "{exported:?}");
    let lines = exported.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn assert_verified(token: &Token) {
    let verified = token.hsmac(&["audit", "verify", "audit"]);
    assert!(verified.status.success(), "{verified:?}");
    assert!(verified.stdout.contains("good"), "{verified:?}");
}

#[tokio::test]
async fn who_did_what_is_in_the_log_and_what_is_secret_is_not() {
    let token = Token::with_key();
    let config = token.config() + &token.store() + AUDIT;
    let server = token.serve(&config).await;
    let message = b"a message that no log may have";
    let made = server
        .mac()
        .await
        .generate_mac(request(message))
        .await
        .unwrap();
    let request_id = made
        .metadata()
        .get("x-request-id")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let mac = made.into_inner().mac;
    let unknown = server
        .mac_with("99999999-12ab-34cd-56ef-1234567890ab", message)
        .await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    let key_id = server.create().await.unwrap();
    let alias = CreateAliasRequest {
        alias_name: "alias/mine".into(),
        target_key_id: key_id.clone(),
    };
    server.keys().await.create_alias(alias).await.unwrap();
    let disable = DisableKeyRequest {
        key_id: key_id.clone(),
    };
    server.keys().await.disable_key(disable).await.unwrap();
    assert!(server.terminate().await.success());

    assert_verified(&token);
    let records = records(&token);
    let of = |operation: &str| -> Vec<&Value> {
        records
            .iter()
            .filter(|one| one["operation"] == operation)
            .collect()
    };
    let macs = of("GenerateMac");
    assert_eq!(macs.len(), 2);
    assert_eq!(macs[0]["requestId"], request_id.as_str());
    assert_eq!(macs[0]["key"], KEY_ARN);
    assert_eq!(macs[0]["macAlgorithm"], "HMAC_SHA_256");
    assert_eq!(macs[0]["principal"], "arn:aws:iam::111122223333:user/local");
    assert_eq!(
        (&macs[0]["exception"], &macs[0]["wire"]),
        (&Value::Null, &"grpc".into())
    );
    assert_eq!(
        (&macs[1]["exception"], &macs[1]["key"]),
        (&"NotFoundException".into(), &Value::Null)
    );
    for operation in ["CreateKey", "CreateAlias", "DisableKey"] {
        let phases: Vec<_> = of(operation)
            .iter()
            .map(|one| one["phase"].clone())
            .collect();
        assert_eq!(phases, ["attempt", "outcome"], "{operation}");
        for one in of(operation) {
            let key = one["key"].as_str().unwrap();
            assert!(key.ends_with(&key_id), "{operation} of {key}");
        }
    }
    assert_eq!(of("CreateAlias")[0]["alias"], "alias/mine");

    let events = token.hsmac(&["audit", "export", "audit", "--key", KEY_ID]);
    let event: Value = serde_json::from_str(events.stdout.trim()).unwrap();
    assert_eq!(event["eventName"], "GenerateMac");
    assert_eq!(event["resources"][0]["ARN"], KEY_ARN);
    let index = event["additionalEventData"]["hsmac"]["index"].to_string();
    let proof = token.hsmac(&["audit", "prove", "audit", &index]);
    let proof: Value = serde_json::from_str(&proof.stdout).unwrap();
    assert_eq!(
        proof["leafHash"],
        event["additionalEventData"]["hsmac"]["leafHash"]
    );

    // Security: nothing of it in any file of the log, nor in what is exported.
    let mut all = events.stdout.into_bytes();
    for file in std::fs::read_dir(token.path("audit")).unwrap() {
        all.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    for secret in [
        &message[..],
        &mac,
        hex(&mac).as_bytes(),
        PIN.as_bytes(),
        &KEY,
    ] {
        assert!(!all.windows(secret.len()).any(|window| window == secret));
    }
}

/// Asks until the server is gone; gives the request IDs of what was answered.
async fn answered(server: &Server, least: usize) -> tokio::task::JoinSet<Vec<String>> {
    let mut callers = tokio::task::JoinSet::new();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for _ in 0..8 {
        let (mut client, count) = (server.mac().await, count.clone());
        callers.spawn(async move {
            let mut ids = Vec::new();
            while let Ok(made) = client.generate_mac(request(b"hello")).await {
                let id = made.metadata().get("x-request-id").unwrap();
                ids.push(id.to_str().unwrap().to_owned());
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            ids
        });
    }
    until("calls under way", || {
        (count.load(std::sync::atomic::Ordering::Relaxed) >= least).then_some(())
    })
    .await;
    callers
}

#[tokio::test]
async fn every_call_that_was_answered_before_kill_9_is_in_the_log() {
    let token = Token::with_key();
    let config = token.config() + AUDIT;
    let (rounds, mut ids) = (if long() { 50 } else { 5 }, Vec::new());
    for round in 0..rounds {
        let server = token.serve(&config).await;
        let callers = answered(&server, 50 + 37 * (round % 7)).await;
        // The end of a Server is kill -9.
        drop(server);
        ids.extend(callers.join_all().await.concat());
    }
    let server = token.serve(&config).await;
    assert!(server.terminate().await.success());
    assert_verified(&token);
    let recorded: std::collections::BTreeSet<String> = records(&token)
        .iter()
        .filter_map(|one| Some(one["requestId"].as_str()?.to_owned()))
        .collect();
    assert!(ids.len() >= rounds * 50);
    for id in &ids {
        assert!(
            recorded.contains(id),
            "{id} was answered, and is not in the log"
        );
    }
    let tree = std::process::Command::new("python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/clients/audit_tree.py"
        ))
        .arg(env!("CARGO_BIN_EXE_hsmac"))
        .arg(token.path("audit"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{tree:?}");
    print!("{}", String::from_utf8_lossy(&tree.stdout));
    println!(
        "{rounds} x kill -9: {} answered calls, all of them in the log",
        ids.len()
    );
}

#[tokio::test]
async fn a_full_disk_refuses_macs_or_has_them_answered_and_heals_by_itself() {
    for (choice, is_answered) in [("refuse", false), ("answer", true)] {
        let token = Token::with_key();
        let config = format!(
            "{}[audit]\ndirectory = \"disk/audit\"\nreserve_mib = 0\nseals = false\non_failure = \"{choice}\"\n",
            token.config()
        );
        let disk = crate::support::Disk::on(token.path("disk"));
        let mut server = token.spawn_on(&disk, &config);
        server.until_log("the token is up").await;
        server.until_log("listening").await;
        assert!(server.mac_with(KEY_ID, b"hello").await.is_ok());
        disk.fill();
        // What is left of the file's last page takes some more.
        let began = std::time::Instant::now();
        while !server.log().contains("audit_failed") {
            assert!(began.elapsed() < LIMIT, "{}", server.log());
            // Some are recorded yet, in what is left of the file's last page.
            let _ = server.mac_with(KEY_ID, b"hello").await;
        }
        assert_eq!(server.mac_with(KEY_ID, b"hello").await.is_ok(), is_answered);
        disk.free();
        server.until_log("audit_resumed").await;
        assert!(server.mac_with(KEY_ID, b"hello").await.is_ok());
        let copied = token.path("audit");
        std::fs::create_dir(&copied).unwrap();
        assert!(server.terminate().await.success());
        disk.copy_to(&copied);
        assert_verified_at(&token, "disk/audit", &copied);
    }
}

/// Verifies a copy of a log that nobody else sees, and that it says how many calls are missing.
fn assert_verified_at(token: &Token, from: &str, copied: &std::path::Path) {
    let name = std::path::Path::new(from).file_name().unwrap();
    let copy = copied.join(name);
    let verified = token.hsmac(&["audit", "verify", copy.to_str().unwrap()]);
    assert!(verified.status.success(), "{verified:?}");
    let told = token.hsmac(&[
        "audit",
        "export",
        copy.to_str().unwrap(),
        "--format",
        "json",
    ]);
    assert!(told.stdout.contains("\"record\":\"gap\""), "{told:?}");
}

#[tokio::test]
async fn seals_are_found_genuine_while_callers_are_answered_and_the_last_one_is_written_without_them()
 {
    let token = Token::with_key();
    let audit = "[audit]\ndirectory = \"audit\"\nreserve_mib = 0\n";
    let server = token
        .serve(&(token.config() + &token.store() + audit))
        .await;
    let callers = answered(&server, 50).await;
    until_sealed(&token).await;
    for _ in 0..6 {
        let seen = sealed(&token);
        assert!(seen.status.success(), "{seen:?}");
    }
    drop(callers);
    // A seal comes after its checkpoint, and no record after it.
    until_sealed(&token).await;
    until("as many seals as the log has told of", || {
        let verified = token.hsmac(&["audit", "verify", "audit"]).stdout;
        let kept = std::fs::read_to_string(token.path("audit/sealed-checkpoint")).unwrap();
        let log = std::fs::read(token.path("audit/00000000000000000000.audit")).unwrap();
        let is_written = log
            .windows(kept.len())
            .any(|window| window == kept.as_bytes());
        (verified.contains("good") && is_written).then_some(())
    })
    .await;
    assert!(server.terminate().await.success());
}

/// Waits until the newest seal is of everything that was recorded when this was called.
async fn until_sealed(token: &Token) -> u64 {
    let folder = token.path("audit");
    let size = |name: &str| -> u64 {
        let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let size = text.lines().nth(1).unwrap_or_default();
        size.parse().unwrap_or(0)
    };
    let recorded = records(token).len() as u64;
    until("a seal", || {
        let sealed = size("sealed-checkpoint");
        (sealed >= recorded).then_some(sealed)
    })
    .await
}

fn sealed(token: &Token) -> crate::support::Output {
    let config = token.path("hsmac.toml");
    let config = config.to_str().unwrap();
    token.hsmac(&["audit", "verify", "audit", "--seals", "--config", config])
}

#[tokio::test]
async fn the_token_seals_the_log_and_whoever_changes_it_afterwards_is_found_out() {
    let token = Token::with_key();
    let audit = "[audit]\ndirectory = \"audit\"\nreserve_mib = 0\n";
    let config = token.config() + &token.store() + audit;
    let server = token.serve(&config).await;
    for _ in 0..20 {
        server.mac_with(KEY_ID, b"hello").await.unwrap();
    }
    let first = until_sealed(&token).await;
    assert!(server.log().contains("audit_seal_key_made"));
    // Nobody gets such a message signed as a MAC: not over the API, and not of the host either.
    let reserved = server
        .mac_with(KEY_ID, b"\x00hsmac-reserved\x00audit seal v1\x00")
        .await;
    assert_eq!(reserved.unwrap_err().code(), Code::InvalidArgument);
    assert!(server.terminate().await.success());
    let seen = sealed(&token);
    assert!(
        seen.status.success() && seen.stdout.contains("genuine"),
        "{seen:?}"
    );

    // A copy of now, for somebody who puts it back later.
    let (folder, copy) = (token.path("audit"), token.path("copy"));
    copy_folder(&folder, &copy);
    let server = token.serve(&config).await;
    for _ in 0..20 {
        server.mac_with(KEY_ID, b"hello").await.unwrap();
    }
    assert!(until_sealed(&token).await > first);
    // The same key as before, and no second one.
    assert!(!server.log().contains("audit_seal_key_made"));
    assert!(server.terminate().await.success());
    let seen = sealed(&token);
    assert!(
        seen.status.success() && seen.stdout.contains("genuine"),
        "{seen:?}"
    );

    std::fs::rename(&folder, token.path("whole")).unwrap();
    copy_folder(&copy, &folder);
    // By itself it is good, and it is not all that there was.
    assert_verified(&token);
    let seen = sealed(&token);
    assert!(
        !seen.status.success() && seen.stdout.contains("its end is missing"),
        "{seen:?}"
    );
    // Nothing seals it any more, and that is said.
    let mut server = token.serve(&config).await;
    server.mac_with(KEY_ID, b"hello").await.unwrap();
    server.until_log("audit_rolled_back").await;
    assert!(server.terminate().await.success());

    // Filled up with other records, unsealed, until there are as many as there were.
    let server = token
        .serve(&(token.config() + &token.store() + AUDIT))
        .await;
    for _ in 0..60 {
        server.mac_with(KEY_ID, b"hello").await.unwrap();
    }
    assert!(server.terminate().await.success());
    std::fs::write(token.path("hsmac.toml"), &config).unwrap();
    assert_verified(&token);
    let seen = sealed(&token);
    let not_those = "the records up to here are not those that what this machine has sealed is of";
    assert!(
        !seen.status.success() && seen.stdout.contains(not_those),
        "{seen:?}"
    );

    // With a seal of another key, or of other records.
    std::fs::remove_dir_all(&folder).unwrap();
    copy_folder(&token.path("whole"), &folder);
    assert!(sealed(&token).status.success());
    let forged = token.path("forged");
    let python = std::process::Command::new("python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/clients/audit_forge.py"
        ))
        .args([&folder, &forged])
        .output()
        .unwrap();
    assert!(python.status.success(), "{python:?}");
    std::fs::remove_dir_all(&folder).unwrap();
    copy_folder(&forged, &folder);
    // Whoever computes all checksums and roots anew has a log that is good by itself.
    assert_verified(&token);
    let seen = sealed(&token);
    assert!(
        !seen.status.success() && seen.stdout.contains("not made by the token's key"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn seals_wait_for_a_token_that_is_away_and_calls_do_not_wait_for_seals() {
    let token = Token::with_key();
    let audit = "[audit]\ndirectory = \"audit\"\nreserve_mib = 0\nseal_object = \"pkcs11:object=nothing\"\n";
    let config = token.config() + audit;
    let mut server = token.serve(&config).await;
    server.mac_with(KEY_ID, b"hello").await.unwrap();
    server.until_log("audit_seals_wait").await;
    assert!(server.mac_with(KEY_ID, b"hello").await.is_ok());
    assert!(server.terminate().await.success());
    assert_verified(&token);
    let seen = sealed(&token);
    assert!(!seen.status.success(), "{seen:?}");
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// System calls that change the log's files, and at which of them hsmac is killed.
const MOMENTS: [(&str, &[u32]); 6] = [
    ("openat", &[1, 2, 3, 4]),
    ("write", &[1, 2, 3, 5, 9]),
    ("fdatasync", &[1, 2, 3]),
    ("fsync", &[1]),
    ("rename", &[1, 2]),
    ("close", &[1, 2]),
];

/// hsmac is killed at a system call on the log's files, while callers have MACs made and aliases written: each answered
/// call is recorded, each alias that is there was recorded before it was made, and the log is good.
#[tokio::test]
async fn no_system_call_on_the_log_s_files_is_a_bad_moment_to_die() {
    let (mut died, mut all, mut deaths) = (0, 0, Vec::new());
    for (call, moments) in MOMENTS {
        let last = if long() { 40 } else { moments.len() };
        let later = (1..).skip(*moments.last().unwrap() as usize);
        for moment in moments.iter().copied().chain(later).take(last) {
            let (is_dead, answered) = dies_at(call, moment).await;
            all += answered;
            if !is_dead {
                break;
            }
            died += 1;
            deaths.push((call, moment));
        }
    }
    println!(
        "killed at {died} system calls ({deaths:?}); {all} answered calls, all of them in the log"
    );
    assert!(died > 10, "strace kills: {deaths:?}");
}

async fn dies_at(call: &str, moment: u32) -> (bool, usize) {
    let token = Token::with_key();
    let config = token.config() + &token.store() + AUDIT;
    let mut strace = std::process::Command::new("strace");
    // As a grandchild: what is started here is hsmac itself.
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    for file in ["", "/00000000000000000000.audit", "/checkpoint.new"] {
        strace
            .arg("-P")
            .arg(format!("{}{file}", token.path("audit").display()));
    }
    strace.args(["-e", &format!("trace={call}"), "-e"]);
    strace.arg(format!("inject={call}:signal=KILL:when={moment}"));
    strace.arg(env!("CARGO_BIN_EXE_hsmac"));
    let mut server = token.spawn_command(strace, &config);
    let serves = until("a start, or its end", || {
        let serves = server.log().contains("listening");
        (serves || server.has_ended()).then_some(serves)
    })
    .await;
    let mut ids = Vec::new();
    if serves {
        let callers = answered_some(&server, 40).await;
        ids = callers.join_all().await.concat();
        let checkpoint = token.path("audit/checkpoint");
        let done = || (checkpoint.exists() || server.has_ended()).then_some(());
        until("a checkpoint, or the end", done).await;
    }
    let is_dead = server.has_ended();
    drop(server);

    let server = token.serve(&config).await;
    let aliases = server
        .keys()
        .await
        .list_aliases(ListAliasesRequest::default())
        .await;
    let aliases = aliases.unwrap().into_inner().aliases;
    assert!(server.terminate().await.success());
    assert_verified(&token);
    let records = records(&token);
    let is_recorded = |name: &str, value: &str| records.iter().any(|one| one[name] == value);
    for id in &ids {
        assert!(
            is_recorded("requestId", id),
            "{call} {moment}: {id} is not in the log"
        );
    }
    let made = |name: &&str| name.starts_with("alias/made-");
    for name in aliases
        .iter()
        .map(|alias| alias.alias_name.as_str())
        .filter(made)
    {
        assert!(
            is_recorded("alias", name),
            "{call} {moment}: {name} was made without a record"
        );
    }
    (is_dead, ids.len())
}

/// Has so many MACs and aliases made by each of some callers, or fewer if the server ends; gives the request IDs of what
/// was answered.
async fn answered_some(server: &Server, most: usize) -> tokio::task::JoinSet<Vec<String>> {
    let mut callers = tokio::task::JoinSet::new();
    let id = |metadata: &tonic::metadata::MetadataMap| {
        metadata
            .get("x-request-id")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let Ok(channel) = server.try_channel().await else {
        return callers;
    };
    for _ in 0..3 {
        let mut client = MacServiceClient::new(channel.clone());
        callers.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..most {
                match client.generate_mac(request(b"hello")).await {
                    Ok(made) => ids.push(id(made.metadata())),
                    Err(_) => break,
                }
            }
            ids
        });
    }
    let mut client = KeyServiceClient::new(channel);
    callers.spawn(async move {
        let mut ids = Vec::new();
        for number in 0..most / 4 {
            let alias = CreateAliasRequest {
                alias_name: format!("alias/made-{number}"),
                target_key_id: KEY_ID.into(),
            };
            match client.create_alias(alias).await {
                Ok(made) => ids.push(id(made.metadata())),
                Err(_) => break,
            }
        }
        ids
    });
    callers
}

#[tokio::test]
async fn a_collector_gets_each_record_at_least_once_and_no_call_waits_for_it() {
    use std::{io::Read as _, os::unix::net::UnixListener};

    let token = Token::with_key();
    let socket = token.path("siem.sock");
    let sends = format!("json_lines = \"unix:{}\"\n", socket.display());
    let config = token.config() + AUDIT + &sends;
    let mut server = token.serve(&config).await;
    server.until_log("audit_json_waits").await;
    for _ in 0..20 {
        server.mac_with(KEY_ID, b"hello").await.unwrap();
    }
    // One that takes the connection, and nothing of what is sent.
    let listener = UnixListener::bind(&socket).unwrap();
    server.until_log("audit_json_resumed").await;
    for _ in 0..20 {
        server.mac_with(KEY_ID, b"hello").await.unwrap();
    }
    let seen = std::thread::spawn(move || {
        let mut all = String::new();
        // The connection that waits, and the one after a restart.
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_to_string(&mut all).unwrap();
        }
        all
    });
    assert!(server.terminate().await.success());
    let server = token.serve(&config).await;
    for _ in 0..20 {
        server.mac_with(KEY_ID, b"hello").await.unwrap();
    }
    let position = token.path("audit/json-lines");
    let size = records(&token).len() as u64;
    until("the collector to have it all", || {
        let next = std::fs::read_to_string(&position).unwrap();
        (next.trim().parse::<u64>().unwrap() >= size).then_some(())
    })
    .await;
    assert!(server.terminate().await.success());
    let seen = seen.join().unwrap();
    let got: std::collections::BTreeSet<u64> = seen
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["index"]
                .as_u64()
                .unwrap()
        })
        .collect();
    // From where the first start was on.
    let first = *got.first().unwrap();
    let missing: Vec<u64> = (first..size).filter(|index| !got.contains(index)).collect();
    assert_eq!(missing, [0; 0]);
    assert!(first <= 2, "{first}");
}
