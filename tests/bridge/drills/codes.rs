//! Every return code of the standard, once from each of the two functions of a MAC.

use std::fs;

use super::*;

/// Codes that are about the caller's message: that one call is refused, and nothing else happens.
const MESSAGE: [&str; 3] = [
    "CKR_DATA_INVALID",
    "CKR_DATA_LEN_RANGE",
    "CKR_BUFFER_TOO_SMALL",
];

/// After these nobody tries again by himself.
const PIN: [&str; 5] = [
    "CKR_PIN_INCORRECT",
    "CKR_PIN_INVALID",
    "CKR_PIN_LEN_RANGE",
    "CKR_PIN_EXPIRED",
    "CKR_PIN_LOCKED",
];

#[tokio::test]
async fn every_code_once_costs_no_call_but_those_about_the_message() {
    let drill = Drill::start("max_starts_per_minute = 10000\n").await;
    let load = drill.load().await;
    let mut healed = Vec::new();
    for function in ["C_SignInit", "C_Sign"] {
        for code in fault_token::names_of_codes().chain(["0x80000001", "0x7ffffff0"]) {
            if code == "CKR_OK" || PIN.contains(&code) {
                continue;
            }
            // Two hosts that fall over one call in a row are a poison message, and rightly refused.
            until("both hosts", || {
                let served = drill.logged("a host serves");
                (served == drill.logged("a host is replaced") + 2).then_some(())
            })
            .await;
            let before = refused(&load);
            happens_once(&drill, function, code, "").await;
            healed.push(load.goes_on(much(10)).await);
            // The call that met the code has its answer before the next code comes.
            load.everybody_is_answered().await;
            let about_the_message = MESSAGE.contains(&code);
            if about_the_message {
                until("the refused call", || {
                    (refused(&load) > before).then_some(())
                })
                .await;
            }
            assert_eq!(
                refused(&load) - before,
                u64::from(about_the_message),
                "{function} {code}: {:?}\n{}",
                load.failed(),
                drill.server.log()
            );
        }
    }
    let failed = load
        .end("every code of C_SignInit and C_Sign", &healed)
        .await;
    only(&failed, &["InvalidArgument VALIDATION"]);
}

/// A token that refuses the PIN in the middle of its service is not asked again with it: the other
/// host goes on, and a person decides.
#[tokio::test]
async fn codes_about_the_pin_end_one_host_and_wait_for_a_person() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    let mut healed = Vec::new();
    for code in PIN {
        let (degraded, up, logins) = (
            drill.logged("the token is degraded"),
            drill.logged("the token is up"),
            drill.token().asked("C_Login"),
        );
        happens_once(&drill, "C_Sign", code, "").await;
        drill.until_logged("the token is degraded", degraded).await;
        healed.push(load.goes_on(much(10)).await);
        assert_eq!(
            drill.token().asked("C_Login"),
            logins,
            "{code}: tried again"
        );
        let unlock = ["token", "unlock", "primary", "--config", "hsmac.toml"];
        let output = drill.token().token.hsmac(&unlock);
        assert!(output.status.success(), "{output:?}");
        drill.until_logged("the token is up", up).await;
    }
    load.end_without_failure(&drill, "every code about the PIN", &healed)
        .await;
}

/// At the start a code may end it, but what the token is well again for, it serves.
#[tokio::test]
async fn every_code_once_at_the_start_heals() {
    let functions: &[&str] = if long() {
        &[
            "C_Initialize",
            "C_GetSlotList",
            "C_GetTokenInfo",
            "C_OpenSession",
            "C_FindObjectsInit",
            "C_FindObjects",
            "C_GetAttributeValue",
            "C_GetMechanismList",
        ]
    } else {
        &["C_Initialize", "C_FindObjects"]
    };
    let drill = Drill::start("max_starts_per_minute = 10000\n").await;
    let load = drill.load().await;
    let mut healed = Vec::new();
    for function in functions {
        for code in fault_token::names_of_codes() {
            if code == "CKR_OK" || PIN.contains(&code) {
                continue;
            }
            // Lost sessions end both hosts, so that a start meets the code.
            let lost = format!("sessions lost {function}-{code}");
            happens_once(&drill, function, code, &lost).await;
            healed.push(load.goes_on(much(10)).await);
        }
    }
    drill.rules("");
    load.goes_on(100).await;
    let failed = load.end("every code at a host's start", &healed).await;
    only(&failed, NO_HOST);
}

fn refused(load: &Load) -> u64 {
    load.failed().values().sum()
}

/// Waits until the module has returned the code.
async fn happens_once(drill: &Drill, function: &str, code: &str, besides: &str) {
    let log = drill.token().token.path("fault.log");
    let from = fs::metadata(&log).unwrap().len();
    // Past the look whether every rule has acted: sessions that are lost while no host has any are no
    // matter here, and the code is waited for.
    drill.token().token.rules(&format!(
        "return {function} {code} once {function}-{code}\n{besides}"
    ));
    let line = format!(" {function} {code}\n");
    until(code, || {
        let log = fs::read(&log).unwrap();
        let new = String::from_utf8_lossy(&log[usize::try_from(from).unwrap()..]).into_owned();
        new.contains(&line).then_some(())
    })
    .await;
}
