//! The last hour, for plots: one sample every ten seconds.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::observation::Observation;
use crate::{error::Kind, metrics::Distribution};

/// How often a sample is taken.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// An hour of them.
const MOST: usize = 360;

/// What happened between two looks.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Sample {
    /// The end of the interval, in seconds since 1970.
    pub at: u64,
    /// Calls a second: GenerateMac, VerifyMac, everything else.
    pub rate: [f64; 3],
    /// The p99 of those calls in seconds, as far as the buckets tell; none without a call.
    pub p99: [Option<f64>; 3],
    /// Calls a second that failed for reasons that are ours: the token, a time-out, a bug.
    pub our_faults: f64,
    /// Calls a second that were refused since a queue was full or too long for them.
    pub throttled: f64,
    /// Calls a second that were refused since their principals were over their limits.
    pub limited: f64,
    /// Calls a second that were not allowed, or came without a proof.
    pub denied: f64,
    /// The p99 of the wait in the tokens' queues, in seconds.
    pub queue_p99: Option<f64>,
}

/// The samples so far, the oldest first.
#[derive(Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    last: Option<Totals>,
}

/// What a sample is the difference of.
#[derive(Clone)]
struct Totals {
    took: [Distribution; 3],
    queue: Distribution,
    our_faults: u64,
    throttled: u64,
    limited: u64,
    denied: u64,
}

impl Totals {
    fn of(observation: &Observation) -> Self {
        let mut took: [Distribution; 3] = Default::default();
        for calls in &observation.calls {
            for (total, (_, more)) in took.iter_mut().zip(&calls.took) {
                *total += more;
            }
        }
        let mut queue = Distribution::default();
        for group in &observation.overview.groups {
            queue += &group.queue_wait;
        }
        let counts = observation.calls.iter().flat_map(|calls| &calls.counts);
        let count = |which: fn(Kind) -> bool| -> u64 {
            let of_kind = counts
                .clone()
                .filter(|one| one.exception.is_some_and(which));
            of_kind.map(|one| one.count).sum()
        };
        let limited = observation.limits.throttled.iter();
        let limited = limited.map(|(_, count)| count).sum();
        Self {
            took,
            queue,
            limited,
            our_faults: count(Kind::is_ours),
            throttled: count(|kind| kind == Kind::Throttling).saturating_sub(limited),
            denied: count(|kind| kind == Kind::AccessDenied || kind.is_unauthenticated()),
        }
    }
}

impl History {
    /// What happened since the last look, which was so long ago. The first look only begins.
    pub(super) fn add(&mut self, observation: &Observation, since: Duration) {
        let now = Totals::of(observation);
        if let Some(before) = self.last.replace(now.clone()) {
            let at = observation.at.duration_since(std::time::UNIX_EPOCH);
            #[expect(clippy::cast_precision_loss, reason = "counts of ten seconds")]
            let rate = |after: u64, before: u64| {
                after.saturating_sub(before) as f64 / since.as_secs_f64().max(0.001)
            };
            let took: [Distribution; 3] =
                std::array::from_fn(|index| now.took[index].since(&before.took[index]));
            self.samples.push_back(Sample {
                at: at.map_or(0, |at| at.as_secs()),
                rate: std::array::from_fn(|index| rate(took[index].count(), 0)),
                p99: std::array::from_fn(|index| took[index].quantile(0.99)),
                our_faults: rate(now.our_faults, before.our_faults),
                throttled: rate(now.throttled, before.throttled),
                limited: rate(now.limited, before.limited),
                denied: rate(now.denied, before.denied),
                queue_p99: now.queue.since(&before.queue).quantile(0.99),
            });
            if self.samples.len() > MOST {
                self.samples.pop_front();
            }
        }
    }

    pub(super) fn newest(&self) -> Option<&Sample> {
        self.samples.back()
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{observation, took},
        *,
    };

    #[test]
    fn a_sample_is_what_happened_between_two_looks() {
        let mut history = History::default();
        let mut now = observation();
        history.add(&now, INTERVAL);
        assert!(history.samples().is_empty());
        now.calls[0].took[0].1 += &took(50);
        now.calls[0].counts[1].count += 20;
        now.calls[1].counts[1].count += 10;
        history.add(&now, INTERVAL);
        history.add(&now, INTERVAL);
        let samples = history.samples();
        assert_eq!(samples[0].rate, [5.0, 0.0, 0.0]);
        assert_eq!(samples[0].p99, [Some(2e-3), None, None]);
        let first = &samples[0];
        assert_eq!(
            (first.our_faults, first.denied, first.throttled),
            (2.0, 1.0, 0.0)
        );
        assert_eq!((samples[1].rate, samples[1].p99), ([0.0; 3], [None; 3]));
    }

    #[test]
    fn an_hour_is_kept() {
        let mut history = History::default();
        for _ in 0..=MOST + 5 {
            history.add(&observation(), INTERVAL);
        }
        assert_eq!(history.samples().len(), MOST);
    }
}
