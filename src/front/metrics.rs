//! What is counted of calls and connections, and how it is shown.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::{
    error::Kind,
    front::{
        limits::Quota,
        recent::{Recent, RecentFault, Refusal},
    },
    metrics::{Distribution, Histogram, SHARDS, one_in, own_shard},
    model::Operation,
};

thread_local! {
    /// Callers that were looked for, to time one in sixteen.
    static CALLERS: Cell<u32> = const { Cell::new(0) };
}

/// Calls of one API, by operation and outcome.
pub(super) struct CallMetrics {
    wire: &'static str,
    /// For each of [`CalledOperation`]: how many went well, and how many ended in each [`Kind`]; threads
    /// have their own.
    counts: [Vec<[AtomicU64; Kind::ALL.len() + 1]>; SHARDS],
    took: [Histogram; Timed::ALL.len()],
    /// Finding out who the caller is; one time in sixteen is timed.
    authentication: Histogram,
    pub(super) recent: Recent,
}

/// What was called, as it is counted: an index into [`CallMetrics::counts`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct CalledOperation(usize);

impl CalledOperation {
    pub(super) const GENERATE_MACS: Self = Self(Operation::ALL.len());
    pub(super) const VERIFY_MACS: Self = Self(Operation::ALL.len() + 1);
    /// Health, reflection, and what nobody knows.
    pub(super) const OTHER: Self = Self(Operation::ALL.len() + 2);

    /// The operation of this name, `GenerateMac`; KMS has no name for streams.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "GenerateMacs" => Self::GENERATE_MACS,
            "VerifyMacs" => Self::VERIFY_MACS,
            _ => Operation::named(name).map_or(Self::OTHER, Self::from),
        }
    }

    /// What it is counted under.
    pub(super) fn quota(self) -> Quota {
        if self.is_stream() {
            return Quota::SYMMETRIC;
        }
        let operation = Operation::ALL.get(self.0);
        operation.map_or(Quota::OTHER, |operation| Quota::of(*operation))
    }

    /// Whether its items are counted, and not the call.
    pub(super) fn is_stream(self) -> bool {
        self == Self::GENERATE_MACS || self == Self::VERIFY_MACS
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::GENERATE_MACS => "GenerateMacs",
            Self::VERIFY_MACS => "VerifyMacs",
            Self(index) => Operation::ALL.get(index).map_or("other", |one| one.name()),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..=Self::OTHER.0).map(Self)
    }
}

impl From<Operation> for CalledOperation {
    fn from(operation: Operation) -> Self {
        // Those that are called most come first.
        let found = Operation::ALL.iter().position(|one| *one == operation);
        found.map_or(Self::OTHER, Self)
    }
}

/// Which calls are timed together.
#[derive(Clone, Copy)]
enum Timed {
    GenerateMac,
    VerifyMac,
    Management,
}

impl Timed {
    const ALL: [Self; 3] = [Self::GenerateMac, Self::VerifyMac, Self::Management];

    const fn name(self) -> &'static str {
        match self {
            Self::GenerateMac => "GenerateMac",
            Self::VerifyMac => "VerifyMac",
            Self::Management => "management",
        }
    }

    fn of(operation: CalledOperation) -> Option<Self> {
        let operation = *Operation::ALL.get(operation.0)?;
        Some(if operation == Operation::GenerateMac {
            Self::GenerateMac
        } else if operation == Operation::VerifyMac {
            Self::VerifyMac
        } else {
            Self::Management
        })
    }
}

impl CallMetrics {
    /// `wire` is `grpc` or `aws`.
    pub(super) fn new(wire: &'static str) -> Self {
        Self {
            wire,
            counts: std::array::from_fn(|_| {
                let none = |_| std::array::from_fn(|_| AtomicU64::new(0));
                CalledOperation::all().map(none).collect()
            }),
            took: Default::default(),
            authentication: Histogram::default(),
            recent: Recent::default(),
        }
    }

    /// Finds out who the caller is, and notes now and then how long that takes.
    pub(super) fn authenticating<T>(&self, authenticate: impl FnOnce() -> T) -> T {
        let timed = one_in(16, &CALLERS).then(Instant::now);
        let caller = authenticate();
        if let Some(began) = timed {
            self.authentication.observe(began.elapsed());
        }
        caller
    }

    /// A call that began then is answered: what failed, if something did. Gives the time that it took.
    pub(super) fn answered(
        &self,
        operation: CalledOperation,
        failed: Option<Kind>,
        began: Instant,
    ) -> Duration {
        let took = began.elapsed();
        let outcome = failed.map_or(0, |kind| 1 + kind as usize);
        self.counts[own_shard()][operation.0][outcome].fetch_add(1, Ordering::Relaxed);
        // How long a stream is open says nothing.
        if let (Some(timed), false) = (Timed::of(operation), operation.is_stream()) {
            self.took[timed as usize].observe(took);
        }
        took
    }

    /// All calls so far.
    pub(super) fn snapshot(&self) -> CallsSnapshot {
        let mut counts = Vec::new();
        for operation in CalledOperation::all() {
            for outcome in 0..=Kind::ALL.len() {
                let shards = self.counts.iter();
                let count = shards.map(|shard| shard[operation.0][outcome].load(Ordering::Relaxed));
                let count = count.sum();
                let kind = outcome.checked_sub(1).map(|index| Kind::ALL[index]);
                // What went well is there from the first look on, so that rates have a beginning.
                if count > 0 || kind.is_none() {
                    counts.push(CallCount {
                        operation: operation.name(),
                        exception: kind,
                        count,
                    });
                }
            }
        }
        let took = Timed::ALL.into_iter().zip(&self.took);
        CallsSnapshot {
            wire: self.wire,
            counts,
            took: took
                .map(|(timed, histogram)| (timed.name(), histogram.snapshot()))
                .collect(),
            authentication: self.authentication.snapshot(),
            faults: self.recent.faults(),
            refusals: self.recent.refusals(),
        }
    }
}

/// The calls of one API at one moment.
#[derive(Clone, Debug)]
pub struct CallsSnapshot {
    /// `grpc` or `aws`.
    pub wire: &'static str,
    /// By operation and outcome.
    pub counts: Vec<CallCount>,
    /// How long calls took: `GenerateMac`, `VerifyMac`, and `management` for the rest.
    pub took: Vec<(&'static str, Distribution)>,
    /// How long it took to find out who the caller is, one time in sixteen.
    pub authentication: Distribution,
    /// The last that failed for a reason of ours, the newest first.
    pub faults: Vec<RecentFault>,
    /// Who was refused.
    pub refusals: Vec<Refusal>,
}

/// How often calls of an operation ended in one way.
#[derive(Clone, Debug)]
pub struct CallCount {
    /// KMS's name; `GenerateMacs` and `VerifyMacs` are items of streams, `other` is what is no operation.
    pub operation: &'static str,
    /// What failed; none: the call went well.
    pub exception: Option<Kind>,
    /// How often so far.
    pub count: u64,
}

/// The connections of one listener at one moment.
#[derive(Clone, Debug)]
pub struct ConnectionsSnapshot {
    /// `grpc` or `aws`.
    pub wire: &'static str,
    /// Connections of known callers.
    pub authenticated: usize,
    /// The most of those.
    pub authenticated_limit: usize,
    /// Connections that have proved nothing.
    pub unauthenticated: usize,
    /// The most of those.
    pub unauthenticated_limit: usize,
    /// Connections that were closed to let others in.
    pub evicted: u64,
    /// TLS handshakes that failed, by cause.
    pub failed_handshakes: BTreeMap<&'static str, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_counted_under_its_own_name() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind:?}");
        }
        let metrics = CallMetrics::new("grpc");
        let operation = CalledOperation::from(Operation::GenerateMac);
        for kind in Kind::ALL {
            metrics.answered(operation, Some(kind), Instant::now());
        }
        let seen = metrics.snapshot().counts;
        let failed = seen.iter().filter(|one| one.exception.is_some());
        assert!(
            failed
                .clone()
                .all(|one| one.count == 1 && one.operation == "GenerateMac")
        );
        assert_eq!(failed.count(), Kind::ALL.len());
    }

    #[test]
    fn streams_are_counted_and_not_timed() {
        let metrics = CallMetrics::new("grpc");
        for name in [
            "GenerateMacs",
            "VerifyMacs",
            "Check",
            "VerifyMac",
            "ListKeys",
        ] {
            let operation = CalledOperation::named(name);
            metrics.answered(operation, None, Instant::now());
        }
        let seen = metrics.snapshot();
        let count = |name| {
            seen.counts
                .iter()
                .find(|one| one.operation == name)
                .unwrap()
                .count
        };
        assert_eq!(
            (count("GenerateMacs"), count("other"), count("ListKeys")),
            (1, 1, 1)
        );
        let timed: Vec<_> = seen
            .took
            .iter()
            .map(|(name, took)| (*name, took.count()))
            .collect();
        assert_eq!(
            timed,
            [("GenerateMac", 0), ("VerifyMac", 1), ("management", 1)]
        );
    }
}
