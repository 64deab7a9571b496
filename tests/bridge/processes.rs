//! Front and hosts as processes: what they map, what is left when one of them dies, and whose MAC a
//! caller gets meanwhile.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::Request;

use crate::creation::over_fault_token;
use crate::support::{
    KEY, KEY_ID, Token, Usage, declare, hmac_sha256, long, request, said, signal, until,
};

#[tokio::test]
async fn the_front_never_maps_a_pkcs11_library() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    server
        .mac()
        .await
        .generate_mac(request(b"x"))
        .await
        .unwrap();
    let name = token
        .module()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let maps = |process: u32| fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    assert!(
        !maps(server.child.id()).contains(&name),
        "the front maps {name}"
    );
    let [host] = server.hosts()[..] else {
        panic!("one host is set: {:?}", server.hosts())
    };
    assert!(maps(host).contains(&name), "the host does not map {name}");
    // The host says so itself, since another uid could not read its maps.
    assert!(server.log().contains(&name), "{}", server.log());
}

#[tokio::test]
async fn a_host_cannot_be_dumped_and_holds_nobody_s_credentials() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let [host] = server.hosts()[..] else {
        panic!("one host is set")
    };
    let limits = fs::read_to_string(format!("/proc/{host}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let environment = fs::read(format!("/proc/{host}/environ")).unwrap();
    for variable in environment.split(|byte| *byte == 0) {
        let variable = String::from_utf8_lossy(variable);
        let ours = ["HSMAC", "AWS_"]
            .iter()
            .any(|prefix| variable.starts_with(prefix));
        assert!(!ours, "a host has {variable}");
    }
    let arguments = fs::read(format!("/proc/{host}/cmdline")).unwrap();
    let arguments = String::from_utf8(arguments).unwrap();
    let generation = arguments.strip_prefix("hsmac\0token-host\0primary\0");
    let generation = generation.and_then(|rest| rest.strip_suffix('\0'));
    assert!(
        generation.is_some_and(|number| number.parse::<u32>().is_ok()),
        "the PIN or a setting is in argv: {arguments:?}"
    );
    let name = fs::read_to_string(format!("/proc/{host}/comm")).unwrap();
    assert_eq!(name.trim(), "hsmac-host", "what pgrep finds");
}

#[tokio::test]
async fn no_host_outlives_its_front_by_a_second() {
    let token = Token::with_key();
    let server = token
        .serve(&token.config_with(
            "hosts = 3\n",
            &declare(KEY_ID, "mac", "HMAC_256", "alias/test"),
        ))
        .await;
    let hosts = until("three hosts", || {
        Some(server.hosts()).filter(|hosts| hosts.len() == 3)
    })
    .await;
    signal(server.child.id(), "KILL");
    let began = Instant::now();
    until("the end of the hosts", || {
        hosts.iter().all(is_gone).then_some(())
    })
    .await;
    println!(
        "the hosts were gone {:?} after their front",
        began.elapsed()
    );
}

/// SoftHSM2 notes a login in the token, and one that is killed while it writes leaves a token that nobody
/// can read any more.
#[tokio::test]
async fn a_login_that_the_module_is_at_ends_although_the_front_is_killed() {
    let token = Token::with_key();
    token.rules("journal C_Login\ndelay C_Login 200ms");
    let mut server = token.spawn(&over_fault_token(&token, &token.config()));
    let logins = || fs::read_to_string(token.path("control.journal")).unwrap_or_default();
    until("a login", || logins().contains("C_Login").then_some(())).await;
    let hosts = server.hosts();
    signal(server.child.id(), "KILL");
    server.ended().await;
    until("the end of the hosts", || {
        hosts.iter().all(is_gone).then_some(())
    })
    .await;
    assert!(logins().contains("judged CKR_OK"), "{}", logins());
}

#[tokio::test]
async fn a_host_killed_under_load_costs_no_call_and_no_wrong_mac() {
    let kills = if long() { 20 } else { 5 };
    let token = Token::with_key();
    let server = token
        .serve(&token.config_with(
            "hosts = 2\nsessions = 1\n",
            &declare(KEY_ID, "mac", "HMAC_256", "alias/test"),
        ))
        .await;
    let front = server.child.id();
    let ended = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..64_u64 {
        let mut client = server.mac().await;
        let (ended, made) = (Arc::clone(&ended), Arc::clone(&made));
        callers.spawn(async move {
            let mut number = caller << 32;
            while !ended.load(Ordering::Relaxed) {
                number += 1;
                let message = number.to_be_bytes();
                let mut request = Request::new(request(&message));
                request.set_timeout(Duration::from_secs(5));
                let answer = client.generate_mac(request).await;
                let mac = answer
                    .unwrap_or_else(|status| panic!("{}", said(&status)))
                    .into_inner()
                    .mac;
                assert_eq!(mac, hmac_sha256(&KEY, &message), "a wrong MAC");
                made.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for kill in 0..kills {
        // Each kill waits for load through both hosts: 500 MACs since the one before.
        let before = made.load(Ordering::Relaxed);
        until("500 more MACs", || {
            (made.load(Ordering::Relaxed) > before + 500).then_some(())
        })
        .await;
        // Both serve: who kills the last one that does waits for a start.
        until("two hosts that serve", || {
            (server.log().matches("a host serves").count() >= 2 + kill).then_some(())
        })
        .await;
        signal(server.hosts()[0], "KILL");
    }
    let before = made.load(Ordering::Relaxed);
    until("500 more MACs", || {
        (made.load(Ordering::Relaxed) > before + 500).then_some(())
    })
    .await;
    ended.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    println!(
        "{} MACs, all right, over {kills} killed hosts",
        made.load(Ordering::Relaxed)
    );
    assert_eq!(server.child.id(), front);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// SIGSTOP is what a vendor library does that never returns.
#[tokio::test]
async fn a_host_that_hangs_is_killed_and_its_jobs_go_to_another() {
    let token = Token::with_key();
    let server = token
        .serve(&token.config_with(
            "hosts = 2\nsessions = 1\ncall_timeout = \"500ms\"\n",
            &declare(KEY_ID, "mac", "HMAC_256", "alias/test"),
        ))
        .await;
    let hosts = server.serving(2).await;
    let mut client = server.mac().await;
    client.generate_mac(request(b"before")).await.unwrap();
    signal(hosts[0], "STOP");
    let began = Instant::now();
    let replaced = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..16_u64 {
        let mut client = server.mac().await;
        let replaced = Arc::clone(&replaced);
        callers.spawn(async move {
            let mut number = caller << 32;
            while !replaced.load(Ordering::Relaxed) {
                number += 1;
                let mut request = Request::new(request(&number.to_be_bytes()));
                request.set_timeout(Duration::from_secs(20));
                let answer = client.generate_mac(request).await;
                let mac = answer
                    .unwrap_or_else(|status| panic!("{}", said(&status)))
                    .into_inner()
                    .mac;
                assert_eq!(mac, hmac_sha256(&KEY, &number.to_be_bytes()));
            }
        });
    }
    until("another host in its place", || {
        let now = server.hosts();
        (now.len() == 2 && !now.contains(&hosts[0])).then_some(())
    })
    .await;
    println!("a host that hangs was replaced after {:?}", began.elapsed());
    replaced.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    assert!(server.log().contains("does not return"), "{}", server.log());
}

#[tokio::test]
async fn a_cancelled_call_never_gives_its_mac_to_another_caller() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let mut callers = JoinSet::new();
    for caller in 0..16_u64 {
        let mut client = server.mac().await;
        callers.spawn(async move {
            let mut cancelled = 0;
            for number in 0..400_u64 {
                let message = (caller << 32 | number).to_be_bytes();
                let call = client.generate_mac(request(&message));
                // Every other call is dropped somewhere on its way, the slot of its job with it.
                if number % 2 == 0 {
                    let patience = Duration::from_micros((caller * 37 + number * 13) % 600);
                    if tokio::time::timeout(patience, call).await.is_err() {
                        cancelled += 1;
                    }
                } else {
                    let mac = call.await.unwrap().into_inner().mac;
                    assert_eq!(mac, hmac_sha256(&KEY, &message), "another caller's MAC");
                }
            }
            cancelled
        });
    }
    let mut cancelled = 0;
    while let Some(caller) = callers.join_next().await {
        cancelled += caller.unwrap();
    }
    println!("{cancelled} calls were cancelled on their way");
    assert!(
        cancelled > 100,
        "the drill cancelled {cancelled} calls only"
    );
}

/// Memory, threads and descriptors of front and hosts over many calls.
#[tokio::test]
async fn nothing_grows_over_many_calls() {
    let calls: u64 = if long() { 1_000_000 } else { 60_000 };
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let [host] = server.hosts()[..] else {
        panic!("one host is set")
    };
    let processes = [server.child.id(), host];
    load(&server, calls / 6).await;
    let before = processes.map(Usage::of);
    load(&server, calls - calls / 6).await;
    let after = processes.map(Usage::of);
    println!("front and host before {before:?} and after {after:?} {calls} calls");
    for (before, after) in before.iter().zip(&after) {
        // One more looks at the files that are read again when they change, every two seconds.
        assert!(after.threads <= before.threads + 1, "{before:?} {after:?}");
        assert!(
            after.descriptors <= before.descriptors + 2,
            "{before:?} {after:?}"
        );
        assert!(
            after.kib < before.kib * 5 / 4 + 4096,
            "{before:?} {after:?}"
        );
    }
}

fn is_gone(host: &u32) -> bool {
    fs::read_to_string(format!("/proc/{host}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

async fn load(server: &crate::support::Server, calls: u64) {
    let mut callers = JoinSet::new();
    for caller in 0..32 {
        let mut client = server.mac().await;
        callers.spawn(async move {
            for number in 0..calls / 32 {
                let message = (caller << 32 | number).to_be_bytes();
                client.generate_mac(request(&message)).await.unwrap();
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}
