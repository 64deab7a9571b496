//! A wrong PIN: an HSM locks its officer for good after a few, so one that is refused is tried once,
//! whatever else fails.
//!
//! The fault token counts every C_Login in a file; one drill counts with pkcs11-spy. An answer that does
//! not say whether the PIN was judged may be met twice.

use std::process::Command;

use tokio::task::JoinError;

use super::{
    acted::{head, throughout},
    *,
};
use crate::support::{calls, signal};

const WRONG: &str = "00000000";

/// These say of a PIN that it was judged, or that no other will be.
const CLEAR: [&str; 5] = [
    "CKR_PIN_INCORRECT",
    "CKR_PIN_INVALID",
    "CKR_PIN_LEN_RANGE",
    "CKR_PIN_EXPIRED",
    "CKR_PIN_LOCKED",
];

/// With these the token cannot have looked at the PIN.
const NOT_JUDGED: [&str; 9] = [
    "CKR_TOKEN_NOT_PRESENT",
    "CKR_DEVICE_REMOVED",
    "CKR_SESSION_CLOSED",
    "CKR_SESSION_COUNT",
    "CKR_SESSION_HANDLE_INVALID",
    "CKR_SESSION_READ_ONLY",
    "CKR_SESSION_EXISTS",
    "CKR_SESSION_READ_ONLY_EXISTS",
    "CKR_USER_PIN_NOT_INITIALIZED",
];

/// With these the login has come about.
const TAKEN: [&str; 2] = ["CKR_OK", "CKR_USER_ALREADY_LOGGED_IN"];

/// What real modules say of a wrong PIN without saying so; `--long` takes every code.
const UNCLEAR: [&str; 6] = [
    "CKR_GENERAL_ERROR",
    "CKR_FUNCTION_FAILED",
    "CKR_ARGUMENTS_BAD",
    "CKR_DATA_LEN_RANGE",
    "CKR_DEVICE_ERROR",
    "0x80000001",
];

/// The folder in which hsmac keeps what was tried.
#[derive(Clone, Copy, Debug)]
enum StateFolder {
    Usual,
    Full,
    ReadOnly,
}

const STATES: [StateFolder; 3] = [StateFolder::Usual, StateFolder::Full, StateFolder::ReadOnly];

impl StateFolder {
    /// Starts a server with a state folder like this one. It is a file system of its own, in a
    /// namespace that ends with the server.
    fn serve(self, token: &Token, config: &str) -> Server {
        let state = token.path("state");
        fs::create_dir_all(&state).unwrap();
        let prepare = match self {
            Self::Usual => return token.spawn(config),
            Self::Full => {
                "mount -t tmpfs -o size=4k none \"$0\" && ! head -c 9999 /dev/zero 2>/dev/null >\"$0/full\""
            }
            Self::ReadOnly => "mount -t tmpfs -o ro,size=64k none \"$0\"",
        };
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--mount", "sh", "-c"])
            .arg(format!("{prepare} && exec \"$@\""))
            .arg(&state)
            .arg(env!("CARGO_BIN_EXE_hsmac"))
            .env("HSMAC__LOG__FORMAT", "text");
        token.spawn_command(command, config)
    }
}

/// A token whose PIN file is wrong, four hosts for it, and this rule.
struct Attempt {
    member: Member,
    state: StateFolder,
    rule: String,
    config: String,
}

impl Attempt {
    fn new(state: StateFolder, rule: &str) -> Self {
        let member = Member::new("primary");
        member.token.write_pin(WRONG);
        member.rules(&format!("pin lock 10\njournal C_Login\n{rule}"));
        let config = Self::config(
            &member,
            &member.section("hosts = 4\nstart_timeout = \"2s\"\n"),
        );
        Self {
            member,
            state,
            rule: rule.to_owned(),
            config,
        }
    }

    fn config(member: &Member, section: &str) -> String {
        let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
        format!("state_dir = \"state\"\n{}{section}{key}", head(member))
    }

    fn logins(&self) -> usize {
        self.member.logins()
    }

    /// Three fronts one after the other, the second ended by SIGKILL, each with hosts that are killed:
    /// how many logins are tried in all is never more than `most`.
    async fn is_tried(&self, most: usize) {
        self.through_restarts(&|| {
            let logins = self.logins();
            assert!(
                logins <= most,
                "{logins} logins with a wrong PIN, at most {most} may be; state folder {:?}, {:?}:\n{}\n{}",
                self.state,
                self.rule,
                self.member.journal().join("\n"),
                fs::read_to_string(self.member.token.path("log")).unwrap_or_default(),
            );
        })
        .await;
        if self.logins() == 0 {
            let log = fs::read_to_string(self.member.token.path("log")).unwrap();
            assert!(
                !matches!(self.state, StateFolder::Usual) && log.contains("/state"),
                "nothing was tried, and the log does not say that the state folder is why:\n{log}"
            );
        } else if !self.rule.is_empty() {
            assert!(self.member.applied(&self.rule) > 0, "{} acts", self.rule);
        }
    }

    async fn through_restarts(&self, holds: &(dyn Fn() + Sync)) {
        let watched = if long() {
            Duration::from_secs(4)
        } else {
            Duration::from_millis(700)
        };
        for front in 0..3 {
            let mut server = self.state.serve(&self.member.token, &self.config);
            // A host that was killed before the fault acts would have met another one.
            let met = || match self.rule.as_str() {
                "" => self.member.judged(),
                rule => self.member.applied(rule),
            };
            let before = met();
            // It says so, or it ends since it cannot be.
            until("an attempt, or a word on why there is none", || {
                holds();
                let ended = server.child.try_wait().unwrap().is_some();
                let said = server.log().contains("the token is unavailable");
                (ended || said || met() > before).then_some(())
            })
            .await;
            kill_hosts(&server);
            throughout(watched, holds).await;
            kill_hosts(&server);
            throughout(watched, holds).await;
            if front == 1 {
                drop(server);
            } else if server.child.try_wait().unwrap().is_none() {
                signal(server.child.id(), "TERM");
                server.ended().await;
            }
            holds();
        }
    }
}

/// Kills what hosts there are; some may have ended meanwhile.
pub(super) fn kill_hosts(server: &Server) {
    for host in server.hosts() {
        let _ = Command::new("kill")
            .args(["-KILL", &host.to_string()])
            .output();
    }
}

/// Some attempts at a time: each of them mostly waits.
async fn all(attempts: impl IntoIterator<Item = (StateFolder, String, usize)>) {
    let mut running = JoinSet::new();
    for (state, rule, most) in attempts {
        if running.len() == 4 {
            passed(running.join_next().await);
        }
        running.spawn(async move { Attempt::new(state, &rule).is_tried(most).await });
    }
    while !running.is_empty() {
        passed(running.join_next().await);
    }
}

/// Fails as the attempt has failed.
fn passed(ended: Option<Result<(), JoinError>>) {
    if let Some(Err(error)) = ended {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Security: a PIN that was refused is tried once.
#[tokio::test]
async fn a_wrong_pin_is_tried_once_whatever_the_state_folder_is() {
    all(STATES.map(|state| (state, String::new(), 1))).await;
}

/// Security: the token has judged the PIN, and says something else.
#[tokio::test]
async fn every_code_of_a_login_with_a_wrong_pin_is_met_once_or_twice() {
    let codes: Vec<&str> = if long() {
        fault_token::names_of_codes()
            .chain(["0x80000001"])
            .filter(|code| !NOT_JUDGED.contains(code) && !TAKEN.contains(code))
            .collect()
    } else {
        CLEAR[..1].iter().chain(&UNCLEAR).copied().collect()
    };
    let states: &[StateFolder] = if long() { &STATES } else { &STATES[..1] };
    let attempts = states.iter().flat_map(|state| {
        codes.iter().map(|code| {
            let most = if CLEAR.contains(code) { 1 } else { 2 };
            (*state, format!("return C_Login {code} after"), most)
        })
    });
    all(attempts).await;
}

/// Security: nor does an unclear code change that where nothing can be kept.
#[tokio::test]
async fn an_unclear_code_is_met_twice_at_most_where_nothing_can_be_kept() {
    let attempts = STATES[1..].iter().flat_map(|state| {
        ["CKR_GENERAL_ERROR", "0x80000001"]
            .map(|code| (*state, format!("return C_Login {code} after"), 2))
    });
    all(attempts).await;
}

/// Security: who dies in C_Login, or never comes back from it, may have had its PIN judged.
#[tokio::test]
async fn a_crash_and_a_hang_in_a_login_are_met_twice_at_most() {
    let states: &[StateFolder] = if long() { &STATES } else { &STATES[..2] };
    let attempts = states.iter().flat_map(|state| {
        [
            "crash C_Login",
            "crash C_Login after",
            "hang C_Login",
            "hang C_Login after",
        ]
        .map(|rule| (*state, rule.to_owned(), 2))
    });
    all(attempts).await;
}

/// Security: what cannot have judged the PIN is no attempt, and what follows it is one only.
#[tokio::test]
async fn after_a_code_that_judges_no_pin_a_wrong_one_is_tried_once() {
    let codes = if long() {
        &NOT_JUDGED[..]
    } else {
        &NOT_JUDGED[..2]
    };
    for code in codes {
        let rule = format!("return C_Login {code} when-attempt 1");
        let attempt = Attempt::new(StateFolder::Usual, &rule);
        let judged = || {
            let judged = attempt.member.judged();
            assert!(
                judged <= 1,
                "{code}: {judged} wrong PINs:\n{}",
                attempt.member.journal().join("\n")
            );
        };
        attempt.through_restarts(&judged).await;
        assert_eq!(attempt.member.applied(&rule), 1, "{code}");
    }
}

/// Security: a PIN file is another one when its content is.
#[tokio::test]
async fn a_pin_file_that_is_written_again_with_the_same_pin_is_not_tried_again() {
    let attempt = Attempt::new(StateFolder::Usual, "");
    let token = &attempt.member.token;
    let mut server = token.spawn(&attempt.config);
    server.until_log("the token is unavailable").await;
    for turn in 0..6 {
        if turn % 2 == 0 {
            token.write_pin(WRONG);
        } else {
            let now = std::time::SystemTime::now();
            let file = fs::File::open(token.path("pin")).unwrap();
            file.set_modified(now).unwrap();
        }
        signal(server.child.id(), "HUP");
        throughout(Duration::from_millis(500), || {
            assert_eq!(attempt.logins(), 1, "{:?}", attempt.member.journal());
        })
        .await;
    }
    // Another PIN is.
    token.write_pin("11111111");
    signal(server.child.id(), "HUP");
    let began = Instant::now();
    while attempt.logins() == 1 {
        assert!(
            began.elapsed() < LIMIT,
            "another PIN is not tried:\n{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Security: counted by another tool than ours, over hosts and fronts that are started anew.
#[tokio::test]
async fn pkcs11_spy_sees_one_login_with_a_wrong_pin() {
    for state in STATES {
        let token = Token::with_key();
        token.write_pin(WRONG);
        let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
        let config = token.config_with("hosts = 4\nsessions = 1\n", &key);
        let (config, spied) = token.spied(&format!("state_dir = \"state\"\n{config}"));
        let logins = || calls(&spied).get("C_Login").copied().unwrap_or(0);
        let holds = || assert!(logins() <= 1, "state folder {state:?}: {} logins", logins());
        for _ in 0..3 {
            let mut server = state.serve(&token, &config);
            until("an attempt, or a word on why there is none", || {
                holds();
                let ended = server.child.try_wait().unwrap().is_some();
                (ended || server.log().contains("the token is unavailable")).then_some(())
            })
            .await;
            kill_hosts(&server);
            throughout(Duration::from_millis(700), holds).await;
        }
    }
}
