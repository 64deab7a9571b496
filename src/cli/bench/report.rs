//! What was measured, for people and as JSON.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Wall-clock and CPU time of the measured part of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReadings {
    pub(super) elapsed: Duration,
    pub(super) cpu: Duration,
}

/// Latencies and errors of one connection, or of all.
#[derive(Debug)]
pub(super) struct Measurements {
    latencies: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    pub(super) late: u64,
    pub(super) not_sent: u64,
}

impl Default for Measurements {
    fn default() -> Self {
        Self {
            latencies: Histogram::new(3).expect("three digits are allowed"),
            errors: BTreeMap::new(),
            late: 0,
            not_sent: 0,
        }
    }
}

impl Measurements {
    pub(super) fn answer(&mut self, latency: Duration) {
        // The histogram grows as it must; `saturating_record` would cut at its present end.
        let nanoseconds = latency.as_nanos().try_into().unwrap_or(u64::MAX);
        let _ = self.latencies.record(nanoseconds);
    }

    pub(super) fn error(&mut self, reason: String) {
        *self.errors.entry(reason).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.latencies += &other.latencies;
        for (reason, count) in &other.errors {
            *self.errors.entry(reason.clone()).or_default() += count;
        }
        self.late += other.late;
        self.not_sent += other.not_sent;
    }
}

/// A figure means nothing without these.
#[derive(Debug, Serialize)]
pub(super) struct Conditions {
    pub(super) endpoint: String,
    pub(super) mac_algorithm: String,
    pub(super) connections: usize,
    /// Absent: one call at a time on a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) streams: Option<u32>,
    pub(super) message_bytes: u32,
    /// Absent: closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate: Option<u32>,
    pub(super) seconds: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    calls: u64,
    calls_per_second: f64,
    errors: BTreeMap<String, u64>,
    latency_us: Latency,
    /// Sent more than 1 ms after they were due; open loop only.
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<u64>,
    /// Due, but never sent: all allowed calls were in flight; open loop only.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_sent: Option<u64>,
    /// Of this process, 100 = one core.
    own_cpu_percent: f64,
    /// Of what `hsmac bench token` measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_token: Option<f64>,
    conditions: Conditions,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
}

impl Report {
    pub(super) fn new(
        record: &Measurements,
        measured: ClockReadings,
        token_rate: Option<f64>,
        conditions: Conditions,
    ) -> Self {
        let seconds = measured.elapsed.as_secs_f64();
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let calls = record.latencies.len();
        let calls_per_second = per_second(calls as f64);
        let microseconds = |quantile| record.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let open = conditions.rate.is_some();
        Self {
            calls,
            calls_per_second,
            errors: record.errors.clone(),
            latency_us: Latency {
                p50: microseconds(0.5),
                p90: microseconds(0.9),
                p99: microseconds(0.99),
                p999: microseconds(0.999),
                max: record.latencies.max() as f64 / 1000.0,
            },
            late: open.then_some(record.late),
            not_sent: open.then_some(record.not_sent),
            own_cpu_percent: per_second(measured.cpu.as_secs_f64()) * 100.0,
            ratio_to_token: token_rate
                .filter(|rate| *rate > 0.0)
                .map(|rate| calls_per_second / rate),
            conditions,
        }
    }

    pub(super) fn json(&self) -> String {
        let json = serde_json::to_string_pretty(self);
        json.expect("texts and numbers always have a JSON form") + "\n"
    }

    pub(super) fn table(&self) -> String {
        let Conditions {
            endpoint,
            mac_algorithm,
            connections,
            streams,
            message_bytes,
            rate,
            seconds,
        } = &self.conditions;
        let mut rows = vec![
            ("calls per second", format!("{:.0}", self.calls_per_second)),
            ("calls answered", self.calls.to_string()),
        ];
        if self.errors.is_empty() {
            rows.push(("errors", "none".into()));
        }
        for (reason, count) in &self.errors {
            rows.push(("errors", format!("{count} {reason}")));
        }
        for (name, value) in [
            ("latency p50", self.latency_us.p50),
            ("latency p90", self.latency_us.p90),
            ("latency p99", self.latency_us.p99),
            ("latency p99.9", self.latency_us.p999),
            ("latency max", self.latency_us.max),
        ] {
            rows.push((name, format!("{:.3} ms", value / 1000.0)));
        }
        if let (Some(late), Some(not_sent)) = (self.late, self.not_sent) {
            rows.push(("sent late (> 1 ms)", late.to_string()));
            rows.push(("due but not sent", not_sent.to_string()));
        }
        rows.push((
            "own CPU",
            format!("{:.0} % of one core", self.own_cpu_percent),
        ));
        if let Some(ratio) = self.ratio_to_token {
            rows.push(("ratio to the token", format!("{ratio:.2}")));
        }
        let kind = rate.map_or("closed loop".into(), |rate| {
            format!("open loop at {rate} calls/s")
        });
        let streams = streams.map_or_else(String::new, |streams| format!(" × {streams} streams"));
        rows.push((
            "conditions",
            format!(
                "{kind}, {connections} connections{streams}, {message_bytes}-byte messages, \
                 {mac_algorithm}, {seconds:.1} s, {endpoint}"
            ),
        ));
        let mut table = String::new();
        for (name, value) in rows {
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{name:<20}{value}");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rate: Option<u32>) -> Report {
        let (mut one, mut other) = (Measurements::default(), Measurements::default());
        for ms in 1..=100 {
            one.answer(Duration::from_millis(ms));
        }
        other.error("THROTTLING".into());
        other.late = 3;
        one.add(&other);
        let conditions = Conditions {
            endpoint: "unix:/x".into(),
            mac_algorithm: "HMAC_SHA_256".into(),
            connections: 1,
            streams: Some(2),
            message_bytes: 32,
            rate,
            seconds: 2.0,
        };
        let measured = ClockReadings {
            elapsed: Duration::from_secs(2),
            cpu: Duration::from_secs(1),
        };
        Report::new(&one, measured, Some(100.0), conditions)
    }

    #[test]
    fn a_report_has_figures_and_conditions() {
        let json: serde_json::Value = serde_json::from_str(&report(None).json()).unwrap();
        assert_eq!(json["calls"], 100);
        assert_eq!(json["calls_per_second"], 50.0);
        assert_eq!(json["ratio_to_token"], 0.5);
        assert_eq!(json["own_cpu_percent"], 50.0);
        assert_eq!(json["errors"]["THROTTLING"], 1);
        assert!((json["latency_us"]["p50"].as_f64().unwrap() - 50_000.0).abs() < 200.0);
        assert!(json.get("late").is_none());
        let table = report(Some(9)).table();
        for said in [
            "calls per second    50\n",
            "errors              1 THROTTLING\n",
            "sent late (> 1 ms)  3\n",
            "open loop at 9 calls/s, 1 connections × 2 streams, 32-byte messages, HMAC_SHA_256, 2.0 s",
        ] {
            assert!(table.contains(said), "{said}\n{table}");
        }
    }
}
