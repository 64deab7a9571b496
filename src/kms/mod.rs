//! The operations of the KMS API: what a front decodes, this room decides.
//!
//! Hides: how a key ID finds its key, who may do what, in which state a key serves, which token
//! has it. Promises: every operation checks in KMS's order, once: constraints → key → rights →
//! state → algorithm → token → dry run; no fault names what only the log may read; nothing is
//! looked up outside memory before the token is asked; a change is answered once the store has it
//! and memory shows it. Does not: know a wire; each front
//! translates plain requests, answers and [`Error`]s to its own.

mod aliases;
mod catalogue;
mod change;
mod clock;
mod create;
mod deletion;
mod describe;
mod fault_point;
mod foreign;
mod intent;
mod keys;
mod mac;
mod marker;
mod open;
mod policies;
mod reaper;
mod records;
mod rights;
mod rotation;
mod seed;
mod serving;
mod settings;
mod simulate;
mod tags;
mod usage;
mod validate;

#[cfg(test)]
pub(crate) mod tests;

pub use aliases::{AliasPage, CreateAlias, DeleteAlias, ListAliases, ListedAlias, UpdateAlias};
pub use deletion::{CancelKeyDeletion, DeletionScheduled, ScheduleKeyDeletion};
pub use describe::{DescribeKey, KeyMetadata, KeyPage, ListKeys, ListedKey, TokenFacts};
pub use keys::{CreateKey, DisableKey, EnableKey, UpdateKeyDescription};
pub use mac::{GenerateMac, GenerateRandom, MacMade, MacVerified, VerifyMac};
pub use open::OpenFault;
pub use policies::{GetKeyPolicy, KeyPolicy, ListKeyPolicies, PutKeyPolicy};
pub use rights::{DeclaredRights, Principal, read_policy};
pub use rotation::{IncludeKeyMaterial, ListKeyRotations};
pub use seed::Seed;
pub use serving::Serving;
pub use settings::{DeclaredKey, Settings};
pub use simulate::{Heard, Judgement, Simulate, Simulation, Simulator, Unanswered};
pub use tags::{ListResourceTags, TagPage, TagPair, TagResource, UntagResource};
pub use usage::{GetKeyLastUsage, KeyLastUsage};

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use catalogue::{Catalogue, Record};
use intent::Journal;
use rights::{Asks, On, Principals};

use crate::{
    error::{Error, Kind, Violation},
    model::{Caller, Date, Operation, is_reserved},
    store::Store,
    token::{self, Group},
};

/// A member that names one of a closed set, as the client wrote it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Named<T> {
    /// The request does not have it.
    Absent,
    /// One of the set.
    Known(T),
    /// None of the set.
    Unknown(String),
}

/// The keys, and the tokens that they are in.
pub struct Kms {
    catalogue: Catalogue,
    /// None: declared keys only, which nothing changes.
    store: Option<Store>,
    tracking_start: Date,
    principals: ArcSwap<Principals>,
    journal: Arc<Journal>,
    groups: Vec<Arc<Group>>,
    random: Option<usize>,
    reserved_messages: AtomicU64,
}

impl Kms {
    /// Maps declared keys to tokens, without a store; each group of tokens, or token without a group,
    /// stands under its name in the configuration.
    ///
    /// # Errors
    /// A sentence on the first declaration that contradicts another or names no token.
    pub fn new(
        settings: Settings,
        groups: BTreeMap<String, Arc<Group>>,
    ) -> Result<Arc<Self>, String> {
        let (names, groups): (Vec<_>, _) = groups.into_iter().unzip();
        Self::with(settings, &names, groups).map(Arc::new)
    }

    /// Puts what the configuration says of rights now in the place of what it said before. Calls that
    /// are admitted already go on; the next one meets the new rights.
    pub fn declare(&self, rights: DeclaredRights) {
        let DeclaredRights { principals, keys } = rights;
        self.principals.store(Arc::new(Principals::new(principals)));
        self.catalogue.declare_policies(keys);
    }

    /// How often a client asked for the MAC of a message that hsmac keeps for itself.
    pub fn reserved_messages(&self) -> u64 {
        self.reserved_messages.load(Ordering::Relaxed)
    }

    /// Whether each token serves, now and at each change.
    pub fn serving(&self) -> Vec<Serving> {
        self.groups
            .iter()
            .flat_map(|group| group.states())
            .map(|(token, state)| Serving::new(token, state))
            .collect()
    }

    fn with(
        mut settings: Settings,
        names: &[String],
        groups: Vec<Arc<Group>>,
    ) -> Result<Self, String> {
        let random =
            match &settings.new_keys {
                Some(name) => Some(names.iter().position(|known| known == name).ok_or_else(
                    || {
                        format!(
                            "new_keys names {name:?}, but there is no token or group of this name"
                        )
                    },
                )?),
                None if names.len() == 1 => Some(0),
                None => None,
            };
        let principals = Principals::new(std::mem::take(&mut settings.principals));
        Ok(Self {
            catalogue: Catalogue::new(settings, names)?,
            principals: ArcSwap::from_pointee(principals),
            store: None,
            tracking_start: now(),
            journal: Journal::new(),
            groups,
            random,
            reserved_messages: AtomicU64::new(0),
        })
    }

    /// The key of a request whose constraints hold: resolved, and the caller allowed to use it.
    fn admit(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
        asks: &Asks<'_>,
    ) -> Result<Arc<Record>, Error> {
        let record = self.catalogue.resolve(caller, operation, key_id)?;
        let asks = Asks {
            key_id: Some(key_id),
            ..*asks
        };
        // Security: before anything that would tell a stranger that the key is there.
        self.may(caller, operation, &On::Key(&record), &asks)?;
        // There are no grants yet, so no grant token can be one of ours.
        if !asks.grant_tokens.is_empty() {
            return Err(Error::new(Kind::InvalidGrantToken, ""));
        }
        Ok(record)
    }

    /// The tokens of a key; none if the configuration no longer has them.
    fn group(&self, record: &Record) -> Option<&Group> {
        record
            .group
            .and_then(|group| self.groups.get(group))
            .map(|group| &**group)
    }

    /// The constraint that no client's message is one that hsmac signs for itself.
    fn refuse_reserved(&self, message: Option<&[u8]>, broken: &mut Vec<Violation>) {
        if message.is_some_and(is_reserved) {
            let count = self.reserved_messages.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::debug!(
                count,
                "a client's message begins with hsmac's reserved prefix"
            );
            broken.push(validate::clause(
                "message",
                "Member must not begin with the 16 bytes that hsmac keeps for its own messages",
            ));
        }
    }
}

/// What a token's fault is to a client: its own words stay in the cause.
fn from_key(fault: token::Fault, record: &Record) -> Error {
    match fault {
        token::Fault::Key(_) => unavailable(&record.arn).because(fault),
        token::Fault::Message(_) => Error::violations(vec![validate::clause(
            "message",
            "Member must be a message that the key's token accepts; this token accepts only shorter ones",
        )])
        .because(fault),
        token::Fault::Saturated
        | token::Fault::Deadline(_)
        | token::Fault::Unavailable(_)
        | token::Fault::Unsupported(_)
        | token::Fault::Unknown(_)
        | token::Fault::Closed
        | token::Fault::Internal(_) => from_token(fault),
    }
}

/// The same where no key is involved.
fn from_token(fault: token::Fault) -> Error {
    let error = match &fault {
        token::Fault::Saturated => Error::new(
            Kind::Throttling,
            "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
        )
        .retry_after(SATURATION_PAUSE),
        token::Fault::Deadline(_) | token::Fault::Unknown(_) => timed_out(),
        token::Fault::Unavailable(_) => Error::new(
            Kind::KeyUnavailable,
            "The request was rejected because the token was not available. You can retry the request.",
        ),
        token::Fault::Unsupported(_) => Error::new(
            Kind::UnsupportedOperation,
            "The request was rejected because the token does not support the operation.",
        ),
        token::Fault::Key(_)
        | token::Fault::Message(_)
        | token::Fault::Closed
        | token::Fault::Internal(_) => Error::new(
            Kind::Internal,
            "The request was rejected because an internal exception occurred. The request can be retried.",
        ),
    };
    error.because(fault)
}

/// The deadline passed before there was an answer.
pub(crate) fn timed_out() -> Error {
    Error::new(
        Kind::DependencyTimeout,
        "The system timed out while trying to fulfill the request. You can retry the request.",
    )
}

/// A fault of ours, or of the store.
fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::new(
        Kind::Internal,
        "The request was rejected because an internal exception occurred. The request can be retried.",
    )
    .because(cause)
}

/// The time of day.
fn now() -> Date {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Date::of_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn unavailable(arn: &str) -> Error {
    Error::new(Kind::InvalidState, format!("{arn} is unavailable."))
}

/// A full queue of the default length is worked off in about this time.
const SATURATION_PAUSE: Duration = Duration::from_millis(100);
