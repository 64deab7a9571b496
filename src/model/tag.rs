//! Tags of keys, with KMS's limits.

use serde::{Deserialize, Serialize};

/// A tag of a key: a tag key and its value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "StoredTag", into = "StoredTag")]
pub struct Tag {
    key: String,
    value: String,
}

/// Why two texts are no tag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TagFault {
    /// The key is not 1 to 128 characters.
    Key,
    /// The value is longer than 256 characters.
    Value,
    /// The key begins with `aws:`, which AWS keeps for itself.
    Reserved,
}

impl Tag {
    /// The longest key, in characters.
    pub const LONGEST_KEY: usize = 128;
    /// The longest value, in characters.
    pub const LONGEST_VALUE: usize = 256;

    /// Takes two texts for a tag; the value may be empty.
    ///
    /// # Errors
    /// The first that applies: [`TagFault::Key`], [`TagFault::Value`], [`TagFault::Reserved`].
    pub fn new(key: String, value: String) -> Result<Self, TagFault> {
        if key.is_empty() || key.chars().count() > Self::LONGEST_KEY {
            return Err(TagFault::Key);
        }
        if value.chars().count() > Self::LONGEST_VALUE {
            return Err(TagFault::Value);
        }
        if key
            .get(..4)
            .is_some_and(|begin| begin.eq_ignore_ascii_case("aws:"))
        {
            return Err(TagFault::Reserved);
        }
        Ok(Self { key, value })
    }

    /// KMS: TagKey.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// KMS: TagValue.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// The tags of one key: at most 50, no key twice, in the order in which they first came.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Vec<Tag>", into = "Vec<Tag>")]
pub struct Tags(Vec<Tag>);

/// Why a list of tags is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TagsFault {
    /// A key is there twice.
    Duplicate,
    /// There are more than 50.
    TooMany,
}

impl Tags {
    /// The most tags that a key has.
    pub const MOST: usize = 50;

    /// Takes a list for tags.
    ///
    /// # Errors
    /// [`TagsFault::TooMany`], else [`TagsFault::Duplicate`].
    pub fn new(tags: Vec<Tag>) -> Result<Self, TagsFault> {
        if tags.len() > Self::MOST {
            return Err(TagsFault::TooMany);
        }
        let mut keys: Vec<&str> = tags.iter().map(Tag::key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(TagsFault::Duplicate);
        }
        Ok(Self(tags))
    }

    /// These tags and `more`: a key that is there already keeps its place and gets the new value.
    ///
    /// # Errors
    /// [`TagsFault::TooMany`]: together they are more than 50.
    pub fn with(&self, more: &Self) -> Result<Self, TagsFault> {
        let mut all = self.0.clone();
        for tag in &more.0 {
            match all.iter_mut().find(|old| old.key == tag.key) {
                Some(old) => old.value.clone_from(&tag.value),
                None => all.push(tag.clone()),
            }
        }
        Self::new(all)
    }

    /// These tags without those that have one of `keys`; a key that is not there is passed over.
    #[must_use]
    pub fn without(&self, keys: &[String]) -> Self {
        let mut rest = self.0.clone();
        rest.retain(|tag| !keys.contains(&tag.key));
        Self(rest)
    }

    /// In the order in which they first came.
    pub fn as_slice(&self) -> &[Tag] {
        &self.0
    }
}

impl TryFrom<Vec<Tag>> for Tags {
    type Error = String;

    fn try_from(tags: Vec<Tag>) -> Result<Self, String> {
        Self::new(tags).map_err(|fault| format!("these are no tags: {fault:?}"))
    }
}

impl From<Tags> for Vec<Tag> {
    fn from(tags: Tags) -> Self {
        tags.0
    }
}

/// A tag's form in a record.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredTag {
    key: String,
    value: String,
}

impl TryFrom<StoredTag> for Tag {
    type Error = String;

    fn try_from(pair: StoredTag) -> Result<Self, String> {
        Self::new(pair.key, pair.value).map_err(|fault| format!("this is no tag: {fault:?}"))
    }
}

impl From<Tag> for StoredTag {
    fn from(Tag { key, value }: Tag) -> Self {
        Self { key, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> Tag {
        Tag::new(key.into(), value.into()).unwrap()
    }

    #[test]
    fn rules_of_one_tag() {
        let refused = |key: &str, value: &str| Tag::new(key.into(), value.into()).unwrap_err();
        assert_eq!(refused("", ""), TagFault::Key);
        assert_eq!(refused(&"ä".repeat(129), ""), TagFault::Key);
        assert_eq!(refused("a", &"v".repeat(257)), TagFault::Value);
        for key in ["aws:x", "AWS:x", "aws:"] {
            assert_eq!(refused(key, ""), TagFault::Reserved);
        }
        tag(&"ä".repeat(128), &"ä".repeat(256));
        tag("aws", "");
        tag("aäöü", "");
    }

    #[test]
    fn rules_of_a_list_of_tags() {
        let many =
            |count: usize| -> Vec<Tag> { (0..count).map(|n| tag(&n.to_string(), "")).collect() };
        assert_eq!(Tags::new(many(51)), Err(TagsFault::TooMany));
        let twice = vec![tag("a", "1"), tag("b", ""), tag("a", "2")];
        assert_eq!(Tags::new(twice), Err(TagsFault::Duplicate));
        let full = Tags::new(many(50)).unwrap();
        let one = Tags::new(vec![tag("x", "")]).unwrap();
        assert_eq!(full.with(&one), Err(TagsFault::TooMany));
        let same = Tags::new(vec![tag("7", "new")]).unwrap();
        assert_eq!(full.with(&same).unwrap().as_slice()[7].value(), "new");
        assert_eq!(
            full.without(&["7".into(), "no".into()]).as_slice().len(),
            49
        );
    }

    #[test]
    fn stored_tags_are_checked_when_they_are_read() {
        let tags = Tags::new(vec![tag("a", "1"), tag("b", "")]).unwrap();
        let json = serde_json::to_string(&tags).unwrap();
        assert_eq!(json, r#"[{"key":"a","value":"1"},{"key":"b","value":""}]"#);
        assert_eq!(serde_json::from_str::<Tags>(&json).unwrap(), tags);
        for wrong in [
            r#"[{"key":"a","value":""},{"key":"a","value":""}]"#,
            r#"[{"key":"aws:a","value":""}]"#,
            r#"[{"key":"a"}]"#,
            r#"[{"key":"a","value":"","more":1}]"#,
        ] {
            assert!(serde_json::from_str::<Tags>(wrong).is_err(), "{wrong}");
        }
    }
}
