//! The operations of the KMS API, a file for each chapter: constraints → key → rights → state → token.
//!
//! Promises: KMS's order of checks; every broken constraint of a request is told at once. Does not:
//! know gRPC or HTTP; each front translates plain requests, answers and
//! [`Error`](crate::error::Error)s to its own.

mod aliases;
mod custom_key_stores;
mod deletion;
mod describe;
mod grants;
mod keys;
mod last_usage;
mod mac;
mod marker;
mod policies;
mod rotation;
mod tags;
mod unsupported;
mod validate;

pub use aliases::{AliasPage, CreateAlias, DeleteAlias, ListAliases, ListedAlias, UpdateAlias};
pub use custom_key_stores::DescribeCustomKeyStores;
pub use deletion::{CancelKeyDeletion, DeletionScheduled, ScheduleKeyDeletion};
pub use describe::{DescribeKey, KeyMetadata, KeyPage, ListKeys, ListedKey, TokenFacts};
pub use grants::{
    CreateGrant, GrantConstraints, GrantCreated, GrantPage, ListGrants, ListRetirableGrants,
    ListedGrant, RetireGrant, RevokeGrant,
};
pub use keys::{CreateKey, DisableKey, EnableKey, UpdateKeyDescription};
pub use last_usage::{GetKeyLastUsage, KeyLastUsage};
pub use mac::{GenerateMac, GenerateRandom, MacMade, MacVerified, VerifyMac};
pub use policies::{GetKeyPolicy, KeyPolicy, ListKeyPolicies, PutKeyPolicy};
pub use rotation::{EnableKeyRotation, IncludeKeyMaterial, ListKeyRotations};
pub use tags::{ListResourceTags, TagPage, TagPair, TagResource, UntagResource};
pub use unsupported::RECIPIENT;
pub use validate::{Member, MemberType, MemberValue, TextType};

pub(super) use validate::only_key_id;

use crate::error::{Error, Kind};

/// All checks passed, and more is not asked for (KMS: DryRun).
fn dry_run() -> Error {
    Error::new(
        Kind::DryRun,
        "The request would have succeeded, but the DryRun option is set.",
    )
}

/// A member that has one of a closed set of values, as the client wrote it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EnumMember<T> {
    /// The request does not have it.
    Absent,
    /// One of the set.
    Known(T),
    /// None of the set.
    Unknown(String),
}
