//! An [`Observation`] as metrics, in the text formats that Prometheus reads.
//!
//! Labels are names of the configuration, of KMS and of PKCS#11: never a key, a principal or an address, so
//! that the number of series does not grow with what clients do.

use std::{collections::BTreeSet, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    observation::Observation,
    readiness::{self, Check},
};
use crate::{
    error::Kind,
    metrics::{BOUNDS, Distribution},
    token::{GroupSnapshot, State, TokenSnapshot},
};

/// How metrics are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// What Prometheus prefers.
    OpenMetrics,
    /// Prometheus's older format, which other tools read, `promtool check metrics` among them. A counter's
    /// family is called as its series are, with `_total`.
    Prometheus,
}

impl Format {
    /// The format for a client with these values of `Accept`.
    pub(super) fn accepted<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let mut accept = accept.into_iter();
        if accept.any(|types| types.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics as text.
pub(super) fn text(observation: Observation, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition(observation)));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes everything");
    match format {
        Format::OpenMetrics => text,
        Format::Prometheus => of_prometheus(&text),
    }
}

/// The same metrics in Prometheus's own format.
fn of_prometheus(open_metrics: &str) -> String {
    let counters: BTreeSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let comment = ["# HELP ", "# TYPE "].into_iter().find_map(|start| {
            let (name, rest) = line.strip_prefix(start)?.split_once(' ')?;
            counters.contains(name).then_some((start, name, rest))
        });
        match comment {
            Some((start, name, rest)) => text.extend([start, name, "_total ", rest]),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[derive(Debug)]
struct Exposition(Observation);

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        families.server(&self.0)?;
        families.calls(&self.0)?;
        families.connections(&self.0)?;
        families.tokens(&self.0)?;
        families.queues(&self.0)?;
        families.keys(&self.0)?;
        families.store(&self.0)?;
        families.audit(&self.0)?;
        families.process(&self.0)
    }
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn server(&mut self, now: &Observation) -> fmt::Result {
        let version = ("version", env!("CARGO_PKG_VERSION"));
        self.gauge(
            "build_info",
            "Which hsmac this is; always 1.",
            [(vec![version], 1.0)],
        )?;
        let checks = readiness::checks(now);
        let is_ready = checks.iter().all(|check| check.is_good);
        self.gauge(
            "ready",
            "Whether callers should be sent here, as /readyz says.",
            [(vec![], flag(is_ready))],
        )?;
        let check = |one: &Check| {
            (
                vec![("check", one.name)],
                flag(one.is_good && !one.is_warning),
            )
        };
        self.gauge(
            "ready_check",
            "What readiness is made of: 1 is good.",
            checks.iter().map(check),
        )?;
        let conditions = now.conditions.iter();
        self.gauge(
            "condition",
            "What else somebody should know of, by its name in gRPC's health: 1 is trouble.",
            conditions.map(|(name, trouble)| (vec![("condition", name.as_str())], flag(*trouble))),
        )?;
        let reload = now
            .conditions
            .iter()
            .any(|(name, trouble)| name == "hsmac.reload" && *trouble);
        self.gauge(
            "reload_failed",
            "Whether a part of the configuration could not be loaded: old settings serve.",
            [(vec![], flag(reload))],
        )?;
        self.gauge(
            "restart_pending",
            "How many settings have changed and wait for a restart.",
            [(vec![], number(now.pending_restart.len() as u64))],
        )?;
        let certificates = now.certificates.iter();
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        self.gauge(
            "certificate_not_after_timestamp_seconds",
            "When a certificate or revocation list ends, by listener and setting.",
            certificates.map(|(listener, kind, ends)| {
                (vec![("listener", *listener), ("kind", *kind)], *ends as f64)
            }),
        )
    }

    fn calls(&mut self, now: &Observation) -> fmt::Result {
        let counts = || {
            now.calls
                .iter()
                .flat_map(|calls| calls.counts.iter().map(|one| (calls.wire, one)))
        };
        self.counter(
            "calls",
            "Calls that were answered, by what failed; those that went well have no exception.",
            counts().map(|(wire, one)| {
                let exception = one.exception.map_or("", Kind::exception);
                let labels = vec![
                    ("wire", wire),
                    ("operation", one.operation),
                    ("exception", exception),
                ];
                (labels, one.count)
            }),
        )?;
        let took = now.calls.iter().flat_map(|calls| {
            let took = calls.took.iter();
            took.map(|(operation, took)| {
                (vec![("wire", calls.wire), ("operation", *operation)], took)
            })
        });
        self.histogram(
            "call_duration_seconds",
            "From a request's arrival to its answer; management is every operation but the two of MACs.",
            took,
        )?;
        let mut authentication = Distribution::default();
        for calls in &now.calls {
            authentication += &calls.authentication;
        }
        self.histogram(
            "stage_duration_seconds",
            "authenticate: finding out who calls; authorize: finding the key of a MAC and judging rights. Of one call in sixteen.",
            [
                (vec![("stage", "authenticate")], &authentication),
                (vec![("stage", "authorize")], &now.overview.authorization),
            ],
        )?;
        let denied = counts().filter(|(_, one)| one.exception == Some(Kind::AccessDenied));
        self.counter(
            "denied",
            "Calls that the caller was not allowed to make.",
            denied.map(|(wire, one)| {
                (
                    vec![("wire", wire), ("operation", one.operation)],
                    one.count,
                )
            }),
        )?;
        let throttled = now.limits.throttled.iter();
        self.counter(
            "throttled",
            "Calls that were refused since their principal was over its limits.",
            throttled.map(|(quota, count)| (vec![("quota", *quota)], *count)),
        )?;
        let proofs = now.calls.iter().flat_map(|calls| {
            let kinds = Kind::ALL
                .into_iter()
                .filter(|kind| kind.is_unauthenticated());
            kinds.map(|kind| {
                let failed = calls
                    .counts
                    .iter()
                    .filter(move |one| one.exception == Some(kind));
                let labels = vec![("wire", calls.wire), ("exception", kind.exception())];
                (labels, failed.map(|one| one.count).sum())
            })
        });
        self.counter(
            "authentication_failures",
            "Calls without a good proof of who the caller is.",
            proofs,
        )
    }

    fn connections(&mut self, now: &Observation) -> fmt::Result {
        let both = |of: fn(&crate::front::ConnectionsSnapshot) -> [usize; 2]| {
            now.connections.iter().flat_map(move |one| {
                let [known, unknown] = of(one);
                [("authenticated", known), ("unauthenticated", unknown)].map(|(standing, count)| {
                    (
                        vec![("wire", one.wire), ("standing", standing)],
                        number(count as u64),
                    )
                })
            })
        };
        self.gauge(
            "connections",
            "Connections, by whether their caller is known.",
            both(|one| [one.authenticated, one.unauthenticated]),
        )?;
        self.gauge(
            "connections_limit",
            "The most connections of each kind.",
            both(|one| [one.authenticated_limit, one.unauthenticated_limit]),
        )?;
        self.counter(
            "connections_evicted",
            "Connections of unknown callers that were closed to let others in.",
            now.connections
                .iter()
                .map(|one| (vec![("wire", one.wire)], one.evicted)),
        )?;
        let handshakes = now.connections.iter().flat_map(|one| {
            let failed = one.failed_handshakes.iter();
            failed.map(|(cause, count)| (vec![("wire", one.wire), ("cause", *cause)], *count))
        });
        self.counter(
            "handshakes_failed",
            "TLS handshakes that failed, by cause.",
            handshakes,
        )
    }

    fn tokens(&mut self, now: &Observation) -> fmt::Result {
        let tokens = || now.overview.groups.iter().flat_map(|group| &group.tokens);
        let states = tokens().flat_map(|token| {
            State::NAMES.map(|state| {
                let labels = vec![("token", token.name.as_str()), ("state", state)];
                (labels, flag(token.state.name() == state))
            })
        });
        self.gauge(
            "token_state",
            "How each token is: one of the states is 1.",
            states,
        )?;
        self.histogram(
            "token_call_duration_seconds",
            "What the token takes, by what it is asked for.",
            tokens().flat_map(|token| {
                let calls = token.calls.iter();
                calls.map(|(function, took)| (of_token(token, "function", function), took))
            }),
        )?;
        let faults = tokens().flat_map(|token| {
            token.faults.iter().map(|fault| {
                let mut labels = of_token(token, "function", &fault.function);
                labels.push(("code", fault.code.as_str()));
                (labels, fault.count)
            })
        });
        self.counter(
            "token_faults",
            "What the module answered other than CKR_OK.",
            faults,
        )?;
        let hosts = tokens().flat_map(|token| {
            let stuck = token.hosts.iter().filter(|host| host.stuck).count();
            let states = [
                ("serving", token.hosts.len() - stuck),
                ("starting", token.hosts_starting),
                ("stuck", stuck),
            ];
            states.map(|(state, hosts)| (of_token(token, "state", state), number(hosts as u64)))
        });
        self.gauge("hosts", "Host processes, by what they do.", hosts)?;
        self.gauge(
            "hosts_configured",
            "Host processes that each token shall have.",
            tokens().map(|token| {
                (
                    vec![("token", token.name.as_str())],
                    number(token.hosts_configured as u64),
                )
            }),
        )?;
        self.gauge(
            "token_settings_pending",
            "1 while hosts with the new settings of a token do not serve yet, and those with the settings from before do.",
            tokens().map(|token| {
                (
                    vec![("token", token.name.as_str())],
                    flag(token.pending_settings.is_some()),
                )
            }),
        )?;
        self.counter(
            "host_ends",
            "Host processes that have ended, by how.",
            tokens().flat_map(|token| {
                let ends = token.host_ends.iter();
                ends.map(|(reason, count)| (of_token(token, "reason", reason), *count))
            }),
        )?;
        let sessions = tokens().flat_map(|token| {
            let limit: u32 = token.hosts.iter().map(|host| host.sessions).sum();
            let busy: u32 = token
                .hosts
                .iter()
                .map(|host| {
                    host.sessions
                        .min(u32::try_from(host.jobs).unwrap_or(u32::MAX))
                })
                .sum();
            [("busy", busy), ("limit", limit)]
                .map(|(state, sessions)| (of_token(token, "state", state), f64::from(sessions)))
        });
        self.gauge(
            "sessions",
            "Sessions for MACs that hosts have open, and those at work.",
            sessions,
        )
    }

    fn queues(&mut self, now: &Observation) -> fmt::Result {
        let groups = &now.overview.groups;
        self.gauge(
            "queue_jobs",
            "Jobs that no host has taken yet.",
            groups
                .iter()
                .map(|group| (of_group(group), number(group.queued as u64))),
        )?;
        self.gauge(
            "queue_limit",
            "The most jobs that may wait.",
            groups
                .iter()
                .map(|group| (of_group(group), number(group.queue_capacity as u64))),
        )?;
        self.histogram(
            "queue_wait_seconds",
            "From a job's arrival to the host that takes it, of one job in four.",
            groups
                .iter()
                .map(|group| (of_group(group), &group.queue_wait)),
        )?;
        self.counter(
            "jobs_refused",
            "Jobs that were not done: the queue was full, a caller with fewer calls in it needed the room (displaced), they would have been too late (hopeless), or nobody waited any more (expired).",
            groups
                .iter()
                .flat_map(|group| with_reasons(group, &group.refused)),
        )?;
        self.counter(
            "jobs_moved",
            "Jobs that went to another host: the token was busy, the host failed, or the job was late (hedge), and that one answered first (hedge_won).",
            groups.iter().flat_map(|group| with_reasons(group, &group.moved)),
        )
    }

    fn keys(&mut self, now: &Observation) -> fmt::Result {
        let overview = &now.overview;
        self.gauge(
            "keys",
            "Keys, by state.",
            overview
                .keys
                .iter()
                .map(|(state, count)| (vec![("state", state.name())], number(*count as u64))),
        )?;
        self.gauge(
            "deletions_held",
            "Whether deletions wait for a person: the store was restored from a backup.",
            [(vec![], flag(overview.held))],
        )?;
        self.gauge(
            "deletion_alarms",
            "Objects that were to be destroyed and are left alone: the log says ALARM, and why.",
            [(vec![], number(overview.deletion_alarms as u64))],
        )?;
        if let Some(next) = overview.deletions.first() {
            self.gauge(
                "next_deletion_timestamp_seconds",
                "When the next key will be deleted.",
                [(vec![], number(next.date.millis()) / 1000.0)],
            )?;
        }
        let counts = [
            (
                "mac_mismatches",
                "MACs that did not match.",
                overview.mac_mismatches,
            ),
            (
                "reserved_prefix_refused",
                "Messages that begin with what hsmac keeps for itself: somebody wants check values.",
                overview.reserved_messages,
            ),
            (
                "pending_deletion_calls",
                "Requests for MACs with a key that is pending deletion: somebody still wants it.",
                overview.pending_deletion_calls,
            ),
        ];
        for (name, help, count) in counts {
            self.counter(name, help, [(vec![], count)])?;
        }
        Ok(())
    }

    fn store(&mut self, now: &Observation) -> fmt::Result {
        let Some(store) = &now.overview.store else {
            return Ok(());
        };
        self.histogram(
            "store_commit_seconds",
            "What changes of the catalogue take until they are synced to the disk; those that wait together are one.",
            [(vec![], &store.commits)],
        )?;
        let faults = store.faults.iter();
        self.counter(
            "store_faults",
            "Calls of the catalogue that its disk refused (away), left in doubt (unknown), or that found damage.",
            faults.map(|(fault, count)| (vec![("fault", *fault)], *count)),
        )
    }

    fn audit(&mut self, now: &Observation) -> fmt::Result {
        let Some(audit) = &now.audit else {
            return Ok(());
        };
        let counts = [
            (
                "audit_records",
                "Records that were written to the audit log.",
                audit.records,
            ),
            (
                "audit_unrecorded_calls",
                "Calls that could not be recorded, and were refused or, if so configured, answered.",
                audit.unrecorded,
            ),
            (
                "audit_failures",
                "How often writing the audit log failed.",
                audit.failures,
            ),
        ];
        for (name, help, count) in counts {
            self.counter(name, help, [(vec![], count)])?;
        }
        self.histogram(
            "audit_write_seconds",
            "What writes of the audit log take; calls that wait together are one.",
            [(vec![], &audit.write_took)],
        )?;
        self.gauge(
            "audit_free_bytes",
            "Free space of the disk that the audit log is on.",
            [(vec![], number(audit.free_bytes))],
        )?;
        let lag = audit.json_lag.map(|lag| (vec![], number(lag)));
        self.gauge(
            "audit_json_lag_records",
            "Records that the collector of JSON lines has not got yet.",
            lag,
        )?;
        let Some(sealed) = &audit.sealed else {
            return Ok(());
        };
        self.gauge(
            "audit_sealed_records",
            "Records that the newest seal of this process is of.",
            [(vec![], number(sealed.size))],
        )?;
        self.gauge(
            "audit_unsealed_seconds",
            "For how long there has been something to seal.",
            [(vec![], sealed.waiting.as_secs_f64())],
        )
    }

    fn process(&mut self, now: &Observation) -> fmt::Result {
        let busy: f64 = now.runtime.busy.iter().map(|busy| busy.as_secs_f64()).sum();
        self.seconds(
            "runtime_busy_seconds",
            "The time that workers have spent at work.",
            busy,
        )?;
        self.gauge(
            "runtime_workers",
            "Threads that serve callers.",
            [(vec![], number(now.runtime.busy.len() as u64))],
        )?;
        self.gauge(
            "runtime_queue_depth",
            "Tasks that no worker has taken yet.",
            [(vec![], number(now.runtime.queued as u64))],
        )?;
        if let Some(spans) = now.traces {
            let outcomes = [
                ("exported", spans.exported),
                ("failed", spans.failed),
                ("dropped", spans.dropped),
            ];
            self.counter(
                "trace_spans",
                "Spans of traces, by what became of them.",
                outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count)),
            )?;
        }
        let process = &now.process;
        self.seconds(
            "process_cpu_seconds",
            "Processor time of this process.",
            process.cpu_seconds,
        )?;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory of this process.",
                number(process.resident_bytes),
            ),
            (
                "process_open_fds",
                "Open file descriptors.",
                number(process.open_descriptors),
            ),
            (
                "process_max_fds",
                "The most file descriptors.",
                number(process.most_descriptors),
            ),
            (
                "process_threads",
                "Threads of this process.",
                number(process.threads),
            ),
            (
                "process_start_time_seconds",
                "When this process began.",
                process.start_time,
            ),
        ];
        for (name, help, value) in gauges {
            self.gauge(name, help, [(vec![], value)])?;
        }
        Ok(())
    }

    fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, series, |encoder, value| {
            encoder.encode_gauge(&value)
        })
    }

    fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, series, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// A counter of seconds.
    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let series = [(vec![], value)];
        self.family(name, help, MetricType::Counter, series, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, &'a Distribution)>,
    ) -> fmt::Result {
        self.family(
            name,
            help,
            MetricType::Histogram,
            series,
            |encoder, took| {
                let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(took.counts).collect();
                encoder.encode_histogram::<NoLabelSet>(
                    took.sum_seconds,
                    took.count(),
                    &buckets,
                    None,
                )
            },
        )
    }

    fn family<'a, V>(
        &mut self,
        name: &str,
        help: &str,
        of: MetricType,
        series: impl IntoIterator<Item = (Labels<'a>, V)>,
        encode: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        // What every process has is called alike everywhere.
        let prefix = if name.starts_with("process_") {
            ""
        } else {
            "hsmac_"
        };
        let name = format!("{prefix}{name}");
        // The format adds the full stop.
        let help = help.trim_end_matches('.');
        let mut family = self.0.encode_descriptor(&name, help, None, of)?;
        for (labels, value) in series {
            if labels.is_empty() {
                encode(&mut family, value)?;
            } else {
                encode(&mut family.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}

fn of_token<'a>(token: &'a TokenSnapshot, label: &'a str, value: &'a str) -> Labels<'a> {
    vec![("token", &token.name), (label, value)]
}

fn of_group(group: &GroupSnapshot) -> Labels<'_> {
    vec![("group", &group.name)]
}

fn with_reasons<'a>(
    group: &'a GroupSnapshot,
    counts: &'a [(&'static str, u64)],
) -> impl Iterator<Item = (Labels<'a>, u64)> {
    counts.iter().map(|(reason, count)| {
        let mut labels = of_group(group);
        labels.push(("reason", reason));
        (labels, *count)
    })
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and sizes are far below 2^52"
)]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::testing::observation, *};

    /// The first name, every label and every help is somebody's dashboard or alert: a change of this file
    /// is a change that operators must be told of.
    const GOLDEN: &str = include_str!("exposition.golden");

    #[test]
    fn names_labels_and_helps_are_as_operators_know_them() {
        let text = text(observation(), Format::Prometheus);
        // One bucket stands for all of a histogram.
        let shown = text
            .lines()
            .filter(|line| !line.contains("_bucket") || line.contains("le=\"+Inf\""));
        let shown: String = shown.flat_map(|line| [line, "\n"]).collect();
        let shown = shown.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        assert_eq!(shown, GOLDEN, "what is shown now:\n{shown}");
    }

    #[test]
    fn both_formats_have_the_same_series() {
        let (open, old) = (Format::OpenMetrics, Format::Prometheus);
        let series = |format| -> Vec<String> {
            let text = text(observation(), format);
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(series(open), series(old));
        assert!(text(observation(), open).ends_with("# EOF\n"));
        assert!(!text(observation(), old).contains("# EOF"));
    }

    #[test]
    fn every_family_is_described_once_and_each_series_is_there_once() {
        let text = text(observation(), Format::Prometheus);
        let mut seen = BTreeMap::<&str, usize>::new();
        for line in text.lines() {
            let name = match line.strip_prefix("# ") {
                Some(comment) => comment.rsplit_once(' ').map_or(comment, |(start, _)| start),
                None => line.rsplit_once(' ').unwrap().0,
            };
            *seen.entry(name).or_default() += 1;
        }
        let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
        assert_eq!(twice, []);
    }

    #[test]
    fn a_bucket_counts_what_the_buckets_below_it_count_too() {
        let text = text(observation(), Format::Prometheus);
        let series = ",wire=\"grpc\",operation=\"GenerateMac\"}";
        let counts: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("hsmac_call_duration_seconds_bucket"))
            .filter(|line| line.contains(series))
            .map(|line| line.rsplit_once(' ').unwrap().1)
            .collect();
        // All took two milliseconds.
        assert_eq!(counts[..5], ["0"; 5]);
        assert_eq!(counts[5..], ["100"; 13]);
    }

    #[test]
    fn the_format_is_the_one_that_the_client_asks_for() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::accepted([prometheus]), Format::OpenMetrics);
        assert_eq!(
            Format::accepted(["text/plain", prometheus]),
            Format::OpenMetrics
        );
        assert_eq!(Format::accepted(["*/*"]), Format::Prometheus);
        assert_eq!(Format::accepted([]), Format::Prometheus);
    }
}
