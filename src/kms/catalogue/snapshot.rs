//! Everything that the store has, at one revision, and what comes after it.

use std::collections::BTreeMap;

use super::{Catalogue, follow::contradiction, stored};
use crate::store::{self, Changes, Name, Revision, Store, WatchFault};

/// Everything that the store has, at one revision, and what comes after it.
pub(in crate::kms) struct Snapshot {
    pub(super) records: BTreeMap<Name, store::Record>,
    pub(super) at: Revision,
    pub(super) changes: Changes,
}

impl Snapshot {
    /// Lists the store, and watches it from there on.
    ///
    /// # Errors
    /// [`store::Fault`]
    pub(in crate::kms) async fn of(store: &Store) -> Result<Self, store::Fault> {
        loop {
            match Self::once(store).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(WatchFault::TooOld) => {}
                Err(WatchFault::Store(fault)) => return Err(fault),
            }
        }
    }

    async fn once(store: &Store) -> Result<Self, WatchFault> {
        let began = store.revision().await?;
        let mut changes = store.watch(began).await?;
        let mut records = BTreeMap::new();
        let mut last: Option<Name> = None;
        loop {
            let page = store
                .list(&stored::everything(), last.as_ref(), PAGE)
                .await?;
            last = page.last().map(|record| record.name.clone());
            let full = page.len() == PAGE;
            records.extend(page.into_iter().map(|record| (record.name.clone(), record)));
            if !full {
                break;
            }
        }
        // Pages may have seen several revisions; what was changed meanwhile makes them one.
        let ended = store.revision().await?;
        let mut at = began;
        while at < ended {
            let committed = changes.next().await?;
            at = committed.revision;
            for record in committed.puts {
                let newer = records
                    .get(&record.name)
                    .is_none_or(|known: &store::Record| known.revision < record.revision);
                if newer {
                    records.insert(record.name.clone(), record);
                }
            }
            for name in committed.deletes {
                if records.get(&name).is_some_and(|known| known.revision < at) {
                    records.remove(&name);
                }
            }
        }
        Ok(Self {
            records,
            at,
            changes,
        })
    }

    /// The first contradiction between what is declared and what is stored.
    pub(in crate::kms) fn contradiction(&self, catalogue: &Catalogue) -> Option<String> {
        let keys = catalogue.read();
        self.records
            .values()
            .find_map(|record| contradiction(&keys, record))
    }
}

/// How many records are listed at a time.
const PAGE: usize = 1000;
