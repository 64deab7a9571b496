//! A token that contradicts itself about a key, and one that answers nothing after a job: what such a
//! host says is worth nothing, and what it was at is not tried for ever.

use hsmac::proto::v1::{CreateKeyRequest, GenerateMacRequest, KeySpec, KeyUsage};
use tonic::Code;

use super::*;
use crate::support::{assert_status, hex};

/// What a check value is the MAC of begins so.
const CHECK_MESSAGE: &[u8] = b"\0hsmac-reserved\0key check v1\0";

fn with(key_id: &str, message: &[u8]) -> GenerateMacRequest {
    let mut request = request(message);
    request.key_id = key_id.into();
    request
}

/// One host without signs of life, in which both keys are to be proved again before their next MAC, since
/// another was made.
async fn after_a_creation() -> (Drill, MacServiceClient<Channel>) {
    let member = Member::new("primary");
    let keys = declare(KEY_ID, "mac", "HMAC_256", "alias/test")
        + &declare(OTHER_ID, "other", "HMAC_256", "alias/other");
    let keys = member.token.store() + &keys;
    let settings = "hosts = 1\nprobe_interval = \"0s\"\n";
    let drill = Drill::spawn_with(vec![member], settings, &keys);
    let drill = drill.up(1).await;
    let mut client = drill.server.mac().await;
    for key_id in [KEY_ID, OTHER_ID] {
        client.generate_mac(with(key_id, b"before")).await.unwrap();
    }
    // A creation waits for the disk, which other tests keep busy.
    let mut create = tonic::Request::new(CreateKeyRequest {
        key_usage: KeyUsage::GenerateVerifyMac.into(),
        key_spec: KeySpec::Hmac256.into(),
        ..Default::default()
    });
    create.set_timeout(Duration::from_secs(20));
    let mut keys = drill.server.keys().await;
    keys.create_key(create).await.unwrap();
    (drill, client)
}

/// Security: the object that made the right check value makes another one. It was not replaced, so the
/// token is wrong, now or before.
#[tokio::test]
async fn a_token_that_contradicts_itself_about_a_key_ends_its_host_and_costs_no_call() {
    let (drill, mut client) = after_a_creation().await;
    // On the session that has the job, on the management session, and after a new search.
    let wrong = ["one", "two", "three"].map(|word| {
        let begins = hex(CHECK_MESSAGE);
        format!("mac flipped-bit once {word} when-message-begins {begins}")
    });
    drill.rules(&wrong.join("\n"));
    let made = client.generate_mac(with(KEY_ID, b"x")).await;
    let made = made.unwrap_or_else(|status| panic!("{status:?}\n{}", drill.server.log()));
    assert_eq!(made.into_inner().mac, hmac_sha256(&KEY, b"x"));
    drill.until_logged("a host is replaced", 0).await;
    let log = drill.server.log();
    assert!(log.contains("contradicts itself"), "{log}");
    drill.rules("");
}

#[tokio::test]
async fn an_object_that_was_replaced_is_its_key_s_trouble_and_ends_no_host() {
    let (drill, mut client) = after_a_creation().await;
    drill.token().token.inside("destroy mac\n");
    drill
        .token()
        .token
        .import("mac", "01", b"a third key, also of 32 bytes...");
    for _ in 0..3 {
        let status = client.generate_mac(with(KEY_ID, b"x")).await.unwrap_err();
        let reason = "KMS_INVALID_STATE";
        assert_status(&status, Code::FailedPrecondition, reason, "is unavailable.");
        client.generate_mac(with(OTHER_ID, b"x")).await.unwrap();
    }
    let log = drill.server.log();
    assert!(log.contains("the object is another key"), "{log}");
    assert_eq!(drill.logged("a host is replaced"), 0, "{log}");
}

/// Security: a sign of life that finds another key behind a handle is not forgotten.
#[tokio::test]
async fn a_sign_of_life_that_finds_another_key_has_the_object_searched_again() {
    let settings = "hosts = 1\nprobe_interval = \"100ms\"\n";
    let drill = Drill::spawn(vec![Member::new("primary")], settings);
    let drill = drill.up(1).await;
    let mut client = drill.server.mac().await;
    for key_id in [KEY_ID, OTHER_ID] {
        client.generate_mac(with(key_id, b"x")).await.unwrap();
    }
    let searches = drill.token().asked("C_FindObjectsInit");
    drill.rules("renumber handles now");
    until("a search", || {
        (drill.token().asked("C_FindObjectsInit") > searches).then_some(())
    })
    .await;
    for (key_id, key) in [(KEY_ID, &KEY), (OTHER_ID, &OTHER_KEY)] {
        let made = client.generate_mac(with(key_id, b"y")).await.unwrap();
        assert_eq!(made.into_inner().mac, hmac_sha256(key, b"y"));
    }
    assert_eq!(drill.logged("a host is replaced"), 0);
    drill.rules("");
}

/// The control question is not answered either: the generation ends, and the job may be why.
#[tokio::test]
async fn a_job_after_which_nothing_is_answered_takes_two_hosts_and_no_third() {
    let settings = "hosts = 2\nprobe_interval = \"0s\"\nhedge_after = \"0s\"\n";
    let drill = Drill::spawn(vec![Member::new("primary")], settings);
    let drill = drill.up(2).await;
    drill.rules("return C_Sign CKR_DEVICE_ERROR\nreturn C_GenerateRandom CKR_DEVICE_ERROR");
    let mut client = drill.server.mac().await;
    let status = client.generate_mac(with(KEY_ID, b"x")).await.unwrap_err();
    let log = drill.server.log();
    assert!(
        said(&status).starts_with("Unavailable KEY_UNAVAILABLE"),
        "{log}"
    );
    drill.until_logged("a host is replaced", 1).await;
    drill.server.serving(2).await;
    assert_eq!(drill.logged("a host is replaced"), 2, "{log}");
    drill.rules("");
    // It is refused for a while, as a poison message is; others are served.
    client.generate_mac(with(KEY_ID, b"x")).await.unwrap_err();
    client.generate_mac(with(KEY_ID, b"y")).await.unwrap();
}
