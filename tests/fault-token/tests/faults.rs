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
    const CALLS: u32 = 100_000;
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
    assert!(our_call - real_call < Duration::from_micros(10));
}
