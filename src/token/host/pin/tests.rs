//! The governor alone: what it lets through, over restarts and failures.

use super::*;
use bytes::Bytes;

use crate::proto::host::{LoginFailure, LoginVerdict, Pin, PinFlags, PinsRead};

const LIMIT: Duration = Duration::from_secs(10);

fn governor(dir: &Path) -> LoginGovernor {
    LoginGovernor::new(dir, "primary", vec![dir.join("pin")])
}

fn found(flags: PinFlags) -> TokenFound {
    TokenFound {
        serial: "serial".into(),
        pin_flags: Some(flags),
        ..TokenFound::default()
    }
}

fn count_low() -> PinFlags {
    PinFlags {
        count_low: true,
        ..PinFlags::default()
    }
}

/// What a host would say of a PIN file: here the PIN stands for its own fingerprint.
fn read(salts: &[Bytes], pins: &[&str]) -> PinsRead {
    let pin = |pin: &&str| Pin {
        fingerprints: salts
            .iter()
            .map(|salt| [pin.as_bytes(), salt].concat().into())
            .collect(),
        fault: String::new(),
    };
    PinsRead {
        pins: pins.iter().map(pin).collect(),
    }
}

/// One login as the supervisor does it; which PIN was tried.
async fn attempt(
    governor: &LoginGovernor,
    pins: &[&str],
    flags: PinFlags,
    end: impl AsyncFnOnce(&LoginTurn<'_>),
) -> Result<u32, NoLogin> {
    governor.refusal();
    let mut turn = governor.turn(&found(flags), LIMIT).await?;
    let chosen = turn.choose(&read(&turn.salts(), pins))?;
    turn.begin().await?;
    end(&turn).await;
    Ok(chosen)
}

fn says(verdict: LoginVerdict, flags: PinFlags) -> LoginFailure {
    LoginFailure {
        verdict: verdict.into(),
        pin_flags: Some(flags),
    }
}

async fn refused(turn: &LoginTurn<'_>) {
    let failure = says(LoginVerdict::Refused, count_low());
    let reason = turn
        .failed("C_Login CKR_PIN_INCORRECT", Some(&failure))
        .await;
    assert!(reason.unwrap().contains("the token refuses the PIN"));
}

fn is_refused(tried: Result<u32, NoLogin>) -> bool {
    matches!(tried, Err(NoLogin::Refused(_)))
}

#[tokio::test]
async fn a_refused_pin_is_tried_once_over_restarts_until_its_content_changes_or_a_person_unlocks() {
    let dir = tempfile::tempdir().unwrap();
    let none = PinFlags::default;
    assert_eq!(
        attempt(&governor(dir.path()), &["1234"], none(), refused).await,
        Ok(0)
    );
    // Another process, as after a restart.
    let again = governor(dir.path());
    assert!(is_refused(
        attempt(&again, &["1234"], none(), refused).await
    ));
    assert!(again.refusal().is_some(), "no host need be started");
    let marker = fs::read_to_string(dir.path().join("pin-attempt.primary")).unwrap();
    assert!(
        !marker.contains("1234"),
        "Security: no trace of the PIN on disk"
    );
    assert!(!marker.contains(&encode_hex(b"\n1234")));
    let mode = fs::metadata(dir.path().join("pin-attempt.primary"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    // The same bytes written again are the same PIN; other bytes are another one.
    fs::write(dir.path().join("pin"), "1234").unwrap();
    assert_eq!(again.refusal(), None, "a host must look");
    assert!(is_refused(
        attempt(&again, &["1234"], none(), refused).await
    ));
    assert_eq!(attempt(&again, &["12345"], none(), refused).await, Ok(0));
    assert!(
        is_refused(attempt(&again, &["1234"], none(), refused).await),
        "nor the first one again"
    );

    assert!(unlock(dir.path(), "primary").unwrap());
    assert_eq!(attempt(&again, &["1234"], none(), refused).await, Ok(0));
    assert!(
        is_refused(attempt(&again, &["1234"], none(), refused).await),
        "one try"
    );
}

#[tokio::test]
async fn attempts_without_a_clear_answer_spend_a_budget_of_two() {
    let dir = tempfile::tempdir().unwrap();
    let none = PinFlags::default;
    let unclear = async |turn: &LoginTurn<'_>| {
        let failure = says(LoginVerdict::Unclear, none());
        turn.failed("C_Login CKR_GENERAL_ERROR", Some(&failure))
            .await;
    };
    // The front is killed in the middle of the first: nothing is said at all.
    assert_eq!(
        attempt(&governor(dir.path()), &["1234"], none(), async |_| {}).await,
        Ok(0)
    );
    let again = governor(dir.path());
    assert_eq!(attempt(&again, &["1234"], none(), unclear).await, Ok(0));
    assert!(is_refused(
        attempt(&again, &["1234"], none(), unclear).await
    ));
    assert!(is_refused(
        attempt(&governor(dir.path()), &["1234"], none(), unclear).await
    ));

    // What cannot have judged a PIN spends nothing, and a success clears the budget.
    assert!(unlock(dir.path(), "primary").unwrap());
    for _ in 0..5 {
        let away = async |turn: &LoginTurn<'_>| {
            let failure = says(LoginVerdict::NotJudged, none());
            assert_eq!(
                turn.failed("CKR_DEVICE_REMOVED", Some(&failure)).await,
                None
            );
        };
        assert_eq!(attempt(&again, &["1234"], none(), away).await, Ok(0));
    }
    for _ in 0..5 {
        assert_eq!(attempt(&again, &["1234"], none(), unclear).await, Ok(0));
        let taken = async |turn: &LoginTurn<'_>| turn.succeeded().await;
        assert_eq!(attempt(&again, &["1234"], none(), taken).await, Ok(0));
    }
}

#[tokio::test]
async fn a_token_that_counts_a_wrong_pin_ends_the_tries_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let none = PinFlags::default;
    let counted = async |turn: &LoginTurn<'_>| {
        let failure = says(LoginVerdict::Unclear, count_low());
        assert!(
            turn.failed("CKR_GENERAL_ERROR", Some(&failure))
                .await
                .is_some()
        );
    };
    let one = governor(dir.path());
    assert_eq!(attempt(&one, &["1234"], none(), counted).await, Ok(0));
    assert!(is_refused(
        attempt(&one, &["1234"], count_low(), counted).await
    ));

    // A host that crashed says nothing; what the next one finds does.
    assert_eq!(attempt(&one, &["5678"], none(), async |_| {}).await, Ok(0));
    assert!(is_refused(
        attempt(&one, &["5678"], count_low(), counted).await
    ));

    for flags in [
        PinFlags {
            final_try: true,
            ..none()
        },
        PinFlags {
            locked: true,
            ..none()
        },
    ] {
        assert!(is_refused(attempt(&one, &["9999"], flags, counted).await));
    }
}

#[tokio::test]
async fn where_the_note_cannot_be_written_nobody_logs_in() {
    let dir = tempfile::tempdir().unwrap();
    let gone = governor(&dir.path().join("nowhere"));
    let tried = attempt(&gone, &["1234"], PinFlags::default(), async |_| {
        panic!("a login without a note")
    });
    assert!(matches!(tried.await, Err(NoLogin::Unwritable(_))));
}

#[tokio::test]
async fn a_second_file_is_tried_when_the_first_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let one = governor(dir.path());
    let none = PinFlags::default;
    let taken = async |turn: &LoginTurn<'_>| turn.succeeded().await;
    assert_eq!(attempt(&one, &["old", "new"], none(), refused).await, Ok(0));
    assert_eq!(
        attempt(&one, &["old", "new"], count_low(), taken).await,
        Ok(1)
    );
    assert_eq!(attempt(&one, &["old", "new"], none(), taken).await, Ok(1));
}

#[tokio::test]
async fn a_damaged_marker_and_one_of_an_earlier_hsmac_refuse() {
    let dir = tempfile::tempdir().unwrap();
    for (file, said) in [("pin-attempt", "damaged"), ("pin-refused", "earlier hsmac")] {
        fs::write(dir.path().join(format!("{file}.primary")), "{").unwrap();
        let one = governor(dir.path());
        let turn = one.turn(&found(PinFlags::default()), LIMIT).await;
        let Err(NoLogin::Refused(reason)) = turn else {
            panic!("{file}")
        };
        assert!(reason.contains(said), "{reason}");
        assert!(unlock(dir.path(), "primary").unwrap());
        let taken = async |turn: &LoginTurn<'_>| turn.succeeded().await;
        let tried = attempt(&one, &["1234"], PinFlags::default(), taken).await;
        assert_eq!(tried, Ok(0), "{file}");
    }
}

#[tokio::test]
async fn a_kick_is_heard_once() {
    let dir = tempfile::tempdir().unwrap();
    let one = governor(dir.path());
    one.refusal();
    assert!(!one.is_called());
    kick(dir.path(), "primary").unwrap();
    assert!(one.is_called() && !one.is_called());
}

#[tokio::test]
async fn a_permission_that_comes_while_an_attempt_is_on_its_way_is_not_lost() {
    for looks_first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let one = governor(dir.path());
        let none = PinFlags::default;
        let unclear = async |turn: &LoginTurn<'_>| {
            let failure = says(LoginVerdict::Unclear, none());
            turn.failed("C_Login CKR_GENERAL_ERROR", Some(&failure))
                .await;
        };
        assert_eq!(attempt(&one, &["1234"], none(), unclear).await, Ok(0));
        let unlocked = async |turn: &LoginTurn<'_>| {
            unlock(dir.path(), "primary").unwrap();
            unclear(turn).await;
        };
        assert_eq!(attempt(&one, &["1234"], none(), unlocked).await, Ok(0));
        if looks_first {
            assert_eq!(one.refusal(), None);
        }
        // A host that was started before needs no other one to be started.
        let mut turn = one.turn(&found(none()), LIMIT).await.unwrap();
        let chosen = turn.choose(&read(&turn.salts(), &["1234"]));
        assert_eq!(chosen, Ok(0), "looks first: {looks_first}");
    }
}

/// Security: hosts with other settings are no way to another try, even if the disk has lost its note; and a
/// permission that one of them sees counts for all.
#[tokio::test]
async fn all_who_log_in_to_a_token_share_its_refusals_and_permissions() {
    let dir = tempfile::tempdir().unwrap();
    let none = PinFlags::default;
    let logins = Logins::default();
    let uri = |text: &str| TokenUri::try_from(text.to_owned()).unwrap();
    let among = |text: &str| governor(dir.path()).among(&logins, &uri(text));
    let before = among("pkcs11:token=a?module-path=/old.so");
    assert_eq!(attempt(&before, &["1234"], none(), refused).await, Ok(0));
    fs::remove_file(dir.path().join("pin-attempt.primary")).unwrap();
    let after = among("pkcs11:token=a?module-path=/new.so");
    assert!(is_refused(
        attempt(&after, &["1234"], none(), refused).await
    ));
    assert!(before.refusal().is_some() && after.refusal().is_some());

    unlock(dir.path(), "primary").unwrap();
    // Whichever sees it, the other one is free to look too.
    assert_eq!(before.refusal(), None);
    assert_eq!(after.refusal(), None);
    assert_eq!(attempt(&after, &["1234"], none(), refused).await, Ok(0));
    assert!(is_refused(
        attempt(&before, &["1234"], none(), refused).await
    ));

    // Of another token nothing is known, but a person's permission is for the name.
    let other = among("pkcs11:token=b?module-path=/new.so");
    unlock(dir.path(), "primary").unwrap();
    assert_eq!(other.refusal(), None);
    assert_eq!(after.refusal(), None);
}
