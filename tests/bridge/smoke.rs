use crate::support::{KEY, KEY_ARN, Token, hmac_sha256, request, verify_request};

#[tokio::test]
async fn a_mac_is_made_inside_the_token_and_verified() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let mut client = server.mac().await;
    let made = client
        .generate_mac(request(b"Hello World"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(made.mac, hmac_sha256(&KEY, b"Hello World"));
    assert_eq!(made.key_id, KEY_ARN);
    let verified = client
        .verify_mac(verify_request(b"Hello World", &made.mac))
        .await
        .unwrap()
        .into_inner();
    assert!(verified.mac_valid);
    assert!(server.terminate().await.success());
}
