//! The token misbehaves under a steady load of checked MACs; each drill prints what callers saw and
//! how long healing took. `TEST_LONG` makes them long; `TEST_DRILLS` names a file that gets a line
//! for each.
//!
//! Callers set no time limit of their own: what they get by the deadline the server gives them.

mod acted;
mod codes;
mod deletion;
mod fair;
mod fence;
mod groups;
mod lanes;
mod login;
mod logins;
mod poison;
mod prober;
mod reloads;
mod sessions;
mod tls;
mod tokens;
mod verdicts;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hsmac::proto::v1::mac_service_client::MacServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::support::{
    KEY, KEY_ID, LIMIT, Server, TOKEN, Token, Usage, declare, fault_module, hmac_sha256, long,
    request, said, until,
};

const OTHER_ID: &str = "00000000-0000-4000-8000-00000000000b";
const OTHER_KEY: [u8; 32] = *b"another key, also of 32 bytes...";
/// The deadline of every call of the load; the server's default deadline is set to it.
const DEADLINE: Duration = Duration::from_secs(2);
/// What a busy machine may add before an answer that was sent in time is seen here.
const SLACK: Duration = Duration::from_secs(10);

/// A fault token, which wraps the module under test, with two keys in it.
struct Member {
    name: &'static str,
    token: Token,
    /// The faults that were put in force last.
    faults: Mutex<Vec<String>>,
}

impl Member {
    fn new(name: &'static str) -> Self {
        let token = Token::with_key();
        token.import("other", "02", &OTHER_KEY);
        Self {
            name,
            token,
            faults: Mutex::default(),
        }
    }

    /// `[token.NAME]` of the configuration.
    fn section(&self, settings: &str) -> String {
        let path = |name| self.token.path(name).display().to_string();
        let faults: Vec<String> = self
            .token
            .fault_environment()
            .iter()
            .map(|(name, value)| format!("{name} = \"{}\"", value.display()))
            .collect();
        let has_sessions = settings.lines().any(|line| line.starts_with("sessions "));
        let sessions = if has_sessions { "" } else { "sessions = 1\n" };
        format!(
            r#"
[token.{}]
uri = "pkcs11:token={TOKEN}?module-path={}"
pin_file = "{}"
{sessions}env = {{ SOFTHSM2_CONF = "{}", {} }}
{settings}
"#,
            self.name,
            fault_module().display(),
            path("pin"),
            path("softhsm2.conf"),
            faults.join(", "),
        )
    }

    /// Puts rules in force, in place of those before: each of them must have acted by now.
    fn rules(&self, rules: &str) {
        let new: Vec<String> = rules.lines().map(|rule| rule.trim().to_owned()).collect();
        let old = std::mem::replace(&mut *self.faults.lock().unwrap(), new.clone());
        for rule in old {
            assert!(
                new.contains(&rule) || !acted::is_fault(&rule) || self.applied(&rule) > 0,
                "{rule:?} never acted: this drill has shown nothing"
            );
        }
        self.token.rules(rules);
    }

    /// Pulls the token: its folder is not there any more.
    fn pull(&self) {
        fs::rename(self.token.path("tokens"), self.token.path("pulled")).unwrap();
        fs::create_dir(self.token.path("tokens")).unwrap();
    }

    /// Puts it back.
    fn plug(&self) {
        fs::remove_dir(self.token.path("tokens")).unwrap();
        fs::rename(self.token.path("pulled"), self.token.path("tokens")).unwrap();
    }

    /// How often the module was asked for this function.
    fn asked(&self, function: &str) -> usize {
        let log = fs::read_to_string(self.token.path("fault.log")).unwrap_or_default();
        let word = format!(" {function} ");
        log.lines()
            .filter(|line| format!("{line} ").contains(&word))
            .count()
    }
}

/// A bridge over one token, or over two that hold the same keys.
struct Drill {
    members: Vec<Member>,
    server: Server,
}

impl Drill {
    /// One token, two hosts with one session each, two keys, and these settings besides.
    async fn start(settings: &str) -> Self {
        let drill = Self::spawn(
            vec![Member::new("primary")],
            &format!("hosts = 2\n{settings}"),
        );
        drill.up(2).await
    }

    /// Two tokens of one group, one host each.
    async fn pair(settings: &str) -> Self {
        let members = vec![Member::new("first"), Member::new("second")];
        let settings = format!("group = \"twins\"\nhosts = 1\n{settings}");
        Self::spawn(members, &settings).up(2).await
    }

    /// Starts the server and waits for nothing.
    fn spawn(members: Vec<Member>, settings: &str) -> Self {
        let keys = declare(KEY_ID, "mac", "HMAC_256", "alias/test")
            + &declare(OTHER_ID, "other", "HMAC_256", "alias/other");
        Self::spawn_with(members, settings, &keys)
    }

    fn spawn_with(members: Vec<Member>, settings: &str, keys: &str) -> Self {
        let usual = members[0].token.config();
        let (head, _) = usual.split_once("[token.primary]").unwrap();
        let head = head.replace(
            "default_deadline = \"30s\"",
            &format!("default_deadline = \"{}ms\"", DEADLINE.as_millis()),
        );
        let tokens: String = members
            .iter()
            .map(|member| member.section(settings))
            .collect();
        let server = members[0].token.spawn(&format!("{head}{tokens}{keys}"));
        Self { members, server }
    }

    /// Waits until so many hosts serve.
    async fn up(mut self, hosts: usize) -> Self {
        self.server.until_log("listening").await;
        self.server.serving(hosts).await;
        self
    }

    /// The only token, or the first of two.
    fn token(&self) -> &Member {
        &self.members[0]
    }

    fn rules(&self, rules: &str) {
        self.token().rules(rules);
    }

    async fn load(&self) -> Load {
        Load::start(&self.server).await
    }

    /// How often the log has these words.
    fn logged(&self, words: &str) -> usize {
        self.server.log().matches(words).count()
    }

    /// Waits until the log has these words once more than `before`.
    async fn until_logged(&self, words: &str, before: usize) {
        let began = Instant::now();
        while self.logged(words) <= before {
            let log = self.server.log();
            assert!(
                began.elapsed() < LIMIT,
                "the log has no more {words:?}:\n{log}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Callers that check every MAC, with both keys in turn.
struct Load {
    began: Instant,
    ended: Arc<AtomicBool>,
    seen: Arc<Seen>,
    callers: JoinSet<()>,
}

/// What the callers of a load have seen.
#[derive(Default)]
struct Seen {
    made: AtomicU64,
    wrong: AtomicU64,
    failed: Mutex<BTreeMap<String, u64>>,
    slowest_us: AtomicU64,
    /// Answers to each caller, good or bad.
    answers: Vec<AtomicU64>,
}

impl Load {
    async fn start(server: &Server) -> Self {
        let load = Self::begin(server).await;
        load.goes_on(200).await;
        load
    }

    /// A load that is not waited for.
    async fn begin(server: &Server) -> Self {
        let mut clients = Vec::new();
        for _ in 0..16 {
            clients.push(server.mac().await);
        }
        Self::with(clients)
    }

    /// One caller for each of these clients.
    fn with(clients: Vec<MacServiceClient<Channel>>) -> Self {
        let mut load = Self {
            began: Instant::now(),
            ended: Arc::default(),
            seen: Arc::new(Seen {
                answers: clients.iter().map(|_| AtomicU64::new(0)).collect(),
                ..Seen::default()
            }),
            callers: JoinSet::new(),
        };
        for (caller, mut client) in (0_u64..).zip(clients) {
            let (ended, seen) = (Arc::clone(&load.ended), Arc::clone(&load.seen));
            load.callers.spawn(async move {
                let mut number = caller << 32;
                while !ended.load(Ordering::Relaxed) {
                    number += 1;
                    let message = number.to_be_bytes();
                    let mut request = request(&message);
                    let other = number % 2 == 1;
                    if other {
                        request.key_id = OTHER_ID.into();
                    }
                    let began = Instant::now();
                    match client.generate_mac(request).await {
                        Ok(answer) => {
                            let key = if other { &OTHER_KEY } else { &KEY };
                            let mac = answer.into_inner().mac;
                            let right = mac == hmac_sha256(key, &message);
                            let count = if right { &seen.made } else { &seen.wrong };
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(status) => {
                            *seen
                                .failed
                                .lock()
                                .unwrap()
                                .entry(said(&status))
                                .or_default() += 1;
                            // A caller that is refused at once does not come back at once.
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    let took = u64::try_from(began.elapsed().as_micros()).unwrap();
                    seen.slowest_us.fetch_max(took, Ordering::Relaxed);
                    let caller = usize::try_from(caller).unwrap();
                    seen.answers[caller].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    /// Waits for so many more good MACs; how long that took is the time to heal.
    async fn goes_on(&self, more: u64) -> Duration {
        let (before, began) = (self.made(), Instant::now());
        let goal = before + more;
        let limit = Duration::from_secs(60) + Duration::from_millis(more);
        while self.made() < goal {
            assert!(
                began.elapsed() < limit,
                "{} MACs in {limit:?}; failed: {:?}",
                self.made() - before,
                self.failed()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    }

    /// Waits until every caller has had an answer: no call that was under way is still open.
    async fn everybody_is_answered(&self) {
        let answers = || {
            let answers = self.seen.answers.iter();
            answers.map(|count| count.load(Ordering::Relaxed))
        };
        let before: Vec<u64> = answers().collect();
        until("an answer to every caller", || {
            answers()
                .zip(&before)
                .all(|(now, before)| now > *before)
                .then_some(())
        })
        .await;
    }

    fn made(&self) -> u64 {
        self.seen.made.load(Ordering::Relaxed)
    }

    fn wrong(&self) -> u64 {
        self.seen.wrong.load(Ordering::Relaxed)
    }

    fn failed(&self) -> BTreeMap<String, u64> {
        self.seen.failed.lock().unwrap().clone()
    }

    /// Ends the load and writes its line; gives the calls that failed, by what they said.
    async fn end(mut self, drill: &str, healed: &[Duration]) -> BTreeMap<String, u64> {
        self.ended.store(true, Ordering::Relaxed);
        while let Some(caller) = self.callers.join_next().await {
            caller.unwrap();
        }
        assert_eq!(self.wrong(), 0, "wrong MACs");
        let failed = self.failed();
        let slowest = Duration::from_micros(self.seen.slowest_us.load(Ordering::Relaxed));
        assert!(
            slowest < DEADLINE + SLACK,
            "an answer came {slowest:?} after its call"
        );
        let (healed, others) = (heal_times(healed), failed.values().sum::<u64>());
        let line = format!(
            "{drill}\t{} MACs right, 0 wrong, {others} refused\t{healed}\tslowest answer {slowest:.1?}\t{:.0?}",
            self.made(),
            self.began.elapsed(),
        );
        println!("{line}\n  refused: {failed:?}");
        if let Some(file) = std::env::var_os("TEST_DRILLS") {
            let mut file = fs::File::options()
                .create(true)
                .append(true)
                .open(file)
                .unwrap();
            writeln!(file, "{line}").unwrap();
        }
        failed
    }

    /// Ends the load of a drill that may cost no call.
    async fn end_without_failure(self, drill: &Drill, what: &str, healed: &[Duration]) {
        let failed = self.end(what, healed).await;
        assert_eq!(failed, BTreeMap::new(), "{}", drill.server.log());
    }
}

/// Times to heal, in words: median and maximum.
fn heal_times(healed: &[Duration]) -> String {
    let mut healed = healed.to_vec();
    healed.sort_unstable();
    match healed[..] {
        [] => "nothing to heal".into(),
        [one] => format!("healed in {one:.1?}"),
        _ => format!(
            "healed {} times, median {:.1?}, at most {:.1?}",
            healed.len(),
            healed[healed.len() / 2],
            healed[healed.len() - 1]
        ),
    }
}

/// A number for CI, and so many times as much for `--long`.
fn much(number: u64) -> u64 {
    if long() { number * 100 } else { number }
}

/// Calls that failed while no host served: the token was away, or no host had come up by the deadline,
/// which on a busy machine takes longer than the two seconds.
const NO_HOST: &[&str] = &[
    "Unavailable KEY_UNAVAILABLE",
    "DeadlineExceeded DEPENDENCY_TIMEOUT",
];

/// All calls that failed said one of these.
fn only(failed: &BTreeMap<String, u64>, words: &[&str]) {
    let strange: Vec<_> = failed
        .keys()
        .filter(|said| !words.iter().any(|words| said.starts_with(words)))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}
