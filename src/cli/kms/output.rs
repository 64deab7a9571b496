//! Answers as the AWS CLI prints them: JSON with AWS's member names, or text with tabs.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::Value;

use crate::proto::v1::{
    GenerateMacResponse, GenerateRandomResponse, KeyListEntry, KeyMetadata, MacAlgorithm,
    VerifyMacResponse,
};

/// An answer in both of its forms.
#[derive(Debug)]
pub(super) struct Answer {
    /// Indented by four, as `aws` does.
    pub(super) json: String,
    /// One line an object, values in the order of their names, nested ones after it.
    pub(super) text: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Generated {
    mac: String,
    mac_algorithm: &'static str,
    key_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Verified {
    key_id: String,
    mac_valid: bool,
    mac_algorithm: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    key_metadata: Metadata,
}

/// Members in the order of AWS's model; then ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
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
    origin: &'static str,
    key_manager: &'static str,
    /// The old name of `key_spec`, which AWS keeps.
    customer_master_key_spec: &'static str,
    key_spec: &'static str,
    multi_region: bool,
    mac_algorithms: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Token>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Token {
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
struct Keys {
    keys: Vec<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    key_id: String,
    key_arn: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Random {
    plaintext: String,
}

pub(super) fn generate_mac(reply: &GenerateMacResponse) -> Answer {
    Answer::of(&Generated {
        mac: STANDARD.encode(&reply.mac),
        mac_algorithm: reply.mac_algorithm().as_str_name(),
        key_id: reply.key_id.clone(),
    })
}

pub(super) fn verify_mac(reply: &VerifyMacResponse) -> Answer {
    Answer::of(&Verified {
        key_id: reply.key_id.clone(),
        mac_valid: reply.mac_valid,
        mac_algorithm: reply.mac_algorithm().as_str_name(),
    })
}

pub(super) fn describe_key(metadata: &KeyMetadata) -> Answer {
    let spec = metadata.key_spec().as_str_name();
    Answer::of(&Described {
        key_metadata: Metadata {
            aws_account_id: metadata.aws_account_id.clone(),
            key_id: metadata.key_id.clone(),
            arn: metadata.arn.clone(),
            // Seconds since 1970, as AWS CLI version 1 prints it.
            creation_date: metadata
                .creation_date
                .map(|date| date.seconds as f64 + f64::from(date.nanos) / 1e9),
            enabled: metadata.enabled,
            description: metadata.description.clone(),
            key_usage: metadata.key_usage().as_str_name(),
            key_state: in_camel_case(metadata.key_state().as_str_name()),
            origin: metadata.origin().as_str_name(),
            key_manager: metadata.key_manager().as_str_name(),
            customer_master_key_spec: spec,
            key_spec: spec,
            multi_region: metadata.multi_region,
            mac_algorithms: metadata
                .mac_algorithms()
                .map(|name: MacAlgorithm| name.as_str_name())
                .collect(),
            token: metadata.token.as_ref().map(|token| Token {
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

/// `page`: the marker and whether there is more, if one page was asked for.
pub(super) fn list_keys(keys: &[KeyListEntry], page: Option<(Option<&str>, bool)>) -> Answer {
    Answer::of(&Keys {
        keys: keys
            .iter()
            .map(|key| Key {
                key_id: key.key_id.clone(),
                key_arn: key.key_arn.clone(),
            })
            .collect(),
        next_marker: page.and_then(|(marker, _)| marker.map(str::to_owned)),
        truncated: page.map(|(_, truncated)| truncated),
    })
}

pub(super) fn generate_random(reply: &GenerateRandomResponse) -> Answer {
    Answer::of(&Random {
        plaintext: STANDARD.encode(&reply.plaintext),
    })
}

impl Answer {
    fn of(members: &impl Serialize) -> Self {
        let mut json = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        members
            .serialize(&mut serde_json::Serializer::with_formatter(
                &mut json, indent,
            ))
            .expect("texts, numbers and lists always have a JSON form");
        json.push(b'\n');
        let value = serde_json::to_value(members).expect("as above");
        let mut text = String::new();
        lines(&value, None, None, &mut text);
        Self {
            json: String::from_utf8(json).expect("serde_json writes UTF-8"),
            text,
        }
    }
}

/// The rules of the AWS CLI's text.py. `columns`: what the objects of a list have between them.
fn lines(value: &Value, name: Option<&str>, columns: Option<&BTreeSet<&str>>, text: &mut String) {
    let head = name.map(str::to_uppercase);
    match value {
        Value::Object(members) => {
            let own: BTreeSet<&str> = members
                .iter()
                .filter(|(_, value)| is_scalar(value))
                .map(|(name, _)| name.as_str())
                .collect();
            let columns = columns.unwrap_or(&own);
            if !columns.is_empty() {
                let values = columns
                    .iter()
                    .map(|name| members.get(*name).map(scalar).unwrap_or_default());
                let row: Vec<String> = head.into_iter().chain(values).collect();
                text.push_str(&row.join("\t"));
                text.push('\n');
            }
            for (name, value) in members.iter().filter(|(_, value)| !is_scalar(value)) {
                lines(value, Some(name), None, text);
            }
        }
        Value::Array(items) => {
            let columns: BTreeSet<&str> = items
                .iter()
                .filter_map(Value::as_object)
                .flatten()
                .filter(|(_, value)| is_scalar(value))
                .map(|(name, _)| name.as_str())
                .collect();
            for item in items {
                lines(item, name, Some(&columns), text);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let row: Vec<String> = head.into_iter().chain([scalar(value)]).collect();
            text.push_str(&row.join("\t"));
            text.push('\n');
        }
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

/// As Python prints it.
fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
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
    use super::*;
    use crate::proto::v1::{KeyManager, KeySpec, KeyState, KeyUsage, Origin, TokenInfo};

    #[test]
    fn a_mac_as_aws_prints_it() {
        let answer = generate_mac(&GenerateMacResponse {
            mac: "hi".into(),
            mac_algorithm: MacAlgorithm::HmacSha256.into(),
            key_id: "arn:x".into(),
            ..Default::default()
        });
        assert_eq!(
            answer.json,
            "{\n    \"Mac\": \"aGk=\",\n    \"MacAlgorithm\": \"HMAC_SHA_256\",\n    \"KeyId\": \"arn:x\"\n}\n"
        );
        assert_eq!(answer.text, "arn:x\taGk=\tHMAC_SHA_256\n");
    }

    #[test]
    fn keys_and_pages() {
        let keys = [KeyListEntry {
            key_id: "a".into(),
            key_arn: "arn:a".into(),
        }];
        assert_eq!(
            list_keys(&keys, None).json,
            "{\n    \"Keys\": [\n        {\n            \"KeyId\": \"a\",\n            \"KeyArn\": \"arn:a\"\n        }\n    ]\n}\n"
        );
        assert_eq!(list_keys(&keys, None).text, "KEYS\tarn:a\ta\n");
        assert_eq!(
            list_keys(&keys, Some((Some("m"), true))).text,
            "m\tTrue\nKEYS\tarn:a\ta\n"
        );
        assert_eq!(list_keys(&[], None).text, "");
    }

    #[test]
    fn metadata_has_the_names_of_aws() {
        let answer = describe_key(&KeyMetadata {
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
        let text = answer.text;
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0]
                .starts_with("KEYMETADATA\t111122223333\tarn:k\tHMAC_256\t\tTrue\tk\tCUSTOMER\t")
        );
        assert_eq!(lines[1], "MACALGORITHMS\tHMAC_SHA_256");
        assert!(lines[2].starts_with("TOKEN\t"));
    }
}
