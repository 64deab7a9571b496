//! The token misbehaves under a steady load of checked MACs; each drill prints what callers saw and
//! how long healing took.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::support::{
    KEY, KEY_ID, LIMIT, Server, Token, assert_status, declare, hmac_sha256, request, said, until,
};

const OTHER_ID: &str = "00000000-0000-4000-8000-00000000000b";
const OTHER_KEY: [u8; 32] = *b"another key, also of 32 bytes...";
/// The deadline of every call of the load.
const DEADLINE: Duration = Duration::from_secs(5);

/// A bridge over the fault token, which wraps the module under test.
struct Drill {
    token: Token,
    server: Server,
    log: PathBuf,
}

impl Drill {
    /// Two hosts with one session each, two keys, and these settings besides.
    async fn start(settings: &str) -> Self {
        let token = Token::with_key();
        token.import("other", "02", &OTHER_KEY);
        let module = std::env::current_exe()
            .unwrap()
            .with_file_name("libfault_token.so");
        assert!(module.exists(), "{} is not built", module.display());
        let (wrapped, log) = (token.module().display(), token.path("fault.log"));
        let keys = declare(KEY_ID, "mac", "HMAC_256", "alias/test")
            + &declare(OTHER_ID, "other", "HMAC_256", "alias/other");
        let settings = format!("hosts = 2\nsessions = 1\n{settings}");
        let config = token
            .config_with(&settings, &keys)
            .replace(
                &format!("module-path={wrapped}"),
                &format!("module-path={}", module.display()),
            )
            .replace(
                "env = { ",
                &format!(
                    "env = {{ FAULT_TOKEN_MODULE = \"{wrapped}\", FAULT_TOKEN_CONTROL = \"{}\", FAULT_TOKEN_LOG = \"{}\", ",
                    token.path("control").display(),
                    log.display(),
                ),
            );
        let server = token.serve(&config).await;
        server.serving(2).await;
        Self { token, server, log }
    }

    /// Replaces the rules of the fault token.
    fn rules(&self, rules: &str) {
        let new = self.token.path("control.new");
        fs::write(&new, format!("{rules}\n")).unwrap();
        fs::rename(new, self.token.path("control")).unwrap();
    }

    /// How often the module was asked for a login.
    fn logins(&self) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains(" C_Login "))
            .count()
    }

    async fn load(&self) -> Load {
        Load::start(&self.server).await
    }
}

/// Callers that check every MAC, with both keys in turn.
struct Load {
    ended: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    failed: Arc<Mutex<BTreeMap<String, u64>>>,
    callers: JoinSet<()>,
}

impl Load {
    async fn start(server: &Server) -> Self {
        let mut load = Self {
            ended: Arc::default(),
            made: Arc::default(),
            failed: Arc::default(),
            callers: JoinSet::new(),
        };
        for caller in 0..16_u64 {
            let mut client = server.mac().await;
            let (ended, made, failed) = (
                Arc::clone(&load.ended),
                Arc::clone(&load.made),
                Arc::clone(&load.failed),
            );
            load.callers.spawn(async move {
                let mut number = caller << 32;
                while !ended.load(Ordering::Relaxed) {
                    number += 1;
                    let message = number.to_be_bytes();
                    let mut request = Request::new(request(&message));
                    let other = number % 2 == 1;
                    if other {
                        request.get_mut().key_id = OTHER_ID.into();
                    }
                    request.set_timeout(DEADLINE);
                    let began = Instant::now();
                    match client.generate_mac(request).await {
                        Ok(answer) => {
                            let key = if other { &OTHER_KEY } else { &KEY };
                            assert_eq!(
                                answer.into_inner().mac,
                                hmac_sha256(key, &message),
                                "a wrong MAC"
                            );
                            made.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(status) => {
                            assert!(began.elapsed() < DEADLINE + Duration::from_secs(1), "late");
                            *failed.lock().unwrap().entry(said(&status)).or_default() += 1;
                        }
                    }
                }
            });
        }
        load.goes_on(200).await;
        load
    }

    /// Waits for so many more good MACs; how long that took is the time to heal.
    async fn goes_on(&self, more: u64) -> Duration {
        let (before, began) = (self.made.load(Ordering::Relaxed), Instant::now());
        until("more MACs", || {
            (self.made.load(Ordering::Relaxed) >= before + more).then_some(())
        })
        .await;
        began.elapsed()
    }

    /// Ends the load: MACs made, and calls failed by what they said.
    async fn end(mut self) -> (u64, BTreeMap<String, u64>) {
        self.ended.store(true, Ordering::Relaxed);
        while let Some(caller) = self.callers.join_next().await {
            caller.unwrap();
        }
        let failed = self.failed.lock().unwrap().clone();
        (self.made.load(Ordering::Relaxed), failed)
    }
}

/// Faults that no caller may see: rules, what the log says of it.
async fn no_call_fails(settings: &str, rules: &str) {
    let drill = Drill::start(settings).await;
    let front = drill.server.child.id();
    let load = drill.load().await;
    drill.rules(rules);
    let healed = load.goes_on(500).await;
    drill.rules("");
    load.goes_on(200).await;
    let (made, failed) = load.end().await;
    println!("{rules}: {made} MACs, all right; 500 more after the fault took {healed:?}");
    assert_eq!(failed, BTreeMap::new(), "{}", drill.server.log());
    assert_eq!(drill.server.child.id(), front);
}

#[tokio::test]
async fn random_device_errors_cost_no_call() {
    no_call_fails("", "return C_Sign CKR_DEVICE_ERROR every 97").await;
}

#[tokio::test]
async fn a_session_that_is_busy_costs_no_call() {
    no_call_fails("", "return C_SignInit CKR_OPERATION_ACTIVE every 20").await;
}

#[tokio::test]
async fn lost_sessions_cost_no_call() {
    no_call_fails("", "sessions lost now").await;
}

#[tokio::test]
async fn a_lost_login_costs_no_call() {
    no_call_fails("", "login lost now").await;
}

#[tokio::test]
async fn a_module_that_crashes_once_costs_no_call() {
    no_call_fails("", "crash C_Sign once").await;
}

#[tokio::test]
async fn one_call_that_hangs_costs_no_call() {
    no_call_fails("call_timeout = \"500ms\"\n", "hang C_Sign once").await;
}

#[tokio::test]
async fn handles_that_change_their_meaning_cost_no_wrong_mac() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    // With the sessions lost, as the standard foresees it: every handle dies with its generation.
    drill.rules("renumber on-session-loss\nsessions lost now");
    load.goes_on(500).await;
    drill.rules("renumber at-initialize\nsessions lost again");
    load.goes_on(500).await;
    let (made, failed) = load.end().await;
    println!("{made} MACs over renumbered handles, all right; failed: {failed:?}");
    assert_eq!(failed, BTreeMap::new(), "{}", drill.server.log());
}

#[tokio::test]
async fn a_mac_of_wrong_length_is_nobody_s_mac() {
    for rule in ["mac wrong-length once", "mac truncated once"] {
        no_call_fails("", rule).await;
    }
}

#[tokio::test]
async fn a_poison_message_is_refused_and_kills_no_host_after_host() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    drill.rules("crash C_Sign when-message-contains 706f69736f6e"); // "poison"
    let mut client = drill.server.mac().await;
    let status = client.generate_mac(request(b"poison")).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "KEY_UNAVAILABLE", "");
    let crashes = drill.server.log().matches("a host is replaced").count();
    assert_eq!(crashes, 2, "two charges: {}", drill.server.log());
    load.goes_on(200).await;
    let (made, failed) = load.end().await;
    println!("{made} MACs beside a poison message; failed: {failed:?}");
    assert_eq!(failed, BTreeMap::new(), "{}", drill.server.log());
}

#[tokio::test]
async fn a_token_that_is_away_is_said_at_once_and_serves_again_when_it_is_back() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    drill.rules("hide token");
    let began = Instant::now();
    let mut client = drill.server.mac().await;
    loop {
        let asked = Instant::now();
        match client.generate_mac(request(b"x")).await {
            Ok(_) => assert!(began.elapsed() < LIMIT, "the token is still there"),
            Err(status) => {
                assert_status(&status, Code::Unavailable, "KEY_UNAVAILABLE", "");
                assert!(asked.elapsed() < DEADLINE);
                break;
            }
        }
    }
    println!("away was said {:?} after it", began.elapsed());
    let said_before = drill
        .server
        .log()
        .matches("ERROR the token is unavailable")
        .count();
    assert_eq!(
        said_before,
        1,
        "once for each change: {}",
        drill.server.log()
    );
    drill.rules("");
    let healed = load.goes_on(1).await;
    println!("first good MAC {healed:?} after the token came back");
    load.goes_on(200).await;
    let (_, failed) = load.end().await;
    let strange: Vec<_> = failed
        .keys()
        .filter(|said| !said.starts_with("Unavailable KEY_UNAVAILABLE"))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(healed < Duration::from_secs(20), "the target is 2 s");
}

#[tokio::test]
async fn each_generation_logs_in_once() {
    let drill = Drill::start("").await;
    until("one login for each host", || {
        (drill.logins() == 2).then_some(())
    })
    .await;
    let load = drill.load().await;
    for word in ["one", "two", "three"] {
        drill.rules(&format!("sessions lost {word}"));
        load.goes_on(300).await;
    }
    load.end().await;
    let (initialised, logins) = (
        fs::read_to_string(&drill.log)
            .unwrap()
            .matches(" C_Initialize ")
            .count(),
        drill.logins(),
    );
    println!("{initialised} generations, {logins} logins");
    assert!(logins <= initialised);
    assert!(initialised > 2, "no generation ended");
}
