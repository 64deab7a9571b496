//! The verbs that create keys, describe them and change their state.

use clap::{ArgAction, Args, Subcommand};

use super::{
    KmsClient, blob, output,
    pages::{Page, Pages},
    tags::{self, Tags},
};
use crate::{
    cli::CliError,
    proto::v1::{
        CancelKeyDeletionRequest, CreateKeyRequest, DescribeKeyRequest, DisableKeyRequest,
        EnableKeyRequest, GetKeyLastUsageRequest, KeyMetadata, KeySpec, KeyUsage, ListKeysRequest,
        Origin, ScheduleKeyDeletionRequest, UpdateKeyDescriptionRequest,
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a key inside the token; its value never leaves it.
    CreateKey(CreateKeyArguments),
    /// What is known of a key.
    DescribeKey(DescribeKeyArguments),
    /// The account's keys: all pages, unless --limit or --marker asks for one.
    ListKeys(ListKeysArguments),
    /// Give a key another description.
    UpdateKeyDescription(UpdateKeyDescriptionArguments),
    /// Let a disabled key serve again.
    EnableKey(OnlyKey),
    /// Stop a key from serving. When this ends no call makes a MAC with it any more.
    DisableKey(OnlyKey),
    /// Stop a key from serving, and delete it after a window of 7 to 30 days.
    ScheduleKeyDeletion(ScheduleKeyDeletionArguments),
    /// Keep a key whose deletion was scheduled. It is disabled then: enable-key lets it serve.
    CancelKeyDeletion(OnlyKey),
    /// When a key last made or checked a MAC: worth a look before it is deleted.
    GetKeyLastUsage(OnlyKey),
}

#[derive(Args, Debug)]
pub(super) struct CreateKeyArguments {
    /// What the key is for; at most 8,192 characters.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// The key's length, and with it the one algorithm that it fits. Must be given.
    #[arg(long, value_parser = ["HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512"])]
    key_spec: Option<String>,
    /// Must be given: KMS assumes another kind of key otherwise.
    #[arg(long, value_parser = ["GENERATE_VERIFY_MAC"])]
    key_usage: Option<String>,
    /// Where the key's value comes from; default AWS_KMS, which is the token.
    #[arg(long, value_parser = ["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM"])]
    origin: Option<String>,
    /// Tags: TagKey=KEY,TagValue=VALUE for each, or a JSON list.
    #[arg(long, num_args = 1.., value_name = "TAG", value_parser = tags::parse)]
    tags: Vec<Tags>,
    /// The key's policy, an IAM JSON document: the text, or file://PATH. Without it the account's
    /// principals use the key as their own policies say.
    #[arg(long, value_parser = blob::document)]
    policy: Option<String>,
    /// Not supported.
    #[arg(long, overrides_with = "no_multi_region")]
    multi_region: bool,
    /// The default.
    #[arg(long, action = ArgAction::SetTrue)]
    no_multi_region: bool,
    /// Let the policy take from you the right to write another one.
    #[arg(long, overrides_with = "no_bypass_policy_lockout_safety_check")]
    bypass_policy_lockout_safety_check: bool,
    /// The default.
    #[arg(long, action = ArgAction::SetTrue)]
    no_bypass_policy_lockout_safety_check: bool,
}

#[derive(Args, Debug)]
pub(super) struct DescribeKeyArguments {
    /// Key ID, key ARN, alias name (alias/…) or alias ARN.
    #[arg(long)]
    key_id: String,
    /// Grant tokens.
    #[arg(long, num_args = 1.., value_name = "TOKEN")]
    grant_tokens: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct ListKeysArguments {
    #[command(flatten)]
    pages: Pages,
}

#[derive(Args, Debug)]
pub(super) struct UpdateKeyDescriptionArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    /// At most 8,192 characters; may be empty.
    #[arg(long)]
    description: String,
}

#[derive(Args, Debug)]
pub(super) struct OnlyKey {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
}

#[derive(Args, Debug)]
pub(super) struct ScheduleKeyDeletionArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    /// 7 to 30; default 30. Until then cancel-key-deletion keeps the key.
    #[arg(long)]
    pending_window_in_days: Option<i32>,
}

impl KmsClient {
    pub(super) async fn key_verb(&self, verb: Verb) -> Result<output::CommandOutput, CliError> {
        match verb {
            Verb::CreateKey(verb) => self.create_key(verb).await,
            Verb::DescribeKey(verb) => self.describe_key(verb).await,
            Verb::ListKeys(verb) => self.list_keys(verb).await,
            Verb::UpdateKeyDescription(verb) => self.update_key_description(verb).await,
            Verb::EnableKey(OnlyKey { key_id }) => {
                let request = self.request(EnableKeyRequest { key_id });
                let reply = self.key_service().enable_key(request).await;
                self.done("EnableKey", reply)
            }
            Verb::DisableKey(OnlyKey { key_id }) => {
                let request = self.request(DisableKeyRequest { key_id });
                let reply = self.key_service().disable_key(request).await;
                self.done("DisableKey", reply)
            }
            Verb::ScheduleKeyDeletion(verb) => self.schedule_key_deletion(verb).await,
            Verb::CancelKeyDeletion(OnlyKey { key_id }) => {
                let request = self.request(CancelKeyDeletionRequest { key_id });
                let reply = self.key_service().cancel_key_deletion(request).await;
                let reply = self.answer("CancelKeyDeletion", reply)?;
                Ok(output::keys::cancel_key_deletion(reply))
            }
            Verb::GetKeyLastUsage(OnlyKey { key_id }) => {
                let request = self.request(GetKeyLastUsageRequest { key_id });
                let reply = self.key_service().get_key_last_usage(request).await;
                let reply = self.answer("GetKeyLastUsage", reply)?;
                Ok(output::keys::get_key_last_usage(reply))
            }
        }
    }

    async fn create_key(
        &self,
        verb: CreateKeyArguments,
    ) -> Result<output::CommandOutput, CliError> {
        // clap lets only names of the contract pass.
        let number = |name: Option<String>, number: fn(&str) -> Option<i32>| {
            name.and_then(|name| number(&name)).unwrap_or_default()
        };
        let request = CreateKeyRequest {
            policy: verb.policy,
            description: verb.description,
            key_usage: number(verb.key_usage, |name| {
                KeyUsage::from_str_name(name).map(Into::into)
            }),
            key_spec: number(verb.key_spec, |name| {
                KeySpec::from_str_name(name).map(Into::into)
            }),
            origin: number(verb.origin, |name| {
                Origin::from_str_name(name).map(Into::into)
            }),
            tags: tags::all(verb.tags),
            multi_region: verb.multi_region,
            bypass_policy_lockout_safety_check: verb.bypass_policy_lockout_safety_check,
        };
        let reply = self.key_service().create_key(self.request(request)).await;
        let reply = self.answer("CreateKey", reply)?;
        Ok(output::keys::metadata(&there(reply.key_metadata)?))
    }

    async fn describe_key(
        &self,
        verb: DescribeKeyArguments,
    ) -> Result<output::CommandOutput, CliError> {
        let request = DescribeKeyRequest {
            key_id: verb.key_id,
            grant_tokens: verb.grant_tokens,
        };
        let reply = self.key_service().describe_key(self.request(request)).await;
        let reply = self.answer("DescribeKey", reply)?;
        Ok(output::keys::metadata(&there(reply.key_metadata)?))
    }

    async fn list_keys(&self, verb: ListKeysArguments) -> Result<output::CommandOutput, CliError> {
        let listed = verb.pages.fetch(async |limit, marker| {
            let request = self.request(ListKeysRequest { limit, marker });
            let page = self.answer("ListKeys", self.key_service().list_keys(request).await)?;
            Ok(Page {
                entries: page.keys,
                next_marker: page.next_marker,
                truncated: page.truncated,
            })
        });
        Ok(output::keys::list_keys(listed.await?))
    }

    async fn update_key_description(
        &self,
        verb: UpdateKeyDescriptionArguments,
    ) -> Result<output::CommandOutput, CliError> {
        let request = self.request(UpdateKeyDescriptionRequest {
            key_id: verb.key_id,
            description: verb.description,
        });
        let reply = self.key_service().update_key_description(request).await;
        self.done("UpdateKeyDescription", reply)
    }

    async fn schedule_key_deletion(
        &self,
        verb: ScheduleKeyDeletionArguments,
    ) -> Result<output::CommandOutput, CliError> {
        let request = self.request(ScheduleKeyDeletionRequest {
            key_id: verb.key_id,
            pending_window_in_days: verb.pending_window_in_days,
        });
        let reply = self.key_service().schedule_key_deletion(request).await;
        let reply = self.answer("ScheduleKeyDeletion", reply)?;
        Ok(output::keys::schedule_key_deletion(&reply))
    }
}

fn there(metadata: Option<KeyMetadata>) -> Result<KeyMetadata, CliError> {
    metadata.ok_or_else(|| CliError::Client(255, "the server answered without KeyMetadata".into()))
}
