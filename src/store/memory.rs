//! The engine that keeps records in memory: what the others are compared with.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Change, Changes, CommitFault, Committed, Fault, Name, Prefix, Record, Revision, WatchFault,
    history::History,
};

/// Records in memory.
#[derive(Clone, Debug)]
pub struct Memory {
    shelf: Arc<Mutex<Shelf>>,
    history: History,
}

#[derive(Debug, Default)]
struct Shelf {
    records: BTreeMap<Name, Record>,
    revision: Revision,
}

impl Default for Memory {
    fn default() -> Self {
        Self::with(Revision::default(), Vec::new())
    }
}

impl Memory {
    /// With these records, as another engine had them at this revision.
    pub(super) fn with(revision: Revision, records: Vec<Record>) -> Self {
        let named = records
            .into_iter()
            .map(|record| (record.name.clone(), record));
        let shelf = Shelf {
            records: named.collect(),
            revision,
        };
        Self {
            shelf: Arc::new(Mutex::new(shelf)),
            history: History::after(revision),
        }
    }

    pub(super) fn read(&self, name: &Name) -> Result<Option<Record>, Fault> {
        Ok(self.open()?.records.get(name).cloned())
    }

    pub(super) fn list(
        &self,
        under: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, Fault> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let shelf = self.open()?;
        let records = shelf.records.range::<Name, _>((behind, Bound::Unbounded));
        Ok(records
            .map(|(_, record)| record)
            .skip_while(|record| record.name.as_str() < under.as_str())
            .take_while(|record| under.covers(&record.name))
            .take(limit)
            .cloned()
            .collect())
    }

    pub(super) fn commit(&self, change: Change) -> Result<Revision, CommitFault> {
        let mut shelf = self.open()?;
        for (name, expect) in change.expectations() {
            if !expect.holds(shelf.records.get(name).map(|record| record.revision)) {
                return Err(CommitFault::Stale { name: name.clone() });
            }
        }
        let revision = shelf.revision.next();
        let mut committed = Committed {
            revision,
            ..Committed::default()
        };
        for (name, value) in change.into_writes() {
            if let Some(value) = value {
                let record = Record {
                    name: name.clone(),
                    value,
                    revision,
                };
                shelf.records.insert(name, record.clone());
                committed.puts.push(record);
            } else if shelf.records.remove(&name).is_some() {
                committed.deletes.push(name);
            }
        }
        if !committed.is_empty() {
            shelf.revision = revision;
            // Still under the lock: watchers see changes in the order of their revisions.
            self.history.tell(committed);
        }
        Ok(shelf.revision)
    }

    pub(super) fn watch(&self, from: Revision) -> Result<Changes, WatchFault> {
        self.history.watch(from)
    }

    pub(super) fn revision(&self) -> Result<Revision, Fault> {
        Ok(self.open()?.revision)
    }

    pub(super) fn close(&self) {
        let _all_changes_are_told = self.lock();
        self.history.close();
    }

    fn open(&self) -> Result<MutexGuard<'_, Shelf>, Fault> {
        let shelf = self.lock();
        if self.history.is_closed() {
            return Err(Fault::Closed);
        }
        Ok(shelf)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
