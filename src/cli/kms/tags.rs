//! The verbs about tags, and how tags are typed.

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::{
    KmsClient, output,
    pages::{Page, Pages},
};
use crate::{
    cli::CliError,
    proto::v1::{self, ListResourceTagsRequest, TagResourceRequest, UntagResourceRequest},
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add tags to a key, and change those that it has.
    TagResource(TagResourceArguments),
    /// Take tags from a key.
    UntagResource(UntagResourceArguments),
    /// A key's tags: all of them, unless --limit or --marker asks for a page.
    ListResourceTags(ListResourceTagsArguments),
}

#[derive(Args, Debug)]
pub(super) struct TagResourceArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    /// TagKey=KEY,TagValue=VALUE for each, or a JSON list [{"TagKey":"KEY","TagValue":"VALUE"}].
    #[arg(long, num_args = 1.., required = true, value_name = "TAG", value_parser = parse)]
    tags: Vec<Tags>,
}

#[derive(Args, Debug)]
pub(super) struct UntagResourceArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    /// The tags' keys.
    #[arg(long, num_args = 1.., required = true, value_name = "KEY")]
    tag_keys: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct ListResourceTagsArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    #[command(flatten)]
    pages: Pages,
}

impl KmsClient {
    pub(super) async fn tag_verb(&self, verb: Verb) -> Result<output::CommandOutput, CliError> {
        match verb {
            Verb::TagResource(verb) => {
                let request = self.request(TagResourceRequest {
                    key_id: verb.key_id,
                    tags: all(verb.tags),
                });
                let reply = self.key_service().tag_resource(request).await;
                self.done("TagResource", reply)
            }
            Verb::UntagResource(verb) => {
                let request = self.request(UntagResourceRequest {
                    key_id: verb.key_id,
                    tag_keys: verb.tag_keys,
                });
                let reply = self.key_service().untag_resource(request).await;
                self.done("UntagResource", reply)
            }
            Verb::ListResourceTags(verb) => self.list_resource_tags(verb).await,
        }
    }

    async fn list_resource_tags(
        &self,
        verb: ListResourceTagsArguments,
    ) -> Result<output::CommandOutput, CliError> {
        let key_id = verb.key_id;
        let listed = verb.pages.fetch(async |limit, marker| {
            let request = self.request(ListResourceTagsRequest {
                key_id: key_id.clone(),
                limit,
                marker,
            });
            let page = self.key_service().list_resource_tags(request).await;
            let page = self.answer("ListResourceTags", page)?;
            Ok(Page {
                entries: page.tags,
                next_marker: page.next_marker,
                truncated: page.truncated,
            })
        });
        Ok(output::keys::list_resource_tags(listed.await?))
    }
}

/// What one word of `--tags` says: one tag in shorthand, or any number in JSON.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::cli) struct Tags(Vec<Tag>);

/// A tag as AWS writes it in JSON.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Tag {
    tag_key: String,
    tag_value: String,
}

/// Reads the AWS CLI's shorthand or JSON.
pub(in crate::cli) fn parse(text: &str) -> Result<Tags, String> {
    if text.starts_with('[') {
        return serde_json::from_str(text)
            .map(Tags)
            .map_err(|error| format!("it is no JSON list of tags: {error}"));
    }
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .map(|tag| Tags(vec![tag]))
            .map_err(|error| format!("it is no tag in JSON: {error}"));
    }
    let (mut key, mut value) = (None, None);
    for (name, said) in members(text)? {
        let member = match name {
            "TagKey" => &mut key,
            "TagValue" => &mut value,
            _ => return Err(format!("a tag has no {name:?}; {SHORTHAND}")),
        };
        if member.replace(said).is_some() {
            return Err(format!("{name} is there twice; {SHORTHAND}"));
        }
    }
    match (key, value) {
        (Some(tag_key), Some(tag_value)) => Ok(Tags(vec![Tag { tag_key, tag_value }])),
        (_, _) => Err(SHORTHAND.into()),
    }
}

pub(in crate::cli) fn all(tags: Vec<Tags>) -> Vec<v1::Tag> {
    tags.into_iter()
        .flat_map(|tags| tags.0)
        .map(|tag| v1::Tag {
            tag_key: tag.tag_key,
            tag_value: tag.tag_value,
        })
        .collect()
}

/// `NAME=VALUE,NAME=VALUE`; a value with a comma stands in quotes, in which `\` takes the next
/// character as it is.
fn members(text: &str) -> Result<Vec<(&str, String)>, String> {
    let mut members = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once('=').ok_or(SHORTHAND)?;
        let (value, after) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => quoted(&after[1..], quote)?,
            _ => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        members.push((name.trim(), value));
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(members),
            None => {
                return Err(format!(
                    "{after:?} stands after a quoted value; {SHORTHAND}"
                ));
            }
        }
    }
}

fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if char == quote {
            return Ok((value, &text[at + char.len_utf8()..]));
        }
        let plain = if char == '\\' {
            chars.next().map_or(char, |(_, next)| next)
        } else {
            char
        };
        value.push(plain);
    }
    Err(format!("a {quote} is missing; {SHORTHAND}"))
}

const SHORTHAND: &str = "write TagKey=KEY,TagValue=VALUE";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let tags = parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        let pair = |tag: Tag| (tag.tag_key, tag.tag_value);
        tags.0.into_iter().map(pair).collect()
    }

    #[test]
    fn shorthand_and_json_as_aws_users_type_them() {
        for (text, key, value) in [
            ("TagKey=a,TagValue=b", "a", "b"),
            ("TagValue=b,TagKey=a", "a", "b"),
            ("TagKey=cost center,TagValue=", "cost center", ""),
            ("TagKey=a,TagValue=x=y", "a", "x=y"),
            ("TagKey=\"a,b\",TagValue='c,d'", "a,b", "c,d"),
            ("TagKey=\"a\\\"b\",TagValue=ü", "a\"b", "ü"),
            (r#"{"TagKey":"a","TagValue":"b"}"#, "a", "b"),
        ] {
            assert_eq!(pairs(text), [(key.to_owned(), value.to_owned())], "{text}");
        }
        let list = r#"[{"TagKey":"a","TagValue":"b"},{"TagKey":"c","TagValue":""}]"#;
        assert_eq!(pairs(list).len(), 2);
        assert_eq!(pairs("[]"), []);
    }

    #[test]
    fn a_wrong_tag_is_refused_with_the_right_form() {
        for text in [
            "",
            "a=b",
            "TagKey=a",
            "TagKey=a,TagKey=b,TagValue=c",
            "TagKey=a,TagValue=b,c",
            "TagKey=\"a,TagValue=b",
            "TagKey=\"a\"b,TagValue=c",
        ] {
            assert!(parse(text).unwrap_err().contains(SHORTHAND), "{text}");
        }
        for text in ["[", "{}", r#"[{"Key":"a","Value":"b"}]"#] {
            assert!(parse(text).unwrap_err().contains("JSON"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
