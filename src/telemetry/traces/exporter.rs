//! The way of spans to the collector: a bounded queue, and a task that hands them over in batches.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{info, warn};

use super::TraceCounts;

/// The calls whose spans wait for the collector at most.
const QUEUE: usize = 2048;
/// The calls whose spans go together at most.
const BATCH: usize = 256;
/// How long the spans of a call may wait for others to go with them.
const GATHER: Duration = Duration::from_millis(500);
/// How long the collector has for a batch, and for the last ones.
const LIMIT: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_secs(2);

/// Hands spans to a collector, and waits for nobody.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: mpsc::Sender<Vec<SpanData>>,
    counts: Arc<Counts>,
    end: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Exporter {
    /// Starts the task that exports.
    ///
    /// # Errors
    /// The endpoint cannot be used.
    pub(super) fn start(endpoint: &str) -> Result<Self, String> {
        let built = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(LIMIT)
            .build();
        let mut spans = built.map_err(|error| format!("traces.endpoint = {endpoint}: {error}"))?;
        let resource = Resource::builder_empty()
            .with_service_name("hsmac")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        spans.set_resource(&resource);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let counts = Arc::<Counts>::default();
        let (end, ended) = (oneshot::channel(), oneshot::channel());
        let work = Export {
            spans,
            endpoint: endpoint.to_owned(),
            counts: Arc::clone(&counts),
            is_failing: false,
        };
        tokio::spawn(work.run(waiting, end.1, ended.0));
        Ok(Self {
            queue,
            counts,
            end: Mutex::new(Some((end.0, ended.1))),
        })
    }

    /// Queues the spans of one call; drops them if too many wait.
    pub(super) fn send(&self, spans: Vec<SpanData>) {
        let count = spans.len();
        if self.queue.try_send(spans).is_err() {
            self.drop_spans(count);
        }
    }

    /// Counts spans that are not exported.
    pub(super) fn drop_spans(&self, count: usize) {
        self.counts
            .dropped
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Exports what is queued, as far as two seconds suffice.
    pub(super) async fn stop(&self) {
        let end = self
            .end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((end, ended)) = end {
            let _ = end.send(());
            let _ = timeout(LAST, ended).await;
        }
    }

    pub(super) fn counts(&self) -> TraceCounts {
        TraceCounts {
            exported: self.counts.exported.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }
    }
}

/// The task that exports.
struct Export {
    spans: SpanExporter,
    endpoint: String,
    counts: Arc<Counts>,
    is_failing: bool,
}

impl Export {
    async fn run(
        mut self,
        mut waiting: mpsc::Receiver<Vec<SpanData>>,
        mut end: oneshot::Receiver<()>,
        ended: oneshot::Sender<()>,
    ) {
        loop {
            let mut calls = Vec::with_capacity(BATCH);
            let is_last = tokio::select! {
                biased;
                _ = &mut end => true,
                count = waiting.recv_many(&mut calls, BATCH) => count == 0,
            };
            if is_last {
                waiting.close();
                while waiting.recv_many(&mut calls, BATCH).await > 0 {}
            } else {
                // Others may come until then.
                let gathered = async {
                    while calls.len() < BATCH && waiting.recv_many(&mut calls, BATCH).await > 0 {}
                };
                let _ = timeout(GATHER, gathered).await;
            }
            let batch: Vec<SpanData> = calls.into_iter().flatten().collect();
            if !batch.is_empty() {
                self.export(batch).await;
            }
            if is_last {
                let _ = ended.send(());
                return;
            }
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let outcome = timeout(LIMIT, self.spans.export(batch)).await;
        let fault = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it did not answer in ten seconds".to_owned()),
        };
        let counted = if fault.is_none() {
            &self.counts.exported
        } else {
            &self.counts.failed
        };
        counted.fetch_add(count, Ordering::Relaxed);
        let endpoint = &self.endpoint;
        match (&fault, self.is_failing) {
            (Some(reason), false) => {
                warn!(
                    event = "traces_lost",
                    endpoint,
                    reason,
                    "the collector of traces does not take them: they are dropped until it does"
                );
            }
            (None, true) => {
                info!(
                    event = "traces_resumed",
                    endpoint, "the collector of traces takes them again"
                );
            }
            (Some(_), true) | (None, false) => {}
        }
        self.is_failing = fault.is_some();
    }
}
