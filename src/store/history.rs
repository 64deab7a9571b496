//! The last changes, for those who watch. Bounded: who falls behind by more than that is told so,
//! and lists again.

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
    /// What it wrote, by name.
    pub puts: Vec<Record>,
    /// What it removed, by name; only what was there.
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

/// Changes as they are made; from [`Store::watch`](super::Store::watch).
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
    /// [`WatchFault::TooOld`]: this watcher was too slow, or the store had to begin anew: list
    /// again. [`Fault::Closed`] at the end of the store, after its last change.
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

/// What engines tell and watchers read.
#[derive(Clone, Debug)]
pub(super) struct History(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    past: Mutex<Past>,
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Past {
    /// The last change that is no longer here.
    forgotten: Revision,
    changes: VecDeque<Arc<Committed>>,
    records: usize,
    closed: bool,
}

impl History {
    /// Begins after `revision`.
    pub(super) fn after(revision: Revision) -> Self {
        Self(Arc::new(Shared {
            past: Mutex::new(Past {
                forgotten: revision,
                changes: VecDeque::new(),
                records: 0,
                closed: false,
            }),
            news: watch::Sender::new(()),
        }))
    }

    /// Tells the next change. Engines call it in the order of revisions.
    pub(super) fn tell(&self, committed: Committed) {
        self.lock().push(committed);
        self.0.news.send_replace(());
    }

    /// Forgets everything up to `revision`: whoever watches must list again.
    pub(super) fn begin_anew(&self, revision: Revision) {
        let mut past = self.lock();
        past.forgotten = revision;
        past.changes.clear();
        past.records = 0;
        drop(past);
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
        let past = self.lock();
        if past.closed {
            return Err(Fault::Closed.into());
        }
        // A revision that the store has not reached is one of another store, or of before a restore.
        if from < past.forgotten || from > past.latest() {
            return Err(WatchFault::TooOld);
        }
        Ok(Changes {
            history: self.clone(),
            seen: from,
            news: self.0.news.subscribe(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Past> {
        self.0.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
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
