//! What the module is asked, counted by pkcs11-spy between host and SoftHSM2.

use std::{collections::BTreeMap, fs, path::Path};

use crate::support::{KEY, KEY_ID, Token, declare, hmac_sha256, request};

const SPY: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
    "/usr/lib64/pkcs11/pkcs11-spy.so",
];

#[tokio::test]
async fn a_mac_in_steady_state_is_exactly_sign_init_and_sign() {
    let token = Token::with_key();
    let spy = SPY
        .iter()
        .find(|path| Path::new(path).exists())
        .expect("opensc-pkcs11 is installed");
    let calls = token.path("calls");
    let config = token
        .config_with(
            "sessions = 2\n",
            &declare(KEY_ID, "mac", "HMAC_256", "alias/test"),
        )
        .replace(
            &format!("module-path={}", token.module().display()),
            &format!("module-path={spy}"),
        )
        .replace(
            "env = { ",
            &format!(
                "env = {{ PKCS11SPY = \"{}\", PKCS11SPY_OUTPUT = \"{}\", ",
                token.module().display(),
                calls.display()
            ),
        );
    let server = token.serve(&config).await;
    let mut client = server.mac().await;
    client
        .generate_mac(request(b"the first opens the key"))
        .await
        .unwrap();

    let before = count(&calls);
    for number in 0..1000_u32 {
        let message = number.to_be_bytes();
        let made = client
            .generate_mac(request(&message))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(made.mac, hmac_sha256(&KEY, &message));
    }
    let mut made = count(&calls);
    for (function, times) in &before {
        *made.get_mut(function).unwrap() -= times;
    }
    made.retain(|_, times| *times > 0);
    println!("1,000 GenerateMac calls asked the module: {made:?}");
    assert_eq!(
        made,
        BTreeMap::from([("C_Sign".into(), 1000), ("C_SignInit".into(), 1000)])
    );
    assert_eq!(before["C_Login"], 1);
    assert_eq!(before["C_Initialize"], 1);
}

/// Lines such as `12: C_SignInit`, by function.
fn count(log: &Path) -> BTreeMap<String, u32> {
    let mut calls = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let function = line
            .split_once(": ")
            .filter(|(number, _)| number.parse::<u32>().is_ok());
        if let Some((_, function)) = function.filter(|(_, function)| function.starts_with("C_")) {
            *calls.entry(function.trim().to_owned()).or_default() += 1;
        }
    }
    calls
}
