//! Grants over the real server: what of them outlives it, what `policy simulate` says, what the log does
//! not.

use hsmac::proto::v1::{
    CreateGrantRequest, CreateGrantResponse, ListGrantsRequest, PutKeyPolicyRequest,
    RetireGrantRequest,
};
use tonic::Code;

use crate::support::{CALLER, Server, Token, assert_status, request};

/// A key with which nobody makes MACs without a grant.
async fn by_grants_alone(server: &Server) -> String {
    let key_id = server.create().await.unwrap();
    let policy = format!(
        r#"{{"Statement":{{"Effect":"Allow","Principal":{{"AWS":"{CALLER}"}},"NotAction":"kms:GenerateMac","Resource":"*"}}}}"#
    );
    let put = PutKeyPolicyRequest {
        key_id: key_id.clone(),
        policy: Some(policy),
        ..Default::default()
    };
    server.keys().await.put_key_policy(put).await.unwrap();
    key_id
}

async fn grant(server: &Server, key_id: &str) -> CreateGrantResponse {
    let create = CreateGrantRequest {
        key_id: key_id.to_owned(),
        grantee_principal: Some(CALLER.to_owned()),
        retiring_principal: Some(CALLER.to_owned()),
        operations: vec!["GenerateMac".into()],
        ..Default::default()
    };
    let made = server.keys().await.create_grant(create).await;
    made.unwrap().into_inner()
}

async fn is_denied(server: &Server, key_id: &str) {
    let status = server.mac_with(key_id, b"x").await.unwrap_err();
    let says = "because no resource-based policy allows the kms:GenerateMac action";
    assert_status(&status, Code::PermissionDenied, "ACCESS_DENIED", says);
}

#[tokio::test]
async fn a_grant_and_its_token_outlive_kill_9_and_the_end_of_a_grant_does_too() {
    let token = Token::new();
    let debug = "[log]\nlevel = \"info,hsmac=debug\"\n";
    let config = token.config_with("hosts = 1\n", "") + &token.store() + debug;
    let server = token.serve(&config).await;
    let key_id = by_grants_alone(&server).await;
    is_denied(&server, &key_id).await;
    let made = grant(&server, &key_id).await;
    // It is killed.
    drop(server);
    let server = token.serve(&config).await;
    server.mac_with(&key_id, b"x").await.unwrap();
    let mut with_token = request(b"x");
    with_token.key_id.clone_from(&key_id);
    with_token.grant_tokens = vec![made.grant_token.clone()];
    let mut macs = server.mac().await;
    macs.generate_mac(with_token.clone()).await.unwrap();
    let retire = RetireGrantRequest {
        grant_token: Some(made.grant_token.clone()),
        ..Default::default()
    };
    server.keys().await.retire_grant(retire).await.unwrap();
    let log = server.log();
    // Security: a token is a bearer's, whatever it is worth.
    assert!(!log.contains(&made.grant_token), "{log}");
    assert!(
        log.contains(&made.grant_id),
        "the grant that lets in is named: {log}"
    );
    drop(server);
    let server = token.serve(&config).await;
    is_denied(&server, &key_id).await;
    let list = ListGrantsRequest {
        key_id,
        ..Default::default()
    };
    let listed = server.keys().await.list_grants(list).await.unwrap();
    assert!(listed.into_inner().grants.is_empty());
}

#[tokio::test]
async fn policy_simulate_names_the_grant_that_allows() {
    let token = Token::new();
    let config = token.config_with("hosts = 1\n", "") + &token.store();
    let server = token.serve(&config).await;
    let key_id = by_grants_alone(&server).await;
    let start = ["policy", "simulate", "--config", "hsmac.toml"];
    let of = ["--principal", CALLER, "--key-id", &key_id];
    let simulate = |more: &[&str]| token.hsmac(&[&start[..], &of, more].concat());
    let mac = ["--operation", "generate-mac"];
    assert_eq!(simulate(&mac).status.code(), Some(1));

    let made = grant(&server, &key_id).await;
    let said = simulate(&mac);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let because = format!("because  grant {} allows it\n", made.grant_id);
    assert!(said.stdout.contains(&because), "{said:?}");
    let said = simulate(&[&mac[..], &["--output", "json"]].concat());
    let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let right = &said["rights"][0];
    assert_eq!(right["grounds"], "grant");
    assert_eq!(right["grant"], made.grant_id.as_str());

    for (more, code) in [
        (
            &["--operation", "retire-grant", "--grant-id", &made.grant_id][..],
            0,
        ),
        (&["--operation", "retire-grant"], 64),
        (&["--operation", "verify-mac", "--grant-id", "x"], 64),
        (
            &[
                "--operation",
                "create-grant",
                "--operations",
                "GenerateMac",
                "--grantee-principal",
                CALLER,
            ],
            0,
        ),
    ] {
        let said = simulate(more);
        assert_eq!(said.status.code(), Some(code), "{more:?} {said:?}");
    }
}
