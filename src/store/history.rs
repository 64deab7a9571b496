//! The last changes, for watchers. Bounded: a watcher that falls behind by more than that gets
//! [`WatchFault::TooOld`], and lists again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{Fault, Name, Record, Revision, WatchFault};

/// How many written and deleted records the history holds; at least the last change whole.
const MOST: usize = 4096;

/// A change as it was made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Committed {
    /// The change's revision.
    pub revision: Revision,
    /// The records that it wrote, sorted by name.
    pub puts: Vec<Record>,
    /// The names of the records that it removed, sorted; only those that were there.
    pub deletes: Vec<Name>,
}

impl Committed {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.puts.len() + self.deletes.len()
    }
}

/// A watcher's view of changes as they are made; from [`Store::watch`](super::Store::watch).
#[derive(Debug)]
pub struct Changes {
    history: History,
    seen: Revision,
    news: watch::Receiver<()>,
}

impl Changes {
    /// The next change; waits for it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`WatchFault::TooOld`]: this watcher was too slow, or the engine lost track of a change: list
    /// again. [`WatchFault::Store`] with [`Fault::Closed`] at the end of the store, after its last
    /// change.
    pub async fn next(&mut self) -> Result<Committed, WatchFault> {
        loop {
            self.news.mark_unchanged();
            if let Some(committed) = self.history.lock().after(self.seen)? {
                self.seen = committed.revision;
                return Ok(Committed::clone(&committed));
            }
            if self.news.changed().await.is_err() {
                return Err(Fault::Closed.into());
            }
        }
    }
}

/// The history that engines append to and watchers read.
#[derive(Clone, Debug)]
pub(super) struct History(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Mutex<ChangeLog>,
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct ChangeLog {
    /// The revision of the last change that is no longer kept.
    forgotten: Revision,
    changes: VecDeque<Arc<Committed>>,
    records: usize,
    closed: bool,
}

impl History {
    /// An empty history that begins after `revision`.
    pub(super) fn after(revision: Revision) -> Self {
        Self(Arc::new(Shared {
            log: Mutex::new(ChangeLog {
                forgotten: revision,
                changes: VecDeque::new(),
                records: 0,
                closed: false,
            }),
            news: watch::Sender::new(()),
        }))
    }

    /// Appends a change and wakes watchers. Engines call it in the order of revisions.
    pub(super) fn publish(&self, committed: Committed) {
        self.lock().push(committed);
        self.0.news.send_replace(());
    }

    /// Forgets everything up to `revision`: watchers must list again.
    pub(super) fn reset(&self, revision: Revision) {
        let mut log = self.lock();
        log.forgotten = revision;
        log.changes.clear();
        log.records = 0;
        drop(log);
        self.0.news.send_replace(());
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.0.news.send_replace(());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn watch(&self, from: Revision) -> Result<Changes, WatchFault> {
        let log = self.lock();
        if log.closed {
            return Err(Fault::Closed.into());
        }
        // A revision that the store has not reached is of another store, or from before a restore.
        if from < log.forgotten || from > log.latest() {
            return Err(WatchFault::TooOld);
        }
        Ok(Changes {
            history: self.clone(),
            seen: from,
            news: self.0.news.subscribe(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, ChangeLog> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChangeLog {
    fn latest(&self) -> Revision {
        self.changes
            .back()
            .map_or(self.forgotten, |last| last.revision)
    }

    fn push(&mut self, committed: Committed) {
        self.records += committed.len();
        self.changes.push_back(Arc::new(committed));
        while self.records > MOST && self.changes.len() > 1 {
            if let Some(oldest) = self.changes.pop_front() {
                self.records -= oldest.len();
                self.forgotten = oldest.revision;
            }
        }
    }

    fn after(&self, seen: Revision) -> Result<Option<Arc<Committed>>, WatchFault> {
        if seen < self.forgotten || seen > self.latest() {
            return Err(WatchFault::TooOld);
        }
        let known = self.changes.partition_point(|one| one.revision <= seen);
        match self.changes.get(known) {
            Some(committed) => Ok(Some(Arc::clone(committed))),
            None if self.closed => Err(Fault::Closed.into()),
            None => Ok(None),
        }
    }
}
