//! Ordinary key policies, written with PutKeyPolicy: three callers ask the server over TLS, and `hsmac
//! policy simulate` beside it, and both must decide as the table says.

use std::collections::BTreeMap;

use hsmac::proto::v1::{
    CreateAliasRequest, CreateKeyRequest, GenerateMacRequest, KeySpec, KeyUsage, MacAlgorithm,
    PutKeyPolicyRequest, Tag, key_service_client::KeyServiceClient,
    mac_service_client::MacServiceClient,
};
use tonic::{Code, transport::Channel};

use crate::support::{
    Token,
    ordinary::{Row, Table, table},
    pki::client,
    tls::{Place, Running, principal},
};

const ROOT: &str = "arn:aws:iam::111122223333:root";
/// What the table's requests have besides their callers.
const ORGANIZATION: [&str; 2] = [
    r#"id = "o-exampleorgid""#,
    r#"paths = ["o-exampleorgid/r-ab12/ou-ab12-11111111/"]"#,
];
/// From when the clients' certificates are valid.
const ISSUED: &str = "2024-01-01T00:00:00Z";

#[tokio::test]
async fn ordinary_policies_are_decided_alike_by_server_and_simulation() {
    let place = Place::new(Token::new());
    let Table { callers, policies } = table();
    let config = place.config("", &rest(&place, &callers));
    let running = place.serve(&config).await;
    let mut admin = KeyServiceClient::new(channel(&running, &place, "admin").await);
    let mut askers = BTreeMap::new();
    for name in callers.keys() {
        let mac = MacServiceClient::new(channel(&running, &place, name).await);
        askers.insert(name, mac);
    }
    let mut wrong = Vec::new();
    for (number, row) in policies.iter().enumerate() {
        let alias = prepare(&mut admin, number, row).await;
        for (name, arn) in &callers {
            let wanted = row.allowed.contains(name);
            let served = may(askers.get_mut(name).unwrap(), &alias).await;
            let simulated = simulated_may(&place.token, arn, &alias);
            if (served, simulated) != (wanted, wanted) {
                wrong.push(format!(
                    "{name}: served {served}, simulated {simulated}, not {wanted}: {}",
                    policy(row, number)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The principals, their account's organization, and a store.
fn rest(place: &Place, callers: &BTreeMap<String, String>) -> String {
    place.write(
        "own.json",
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#,
    );
    let mut rest = principal(ROOT, "admin", None);
    for (name, arn) in callers {
        rest += principal(arn, name, Some("own.json")).trim_end();
        rest += &match name.as_str() {
            "session" => "\nattributes = { tags = { Project = \"Alpha\" } }\n\n".to_owned(),
            "stranger" => format!(
                "\nattributes = {{ organization = {{ {} }} }}\n\n",
                ORGANIZATION.join(", ")
            ),
            _ => "\n\n".to_owned(),
        };
    }
    format!(
        "{rest}\n[organization]\n{}\n{}",
        ORGANIZATION.join("\n"),
        place.token.store()
    )
}

async fn channel(running: &Running<'_>, place: &Place, name: &str) -> Channel {
    let shown = client().dns(name).signed_by(&place.clients);
    running.client(Some(&shown)).channel().await.unwrap()
}

/// The row's policy, for this server: clients come from 127.0.0.1, and each key has an alias of its own.
fn policy(row: &Row, number: usize) -> String {
    let policy = row.policy().replace("192.0.2.", "127.0.0.");
    policy.replace("alias/app", &format!("alias/app-{number}"))
}

/// A key with this row's policy; gives its alias's ARN.
async fn prepare(admin: &mut KeyServiceClient<Channel>, number: usize, row: &Row) -> String {
    let request = CreateKeyRequest {
        key_spec: KeySpec::Hmac256.into(),
        key_usage: KeyUsage::GenerateVerifyMac.into(),
        tags: vec![Tag {
            tag_key: "Project".into(),
            tag_value: "Alpha".into(),
        }],
        ..CreateKeyRequest::default()
    };
    let made = admin.create_key(request).await.unwrap().into_inner();
    let key_id = made.key_metadata.unwrap().key_id;
    let alias_name = format!("alias/app-{number}");
    let request = CreateAliasRequest {
        alias_name: alias_name.clone(),
        target_key_id: key_id.clone(),
    };
    admin.create_alias(request).await.unwrap();
    let request = PutKeyPolicyRequest {
        key_id,
        policy: Some(policy(row, number)),
        // Most of these have no word for who writes them.
        bypass_policy_lockout_safety_check: true,
        ..PutKeyPolicyRequest::default()
    };
    admin.put_key_policy(request).await.unwrap();
    format!("arn:aws:kms:us-west-2:111122223333:{alias_name}")
}

async fn may(mac: &mut MacServiceClient<Channel>, key_id: &str) -> bool {
    let request = GenerateMacRequest {
        key_id: key_id.into(),
        message: "m".into(),
        mac_algorithm: MacAlgorithm::HmacSha256.into(),
        ..GenerateMacRequest::default()
    };
    match mac.generate_mac(request).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
            false
        }
    }
}

fn simulated_may(token: &Token, arn: &str, key_id: &str) -> bool {
    let mut words = vec![
        "policy",
        "simulate",
        "--config",
        "hsmac.toml",
        "--principal",
        arn,
        "--operation",
        "GenerateMac",
        "--key-id",
        key_id,
        "--source-ip",
        "127.0.0.1",
        "--secure-transport",
    ];
    if arn.contains("assumed-role") {
        words.extend(["--token-issue-time", ISSUED]);
    }
    let said = token.hsmac(&words);
    match said.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("{said:?}"),
    }
}
