//! The wire between front and host, spoken by a test in the front's place: what a host does with a
//! front that does not keep to it.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hsmac::{
    host_ipc::{BUILD_ID, InFlightTable, Inbox, monotonic, nanoseconds, write_frame},
    proto::host::{
        End, Fault, FaultClass, ForgetKey, FromHost, Job, KeyDefinition, LogIn, LoginMode, Mac,
        Random, ReadPins, Settings, ToHost, answer::Outcome, from_host, job::Work, to_host,
    },
};

use crate::support::{
    KEY, KEY_ID, LIMIT, PIN, TOKEN, Token, fault_module, hmac_sha256, spy, until,
};

const GENERATION: u32 = 7;
const SESSIONS: u32 = 2;

/// A host process, and the front's end of its socket.
pub(crate) struct Host {
    child: Child,
    socket: UnixStream,
    inbox: Inbox,
    sequence: u64,
    said: PathBuf,
    _board: InFlightTable,
}

impl Host {
    /// A host that has been told nothing yet.
    fn start(token: &Token) -> Self {
        Self::start_with(token, &[])
    }

    fn start_with(token: &Token, environment: &[(&str, &Path)]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let said = token.path("host.said");
        let words = fs::File::create(&said).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hsmac"))
            .arg("token-host")
            .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
            .envs(token.fault_environment())
            .envs(environment.iter().copied())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(words.try_clone().unwrap())
            .stderr(words)
            .spawn()
            .unwrap();
        let board = InFlightTable::create(SESSIONS + 1).unwrap();
        board.send(&ours).unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        Self {
            child,
            socket: ours,
            inbox: Inbox::default(),
            sequence: 0,
            said,
            _board: board,
        }
    }

    /// A host that is logged in and takes jobs.
    pub(crate) fn ready(token: &Token) -> Self {
        Self::ready_with(token, settings(token))
    }

    /// A host over the fault token.
    pub(crate) fn faulty(token: &Token) -> Self {
        let settings = Settings {
            module_path: fault_module().display().to_string(),
            ..settings(token)
        };
        Self::ready_with(token, settings)
    }

    fn ready_with(token: &Token, settings: Settings) -> Self {
        let mut host = Self::start(token);
        host.log_in_with(settings);
        host
    }

    fn log_in_with(&mut self, settings: Settings) {
        let host = self;
        host.say(to_host::Frame::Settings(settings));
        let from_host::Frame::Hello(hello) = host.hear() else {
            panic!("no Hello")
        };
        assert_eq!(hello.build_id, BUILD_ID);
        let from_host::Frame::TokenFound(found) = host.hear() else {
            panic!("no TokenFound")
        };
        assert_eq!(found.label, TOKEN);
        host.log_in();
        let from_host::Frame::Ready(ready) = host.hear() else {
            panic!("no Ready")
        };
        assert_eq!(ready.sessions, SESSIONS);
        assert_eq!(ready.digest_bits, [224, 256, 384, 512]);
    }

    /// Has the host read its PIN file, and lets it log in.
    fn log_in(&mut self) {
        let salts = vec![vec![7; 16].into()];
        self.say(to_host::Frame::ReadPins(ReadPins { salts }));
        let from_host::Frame::PinsRead(read) = self.hear() else {
            panic!("no PinsRead")
        };
        assert_eq!(read.pins[0].fingerprints[0].len(), 32, "{read:?}");
        self.say(to_host::Frame::LogIn(LogIn {
            pin: 0,
            sessions: SESSIONS,
        }));
        let from_host::Frame::LoggedIn(_) = self.hear() else {
            panic!("no LoggedIn")
        };
    }

    /// Tells the host what a key reference means.
    pub(crate) fn define(&mut self, definition: KeyDefinition) {
        self.say(to_host::Frame::DefineKey(definition));
    }

    /// Asks for a MAC and waits for what comes of it.
    pub(crate) fn mac(&mut self, reference: u64, message: &[u8]) -> Outcome {
        let job = self.job(mac(reference, message));
        self.ask(job)
    }

    /// A job that may take as long as a test waits.
    pub(crate) fn job(&mut self, work: Work) -> Job {
        self.sequence += 1;
        Job {
            generation: GENERATION,
            slot: 3,
            sequence: self.sequence,
            until: monotonic() + nanoseconds(LIMIT),
            work: Some(work),
        }
    }

    pub(crate) fn ask(&mut self, job: Job) -> Outcome {
        let asked = (job.generation, job.slot, job.sequence);
        self.say(to_host::Frame::Job(job));
        let mut heard = self.hear();
        if let from_host::Frame::KeyOpened(_) = heard {
            heard = self.hear();
        }
        let from_host::Frame::Answer(answer) = heard else {
            panic!("no answer but {heard:?}")
        };
        let named = (answer.generation, answer.slot, answer.sequence);
        assert_eq!(named, asked, "an answer to another job");
        answer.outcome.unwrap()
    }

    fn say(&mut self, frame: to_host::Frame) {
        let mut out = BytesMut::new();
        write_frame(&ToHost { frame: Some(frame) }, &mut out);
        self.say_bytes(&out);
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next frame.
    fn hear(&mut self) -> from_host::Frame {
        self.hear_or_end()
            .unwrap_or_else(|| panic!("the host hung up: {}", self.words()))
    }

    /// The next frame, or `None` when the host hangs up.
    fn hear_or_end(&mut self) -> Option<from_host::Frame> {
        loop {
            if let Some(frame) = self.inbox.take::<FromHost>().unwrap() {
                return Some(frame.frame.expect("a host sends no empty frame"));
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.inbox.space().extend_from_slice(&chunk[..length]),
                Err(error) => panic!("{error}: {}", self.words()),
            }
        }
    }

    /// The host's last word, after which it hangs up and ends.
    pub(crate) async fn ending(mut self) -> Fault {
        let fault = match self.hear_or_end() {
            Some(from_host::Frame::Ending(ending)) => ending.fault.unwrap(),
            other => panic!("no Ending but {other:?}"),
        };
        assert_eq!(self.hear_or_end(), None, "it speaks after its last word");
        let status = self.ended().await;
        assert!(status.success(), "{status}: {}", self.words());
        assert_eq!(self.words(), "");
        fault
    }

    async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the end of the host", || child.try_wait().unwrap()).await
    }

    /// What it wrote on stdout and stderr.
    fn words(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(token: &Token) -> Settings {
    Settings {
        build_id: BUILD_ID.into(),
        generation: GENERATION,
        module_path: token.module().display().to_string(),
        token_label: Some(TOKEN.into()),
        pin_files: vec![token.path("pin").display().to_string()],
        login: LoginMode::Pin.into(),
        sessions: SESSIONS,
        call_timeout_ms: 10_000,
        slow_timeout_ms: 10_000,
        reprove_interval_ms: 30_000,
        ..Settings::default()
    }
}

/// The usual key.
pub(crate) fn usual_key(reference: u64) -> KeyDefinition {
    KeyDefinition {
        reference,
        key_id: KEY_ID.into(),
        digest_bits: 256,
        label: "mac".into(),
        ..KeyDefinition::default()
    }
}

fn mac(key: u64, message: &[u8]) -> Work {
    Work::Mac(Mac {
        key,
        message: Bytes::copy_from_slice(message),
    })
}

pub(crate) fn fault(outcome: Outcome) -> Fault {
    let Outcome::Fault(fault) = outcome else {
        panic!("no fault but {outcome:?}")
    };
    fault
}

#[tokio::test]
async fn a_host_makes_macs_and_random_bytes_until_it_is_told_to_end() {
    let token = Token::with_key();
    let mut host = Host::ready(&token);
    host.define(usual_key(1));
    for message in [&b""[..], b"x", &[7; 4096]] {
        let made = host.mac(1, message);
        assert_eq!(made, Outcome::Mac(hmac_sha256(&KEY, message).into()));
    }
    let job = host.job(Work::Random(Random {
        number_of_bytes: 40,
    }));
    let Outcome::Random(bytes) = host.ask(job) else {
        panic!("no random bytes")
    };
    assert_eq!(bytes.len(), 40);
    host.say(to_host::Frame::End(End {}));
    assert_eq!(host.hear_or_end(), None);
    let status = host.ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(host.words(), "");
}

#[tokio::test]
async fn a_job_of_an_unknown_generation_ends_the_host_without_a_mac() {
    let token = Token::with_key();
    let mut host = Host::ready(&token);
    host.define(usual_key(1));
    let job = host.job(mac(1, b"x"));
    host.say(to_host::Frame::Job(Job {
        generation: GENERATION + 1,
        ..job
    }));
    let fault = host.ending().await;
    assert_eq!(fault.class(), FaultClass::Bug);
    assert_eq!(fault.reason, "a job names another generation");
}

#[tokio::test]
async fn a_job_with_a_key_that_the_host_does_not_know_makes_no_mac() {
    let token = Token::with_key();
    let mut host = Host::ready(&token);
    host.define(usual_key(1));
    assert!(matches!(host.mac(1, b"x"), Outcome::Mac(_)));
    // Never told of; then told to forget.
    let unknown = fault(host.mac(2, b"x"));
    host.say(to_host::Frame::ForgetKey(ForgetKey { reference: 1 }));
    let from_host::Frame::KeyForgotten(forgotten) = host.hear() else {
        panic!("no KeyForgotten")
    };
    assert_eq!(forgotten.reference, 1);
    let forgotten = fault(host.mac(1, b"x"));
    for fault in [unknown, forgotten] {
        assert_eq!(fault.class(), FaultClass::Retry);
        assert_eq!(fault.reason, "the host does not know the key");
    }
    host.define(usual_key(1));
    let made = host.mac(1, b"x");
    assert_eq!(made, Outcome::Mac(hmac_sha256(&KEY, b"x").into()));
}

#[tokio::test]
async fn frames_that_cannot_be_decoded_end_the_host_with_its_last_word() {
    let token = Token::with_key();
    for (bytes, reason) in [
        // A length of two, and no protobuf message.
        (&b"\x02\xff\xff"[..], "a frame cannot be decoded"),
        // A length of more than 64 KiB.
        (b"\xff\xff\x7f", "a frame's length is out of bounds"),
        // A length that does not end.
        (b"\xff\xff\xff\xff", "a frame's length is out of bounds"),
        // A message without a frame in it.
        (b"\x00", "the front sent an empty frame"),
    ] {
        let mut host = Host::ready(&token);
        host.define(usual_key(1));
        host.say_bytes(bytes);
        let fault = host.ending().await;
        assert_eq!(fault.class(), FaultClass::Bug, "{fault:?}");
        assert!(fault.reason.starts_with(reason), "{fault:?}");
    }
}

#[tokio::test]
async fn a_front_that_does_not_begin_with_settings_is_left_with_a_sentence() {
    let token = Token::new();
    for (bytes, said) in [
        (&b"\x02\xff\xff"[..], "a frame cannot be decoded"),
        (b"\xff\xff\xff", "a frame's length is out of bounds"),
        (b"\x00", "an empty frame"),
        // `End`, field 6.
        (b"\x02\x32\x00", "the front did not begin with settings"),
    ] {
        let mut host = Host::start(&token);
        host.say_bytes(bytes);
        assert_eq!(host.hear_or_end(), None);
        let status = host.ended().await;
        assert_eq!(status.code(), Some(70), "{}", host.words());
        let words = host.words();
        assert!(
            words.starts_with("hsmac: token-host: ") && words.contains(said),
            "{words}"
        );
        assert!(!words.contains("panicked"), "{words}");
    }
}

/// Security: pkcs11-spy prints PINs, as text and in hex, to stderr if it is given no file.
#[tokio::test]
async fn a_pin_that_the_module_prints_is_hidden_before_it_leaves_the_host() {
    let token = Token::with_key();
    let mut host = Host::start_with(&token, &[("PKCS11SPY", token.module())]);
    let settings = Settings {
        module_path: spy().display().to_string(),
        ..settings(&token)
    };
    host.log_in_with(settings);
    host.say(to_host::Frame::End(End {}));
    assert_eq!(host.hear_or_end(), None);
    host.ended().await;
    let words = host.words();
    assert!(
        words.contains("C_Login") && words.contains("[PIN]"),
        "{words}"
    );
    assert!(
        words.contains("C_Finalize"),
        "the end of it is lost: {words}"
    );
    let digits: Vec<String> = PIN.bytes().map(|byte| format!("{byte:02x}")).collect();
    for form in [PIN.to_owned(), digits.join(""), digits.join(" ")] {
        assert!(!words.contains(&form), "{form} in {words}");
    }
}

#[tokio::test]
async fn a_host_of_another_build_says_restart_hsmac_and_loads_nothing() {
    let token = Token::with_key();
    let mut host = Host::start(&token);
    host.say(to_host::Frame::Settings(Settings {
        build_id: "0.0.0-of-yesterday".into(),
        module_path: "/nowhere/to-be-loaded.so".into(),
        ..settings(&token)
    }));
    // Its own build, so that the front can tell too.
    let from_host::Frame::Hello(hello) = host.hear() else {
        panic!("no Hello")
    };
    assert_eq!(hello.build_id, BUILD_ID);
    let from_host::Frame::Failed(failed) = host.hear() else {
        panic!("no Failed")
    };
    let fault = failed.fault.unwrap();
    assert_eq!(fault.class(), FaultClass::Configuration);
    assert!(fault.reason.contains("restart hsmac"), "{fault:?}");
    assert_eq!(host.hear_or_end(), None);
    let status = host.ended().await;
    assert!(status.success(), "{status}: {}", host.words());
}

#[tokio::test]
async fn a_job_whose_deadline_has_passed_is_not_asked_of_the_token() {
    let token = Token::with_key();
    let mut host = Host::ready(&token);
    host.define(usual_key(1));
    assert!(matches!(host.mac(1, b"opened"), Outcome::Mac(_)));
    // Of an open key a session answers itself; of one that is not, the management session.
    host.define(usual_key(2));
    for reference in [1, 2] {
        let job = host.job(mac(reference, b"late"));
        let fault = fault(host.ask(Job {
            until: monotonic() - nanoseconds(Duration::from_millis(1)),
            ..job
        }));
        assert_eq!(fault.class(), FaultClass::Expired);
    }
    let made = host.mac(1, b"in time");
    assert_eq!(made, Outcome::Mac(hmac_sha256(&KEY, b"in time").into()));
}

#[tokio::test]
async fn a_key_whose_check_value_differs_makes_no_mac_and_others_do() {
    let token = Token::with_key();
    let mut host = Host::ready(&token);
    let check_value = hmac_sha256(
        &KEY,
        format!("\0hsmac-reserved\0key check v1\0{KEY_ID}").as_bytes(),
    );
    let mut wrong = check_value.clone();
    wrong[31] ^= 1;
    host.define(KeyDefinition {
        check_value: wrong.into(),
        ..usual_key(1)
    });
    host.define(KeyDefinition {
        check_value: check_value.into(),
        ..usual_key(2)
    });
    let fault = fault(host.mac(1, b"x"));
    assert_eq!(fault.class(), FaultClass::KeyDiffers);
    assert!(
        fault.reason.contains("its check value differs"),
        "{fault:?}"
    );
    assert_eq!(
        host.mac(2, b"x"),
        Outcome::Mac(hmac_sha256(&KEY, b"x").into())
    );
}
