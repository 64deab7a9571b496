//! `hsmac policy simulate`: without a server, beside one, and what it says to what it cannot answer.

use std::fs;

use serde_json::Value;
use tonic::Code;

use crate::support::{CALLER, KEY_ARN, KEY_ID, Output, Token, assert_status};

/// Writes the configuration, and asks; the folder's name is left out of what is said.
fn simulate(token: &Token, words: &str) -> Output {
    let start = [
        "policy",
        "simulate",
        "--config",
        "hsmac.toml",
        "--principal",
    ];
    let words: Vec<&str> = words.split_whitespace().collect();
    let Output {
        status,
        stdout,
        stderr,
    } = token.hsmac(&[&start[..], &words].concat());
    let folder = token.path("").display().to_string();
    Output {
        status,
        stdout: stdout.replace(&folder, ""),
        stderr: stderr.replace(&folder, ""),
    }
}

fn allows(token: &Token, words: &str) -> bool {
    let output = simulate(token, words);
    match output.status.code() {
        Some(0) => {
            assert!(output.stdout.starts_with("allowed: "), "{output:?}");
            true
        }
        Some(1) => {
            assert!(output.stdout.starts_with("denied: "), "{output:?}");
            assert_eq!(output.stderr, "");
            false
        }
        _ => panic!("{words}: {output:?}"),
    }
}

fn json(token: &Token, words: &str) -> Value {
    let output = simulate(token, &format!("{words} --output json"));
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A configuration whose module and PIN are nowhere, and the billing policy of docs/policies.md.
fn offline() -> Token {
    let token = Token::empty();
    let module = token.module().display().to_string();
    let config = token.config().replace(&module, "nowhere.so");
    fs::write(
        token.path("hsmac.toml"),
        config.replace("pin_file = \"pin\"", "pin_file = \"nowhere.pin\""),
    )
    .unwrap();
    fs::write(
        token.path("caller.json"),
        r#"{"Statement":[
            {"Sid":"Sign","Effect":"Allow","Action":["kms:GenerateMac","kms:VerifyMac"],
             "Resource":"arn:aws:kms:us-west-2:111122223333:key/*",
             "Condition":{"StringLike":{"kms:RequestAlias":"alias/t*"}}},
            {"Effect":"Deny","Action":"kms:GenerateMac","Resource":"*",
             "Condition":{"DateGreaterThan":{"aws:CurrentTime":"2099-01-01T00:00:00Z"}}}]}"#,
    )
    .unwrap();
    token
}

#[test]
fn without_token_store_and_server_it_explains() {
    let token = offline();
    let by_alias = format!("{CALLER} --operation GenerateMac --key-id alias/test");
    let said = simulate(&token, &by_alias);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert_eq!(
        said.stdout,
        format!(
            "allowed: GenerateMac by {CALLER}\n\
             \n\
             kms:GenerateMac on {KEY_ARN}: allowed\n  \
               because  statement \"Enable IAM User Permissions\" of the key policy (KMS's default) leaves it to account 111122223333, and statement \"Sign\" of the identity policy (caller.json) allows it\n  \
               key policy (KMS's default)\n    \
                 1 \"Enable IAM User Permissions\" (Allow) leaves it to the account\n  \
               identity policy (caller.json)\n    \
                 1 \"Sign\" (Allow) allows it\n    \
                 2 (Deny) does not apply: DateGreaterThan aws:CurrentTime [2099-01-01T00:00:00Z]: here it is {}\n",
            said.stdout.rsplit(' ').next().unwrap().trim_end(),
        )
    );
    let by_id = format!("{CALLER} --operation generate-mac --key-id {KEY_ID}");
    let said = simulate(&token, &format!("{by_id} --at 2098-01-01T00:00:00Z"));
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!(said.stderr, "");
    assert_eq!(
        said.stdout,
        format!(
            "denied: GenerateMac by {CALLER}\n\
             \n\
             kms:GenerateMac on {KEY_ARN}: denied\n  \
               because  statement \"Enable IAM User Permissions\" of the key policy (KMS's default) leaves it to account 111122223333, but no statement of the principal's own policies allows it\n  \
               missing  an Allow of kms:GenerateMac on {KEY_ARN} in the principal's policy_file\n  \
               client   AccessDeniedException: User: {CALLER} is not authorized to perform: kms:GenerateMac on resource: {KEY_ARN} because no identity-based policy allows the kms:GenerateMac action\n  \
               key policy (KMS's default)\n    \
                 1 \"Enable IAM User Permissions\" (Allow) leaves it to the account\n  \
               identity policy (caller.json)\n    \
                 1 \"Sign\" (Allow) does not apply: StringLike kms:RequestAlias [alias/t*]: here there is none\n    \
                 2 (Deny) does not apply: DateGreaterThan aws:CurrentTime [2099-01-01T00:00:00Z]: here it is 4039372800\n"
        )
    );
    assert!(!allows(
        &token,
        &format!("{by_alias} --at 2100-01-01T00:00:00Z")
    ));
    // Policies that are only tried.
    fs::write(
        token.path("trial.json"),
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#,
    )
    .unwrap();
    fs::write(
        token.path("key.json"),
        format!(
            r#"{{"Statement":[{{"Effect":"Allow","Principal":{{"AWS":"{CALLER}"}},"Action":"kms:*","Resource":"*"}},
                {{"Sid":"Never","Effect":"Deny","Principal":"*","Action":"kms:PutKeyPolicy","Resource":"*"}}]}}"#
        ),
    )
    .unwrap();
    assert!(allows(&token, &format!("{by_id} --policy-file trial.json")));
    assert!(allows(
        &token,
        &format!("{by_id} --key-policy-file key.json")
    ));
    let put = format!("{CALLER} --operation PutKeyPolicy --key-id {KEY_ID}");
    let said = json(
        &token,
        &format!("{put} --policy-file trial.json --key-policy-file key.json"),
    );
    assert_eq!(said["allowed"], false);
    let right = &said["rights"][0];
    assert_eq!(right["grounds"], "key_policy_denies");
    assert_eq!(
        right["decided_by"],
        serde_json::json!({"policy": "key", "source": "key.json", "statement": 2, "sid": "Never"})
    );
    assert_eq!(
        right["because"],
        "statement \"Never\" of the key policy (key.json) denies it"
    );
    assert_eq!(right["missing"], Value::Null);
    assert_eq!(right["client"]["exception"], "AccessDeniedException");
    assert_eq!(right["policies"][1]["source"], "trial.json");
    assert_eq!(right["policies"][1]["statements"][0]["says"], "allow");

    let said = json(&token, &by_id);
    let statement = &said["rights"][0]["policies"][1]["statements"][0];
    assert_eq!(
        *statement,
        serde_json::json!({
            "number": 1, "sid": "Sign", "effect": "Allow", "says": "nothing",
            "misfits": [{
                "element": "Condition", "operator": "StringLike", "key": "kms:RequestAlias",
                "wanted": ["alias/t*"], "seen": null,
            }],
        })
    );

    // The policy that the configuration declares, on a wire with and without TLS.
    let config = fs::read_to_string(token.path("hsmac.toml")).unwrap();
    fs::write(
        token.path("declared.json"),
        format!(
            r#"{{"Statement":{{"Effect":"Allow","Principal":{{"AWS":"{CALLER}"}},"Action":"kms:*","Resource":"*",
                "Condition":{{"Bool":{{"aws:SecureTransport":"true"}}}}}}}}"#
        ),
    )
    .unwrap();
    let declared = config.clone() + "policy_file = \"declared.json\"\n";
    fs::write(token.path("hsmac.toml"), declared).unwrap();
    let verify = format!("{CALLER} --operation VerifyMac --key-id {KEY_ID}");
    assert!(!allows(&token, &verify));
    let said = json(&token, &format!("{verify} --secure-transport"));
    assert_eq!(said["allowed"], true);
    assert_eq!(said["rights"][0]["decided_by"]["source"], "declared.json");
    fs::write(token.path("hsmac.toml"), config).unwrap();

    // Without a key; and somebody whom nobody knows.
    for operation in ["CreateKey", "ListKeys", "GenerateRandom", "ListAliases"] {
        let random = format!("{CALLER} --operation {operation}");
        assert!(!allows(&token, &random));
        assert!(allows(
            &token,
            &format!("{random} --policy-file trial.json")
        ));
    }
    let tagged = format!("{CALLER} --operation CreateKey --tags TagKey=a,TagValue=b");
    let said = json(&token, &format!("{tagged} --policy-file trial.json"));
    assert_eq!(said["rights"][0]["action"], "kms:CreateKey");
    assert_eq!(said["rights"][1]["action"], "kms:TagResource");
    let unknown = CALLER.replace("local", "lokal");
    let said = simulate(&token, &by_id.replace(CALLER, &unknown));
    assert_eq!(said.status.code(), Some(1));
    assert!(
        said.stdout.contains("but the principal has no policy of its own\n")
            && said.stdout.ends_with(
                "\nnote: no [[principal]] of the configuration has this arn; did you mean user/local?\n"
            ),
        "{said:?}"
    );
    // The account's root needs no policy; a stranger learns nothing, the operator does.
    let root = "arn:aws:iam::111122223333:root";
    let said = simulate(&token, &by_id.replace(CALLER, root));
    assert_eq!(said.status.code(), Some(0));
    assert!(
        said.stdout
            .contains("and the account's root has every right that no policy denies\n"),
        "{said:?}"
    );
    let stranger = "arn:aws:iam::444455556666:user/billing";
    let foreign = format!("{stranger} --operation GenerateMac --policy-file trial.json --key-id");
    let missing = KEY_ARN.replace("1234abcd", "9234abcd");
    for (key, grounds) in [
        (KEY_ARN, "no_key_policy_allows"),
        (&*missing, "no_such_key"),
    ] {
        let said = json(&token, &format!("{foreign} {key}"));
        assert_eq!(said["rights"][0]["grounds"], grounds);
        let message = said["rights"][0]["client"]["message"].as_str().unwrap();
        assert!(message.contains("the resource does not exist"), "{said}");
    }
}

#[test]
fn what_it_cannot_answer_it_says() {
    let token = offline();
    fs::write(token.path("bad.json"), "{}").unwrap();
    fs::write(token.path("empty.json"), r#"{"Statement":[]}"#).unwrap();
    let on = format!("{CALLER} --key-id {KEY_ID} --operation");
    for (words, said) in [
        (
            format!("{on} GenrateMac"),
            "invalid value 'GenrateMac' for '--operation <OPERATION>': no such operation; did you mean GenerateMac?",
        ),
        (
            format!("{on} kms:put-key-polcy"),
            "no such operation; did you mean PutKeyPolicy?",
        ),
        (
            format!("{on} XYZ"),
            "no such operation; write GenerateMac, or generate-mac",
        ),
        (
            format!("{CALLER} --operation GenerateMac"),
            "hsmac: GenerateMac needs --key-id\n",
        ),
        (
            format!("{on} CreateAlias"),
            "hsmac: CreateAlias needs --alias-name\n",
        ),
        (
            format!("{on} CreateAlias --alias-name pay"),
            "it must be alias/ and letters, digits",
        ),
        (
            format!("{on} ListKeys"),
            "hsmac: ListKeys has no --key-id\n",
        ),
        (
            format!("{on} DescribeKey --alias-name alias/a"),
            "hsmac: DescribeKey has no --alias-name\n",
        ),
        (
            format!("{on} DescribeKey --mac-algorithm HMAC_SHA_256"),
            "hsmac: DescribeKey has no --mac-algorithm\n",
        ),
        (
            format!("{on} GenerateMac --mac-algorithm SHA_256"),
            "it must be HMAC_SHA_224, HMAC_SHA_256, HMAC_SHA_384 or HMAC_SHA_512",
        ),
        (
            format!("{on} DescribeKey --key-spec HMAC_256"),
            "hsmac: DescribeKey has no --key-spec\n",
        ),
        (
            format!("{on} DescribeKey --tags TagKey=a,TagValue=b"),
            "hsmac: DescribeKey has no --tags\n",
        ),
        (
            format!("{on} TagResource --tags TagKey=aws:a,TagValue=b"),
            "hsmac: --tags: a key has at most 50 tags",
        ),
        (
            format!("{on} DescribeKey --tag-keys a"),
            "hsmac: DescribeKey has no --tag-keys\n",
        ),
        (
            format!("{on} DescribeKey --pending-window-in-days 7"),
            "hsmac: DescribeKey has no --pending-window-in-days\n",
        ),
        (
            format!("{on} DescribeKey --bypass-policy-lockout-safety-check"),
            "hsmac: DescribeKey has no --bypass-policy-lockout-safety-check\n",
        ),
        (
            format!("{on} DescribeKey --at yesterday"),
            "it must be a time since 1970, as 2026-01-31T12:00:00Z",
        ),
        (
            format!("{on} DescribeKey --policy-file none.json"),
            "hsmac: none.json: No such file or directory",
        ),
        (
            format!("{on} DescribeKey --key-policy-file bad.json"),
            "hsmac: bad.json: Policy has no Statement.\n",
        ),
        (
            format!("{CALLER} --operation ListKeys --key-policy-file empty.json"),
            "required arguments were not provided",
        ),
        (
            "billing --operation ListKeys".into(),
            "\"billing\" is no principal ARN",
        ),
        (
            format!("{CALLER} --operation GenerateMac --key-id alias/none"),
            "hsmac: Alias arn:aws:kms:us-west-2:111122223333:alias/none is not found. (NotFoundException)\n",
        ),
        (
            format!("{CALLER} --operation DisableKey --key-id alias/test"),
            "hsmac: Key Aliases are not supported for this operation. (InvalidArnException)\n",
        ),
    ] {
        let output = simulate(&token, &words);
        assert_eq!(output.status.code(), Some(64), "{words}: {output:?}");
        assert!(output.stderr.contains(said), "{words}: {output:?}");
        assert_eq!(output.stdout, "");
    }
    // A policy without statements is one; it has nothing to say.
    let output = simulate(
        &token,
        &format!("{on} DescribeKey --policy-file empty.json"),
    );
    assert!(
        output.stdout.contains("(empty.json)\n    no statement\n"),
        "{output:?}"
    );

    let file = token.path("hsmac.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config.clone() + &token.store()).unwrap();
    let output = simulate(&token, &format!("{on} DescribeKey"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stdout.ends_with(
            "note: catalogue.db: there is no catalogue yet, so only declared keys are known\n"
        ),
        "{output:?}"
    );
    assert!(!token.path("catalogue.db").exists());
    for (name, config, said) in [
        (
            "caller.json",
            config.clone(),
            "hsmac.toml:13: principal[0].policy_file: caller.json: Policy has no Statement.",
        ),
        (
            "catalogue.db",
            config.clone() + &token.store(),
            "catalogue.db is no hsmac catalogue, nor any database\n",
        ),
        (
            "unused",
            config.replace("us-west-2", "US"),
            "region: \"US\" is no region",
        ),
    ] {
        fs::write(token.path(name), "{}").unwrap();
        fs::write(&file, config).unwrap();
        let output = simulate(&token, &format!("{on} DescribeKey"));
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert!(output.stderr.contains(said), "{output:?}");
        fs::write(
            token.path("caller.json"),
            r#"{"Statement":{"Effect":"Deny","Action":"kms:*","Resource":"*"}}"#,
        )
        .unwrap();
    }
}

/// The server's own store, while it serves: keys, aliases, tags and policies as they are now. The
/// simulation, the client and the log say the same.
#[tokio::test]
async fn beside_a_server_it_says_what_the_server_does() {
    let token = Token::with_key();
    let config = token.config() + &token.store() + "[log]\nlevel = \"info,hsmac=debug\"\n";
    let server = token.serve(&config).await;
    let key = server.create().await.unwrap();
    let kms = |words: &str| {
        let words: Vec<&str> = ["kms"].into_iter().chain(words.split(' ')).collect();
        let output = token.hsmac(&words);
        assert!(output.status.success(), "{output:?}");
    };
    kms(&format!(
        "create-alias --alias-name alias/new --target-key-id {key}"
    ));
    kms(&format!(
        "tag-resource --key-id {key} --tags TagKey=team,TagValue=pay"
    ));
    let by_alias = format!("{CALLER} --operation GenerateMac --key-id alias/new");
    assert!(allows(&token, &by_alias));
    server.mac_with("alias/new", b"x").await.unwrap();
    let log = server.log();
    let line = log
        .lines()
        .find(|line| line.contains("allowed") && line.contains("GenerateMac"));
    let line = line.unwrap();
    assert!(
        line.contains("number 1 of the identity policy (") && line.contains("caller.json)"),
        "{line}"
    );

    let policy = r#"{"Statement":[
        {"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"kms:*","Resource":"*"},
        {"Sid":"NotForPay","Effect":"Deny","Principal":"*","Action":"kms:GenerateMac","Resource":"*",
         "Condition":{"StringEquals":{"aws:ResourceTag/team":"pay"},
                      "ForAnyValue:StringEquals":{"kms:ResourceAliases":"alias/new"}}}]}"#;
    fs::write(token.path("policy.json"), policy).unwrap();
    kms(&format!(
        "put-key-policy --key-id {key} --policy file://policy.json"
    ));
    let status = server.mac_with("alias/new", b"x").await.unwrap_err();
    let said = json(&token, &by_alias);
    let right = &said["rights"][0];
    assert_status(
        &status,
        Code::PermissionDenied,
        "ACCESS_DENIED",
        right["client"]["message"].as_str().unwrap(),
    );
    assert_eq!(right["decided_by"]["source"], "of the store");
    assert_eq!(right["decided_by"]["sid"], "NotForPay");
    let log = server.log();
    let line = log.lines().find(|line| line.contains(" denied")).unwrap();
    assert!(
        line.contains(r#"\"NotForPay\" of the key policy (of the store)"#),
        "{line}"
    );
    kms(&format!("untag-resource --key-id {key} --tag-keys team"));
    assert!(allows(&token, &by_alias));
    server.mac_with("alias/new", b"x").await.unwrap();
    kms(&format!("disable-key --key-id {key}"));
    let output = simulate(&token, &by_alias);
    let note = format!(
        "note: besides rights, the key's state is in the way: arn:aws:kms:us-west-2:111122223333:key/{key} is disabled.\n"
    );
    assert!(output.stdout.ends_with(&note), "{output:?}");
    assert!(server.terminate().await.success());
    assert!(allows(&token, &by_alias));
}
