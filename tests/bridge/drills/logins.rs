//! Logins beside what `login` has: disks that change during one, PIN files, outages, `check`, tokens that
//! need no PIN. Two tools count: pkcs11-spy what hosts ask, the fault token what the module judged.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use super::{login::kill_hosts, *};
use crate::support::{Disk, PIN, calls, signal};

const WRONG_PIN: &str = "50617283";

/// A token with a wrong PIN in the file, behind the fault token, which pkcs11-spy watches.
struct Attack {
    member: Member,
    config: String,
    spied: std::path::PathBuf,
}

impl Attack {
    /// Four hosts, and these settings besides.
    fn new(settings: &str) -> Self {
        let member = Member::new("primary");
        member.token.write_pin(WRONG_PIN);
        let usual = member.token.config();
        let (head, _) = usual.split_once("[token.primary]").unwrap();
        let config = format!(
            "{head}{}{}",
            member.section(&format!(
                "hosts = 4\nmax_starts_per_minute = 10000\n{settings}"
            )),
            declare(KEY_ID, "mac", "HMAC_256", "alias/test")
        );
        let spied = member.token.path("calls");
        let (module, spy) = (fault_module(), crate::support::spy());
        let config = config
            .replace(
                &format!("module-path={}", module.display()),
                &format!("module-path={}", spy.display()),
            )
            .replace(
                "env = { ",
                &format!(
                    "env = {{ PKCS11SPY = \"{}\", PKCS11SPY_OUTPUT = \"{}\", ",
                    module.display(),
                    spied.display()
                ),
            );
        Self {
            member,
            config,
            spied,
        }
    }

    fn serve(&self) -> Server {
        self.member.token.spawn(&self.config)
    }

    /// How often hosts called C_Login: the higher count of the two tools, since a crash costs
    /// pkcs11-spy what it has not written yet.
    fn asked(&self) -> u32 {
        let spied = calls(&self.spied).get("C_Login").copied().unwrap_or(0);
        spied.max(self.counted("logins"))
    }

    /// How often the real module judged a PIN, by the fault token.
    fn judged(&self) -> u32 {
        self.counted("judged")
    }

    fn counted(&self, what: &str) -> u32 {
        let counted = fs::read_to_string(self.member.token.path(&format!("control.{what}")));
        counted.map_or(0, |text| text.trim().parse().unwrap_or(0))
    }

    fn counts(&self) -> (u32, u32) {
        (self.asked(), self.judged())
    }

    fn kick(&self) {
        let kick = ["token", "kick", "primary", "--config", "hsmac.toml"];
        let output = self.member.token.hsmac(&kick);
        assert!(output.status.success(), "{output:?}");
    }
}

/// Waits until the log says so, as often as it takes.
async fn said(server: &Server, words: &str, times: usize) {
    until(words, || {
        (server.log().matches(words).count() >= times).then_some(())
    })
    .await;
}

const NO_LOGIN: &str = "no login is made";
const REFUSED: &str = "the token refuses the PIN";
const COUNTS_AS_REFUSED: &str = "the PIN counts as refused";

#[tokio::test]
async fn a_wrong_pin_with_a_full_state_folder_is_not_tried_and_then_once() {
    let attack = Attack::new("");
    let disk = Disk::on(attack.member.token.path("state"));
    disk.fill();
    for _ in 0..3 {
        let server = attack.member.token.spawn_on(&disk, &attack.config);
        said(&server, NO_LOGIN, 2).await;
        assert!(server.log().contains("No space left"), "{}", server.log());
        kill_hosts(&server);
        said(&server, NO_LOGIN, 4).await;
    }
    assert_eq!(attack.counts(), (0, 0), "a login without a note of it");
    disk.free();
    for run in 0..3 {
        let server = attack.member.token.spawn_on(&disk, &attack.config);
        said(&server, REFUSED, 1).await;
        if run == 0 {
            // It is full again before the next start, and the note is there.
            disk.fill();
        }
    }
    assert_eq!(attack.counts(), (1, 1));
}

#[tokio::test]
async fn a_disk_that_fills_up_during_a_login_keeps_the_refusal() {
    let attack = Attack::new("");
    let disk = Disk::on(attack.member.token.path("state"));
    attack
        .member
        .rules("delay C_Login 300ms after\npin lock 10 without-flags");
    let server = attack.member.token.spawn_on(&disk, &attack.config);
    said(&server, "C_Login is tried", 1).await;
    disk.fill();
    said(&server, REFUSED, 1).await;
    drop(server);
    let server = attack.member.token.spawn_on(&disk, &attack.config);
    said(&server, REFUSED, 1).await;
    assert_eq!(attack.counts(), (1, 1));
}

#[tokio::test]
async fn a_wrong_pin_with_a_read_only_state_folder_is_tried_once_at_most() {
    let attack = Attack::new("");
    let disk = Disk::on(attack.member.token.path("state"));
    disk.read_only();
    for _ in 0..2 {
        let mut server = attack.member.token.spawn_on(&disk, &attack.config);
        assert_eq!(server.ended().await.code(), Some(78));
        assert!(server.log().contains("Read-only"), "{}", server.log());
    }
    assert_eq!(attack.counts(), (0, 0));

    // It becomes read-only while the PIN is judged: the memory holds, and so does the note of an
    // attempt together with what the token says of its PIN.
    disk.writable();
    attack.member.rules("delay C_Login 300ms after");
    let server = attack.member.token.spawn_on(&disk, &attack.config);
    said(&server, "C_Login is tried", 1).await;
    disk.read_only();
    said(&server, "cannot be kept on disk yet", 1).await;
    attack.member.token.write_pin(WRONG_PIN);
    said(&server, NO_LOGIN, 1).await;
    assert_eq!(attack.counts(), (1, 1));
    // Killed before the refusal is on disk.
    drop(server);
    disk.writable();
    let server = attack.member.token.spawn_on(&disk, &attack.config);
    said(&server, COUNTS_AS_REFUSED, 1).await;
    assert_eq!(attack.counts(), (1, 1));
}

/// Nobody knows what came of the attempt but the front that was killed, and the token's flags do not tell:
/// it spends one of two tries, as a machine that lost its power during a login would.
#[tokio::test]
async fn a_refusal_that_could_not_be_kept_is_met_once_more_where_the_token_does_not_tell() {
    let attack = Attack::new("");
    let disk = Disk::on(attack.member.token.path("state"));
    attack
        .member
        .rules("delay C_Login 300ms after\npin lock 10 without-flags");
    let server = attack.member.token.spawn_on(&disk, &attack.config);
    said(&server, "C_Login is tried", 1).await;
    disk.read_only();
    said(&server, "cannot be kept on disk yet", 1).await;
    drop(server);
    disk.writable();
    for _ in 0..2 {
        let server = attack.member.token.spawn_on(&disk, &attack.config);
        said(&server, "the token is unavailable", 1).await;
        assert_eq!(attack.counts(), (2, 2), "{}", server.log());
    }
}

#[tokio::test]
async fn a_pin_is_another_one_only_when_its_content_is() {
    let attack = Attack::new("");
    let server = attack.serve();
    said(&server, REFUSED, 1).await;
    for time in 1..=6 {
        // Touched, and written anew as another file with the same bytes.
        attack.member.token.write_pin(WRONG_PIN);
        said(&server, NO_LOGIN, time).await;
    }
    assert_eq!(attack.counts(), (1, 1));
    // What is no PIN is refused before C_Login.
    for (content, words) in [
        (format!("{WRONG_PIN}\n{PIN}"), "more than one line"),
        (String::new(), "the PIN file is empty"),
    ] {
        attack.member.token.write_pin(&content);
        said(&server, words, 1).await;
    }
    assert_eq!(attack.counts(), (1, 1));
    attack.member.token.write_pin(PIN);
    said(&server, "a host serves", 4).await;
    assert_eq!(attack.counts(), (5, 5));
}

/// The token tells by its flags that it judged: there is no second try.
#[tokio::test]
async fn a_token_that_counts_a_wrong_pin_is_asked_once_whatever_it_says() {
    let attack = Attack::new("");
    attack
        .member
        .rules("return C_Login CKR_GENERAL_ERROR after\npin lock 10");
    for _ in 0..2 {
        let server = attack.serve();
        said(&server, COUNTS_AS_REFUSED, 1).await;
    }
    assert_eq!(attack.counts(), (1, 1));
}

#[tokio::test]
async fn after_an_outage_one_host_tries_a_pin_that_was_changed_meanwhile() {
    let attack = Attack::new("");
    attack.member.token.write_pin(PIN);
    let server = attack.serve();
    said(&server, "a host serves", 4).await;
    let before = attack.asked();
    assert_eq!(before, 4);
    attack.member.token.inside(&format!("pin {PIN} 43214321\n"));
    attack.member.rules("sessions lost now");
    // Signs of life find it; a caller finds it sooner.
    let mut client = server.mac().await;
    let _ = client.generate_mac(request(b"x")).await;
    kill_hosts(&server);
    said(&server, REFUSED, 1).await;
    assert_eq!(attack.asked(), before + 1, "one host tries");
}

#[tokio::test]
async fn a_token_that_is_away_is_asked_by_one_host_and_at_once_when_somebody_kicks() {
    let attack = Attack::new("");
    attack.member.token.write_pin(PIN);
    attack.member.rules("hide token");
    let server = attack.serve();
    said(&server, "the token is unavailable", 1).await;
    // Pauses grow: 0.2 s, 0.4 s, …, so that after seven starts the next is seconds away.
    until("seven starts", || {
        (calls(&attack.spied).get("C_Initialize").copied()? >= 7).then_some(())
    })
    .await;
    assert!(server.hosts().len() <= 1, "several hosts ask");
    attack.member.rules("");
    attack.kick();
    let kicked = Instant::now();
    said(&server, "a host serves", 4).await;
    println!("four hosts served {:?} after the kick", kicked.elapsed());
    assert!(server.log().contains("the token is asked now"));
    assert_eq!(attack.asked(), 4);
}

#[tokio::test]
async fn a_second_pin_file_is_taken_when_it_appears_and_hosts_go_on() {
    let attack = Attack::new("next_pin_file = \"pin-next\"\n");
    let token = &attack.member.token;
    token.write_pin(PIN);
    let server = attack.serve();
    said(&server, "a host serves", 4).await;
    token.inside(&format!("pin {PIN} 43214321\n"));
    signal(server.hosts()[0], "KILL");
    said(&server, "the token is degraded", 1).await;
    let mut client = server.mac().await;
    client.generate_mac(request(b"x")).await.unwrap();
    assert_eq!(attack.asked(), 5);
    token.write_pin_file("pin-next", "43214321");
    said(&server, "a host serves", 5).await;
    client.generate_mac(request(b"x")).await.unwrap();
    assert_eq!(attack.asked(), 6);
    // The refused one is not tried again by a later host.
    signal(server.hosts()[0], "KILL");
    said(&server, "a host serves", 6).await;
    assert_eq!(attack.asked(), 7);
}

#[tokio::test]
async fn check_as_root_leaves_the_marker_to_the_owner_of_the_state_folder() {
    let attack = Attack::new("");
    let state = attack.member.token.path("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&state, Some(12345), Some(12346)).unwrap();
    let output = attack.member.token.check(&attack.config);
    assert!(output.stdout.contains(REFUSED), "{output:?}");
    for file in fs::read_dir(&state).unwrap() {
        let found = file.unwrap().metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (12345, 12346));
        assert_eq!(found.mode() & 0o777, 0o600);
    }
    assert!(output.stdout.contains("uid 12345"), "{output:?}");
    assert_eq!(attack.counts(), (1, 1));
}

/// Whoever looks first, before the service has ever run.
#[tokio::test]
async fn check_as_root_makes_a_state_folder_that_the_service_can_use() {
    let attack = Attack::new("");
    let above = attack.member.token.path("of-hsmac");
    fs::create_dir(&above).unwrap();
    chown(&above, Some(12345), Some(12346)).unwrap();
    let config = format!("state_dir = \"of-hsmac/a/state\"\n{}", attack.config);
    let output = attack.member.token.check(&config);
    assert!(output.stdout.contains("uid 12345"), "{output:?}");
    for folder in ["a", "a/state", "a/state/pin-attempt.primary"] {
        let found = fs::metadata(above.join(folder)).unwrap();
        assert_eq!((found.uid(), found.gid()), (12345, 12346), "{folder}");
        assert_eq!(found.mode() & 0o077, 0, "{folder}");
    }
    // Where nobody else owns anything, it says whose the new folder is.
    let output = attack.member.token.check(&attack.config);
    assert!(output.stdout.contains("made now, and root's"), "{output:?}");
    let output = attack.member.token.check(&attack.config);
    assert!(!output.stdout.contains("made now"), "{output:?}");
}

/// Security: what measures a token obeys the note that hosts obey, and writes it.
#[tokio::test]
async fn bench_token_tries_a_refused_pin_once() {
    let attack = Attack::new("next_pin_file = \"pin-next\"\n");
    let token = &attack.member.token;
    fs::write(token.path("hsmac.toml"), &attack.config).unwrap();
    let bench = || {
        let bench = ["bench", "token", "--config", "hsmac.toml"];
        token.hsmac(&[&bench[..], &["--duration", "100ms"]].concat())
    };
    for _ in 0..2 {
        let output = bench();
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        assert!(output.stderr.contains(REFUSED), "{output:?}");
    }
    assert_eq!(attack.counts(), (1, 1));
    // Nor does a server try it after that, nor this command after a server.
    let server = attack.serve();
    said(&server, NO_LOGIN, 1).await;
    assert_eq!(attack.counts(), (1, 1));
    drop(server);
    token.write_pin_file("pin-next", PIN);
    let output = bench();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.contains("MACs/s"), "{output:?}");
    assert_eq!(attack.counts(), (2, 2));
}

#[tokio::test]
async fn a_token_without_login_is_never_logged_in_to() {
    let attack = Attack::new("login = \"none\"\n");
    let config = attack.config.replace(
        &format!(
            "pin_file = \"{}\"\n",
            attack.member.token.path("pin").display()
        ),
        "",
    );
    let server = attack.member.token.spawn(&config);
    said(&server, "a host serves", 4).await;
    assert_eq!(attack.counts(), (0, 0));
    drop(server);
    // Not said, and the token wants one.
    let unsaid = config.replace("login = \"none\"\n", "");
    let mut server = attack.member.token.spawn(&unsaid);
    assert_eq!(server.ended().await.code(), Some(78));
    assert!(server.log().contains("CKF_LOGIN_REQUIRED"));
    assert_eq!(attack.counts(), (0, 0));
    // SoftHSM2 has no PIN pad: it refuses in a way that may have been a judgement.
    let config = config.replace("\"none\"", "\"protected-path\"");
    let server = attack.member.token.spawn(&config);
    said(&server, COUNTS_AS_REFUSED, 1).await;
    assert_eq!(attack.asked(), 2);
}
