//! `/status.json`: the state of everything, for the page, for `hsmac status` and `hsmac top`, and for
//! scripts.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    advice::{self, Headline},
    history::{History, Sample},
    observation::Observation,
    readiness,
};
use crate::{
    front::{CallsSnapshot, RecentFault, Refusal},
    metrics::Distribution,
    token::{GroupSnapshot, HostSnapshot, LastFault, TokenSnapshot},
};

/// The form of the report: it grows when a member goes or changes its meaning, not when one comes.
pub const STATUS_VERSION: u32 = 1;
/// So many failed calls of all APIs together are shown.
const MOST_FAULTS: usize = 100;

/// The state of everything. Times are seconds since 1970, durations are seconds. A member that the
/// server does not send has its default.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct StatusReport {
    /// The form of the report.
    pub version: u32,
    /// hsmac's version.
    pub hsmac: String,
    /// When it was made.
    pub at: u64,
    /// When the server began.
    pub started: f64,
    /// One sentence for people: whether all is well, or the worst of what is not.
    pub summary: String,
    /// What to do about it, if something is to be done.
    pub advice: Option<String>,
    /// Which part of the page is about it: `tokens`, `keys`, `coming`, `refused`, `faults`, `server`.
    pub about: Option<String>,
    /// Whether nothing needs anybody.
    pub well: bool,
    /// Whether callers should be sent here.
    pub ready: bool,
    /// What that is made of.
    pub checks: Vec<CheckReport>,
    /// The groups of tokens.
    pub groups: Vec<GroupReport>,
    /// How many keys are in each state.
    pub keys: BTreeMap<String, usize>,
    /// Enabled keys that cannot serve, 20 at most.
    pub troubled_keys: Vec<KeyReport>,
    /// The next deletions, 20 at most.
    pub deletions: Vec<DeletionReport>,
    /// Whether they wait for a person, since the store was restored.
    pub deletions_held: bool,
    /// How many objects that were to be destroyed are left alone, since they are not what they should be.
    pub deletion_alarms: usize,
    /// What was called since the start.
    pub calls: Vec<CallsReport>,
    /// The last calls that failed for a reason of ours, the newest first, 100 at most.
    pub faults: Vec<FailedCallReport>,
    /// Who was refused, the last first.
    pub refusals: Vec<RefusalReport>,
    /// Principals that asked for more than their limits allow, the last first; 32 at most.
    pub throttled: Vec<ThrottledReport>,
    /// The connections of each listener.
    pub connections: Vec<ConnectionsReport>,
    /// The ends of certificates and revocation lists.
    pub certificates: Vec<CertificateReport>,
    /// What else is in trouble.
    pub conditions: Vec<ConditionReport>,
    /// Settings that have changed and wait for a restart.
    pub pending_restart: Vec<String>,
    /// The last hour.
    pub history: Vec<Sample>,
}

/// One thing that counts for readiness.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CheckReport {
    /// `serving` or `token`.
    pub name: String,
    /// Whether it is as it should be.
    pub good: bool,
    /// In words.
    pub reason: String,
}

/// A group of tokens and its queue.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct GroupReport {
    /// Its name in the configuration, or that of its only token.
    pub name: String,
    /// Jobs that no host has taken yet.
    pub queued: usize,
    /// The most of those.
    pub queue_limit: usize,
    /// The p99 of their wait since the start.
    pub queue_wait_p99: Option<f64>,
    /// Its tokens.
    pub tokens: Vec<TokenReport>,
}

/// A token.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TokenReport {
    /// Its name in the configuration.
    pub name: String,
    /// `starting`, `up`, `degraded`, `away`, `pin_refused`, `misconfigured`.
    pub state: String,
    /// The state in words.
    pub reason: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// How hosts with new settings are, while those with the settings from before serve.
    pub pending_settings: Option<String>,
    /// Since when it is in this state.
    pub since: u64,
    /// The hosts that serve.
    pub hosts: Vec<HostReport>,
    /// Hosts that are on their way.
    pub hosts_starting: usize,
    /// How many it shall have.
    pub hosts_configured: usize,
    /// How many MACs it has made.
    pub macs: u64,
    /// Half of them took at most so long.
    pub mac_p50: Option<f64>,
    /// 99 of 100 took at most so long.
    pub mac_p99: Option<f64>,
    /// How often the module answered other than CKR_OK.
    pub faults: u64,
    /// The last time that it did.
    pub last_fault: Option<FaultReport>,
    /// How many hosts have ended, by how.
    pub host_ends: BTreeMap<String, u64>,
}

/// A host that serves.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct HostReport {
    /// Which start of a host it is.
    pub generation: u32,
    /// Since when it serves.
    pub since: u64,
    /// Its sessions for MACs.
    pub sessions: u32,
    /// Jobs that it has.
    pub jobs: usize,
    /// Whether the module does not answer.
    pub stuck: bool,
}

/// What the module answered other than CKR_OK.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct FaultReport {
    /// When.
    pub at: u64,
    /// `C_Sign`
    pub function: String,
    /// `CKR_DEVICE_ERROR`
    pub code: String,
    /// In words.
    pub reason: String,
}

/// An enabled key that cannot serve.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct KeyReport {
    /// Its ARN.
    pub arn: String,
    /// What its owner calls it.
    pub description: String,
    /// Why it cannot serve.
    pub reason: String,
}

/// A key that will be deleted.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct DeletionReport {
    /// Its ARN.
    pub arn: String,
    /// What its owner calls it.
    pub description: String,
    /// When.
    pub at: u64,
}

/// How often calls of an operation ended in one way.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CallsReport {
    /// `grpc` or `aws`.
    pub wire: String,
    /// KMS's name.
    pub operation: String,
    /// What failed; none: they went well.
    pub exception: Option<String>,
    /// How often.
    pub count: u64,
}

/// A call that failed for a reason of ours.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct FailedCallReport {
    /// When.
    pub at: u64,
    /// What the client has in its answer, and the log in its lines.
    pub request_id: String,
    /// `grpc` or `aws`.
    pub wire: String,
    /// KMS's name.
    pub operation: String,
    /// What the client was told.
    pub exception: String,
    /// Why, if that is known.
    pub cause: Option<String>,
    /// What to do about it.
    pub advice: String,
}

/// Calls of one caller that were denied, throttled, or came without a good proof.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct RefusalReport {
    /// The principal's ARN; none: unknown.
    pub caller: Option<String>,
    /// `grpc` or `aws`.
    pub wire: String,
    /// KMS's name.
    pub operation: String,
    /// What the client was told.
    pub exception: String,
    /// How often since the start.
    pub count: u64,
    /// When it was the last time.
    pub at: u64,
    /// Which call was the last.
    pub request_id: String,
}

/// A principal that asked for more than its limits allow.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ThrottledReport {
    /// Its ARN.
    pub principal: String,
    /// By what, the last time: a quota, or `concurrent`.
    pub quota: String,
    /// How many of its calls were refused for it since the start.
    pub count: u64,
    /// When it was the last time.
    pub at: u64,
}

/// The connections of one listener.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ConnectionsReport {
    /// `grpc` or `aws`.
    pub wire: String,
    /// Connections of known callers.
    pub authenticated: usize,
    /// The most of those.
    pub authenticated_limit: usize,
    /// Connections that have proved nothing.
    pub unauthenticated: usize,
    /// The most of those.
    pub unauthenticated_limit: usize,
}

/// When a certificate or a revocation list ends.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CertificateReport {
    /// `grpc` or `aws`.
    pub listener: String,
    /// The setting in `[grpc.tls]` or `[aws.tls]` that names it.
    pub kind: String,
    /// When.
    pub ends: i64,
}

/// What else is in trouble.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ConditionReport {
    /// Its name in gRPC's health.
    pub name: String,
    /// What it means.
    pub words: String,
    /// What to do about it.
    pub advice: String,
}

impl StatusReport {
    pub(super) fn new(now: &Observation, history: &History) -> Self {
        let checks = readiness::checks(now);
        let headline = Headline::of(now, &checks, history.newest());
        let overview = &now.overview;
        let mut faults: Vec<_> = now.calls.iter().flat_map(FailedCallReport::of).collect();
        faults.sort_by_key(|fault| std::cmp::Reverse(fault.at));
        faults.truncate(MOST_FAULTS);
        let mut refusals: Vec<_> = now.calls.iter().flat_map(RefusalReport::of).collect();
        refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.at));
        Self {
            version: STATUS_VERSION,
            hsmac: env!("CARGO_PKG_VERSION").to_owned(),
            at: seconds(now.at),
            started: now.process.start_time,
            summary: headline.summary,
            advice: headline.advice,
            about: headline.about.map(str::to_owned),
            well: headline.well,
            ready: checks.iter().all(|check| check.is_good),
            checks: checks.into_iter().map(CheckReport::of).collect(),
            groups: overview.groups.iter().map(GroupReport::of).collect(),
            keys: overview
                .keys
                .iter()
                .map(|(state, count)| (state.name().to_owned(), *count))
                .collect(),
            troubled_keys: overview
                .troubled
                .iter()
                .map(|key| KeyReport {
                    arn: key.arn.to_string(),
                    description: key.description.clone(),
                    reason: key.reason.clone(),
                })
                .collect(),
            deletions: overview
                .deletions
                .iter()
                .map(|key| DeletionReport {
                    arn: key.arn.to_string(),
                    description: key.description.clone(),
                    at: key.date.millis() / 1000,
                })
                .collect(),
            deletions_held: overview.held,
            deletion_alarms: overview.deletion_alarms,
            calls: now.calls.iter().flat_map(CallsReport::of).collect(),
            faults,
            refusals,
            throttled: throttled(now),
            connections: connections(now),
            certificates: certificates(now),
            conditions: conditions(now),
            pending_restart: now.pending_restart.clone(),
            history: history.samples(),
        }
    }
}

fn throttled(now: &Observation) -> Vec<ThrottledReport> {
    let throttled = now.limits.principals.iter();
    throttled
        .map(|one| ThrottledReport {
            principal: one.arn.clone(),
            quota: one.quota.to_owned(),
            count: one.count,
            at: seconds(one.at),
        })
        .collect()
}

fn connections(now: &Observation) -> Vec<ConnectionsReport> {
    let connections = now.connections.iter();
    connections
        .map(|one| ConnectionsReport {
            wire: one.wire.to_owned(),
            authenticated: one.authenticated,
            authenticated_limit: one.authenticated_limit,
            unauthenticated: one.unauthenticated,
            unauthenticated_limit: one.unauthenticated_limit,
        })
        .collect()
}

fn certificates(now: &Observation) -> Vec<CertificateReport> {
    let certificates = now.certificates.iter();
    certificates
        .map(|(listener, kind, ends)| CertificateReport {
            listener: (*listener).to_owned(),
            kind: (*kind).to_owned(),
            ends: *ends,
        })
        .collect()
}

fn conditions(now: &Observation) -> Vec<ConditionReport> {
    let troubled = now.conditions.iter().filter(|(_, trouble)| *trouble);
    troubled
        .map(|(name, _)| {
            let (words, advice) = advice::of_condition(name);
            ConditionReport {
                name: name.clone(),
                words: words.to_owned(),
                advice: advice.to_owned(),
            }
        })
        .collect()
}

impl CheckReport {
    fn of(check: readiness::Check) -> Self {
        Self {
            name: check.name.to_owned(),
            good: check.is_good,
            reason: check.reason,
        }
    }
}

impl GroupReport {
    fn of(group: &GroupSnapshot) -> Self {
        Self {
            name: group.name.clone(),
            queued: group.queued,
            queue_limit: group.queue_capacity,
            queue_wait_p99: group.queue_wait.quantile(0.99),
            tokens: group.tokens.iter().map(TokenReport::of).collect(),
        }
    }
}

impl TokenReport {
    fn of(token: &TokenSnapshot) -> Self {
        let none = Distribution::default();
        let macs = token.calls.iter().find(|(function, _)| *function == "mac");
        let macs = macs.map_or(&none, |(_, took)| took);
        let ends = token.host_ends.iter();
        Self {
            name: token.name.clone(),
            state: token.state.name().to_owned(),
            reason: token.state.to_string(),
            advice: advice::of_token(&token.name, &token.state),
            pending_settings: token.pending_settings.as_ref().map(ToString::to_string),
            since: seconds(token.since),
            hosts: token.hosts.iter().map(HostReport::of).collect(),
            hosts_starting: token.hosts_starting,
            hosts_configured: token.hosts_configured,
            macs: macs.count(),
            mac_p50: macs.quantile(0.5),
            mac_p99: macs.quantile(0.99),
            faults: token.faults.iter().map(|fault| fault.count).sum(),
            last_fault: token.last_fault.as_ref().map(FaultReport::of),
            host_ends: ends
                .map(|(how, count)| ((*how).to_owned(), *count))
                .collect(),
        }
    }
}

impl HostReport {
    fn of(host: &HostSnapshot) -> Self {
        Self {
            generation: host.generation,
            since: seconds(host.since),
            sessions: host.sessions,
            jobs: host.jobs,
            stuck: host.stuck,
        }
    }
}

impl FaultReport {
    fn of(fault: &LastFault) -> Self {
        Self {
            at: seconds(fault.at),
            function: fault.function.clone(),
            code: fault.code.clone(),
            reason: fault.reason.clone(),
        }
    }
}

impl CallsReport {
    /// What was called at all.
    fn of(calls: &CallsSnapshot) -> impl Iterator<Item = Self> {
        let wire = calls.wire;
        let counts = calls.counts.iter().filter(|one| one.count > 0);
        counts.map(move |one| Self {
            wire: wire.to_owned(),
            operation: one.operation.to_owned(),
            exception: one.exception.map(|kind| kind.exception().to_owned()),
            count: one.count,
        })
    }
}

impl FailedCallReport {
    fn of(calls: &CallsSnapshot) -> impl Iterator<Item = Self> {
        let one = |fault: &RecentFault| Self {
            at: seconds(fault.at),
            request_id: fault.request_id.clone(),
            wire: calls.wire.to_owned(),
            operation: fault.operation.to_owned(),
            exception: fault.kind.exception().to_owned(),
            cause: fault.cause.as_deref().map(str::to_owned),
            advice: advice::of_fault(fault.kind).to_owned(),
        };
        calls.faults.iter().map(one)
    }
}

impl RefusalReport {
    fn of(calls: &CallsSnapshot) -> impl Iterator<Item = Self> {
        let one = |refusal: &Refusal| Self {
            caller: refusal.caller.clone(),
            wire: calls.wire.to_owned(),
            operation: refusal.operation.to_owned(),
            exception: refusal.kind.exception().to_owned(),
            count: refusal.count,
            at: seconds(refusal.at),
            request_id: refusal.request_id.clone(),
        };
        calls.refusals.iter().map(one)
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    #[test]
    fn what_is_written_is_read_back() {
        let mut history = History::default();
        for _ in 0..2 {
            history.add(&testing::observation(), super::super::history::INTERVAL);
        }
        let report = StatusReport::new(&testing::observation(), &history);
        let text = serde_json::to_string(&report).unwrap();
        let read: StatusReport = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!((read.version, read.at), (STATUS_VERSION, testing::NOW));
        assert_eq!(read.faults[0].cause.as_deref(), Some("no host serves"));
        assert_eq!(read.refusals[0].count, 10);
        assert_eq!(read.history.len(), 1);
    }

    #[test]
    fn a_server_that_says_less_or_more_is_understood() {
        let text = r#"{ "version": 1, "summary": "All is well.", "tomorrow": [1],
            "groups": [{ "name": "a", "tokens": [{ "name": "a", "state": "up" }] }] }"#;
        let read: StatusReport = serde_json::from_str(text).unwrap();
        assert_eq!(read.summary, "All is well.");
        assert_eq!(read.groups[0].tokens[0].state, "up");
    }
}
