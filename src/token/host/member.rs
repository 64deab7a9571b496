//! One token of a group, as its hosts share it, and how it is, told from the state of each of them.

use std::{
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::{Mutex, Semaphore, watch};
use tracing::{info, warn};

use crate::{
    model::MacAlgorithm,
    proto::host::Ready,
    token::{
        dispatch::queue::Queue,
        host::{
            churn::StartBudget,
            host_state::HostState,
            pin::{LoginGovernor, Logins},
            session::HostContext,
            session_share::SessionShare,
        },
        level::Level,
        locks::UNPOISONED,
        metrics::{TokenMetrics, TokenSnapshot},
        settings::{HostEnvironment, Settings},
        status::{Facts, Fault, State, TokenInfo},
    },
};

/// Processes of ended hosts that the kernel has not let go of (a call stuck in a driver): with so
/// many no further host is started.
pub(super) const UNREAPED: usize = 2;

/// The hosts end as planned; one that is starting comes to the end of it, since a login that is cut off counts
/// as a try.
pub(in crate::token) const LEAVES: usize = 1;
/// hsmac ends: one that is starting has a moment.
pub(in crate::token) const ENDS: usize = 2;

/// One token and the state of each of its hosts.
pub(in crate::token) struct Member {
    pub(in crate::token) settings: Settings,
    pub(in crate::token) state: watch::Sender<State>,
    /// Since when it is so.
    pub(super) since: StdMutex<SystemTime>,
    /// Its predecessor's too.
    pub(super) metrics: Arc<TokenMetrics>,
    pub(super) facts: StdMutex<Option<Facts>>,
    /// Its number in the group.
    pub(in crate::token) index: usize,
    /// Has its hosts end: [`LEAVES`] or [`ENDS`].
    pub(in crate::token) end: Level,
    /// Hosts with the token's settings from before serve until one of these does.
    pub(super) is_successor: AtomicBool,
    /// The token has no session for a host, and those that it has may be the predecessor's.
    pub(in crate::token) wants_sessions: Level,
    pub(super) queue: Arc<Queue>,
    pub(super) environment: HostEnvironment,
    pub(super) pin: LoginGovernor,
    /// Held by the one host that may log in.
    pub(super) login: Mutex<()>,
    /// Held by the one place that tries to start a host while none serves.
    pub(super) canary: Mutex<()>,
    /// How many hosts serve.
    pub(in crate::token) serving: Level,
    pub(super) host_states: StdMutex<Vec<HostState>>,
    /// One permit for each process, held until it is reaped.
    pub(super) processes: Arc<Semaphore>,
    /// How many hosts may start.
    pub(super) starts: StartBudget,
    pub(super) share: SessionShare,
    /// Permits of `processes` that are taken away, since the token has no room for hosts that end.
    pub(super) withheld: StdMutex<usize>,
    /// How long the last start took, in microseconds.
    pub(super) start_took_us: AtomicU64,
}

impl Member {
    pub(in crate::token) fn new(
        settings: Settings,
        environment: &HostEnvironment,
        queue: Arc<Queue>,
        index: usize,
        logins: &Logins,
        predecessor: Option<&Self>,
    ) -> Self {
        let pin_files = settings.pin_files().cloned().collect();
        let pin = LoginGovernor::new(&environment.state_dir, &settings.name, pin_files);
        let pin = pin.among(logins, &settings.uri);
        let hosts = settings.hosts as usize;
        Self {
            state: watch::Sender::new(State::Starting),
            since: StdMutex::new(SystemTime::now()),
            metrics: predecessor.map_or_else(Arc::default, |before| Arc::clone(&before.metrics)),
            facts: StdMutex::new(None),
            index,
            end: Level::default(),
            is_successor: AtomicBool::new(predecessor.is_some()),
            wants_sessions: Level::default(),
            queue,
            pin,
            login: Mutex::new(()),
            canary: Mutex::new(()),
            serving: Level::default(),
            host_states: StdMutex::new(vec![HostState::Idle; hosts]),
            processes: Arc::new(Semaphore::new(hosts + UNREAPED)),
            starts: StartBudget::new(settings.max_starts_per_minute),
            share: SessionShare::new(settings.hosts, settings.sessions),
            withheld: StdMutex::new(0),
            start_took_us: AtomicU64::new(0),
            settings,
            environment: environment.clone(),
        }
    }

    /// What the host that logged in last found.
    pub(in crate::token) fn facts(&self) -> Option<Facts> {
        self.facts.lock().expect(UNPOISONED).clone()
    }

    /// The token at this moment.
    pub(in crate::token) fn snapshot(&self) -> TokenSnapshot {
        let starting = {
            let host_states = self.host_states.lock().expect(UNPOISONED);
            let coming = host_states
                .iter()
                .filter(|host| **host == HostState::Coming);
            coming.count()
        };
        let (faults, last_fault) = self.metrics.faults();
        TokenSnapshot {
            name: self.settings.name.clone(),
            state: self.state.borrow().clone(),
            since: *self.since.lock().expect(UNPOISONED),
            hosts: self.queue.serving_hosts(self.index),
            hosts_starting: starting,
            hosts_configured: self.settings.hosts as usize,
            calls: self.metrics.calls(),
            faults,
            last_fault,
            host_ends: self.metrics.ends(),
            pending_settings: None,
        }
    }

    /// From now on this is the token, in its predecessor's place.
    pub(in crate::token) fn succeed(&self, before: &Self) {
        self.is_successor.store(false, Ordering::SeqCst);
        let was = before.state.borrow().name();
        if was == self.state.borrow().name() {
            *self.since.lock().expect(UNPOISONED) = *before.since.lock().expect(UNPOISONED);
        }
    }

    pub(super) fn context(&self) -> HostContext<'_> {
        HostContext {
            settings: &self.settings,
            queue: &self.queue,
            member: self.index,
            share: &self.share,
            metrics: &self.metrics,
        }
    }

    /// Sets the state of one host, and with it that of the token.
    pub(super) fn set(&self, place: usize, now: HostState) {
        let mut host_states = self.host_states.lock().expect(UNPOISONED);
        host_states[place] = now;
        let hosts = host_states.len();
        let serving = host_states
            .iter()
            .filter(|place| **place == HostState::Serving);
        let serving = serving.count();
        let coming = host_states.contains(&HostState::Coming);
        let failed = host_states.iter().find_map(|place| match place {
            HostState::Failed(state) => Some(state.clone()),
            HostState::Idle | HostState::Coming | HostState::Serving => None,
        });
        let state = match failed {
            None if serving > 0 => Some(State::Up),
            Some(reason) if serving > 0 => Some(State::Degraded(format!(
                "{serving} of {hosts} hosts serve: {reason}"
            ))),
            Some(down) if !coming => Some(down),
            // A host was lost and its successor is on its way: nothing that callers need to know.
            Some(_) | None => None,
        };
        self.serving.set(serving);
        // Told under the lock, so that two changes are told in their order.
        self.queue
            .set_member_status(self.index, serving > 0, coming);
        if let Some(state) = state {
            self.change(state, serving);
        }
        drop(host_states);
        if serving == 0 && !coming {
            let state = self.state.borrow().to_string();
            let queue = &self.queue;
            queue.refuse(|job| !queue.has_candidate(job), &Fault::Unavailable(state));
        }
    }

    pub(super) fn learn(&self, mut warnings: Vec<String>, info: &TokenInfo, ready: &Ready) {
        warnings.extend(ready.warnings.iter().cloned());
        let facts = Facts {
            info: info.clone(),
            module: ready.module.clone(),
            sessions: ready.sessions,
            two_calls: ready.two_calls,
            algorithms: ready
                .digest_bits
                .iter()
                .filter_map(|bits| MacAlgorithm::from_digest_bits(*bits))
                .collect(),
            warnings,
        };
        let before = self.facts.lock().expect(UNPOISONED).replace(facts.clone());
        if before.as_ref() != Some(&facts) {
            for warning in &facts.warnings {
                warn!(event = "token_warning", token = %self.settings.name, "{warning}");
            }
            info!(
                event = "logged_in", token = %self.settings.name, module = %facts.module, label = %facts.info.label,
                serial = %facts.info.serial, sessions = facts.sessions, two_calls = facts.two_calls,
                "logged in"
            );
        }
    }
}
