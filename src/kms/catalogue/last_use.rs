//! When a key last made or checked a MAC.
//!
//! Promises: a MAC costs one atomic write for it; the store gets what is new once a minute, in few
//! changes, and at an orderly end. After a crash the last minute may be missing.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Catalogue,
    stored::{self, StoredUsage, UsedBy},
};
use crate::{
    model::Date,
    store::{Change, Expect, Store},
};

/// The last use of one key. Outlives its record's changes.
#[derive(Debug, Default)]
pub(in crate::kms) struct LastUse {
    /// Milliseconds since 1970, times two, plus one for VerifyMac. 0: never.
    last: AtomicU64,
    /// What of it is in the store.
    written: AtomicU64,
}

impl LastUse {
    /// Notes a use now.
    pub(in crate::kms) fn note(&self, operation: UsedBy) {
        self.last
            .store(packed(operation, Date::now()), Ordering::Relaxed);
    }

    /// Takes what the store knows, unless more is known here.
    pub(in crate::kms) fn restore(&self, stored: StoredUsage) {
        let packed = packed(stored.operation, stored.at);
        self.written.fetch_max(packed, Ordering::Relaxed);
        self.last.fetch_max(packed, Ordering::Relaxed);
    }

    pub(in crate::kms) fn is_unwritten(&self) -> bool {
        self.last.load(Ordering::Relaxed) > self.written.load(Ordering::Relaxed)
    }

    pub(in crate::kms) fn last(&self) -> Option<StoredUsage> {
        unpacked(self.last.load(Ordering::Relaxed))
    }
}

impl Catalogue {
    /// Writes to the store which keys were used since the last time.
    pub(in crate::kms) async fn write_last_uses(&self, store: &Store) {
        for some in self.unwritten_uses().chunks(USES_IN_A_CHANGE) {
            let mut change = Change::new();
            let mut written = Vec::with_capacity(some.len());
            for (name, usage) in some {
                let last = usage.last.load(Ordering::Relaxed);
                if let Some(record) = unpacked(last) {
                    change = change.put(name.clone(), stored::write(&record), Expect::Any);
                    written.push((usage, last));
                }
            }
            match store.commit(change).await {
                Ok(_) => {
                    for (usage, last) in written {
                        usage.written.fetch_max(last, Ordering::Relaxed);
                    }
                }
                Err(fault) => {
                    tracing::warn!(event = "last_uses_unwritten", reason = %fault, "the keys' last uses cannot be written; tried again in a minute");
                    return;
                }
            }
        }
    }
}

/// How many keys' uses one change holds: it must not hold up others' changes for long.
const USES_IN_A_CHANGE: usize = 500;

fn packed(operation: UsedBy, at: Date) -> u64 {
    at.millis() << 1 | u64::from(operation == UsedBy::VerifyMac)
}

fn unpacked(packed: u64) -> Option<StoredUsage> {
    let operation = match packed & 1 {
        0 => UsedBy::GenerateMac,
        _ => UsedBy::VerifyMac,
    };
    (packed != 0).then_some(StoredUsage {
        operation,
        at: Date::of_millis(packed >> 1),
    })
}
