//! The composition root: builds every part once, and owns the order in which they start and end.
//!
//! Start: listeners and store (a port or a file in use is found before a PIN is tried) → token hosts
//! → operations → front. End: health says NOT_SERVING → no new connection → calls in flight are
//! answered → hosts end → the store closes; all of it within `drain_timeout`.

mod error;
mod examine;
mod examine_seals;
mod groups;
mod listeners;
mod policy_warnings;
mod reload;
mod sealer;
mod signals;
mod simulator;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};
use tracing::{info, warn};

pub use self::{
    error::AppError,
    examine::{
        CertificateExamination, ListenerExamination, TokenExamination, examine,
        examine_certificates, examine_listeners,
    },
    examine_seals::{SealExamination, examine_seals},
    groups::prepare_state_dir,
    simulator::simulator,
};
use self::{
    groups::{GroupMap, Groups, wait_until_settled},
    listeners::{Access, Apis, Listeners},
    reload::Reload,
    signals::{Signals, notify},
};
use crate::{
    admin::{self, Admin},
    audit,
    config::{FileFingerprints, Loaded, LoadedFiles, Settings},
    front,
    kms::{self, DeclaredRights, Kms},
    store::Store,
    telemetry::traces,
    token::State,
};

/// The part of `drain_timeout` that is kept for the end of token hosts, which are killed after two
/// seconds.
const HOSTS_END: Duration = Duration::from_millis(2500);

/// All parts of hsmac, started and ready to serve.
pub struct App {
    settings: Settings,
    /// What the files held that are in force.
    files: LoadedFiles,
    /// How the files were before anything was read from them.
    fingerprints: FileFingerprints,
    callers: front::Access,
    limits: Arc<front::Limits>,
    listeners: Listeners,
    admin: Admin,
    groups: Arc<Groups>,
    store: Option<Store>,
    audit: Audit,
    kms: Arc<Kms>,
    signals: Signals,
}

impl App {
    /// Binds the listeners and starts the token hosts. A token that is not available, or that refuses
    /// the PIN, does not prevent the start: health reports it, and hsmac keeps trying.
    ///
    /// # Errors
    /// [`AppError::Configuration`]: the address is in use, a file is no PKCS#11 library, two tokens
    /// match, the store is damaged. [`AppError::Away`]: the store's disk refuses. [`AppError::Ended`]:
    /// SIGTERM or SIGINT came first. [`AppError::Internal`]: signals cannot be watched.
    pub async fn start(loaded: Loaded) -> Result<Self, AppError> {
        let Loaded {
            settings,
            files,
            fingerprints,
            warnings: _,
        } = loaded;
        let mut signals = Signals::watch()?;
        prepare_state_dir(&settings)?;
        let limits = Arc::<front::Limits>::default();
        let access = Access::new(&settings, files.clone(), &limits);
        let Access {
            callers,
            limits: table,
            keys: _,
            rights,
        } = access.map_err(AppError::Configuration)?;
        limits.replace(table);
        let listeners = Listeners::bind(&settings)?;
        let admin = Admin::start(&settings.admin)
            .map_err(|fault| AppError::Configuration(fault.to_string()))?;
        traces::start(&settings.traces).map_err(AppError::Configuration)?;
        let store = settings.store.as_ref().map(Store::open).transpose()?;
        let audit = match settings.audit.as_ref().map(audit::Log::open).transpose() {
            Ok(audit) => audit,
            Err(fault) => {
                close(store, Audit::default()).await;
                return Err(AppError::Configuration(fault.to_string()));
            }
        };
        let groups = Groups::start(&settings);
        let started = groups.now();
        let settled = tokio::select! {
            settled = wait_until_settled(&settings, &started) => settled,
            () = signals.shutdown.received() => Err(AppError::Ended),
        };
        let kms = match settled {
            Ok(()) => {
                let of_kms = kms_settings(&settings, rights);
                build_kms(of_kms, started, store.clone(), audit.clone()).await
            }
            Err(fault) => Err(fault),
        };
        let kms = match kms {
            Ok(kms) => kms,
            Err(fault) => {
                groups.end(Instant::now() + HOSTS_END).await;
                let log = Audit {
                    log: audit,
                    sealing: None,
                };
                close(store, log).await;
                return Err(fault);
            }
        };
        let sealing = settings.seal_key().ok().flatten();
        let sealing = sealer::start(sealing, &groups, audit.as_ref());
        Ok(Self {
            settings,
            files,
            fingerprints,
            callers,
            limits,
            listeners,
            admin,
            groups,
            store,
            audit: Audit {
                log: audit,
                sealing,
            },
            kms,
            signals,
        })
    }

    /// The operations, to be called without the network.
    pub fn kms(&self) -> &Arc<Kms> {
        &self.kms
    }

    /// The address of the listener for AWS's clients, if there is one.
    pub fn aws_address(&self) -> Option<String> {
        self.listeners.aws.as_ref().map(front::Listener::address)
    }

    /// The state of each token, by its name.
    pub fn states(&self) -> impl Iterator<Item = (String, State)> {
        let groups = self.groups.now().into_values();
        let states = groups.flat_map(|group| group.states());
        states.map(|(name, state)| (name, state.borrow().clone()))
    }

    /// Ends what is not to serve after all.
    pub async fn end(self) {
        let until = Instant::now() + HOSTS_END;
        end_parts(&self.groups, &self.kms, self.store, self.audit, until).await;
    }

    /// Serves until SIGTERM or SIGINT, then drains.
    pub async fn run(self) {
        let Signals {
            mut shutdown,
            hangup,
        } = self.signals;
        let (ending, ended) = watch::channel(false);
        let shutdown = async move {
            shutdown.received().await;
            info!(event = "stopping", "ending: calls in flight are answered");
            notify(&[sd_notify::NotifyState::Stopping]);
            ending.send_replace(true);
        };
        let (apis, health) = Apis::new(&self.kms, &self.settings, self.callers, self.limits).await;
        let apis = Arc::new(apis);
        let failing = watch::Sender::new(false);
        let pending = watch::Sender::new(Vec::new());
        let mut conditions = self.listeners.conditions();
        conditions.push(front::grpc::Condition {
            name: "hsmac.reload".to_owned(),
            trouble: failing.subscribe(),
        });
        conditions.push(front::grpc::Condition {
            name: "hsmac.keys".to_owned(),
            trouble: self.kms.watch_declared_keys(),
        });
        let store_trouble = match &self.store {
            Some(store) => store.trouble(),
            None => watch::Sender::new(None).subscribe(),
        };
        if self.store.is_some() {
            conditions.push(front::grpc::Condition {
                name: "hsmac.store".to_owned(),
                trouble: is_some(store_trouble.clone()),
            });
        }
        let sources = admin::Sources {
            store: store_trouble,
            kms: Arc::clone(&self.kms),
            grpc: Arc::clone(&apis.grpc),
            aws: apis.aws.clone(),
            limits: apis.limits.clone(),
            listeners: self.listeners.connections(),
            access: apis.access(),
            conditions: conditions
                .iter()
                .map(|one| admin::Condition {
                    name: one.name.clone(),
                    trouble: one.trouble.clone(),
                })
                .collect(),
            pending_restart: pending.subscribe(),
            ending: ended.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        self.admin.show(sources);
        let health = health.with_conditions(conditions);
        info!(event = "listening", address = %self.listeners.grpc.address(), listener = "grpc",  "listening");
        // The end of the time is for the hosts.
        let drain = self.settings.drain_timeout;
        let grace = drain.saturating_sub(HOSTS_END).max(drain / 2);
        let aws = apis.serve_aws(self.listeners.aws, ended, grace);
        // Health reports NOT_SERVING before a listener closes.
        let grpc = front::serve(
            self.listeners.grpc,
            apis.grpc.clone(),
            health.follow(shutdown),
            grace,
        );
        let reload = Reload::new(
            (apis.clone(), self.kms.clone(), self.groups.clone()),
            self.settings,
            self.files,
            self.fingerprints,
            failing,
            pending,
        );
        let reload = tokio::spawn(reload.run(hangup));
        notify(&[sd_notify::NotifyState::Ready]);
        let (of_grpc, of_aws) = tokio::join!(grpc, aws);
        reload.abort();
        let left = of_grpc + of_aws;
        if left > 0 {
            warn!(
                event = "calls_dropped",
                connections = left,
                "drain_timeout is over: calls were dropped"
            );
        }
        let until = Instant::now() + (drain - grace);
        // The last spans go while the hosts end, and take no time of their own.
        let ended = end_parts(&self.groups, &self.kms, self.store, self.audit, until);
        tokio::join!(ended, traces::stop());
        info!(event = "stopped", "ended");
    }
}

/// Whether there is something.
fn is_some(mut watched: watch::Receiver<Option<String>>) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(watched.borrow_and_update().is_some());
    tokio::spawn(async move {
        while watched.changed().await.is_ok() {
            sender.send_replace(watched.borrow_and_update().is_some());
        }
    });
    receiver
}

async fn end_parts(
    groups: &Groups,
    kms: &Kms,
    store: Option<Store>,
    audit: Audit,
    hosts_until: Instant,
) {
    groups.end(hosts_until).await;
    kms.end().await;
    close(store, audit).await;
}

/// The audit log, and the task that has it sealed.
#[derive(Default)]
struct Audit {
    log: Option<Arc<audit::Log>>,
    sealing: Option<JoinHandle<()>>,
}

async fn close(store: Option<Store>, audit: Audit) {
    if let Some(sealing) = audit.sealing {
        sealing.abort();
    }
    if let Some(log) = audit.log {
        // An error says that it was stopped before its end, with the process.
        let _ = tokio::task::spawn_blocking(move || log.close()).await;
    }
    if let Some(store) = store {
        store.close().await;
    }
}

async fn build_kms(
    settings: kms::Settings,
    groups: GroupMap,
    store: Option<Store>,
    audit: Option<Arc<audit::Log>>,
) -> Result<Arc<Kms>, AppError> {
    match store {
        None => {
            let kms = Kms::new(settings, groups).map_err(AppError::Configuration)?;
            if let Some(log) = audit {
                kms.record_to(log);
            }
            Ok(kms)
        }
        Some(store) => Ok(Kms::open(settings, groups, store, audit).await?),
    }
}

fn kms_settings(settings: &Settings, rights: DeclaredRights) -> kms::Settings {
    kms::Settings {
        account: settings.account.clone(),
        region: settings.region.clone(),
        new_keys: settings.new_keys.clone(),
        keys: settings.key.clone(),
        rights,
    }
}
