//! What is counted of the store, and how it is shown.

use super::Fault;
use crate::metrics::{Counter, Distribution, Histogram};

#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Transactions that are on the disk: from their beginning to the end of their sync.
    pub(super) commits: Histogram,
    away: Counter,
    unknown: Counter,
    damaged: Counter,
}

impl Metrics {
    /// A call was answered with a fault.
    pub(super) fn failed(&self, fault: &Fault) {
        match fault {
            Fault::Away(_) => self.away.increment(),
            Fault::Unknown(_) => self.unknown.increment(),
            Fault::Damaged(_) => self.damaged.increment(),
            // It was wanted.
            Fault::Closed => {}
        }
    }

    pub(super) fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot {
            commits: self.commits.snapshot(),
            faults: [
                ("away", self.away.get()),
                ("unknown", self.unknown.get()),
                ("damaged", self.damaged.get()),
            ],
        }
    }
}

/// A store in a file at one moment.
#[derive(Clone, Debug)]
pub struct StoreSnapshot {
    /// How long transactions took until they were on the disk.
    pub commits: Distribution,
    /// Calls that were answered with a fault: `away` (the disk is full, or refuses), `unknown` (it failed while a
    /// change was made), `damaged`.
    pub faults: [(&'static str, u64); 3],
}
