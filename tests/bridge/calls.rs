//! What the module is asked, counted by pkcs11-spy between host and SoftHSM2.

use std::collections::BTreeMap;

use crate::support::{KEY, KEY_ID, Token, calls, declare, hmac_sha256, request};

#[tokio::test]
async fn a_mac_in_steady_state_is_exactly_sign_init_and_sign() {
    let token = Token::with_key();
    let (config, spied) = token.spied(&token.config_with(
        "sessions = 2\n",
        &declare(KEY_ID, "mac", "HMAC_256", "alias/test"),
    ));
    let server = token.serve(&config).await;
    let mut client = server.mac().await;
    client
        .generate_mac(request(b"the first opens the key"))
        .await
        .unwrap();

    let before = calls(&spied);
    for number in 0..1000_u32 {
        let message = number.to_be_bytes();
        let made = client
            .generate_mac(request(&message))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(made.mac, hmac_sha256(&KEY, &message));
    }
    let mut made = calls(&spied);
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
