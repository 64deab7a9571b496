//! Objects that cannot be the key they are declared as: never another key's MAC, never another
//! key's harm.

use tonic::Code;

use crate::support::{
    KEY, KEY_ID, Server, Token, assert_status, declare, hmac_sha256, request, said, until,
};

const OTHER_ID: &str = "00000000-0000-4000-8000-00000000000a";
const OTHER_KEY: [u8; 32] = *b"another key, also of 32 bytes...";

/// A token with a good key, something else under the label `odd`, and both declared.
async fn beside_a_good_key(objects: &str, spec: &str) -> (Token, Server) {
    let token = Token::with_key();
    token.inside(objects);
    let keys = declare(KEY_ID, "mac", "HMAC_256", "alias/test")
        + &declare(OTHER_ID, "odd", spec, "alias/odd");
    let server = token
        .serve(&token.config_with("sessions = 2\n", &keys))
        .await;
    (token, server)
}

async fn is_unavailable(server: &Server, algorithm: hsmac::proto::v1::MacAlgorithm) {
    let mut client = server.mac().await;
    let mut odd = request(b"x");
    odd.key_id = "alias/odd".into();
    odd.mac_algorithm = algorithm.into();
    for _ in 0..3 {
        let status = client.generate_mac(odd.clone()).await.unwrap_err();
        let arn = format!("arn:aws:kms:us-west-2:111122223333:key/{OTHER_ID} is unavailable.");
        assert_status(&status, Code::FailedPrecondition, "KMS_INVALID_STATE", &arn);
    }
    let made = client
        .generate_mac(request(b"x"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(made.mac, hmac_sha256(&KEY, b"x"), "other keys serve");
    let said: Vec<_> = server
        .log()
        .lines()
        .filter(|l| l.contains("the key is unavailable"))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        said.len(),
        1,
        "once for each change, not for each call: {said:?}"
    );
    assert!(
        !server.log().contains("a host is replaced"),
        "{}",
        server.log()
    );
}

/// `hsmac check` says it too, in words and with 78.
fn check_says(token: &Token, words: &str) {
    let config = std::fs::read_to_string(token.path("hsmac.toml")).unwrap();
    let output = token.check(&config);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(output.stdout.contains(words), "{}", output.stdout);
}

use hsmac::proto::v1::MacAlgorithm::{HmacSha256, HmacSha384};

#[tokio::test]
async fn an_aes_key_under_the_label_is_refused() {
    let (token, server) =
        beside_a_good_key(&format!("aes odd 02 {}\n", "11".repeat(32)), "HMAC_256").await;
    is_unavailable(&server, HmacSha256).await;
    check_says(&token, "cipher key");
}

#[tokio::test]
async fn an_rsa_key_under_the_label_is_refused() {
    let (token, server) = beside_a_good_key("rsa odd 02\n", "HMAC_256").await;
    is_unavailable(&server, HmacSha256).await;
    check_says(&token, "is no secret key");
}

#[tokio::test]
async fn a_key_without_cka_sign_is_refused() {
    let (token, server) =
        beside_a_good_key(&format!("nosign odd 02 {}\n", "11".repeat(32)), "HMAC_256").await;
    is_unavailable(&server, HmacSha256).await;
    check_says(&token, "CKR_KEY_FUNCTION_NOT_PERMITTED");
}

#[tokio::test]
async fn two_objects_of_one_label_are_refused() {
    let objects = format!(
        "generic odd 02 {}\ngeneric odd 03 {}\n",
        "11".repeat(32),
        "22".repeat(32)
    );
    let (token, server) = beside_a_good_key(&objects, "HMAC_256").await;
    is_unavailable(&server, HmacSha256).await;
    check_says(&token, "several objects");
}

#[tokio::test]
async fn a_key_too_short_for_its_algorithm_is_refused() {
    let (token, server) =
        beside_a_good_key(&format!("generic odd 02 {}\n", "11".repeat(16)), "HMAC_384").await;
    is_unavailable(&server, HmacSha384).await;
    check_says(&token, "CKR_KEY_SIZE_RANGE");
}

#[tokio::test]
async fn a_label_without_object_is_refused() {
    let (token, server) = beside_a_good_key("", "HMAC_256").await;
    is_unavailable(&server, HmacSha256).await;
    check_says(&token, "no object with CKA_LABEL \"odd\"");
}

#[tokio::test]
async fn a_wrong_check_value_is_refused_and_the_right_one_serves() {
    let token = Token::with_key();
    let declared = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let wrong = format!("{declared}check_value = \"{}\"\n", "00".repeat(32));
    let server = token.serve(&token.config_with("", &wrong)).await;
    let status = server
        .mac()
        .await
        .generate_mac(request(b"x"))
        .await
        .unwrap_err();
    assert_status(
        &status,
        Code::FailedPrecondition,
        "KMS_INVALID_STATE",
        "is unavailable.",
    );
    assert!(
        server.log().contains("its check value differs"),
        "{}",
        server.log()
    );
    server.terminate().await;

    let output = token.check(&token.config());
    assert!(output.status.success(), "{output:?}");
    let printed = output
        .stdout
        .lines()
        .find(|line| line.contains("check_value = "))
        .unwrap();
    let right = format!("{declared}{}\n", printed.trim());
    let server = token.serve(&token.config_with("", &right)).await;
    let made = server
        .mac()
        .await
        .generate_mac(request(b"x"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(made.mac, hmac_sha256(&KEY, b"x"));
    assert!(
        !server.log().contains("no check_value is set"),
        "{}",
        server.log()
    );
}

#[tokio::test]
async fn an_object_that_was_replaced_under_its_label_is_an_error_never_the_other_key() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let mut client = server.mac().await;
    client.generate_mac(request(b"before")).await.unwrap();
    token.inside("destroy mac\n");
    token.import("mac", "01", &OTHER_KEY);
    for number in 0..50_u32 {
        let message = number.to_be_bytes();
        let status = client.generate_mac(request(&message)).await.unwrap_err();
        assert_status(
            &status,
            Code::FailedPrecondition,
            "KMS_INVALID_STATE",
            "is unavailable.",
        );
    }
    assert!(server.log().contains("another key"), "{}", server.log());
}

#[tokio::test]
async fn with_working_copies_the_first_key_s_mac_or_an_error_then_an_error() {
    let token = Token::with_key();
    let settings = "working_copies = true\nreprove_interval = \"1s\"\n";
    let keys = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let server = token.serve(&token.config_with(settings, &keys)).await;
    let mut client = server.mac().await;
    client.generate_mac(request(b"before")).await.unwrap();
    token.inside("destroy mac\n");
    token.import("mac", "01", &OTHER_KEY);
    let began = std::time::Instant::now();
    let mut made = 0;
    loop {
        match client.generate_mac(request(b"after")).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().mac, hmac_sha256(&KEY, b"after"));
                made += 1;
                assert!(
                    began.elapsed() < crate::support::LIMIT,
                    "the copy is never proved again"
                );
            }
            Err(status) => {
                assert_status(
                    &status,
                    Code::FailedPrecondition,
                    "KMS_INVALID_STATE",
                    "unavailable",
                );
                break;
            }
        }
    }
    println!(
        "{made} MACs of the first key in {:?}, then an error",
        began.elapsed()
    );
    assert!(client.generate_mac(request(b"after")).await.is_err());
}

#[tokio::test]
async fn an_object_that_comes_back_serves_again_without_a_restart() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let mut client = server.mac().await;
    client.generate_mac(request(b"before")).await.unwrap();
    token.inside("destroy mac\n");
    let status = client.generate_mac(request(b"gone")).await.unwrap_err();
    assert_status(
        &status,
        Code::FailedPrecondition,
        "KMS_INVALID_STATE",
        "is unavailable.",
    );
    token.import("mac", "01", &KEY);
    let began = std::time::Instant::now();
    loop {
        match client.generate_mac(request(b"back")).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().mac, hmac_sha256(&KEY, b"back"));
                break;
            }
            Err(status) => assert!(
                began.elapsed() < crate::support::LIMIT,
                "{}\n{}",
                said(&status),
                server.log()
            ),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    println!(
        "served again {:?} after the object came back",
        began.elapsed()
    );
    until("the log's word", || {
        server.log().contains("the key serves again").then_some(())
    })
    .await;
}

#[tokio::test]
async fn opening_one_key_after_another_never_mixes_them_up() {
    let token = Token::new();
    let value = |number: u32| {
        let mut value = [7; 32];
        value[..4].copy_from_slice(&number.to_be_bytes());
        value
    };
    let (mut objects, mut keys) = (String::new(), String::new());
    for number in 0..24 {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        objects += &format!(
            "generic k{number} {number:02x} {}\n",
            crate::support::hex(&value(number))
        );
        keys += &declare(
            &id,
            &format!("k{number}"),
            "HMAC_256",
            &format!("alias/k{number}"),
        );
    }
    token.inside(&objects);
    let server = token
        .serve(&token.config_with("hosts = 2\nworking_copies = true\n", &keys))
        .await;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8_u32 {
        let mut client = server.mac().await;
        callers.spawn(async move {
            for round in 0..96 {
                // Each caller opens the keys in another order, while the others use theirs.
                let number = (round * (2 * caller + 1) + caller) % 24;
                let mut request = request(&round.to_be_bytes());
                request.key_id = format!("alias/k{number}");
                let made = client
                    .generate_mac(request)
                    .await
                    .unwrap_or_else(|s| panic!("{}", said(&s)));
                assert_eq!(
                    made.into_inner().mac,
                    hmac_sha256(&value(number), &round.to_be_bytes())
                );
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}
