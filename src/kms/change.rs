//! How a record changes: decided on what is in memory, committed if that still held, answered once
//! memory has it too.

use std::{sync::Arc, time::Instant};

use tokio::time::timeout_at;

use super::{Kms, catalogue::Record, internal, records, rights::Asks, timed_out};
use crate::{
    error::{Error, Kind},
    model::{Caller, Operation, Refusal},
    store::{Change, CommitFault, Expect, Store},
};

/// What an operation decided.
pub(super) enum Decision<T> {
    /// There is nothing to change.
    Done(T),
    /// This is to be committed; then it is done.
    Commit(Change, T),
}

impl Kms {
    /// Decides, commits, and waits until the catalogue has it. If another writer was faster, all of
    /// it again, from the decision on: who loses a race is told what is true after it.
    pub(super) async fn change<T>(
        &self,
        until: Instant,
        mut decide: impl FnMut() -> Result<Decision<T>, Error>,
    ) -> Result<T, Error> {
        let store = self.store()?;
        let changed = async {
            for _ in 0..ATTEMPTS {
                let (change, done) = match decide()? {
                    Decision::Done(done) => return Ok(done),
                    Decision::Commit(change, done) => (change, done),
                };
                match store.commit(change).await {
                    Ok(revision) => {
                        self.catalogue.reached(revision).await;
                        return Ok(done);
                    }
                    Err(CommitFault::Stale { .. }) => {
                        let now = store.revision().await.map_err(internal)?;
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

    /// Changes a key's record: resolved, the caller allowed, its state fit for the operation. Gives
    /// the record as it was before.
    pub(super) async fn change_key(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
        asks: &Asks<'_>,
        until: Instant,
        mut edit: impl FnMut(&Record, &mut records::Key) -> Result<(), Error>,
    ) -> Result<Arc<Record>, Error> {
        self.store()?;
        self.change(until, || {
            let record = self.admit(caller, operation, key_id, asks)?;
            let expect = may_change(&record)?;
            check_state(operation, &record)?;
            let mut body = record.body.clone();
            edit(&record, &mut body)?;
            if body == record.body {
                return Ok(Decision::Done(record));
            }
            let name = records::key_name(&body.account, &body.key_id);
            let change = Change::new().put(name, records::write(&body), expect);
            Ok(Decision::Commit(change, record))
        })
        .await
    }

    /// The store, without which nothing can be changed.
    pub(super) fn store(&self) -> Result<&Store, Error> {
        self.store.as_ref().ok_or_else(|| {
            Error::new(
                Kind::UnsupportedOperation,
                "This service has no store: its keys are declared in the configuration, and nothing of them can be changed by a request.",
            )
        })
    }

    /// Returns when no call with the key that this record held is under way, and no host has its
    /// handle. To be called after the record that closes it was committed.
    pub(super) async fn fence(&self, record: &Record) {
        if let Some(group) = record.group {
            self.forget(group, &record.key).await;
        }
    }
}

/// What must hold of a key's record when a change of it is committed.
///
/// # Errors
/// The key is declared: the configuration alone changes it.
pub(super) fn may_change(record: &Record) -> Result<Expect, Error> {
    match record.source.revision() {
        Some(revision) => Ok(Expect::At(revision)),
        None => Err(declared(&record.arn)),
    }
}

/// The refusal to change what the configuration says.
pub(super) fn declared(arn: &str) -> Error {
    Error::new(
        Kind::UnsupportedOperation,
        format!("{arn} is declared in the configuration, which alone can change it."),
    )
}

/// KMS's table of key states.
pub(super) fn check_state(operation: Operation, record: &Record) -> Result<(), Error> {
    operation
        .check(record.state())
        .map_err(|refusal| refused(refusal, &record.arn))
}

pub(super) fn refused(refusal: Refusal, arn: &str) -> Error {
    let kind = match refusal {
        Refusal::Disabled => Kind::Disabled,
        Refusal::Creating
        | Refusal::NotPendingDeletion
        | Refusal::PendingDeletion
        | Refusal::PendingImport
        | Refusal::Unavailable => Kind::InvalidState,
    };
    Error::new(kind, format!("{arn} {refusal}"))
}

/// How often a change is tried. Each time somebody else's change is made, so that this many writers
/// of one record at once all come through.
const ATTEMPTS: usize = 200;
