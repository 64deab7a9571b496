//! Everything that is shown, as it is at one moment.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{runtime, sync::watch};

use super::process::ProcessFigures;
use crate::{
    audit,
    front::{self, CallsSnapshot, ConnectionsSnapshot, LimitsSnapshot},
    kms::{Kms, Overview},
    telemetry::traces::{self, TraceCounts},
};

/// Where an observation comes from.
pub struct Sources {
    /// The keys and tokens.
    pub kms: Arc<Kms>,
    /// The API of gRPC.
    pub grpc: Arc<front::grpc::Api>,
    /// The API of AWS's clients, if it is served.
    pub aws: Option<Arc<front::aws::Api>>,
    /// What each principal may ask for.
    pub limits: Arc<front::Limits>,
    /// The connections of each listener.
    pub listeners: Vec<front::Connections>,
    /// Who authenticates callers, and by which certificates.
    pub access: watch::Receiver<Arc<front::Access>>,
    /// What else may be in trouble.
    pub conditions: Vec<Condition>,
    /// Why the store cannot be written; none while it can.
    pub store: watch::Receiver<Option<String>>,
    /// Settings that have changed and wait for a restart.
    pub pending_restart: watch::Receiver<Vec<String>>,
    /// Whether hsmac is ending.
    pub ending: watch::Receiver<bool>,
    /// The runtime that serves callers.
    pub runtime: runtime::Handle,
}

/// Something that somebody should know of, and that is no token's.
pub struct Condition {
    /// Its name, as in gRPC's health: `hsmac.reload`.
    pub name: String,
    /// True while there is trouble.
    pub trouble: watch::Receiver<bool>,
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    pub(super) at: SystemTime,
    pub(super) overview: Overview,
    pub(super) calls: Vec<CallsSnapshot>,
    pub(super) limits: LimitsSnapshot,
    pub(super) connections: Vec<ConnectionsSnapshot>,
    /// Each certificate and list: its listener, what it is, when it ends in seconds since 1970.
    pub(super) certificates: Vec<(&'static str, &'static str, i64)>,
    /// Each condition, and whether it is in trouble.
    pub(super) conditions: Vec<(String, bool)>,
    /// Why the store cannot be written, if it cannot.
    pub(super) store_trouble: Option<String>,
    /// The audit log, if there is one.
    pub(super) audit: Option<audit::Snapshot>,
    pub(super) pending_restart: Vec<String>,
    pub(super) is_ending: bool,
    pub(super) runtime: RuntimeFigures,
    pub(super) process: ProcessFigures,
    /// Spans, if calls are traced.
    pub(super) traces: Option<TraceCounts>,
}

/// How busy the runtime that serves callers is.
#[derive(Clone, Debug)]
pub(super) struct RuntimeFigures {
    /// The time that each worker has spent at work.
    pub(super) busy: Vec<Duration>,
    /// Tasks that no worker has taken yet.
    pub(super) queued: usize,
}

impl Sources {
    pub(super) fn observe(&self) -> Observation {
        let apis = [
            Some(self.grpc.calls()),
            self.aws.as_ref().map(|aws| aws.calls()),
        ];
        let metrics = self.runtime.metrics();
        let workers = 0..metrics.num_workers();
        let conditions = self.conditions.iter();
        Observation {
            at: SystemTime::now(),
            overview: self.kms.overview(),
            calls: apis.into_iter().flatten().collect(),
            limits: self.limits.snapshot(),
            connections: self
                .listeners
                .iter()
                .map(front::Connections::snapshot)
                .collect(),
            certificates: self.access.borrow().ends(),
            conditions: conditions
                .map(|one| (one.name.clone(), *one.trouble.borrow()))
                .collect(),
            store_trouble: self.store.borrow().clone(),
            audit: self.kms.audit().map(|log| log.snapshot()),
            pending_restart: self.pending_restart.borrow().clone(),
            is_ending: *self.ending.borrow(),
            runtime: RuntimeFigures {
                busy: workers
                    .map(|worker| metrics.worker_total_busy_duration(worker))
                    .collect(),
                queued: metrics.global_queue_depth(),
            },
            process: ProcessFigures::read(),
            traces: traces::counts(),
        }
    }
}
