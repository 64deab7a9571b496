//! YAML: block style, and JSON's quotes for whatever could be taken for something else.

use std::fmt::Write as _;

use serde_json::Value;

pub(super) fn render(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// Writes a value from the beginning of a line on, or after `- ` at this indent.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    pad(indent, text);
                }
                text.push_str(&string(name));
                text.push(':');
                if is_block(value) {
                    // A list stands under its name, a table deeper.
                    let deeper = indent + if value.is_object() { 2 } else { 0 };
                    text.push('\n');
                    pad(deeper, text);
                    block(value, deeper, text);
                } else {
                    text.push(' ');
                    block(value, indent, text);
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pad(indent, text);
                }
                text.push_str("- ");
                block(item, indent + 2, text);
            }
        }
        Value::String(value) => {
            text.push_str(&string(value));
            text.push('\n');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            // A String takes every text.
            let _ = writeln!(text, "{value}");
        }
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn pad(indent: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', indent));
}

/// Bare only if it can be nothing but this text: YAML knows many words for true, and numbers with colons.
fn string(text: &str) -> String {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-/.".contains(&byte))
        && !words.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_lists_are_blocks_and_doubtful_texts_are_quoted() {
        let value = serde_json::json!({
            "A": {"Deep": [], "On": true, "Text": "no"},
            "Keys": [{"Id": "1234", "Tags": [{"K": "v"}]}, "plain/text", "arn:aws:kms"],
            "Zero": null,
        });
        assert_eq!(
            render(&value),
            "A:\n  Deep: []\n  \"On\": true\n  Text: \"no\"\nKeys:\n- Id: \"1234\"\n  Tags:\n  - K: v\n- plain/text\n\
             - \"arn:aws:kms\"\nZero: null\n"
        );
    }
}
