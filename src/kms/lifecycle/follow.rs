//! Brings every change of the store into the catalogue.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{error, info};

use super::Lifecycle;
use crate::{
    kms::catalogue::{
        Snapshot,
        stored::{self, UsageTracking},
    },
    model::Date,
    store::{self, Change, Changes, CommitFault, Expect, Store, WatchFault},
};

/// Ends with the store, or when nobody has the lifecycle any more.
pub(super) async fn follow(lifecycle: Weak<Lifecycle>, mut changes: Changes) {
    loop {
        let next = changes.next().await;
        let Some(lifecycle) = lifecycle.upgrade() else {
            return;
        };
        match next {
            Ok(committed) => lifecycle.retire(lifecycle.catalogue.apply(&committed)),
            Err(WatchFault::Store(store::Fault::Closed)) => return,
            Err(fault) => {
                info!(event = "store_listed_again", reason = %fault, "the store is listed again");
                match relist(&lifecycle).await {
                    Some(again) => changes = again,
                    None => return,
                }
            }
        }
    }
}

/// Until the store can be listed the keys are what they were.
async fn relist(lifecycle: &Arc<Lifecycle>) -> Option<Changes> {
    let mut told: Option<Instant> = None;
    loop {
        match Snapshot::of(&lifecycle.store).await {
            Ok(snapshot) => {
                let (changes, retired) = lifecycle.catalogue.replace(snapshot);
                lifecycle.retire(retired);
                return Some(changes);
            }
            Err(store::Fault::Closed) => return None,
            Err(fault) => {
                if told.is_none_or(|at| at.elapsed() >= SAID_AGAIN) {
                    error!(
                        event = "store_unreadable", reason = %fault,
                        "the store cannot be followed: changes may be missed; tried again"
                    );
                    told = Some(Instant::now());
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Since when uses are recorded in this store: since it was first opened.
pub(in crate::kms) async fn tracking_start(store: &Store) -> Result<Date, store::Fault> {
    let name = stored::tracking_name();
    loop {
        if let Some(record) = store.read(&name).await? {
            return Ok(match stored::read::<UsageTracking>(&record) {
                Ok(tracking) => tracking.since,
                Err(fault) => {
                    error!(event = "record_unreadable", record = %name, reason = %fault, "since when uses are recorded cannot be read");
                    Date::now()
                }
            });
        }
        let first = UsageTracking { since: Date::now() };
        let change = Change::new().put(name.clone(), stored::write(&first), Expect::Absent);
        match store.commit(change).await {
            Ok(_) => return Ok(first.since),
            Err(CommitFault::Stale { .. }) => {}
            Err(CommitFault::Store(fault)) => return Err(fault),
        }
    }
}

/// How often the log says that it cannot.
const SAID_AGAIN: Duration = Duration::from_mins(1);
const RETRY_PAUSE: Duration = Duration::from_secs(1);
