//! Responses of the operations on keys, with KMS's members.

use std::sync::Arc;

use serde::Serialize;

use super::super::json::{seconds, seconds_if_any};
use crate::{
    kms::{self, AliasPage, KeyLastUsage, KeyMetadata, KeyPage, TagPage},
    model::{Date, KeyState, KeyUsage},
};

/// CreateKey and DescribeKey.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Key {
    key_metadata: Metadata,
}

/// KMS: KeyMetadata. What hsmac knows of the token besides is told over gRPC only: AWS's clients have
/// no name for it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    #[serde(rename = "AWSAccountId")]
    aws_account_id: String,
    key_id: String,
    arn: Arc<str>,
    #[serde(
        serialize_with = "seconds_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    creation_date: Option<Date>,
    enabled: bool,
    description: String,
    key_usage: &'static str,
    key_state: &'static str,
    #[serde(
        serialize_with = "seconds_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    deletion_date: Option<Date>,
    origin: &'static str,
    key_manager: &'static str,
    customer_master_key_spec: &'static str,
    key_spec: &'static str,
    multi_region: bool,
    mac_algorithms: [&'static str; 1],
}

impl From<KeyMetadata> for Key {
    fn from(key: KeyMetadata) -> Self {
        let key_metadata = Metadata {
            aws_account_id: key.account.to_string(),
            key_id: key.key_id.to_string(),
            arn: key.arn,
            creation_date: key.created,
            enabled: key.state == KeyState::Enabled,
            description: key.description.as_str().to_owned(),
            key_usage: KeyUsage::GenerateVerifyMac.name(),
            key_state: key.state.name(),
            deletion_date: key.deletion_date,
            origin: key.origin.name(),
            key_manager: "CUSTOMER",
            customer_master_key_spec: key.spec.name(),
            key_spec: key.spec.name(),
            multi_region: false,
            mac_algorithms: [key.spec.mac_algorithm().name()],
        };
        Self { key_metadata }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Keys {
    keys: Vec<KeyListEntry>,
    #[serde(flatten)]
    page: Page,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyListEntry {
    key_arn: Arc<str>,
    key_id: String,
}

impl From<KeyPage> for Keys {
    fn from(page: KeyPage) -> Self {
        let entry = |key: kms::ListedKey| KeyListEntry {
            key_arn: key.arn,
            key_id: key.key_id.to_string(),
        };
        Self {
            keys: page.keys.into_iter().map(entry).collect(),
            page: page.next_marker.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Aliases {
    aliases: Vec<AliasListEntry>,
    #[serde(flatten)]
    page: Page,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AliasListEntry {
    alias_arn: String,
    alias_name: String,
    #[serde(
        serialize_with = "seconds_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    creation_date: Option<Date>,
    #[serde(
        serialize_with = "seconds_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    last_updated_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_key_id: Option<String>,
}

impl From<AliasPage> for Aliases {
    fn from(page: AliasPage) -> Self {
        let entry = |alias: kms::ListedAlias| AliasListEntry {
            alias_arn: alias.arn,
            alias_name: alias.name.to_string(),
            creation_date: alias.created,
            last_updated_date: alias.updated,
            target_key_id: alias.target_key_id.map(|id| id.to_string()),
        };
        Self {
            aliases: page.aliases.into_iter().map(entry).collect(),
            page: page.next_marker.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tags {
    tags: Vec<Tag>,
    #[serde(flatten)]
    page: Page,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    tag_key: String,
    tag_value: String,
}

impl From<TagPage> for Tags {
    fn from(page: TagPage) -> Self {
        let tag = |tag: &crate::model::Tag| Tag {
            tag_key: tag.key().to_owned(),
            tag_value: tag.value().to_owned(),
        };
        Self {
            tags: page.tags.iter().map(tag).collect(),
            page: page.next_marker.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Policy<'a> {
    pub(super) policy: &'a str,
    pub(super) policy_name: &'a str,
}

/// ListKeyPolicies.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PolicyNames {
    policy_names: [&'static str; 1],
    #[serde(flatten)]
    page: Page,
}

impl PolicyNames {
    pub(super) fn of(policy_names: [&'static str; 1]) -> Self {
        Self {
            policy_names,
            page: Page::default(),
        }
    }
}

/// ListKeyRotations.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NoRotations {
    rotations: [(); 0],
    #[serde(flatten)]
    page: Page,
}

/// DescribeCustomKeyStores.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NoCustomKeyStores {
    custom_key_stores: [(); 0],
    #[serde(flatten)]
    page: Page,
}

/// The pagination members of every list.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Page {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    truncated: bool,
}

impl From<Option<String>> for Page {
    fn from(next_marker: Option<String>) -> Self {
        Self {
            truncated: next_marker.is_some(),
            next_marker,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DeletionScheduled {
    #[serde(serialize_with = "seconds")]
    deletion_date: Date,
    key_id: Arc<str>,
    key_state: &'static str,
    pending_window_in_days: u32,
}

impl From<kms::DeletionScheduled> for DeletionScheduled {
    fn from(scheduled: kms::DeletionScheduled) -> Self {
        Self {
            deletion_date: scheduled.deletion_date,
            key_id: scheduled.key_id,
            key_state: scheduled.key_state.name(),
            pending_window_in_days: scheduled.pending_window_in_days,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OnlyKeyId<'a> {
    pub(super) key_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RotationStatus<'a> {
    pub(super) key_id: &'a str,
    pub(super) key_rotation_enabled: bool,
}

/// GetKeyLastUsage.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LastUsage {
    #[serde(
        serialize_with = "seconds_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    key_creation_date: Option<Date>,
    key_id: Arc<str>,
    key_last_usage: Used,
    #[serde(serialize_with = "seconds")]
    tracking_start_date: Date,
}

/// Empty if the key was never used.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Used {
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'static str>,
    #[serde(
        serialize_with = "seconds_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    timestamp: Option<Date>,
}

impl From<KeyLastUsage> for LastUsage {
    fn from(usage: KeyLastUsage) -> Self {
        let (operation, timestamp) = usage.last.unzip();
        Self {
            key_creation_date: usage.key_creation,
            key_id: usage.key_id,
            key_last_usage: Used {
                operation: operation.map(crate::model::Operation::name),
                timestamp,
            },
            tracking_start_date: usage.tracking_start,
        }
    }
}
