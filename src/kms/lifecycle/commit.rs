//! How a record changes: decided on what is in memory, committed if that still held, answered once
//! memory has it too.

use std::time::Instant;

use tokio::time::timeout_at;

use super::Lifecycle;
use crate::{
    audit,
    error::Error,
    kms::{
        catalogue::KeyRecord,
        errors::{declared, internal, timed_out},
    },
    store::{Change, CommitFault, Expect},
};

/// What an operation decided.
pub(in crate::kms) enum Decided<T> {
    /// There is nothing to change.
    Done(T),
    /// This is to be committed; then it is done.
    Commit(Change, T),
}

impl Lifecycle {
    /// Decides, commits, and waits until the catalogue has it. If another writer was faster, all of
    /// it again, from the decision on: who loses a race is told what is true after it.
    ///
    /// # Errors
    /// Those of `decide`; [`Kind::DependencyTimeout`](crate::error::Kind::DependencyTimeout) at
    /// `until`; [`Kind::Internal`](crate::error::Kind::Internal) if the store fails, or the attempt cannot be
    /// recorded.
    pub(in crate::kms) async fn change<T>(
        &self,
        until: Instant,
        mut decide: impl FnMut() -> Result<Decided<T>, Error>,
    ) -> Result<T, Error> {
        let changed = async {
            for _ in 0..ATTEMPTS {
                let (change, done) = match decide()? {
                    Decided::Done(done) => return Ok(done),
                    Decided::Commit(change, done) => (change, done),
                };
                audit::attempt().await?;
                match self.store.commit(change).await {
                    Ok(revision) => {
                        self.catalogue.reached(revision).await;
                        return Ok(done);
                    }
                    Err(CommitFault::Stale { .. }) => {
                        let now = self.store.revision().await.map_err(internal)?;
                        self.catalogue.reached(now).await;
                    }
                    Err(CommitFault::Store(fault)) => return Err(internal(fault)),
                }
            }
            Err(internal("other writers were faster again and again"))
        };
        match timeout_at(until.into(), changed).await {
            Ok(changed) => changed,
            Err(_) => Err(timed_out()),
        }
    }
}

/// What must hold of a key's record when a change of it is committed.
///
/// # Errors
/// [`Kind::UnsupportedOperation`](crate::error::Kind::UnsupportedOperation): the key is declared, and
/// the configuration alone changes it.
pub(in crate::kms) fn may_change(record: &KeyRecord) -> Result<Expect, Error> {
    match record.source.revision() {
        Some(revision) => Ok(Expect::At(revision)),
        None => Err(declared(&record.arn)),
    }
}

/// How often a change is tried. Each time somebody else's change is made, so that this many writers
/// of one record at once all come through.
const ATTEMPTS: usize = 200;
