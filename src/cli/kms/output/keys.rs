//! Answers of KeyService.

use serde::Serialize;

use super::{CommandOutput, PageMembers};
use crate::{
    cli::kms::{pages::Listed, seconds},
    proto::v1::{
        self, AliasListEntry, CancelKeyDeletionResponse, GetKeyLastUsageResponse, KeyListEntry,
        KeyMetadata, MacAlgorithm, ScheduleKeyDeletionResponse,
    },
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    key_metadata: KeyMetadataMembers,
}

/// Members in the order of AWS's model; then ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyMetadataMembers {
    #[serde(rename = "AWSAccountId")]
    aws_account_id: String,
    key_id: String,
    arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_date: Option<f64>,
    enabled: bool,
    description: String,
    key_usage: &'static str,
    key_state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_date: Option<f64>,
    origin: &'static str,
    key_manager: &'static str,
    /// The old name of `key_spec`, which AWS keeps.
    customer_master_key_spec: &'static str,
    key_spec: &'static str,
    multi_region: bool,
    mac_algorithms: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenMembers>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TokenMembers {
    name: String,
    label: String,
    manufacturer: String,
    model: String,
    serial_number: String,
    sensitive: bool,
    non_extractable: bool,
    never_extractable: bool,
    local: bool,
    check_value: String,
    check_value_pinned: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyList {
    keys: Vec<KeyEntry>,
    #[serde(flatten)]
    page: PageMembers,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyEntry {
    key_id: String,
    key_arn: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AliasList {
    aliases: Vec<AliasEntry>,
    #[serde(flatten)]
    page: PageMembers,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AliasEntry {
    alias_name: String,
    alias_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_date: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_updated_date: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TagList {
    tags: Vec<TagEntry>,
    #[serde(flatten)]
    page: PageMembers,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TagEntry {
    tag_key: String,
    tag_value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Scheduled {
    key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_date: Option<f64>,
    key_state: String,
    pending_window_in_days: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Cancelled {
    key_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyLastUsage {
    key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_last_usage: Option<LastUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_start_date: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_creation_date: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LastUsage {
    operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<f64>,
}

pub(in crate::cli::kms) fn metadata(metadata: &KeyMetadata) -> CommandOutput {
    let spec = metadata.key_spec().as_str_name();
    CommandOutput::of(&Described {
        key_metadata: KeyMetadataMembers {
            aws_account_id: metadata.aws_account_id.clone(),
            key_id: metadata.key_id.clone(),
            arn: metadata.arn.clone(),
            creation_date: metadata.creation_date.map(seconds),
            enabled: metadata.enabled,
            description: metadata.description.clone(),
            key_usage: metadata.key_usage().as_str_name(),
            key_state: in_camel_case(metadata.key_state().as_str_name()),
            deletion_date: metadata.deletion_date.map(seconds),
            origin: metadata.origin().as_str_name(),
            key_manager: metadata.key_manager().as_str_name(),
            customer_master_key_spec: spec,
            key_spec: spec,
            multi_region: metadata.multi_region,
            mac_algorithms: metadata
                .mac_algorithms()
                .map(|name: MacAlgorithm| name.as_str_name())
                .collect(),
            token: metadata.token.as_ref().map(|token| TokenMembers {
                name: token.name.clone(),
                label: token.label.clone(),
                manufacturer: token.manufacturer.clone(),
                model: token.model.clone(),
                serial_number: token.serial_number.clone(),
                sensitive: token.sensitive,
                non_extractable: token.non_extractable,
                never_extractable: token.never_extractable,
                local: token.local,
                check_value: token.check_value.clone(),
                check_value_pinned: token.check_value_pinned,
            }),
        },
    })
}

pub(in crate::cli::kms) fn list_keys(listed: Listed<KeyListEntry>) -> CommandOutput {
    let page = PageMembers::of(&listed);
    let keys = listed.entries.into_iter().map(|key| KeyEntry {
        key_id: key.key_id,
        key_arn: key.key_arn,
    });
    CommandOutput::of(&KeyList {
        keys: keys.collect(),
        page,
    })
}

pub(in crate::cli::kms) fn list_aliases(listed: Listed<AliasListEntry>) -> CommandOutput {
    let page = PageMembers::of(&listed);
    let aliases = listed.entries.into_iter().map(|alias| AliasEntry {
        alias_name: alias.alias_name,
        alias_arn: alias.alias_arn,
        target_key_id: alias.target_key_id,
        creation_date: alias.creation_date.map(seconds),
        last_updated_date: alias.last_updated_date.map(seconds),
    });
    CommandOutput::of(&AliasList {
        aliases: aliases.collect(),
        page,
    })
}

pub(in crate::cli::kms) fn list_resource_tags(listed: Listed<v1::Tag>) -> CommandOutput {
    let page = PageMembers::of(&listed);
    let tags = listed.entries.into_iter().map(|tag| TagEntry {
        tag_key: tag.tag_key,
        tag_value: tag.tag_value,
    });
    CommandOutput::of(&TagList {
        tags: tags.collect(),
        page,
    })
}

pub(in crate::cli::kms) fn schedule_key_deletion(
    reply: &ScheduleKeyDeletionResponse,
) -> CommandOutput {
    CommandOutput::of(&Scheduled {
        key_id: reply.key_id.clone(),
        deletion_date: reply.deletion_date.map(seconds),
        key_state: in_camel_case(reply.key_state().as_str_name()),
        pending_window_in_days: reply.pending_window_in_days,
    })
}

pub(in crate::cli::kms) fn cancel_key_deletion(reply: CancelKeyDeletionResponse) -> CommandOutput {
    CommandOutput::of(&Cancelled {
        key_id: reply.key_id,
    })
}

pub(in crate::cli::kms) fn get_key_last_usage(reply: GetKeyLastUsageResponse) -> CommandOutput {
    CommandOutput::of(&KeyLastUsage {
        key_id: reply.key_id,
        key_last_usage: reply.key_last_usage.map(|last| LastUsage {
            operation: last.operation,
            timestamp: last.timestamp.map(seconds),
        }),
        tracking_start_date: reply.tracking_start_date.map(seconds),
        key_creation_date: reply.key_creation_date.map(seconds),
    })
}

/// `PENDING_DELETION` → `PendingDeletion`.
fn in_camel_case(name: &str) -> String {
    name.split('_')
        .flat_map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            [first.to_owned(), rest.to_lowercase()]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::cli::kms::OutputFormat;
    use crate::proto::v1::{KeyManager, KeySpec, KeyState, KeyUsage, Origin, TokenInfo};

    #[test]
    fn keys_and_pages() {
        let listed = |next_marker: Option<&str>, truncated| Listed {
            entries: vec![KeyListEntry {
                key_id: "a".into(),
                key_arn: "arn:a".into(),
            }],
            next_marker: next_marker.map(str::to_owned),
            truncated,
            next_token: None,
        };
        assert_eq!(
            list_keys(listed(None, None)).json,
            "{\n    \"Keys\": [\n        {\n            \"KeyId\": \"a\",\n            \"KeyArn\": \"arn:a\"\n        }\n    ]\n}\n"
        );
        assert_eq!(
            list_keys(listed(None, None)).printed(OutputFormat::Text),
            "KEYS\tarn:a\ta\n"
        );
        assert_eq!(
            list_keys(listed(Some("m"), Some(true))).printed(OutputFormat::Text),
            "m\tTrue\nKEYS\tarn:a\ta\n"
        );
        assert_eq!(list_keys(Listed::default()).printed(OutputFormat::Text), "");
    }

    #[test]
    fn aliases_and_tags_as_aws_prints_them() {
        let date = |seconds| {
            Some(Timestamp {
                seconds,
                nanos: 214_000_000,
            })
        };
        let aliases = list_aliases(Listed {
            entries: vec![AliasListEntry {
                alias_name: "alias/a".into(),
                alias_arn: "arn:a".into(),
                target_key_id: Some("k".into()),
                creation_date: date(1_669_973_196),
                last_updated_date: date(1_669_973_197),
            }],
            ..Listed::default()
        });
        assert!(
            aliases.json.contains("\"CreationDate\": 1669973196.214,"),
            "{}",
            aliases.json
        );
        assert_eq!(
            aliases.printed(OutputFormat::Text),
            "ALIASES\tarn:a\talias/a\t1669973196.214\t1669973197.214\tk\n"
        );
        let tags = list_resource_tags(Listed {
            entries: vec![v1::Tag {
                tag_key: "team".into(),
                tag_value: "shop".into(),
            }],
            truncated: Some(false),
            ..Listed::default()
        });
        assert_eq!(
            tags.printed(OutputFormat::Text),
            "False\nTAGS\tteam\tshop\n"
        );
        assert_eq!(CommandOutput::nothing().json, "");
    }

    #[test]
    fn a_deletion_and_a_last_use_as_aws_prints_them() {
        let scheduled = schedule_key_deletion(&ScheduleKeyDeletionResponse {
            key_id: "arn:k".into(),
            deletion_date: Some(Timestamp {
                seconds: 1_669_973_196,
                nanos: 0,
            }),
            key_state: KeyState::PendingDeletion.into(),
            pending_window_in_days: 7,
        });
        assert_eq!(
            scheduled.json,
            "{\n    \"KeyId\": \"arn:k\",\n    \"DeletionDate\": 1669973196.0,\n    \"KeyState\": \"PendingDeletion\",\n    \"PendingWindowInDays\": 7\n}\n"
        );
        let never = get_key_last_usage(GetKeyLastUsageResponse {
            key_id: "arn:k".into(),
            ..Default::default()
        });
        assert_eq!(never.json, "{\n    \"KeyId\": \"arn:k\"\n}\n");
    }

    #[test]
    fn metadata_has_the_names_of_aws() {
        let answer = metadata(&KeyMetadata {
            aws_account_id: "111122223333".into(),
            key_id: "k".into(),
            arn: "arn:k".into(),
            enabled: true,
            key_usage: KeyUsage::GenerateVerifyMac.into(),
            key_state: KeyState::PendingDeletion.into(),
            origin: Origin::AwsCloudhsm.into(),
            key_manager: KeyManager::Customer.into(),
            key_spec: KeySpec::Hmac256.into(),
            mac_algorithms: vec![MacAlgorithm::HmacSha256.into()],
            token: Some(TokenInfo {
                name: "primary".into(),
                sensitive: true,
                ..Default::default()
            }),
            ..Default::default()
        });
        let json: Value = serde_json::from_str(&answer.json).unwrap();
        let metadata = &json["KeyMetadata"];
        assert_eq!(metadata["AWSAccountId"], "111122223333");
        assert_eq!(metadata["KeyState"], "PendingDeletion");
        assert_eq!(metadata["Origin"], "AWS_CLOUDHSM");
        assert_eq!(metadata["CustomerMasterKeySpec"], "HMAC_256");
        assert_eq!(metadata["MacAlgorithms"][0], "HMAC_SHA_256");
        assert_eq!(metadata["Token"]["Sensitive"], true);
        assert!(metadata.get("CreationDate").is_none());
        let text = answer.printed(OutputFormat::Text);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0]
                .starts_with("KEYMETADATA\t111122223333\tarn:k\tHMAC_256\t\tTrue\tk\tCUSTOMER\t")
        );
        assert_eq!(lines[1], "MACALGORITHMS\tHMAC_SHA_256");
        assert!(lines[2].starts_with("TOKEN\t"));
    }
}
