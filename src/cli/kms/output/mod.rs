//! Output like the AWS CLI's: JSON with AWS's member names, or text with tabs.

pub(super) mod grants;
pub(super) mod keys;
pub(super) mod policies;
mod query;
mod table;
mod yaml;

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::Value;

pub(super) use self::query::Query;
use super::{OutputFormat, pages::Listed};
use crate::proto::v1::{GenerateMacResponse, GenerateRandomResponse, VerifyMacResponse};

/// An answer, in the forms that it can be printed in.
#[derive(Debug)]
pub(super) struct CommandOutput {
    /// Indented by four, as `aws` does, members in the order of KMS.
    json: String,
    /// None: the operation has no answer.
    value: Option<Value>,
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
struct Random {
    plaintext: String,
}

/// What a list says of its page, after its entries.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PageMembers {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl PageMembers {
    fn of<T>(listed: &Listed<T>) -> Self {
        Self {
            next_marker: listed.next_marker.clone(),
            truncated: listed.truncated,
            next_token: listed.next_token.clone(),
        }
    }
}

pub(super) fn generate_mac(reply: &GenerateMacResponse) -> CommandOutput {
    CommandOutput::of(&Generated {
        mac: STANDARD.encode(&reply.mac),
        mac_algorithm: reply.mac_algorithm().as_str_name(),
        key_id: reply.key_id.clone(),
    })
}

pub(super) fn verify_mac(reply: &VerifyMacResponse) -> CommandOutput {
    CommandOutput::of(&Verified {
        key_id: reply.key_id.clone(),
        mac_valid: reply.mac_valid,
        mac_algorithm: reply.mac_algorithm().as_str_name(),
    })
}

pub(super) fn generate_random(reply: &GenerateRandomResponse) -> CommandOutput {
    CommandOutput::of(&Random {
        plaintext: STANDARD.encode(&reply.plaintext),
    })
}

impl CommandOutput {
    /// The output of an operation that has no answer.
    pub(super) fn nothing() -> Self {
        Self {
            json: String::new(),
            value: None,
        }
    }

    /// What the expression finds in the answer; of no answer nothing.
    ///
    /// # Errors
    /// A sentence: the expression asks something of a value that has no answer to it.
    pub(super) fn queried(self, query: &Query) -> Result<Self, String> {
        match &self.value {
            None => Ok(self),
            Some(value) => query.search(value).map(|found| Self::of(&found)),
        }
    }

    /// The answer in this form.
    pub(super) fn printed(self, format: OutputFormat) -> String {
        let Some(value) = &self.value else {
            return String::new();
        };
        match format {
            OutputFormat::Json => self.json,
            OutputFormat::Table => table::render(value),
            OutputFormat::Text => {
                let mut text = String::new();
                lines(value, None, None, &mut text);
                text
            }
            OutputFormat::Yaml => yaml::render(value),
        }
    }

    fn of(members: &impl Serialize) -> Self {
        let mut json = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        members
            .serialize(&mut serde_json::Serializer::with_formatter(
                &mut json, indent,
            ))
            .expect("texts, numbers and lists always have a JSON form");
        json.push(b'\n');
        let value =
            serde_json::to_value(members).expect("what has a text in JSON has a value in JSON");
        Self {
            json: String::from_utf8(json).expect("serde_json writes UTF-8"),
            value: Some(value),
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
        // Without a name of their own they stand in one line.
        Value::Array(items)
            if name.is_none() && !items.is_empty() && items.iter().all(is_scalar) =>
        {
            let row: Vec<String> = items.iter().map(scalar).collect();
            text.push_str(&row.join("\t"));
            text.push('\n');
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

/// A value as Python prints it.
fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::MacAlgorithm;

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
        assert_eq!(
            answer.printed(OutputFormat::Text),
            "arn:x\taGk=\tHMAC_SHA_256\n"
        );
    }

    #[test]
    fn a_query_chooses_of_the_answer_in_every_form() {
        let keys = serde_json::json!({"Keys": [{"KeyId": "a", "KeyArn": "x:a"}, {"KeyId": "b", "KeyArn": "x:b"}]});
        let found = |query: &str, format| {
            let query = Query::compile(query).unwrap();
            let answer = CommandOutput::of(&keys).queried(&query).unwrap();
            answer.printed(format)
        };
        let ids = "Keys[].KeyId";
        assert_eq!(found(ids, OutputFormat::Text), "a\tb\n");
        assert_eq!(
            found(ids, OutputFormat::Json),
            "[\n    \"a\",\n    \"b\"\n]\n"
        );
        assert_eq!(found(ids, OutputFormat::Yaml), "- a\n- b\n");
        assert_eq!(found("length(Keys)", OutputFormat::Text), "2\n");
        assert_eq!(found("Nothing", OutputFormat::Text), "None\n");
        let rows = found("Keys[?KeyId=='b'].[KeyArn,KeyId]", OutputFormat::Text);
        assert_eq!(rows, "x:b\tb\n");
        let fault = Query::compile("Keys[").err().unwrap();
        assert!(
            fault.starts_with("Bad value for --query Keys[: "),
            "{fault}"
        );
    }
}
