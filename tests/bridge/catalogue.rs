//! Keys of the store over the network and the command line: states, names, tags, restarts.

use std::time::Instant;

use hsmac::{
    proto::v1::{
        CancelKeyDeletionRequest, CreateAliasRequest, CreateKeyRequest, DeleteAliasRequest,
        DescribeKeyRequest, DisableKeyRequest, EnableKeyRequest, GetKeyLastUsageRequest,
        KeyMetadata, KeyState, ListAliasesRequest, ListResourceTagsRequest,
        ScheduleKeyDeletionRequest, Tag, TagResourceRequest, UntagResourceRequest,
        UpdateAliasRequest, UpdateKeyDescriptionRequest,
    },
    store::{Expect, Restored},
};
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::support::{
    KEY, KEY_ID, LIMIT, Output, Server, Token, assert_status, hmac_sha256, request, said,
};

const ONE: &str = "a234abcd-12ab-34cd-56ef-1234567890ab";
const TWO: &str = "b234abcd-12ab-34cd-56ef-1234567890ab";
const OTHER: [u8; 32] = [0x5a; 32];

fn arn(key_id: &str) -> String {
    format!("arn:aws:kms:us-west-2:111122223333:key/{key_id}")
}

/// The usual token and declared key, and two keys of the store with objects of their own.
async fn two_keys() -> (Token, String) {
    let token = Token::with_key();
    token.import("one", "a1", &KEY);
    token.import("two", "b2", &OTHER);
    token.seed(ONE, "a1", "Enabled").await;
    token.seed(TWO, "b2", "Enabled").await;
    let config = token.config() + &token.store();
    (token, config)
}

async fn mac(server: &Server, key_id: &str) -> Result<Vec<u8>, Status> {
    let mut request = request(b"hello");
    request.key_id = key_id.into();
    let made = server.mac().await.generate_mac(request).await?;
    Ok(made.into_inner().mac.to_vec())
}

async fn describe(server: &Server, key_id: &str) -> Result<KeyMetadata, Status> {
    let request = DescribeKeyRequest {
        key_id: key_id.into(),
        grant_tokens: Vec::new(),
    };
    let told = server.keys().await.describe_key(request).await?;
    Ok(told.into_inner().key_metadata.unwrap())
}

async fn disable(server: &Server, key_id: &str) -> Result<(), Status> {
    let key_id = key_id.into();
    let request = DisableKeyRequest { key_id };
    server.keys().await.disable_key(request).await.map(drop)
}

async fn enable(server: &Server, key_id: &str) -> Result<(), Status> {
    let key_id = key_id.into();
    let request = EnableKeyRequest { key_id };
    server.keys().await.enable_key(request).await.map(drop)
}

#[tokio::test]
async fn a_key_s_life_over_grpc() {
    let (token, config) = two_keys().await;
    let server = token.serve(&config).await;
    let mut keys = server.keys().await;
    let right = hmac_sha256(&KEY, b"hello");
    assert_eq!(mac(&server, ONE).await.unwrap(), right);

    // Names.
    let aliased = CreateAliasRequest {
        alias_name: "alias/hooks".into(),
        target_key_id: ONE.into(),
    };
    keys.create_alias(aliased.clone()).await.unwrap();
    assert_eq!(mac(&server, "alias/hooks").await.unwrap(), right);
    let status = keys.create_alias(aliased).await.unwrap_err();
    assert_status(
        &status,
        Code::AlreadyExists,
        "ALREADY_EXISTS",
        "An alias with the name arn:aws:kms:us-west-2:111122223333:alias/hooks already exists",
    );
    keys.update_alias(UpdateAliasRequest {
        alias_name: "alias/hooks".into(),
        target_key_id: arn(TWO),
    })
    .await
    .unwrap();
    let other = hmac_sha256(&OTHER, b"hello");
    assert_eq!(mac(&server, "alias/hooks").await.unwrap(), other);
    let listed = keys
        .list_aliases(ListAliasesRequest::default())
        .await
        .unwrap()
        .into_inner();
    let names: Vec<_> = listed
        .aliases
        .iter()
        .map(|alias| &alias.alias_name)
        .collect();
    assert_eq!(names, ["alias/hooks", "alias/test"]);
    assert_eq!(listed.aliases[0].target_key_id.as_deref(), Some(TWO));
    assert!(listed.aliases[0].creation_date.is_some());
    assert_eq!(listed.aliases[1].creation_date, None);

    // What it is for.
    keys.update_key_description(UpdateKeyDescriptionRequest {
        key_id: ONE.into(),
        description: "webhooks".into(),
    })
    .await
    .unwrap();
    let tag = |key: &str, value: &str| Tag {
        tag_key: key.into(),
        tag_value: value.into(),
    };
    keys.tag_resource(TagResourceRequest {
        key_id: ONE.into(),
        tags: vec![tag("team", "shop"), tag("old", "")],
    })
    .await
    .unwrap();
    keys.untag_resource(UntagResourceRequest {
        key_id: ONE.into(),
        tag_keys: vec!["old".into()],
    })
    .await
    .unwrap();
    let tags = keys
        .list_resource_tags(ListResourceTagsRequest {
            key_id: ONE.into(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(tags.tags, [tag("team", "shop")]);
    assert!(!tags.truncated);

    // Disabled, scheduled, cancelled, enabled: each is told, and outlives a restart.
    disable(&server, ONE).await.unwrap();
    let status = mac(&server, ONE).await.unwrap_err();
    let disabled = format!("{} is disabled.", arn(ONE));
    assert_status(&status, Code::FailedPrecondition, "DISABLED", &disabled);
    let scheduled = keys
        .schedule_key_deletion(ScheduleKeyDeletionRequest {
            key_id: ONE.into(),
            pending_window_in_days: Some(7),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(scheduled.key_id, arn(ONE));
    assert_eq!(scheduled.key_state(), KeyState::PendingDeletion);
    assert_eq!(scheduled.pending_window_in_days, 7);
    assert!(server.terminate().await.success());

    let server = token.serve(&config).await;
    let mut keys = server.keys().await;
    let status = mac(&server, ONE).await.unwrap_err();
    let pending = format!("{} is pending deletion.", arn(ONE));
    assert_status(
        &status,
        Code::FailedPrecondition,
        "KMS_INVALID_STATE",
        &pending,
    );
    let told = describe(&server, ONE).await.unwrap();
    assert_eq!(told.key_state(), KeyState::PendingDeletion);
    assert_eq!(told.deletion_date, scheduled.deletion_date);
    assert_eq!(told.description, "webhooks");
    assert_eq!(mac(&server, "alias/hooks").await.unwrap(), other);

    let cancel = CancelKeyDeletionRequest { key_id: ONE.into() };
    let cancelled = keys.cancel_key_deletion(cancel).await.unwrap();
    assert_eq!(cancelled.into_inner().key_id, arn(ONE));
    let told = describe(&server, ONE).await.unwrap();
    assert_eq!(told.key_state(), KeyState::Disabled);
    assert_eq!(told.deletion_date, None);
    let status = mac(&server, ONE).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "DISABLED", &disabled);
    enable(&server, ONE).await.unwrap();
    assert_eq!(mac(&server, ONE).await.unwrap(), right);

    // The last use, by both services.
    let used = GetKeyLastUsageRequest { key_id: ONE.into() };
    let used = keys.get_key_last_usage(used).await.unwrap().into_inner();
    assert_eq!(used.key_id, arn(ONE));
    assert_eq!(used.key_last_usage.unwrap().operation, "GenerateMac");
    assert!(used.tracking_start_date.is_some() && used.key_creation_date.is_some());

    keys.delete_alias(DeleteAliasRequest {
        alias_name: "alias/hooks".into(),
    })
    .await
    .unwrap();
    let status = mac(&server, "alias/hooks").await.unwrap_err();
    assert_status(
        &status,
        Code::NotFound,
        "NOT_FOUND",
        "alias/hooks is not found.",
    );
}

/// Runs `hsmac kms …`, the words of which stand in one line.
fn kms(token: &Token, line: &str) -> Output {
    let words: Vec<&str> = ["kms"].into_iter().chain(line.split(' ')).collect();
    token.hsmac(&words)
}

/// What `hsmac kms …` prints as JSON.
fn json(token: &Token, line: &str) -> Value {
    let output = kms(token, line);
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{line}: {output:?}"))
}

/// `hsmac kms …` that succeeds and prints nothing.
fn silent(token: &Token, line: &str) {
    let output = kms(token, line);
    assert!(output.status.success(), "{line}: {output:?}");
    assert_eq!((&*output.stdout, &*output.stderr), ("", ""), "{line}");
}

#[tokio::test]
async fn a_key_s_life_on_the_command_line() {
    let (token, config) = two_keys().await;
    let server = token.serve(&config).await;
    silent(
        &token,
        &format!("create-alias --alias-name alias/hooks --target-key-id {ONE}"),
    );
    silent(
        &token,
        &format!("update-alias --alias-name alias/hooks --target-key-id {TWO}"),
    );
    let aliases = json(&token, &format!("list-aliases --key-id {TWO}"));
    assert_eq!(aliases["Aliases"][0]["AliasName"], "alias/hooks");
    assert_eq!(aliases["Aliases"][0]["TargetKeyId"], TWO);
    assert!(aliases["Aliases"][0]["CreationDate"].is_number());
    silent(&token, "delete-alias --alias-name alias/hooks");

    silent(
        &token,
        &format!("update-key-description --key-id {ONE} --description webhooks"),
    );
    silent(
        &token,
        &format!("tag-resource --key-id {ONE} --tags TagKey=team,TagValue=shop TagKey=b,TagValue="),
    );
    silent(
        &token,
        &format!("untag-resource --key-id {ONE} --tag-keys b"),
    );
    let tags = json(&token, &format!("list-resource-tags --key-id {ONE}"));
    assert_eq!(
        tags,
        serde_json::json!({"Tags": [{"TagKey": "team", "TagValue": "shop"}]})
    );
    let text = kms(
        &token,
        &format!("list-resource-tags --key-id {ONE} --output text"),
    );
    assert_eq!(text.stdout, "TAGS\tteam\tshop\n");

    silent(&token, &format!("disable-key --key-id {ONE}"));
    let refused = kms(
        &token,
        &format!("generate-mac --key-id {ONE} --message hi --mac-algorithm HMAC_SHA_256"),
    );
    assert_eq!(refused.status.code(), Some(254));
    let words = format!(
        "An error occurred (DisabledException) when calling the GenerateMac operation: {} is disabled.",
        arn(ONE)
    );
    assert!(refused.stderr.contains(&words), "{}", refused.stderr);
    silent(&token, &format!("enable-key --key-id {ONE}"));

    let scheduled = json(
        &token,
        &format!("schedule-key-deletion --key-id {ONE} --pending-window-in-days 7"),
    );
    assert_eq!(scheduled["KeyId"], arn(ONE));
    assert_eq!(scheduled["KeyState"], "PendingDeletion");
    assert_eq!(scheduled["PendingWindowInDays"], 7);
    let described = json(&token, &format!("describe-key --key-id {ONE}"));
    let metadata = &described["KeyMetadata"];
    assert_eq!(metadata["DeletionDate"], scheduled["DeletionDate"]);
    assert_eq!(metadata["CreationDate"], 1_700_000_000.123);
    assert_eq!(metadata["Origin"], "AWS_KMS");
    assert_eq!(metadata["Enabled"], false);
    let cancelled = json(&token, &format!("cancel-key-deletion --key-id {ONE}"));
    assert_eq!(cancelled, serde_json::json!({ "KeyId": arn(ONE) }));

    let used = json(&token, &format!("get-key-last-usage --key-id {ONE}"));
    assert!(used.get("KeyLastUsage").is_none(), "{used}");
    assert!(used["TrackingStartDate"].is_number());
    drop(server);
}

#[tokio::test]
async fn what_is_refused_is_told_as_kms_tells_it() {
    let (token, config) = two_keys().await;
    let server = token.serve(&config).await;
    let mut keys = server.keys().await;
    let status = disable(&server, "alias/test").await.unwrap_err();
    assert_status(
        &status,
        Code::InvalidArgument,
        "INVALID_ARN",
        "Key Aliases are not supported for this operation.",
    );
    let status = disable(&server, KEY_ID).await.unwrap_err();
    assert_status(
        &status,
        Code::Unimplemented,
        "UNSUPPORTED_OPERATION",
        "is declared in the configuration, which alone can change it.",
    );
    for (alias_name, code, reason, say) in [
        (
            "hooks",
            Code::InvalidArgument,
            "VALIDATION",
            "Alias must start with the prefix \"alias/\".",
        ),
        (
            "alias/",
            Code::InvalidArgument,
            "INVALID_ALIAS_NAME",
            "must have a name",
        ),
        (
            "alias/aws/kms",
            Code::PermissionDenied,
            "NOT_AUTHORIZED",
            "",
        ),
        (
            "alias/test",
            Code::AlreadyExists,
            "ALREADY_EXISTS",
            "already exists",
        ),
    ] {
        let asked = CreateAliasRequest {
            alias_name: alias_name.into(),
            target_key_id: ONE.into(),
        };
        let status = keys.create_alias(asked).await.unwrap_err();
        assert_status(&status, code, reason, say);
    }
    let asked = TagResourceRequest {
        key_id: ONE.into(),
        tags: vec![Tag {
            tag_key: "aws:x".into(),
            tag_value: String::new(),
        }],
    };
    let status = keys.tag_resource(asked).await.unwrap_err();
    assert_status(
        &status,
        Code::InvalidArgument,
        "TAG",
        "Tags beginning with aws: are reserved",
    );
    let status = keys
        .create_key(CreateKeyRequest::default())
        .await
        .unwrap_err();
    assert_status(
        &status,
        Code::Unimplemented,
        "UNSUPPORTED_OPERATION",
        "KeySpec SYMMETRIC_DEFAULT is not supported",
    );
}

#[tokio::test]
async fn without_a_store_nothing_can_be_changed() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let status = disable(&server, KEY_ID).await.unwrap_err();
    assert_status(
        &status,
        Code::Unimplemented,
        "UNSUPPORTED_OPERATION",
        "This service has no store",
    );
    assert!(mac(&server, KEY_ID).await.is_ok());
}

#[tokio::test]
async fn keys_are_described_and_disabled_while_their_token_is_away() {
    let token = Token::empty();
    token.seed(ONE, "a1", "Enabled").await;
    let mut server = token.spawn(&(token.config() + &token.store()));
    server.until_log("listening").await;
    let told = describe(&server, ONE).await.unwrap();
    assert_eq!(told.key_state(), KeyState::Enabled);
    assert_eq!(told.token, None);
    let began = Instant::now();
    disable(&server, ONE).await.unwrap();
    println!("disabled without a token in {:?}", began.elapsed());
    let told = describe(&server, ONE).await.unwrap();
    assert_eq!(told.key_state(), KeyState::Disabled);
    let status = mac(&server, ONE).await.unwrap_err();
    assert_status(
        &status,
        Code::FailedPrecondition,
        "DISABLED",
        "is disabled.",
    );
}

#[tokio::test]
async fn a_key_that_is_declared_and_stored_ends_the_start_with_both_names() {
    let token = Token::with_key();
    token.seed(KEY_ID, "01", "Enabled").await;
    let mut server = token.spawn(&(token.config() + &token.store()));
    let ended = server.ended().await;
    assert_eq!(ended.code(), Some(78), "{}", server.log());
    assert!(
        server.log().matches(KEY_ID).count() >= 2 && server.log().contains("[[key]]"),
        "{}",
        server.log()
    );
}

#[tokio::test]
async fn a_restored_catalogue_serves_nothing_until_it_is_confirmed() {
    let (token, config) = two_keys().await;
    token
        .write(
            "restored",
            serde_json::json!({"at": 1_700_000_000}),
            Expect::Absent,
        )
        .await;
    assert_eq!(Restored::NAME, "restored");
    let mut server = token.serve(&config).await;
    server.until_log("restored from a backup").await;
    let status = mac(&server, ONE).await.unwrap_err();
    assert_status(
        &status,
        Code::FailedPrecondition,
        "DISABLED",
        "is disabled.",
    );
    let status = enable(&server, ONE).await.unwrap_err();
    assert_status(
        &status,
        Code::FailedPrecondition,
        "KMS_INVALID_STATE",
        "restored from a backup",
    );
    // What the configuration declares is not the backup's.
    assert!(mac(&server, KEY_ID).await.is_ok());
}

#[tokio::test]
async fn an_unreadable_record_costs_its_key_alone() {
    let (token, config) = two_keys().await;
    let name = format!("key/111122223333/{ONE}");
    token
        .write(&name, serde_json::json!({"key_id": ONE}), Expect::Any)
        .await;
    let server = token.serve(&config).await;
    let status = mac(&server, ONE).await.unwrap_err();
    let unavailable = format!("{} is unavailable.", arn(ONE));
    assert_status(
        &status,
        Code::FailedPrecondition,
        "KMS_INVALID_STATE",
        &unavailable,
    );
    assert!(mac(&server, TWO).await.is_ok());
    assert!(
        server.log().contains("a key's record cannot be read"),
        "{}",
        server.log()
    );
}

/// Security: disabled means disabled. Callers hammer a key that is disabled and enabled: no call
/// that begins after DisableKey has returned makes a MAC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_that_begins_after_disable_key_returned_makes_a_mac() {
    let (token, config) = two_keys().await;
    let server = token.serve(&config).await;
    let (tell, told) = tokio::sync::watch::channel(None::<Instant>);
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let mut client = server.mac().await;
        let told = told.clone();
        callers.spawn(async move {
            let mut made = 0_u32;
            loop {
                let before = *told.borrow();
                let mut request = request(b"hello");
                request.key_id = ONE.into();
                match client.generate_mac(request).await {
                    Ok(_) => {
                        // Disabled before the call began, and until after it ended.
                        let after = *told.borrow();
                        assert!(
                            before.is_none() || before != after,
                            "a MAC of a disabled key"
                        );
                        made += 1;
                    }
                    Err(status) => {
                        assert_status(&status, Code::FailedPrecondition, "DISABLED", "disabled.");
                        if told.has_changed().is_err() {
                            return made;
                        }
                    }
                }
            }
        });
    }
    let rounds = if crate::support::long() { 200 } else { 20 };
    for round in 0..rounds {
        tokio::time::timeout(LIMIT, disable(&server, ONE))
            .await
            .unwrap()
            .unwrap_or_else(|status| panic!("round {round}: {}", said(&status)));
        tell.send_replace(Some(Instant::now()));
        assert!(mac(&server, ONE).await.is_err());
        tell.send_replace(None);
        enable(&server, ONE).await.unwrap();
        // It serves again.
        mac(&server, ONE).await.unwrap();
    }
    disable(&server, ONE).await.unwrap();
    drop(tell);
    let mut made = 0;
    while let Some(caller) = callers.join_next().await {
        made += caller.unwrap();
    }
    println!("{made} MACs between {rounds} times disabled");
    assert!(made > 0);
    assert!(
        mac(&server, TWO).await.is_ok(),
        "the other key was not touched"
    );
}

/// Somebody deletes the file, or moves it: keys serve, changes are refused and say why, operators are told,
/// and what is put back is used again. Without it the next start does not begin with an empty catalogue.
#[tokio::test]
async fn a_catalogue_that_is_gone_is_noticed_and_never_begun_anew() {
    let (token, config) = two_keys().await;
    let mut server = token.serve(&config).await;
    let (database, aside) = (token.path("catalogue.db"), token.path("aside.db"));
    assert!(mac(&server, ONE).await.is_ok());
    std::fs::rename(&database, &aside).unwrap();
    let refused = disable(&server, ONE).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused:?}");
    server.until_log("event=store_unwritable").await;
    let log = server.log();
    assert!(
        log.contains("catalogue.db was removed or replaced"),
        "{log}"
    );
    assert!(mac(&server, ONE).await.is_ok(), "keys serve from memory");

    std::fs::rename(&aside, &database).unwrap();
    disable(&server, ONE).await.unwrap();
    server.until_log("event=store_writable").await;
    assert_eq!(server.log().matches("event=store_unwritable").count(), 1);

    std::fs::rename(&database, &aside).unwrap();
    assert!(server.terminate().await.success());
    let mut server = token.spawn(&config);
    assert_eq!(server.ended().await.code(), Some(78));
    let log = server.log();
    assert!(log.contains("bring the catalogue back"), "{log}");
    std::fs::rename(&aside, &database).unwrap();
    let server = token.serve(&config).await;
    assert!(mac(&server, TWO).await.is_ok());
    let told = describe(&server, ONE).await.unwrap();
    assert_eq!(told.key_state(), KeyState::Disabled, "no change is lost");
}
