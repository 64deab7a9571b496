//! Policies of the configuration and of the store, over gRPC and as `hsmac kms`.

use std::fs;

use tonic::Code;

use crate::support::{CALLER, KEY_ID, Output, Token, assert_status, request, signal};

const ALLOW: &str =
    r#"{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"kms:*","Resource":"*"}"#;

fn denied(action: &str, key_id: &str, why: &str) -> String {
    format!(
        "User: {CALLER} is not authorized to perform: {action} on resource: arn:aws:kms:us-west-2:111122223333:key/{key_id} {why}"
    )
}

#[tokio::test]
async fn the_policies_of_a_declared_key_and_of_its_caller_decide() {
    let token = Token::with_key();
    let policy = format!(
        r#"{{"Statement":[{ALLOW},{{"Sid":"Never","Effect":"Deny","Principal":"*","Action":"kms:GenerateMac","Resource":"*"}}]}}"#
    );
    fs::write(token.path("key.json"), policy).unwrap();
    let config =
        token.config() + "policy_file = \"key.json\"\n[log]\nlevel = \"info,hsmac=debug\"\n";
    let server = token.serve(&config).await;
    let status = server
        .mac()
        .await
        .generate_mac(request(b"x"))
        .await
        .unwrap_err();
    let why = "with an explicit deny in a resource-based policy";
    assert_status(
        &status,
        Code::PermissionDenied,
        "ACCESS_DENIED",
        &denied("kms:GenerateMac", KEY_ID, why),
    );
    // The operator learns which statement it was; the client does not.
    let log = server.log();
    let line = log.lines().find(|line| line.contains("denied")).unwrap();
    assert!(line.contains("Never") && line.contains(CALLER), "{line}");
    assert!(!format!("{status:?}").contains("Never"));
    let described = token.hsmac(&["kms", "describe-key", "--key-id", "alias/test"]);
    assert!(described.status.success(), "{described:?}");
    drop(server);

    // The caller's own policy, without which nobody may do anything.
    fs::write(
        token.path("caller.json"),
        r#"{"Statement":{"Effect":"Allow","Action":"kms:GenerateMac","Resource":"*"}}"#,
    )
    .unwrap();
    let server = token.serve(&token.config()).await;
    server
        .mac()
        .await
        .generate_mac(request(b"x"))
        .await
        .unwrap();
    let listed = token.hsmac(&["kms", "list-keys"]);
    assert_eq!(listed.status.code(), Some(254), "{listed:?}");
    let why = "because no identity-based policy allows the kms:ListKeys action";
    assert!(listed.stderr.contains(why), "{listed:?}");
}

/// A Unix socket's other end is who the kernel says; nobody else is let in.
#[tokio::test]
async fn the_uid_of_a_unix_socket_proves_who_calls() {
    let token = Token::with_key();
    let config = |uid: u32| {
        let anonymous = format!("anonymous = \"{CALLER}\"\n");
        let arn = format!("arn = \"{CALLER}\"\n");
        token
            .config()
            .replace(&anonymous, "")
            .replace(&arn, &format!("{arn}unix_uid = {uid}\n"))
    };
    let own = rustix::process::getuid().as_raw();
    let server = token.serve(&config(own)).await;
    server
        .mac()
        .await
        .generate_mac(request(b"x"))
        .await
        .unwrap();
    drop(server);

    let server = token.serve(&config(own + 1)).await;
    let status = server
        .mac()
        .await
        .generate_mac(request(b"x"))
        .await
        .unwrap_err();
    assert_status(
        &status,
        Code::Unauthenticated,
        "MISSING_AUTHENTICATION_TOKEN",
        "The request carries no proof of who the caller is, and the server admits nobody without.",
    );
}

#[tokio::test]
async fn a_policy_is_read_and_written_as_hsmac_kms() {
    let token = Token::with_key();
    let config = token.config_with("", "") + &token.store();
    let _server = token.serve(&config).await;
    let kms = |words: &[&str]| -> Output { token.hsmac(&[&["kms"], words].concat()) };
    let good = |words: &[&str]| -> String {
        let output = kms(words);
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let created = good(&[
        "create-key",
        "--key-spec",
        "HMAC_256",
        "--key-usage",
        "GENERATE_VERIFY_MAC",
    ]);
    let created: serde_json::Value = serde_json::from_str(&created).unwrap();
    let key = created["KeyMetadata"]["KeyId"].as_str().unwrap();

    let listed = good(&["list-key-policies", "--key-id", key]);
    assert_eq!(
        listed,
        "{\n    \"PolicyNames\": [\n        \"default\"\n    ]\n}\n"
    );
    let policy = || good(&["get-key-policy", "--key-id", key, "--output", "text"]);
    assert!(
        policy().contains("Enable IAM User Permissions"),
        "{}",
        policy()
    );

    let written = format!(
        r#"{{"Statement":[{ALLOW},{{"Effect":"Deny","Principal":"*","Action":"kms:GenerateMac","Resource":"*"}}]}}"#
    );
    fs::write(token.path("policy.json"), &written).unwrap();
    let put = [
        "put-key-policy",
        "--key-id",
        key,
        "--policy",
        "file://policy.json",
    ];
    assert_eq!(good(&put), "");
    assert_eq!(policy(), format!("{written}\tdefault\n"));
    let mac = [
        "generate-mac",
        "--key-id",
        key,
        "--message",
        "x",
        "--mac-algorithm",
        "HMAC_SHA_256",
    ];
    let refused = kms(&mac);
    assert_eq!(refused.status.code(), Some(254), "{refused:?}");
    let why = "with an explicit deny in a resource-based policy";
    let say = denied("kms:GenerateMac", key, why);
    assert!(refused.stderr.contains(&say), "{refused:?}");

    let others = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"kms:GenerateMac","Resource":"*"}}"#;
    let put = ["put-key-policy", "--key-id", key, "--policy", others];
    let refused = kms(&put);
    assert!(
        refused
            .stderr
            .contains("(MalformedPolicyDocumentException)"),
        "{refused:?}"
    );
    good(&[&put[..], &["--bypass-policy-lockout-safety-check"]].concat());
    good(&mac);
    let refused = kms(&["get-key-policy", "--key-id", key]);
    assert!(
        refused.stderr.contains("(AccessDeniedException)"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_operator_is_warned_of_stored_policies_that_mean_nobody() {
    let token = Token::new();
    let config = |id: &str| {
        let attributes =
            format!("policy_file = \"caller.json\"\nattributes = {{ id = \"{id}\" }}\n");
        let config = token.config_with("hosts = 1\nsessions = 2\n", &token.store());
        config.replace("policy_file = \"caller.json\"\n", &attributes)
    };
    let server = token.serve(&config("AIDAFIRST")).await;
    let key_id = server.create().await.unwrap();
    let policy = format!(
        r#"{{"Statement":[{ALLOW},
            {{"Sid":"Logs","Effect":"Allow","Principal":{{"Service":"logs.amazonaws.com"}},"Action":"kms:*","Resource":"*"}},
            {{"Sid":"Own","Effect":"Allow","Principal":{{"AWS":"{CALLER}"}},"Action":"kms:*","Resource":"*"}}]}}"#
    );
    fs::write(token.path("stored.json"), policy).unwrap();
    let put = ["kms", "put-key-policy", "--key-id", &key_id, "--policy"];
    let put = token.hsmac(&[&put[..], &["file://stored.json"]].concat());
    assert!(put.status.success(), "{put:?}");
    let never = "statement \"Logs\" never applies here: its principals are services";
    let orphan = format!(
        "statement \"Own\" means the principal with the ID AIDAFIRST, and {CALLER} has the ID AIDASECOND now"
    );
    assert!(!server.log().contains(never), "{}", server.log());
    drop(server);

    // At the start, and once more only what a reload brings.
    let mut server = token.serve(&config("AIDAFIRST")).await;
    server.until_log(never).await;
    assert!(!server.log().contains(&orphan), "{}", server.log());
    fs::write(token.path("hsmac.toml"), config("AIDASECOND")).unwrap();
    signal(server.child.id(), "HUP");
    server.until_log(&orphan).await;
    server.until_log(" reloaded ").await;
    assert_eq!(server.log().matches(never).count(), 1, "{}", server.log());

    // And beside the server.
    let checked = token.check(&config("AIDASECOND"));
    let arn = format!("warning: arn:aws:kms:us-west-2:111122223333:key/{key_id}: ");
    assert!(checked.status.success(), "{checked:?}");
    for text in [
        "catalogue.db, stored keys: 1",
        &(arn.clone() + never),
        &(arn + &orphan),
    ] {
        assert!(checked.stdout.contains(text), "{text}: {checked:?}");
    }
}
