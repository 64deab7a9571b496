//! What two looks at the counters tell: how often in a second.

use std::collections::BTreeMap;

use crate::admin::StatusReport;

/// What happened between two looks.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// MACs a second, by token.
    pub(super) macs: BTreeMap<String, f64>,
    /// Each operation that was ever called.
    pub(super) operations: Vec<OperationRate>,
}

/// One operation of one API.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OperationRate {
    pub(super) name: String,
    pub(super) wire: String,
    /// Calls a second; none until there were two looks.
    pub(super) rate: Option<f64>,
    /// Calls a second that failed, for whatever reason.
    pub(super) failed: Option<f64>,
    /// All calls so far.
    pub(super) count: u64,
    /// All that failed so far.
    pub(super) failures: u64,
}

impl Rates {
    /// `before` is the look before `now`; one from before a restart says nothing.
    pub(super) fn between(before: Option<&StatusReport>, now: &StatusReport) -> Self {
        let before = before.filter(|before| before.started == now.started && before.at < now.at);
        let per_second = |now_count: u64, before_count: u64| {
            before.map(|before| {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "counts and seconds between two looks"
                )]
                let rate =
                    now_count.saturating_sub(before_count) as f64 / (now.at - before.at) as f64;
                rate
            })
        };
        let earlier = before.map(macs).unwrap_or_default();
        let macs = macs(now).into_iter().filter_map(|(name, count)| {
            let rate = per_second(count, *earlier.get(&name)?)?;
            Some((name, rate))
        });
        let earlier = before.map(counts).unwrap_or_default();
        let operations = counts(now)
            .into_iter()
            .map(|((name, wire), [count, failures])| {
                let key = (name, wire);
                let [before_count, before_failures] =
                    earlier.get(&key).copied().unwrap_or_default();
                let (name, wire) = key;
                OperationRate {
                    rate: per_second(count, before_count),
                    failed: per_second(failures, before_failures),
                    name,
                    wire,
                    count,
                    failures,
                }
            });
        Self {
            macs: macs.collect(),
            operations: operations.collect(),
        }
    }
}

fn macs(report: &StatusReport) -> BTreeMap<String, u64> {
    let tokens = report.groups.iter().flat_map(|group| &group.tokens);
    tokens
        .map(|token| (token.name.clone(), token.macs))
        .collect()
}

/// By operation and API: all calls, and those that failed.
fn counts(report: &StatusReport) -> BTreeMap<(String, String), [u64; 2]> {
    let mut counts = BTreeMap::<_, [u64; 2]>::new();
    for calls in &report.calls {
        let key = (calls.operation.clone(), calls.wire.clone());
        let [all, failures] = counts.entry(key).or_default();
        *all += calls.count;
        *failures += if calls.exception.is_some() {
            calls.count
        } else {
            0
        };
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> StatusReport {
        serde_json::from_str(include_str!("../status/testing.json")).unwrap()
    }

    #[test]
    fn rates_are_differences_and_a_restart_has_none() {
        let before = report();
        let mut now = report();
        now.at += 2;
        now.calls[0].count += 100;
        now.calls[2].count += 10;
        now.groups[0].tokens[0].macs += 60;
        let rates = Rates::between(Some(&before), &now);
        assert_eq!((rates.macs["east"], rates.macs["west"]), (30.0, 0.0));
        let of = |name: &str, wire: &str| {
            let mut found = rates.operations.iter();
            found
                .find(|one| one.name == name && one.wire == wire)
                .unwrap()
        };
        let made = of("GenerateMac", "grpc");
        assert_eq!((made.rate, made.failed), (Some(55.0), Some(5.0)));
        assert_eq!((made.count, made.failures), (12_465, 20));
        assert_eq!(of("DescribeKey", "grpc").rate, Some(0.0));
        now.started += 1.0;
        let rates = Rates::between(Some(&before), &now);
        assert!(rates.macs.is_empty() && rates.operations.iter().all(|one| one.rate.is_none()));
        assert!(Rates::between(None, &report()).macs.is_empty());
    }
}
