//! The engine that keeps records in memory. The tests compare the other engine with it.

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
pub struct MemoryEngine {
    contents: Arc<Mutex<Contents>>,
    history: History,
}

#[derive(Debug, Default)]
struct Contents {
    records: BTreeMap<Name, Record>,
    revision: Revision,
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::with(Revision::default(), Vec::new())
    }
}

impl MemoryEngine {
    /// With these records, as another engine had them at this revision.
    pub(super) fn with(revision: Revision, records: Vec<Record>) -> Self {
        let named = records
            .into_iter()
            .map(|record| (record.name.clone(), record));
        let contents = Contents {
            records: named.collect(),
            revision,
        };
        Self {
            contents: Arc::new(Mutex::new(contents)),
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
        let contents = self.open()?;
        let records = contents
            .records
            .range::<Name, _>((behind, Bound::Unbounded));
        Ok(records
            .map(|(_, record)| record)
            .skip_while(|record| record.name.as_str() < under.as_str())
            .take_while(|record| under.covers(&record.name))
            .take(limit)
            .cloned()
            .collect())
    }

    pub(super) fn commit(&self, change: Change) -> Result<Revision, CommitFault> {
        let mut contents = self.open()?;
        for (name, expect) in change.expectations() {
            if !expect.holds(contents.records.get(name).map(|record| record.revision)) {
                return Err(CommitFault::Stale { name: name.clone() });
            }
        }
        let revision = contents.revision.next();
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
                contents.records.insert(name, record.clone());
                committed.puts.push(record);
            } else if contents.records.remove(&name).is_some() {
                committed.deletes.push(name);
            }
        }
        if !committed.is_empty() {
            contents.revision = revision;
            // Still under the lock: watchers see changes in the order of their revisions.
            self.history.publish(committed);
        }
        Ok(contents.revision)
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

    fn open(&self) -> Result<MutexGuard<'_, Contents>, Fault> {
        let contents = self.lock();
        if self.history.is_closed() {
            return Err(Fault::Closed);
        }
        Ok(contents)
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
