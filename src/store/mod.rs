//! The catalogue: small named records, each with the revision that wrote it.
//!
//! ```text
//!  commit(Change) ─▶ engine: all expectations hold? ─▶ all writes, one new revision ─▶ history ─▶ watchers
//!                                   └── no: Stale, nothing was written
//! ```
//!
//! Hides: where records are kept and how (an engine: [`Store::memory`], [`Store::open`]). Promises,
//! of every engine alike: a change is made whole or not at all; it is answered once it is as durable
//! as the engine makes things; revisions grow by one with each change that writes; a watcher
//! gets every change after a revision, in order, or is told to list again. Does not: know what a
//! record means, nor who may see it.
//!
//! How to keep a copy of everything in memory: take [`Store::revision`], list, then
//! [`watch`](Store::watch) from that revision. Changes that the listing has seen already come once
//! more; their records have the revisions that were listed. On [`WatchFault::TooOld`] begin anew.

mod change;
mod history;
mod memory;
mod metrics;
mod name;
mod restored;
mod settings;
#[cfg(test)]
pub(crate) mod simulated;
mod sqlite;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use tokio::sync::watch;

pub use self::{
    change::{Change, Expect},
    history::{Changes, Committed},
    metrics::StoreSnapshot,
    name::{Name, Prefix},
    restored::Restored,
    settings::{Settings, SqliteSettings},
    sqlite::{CatalogueReport, backup, check, confirm, restore},
};

/// A point in the life of the whole store; 0 is before the first change.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision(pub u64);

impl Revision {
    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What is kept under a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Its name.
    pub name: Name,
    /// Its bytes; the store does not interpret them.
    pub value: Bytes,
    /// The revision of the change that wrote it last.
    pub revision: Revision,
}

/// A fault of the engine; each variant says whether a retry may help. The text is for the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The disk is full or refuses. Nothing was changed; the same call may succeed later.
    #[error("the store is away: {0}")]
    Away(String),
    /// The disk failed while the change was made. To read the records again shows whether it was made;
    /// watchers are told to list again.
    #[error("the store does not know whether the change was made: {0}")]
    Unknown(String),
    /// What is stored cannot be right: no retry helps, an operator must look.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a change was not made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitFault {
    /// This record is not as the change expects it. Nothing was changed: the caller reads it again and
    /// decides anew.
    #[error("{name} is not as it was expected")]
    Stale {
        /// The first record, in the order of the change, that is not as expected.
        name: Name,
    },
    /// A fault of the engine.
    #[error(transparent)]
    Store(#[from] Fault),
}

/// Why a watcher gets no next change.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WatchFault {
    /// The changes since that revision are not kept any more, or the store never had the revision: list
    /// again and watch from then on.
    #[error("the changes since that revision are forgotten")]
    TooOld,
    /// A fault of the engine.
    #[error(transparent)]
    Store(#[from] Fault),
}

/// Why a store does not open.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenFault {
    /// An operator must act: there is no folder or no catalogue, or the catalogue is damaged, of a newer
    /// version, or in use by another process.
    #[error("{0}")]
    Configuration(String),
    /// The disk refuses; a later attempt may succeed.
    #[error("{0}")]
    Away(String),
}

/// The records. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub enum Store {
    /// In memory: for tests, and for `dev` without a file. Gone with the process.
    Memory(memory::MemoryEngine),
    /// In a file of SQLite's.
    Sqlite(sqlite::SqliteEngine),
    /// In memory, with faults that a simulation decides on.
    #[cfg(test)]
    Simulated(simulated::SimulatedEngine),
}

impl Store {
    /// An empty store in memory.
    pub fn memory() -> Self {
        Self::Memory(memory::MemoryEngine::default())
    }

    /// Opens the catalogue that the settings name, and makes it if there is none. No other process
    /// can have it open until this store is closed, or dropped with all its clones. It blocks on
    /// the disk: not for a thread that serves requests.
    ///
    /// # Errors
    /// [`OpenFault::Configuration`] or [`OpenFault::Away`]; the text names the file.
    pub fn open(settings: &Settings) -> Result<Self, OpenFault> {
        sqlite::SqliteEngine::open(&settings.sqlite).map(Self::Sqlite)
    }

    /// A copy, in memory, of the catalogue that the settings name, as it is at this moment: to look
    /// at what another process may be using. Nothing is written, and that process is not
    /// disturbed. None: there is no catalogue yet. It blocks on the disk: not for a thread that serves
    /// requests.
    ///
    /// # Errors
    /// [`OpenFault::Configuration`] or [`OpenFault::Away`]; the text names the file.
    pub fn copy(settings: &Settings) -> Result<Option<Self>, OpenFault> {
        let copied = sqlite::snapshot(&settings.sqlite)?;
        Ok(copied
            .map(|(revision, records)| Self::Memory(memory::MemoryEngine::with(revision, records))))
    }

    /// The record of that name, as the last answered change, or a later one, left it.
    ///
    /// # Errors
    /// [`Fault::Away`], [`Fault::Damaged`] or [`Fault::Closed`].
    pub async fn read(&self, name: &Name) -> Result<Option<Record>, Fault> {
        match self {
            Self::Memory(memory) => memory.read(name),
            Self::Sqlite(sqlite) => sqlite.read(name).await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.read(name),
        }
    }

    /// At most `limit` records under a prefix, in the order of their names' bytes, those behind
    /// `after` only. Fewer than `limit`: there are no more. One call sees one revision; pages may
    /// see several, but a record that stays is in exactly one page.
    ///
    /// # Errors
    /// [`Fault::Away`], [`Fault::Damaged`] or [`Fault::Closed`].
    pub async fn list(
        &self,
        under: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, Fault> {
        match self {
            Self::Memory(memory) => memory.list(under, after, limit),
            Self::Sqlite(sqlite) => sqlite.list(under, after, limit).await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.list(under, after, limit),
        }
    }

    /// Makes a change, whole or not at all, and yields its revision. A change that writes nothing
    /// (requirements alone, or deletions of what is not there) yields the revision that the store
    /// has. Once begun it is made even if the caller no longer waits for the answer.
    ///
    /// # Errors
    /// [`CommitFault::Stale`] names the first record that is not as expected; [`CommitFault::Store`] is a
    /// fault of the engine, and after [`Fault::Unknown`] the change may have been made.
    pub async fn commit(&self, change: Change) -> Result<Revision, CommitFault> {
        match self {
            Self::Memory(memory) => memory.commit(change),
            Self::Sqlite(sqlite) => sqlite.commit(change).await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.commit(change).await,
        }
    }

    /// Every change after `from`, in order, without end.
    ///
    /// # Errors
    /// [`WatchFault::TooOld`]: the engine no longer has the changes since `from`; [`WatchFault::Store`] with
    /// [`Fault::Closed`].
    pub async fn watch(&self, from: Revision) -> Result<Changes, WatchFault> {
        match self {
            Self::Memory(memory) => memory.watch(from),
            Self::Sqlite(sqlite) => sqlite.watch(from),
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.memory.watch(from),
        }
    }

    /// The revision of the last change.
    ///
    /// # Errors
    /// [`Fault::Away`], [`Fault::Damaged`] or [`Fault::Closed`].
    pub async fn revision(&self) -> Result<Revision, Fault> {
        match self {
            Self::Memory(memory) => memory.revision(),
            Self::Sqlite(sqlite) => sqlite.revision().await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.revision(),
        }
    }

    /// What was counted of the store; none: it is in memory.
    pub fn snapshot(&self) -> Option<StoreSnapshot> {
        match self {
            Self::Memory(_) => None,
            Self::Sqlite(sqlite) => Some(sqlite.snapshot()),
            #[cfg(test)]
            Self::Simulated(_) => None,
        }
    }

    /// Whether one process at a time has the store: what another process began is over.
    pub fn is_exclusive(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => true,
            #[cfg(test)]
            Self::Simulated(_) => true,
        }
    }

    /// Why nothing can be written now, for operators; none while it can, as far as is known: it is learned
    /// from what is tried.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        match self {
            Self::Memory(_) => watch::Sender::new(None).subscribe(),
            Self::Sqlite(sqlite) => sqlite.trouble(),
            #[cfg(test)]
            Self::Simulated(_) => watch::Sender::new(None).subscribe(),
        }
    }

    /// Whether the catalogue was restored from a backup and no operator has confirmed it yet: then keys
    /// are not to serve, and deletions that are due are to wait. It is an ordinary record,
    /// [`Restored::NAME`], and watchers see it.
    ///
    /// # Errors
    /// [`Fault::Away`], [`Fault::Damaged`] or [`Fault::Closed`].
    pub async fn restored(&self) -> Result<Option<Restored>, Fault> {
        Ok(self
            .read(&Restored::name())
            .await?
            .as_ref()
            .map(Restored::of))
    }

    /// Ends the store for all its clones: changes that were begun are made and answered, later calls
    /// and watchers get [`Fault::Closed`]. When it returns, everything is in the file and another
    /// process may have it. A second call does nothing.
    pub async fn close(&self) {
        match self {
            Self::Memory(memory) => memory.close(),
            Self::Sqlite(sqlite) => sqlite.close().await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.memory.close(),
        }
    }
}
