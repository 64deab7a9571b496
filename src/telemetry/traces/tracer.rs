//! Decides which calls are traced, and makes their spans from the times that were noted.

use std::{
    cell::Cell,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use uuid::Uuid;

use crate::metrics::one_in;

use super::{Settings, TraceCounts, TracedCall, exporter::Exporter};

/// How many traces a second the `traceparent`s of callers may ask for.
const ASKED_FOR: u32 = 200;
/// How many traces there are a second at most: in an outage every call fails by our fault.
const MOST: u32 = 500;

thread_local! {
    /// Calls that were answered, to trace one in so many.
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

static ON: AtomicBool = AtomicBool::new(false);
static TRACER: OnceLock<Tracer> = OnceLock::new();

struct Tracer {
    /// One call in so many; 0: none.
    one_in: u32,
    slow: Duration,
    asked_for: Mutex<Budget>,
    all: Mutex<Budget>,
    exporter: Exporter,
    scope: InstrumentationScope,
}

/// Whether calls are traced.
#[inline]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Traces calls from now on, if the settings name a collector. Whether it is there is found out when it
/// gets spans: its absence is no reason not to start.
///
/// # Errors
/// The endpoint cannot be used, as a sentence.
pub fn start(settings: &Settings) -> Result<(), String> {
    let Some(endpoint) = &settings.endpoint else {
        return Ok(());
    };
    let tracer = Tracer {
        one_in: settings.one_in,
        slow: settings.slow,
        asked_for: Mutex::new(Budget::new(ASKED_FOR)),
        all: Mutex::new(Budget::new(MOST)),
        exporter: Exporter::start(endpoint)?,
        scope: InstrumentationScope::builder("hsmac")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    };
    if TRACER.set(tracer).is_ok() {
        ON.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Hands the last spans to the collector, which has two seconds for them.
pub async fn stop() {
    if let Some(tracer) = TRACER.get() {
        ON.store(false, Ordering::Relaxed);
        tracer.exporter.stop().await;
    }
}

/// Spans so far; none unless calls are traced.
pub fn counts() -> Option<TraceCounts> {
    TRACER.get().map(|tracer| tracer.exporter.counts())
}

/// Makes the spans of a call that is worth it. Gives the trace's ID then, in hex.
pub fn record(call: &TracedCall<'_>) -> Option<String> {
    let tracer = TRACER.get().filter(|_| is_on())?;
    let parent = call.parent.filter(|_| call.is_authenticated);
    let is_asked_for = parent.is_some_and(|parent| parent.is_sampled) && take(&tracer.asked_for);
    let is_worth_it =
        is_asked_for || call.is_our_fault || call.took >= tracer.slow || tracer.is_next();
    if !is_worth_it {
        return None;
    }
    if !take(&tracer.all) {
        // The call's, and one for each part of it.
        tracer.exporter.drop_spans(1 + call.notes.stages.len());
        return None;
    }
    let spans = tracer.spans(call);
    let trace = spans.first()?.span_context.trace_id().to_string();
    tracer.exporter.send(spans);
    Some(trace)
}

impl Tracer {
    /// Whether this call is the one in so many.
    fn is_next(&self) -> bool {
        self.one_in > 0 && one_in(self.one_in, &CALLS)
    }

    /// The call, and its parts within it.
    fn spans(&self, call: &TracedCall<'_>) -> Vec<SpanData> {
        let parent = call.parent.filter(|_| call.is_authenticated);
        let trace = parent.map_or_else(|| Uuid::new_v4().as_u128(), |parent| parent.trace);
        let context = |span: SpanId| {
            let (flags, state) = (TraceFlags::SAMPLED, TraceState::NONE);
            SpanContext::new(TraceId::from(trace), span, flags, false, state)
        };
        // Both clocks at one moment: the times that were noted are the monotonic one's.
        let (now, time) = (Instant::now(), SystemTime::now());
        let at = |instant: Instant| time - now.saturating_duration_since(instant);
        let root = new_span();
        let mut attributes = vec![
            KeyValue::new(
                "rpc.system",
                if call.wire == "grpc" {
                    "grpc"
                } else {
                    "aws-api"
                },
            ),
            KeyValue::new("hsmac.request_id", call.request_id.to_string()),
        ];
        if let Some((service, method)) = call.name.split_once('/') {
            attributes.push(KeyValue::new("rpc.service", service.to_owned()));
            attributes.push(KeyValue::new("rpc.method", method.to_owned()));
        }
        attributes.extend(call.exception.map(|name| KeyValue::new("error.type", name)));
        let span = |context, parent: SpanId, name: String, kind, began, ended| SpanData {
            span_context: context,
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: kind,
            name: name.into(),
            start_time: began,
            end_time: ended,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        };
        let began = at(call.began);
        let remote = parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span));
        let (name, kind) = (call.name.to_owned(), SpanKind::Server);
        let whole = SpanData {
            parent_span_is_remote: parent.is_some(),
            attributes,
            // What is the caller's fault is no error of a server's (OpenTelemetry's rules for RPC).
            status: if call.is_our_fault {
                Status::error("")
            } else {
                Status::Unset
            },
            ..span(context(root), remote, name, kind, began, began + call.took)
        };
        let mut spans = vec![whole];
        for stage in &call.notes.stages {
            let (name, kind) = (stage.name.to_owned(), SpanKind::Internal);
            let (began, ended) = (at(stage.began), at(stage.ended));
            let mut part = span(context(new_span()), root, name, kind, began, ended);
            if let Some(host) = call
                .notes
                .served_by
                .as_ref()
                .filter(|_| stage.name.starts_with("C_"))
            {
                part.attributes = vec![
                    KeyValue::new("hsmac.token", host.token.clone()),
                    KeyValue::new("hsmac.host", i64::from(host.host)),
                ];
            }
            spans.push(part);
        }
        spans
    }
}

fn take(budget: &Mutex<Budget>) -> bool {
    budget.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn new_span() -> SpanId {
    let (half, _) = Uuid::new_v4().as_u64_pair();
    SpanId::from(half)
}

/// So many in each second.
#[derive(Debug)]
struct Budget {
    per_second: u32,
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(per_second: u32) -> Self {
        Self {
            per_second,
            left: per_second,
            since: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            *self = Self::new(self.per_second);
        }
        self.left
            .checked_sub(1)
            .map(|left| self.left = left)
            .is_some()
    }
}
