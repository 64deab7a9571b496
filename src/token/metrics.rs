//! What is counted of a group's queue and of each token, and how it is shown.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::{
    metrics::{Counter, Distribution, Histogram},
    proto::host,
    token::{locks::UNPOISONED, status::State},
};

/// As many functions and codes of faults are told apart for each token; the rest is `other`.
const MOST_FAULTS: usize = 200;

/// What a token is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::token) enum Function {
    Mac,
    Find,
    Generate,
    Destroy,
    Random,
}

impl Function {
    const ALL: [Self; 5] = [
        Self::Mac,
        Self::Find,
        Self::Generate,
        Self::Destroy,
        Self::Random,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Mac => "mac",
            Self::Find => "find",
            Self::Generate => "generate",
            Self::Destroy => "destroy",
            Self::Random => "random",
        }
    }

    /// The PKCS#11 function that does it.
    pub(in crate::token) const fn of_pkcs11(self) -> &'static str {
        match self {
            Self::Mac => "C_Sign",
            Self::Find => "C_FindObjects",
            Self::Generate => "C_GenerateKey",
            Self::Destroy => "C_DestroyObject",
            Self::Random => "C_GenerateRandom",
        }
    }
}

/// How a host came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::token) enum HostEnd {
    /// hsmac wanted it.
    Planned,
    /// The process died.
    Crash,
    /// A call did not return.
    Hang,
    /// The token went away, or the host says that it cannot go on.
    Lost,
    /// The host broke the protocol.
    Protocol,
}

impl HostEnd {
    const ALL: [Self; 5] = [
        Self::Planned,
        Self::Crash,
        Self::Hang,
        Self::Lost,
        Self::Protocol,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Lost => "lost",
            Self::Protocol => "protocol",
        }
    }
}

/// Why a job went to another host than the one that had it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::token) enum Move {
    /// The token was busy.
    Busy,
    /// The host ended, or could not do it.
    Host,
    /// It was late: a second host has it too.
    Hedge,
}

impl Move {
    const ALL: [Self; 3] = [Self::Busy, Self::Host, Self::Hedge];

    const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Host => "host",
            Self::Hedge => "hedge",
        }
    }
}

/// What is counted of a queue.
#[derive(Debug, Default)]
pub(in crate::token) struct QueueMetrics {
    /// From a job's arrival to the host that took it, of one job in four.
    pub(in crate::token) wait: Histogram,
    /// Jobs that were refused since the queue was full.
    pub(in crate::token) full: Counter,
    /// Jobs that were refused for one of a caller who had fewer in a full queue.
    pub(in crate::token) displaced: Counter,
    /// Jobs that were refused since they would have been too late.
    pub(in crate::token) hopeless: Counter,
    /// Jobs for which nobody waited any more when their turn came.
    pub(in crate::token) expired: Counter,
    /// Hedges whose answer the caller got: the first host was slower, or failed.
    pub(in crate::token) hedges_won: Arc<Counter>,
    moved: [Counter; Move::ALL.len()],
}

impl QueueMetrics {
    pub(in crate::token) fn moved(&self, why: Move) {
        self.moved[why as usize].increment();
    }
}

/// What is counted of a token.
#[derive(Debug, Default)]
pub(in crate::token) struct TokenMetrics {
    calls: [Histogram; Function::ALL.len()],
    ends: [Counter; HostEnd::ALL.len()],
    faults: Mutex<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    /// By function and code, as the standard spells them.
    counts: BTreeMap<(String, String), u64>,
    last: Option<LastFault>,
}

impl TokenMetrics {
    /// The token answered; what it took.
    pub(in crate::token) fn answered(&self, function: Function, took: Duration) {
        self.calls[function as usize].observe(took);
    }

    /// A host has ended.
    pub(in crate::token) fn ended(&self, how: HostEnd) {
        self.ends[how as usize].increment();
    }

    /// The module answered a function with something other than CKR_OK. What names no function is no
    /// fault of the token.
    pub(in crate::token) fn failed(&self, fault: &host::Fault) {
        if fault.function.is_empty() {
            return;
        }
        let mut faults = self.faults.lock().expect(UNPOISONED);
        let mut series = (fault.function.clone(), fault.code.clone());
        if faults.counts.len() >= MOST_FAULTS && !faults.counts.contains_key(&series) {
            series = ("other".to_owned(), "other".to_owned());
        }
        *faults.counts.entry(series).or_default() += 1;
        faults.last = Some(LastFault {
            at: SystemTime::now(),
            function: fault.function.clone(),
            code: fault.code.clone(),
            reason: fault.reason.clone(),
        });
    }

    pub(in crate::token) fn calls(&self) -> Vec<(&'static str, Distribution)> {
        let calls = Function::ALL.into_iter().zip(&self.calls);
        calls
            .map(|(function, histogram)| (function.name(), histogram.snapshot()))
            .collect()
    }

    pub(in crate::token) fn ends(&self) -> Vec<(&'static str, u64)> {
        let ends = HostEnd::ALL.into_iter().zip(&self.ends);
        ends.map(|(how, count)| (how.name(), count.get())).collect()
    }

    pub(in crate::token) fn faults(&self) -> (Vec<FaultCount>, Option<LastFault>) {
        let faults = self.faults.lock().expect(UNPOISONED);
        let counts = faults.counts.iter();
        let counts = counts.map(|((function, code), count)| FaultCount {
            function: function.clone(),
            code: code.clone(),
            count: *count,
        });
        (counts.collect(), faults.last.clone())
    }
}

/// A group of tokens at one moment.
#[derive(Clone, Debug)]
pub struct GroupSnapshot {
    /// Its name in the configuration, or that of its only token.
    pub name: String,
    /// Jobs that no host has taken yet.
    pub queued: usize,
    /// The most that may be queued.
    pub queue_capacity: usize,
    /// How long jobs were queued.
    pub queue_wait: Distribution,
    /// Jobs that were not done, by the reason: `full`, `displaced`, `hopeless`, `expired`.
    pub refused: [(&'static str, u64); 4],
    /// Jobs that went to another host, by the reason: `busy`, `host`, `hedge`; and `hedge_won`, the hedges that
    /// answered first.
    pub moved: Vec<(&'static str, u64)>,
    /// Its tokens.
    pub tokens: Vec<TokenSnapshot>,
}

impl GroupSnapshot {
    pub(in crate::token) fn new(
        name: &str,
        queued: (usize, usize),
        metrics: &QueueMetrics,
    ) -> Self {
        let moved = Move::ALL.into_iter().zip(&metrics.moved);
        Self {
            name: name.to_owned(),
            queued: queued.0,
            queue_capacity: queued.1,
            queue_wait: metrics.wait.snapshot(),
            refused: [
                ("full", metrics.full.get()),
                ("displaced", metrics.displaced.get()),
                ("hopeless", metrics.hopeless.get()),
                ("expired", metrics.expired.get()),
            ],
            moved: moved
                .map(|(why, count)| (why.name(), count.get()))
                .chain([("hedge_won", metrics.hedges_won.get())])
                .collect(),
            tokens: Vec::new(),
        }
    }
}

/// A token at one moment.
#[derive(Clone, Debug)]
pub struct TokenSnapshot {
    /// Its name in the configuration.
    pub name: String,
    /// How it is.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// The hosts that serve.
    pub hosts: Vec<HostSnapshot>,
    /// Hosts that are on their way.
    pub hosts_starting: usize,
    /// How many hosts it shall have.
    pub hosts_configured: usize,
    /// How long the token took for each function: `mac`, `find`, `generate`, `destroy`, `random`.
    pub calls: Vec<(&'static str, Distribution)>,
    /// What the module answered other than CKR_OK.
    pub faults: Vec<FaultCount>,
    /// The last of those.
    pub last_fault: Option<LastFault>,
    /// Hosts that have ended, by how: `planned`, `crash`, `hang`, `lost`, `protocol`.
    pub host_ends: Vec<(&'static str, u64)>,
    /// How hosts with other settings are, which a reload has brought and which are to take the place of
    /// these; none: the settings are in force.
    pub pending_settings: Option<State>,
}

/// A host that serves, at one moment.
#[derive(Clone, Debug)]
pub struct HostSnapshot {
    /// Which start of a host it is; no other host of the group has the number.
    pub generation: u32,
    /// When it began to serve.
    pub since: SystemTime,
    /// Its sessions for MACs.
    pub sessions: u32,
    /// Jobs that it has.
    pub jobs: usize,
    /// Calls that it has miss their deadlines: the module does not answer.
    pub stuck: bool,
}

/// How often the module answered a function with a code.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FaultCount {
    /// `C_Sign`
    pub function: String,
    /// `CKR_DEVICE_ERROR`; a vendor's code in hexadecimal.
    pub code: String,
    /// How often so far.
    pub count: u64,
}

/// The last that the module answered other than CKR_OK.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastFault {
    /// When.
    pub at: SystemTime,
    /// `C_Sign`
    pub function: String,
    /// `CKR_DEVICE_ERROR`; a vendor's code in hexadecimal.
    pub code: String,
    /// What it means; for operators, never for a client.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_ever_new_codes_has_two_hundred_and_one_series() {
        let metrics = TokenMetrics::default();
        for code in 0..1000 {
            metrics.failed(&host::Fault {
                function: "C_Sign".into(),
                code: format!("{code:#x}"),
                ..host::Fault::default()
            });
        }
        metrics.failed(&host::Fault::default());
        let (counts, last) = metrics.faults();
        assert_eq!(counts.len(), MOST_FAULTS + 1);
        assert_eq!(counts.iter().map(|one| one.count).sum::<u64>(), 1000);
        let others = counts.iter().find(|one| one.code == "other").unwrap();
        assert_eq!((others.function.as_str(), others.count), ("other", 800));
        assert_eq!(last.unwrap().code, "0x3e7");
    }
}
