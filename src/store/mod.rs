//! The catalogue: small named records, each with the revision that wrote it.
//!
//! ```text
//!  commit(Change) ─▶ engine: all expectations hold? ─▶ all writes, one new revision ─▶ history ─▶ watchers
//!                                   └── no: Stale, nothing was written
//! ```
//!
//! Hides: where records are kept and how (an engine: [`Store::memory`], [`Store::open`]). Promises,
//! of every engine alike: a change is made whole or not at all; it is answered once it is as durable
//! as the engine makes things; revisions grow by one with each change that writes; who watches gets
//! every change after a revision, in order, or is told that he must list again. Does not: know what
//! a record means, nor who may see it.
//!
//! How to keep a copy of everything in memory: take [`Store::revision`], list, then
//! [`watch`](Store::watch) from that revision. Changes that the listing has seen already come once
//! more; a record's revision tells. On [`WatchFault::TooOld`] begin anew.

mod change;
mod history;
mod memory;
mod name;
mod restored;
mod settings;
mod sqlite;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::{
    change::{Change, Expect},
    history::{Changes, Committed},
    name::{Name, Prefix},
    restored::Restored,
    settings::{Settings, Sqlite as SqliteSettings},
    sqlite::{Examination, backup, check, confirm, restore},
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
    /// What it is called.
    pub name: Name,
    /// What it says; the store does not read it.
    pub value: Bytes,
    /// The revision of the change that wrote it last.
    pub revision: Revision,
}

/// What went wrong in the engine, by what to do about it. The text is for the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Not now: no room on the disk, the disk refuses. Nothing was changed; the same call may go
    /// well later.
    #[error("the store is away: {0}")]
    Away(String),
    /// The disk failed while the change was made. Whether it was made is known by reading again;
    /// watchers are told to list again.
    #[error("the store does not know whether the change was made: {0}")]
    Unknown(String),
    /// What is stored cannot be right: no retry helps, a person must look.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a change was not made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitFault {
    /// What was expected of this record does not hold: read again, decide again. Nothing was
    /// changed.
    #[error("{name} is not as it was expected")]
    Stale {
        /// The first record, in the order of the change, that is not as expected.
        name: Name,
    },
    /// The engine could not.
    #[error(transparent)]
    Store(#[from] Fault),
}

/// Why there is no next change to see.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WatchFault {
    /// The changes since that revision are not known any more (or the store was never there): list
    /// again and watch from then on.
    #[error("the changes since that revision are forgotten")]
    TooOld,
    /// The engine could not.
    #[error(transparent)]
    Store(#[from] Fault),
}

/// Why a store does not open.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenFault {
    /// Waiting does not cure it: no folder, no catalogue, damaged, of a newer version, in use by
    /// another process.
    #[error("{0}")]
    Configuration(String),
    /// The disk refuses; it may do better later.
    #[error("{0}")]
    Away(String),
}

/// The records. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub enum Store {
    /// In memory: for tests, and for `dev` without a file. Gone with the process.
    Memory(memory::Memory),
    /// In a file of SQLite's.
    Sqlite(sqlite::Sqlite),
}

impl Store {
    /// An empty store in memory.
    pub fn memory() -> Self {
        Self::Memory(memory::Memory::default())
    }

    /// Opens the catalogue that the settings name, and makes it if there is none. No other process
    /// can have it open until this store is closed, or dropped with all its clones. Works at the
    /// disk: not for a thread that serves.
    ///
    /// # Errors
    /// [`OpenFault`]; its text names the file.
    pub fn open(settings: &Settings) -> Result<Self, OpenFault> {
        sqlite::Sqlite::open(&settings.sqlite).map(Self::Sqlite)
    }

    /// A copy, in memory, of the catalogue that the settings name, as it is at this moment: to look
    /// at what another process may be using. Nothing is written, and nobody disturbed. None: there
    /// is no catalogue yet. Works at the disk: not for a thread that serves.
    ///
    /// # Errors
    /// [`OpenFault`]; its text names the file.
    pub fn copy(settings: &Settings) -> Result<Option<Self>, OpenFault> {
        let copied = sqlite::look(&settings.sqlite)?;
        Ok(copied.map(|(revision, records)| Self::Memory(memory::Memory::with(revision, records))))
    }

    /// The record of that name, as the last change that was answered left it, or a later one.
    ///
    /// # Errors
    /// [`Fault`]
    pub async fn read(&self, name: &Name) -> Result<Option<Record>, Fault> {
        match self {
            Self::Memory(memory) => memory.read(name),
            Self::Sqlite(sqlite) => sqlite.read(name).await,
        }
    }

    /// At most `limit` records under a prefix, in the order of their names' bytes, those behind
    /// `after` only. Fewer than `limit`: there are no more. One call sees one revision; pages may
    /// see several, but a record that stays is in exactly one page.
    ///
    /// # Errors
    /// [`Fault`]
    pub async fn list(
        &self,
        under: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, Fault> {
        match self {
            Self::Memory(memory) => memory.list(under, after, limit),
            Self::Sqlite(sqlite) => sqlite.list(under, after, limit).await,
        }
    }

    /// Makes a change, whole or not at all, and yields its revision. A change that writes nothing
    /// (requirements alone, or deletions of what is not there) yields the revision that the store
    /// has. Once begun it is made even if the caller no longer waits for the answer.
    ///
    /// # Errors
    /// [`CommitFault::Stale`] names the first record that is not as expected; nothing was changed.
    pub async fn commit(&self, change: Change) -> Result<Revision, CommitFault> {
        match self {
            Self::Memory(memory) => memory.commit(change),
            Self::Sqlite(sqlite) => sqlite.commit(change).await,
        }
    }

    /// Every change after `from`, in order, without end.
    ///
    /// # Errors
    /// [`WatchFault::TooOld`]: the engine no longer knows what happened since `from`.
    pub async fn watch(&self, from: Revision) -> Result<Changes, WatchFault> {
        match self {
            Self::Memory(memory) => memory.watch(from),
            Self::Sqlite(sqlite) => sqlite.watch(from),
        }
    }

    /// The revision of the last change.
    ///
    /// # Errors
    /// [`Fault`]
    pub async fn revision(&self) -> Result<Revision, Fault> {
        match self {
            Self::Memory(memory) => memory.revision(),
            Self::Sqlite(sqlite) => sqlite.revision().await,
        }
    }

    /// Whether one process at a time has the store: what another process began is over.
    pub fn is_exclusive(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => true,
        }
    }

    /// Whether the catalogue was restored from a backup and nobody has confirmed it yet: then keys
    /// are not to serve, and deletions that are due are to wait. It is an ordinary record,
    /// [`Restored::NAME`], and the watch tells it.
    ///
    /// # Errors
    /// [`Fault`]
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
        }
    }
}
