//! GetKeyLastUsage: when a key last made or checked a MAC.
//!
//! Promises: a MAC costs one atomic write for it; the store gets what is new once a minute, in few
//! changes, and at an orderly end. After a crash the last minute may be missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Kms, now,
    records::{self, UsedBy},
    rights::Asks,
    validate,
};
use crate::{
    error::Error,
    model::{Caller, Date, Operation},
    store::{Change, Expect, Store},
};

/// The last use of one key. Outlives its record's changes.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Milliseconds since 1970, times two, plus one for VerifyMac. 0: never.
    last: AtomicU64,
    /// What of it is in the store.
    written: AtomicU64,
}

impl Usage {
    pub(super) fn note(&self, operation: UsedBy) {
        self.last.store(packed(operation, now()), Ordering::Relaxed);
    }

    /// What the store knows, unless more is known here.
    pub(super) fn restore(&self, stored: records::Usage) {
        let packed = packed(stored.operation, stored.at);
        self.written.fetch_max(packed, Ordering::Relaxed);
        self.last.fetch_max(packed, Ordering::Relaxed);
    }

    pub(super) fn is_unwritten(&self) -> bool {
        self.last.load(Ordering::Relaxed) > self.written.load(Ordering::Relaxed)
    }

    pub(super) fn last(&self) -> Option<records::Usage> {
        unpacked(self.last.load(Ordering::Relaxed))
    }
}

/// KMS: GetKeyLastUsageRequest.
#[derive(Clone, Debug)]
pub struct GetKeyLastUsage {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
}

/// KMS: GetKeyLastUsageResponse.
#[derive(Clone, Debug)]
pub struct KeyLastUsage {
    /// The key's ARN.
    pub key_id: Arc<str>,
    /// The last successful use since tracking began, if there was one.
    pub last: Option<(Operation, Date)>,
    /// Since when uses of this key are recorded.
    pub tracking_start: Date,
    /// Absent for declared keys.
    pub key_creation: Option<Date>,
}

impl Kms {
    /// When a key last made or checked a MAC.
    ///
    /// # Errors
    /// Those of KMS's GetKeyLastUsage.
    pub fn key_last_usage(
        &self,
        caller: &Caller,
        request: &GetKeyLastUsage,
    ) -> Result<KeyLastUsage, Error> {
        let mut broken = Vec::new();
        let Some(key_id) = validate::key_id(request.key_id.as_deref(), &mut broken) else {
            return Err(validate::refuse(broken));
        };
        let record = self.admit(caller, Operation::GetKeyLastUsage, key_id, &Asks::default())?;
        let key_creation = record.body.created;
        Ok(KeyLastUsage {
            key_id: record.arn.clone(),
            last: record
                .usage
                .last()
                .map(|used| (used.operation.operation(), used.at)),
            tracking_start: key_creation
                .map_or(self.tracking_start, |made| made.max(self.tracking_start)),
            key_creation,
        })
    }

    /// Writes to the store which keys were used since the last time.
    pub(super) async fn write_usage(&self, store: &Store) {
        for some in self.catalogue.unwritten_usages().chunks(A_CHANGE) {
            let mut change = Change::new();
            let mut written = Vec::with_capacity(some.len());
            for (name, usage) in some {
                let last = usage.last.load(Ordering::Relaxed);
                if let Some(record) = unpacked(last) {
                    change = change.put(name.clone(), records::write(&record), Expect::Any);
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
                    tracing::warn!(%fault, "the keys' last uses cannot be written; tried again in a minute");
                    return;
                }
            }
        }
    }
}

/// How often the store gets what is new.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

/// How many keys' uses one change holds: it must not hold up others' changes for long.
const A_CHANGE: usize = 500;

fn packed(operation: UsedBy, at: Date) -> u64 {
    at.millis() << 1 | u64::from(operation == UsedBy::VerifyMac)
}

fn unpacked(packed: u64) -> Option<records::Usage> {
    let operation = match packed & 1 {
        0 => UsedBy::GenerateMac,
        _ => UsedBy::VerifyMac,
    };
    (packed != 0).then_some(records::Usage {
        operation,
        at: Date::of_millis(packed >> 1),
    })
}
