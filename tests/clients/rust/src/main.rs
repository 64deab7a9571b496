//! AWS's SDK for Rust against a real hsmac. Run by aws_program.py.

mod checks;

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{Config, Credentials, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::{RequestId, generate_mac::GenerateMacOutput};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec, KeyState, KeyUsageType, MacAlgorithmSpec, Tag};

use checks::{Key, Known, holds, same};

/// Ends a hang; nothing takes long.
const LIMIT: Duration = Duration::from_secs(60);

type Done = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let known: Known = serde_json::from_reader(io::stdin()).expect("what is known is JSON");
    match tokio::time::timeout(LIMIT, walk(&known)).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => holds("the walk comes to its end", false, fault),
        Err(_) => holds("the walk ends in time", false, LIMIT),
    }
    println!("aws-sdk-kms {}", aws_sdk_kms::meta::PKG_VERSION);
    ExitCode::from(u8::from(checks::failed()))
}

async fn walk(known: &Known) -> Done {
    let kms = client(known, &known.secret_access_key);
    for key in &known.keys {
        macs(&kms, key).await?;
    }
    let key = &known.keys[1];
    refusals(&kms, known, key).await;
    life(&kms).await?;
    names_and_tags(&kms, key).await?;
    pages(&kms, known).await?;
    refused(
        "a wrong secret",
        client(known, "x").list_keys().send().await,
        "InvalidSignatureException",
    );
    Ok(())
}

/// This is all that moving from AWS takes: the endpoint. Without retries every answer is seen.
fn client(known: &Known, secret: &str) -> Client {
    let credentials = Credentials::new(&known.access_key_id, secret, None, None, "hsmac's tests");
    let config = Config::builder()
        .endpoint_url(&known.endpoint)
        .region(Region::new(known.region.clone()))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}

async fn macs(kms: &Client, key: &Key) -> Done {
    let message = b"a message from Rust";
    let right = key.mac(message);
    for name in [&key.id, &key.arn, &key.alias, &key.alias_arn] {
        let made = generate(kms, name, &key.algorithm, message).await?;
        let told = (made.key_id(), made.mac().map(Blob::as_ref));
        same(
            &format!("GenerateMac by {name}"),
            told,
            (Some(&*key.arn), Some(&*right)),
        );
    }
    let verify = |mac: &[u8]| {
        let call = kms
            .verify_mac()
            .key_id(&key.id)
            .message(Blob::new(message))
            .mac(Blob::new(mac));
        call.mac_algorithm(key.algorithm.as_str().into()).send()
    };
    same(
        &format!("VerifyMac {}", key.algorithm),
        verify(&right).await?.mac_valid(),
        true,
    );
    let wrong = verify(&key.mac(b"another message"))
        .await
        .map_err(SdkError::into_service_error);
    let is_class = wrong
        .as_ref()
        .is_err_and(|fault| fault.is_kms_invalid_mac_exception());
    holds(
        &format!("{}: a wrong MAC: KmsInvalidMacException", key.algorithm),
        is_class,
        wrong,
    );
    Ok(())
}

async fn generate(
    kms: &Client,
    name: &str,
    algorithm: &str,
    message: &[u8],
) -> Result<GenerateMacOutput, SdkError<aws_sdk_kms::operation::generate_mac::GenerateMacError>> {
    let call = kms.generate_mac().key_id(name).message(Blob::new(message));
    call.mac_algorithm(algorithm.into()).send().await
}

async fn refusals(kms: &Client, known: &Known, key: &Key) {
    let algorithm = key.algorithm.as_str();
    for (what, name, algorithm, message, exception) in [
        (
            "an unknown key",
            &known.nobody,
            algorithm,
            &b"m"[..],
            "NotFoundException",
        ),
        (
            "another spec's algorithm",
            &key.alias,
            "HMAC_SHA_512",
            b"m",
            "InvalidKeyUsageException",
        ),
        (
            "an unknown algorithm",
            &key.alias,
            "HMAC_MD5",
            b"m",
            "ValidationException",
        ),
        (
            "an empty message",
            &key.alias,
            algorithm,
            b"",
            "ValidationException",
        ),
        (
            "4,097 bytes",
            &key.alias,
            algorithm,
            &[0; 4097],
            "ValidationException",
        ),
    ] {
        let answer = generate(kms, name, algorithm, message).await;
        refused(&format!("GenerateMac with {what}"), answer, exception);
    }
    let dry = kms
        .generate_mac()
        .key_id(&key.id)
        .message(Blob::new("m"))
        .dry_run(true);
    let dry = dry.mac_algorithm(MacAlgorithmSpec::HmacSha256).send().await;
    refused("a dry run", dry, "DryRunOperationException");
    refused(
        "DisableKey by alias",
        kms.disable_key().key_id(&key.alias).send().await,
        "InvalidArnException",
    );
    let declared = kms.disable_key().key_id(&known.declared).send().await;
    refused("a declared key", declared, "UnsupportedOperationException");
    refused(
        "a made-up marker",
        kms.list_keys().marker("nonsense").send().await,
        "InvalidMarkerException",
    );
}

async fn life(kms: &Client) -> Done {
    let call = kms
        .create_key()
        .key_spec(KeySpec::Hmac256)
        .description("from Rust");
    let made = call
        .key_usage(KeyUsageType::GenerateVerifyMac)
        .send()
        .await?;
    let made = made.key_metadata().ok_or("CreateKey tells no metadata")?;
    let told = (made.key_spec(), made.key_state(), made.mac_algorithms());
    let expected = (
        Some(&KeySpec::Hmac256),
        Some(&KeyState::Enabled),
        &[MacAlgorithmSpec::HmacSha256][..],
    );
    same("CreateKey", told, expected);
    let id = made.key_id();
    let mac = || generate(kms, id, "HMAC_SHA_256", b"m");
    let before = mac().await?;
    kms.disable_key().key_id(id).send().await?;
    refused(
        "GenerateMac with a disabled key",
        mac().await,
        "DisabledException",
    );
    kms.enable_key().key_id(id).send().await?;
    same(
        "the same MAC once it is enabled",
        mac().await?.mac,
        before.mac,
    );
    let scheduled = kms
        .schedule_key_deletion()
        .key_id(id)
        .pending_window_in_days(7)
        .send()
        .await?;
    let told = (
        scheduled.key_id(),
        scheduled.key_state(),
        scheduled.pending_window_in_days(),
    );
    same(
        "ScheduleKeyDeletion",
        told,
        (made.arn(), Some(&KeyState::PendingDeletion), Some(7)),
    );
    refused(
        "GenerateMac with it",
        mac().await,
        "KMSInvalidStateException",
    );
    kms.cancel_key_deletion().key_id(id).send().await?;
    let told = kms.describe_key().key_id(id).send().await?;
    let state = told
        .key_metadata()
        .and_then(|metadata| metadata.key_state());
    same(
        "its state once that is cancelled",
        state,
        Some(&KeyState::Disabled),
    );
    Ok(())
}

async fn names_and_tags(kms: &Client, key: &Key) -> Done {
    let create = |name: &str| {
        kms.create_alias()
            .alias_name(name)
            .target_key_id(&key.id)
            .send()
    };
    create("alias/rust").await?;
    refused(
        "CreateAlias again",
        create("alias/rust").await,
        "AlreadyExistsException",
    );
    refused(
        "an alias without a name",
        create("alias/").await,
        "InvalidAliasNameException",
    );
    kms.delete_alias().alias_name("alias/rust").send().await?;
    let tag = |name: &str| Tag::builder().tag_key(name).tag_value("1").build();
    kms.tag_resource()
        .key_id(&key.id)
        .tags(tag("rust")?)
        .send()
        .await?;
    let tagged = kms
        .tag_resource()
        .key_id(&key.id)
        .tags(tag("aws:rust")?)
        .send()
        .await;
    refused("a tag of AWS's", tagged, "TagException");
    Ok(())
}

async fn pages(kms: &Client, known: &Known) -> Done {
    let whole = kms.list_keys().send().await?.keys.unwrap_or_default();
    let (mut pages, mut joined) = (
        kms.list_keys().into_paginator().page_size(2).send(),
        Vec::new(),
    );
    while let Some(page) = pages.next().await {
        let page = page?.keys.unwrap_or_default();
        holds("list_keys: at most 2 on a page", page.len() <= 2, &page);
        joined.extend(page);
    }
    same("list_keys: its pages joined", joined, whole);
    let aliases = kms
        .list_aliases()
        .into_paginator()
        .page_size(2)
        .items()
        .send();
    let aliases = aliases.try_collect().await?;
    let targets: HashMap<_, _> = aliases
        .iter()
        .map(|one| (one.alias_name(), one.target_key_id()))
        .collect();
    for key in &known.keys {
        let target = targets.get(&Some(key.alias.as_str())).copied().flatten();
        same(
            &format!("list_aliases: {}", key.alias),
            target,
            Some(key.id.as_str()),
        );
    }
    Ok(())
}

/// An error of this name, with a request ID.
fn refused<T, E>(what: &str, answer: Result<T, SdkError<E>>, name: &str)
where
    T: std::fmt::Debug,
    E: ProvideErrorMetadata + std::fmt::Debug,
    SdkError<E>: RequestId,
{
    let good = answer
        .as_ref()
        .is_err_and(|fault| fault.code() == Some(name) && fault.request_id().is_some());
    holds(&format!("{what}: {name}"), good, answer);
}
