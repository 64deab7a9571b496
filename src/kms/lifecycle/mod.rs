//! Everything about keys that takes time: changes that are committed and awaited, creations, deletions,
//! what the store tells, last uses that are written down.
//!
//! Promises: a change is answered once the store has it and the catalogue shows it; what ends half-way
//! is finished or undone by the reaper. Does not: decide who may do what, or what a request means.

mod clock;
mod commit;
mod create;
mod deletion;
mod fault_point;
mod follow;
mod journal;
mod orphans;
mod reaper;

pub(super) use commit::{Decided, may_change};
pub(super) use create::{Creation, NewKey, create};
#[cfg(test)]
pub(super) use fault_point::show_fault_points;
pub(super) use follow::tracking_start;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use journal::Journal;

use crate::{
    audit,
    error::{Error, Kind},
    kms::{
        catalogue::{Catalogue, GrantRecord, KeyRecord, Retired, Retirement},
        groups::Groups,
    },
    store::{Changes, Store},
    token::Group,
};

/// What changes keys: the catalogue, the store that it follows, and the tokens.
pub(super) struct Lifecycle {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) store: Store,
    groups: Arc<Groups>,
    /// Where what hsmac does by itself is recorded, if it is.
    audit: Option<Arc<audit::Log>>,
    journal: Arc<Journal>,
    /// Keys whose object the reaper leaves alone, since it is not what it should be.
    alarms: AtomicUsize,
}

impl Lifecycle {
    /// Follows the store from `changes` on, and works on what earlier processes left, until nobody has
    /// it any more.
    pub(super) fn start(
        catalogue: Arc<Catalogue>,
        store: Store,
        groups: Arc<Groups>,
        audit: Option<Arc<audit::Log>>,
        changes: Changes,
    ) -> Arc<Self> {
        let lifecycle = Arc::new(Self {
            catalogue,
            store,
            groups,
            audit,
            journal: Journal::new(),
            alarms: AtomicUsize::new(0),
        });
        tokio::spawn(follow::follow(Arc::downgrade(&lifecycle), changes));
        for group in lifecycle.groups.all() {
            lifecycle.follow_hosts(&group);
        }
        tokio::spawn(reaper::reap(Arc::downgrade(&lifecycle)));
        tokio::spawn(write_last_uses(Arc::downgrade(&lifecycle)));
        lifecycle
    }

    /// Has the reaper look when a host of this group has come to serve, and now.
    pub(super) fn follow_hosts(&self, group: &Group) {
        reaper::wake_with_hosts(&self.journal, group);
        self.journal.wake.notify_one();
    }

    /// Writes what is only in memory yet: the keys' last uses. For the end, before the store closes.
    pub(super) async fn stop(&self) {
        self.catalogue.write_last_uses(&self.store).await;
    }

    /// How many objects that were to be destroyed wait for a person: the log says ALARM of each.
    pub(super) fn deletion_alarms(&self) -> usize {
        self.alarms.load(Ordering::Relaxed)
    }

    /// Returns when no call with the key that this record held is under way, and no host has its
    /// handle. To be called after the record that closes it was committed.
    pub(super) async fn fence(&self, record: &KeyRecord) {
        if let Some(group) = record.group {
            self.end(group, Retirement::Key(record.key.clone())).await;
        }
    }

    /// Returns when no call that was admitted by the policy of this record is under way. To be called after
    /// another policy was committed.
    pub(super) async fn fence_admission(&self, record: &KeyRecord) {
        if let Some(group) = record.group {
            let admission = Retirement::Admission(record.key.clone());
            self.end(group, admission).await;
        }
    }

    /// Returns when no call that nothing but a grant admitted is under way. To be called after the grant's
    /// record was deleted.
    pub(super) async fn fence_grant(&self, record: &KeyRecord, grant: &GrantRecord) {
        if let Some(group) = record.group {
            let admitted = Arc::new(record.key.under_grant(&grant.fence));
            self.end(group, Retirement::Grant(admitted)).await;
        }
    }

    /// The group of tokens that new keys are made in.
    ///
    /// # Errors
    /// [`Kind::UnsupportedOperation`]: there are several, and the configuration names none.
    fn new_keys_group(&self) -> Result<Arc<Group>, Error> {
        self.groups.new_keys().ok_or_else(|| {
            Error::new(
                Kind::UnsupportedOperation,
                "This service has several tokens and does not say which of them makes keys (new_keys).",
            )
        })
    }

    /// The group of a key; none if the configuration no longer has it.
    fn group(&self, record: &KeyRecord) -> Option<Arc<Group>> {
        self.groups.get(record.group?)
    }

    /// Hosts forget keys that were closed by whomever: the caller that closed one may be gone.
    fn retire(self: &Arc<Self>, retired: Retired) {
        for (group, retirement) in retired {
            let lifecycle = Arc::clone(self);
            tokio::spawn(async move { lifecycle.end(group, retirement).await });
        }
    }

    async fn end(&self, group: usize, retirement: Retirement) {
        if let Some(group) = self.groups.get(group) {
            retirement.carry_out(&group).await;
        }
    }
}

async fn write_last_uses(lifecycle: Weak<Lifecycle>) {
    loop {
        tokio::time::sleep(LAST_USE_INTERVAL).await;
        let Some(lifecycle) = lifecycle.upgrade() else {
            return;
        };
        lifecycle.catalogue.write_last_uses(&lifecycle.store).await;
    }
}

/// How often the store gets the keys' last uses.
const LAST_USE_INTERVAL: Duration = Duration::from_secs(60);
