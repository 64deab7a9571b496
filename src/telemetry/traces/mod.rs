//! Traces of calls, over OTLP, for builds with the feature `otlp`.
//!
//! No span exists while a call runs: its parts are noted with their times ([`StageTimer`]), and spans are
//! made afterwards of the calls that are worth it. Promises: without the feature nothing is noted and
//! nothing is looked at; exporting never delays a call; what the collector does not take is dropped and
//! counted.

#[cfg(feature = "otlp")]
mod exporter;
#[cfg(not(feature = "otlp"))]
mod off;
mod parent;
#[cfg(feature = "otlp")]
mod tracer;

#[cfg(not(feature = "otlp"))]
pub use self::off::{counts, is_on, record, start, stop};
pub use self::parent::TraceParent;
#[cfg(feature = "otlp")]
pub use self::tracer::{counts, is_on, record, start, stop};

use std::time::{Duration, Instant};

use serde::Deserialize;
use uuid::Uuid;

use super::call_notes::{CallNotes, note_stage};

/// `[traces]`: which calls are traced, and where to.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The collector that takes OTLP over gRPC, `http://HOST:PORT`: one on this machine or in this pod, since
    /// the connection is not encrypted. Needs a hsmac that was built with the feature `otlp`. Default:
    /// nothing is traced.
    pub endpoint: Option<String>,
    /// One call in so many is traced although nothing is wrong with it; 0: none. Calls that fail by our
    /// fault or are slow are traced besides, and those whose authenticated caller sends a sampled
    /// `traceparent`, 200 a second at most. Default 1000.
    pub one_in: u32,
    /// A call that takes longer is traced. Default 100 ms.
    #[serde(with = "humantime_serde")]
    pub slow: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            one_in: 1000,
            slow: Duration::from_millis(100),
        }
    }
}

impl Settings {
    /// What is wrong with the settings: which one, and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if let Some(endpoint) = &self.endpoint {
            if !cfg!(feature = "otlp") {
                let text = "this hsmac was built without traces: build it with --features otlp, or leave this out";
                faults.push(("endpoint", text.to_owned()));
            } else if !is_endpoint(endpoint) {
                let text = format!(
                    "{endpoint} is no address of a collector: http://HOST:PORT, not encrypted, such as http://127.0.0.1:4317"
                );
                faults.push(("endpoint", text));
            }
        }
        faults
    }
}

/// `http://HOST:PORT` and nothing more.
fn is_endpoint(text: &str) -> bool {
    text.parse().is_ok_and(|uri: http::Uri| {
        uri.scheme_str() == Some("http")
            && uri.port_u16().is_some()
            && matches!(
                uri.path_and_query().map(|path| path.as_str()),
                None | Some("/")
            )
    })
}

/// A part of a call that runs now.
#[derive(Debug)]
#[must_use]
pub struct StageTimer(Option<Instant>);

impl StageTimer {
    /// It begins now. Without traces nobody looks at the clock.
    pub fn begin() -> Self {
        Self(is_on().then(Instant::now))
    }

    /// It ends now.
    pub fn end(self, name: &'static str) {
        if let Some(began) = self.0 {
            note_stage(name, began, Instant::now());
        }
    }

    /// When it began, if calls are traced.
    pub fn began(&self) -> Option<Instant> {
        self.0
    }
}

/// A call that was answered.
#[derive(Clone, Copy, Debug)]
pub struct TracedCall<'a> {
    /// `hsmac.v1.MacService/GenerateMac` or `KMS/GenerateMac`.
    pub name: &'a str,
    /// `grpc` or `aws`.
    pub wire: &'static str,
    /// The request ID of the answer.
    pub request_id: Uuid,
    /// What failed, by its exception's name.
    pub exception: Option<&'static str>,
    /// Whether that was our side's fault.
    pub is_our_fault: bool,
    /// Whether the caller has proved who it is: nobody else's `traceparent` is believed.
    pub is_authenticated: bool,
    /// The `traceparent` of the request.
    pub parent: Option<TraceParent>,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// What was noted of it.
    pub notes: &'a CallNotes,
}

/// Spans so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TraceCounts {
    /// The collector has them.
    pub exported: u64,
    /// The collector did not take them.
    pub failed: u64,
    /// There were too many, of calls or of spans that wait for the collector.
    pub dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_setting_and_the_way_out() {
        let faults = |endpoint: Option<&str>| {
            let settings = Settings {
                endpoint: endpoint.map(str::to_owned),
                ..Settings::default()
            };
            let faults = settings.faults().into_iter();
            faults.map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert!(faults(None).is_empty());
        for wrong in [
            "https://a:4317",
            "http://a",
            "a:4317",
            "http://a:4317/v1/traces",
            "",
        ] {
            assert_eq!(faults(Some(wrong)), ["endpoint"], "{wrong}");
        }
        let right = faults(Some("http://[::1]:4317"));
        assert_eq!(right.is_empty(), cfg!(feature = "otlp"));
    }
}
