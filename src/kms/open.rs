//! The operations over a store: taken in at the start, followed from then on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tracing::{error, info};

use super::{
    Kms, Settings,
    catalogue::{Retired, Snapshot},
    now, reaper,
    records::{self, Tracking},
    usage,
};
use crate::{
    model::Date,
    store::{self, Change, Changes, CommitFault, Expect, Store, WatchFault},
    token::{self, Group},
};

/// Why the operations cannot begin over a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// What is declared contradicts itself, or what is stored.
    #[error("{0}")]
    Contradiction(String),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Fault),
}

impl Kms {
    /// Declared keys as [`Kms::new`], and besides them all that the store has, now and as it
    /// changes.
    ///
    /// # Errors
    /// A declared key or alias is in the store too, or [`Kms::new`]'s.
    pub async fn open(
        settings: Settings,
        groups: BTreeMap<String, Arc<Group>>,
        store: Store,
    ) -> Result<Arc<Self>, OpenFault> {
        let (names, groups): (Vec<_>, _) = groups.into_iter().unzip();
        let kms = Self::with(settings, &names, groups).map_err(OpenFault::Contradiction)?;
        Self::over(kms, store).await
    }

    pub(super) async fn over(mut kms: Self, store: Store) -> Result<Arc<Self>, OpenFault> {
        let changes = kms.take_in(&store).await?;
        kms.tracking_start = tracking_start(&store).await?;
        kms.store = Some(store.clone());
        let kms = Arc::new(kms);
        // Both end with the store, or when nobody has the operations any more.
        let follower = Arc::downgrade(&kms);
        tokio::spawn({
            let store = store.clone();
            async move { follow(&follower, &store, changes).await }
        });
        reaper::wake_with_hosts(&kms);
        tokio::spawn(reaper::reap(Arc::downgrade(&kms), store.clone()));
        let writer = Arc::downgrade(&kms);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(usage::INTERVAL).await;
                let Some(kms) = writer.upgrade() else { return };
                kms.write_usage(&store).await;
            }
        });
        Ok(kms)
    }

    /// Takes over all that the store has; gives what changes from then on.
    pub(super) async fn take_in(&self, store: &Store) -> Result<Changes, OpenFault> {
        let snapshot = Snapshot::of(store).await?;
        if let Some(contradiction) = snapshot.contradiction(&self.catalogue) {
            return Err(OpenFault::Contradiction(contradiction));
        }
        Ok(self.catalogue.replace(snapshot).0)
    }

    /// Writes what is only in memory yet: the keys' last uses. For the end, before the store closes.
    pub async fn end(&self) {
        if let Some(store) = &self.store {
            self.write_usage(store).await;
        }
    }

    /// Takes a key's handle from every host, and waits for calls that use it.
    pub(super) async fn forget(&self, group: usize, key: &Arc<token::Key>) {
        if let Some(group) = self.groups.get(group) {
            group.forget(key).await;
        }
    }

    /// Hosts forget keys that were closed by whomever: the caller that closed one may be gone.
    fn retire(self: &Arc<Self>, retired: Retired) {
        for (group, key) in retired {
            let kms = Arc::clone(self);
            tokio::spawn(async move { kms.forget(group, &key).await });
        }
    }
}

/// Brings every change of the store into memory.
async fn follow(kms: &std::sync::Weak<Kms>, store: &Store, mut changes: Changes) {
    loop {
        let next = changes.next().await;
        let Some(kms) = kms.upgrade() else { return };
        match next {
            Ok(committed) => kms.retire(kms.catalogue.apply(&committed)),
            Err(WatchFault::Store(store::Fault::Closed)) => return,
            Err(fault) => {
                info!(%fault, "the store is listed again");
                match relist(&kms, store).await {
                    Some(again) => changes = again,
                    None => return,
                }
            }
        }
    }
}

/// Until the store can be listed the keys are what they were.
async fn relist(kms: &Arc<Kms>, store: &Store) -> Option<Changes> {
    loop {
        match Snapshot::of(store).await {
            Ok(snapshot) => {
                let (changes, retired) = kms.catalogue.replace(snapshot);
                kms.retire(retired);
                return Some(changes);
            }
            Err(store::Fault::Closed) => return None,
            Err(fault) => {
                error!(%fault, "the store cannot be followed: changes may be missed; tried again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Since when uses are recorded in this store: since it was first opened.
async fn tracking_start(store: &Store) -> Result<Date, store::Fault> {
    let name = records::tracking_name();
    loop {
        if let Some(record) = store.read(&name).await? {
            return Ok(match records::read::<Tracking>(&record) {
                Ok(tracking) => tracking.since,
                Err(fault) => {
                    error!(record = %name, %fault, "since when uses are recorded cannot be read");
                    now()
                }
            });
        }
        let first = Tracking { since: now() };
        let change = Change::new().put(name.clone(), records::write(&first), Expect::Absent);
        match store.commit(change).await {
            Ok(_) => return Ok(first.since),
            Err(CommitFault::Stale { .. }) => {}
            Err(CommitFault::Store(fault)) => return Err(fault),
        }
    }
}

const AGAIN: Duration = Duration::from_secs(1);
