//! TagResource, UntagResource and ListResourceTags.

use std::time::Instant;

use super::{marker, validate};
use crate::{
    error::{Error, Kind},
    kms::{authorization::RequestContext, service::Kms},
    model::{Caller, Operation, Tag, Tags},
};

/// KMS: TagResourceRequest.
#[derive(Clone, Debug)]
pub struct TagResource {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// At most 50. A key that is there already gets the new value.
    pub tags: Option<Vec<TagPair>>,
}

/// A tag as a client wrote it: its key and its value, both of which it may have forgotten.
pub type TagPair = (Option<String>, Option<String>);

/// KMS: UntagResourceRequest.
#[derive(Clone, Debug)]
pub struct UntagResource {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// Keys of tags; those that are not there are passed over.
    pub tag_keys: Option<Vec<String>>,
}

/// KMS: ListResourceTagsRequest.
#[derive(Clone, Debug)]
pub struct ListResourceTags {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// 1 to 1,000, of which at most 50 are given; 50 if absent.
    pub limit: Option<i64>,
    /// [`TagPage::next_marker`] of the page before.
    pub marker: Option<String>,
}

/// KMS: ListResourceTagsResponse.
#[derive(Clone, Debug)]
pub struct TagPage {
    /// In the order in which they first came.
    pub tags: Vec<Tag>,
    /// Where the next page begins, if there is one.
    pub next_marker: Option<String>,
}

impl Kms {
    /// Adds tags to a key, and changes those that it has.
    ///
    /// # Errors
    /// KMS's for TagResource: [`Kind::Tag`], [`Kind::LimitExceeded`], [`Kind::Validation`],
    /// [`Kind::AccessDenied`], [`Kind::NotFound`], [`Kind::InvalidArn`], [`Kind::InvalidState`],
    /// [`Kind::UnsupportedOperation`], [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn tag_resource(
        &self,
        caller: &Caller,
        request: TagResource,
        until: Instant,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let tags = validate::tags(request.tags, &mut broken);
        let (Some(key_id), Some(tags)) = (key_id, tags) else {
            return Err(validate::refuse(broken));
        };
        let tags = tags?;
        let context = RequestContext {
            tags: Some(&tags),
            ..RequestContext::default()
        };
        self.change_key(
            caller,
            Operation::TagResource,
            key_id,
            context,
            until,
            |record, body| {
                body.tags = body.tags.with(&tags).map_err(|_| {
                    Error::new(
                        Kind::LimitExceeded,
                        format!("{} would have more than {} tags.", record.arn, Tags::MOST),
                    )
                })?;
                Ok(())
            },
        )
        .await
        .map(drop)
    }

    /// Takes tags from a key.
    ///
    /// # Errors
    /// KMS's for UntagResource: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`], [`Kind::InvalidState`], [`Kind::UnsupportedOperation`],
    /// [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn untag_resource(
        &self,
        caller: &Caller,
        request: &UntagResource,
        until: Instant,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let tag_keys = validate::tag_keys(request.tag_keys.as_deref(), &mut broken);
        let (Some(key_id), Some(tag_keys), true) = (key_id, tag_keys, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let context = RequestContext {
            tag_keys: Some(tag_keys),
            ..RequestContext::default()
        };
        self.change_key(
            caller,
            Operation::UntagResource,
            key_id,
            context,
            until,
            |_, body| {
                body.tags = body.tags.without(tag_keys);
                Ok(())
            },
        )
        .await
        .map(drop)
    }

    /// A key's tags.
    ///
    /// # Errors
    /// KMS's for ListResourceTags: [`Kind::Validation`], [`Kind::AccessDenied`],
    /// [`Kind::NotFound`], [`Kind::InvalidArn`], [`Kind::InvalidMarker`].
    pub fn list_resource_tags(
        &self,
        caller: &Caller,
        request: &ListResourceTags,
    ) -> Result<TagPage, Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let limit = validate::limit(request.limit, 50, 50, &mut broken);
        let marker = request.marker.as_deref();
        let marker = marker.filter(|marker| validate::marker(marker, &mut broken));
        let (Some(key_id), Some(limit), true) = (key_id, limit, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let record = self.require_key(
            caller,
            Operation::ListResourceTags,
            key_id,
            RequestContext::default(),
        )?;
        let after = marker
            .map(|text| marker::read::<TagPosition>(MARKER, text))
            .transpose()?;

        let all = record.body.tags.as_slice();
        let from = after.map_or(0, |after| after.next(all)).min(all.len());
        let to = (from + limit).min(all.len());
        let next_marker = (to < all.len()).then(|| {
            let last = &all[to - 1];
            marker::write(MARKER, format_args!("{}:{}", to, last.key()))
        });
        Ok(TagPage {
            tags: all[from..to].to_vec(),
            next_marker,
        })
    }
}

/// Where a page ended: after this tag, which was at this place. If the tag is gone meanwhile, the
/// place is the best guess.
struct TagPosition {
    count: usize,
    key: String,
}

impl TagPosition {
    fn next(&self, tags: &[Tag]) -> usize {
        tags.iter()
            .position(|tag| tag.key() == self.key)
            .map_or_else(|| self.count.saturating_sub(1), |at| at + 1)
    }
}

impl std::str::FromStr for TagPosition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (count, key) = text.split_once(':').ok_or(())?;
        Ok(Self {
            count: count.parse().map_err(|_| ())?,
            key: key.to_owned(),
        })
    }
}

/// What a marker of ListResourceTags begins with.
const MARKER: &str = "tags:";
