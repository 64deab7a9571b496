//! The engine that keeps records in a file of SQLite's.
//!
//! One thread owns the one connection that writes. Changes that wait together share a transaction,
//! and each is answered after the write-ahead log was synced to the disk (`synchronous=FULL`). What
//! the disk refuses is answered as a fault, and the next change is tried anew.

mod connection;
mod faults;
mod files;
mod lock;
mod outage;
mod rows;
mod schema;
mod upkeep;
mod writer;

use std::{sync::Arc, thread};

use tokio::sync::{mpsc, oneshot, watch};

pub(super) use self::upkeep::snapshot;
pub use self::upkeep::{CatalogueReport, backup, check, confirm, restore};
use self::{
    lock::LockedDatabase,
    writer::{Request, Writer},
};
use super::{
    Change, Changes, CommitFault, Fault, Name, OpenFault, Prefix, Record, Revision, WatchFault,
    history::History,
    metrics::{Metrics, StoreSnapshot},
    settings,
};

/// Calls that may wait for the writer; one more waits for room.
const QUEUE: usize = 1024;

/// Records in a file.
#[derive(Clone, Debug)]
pub struct SqliteEngine {
    requests: mpsc::Sender<Request>,
    history: History,
    trouble: watch::Receiver<Option<String>>,
    metrics: Arc<Metrics>,
}

impl SqliteEngine {
    pub(super) fn open(settings: &settings::SqliteSettings) -> Result<Self, OpenFault> {
        let locked = LockedDatabase::take(&settings.path)?;
        locked.create_if_missing()?;
        let writer = Writer::open(locked)?;
        let (history, trouble) = (writer.history(), writer.trouble());
        let metrics = writer.metrics();
        let (requests, queue) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.serve(queue))
            .map_err(|error| OpenFault::Away(format!("no thread for the store: {error}")))?;
        Ok(Self {
            requests,
            history,
            trouble,
            metrics,
        })
    }

    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }

    pub(super) fn snapshot(&self) -> StoreSnapshot {
        self.metrics.snapshot()
    }

    pub(super) async fn read(&self, name: &Name) -> Result<Option<Record>, Fault> {
        let name = name.clone();
        self.ask(|reply| Request::Read { name, reply }).await?
    }

    pub(super) async fn list(
        &self,
        under: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, Fault> {
        let (under, after) = (under.clone(), after.cloned());
        self.ask(|reply| Request::List {
            under,
            after,
            limit,
            reply,
        })
        .await?
    }

    pub(super) async fn commit(&self, change: Change) -> Result<Revision, CommitFault> {
        self.ask(|reply| Request::Commit { change, reply }).await?
    }

    pub(super) fn watch(&self, from: Revision) -> Result<Changes, WatchFault> {
        self.history.watch(from)
    }

    pub(super) async fn revision(&self) -> Result<Revision, Fault> {
        self.ask(|reply| Request::Revision { reply }).await?
    }

    pub(super) async fn close(&self) {
        // Closed already is closed.
        let _ = self.ask(|reply| Request::Close { reply }).await;
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.send(request(reply)).await;
        sent.map_err(|_| Fault::Closed)?;
        answer.await.map_err(|_| Fault::Closed)
    }
}
