//! Every rule over a real token, each test in a child process of its own.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::*;

use crate::support::{Module, PIN, SOFTHSM, fault_token, in_child, until};

mod support;

const SPIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
    "/usr/lib64/pkcs11/pkcs11-spy.so",
];
const MESSAGE: &[u8] = b"a message";

#[test]
fn without_rules_the_real_module_shows_through() {
    in_child("without_rules_the_real_module_shows_through", |test| {
        let (module, slot, session) = test.ready();
        // The same library once more is the same instance: what it says is what must be said.
        let real = Module::load(Path::new(SOFTHSM));
        assert_eq!(module.slots(true), real.slots(true));
        assert_eq!(module.slots(false), real.slots(false));
        assert_eq!(
            module.token_info(slot).unwrap().label,
            real.token_info(slot).unwrap().label
        );
        assert_eq!(module.session_info(session).unwrap().slotID, slot);
        assert_eq!(module.find_all(session), real.find_all(session));
        let key = module.find(session, "a")[0];
        assert_eq!(
            module.sign(session, key, MESSAGE),
            real.sign(session, key, MESSAGE)
        );
        assert_eq!(
            module.sign(session, 4711, MESSAGE),
            Err(CKR_OBJECT_HANDLE_INVALID)
        );
        assert_eq!(module.open(4711), Err(CKR_SLOT_ID_INVALID));

        assert_eq!(
            Module::load(&fault_token()).list as *const _,
            module.list as *const _
        );
        assert_eq!(module.finalize(), CKR_OK);
        assert_eq!(module.login(session, PIN), CKR_CRYPTOKI_NOT_INITIALIZED);
        assert_eq!(module.initialize(), CKR_OK);
        let session = module.open(module.slot("test").unwrap()).unwrap();
        assert_eq!(module.login(session, PIN), CKR_OK);
        assert_eq!(module.find(session, "b").len(), 1);
    });
}

#[test]
fn pkcs11_spy_sits_in_front() {
    in_child("pkcs11_spy_sits_in_front", |test| {
        let spy = SPIES.iter().find(|path| Path::new(path).exists());
        let spy = Module::load(Path::new(spy.expect("opensc-pkcs11 is installed")));
        assert_eq!(spy.initialize(), CKR_OK);
        let session = spy.open(spy.new_token("test")).unwrap();
        assert_eq!(spy.login(session, PIN), CKR_OK);
        let key = spy.import(session, "a", 1);
        assert_eq!(spy.sign(session, key, MESSAGE).unwrap().len(), 32);
        test.rules("return C_Sign CKR_DEVICE_ERROR");
        assert_eq!(spy.sign(session, key, MESSAGE), Err(CKR_DEVICE_ERROR));
    });
}

#[test]
fn the_log_has_a_line_per_call() {
    in_child("the_log_has_a_line_per_call", |test| {
        let (module, _, session) = test.ready();
        assert_eq!(test.logged("C_Initialize"), ["CKR_OK"]);
        assert_eq!(module.login(session, PIN), CKR_USER_ALREADY_LOGGED_IN);
        let logins = test.logged("C_Login");
        // The token's making logs its officer in.
        assert_eq!(logins, ["CKR_OK", "CKR_OK", "CKR_USER_ALREADY_LOGGED_IN"]);
        test.rules("return C_Sign 0x80000001");
        let key = module.find(session, "a")[0];
        assert_eq!(module.sign(session, key, MESSAGE), Err(0x8000_0001));
        assert_eq!(test.logged("C_Sign"), ["0x80000001"]);
    });
}

#[test]
fn a_delay_lasts_and_ends_with_its_rule() {
    in_child("a_delay_lasts_and_ends_with_its_rule", |test| {
        let (module, _, session) = test.ready();
        let key = module.find(session, "a")[0];
        test.rules("delay C_Sign 50ms every 2");
        let began = Instant::now();
        for _ in 0..4 {
            module.sign(session, key, MESSAGE).unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(100));
        test.rules("delay * 1000s");
        thread::scope(|scope| {
            let signing = scope.spawn(|| module.sign(session, key, MESSAGE));
            // Threads see the end of the rule wherever they are.
            thread::sleep(Duration::from_millis(20));
            assert!(!signing.is_finished());
            test.rules("");
            assert!(signing.join().unwrap().is_ok());
        });
    });
}

#[test]
fn a_code_is_returned_as_often_as_the_rule_says() {
    in_child("a_code_is_returned_as_often_as_the_rule_says", |test| {
        if test.step() == "second" {
            let (module, _, session) = test.ready_again();
            let key = module.find(session, "a")[0];
            assert!(module.sign(session, key, MESSAGE).is_ok());
            return;
        }
        let (module, slot, session) = test.ready();
        let key = module.find(session, "a")[0];
        let good = module.sign(session, key, MESSAGE);
        let sign = || module.sign(session, key, MESSAGE);

        test.rules("return C_Sign CKR_DEVICE_ERROR always");
        for _ in 0..3 {
            // A C_Sign that fails has ended the operation: the next C_SignInit works.
            assert_eq!(module.sign_init(session, key), CKR_OK);
            let (code, _, buffer) = module.sign_only(session, MESSAGE);
            assert_eq!(code, CKR_DEVICE_ERROR);
            assert_eq!(buffer, [0; 64]);
        }
        test.rules("return C_SignInit CKR_USER_NOT_LOGGED_IN");
        assert_eq!(sign(), Err(CKR_USER_NOT_LOGGED_IN));
        test.rules("return C_Sign CKR_DEVICE_ERROR every 3");
        let answers: Vec<bool> = (0..6).map(|_| sign().is_ok()).collect();
        assert_eq!(answers, [true, true, false, true, true, false]);
        test.rules("return C_Sign CKR_DEVICE_ERROR probability 0.5");
        let failed = (0..400).filter(|_| sign().is_err()).count();
        assert!((100..300).contains(&failed), "{failed} of 400");
        test.rules("return * CKR_GENERAL_ERROR");
        assert_eq!(module.open(slot), Err(CKR_GENERAL_ERROR));
        assert!(module.token_info(slot).is_err());

        test.rules("return C_Sign CKR_FUNCTION_FAILED once");
        assert_eq!(sign(), Err(CKR_FUNCTION_FAILED));
        assert_eq!(sign(), good);
        let output = test.again("second");
        assert!(output.status.success(), "once is once for all: {output:?}");
        test.rules("return C_Sign CKR_FUNCTION_FAILED once again");
        assert_eq!(sign(), Err(CKR_FUNCTION_FAILED));
        assert_eq!(sign(), good);
    });
}

#[test]
fn a_crash_is_a_crash() {
    in_child("a_crash_is_a_crash", |test| {
        if test.step() != "first" {
            let (module, _, session) = test.ready_again();
            let key = module.find(session, "a")[0];
            module.sign(session, key, b"medicine").unwrap();
            module.sign(session, key, b"some poison here").unwrap();
            return;
        }
        test.ready();
        let signal = |rule: &str| {
            test.rules(rule);
            test.again("second").status.signal()
        };
        assert_eq!(signal("crash C_Sign"), Some(11));
        assert_eq!(signal("crash C_Sign"), Some(11));
        assert_eq!(signal("crash C_Login once"), Some(11));
        assert_eq!(signal("crash C_Login once"), None);
        assert_eq!(signal("crash C_Login once more"), Some(11));
        let signs = test.logged("C_Sign").len();
        assert_eq!(
            signal("crash C_Sign when-message-contains 706f69736f6e"),
            Some(11)
        );
        assert_eq!(test.logged("C_Sign")[signs..], ["CKR_OK", "crash"]);
        assert_eq!(
            signal("crash C_Sign when-message-contains 706f69736f6f"),
            None
        );
    });
}

#[test]
fn sessions_are_lost_once_a_word() {
    in_child("sessions_are_lost_once_a_word", |test| {
        let (module, slot, first) = test.ready();
        let second = module.open(slot).unwrap();
        let key = module.find(first, "a")[0];
        assert_eq!(module.sign_init(second, key), CKR_OK);
        test.rules("sessions lost 1");
        assert_eq!(
            module.sign_only(second, MESSAGE).0,
            CKR_SESSION_HANDLE_INVALID
        );
        assert_eq!(module.sign_init(first, key), CKR_SESSION_HANDLE_INVALID);
        assert_eq!(module.close(first), CKR_SESSION_HANDLE_INVALID);
        let new = module.open(slot).unwrap();
        // The login went with the last session.
        assert_eq!(module.login(new, PIN), CKR_OK);
        let key = module.find(new, "a")[0];
        assert!(module.sign(new, key, MESSAGE).is_ok());
        test.rules("sessions lost 1\nsession limit 9");
        assert!(module.sign(new, key, MESSAGE).is_ok());
        test.rules("sessions lost 2");
        assert_eq!(
            module.sign(new, key, MESSAGE),
            Err(CKR_SESSION_HANDLE_INVALID)
        );
    });
}

#[test]
fn nothing_is_lost_beneath_a_call() {
    in_child("nothing_is_lost_beneath_a_call", |test| {
        let (module, slot, _) = test.ready();
        let signed = AtomicUsize::new(0);
        let rounds = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut session = module.open(slot).unwrap();
                    while rounds.load(SeqCst) < 20 {
                        let found = module.try_find(session, "a").unwrap_or_default();
                        let made = (found.first().ok_or(CKR_KEY_HANDLE_INVALID))
                            .and_then(|key| module.sign(session, *key, MESSAGE));
                        match made {
                            Ok(_) => {
                                signed.fetch_add(1, SeqCst);
                            }
                            Err(_) => {
                                let _ = module.close(session);
                                session = module.open(slot).unwrap();
                                let _ = module.login(session, PIN);
                            }
                        }
                    }
                });
            }
            for word in 0..20 {
                let kinds = [
                    "sessions lost",
                    "login lost",
                    "renumber handles",
                    "hide token",
                ];
                let kind = kinds[word % 3];
                let before = signed.load(SeqCst);
                test.rules(&format!("{kind} {word}"));
                until("more MACs", || signed.load(SeqCst) > before + 20);
                rounds.fetch_add(1, SeqCst);
            }
        });
    });
}

#[test]
fn the_login_is_lost_once_a_word() {
    in_child("the_login_is_lost_once_a_word", |test| {
        let (module, _, session) = test.ready();
        let key = module.find(session, "a")[0];
        test.rules("login lost 1");
        assert!(module.sign(session, key, MESSAGE).is_err());
        assert_eq!(
            module.session_info(session).unwrap().state,
            CKS_RW_PUBLIC_SESSION
        );
        assert_eq!(module.login(session, PIN), CKR_OK);
        test.rules("login lost 1\n");
        assert_eq!(
            module.session_info(session).unwrap().state,
            CKS_RW_USER_FUNCTIONS
        );
        test.rules("login lost 2");
        assert_eq!(
            module.session_info(session).unwrap().state,
            CKS_RW_PUBLIC_SESSION
        );
    });
}

#[test]
fn an_old_number_names_another_key() {
    in_child("an_old_number_names_another_key", |test| {
        let (module, slot, session) = test.ready();
        let numbers = || (module.find(session, "a")[0], module.find(session, "b")[0]);
        let sign = |key| module.sign(session, key, MESSAGE).unwrap();
        let (a, b) = numbers();
        let (mac_a, mac_b) = (sign(a), sign(b));
        assert_ne!(mac_a, mac_b);
        test.rules("renumber handles 1");
        assert_eq!((sign(a), sign(b)), (mac_b.clone(), mac_a.clone()));
        assert_eq!(numbers(), (b, a));
        test.rules("renumber handles 1\nrenumber handles 2");
        assert_eq!((sign(a), sign(b)), (mac_a.clone(), mac_b.clone()));

        // Three keys; then what is made and destroyed goes by its new number.
        let c = module.import(session, "c", 3);
        test.rules("renumber handles 3");
        assert_ne!(sign(a), mac_a);
        assert_ne!(sign(b), mac_b);
        let found = module.find(session, "c")[0];
        assert!(found != c && [a, b].contains(&found));
        assert_eq!(module.destroy(session, found), CKR_OK);
        assert!(module.find(session, "c").is_empty());

        // A number that moved away from a key that is alone names nothing.
        let (_, b) = numbers();
        assert_eq!(module.destroy(session, b), CKR_OK);
        let a = module.find(session, "a")[0];
        test.rules("renumber handles 4");
        assert_eq!(
            module.sign(session, a, MESSAGE),
            Err(CKR_OBJECT_HANDLE_INVALID)
        );
        assert_eq!(sign(module.find(session, "a")[0]), mac_a);
        assert!(module.open(slot).is_ok());
    });
}

#[test]
fn numbers_differ_after_each_initialize() {
    in_child("numbers_differ_after_each_initialize", |test| {
        if test.step() != "first" {
            let (module, _, session) = test.ready_again();
            let number = |label| module.find(session, label)[0].to_string();
            fs::write(test.path("numbers"), [number("a"), number("b")].join(" ")).unwrap();
            return;
        }
        let (module, _, session) = test.ready();
        let macs =
            ["a", "b"].map(|label| module.sign(session, module.find(session, label)[0], MESSAGE));
        test.rules("renumber at-initialize");
        let mut seen = Vec::new();
        for _ in 0..3 {
            assert_eq!(module.finalize(), CKR_OK);
            assert_eq!(module.initialize(), CKR_OK);
            let session = module.open(module.slot("test").unwrap()).unwrap();
            assert_eq!(module.login(session, PIN), CKR_OK);
            let numbers = ["a", "b"].map(|label| module.find(session, label)[0]);
            assert_eq!(numbers.map(|key| module.sign(session, key, MESSAGE)), macs);
            seen.push(numbers);
        }
        let swapped = [seen[0][1], seen[0][0]];
        assert_eq!(seen, [seen[0], swapped, seen[0]]);
        // In another process too: there the next turn has come.
        assert!(test.again("second").status.success());
        let numbers = fs::read_to_string(test.path("numbers")).unwrap();
        assert_eq!(numbers, format!("{} {}", swapped[0], swapped[1]));
    });
}

#[test]
fn numbers_move_when_sessions_are_lost() {
    in_child("numbers_move_when_sessions_are_lost", |test| {
        let (module, slot, session) = test.ready();
        let (a, b) = (module.find(session, "a")[0], module.find(session, "b")[0]);
        let mac_b = module.sign(session, b, MESSAGE).unwrap();
        test.rules("renumber on-session-loss");
        assert_eq!(module.sign(session, b, MESSAGE).unwrap(), mac_b);
        test.rules("renumber on-session-loss\nsessions lost 1");
        assert_eq!(
            module.sign(session, a, MESSAGE),
            Err(CKR_SESSION_HANDLE_INVALID)
        );
        let session = module.open(slot).unwrap();
        assert_eq!(module.login(session, PIN), CKR_OK);
        // Who goes on with the number of a signs with b, without another search.
        assert_eq!(module.sign(session, a, MESSAGE).unwrap(), mac_b);
        assert_eq!(module.find(session, "b"), [a]);
        assert_eq!(module.find(session, "a"), [b]);
    });
}

#[test]
fn slot_ids_move() {
    in_child("slot_ids_move", |test| {
        let (module, slot, session) = test.ready();
        test.rules("slot offset 100");
        assert_eq!(module.slot("test"), Some(slot + 100));
        assert_eq!(module.session_info(session).unwrap().slotID, slot + 100);
        assert_eq!(module.open(slot), Err(CKR_SLOT_ID_INVALID));
        assert!(module.open(slot + 100).is_ok());
        test.rules("");
        assert_eq!(module.slot("test"), Some(slot));
        test.rules("slot offset 7 at-initialize");
        assert_eq!(module.slot("test"), Some(slot));
        assert_eq!(module.finalize(), CKR_OK);
        assert_eq!(module.initialize(), CKR_OK);
        // SoftHSM2 itself moves a new token once, from the slot that it was made in.
        let moved = module.slot("test").unwrap();
        test.rules("");
        assert_eq!(module.slot("test"), Some(moved));
        assert_eq!(module.finalize(), CKR_OK);
        assert_eq!(module.initialize(), CKR_OK);
        assert_eq!(module.slot("test"), Some(moved - 7));
    });
}

#[test]
fn sessions_have_a_limit() {
    in_child("sessions_have_a_limit", |test| {
        let (module, slot, first) = test.ready();
        test.rules("session limit 3");
        let second = module.open(slot).unwrap();
        module.open(slot).unwrap();
        assert_eq!(module.open(slot), Err(CKR_SESSION_COUNT));
        assert_eq!(module.close(second), CKR_OK);
        assert!(module.open(slot).is_ok());
        assert_eq!(module.open(slot), Err(CKR_SESSION_COUNT));
        test.rules("");
        assert!(module.open(slot).is_ok());
        assert!(module.session_info(first).is_ok());
    });
}

#[test]
fn the_pin_locks_for_every_process() {
    in_child("the_pin_locks_for_every_process", |test| {
        if test.step() != "first" {
            let module = Module::load(&fault_token());
            assert_eq!(module.initialize(), CKR_OK);
            let session = module.open(module.slot("test").unwrap()).unwrap();
            assert_eq!(module.login(session, PIN), CKR_PIN_LOCKED);
            return;
        }
        let (module, slot, session) = test.ready();
        let pins = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;
        let flags = || module.token_info(slot).unwrap().flags & pins;
        test.rules("pin lock 3");
        assert_eq!(module.logout(session), CKR_OK);
        assert_eq!(flags(), 0);
        assert_eq!(module.login(session, "wrong"), CKR_PIN_INCORRECT);
        assert_eq!(flags(), CKF_USER_PIN_COUNT_LOW);
        assert_eq!(module.login(session, "wrong"), CKR_PIN_INCORRECT);
        assert_eq!(flags(), CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY);
        assert_eq!(module.login(session, PIN), CKR_OK);
        assert_eq!(flags(), 0);
        assert_eq!(module.logout(session), CKR_OK);
        for _ in 0..3 {
            assert_eq!(module.login(session, "wrong"), CKR_PIN_INCORRECT);
        }
        assert_eq!(flags(), CKF_USER_PIN_LOCKED);
        assert_eq!(module.login(session, PIN), CKR_PIN_LOCKED);
        assert!(test.again("second").status.success());
        fs::remove_file(test.path("control.wrong-pins")).unwrap();
        assert_eq!(module.login(session, PIN), CKR_OK);
        // Some tokens do not tell.
        test.rules("pin lock 3 without-flags");
        assert_eq!(module.logout(session), CKR_OK);
        for _ in 0..3 {
            assert_eq!(module.login(session, "wrong"), CKR_PIN_INCORRECT);
            assert_eq!(flags(), 0);
        }
        assert_eq!(module.login(session, PIN), CKR_PIN_LOCKED);
    });
}

#[test]
fn a_fault_stays_with_its_key() {
    in_child("a_fault_stays_with_its_key", |test| {
        let (module, slot, first) = test.ready();
        let second = module.open(slot).unwrap();
        let (a, b) = (module.find(first, "a")[0], module.find(first, "b")[0]);
        let spaced = module.import(first, "with a blank", 3);
        let by_label = "return C_Sign CKR_FUNCTION_FAILED when-key-label a";
        test.rules(by_label);
        for session in [first, second, first] {
            assert_eq!(module.sign(session, a, MESSAGE), Err(CKR_FUNCTION_FAILED));
            assert!(module.sign(session, b, MESSAGE).is_ok());
        }
        assert_eq!(test.applied(by_label), 3);
        let by_id = "return C_SignInit CKR_DEVICE_MEMORY when-key-id 02";
        let blank = "return C_SignInit 0x80000001 when-key-label with a blank";
        test.rules(&format!("{by_id}\n{blank}"));
        assert_eq!(module.sign(first, b, MESSAGE), Err(CKR_DEVICE_MEMORY));
        assert_eq!(module.sign(first, spaced, MESSAGE), Err(0x8000_0001));
        assert!(module.sign(first, a, MESSAGE).is_ok());
        // A key that is renumbered is the same key.
        test.rules(&format!("{by_label}\nrenumber handles 1"));
        let a = module.find(first, "a")[0];
        assert_eq!(module.sign(first, a, MESSAGE), Err(CKR_FUNCTION_FAILED));
        test.rules("return C_DestroyObject CKR_ACTION_PROHIBITED when-key-label a");
        assert_eq!(module.destroy(first, a), CKR_ACTION_PROHIBITED);
        let b = module.find(first, "b")[0];
        assert_eq!(module.destroy(first, b), CKR_OK);
    });
}

#[test]
fn a_fault_stays_with_its_message_and_with_its_session() {
    let name = "a_fault_stays_with_its_message_and_with_its_session";
    in_child(name, |test| {
        let (module, slot, first) = test.ready();
        let second = module.open(slot).unwrap();
        let key = module.find(first, "a")[0];
        let begins = "return C_Sign CKR_OPERATION_ACTIVE when-message-begins 706f69736f6e";
        test.rules(begins);
        for _ in 0..2 {
            let poison = module.sign(first, key, b"poison and more");
            assert_eq!(poison, Err(CKR_OPERATION_ACTIVE));
            assert!(module.sign(first, key, b"more poison").is_ok());
            assert!(module.sign(first, key, b"poiso").is_ok());
        }
        assert_eq!(test.applied(begins), 2);

        // The making of the token has had a session of its own, before these two.
        test.rules("return C_Sign CKR_DEVICE_ERROR when-session 3");
        let sign = |session| module.sign(session, key, MESSAGE);
        assert!(sign(first).is_ok());
        assert_eq!(sign(second), Err(CKR_DEVICE_ERROR));
        assert_eq!(module.close(second), CKR_OK);
        assert!(sign(module.open(slot).unwrap()).is_ok());
        // Both conditions must hold.
        test.rules("return C_Sign CKR_DEVICE_ERROR when-session 2 when-message-contains 61");
        assert_eq!(sign(first), Err(CKR_DEVICE_ERROR));
        assert!(module.sign(first, key, b"0").is_ok());
    });
}

#[test]
fn what_stands_behind_a_return_has_not_acted() {
    in_child("what_stands_behind_a_return_has_not_acted", |test| {
        let (module, _, session) = test.ready();
        let key = module.find(session, "a")[0];
        let (first, second) = (
            "return C_Sign CKR_DEVICE_ERROR once",
            "return C_Sign CKR_DEVICE_MEMORY once",
        );
        test.rules(&format!("{first}\n{second}"));
        assert_eq!(module.sign(session, key, MESSAGE), Err(CKR_DEVICE_ERROR));
        assert_eq!([first, second].map(|rule| test.applied(rule)), [1, 0]);
        assert_eq!(module.sign(session, key, MESSAGE), Err(CKR_DEVICE_MEMORY));
        assert_eq!([first, second].map(|rule| test.applied(rule)), [1, 1]);
        assert!(module.sign(session, key, MESSAGE).is_ok());
    });
}

#[test]
fn a_login_fails_as_it_is_told() {
    in_child("a_login_fails_as_it_is_told", |test| {
        if test.step() != "first" {
            let module = Module::load(&fault_token());
            assert_eq!(module.initialize(), CKR_OK);
            let session = module.open(module.slot("test").unwrap()).unwrap();
            module.login(session, test.step());
            return;
        }
        let (module, _, session) = test.ready();
        assert_eq!(module.logout(session), CKR_OK);
        let counts = || (test.number("logins"), test.number("judged"));
        assert_eq!(counts(), (1, 1));

        // Without `after` the token does not get to see the PIN.
        for code in fault_token::names_of_codes().chain(["0x80000001"]) {
            test.rules(&format!("return C_Login {code}"));
            let before = counts();
            module.login(session, "wrong");
            assert_eq!(test.logged("C_Login").last().unwrap(), code);
            assert_eq!(counts(), (before.0 + 1, before.1));
        }
        let before = counts();
        test.rules("pin lock 10\nreturn C_Login CKR_GENERAL_ERROR after");
        assert_eq!(module.login(session, "wrong"), CKR_GENERAL_ERROR);
        assert_eq!(test.number("wrong-pins"), 1);
        assert_eq!(module.login(session, PIN), CKR_GENERAL_ERROR);
        // The right PIN was taken, whatever the caller was told.
        assert_eq!(module.login(session, PIN), CKR_GENERAL_ERROR);
        test.rules("pin lock 10");
        assert_eq!(module.login(session, PIN), CKR_USER_ALREADY_LOGGED_IN);
        assert_eq!(counts(), (before.0 + 4, before.1 + 2));
        assert_eq!(test.number("wrong-pins"), 0);

        // A crash and a hang, before and after the token has judged.
        test.rules("pin lock 10\ncrash C_Login");
        assert_eq!(test.again("wrong").status.signal(), Some(11));
        assert_eq!(test.number("wrong-pins"), 0);
        test.rules("pin lock 10\ncrash C_Login after");
        assert_eq!(test.again("wrong").status.signal(), Some(11));
        assert_eq!(test.number("wrong-pins"), 1);
        let hang = "hang C_Login after";
        test.rules(&format!("pin lock 10\n{hang}"));
        let mut hung = test.process("wrong").spawn().unwrap();
        until("the hang", || test.applied(hang) == 1);
        assert_eq!(test.number("wrong-pins"), 2);
        assert_eq!(hung.try_wait().unwrap(), None);
        hung.kill().unwrap();
        hung.wait().unwrap();
    });
}

#[test]
fn a_fault_stays_with_the_attempt_to_log_in() {
    in_child("a_fault_stays_with_the_attempt_to_log_in", |test| {
        if test.step() != "first" {
            let module = Module::load(&fault_token());
            assert_eq!(module.initialize(), CKR_OK);
            let session = module.open(module.slot("test").unwrap()).unwrap();
            let code = module.login(session, PIN);
            fs::write(test.path("code"), code.to_string()).unwrap();
            return;
        }
        test.ready();
        test.rules(
            "return C_Login CKR_DEVICE_ERROR when-attempt 2\n\
             return C_Login CKR_FUNCTION_FAILED when-attempt 4..5\n\
             return C_Login 0x80000001 when-attempt 7..",
        );
        let attempt = || {
            assert!(test.again("second").status.success());
            let code = fs::read_to_string(test.path("code")).unwrap();
            code.parse::<CK_RV>().unwrap()
        };
        // The first was this process's own.
        let codes: Vec<CK_RV> = (2..=8).map(|_| attempt()).collect();
        let (failed, vendor) = (CKR_FUNCTION_FAILED, 0x8000_0001);
        assert_eq!(
            codes,
            [
                CKR_DEVICE_ERROR,
                CKR_OK,
                failed,
                failed,
                CKR_OK,
                vendor,
                vendor
            ]
        );
    });
}

#[test]
fn the_journal_has_every_call_when_it_begins() {
    in_child("the_journal_has_every_call_when_it_begins", |test| {
        if test.step() != "first" {
            let (module, _, session) = test.ready_again();
            module.sign_init(session, module.find(session, "a")[0]);
            return;
        }
        let (module, _, session) = test.ready();
        let (a, b) = (module.find(session, "a")[0], module.find(session, "b")[0]);
        assert!(module.sign(session, a, MESSAGE).is_ok());
        assert_eq!(test.journal(), [""; 0]);
        test.rules(
            "journal C_SignInit\njournal C_Login\nreturn C_SignInit CKR_DEVICE_ERROR every 2",
        );
        assert!(module.sign(session, a, MESSAGE).is_ok());
        assert!(module.sign(session, b, MESSAGE).is_err());
        assert_eq!(module.logout(session), CKR_OK);
        assert_eq!(module.login(session, "wrong"), CKR_PIN_INCORRECT);
        let login = "C_Login session=2 attempt=2 pin-length=5";
        assert_eq!(
            test.journal(),
            [
                "C_SignInit session=2 id=01 label=a",
                "C_SignInit session=2 id=02 label=b",
                login,
                &format!("{login} judged CKR_PIN_INCORRECT"),
            ]
        );
        let journal = fs::read_to_string(test.path("control.journal")).unwrap();
        assert!(!journal.contains("wrong"), "the PIN itself is in no file");
        // Whoever dies in a call has been in the journal before.
        test.rules("journal C_SignInit\ncrash C_SignInit");
        assert_eq!(test.again("second").status.signal(), Some(11));
        assert_eq!(
            test.journal().last().unwrap(),
            "C_SignInit session=1 id=01 label=a"
        );
    });
}

#[test]
fn ends_without_finalize_are_counted() {
    in_child("ends_without_finalize_are_counted", |test| {
        match test.step() {
            "first" => {
                let (module, ..) = test.ready();
                assert_eq!(test.unclean_ends(), 0);
                assert!(test.again("clean").status.success());
                assert_eq!(test.unclean_ends(), 0);
                assert!(test.again("forgetful").status.success());
                assert_eq!(test.unclean_ends(), 1);
                test.rules("crash C_SignInit");
                assert_eq!(test.again("crashing").status.signal(), Some(11));
                assert_eq!(test.unclean_ends(), 2);
                assert_eq!(module.finalize(), CKR_OK);
                assert_eq!(module.initialize(), CKR_OK);
                assert_eq!(test.unclean_ends(), 2);
            }
            step => {
                let (module, _, session) = test.ready_again();
                if step == "crashing" {
                    module.sign_init(session, module.find(session, "a")[0]);
                }
                if step == "clean" {
                    assert_eq!(module.finalize(), CKR_OK);
                }
            }
        }
    });
}

#[test]
fn sessions_have_a_limit_across_processes() {
    in_child("sessions_have_a_limit_across_processes", |test| {
        if test.step() != "first" {
            let module = Module::load(&fault_token());
            assert_eq!(module.initialize(), CKR_OK);
            let slot = module.slot("test").unwrap();
            let opened = (0..5).take_while(|_| module.open(slot).is_ok()).count();
            fs::write(test.path("opened"), opened.to_string()).unwrap();
            if test.step() == "clean" {
                assert_eq!(module.finalize(), CKR_OK);
            }
            if test.step() == "waiting" {
                until("the end", || test.path("end").exists());
            }
            return;
        }
        let (module, slot, first) = test.ready();
        let opened = || fs::read_to_string(test.path("opened")).unwrap();
        let shared = "session limit 3 shared";
        test.rules(shared);
        assert!(test.again("clean").status.success());
        assert_eq!(opened(), "2");
        assert_eq!(test.applied(shared), 1);
        fs::remove_file(test.path("opened")).unwrap();
        let mut waiting = test.process("waiting").spawn().unwrap();
        until("its sessions", || test.path("opened").exists());
        until("the last of them", || test.applied(shared) == 2);
        assert_eq!(module.open(slot), Err(CKR_SESSION_COUNT));
        fs::write(test.path("end"), "").unwrap();
        assert!(waiting.wait().unwrap().success());
        // It did not finalise, but who is gone has no sessions.
        let second = module.open(slot).unwrap();
        assert_eq!(module.close(second), CKR_OK);

        // A TPM keeps them.
        test.rules("session limit 3 leaking");
        assert_eq!(module.open(slot), Err(CKR_SESSION_COUNT));
        test.rules("session limit 4 leaking");
        assert!(test.again("clean").status.success());
        assert_eq!(opened(), "1");
        assert!(test.again("forgetful").status.success());
        assert_eq!(opened(), "1");
        assert!(test.again("forgetful").status.success());
        assert_eq!(opened(), "0");
        assert_eq!(module.close(first), CKR_OK);
        assert!(module.open(slot).is_ok());
    });
}

#[test]
fn objects_are_those_of_the_start() {
    in_child("objects_are_those_of_the_start", |test| {
        if test.step() != "first" {
            let (module, _, session) = test.ready_again();
            module.import(session, test.step(), 9);
            return;
        }
        let (module, _, session) = test.ready();
        let rule = "objects at-initialize";
        test.rules(rule);
        assert_eq!(module.find(session, "a").len(), 1);
        assert!(test.again("by another").status.success());
        assert!(module.find(session, "by another").is_empty());
        assert_eq!(module.find_all(session).len(), 2);
        assert!(test.applied(rule) >= 2);
        // What it makes itself it sees.
        let own = module.import(session, "its own", 8);
        assert_eq!(module.find(session, "its own"), [own]);
        let new = || {
            assert_eq!(module.finalize(), CKR_OK);
            assert_eq!(module.initialize(), CKR_OK);
            let session = module.open(module.slot("test").unwrap()).unwrap();
            assert_eq!(module.login(session, PIN), CKR_OK);
            session
        };
        let session = new();
        assert_eq!(module.find(session, "by another").len(), 1);
        assert_eq!(module.find(session, "its own").len(), 1);
        // From the login on, not from the first search.
        let session = new();
        assert!(test.again("too late").status.success());
        assert!(module.find(session, "too late").is_empty());
        test.rules("");
        assert_eq!(module.find(session, "too late").len(), 1);
    });
}

#[test]
fn searches_and_creations_take_their_time() {
    in_child("searches_and_creations_take_their_time", |test| {
        let (module, slot, session) = test.ready();
        let other = module.open(slot).unwrap();
        let key = module.find(session, "a")[0];
        let (search, creation) = (
            "delay C_FindObjects* 100ms",
            "delay C_GenerateKey 300ms after",
        );
        test.rules(&format!("{search}\n{creation}"));
        thread::scope(|scope| {
            let creating = scope.spawn(|| {
                let began = Instant::now();
                (module.generate(session, "slow"), began.elapsed())
            });
            until("the creation", || test.applied(creation) == 1);
            // It is made by now, and nobody waits for it.
            let began = Instant::now();
            for _ in 0..10 {
                module.sign(other, key, MESSAGE).unwrap();
            }
            let signed = began.elapsed();
            assert!(!creating.is_finished(), "signed in {signed:?}");
            let (made, took) = creating.join().unwrap();
            assert!(made.is_ok() && took >= Duration::from_millis(300));
        });
        let began = Instant::now();
        // C_FindObjectsInit, one C_FindObjects that finds, one that ends, C_FindObjectsFinal.
        assert_eq!(module.find(session, "slow").len(), 1);
        assert!(began.elapsed() >= Duration::from_millis(400));
        assert_eq!(test.applied(search), 4);
    });
}

#[test]
fn every_kind_of_rule_is_counted_when_it_acts() {
    in_child("every_kind_of_rule_is_counted_when_it_acts", |test| {
        if test.step() != "first" {
            let (module, ..) = test.ready_again();
            assert_eq!(module.finalize(), CKR_OK);
            return;
        }
        let (module, slot, session) = test.ready();
        let key = module.find(session, "a")[0];
        let seen = |rule: &str, act: &dyn Fn()| {
            test.rules(rule);
            act();
            assert!(test.applied(rule) > 0, "{rule}");
        };
        seen("mac flipped-bit", &|| {
            module.sign(session, key, MESSAGE).unwrap();
        });
        seen("hide key a", &|| {
            assert!(module.find(session, "a").is_empty())
        });
        seen("session limit 1", &|| assert!(module.open(slot).is_err()));
        seen("renumber handles 1", &|| {
            module.find(session, "a");
        });
        for rule in ["slot offset 7 at-initialize", "renumber at-initialize"] {
            seen(rule, &|| assert!(test.again("second").status.success()));
        }
        seen("slot offset 7", &|| {
            assert_eq!(module.slot("test"), Some(slot + 7))
        });
        seen("login lost 1", &|| {
            module.session_info(session).unwrap();
        });
        assert_eq!(module.login(session, PIN), CKR_OK);
        seen("hide token", &|| assert!(module.token_info(slot).is_err()));
        test.rules("");
        let session = module.open(slot).unwrap();
        assert_eq!(module.login(session, PIN), CKR_OK);
        let lost = "sessions lost 1";
        test.rules(&format!("renumber on-session-loss\n{lost}"));
        assert!(module.session_info(session).is_err());
        assert_eq!(test.applied(lost), 1);
        assert_eq!(test.applied("renumber on-session-loss"), 1);
        let session = module.open(slot).unwrap();
        seen("pin lock 0", &|| {
            assert_eq!(module.login(session, PIN), CKR_PIN_LOCKED)
        });
        // What has not acted is not counted.
        assert_eq!(test.applied("pin lock 10"), 0);
    });
}

#[test]
fn a_hidden_token_takes_its_sessions_with_it() {
    in_child("a_hidden_token_takes_its_sessions_with_it", |test| {
        let (module, slot, session) = test.ready();
        let other = module.new_token("the other");
        let elsewhere = module.open(other).unwrap();
        test.rules("hide token test");
        assert!(!module.slots(true).contains(&slot));
        assert!(module.slots(true).contains(&other));
        assert!(module.slots(false).contains(&slot));
        assert_eq!(module.slot_info(slot).unwrap().flags & CKF_TOKEN_PRESENT, 0);
        assert_eq!(module.token_info(slot).unwrap_err(), CKR_TOKEN_NOT_PRESENT);
        assert_eq!(module.open(slot), Err(CKR_TOKEN_NOT_PRESENT));
        assert_eq!(
            module.session_info(session).unwrap_err(),
            CKR_DEVICE_REMOVED
        );
        assert!(module.session_info(elsewhere).is_ok());
        test.rules("hide token");
        assert!(module.slots(true).is_empty());
        assert_eq!(
            module.session_info(elsewhere).unwrap_err(),
            CKR_DEVICE_REMOVED
        );
        test.rules("");
        assert_eq!(module.slot("test"), Some(slot));
        assert_eq!(
            module.session_info(session).unwrap_err(),
            CKR_SESSION_HANDLE_INVALID
        );
        let session = module.open(slot).unwrap();
        assert_eq!(module.login(session, PIN), CKR_OK);
        assert_eq!(module.find(session, "a").len(), 1);
    });
}

#[test]
fn a_hidden_key_is_not_found() {
    in_child("a_hidden_key_is_not_found", |test| {
        let (module, _, session) = test.ready();
        module.import(session, "with a blank", 3);
        let (a, b) = (module.find(session, "a")[0], module.find(session, "b")[0]);
        test.rules("hide key a\nhide key with a blank");
        assert!(module.find(session, "a").is_empty());
        assert_eq!(module.find_all(session), [b]);
        assert_eq!(
            module.sign(session, a, MESSAGE),
            Err(CKR_OBJECT_HANDLE_INVALID)
        );
        assert!(module.sign(session, b, MESSAGE).is_ok());
        test.rules("");
        assert_eq!(module.find(session, "a"), [a]);
        assert_eq!(module.find_all(session).len(), 3);
    });
}

#[test]
fn macs_come_out_wrong() {
    in_child("macs_come_out_wrong", |test| {
        let (module, _, session) = test.ready();
        let key = module.find(session, "a")[0];
        let good = module.sign(session, key, MESSAGE).unwrap();
        let sign = || {
            assert_eq!(module.sign_init(session, key), CKR_OK);
            module.sign_only(session, MESSAGE)
        };
        test.rules("mac wrong-length");
        let (code, length, buffer) = sign();
        assert_eq!((code, length, &buffer[..32]), (CKR_OK, 31, &good[..]));
        test.rules("mac truncated");
        let (code, length, buffer) = sign();
        assert_eq!((code, length, &buffer[..16]), (CKR_OK, 16, &good[..16]));
        assert_eq!(buffer[16..], [0; 48]);
        test.rules("mac flipped-bit every 2");
        assert_eq!(sign().2[..32], good);
        let (code, length, buffer) = sign();
        assert_eq!((code, length, buffer[0]), (CKR_OK, 32, good[0] ^ 1));
        assert_eq!(buffer[1..32], good[1..]);
    });
}

#[test]
fn a_bad_rule_fails_every_call_until_it_is_mended() {
    in_child("a_bad_rule_fails_every_call_until_it_is_mended", |test| {
        if test.step() != "first" {
            let module = Module::load(&fault_token());
            assert_eq!(module.initialize(), CKR_GENERAL_ERROR);
            assert_eq!(module.finalize(), CKR_GENERAL_ERROR);
            test.rules("");
            assert_eq!(module.initialize(), CKR_OK);
            return;
        }
        test.rules("delay C_Sign 1ms\nretrun C_Sign CKR_OK\n");
        let output = test.again("second");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let ours: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("fault-token"))
            .collect();
        let place = test.path("control").display().to_string() + ":2: \"retrun C_Sign CKR_OK\": ";
        assert!(ours.len() == 1 && ours[0].contains(&place), "{said}");
    });
}

#[test]
fn the_way_through_is_short() {
    in_child("the_way_through_is_short", |test| {
        let measured = |step: &str, without: &[&str]| {
            let mut process = test.process(step);
            for variable in without {
                process.env_remove(variable);
            }
            let output = process.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{output:?}");
            for line in said.lines().filter(|line| line.contains("direct")) {
                println!("{step}: {line}");
            }
        };
        match test.step() {
            "first" => {
                test.ready();
                let (control, log) = ("FAULT_TOKEN_CONTROL", "FAULT_TOKEN_LOG");
                measured("no control file", &[control, log]);
                test.rules("");
                measured("an empty one", &[log]);
                test.rules("delay C_Login 1us\nreturn C_Sign CKR_DEVICE_ERROR probability 0\n");
                measured("two rules", &[log]);
                measured("the same and a log", &[]);
            }
            _ => measure(&test.ready_again()),
        }
    });
}

/// Compares calls through the module with calls past it.
fn measure((module, _, session): &(Module, CK_SLOT_ID, CK_SESSION_HANDLE)) {
    const CALLS: u32 = 10_000;
    const MACS: u32 = 500;
    let real = Module::load(Path::new(SOFTHSM));
    let key = module.find(*session, "a")[0];
    let macs = |module: &Module| {
        let began = Instant::now();
        for _ in 0..MACS {
            module.sign(*session, key, MESSAGE).unwrap();
        }
        began.elapsed() / MACS
    };
    // The figure that is not lost in the token's own time: a call that does next to nothing.
    let calls = |module: &Module| {
        let began = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: a function of a session handle.
            unsafe { module.list.C_GetFunctionStatus.unwrap()(*session) };
        }
        began.elapsed() / CALLS
    };
    let best = |measure: &dyn Fn(&Module) -> Duration| {
        let rounds = (0..5).map(|_| (measure(&real), measure(module)));
        rounds.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))).unwrap()
    };
    let (real_mac, our_mac) = best(&macs);
    let (real_call, our_call) = best(&calls);
    println!(
        "a MAC {real_mac:?} direct, {our_mac:?} through; \
         C_GetFunctionStatus {real_call:?} direct, {our_call:?} through"
    );
    // A microsecond or two on a quiet machine; reading the rules at each call would cost far more.
    assert!(our_call.saturating_sub(real_call) < Duration::from_millis(1));
}
