//! Keeps a token's hosts alive: starts them, lets them log in one after the other, replaces those
//! that end, and says how the token is.

use std::{
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::sleep,
};
use tracing::{error, info, warn};

use super::{
    Facts, Fault, Settings, State, Surroundings, TokenInfo, host, line::Death, pin::PinGuard,
    queue::Queue,
};
use crate::{
    model::MacAlgorithm,
    proto::host::{FaultClass, Ready, TokenFound},
};

/// The first pause after a start that came to nothing; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A token that is away is looked for this often at least: it must serve within 2 s of its return.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A busy store can fail a first look, and shows itself only to a fresh generation (SoftHSM2 while a
/// sibling writes): so many starts must fail in a row before the token counts as away.
const LOOKS: u32 = 3;
/// How often a refused PIN's file and marker are looked at.
const PIN_LOOK: Duration = Duration::from_millis(500);

/// What the hosts of one token share.
pub(super) struct Supervisor {
    pub(super) settings: Settings,
    pub(super) queue: Queue,
    pub(super) state: watch::Sender<State>,
    pub(super) facts: StdMutex<Option<Facts>>,
    surroundings: Surroundings,
    pin: PinGuard,
    /// Held by the one host that may log in.
    login: Mutex<()>,
    serving: AtomicU32,
    generations: AtomicU32,
    sequences: AtomicU64,
}

/// Why a host did not come to serve.
enum Refusal {
    /// The PIN was refused, now or before.
    Pin(String),
    /// The start failed.
    Death(Death),
}

impl Supervisor {
    pub(super) fn new(settings: Settings, surroundings: Surroundings) -> Self {
        let pin = PinGuard::new(
            &surroundings.state_dir,
            &settings.name,
            settings.pin_file.clone(),
        );
        Self {
            queue: Queue::new(settings.queue as usize),
            state: watch::Sender::new(State::Starting),
            facts: StdMutex::new(None),
            pin,
            login: Mutex::new(()),
            serving: AtomicU32::new(0),
            generations: AtomicU32::new(1),
            sequences: AtomicU64::new(1),
            settings,
            surroundings,
        }
    }

    /// Keeps all hosts until `end` is set and the last of them has ended.
    pub(super) async fn keep_hosts(self: Arc<Self>, end: watch::Receiver<bool>) {
        let mut hosts = JoinSet::new();
        for first in (0..self.settings.hosts).map(|index| index == 0) {
            hosts.spawn(Arc::clone(&self).keep_host(first, end.clone()));
        }
        while hosts.join_next().await.is_some() {}
        self.queue
            .refuse_all(&Fault::Unavailable("hsmac is ending".into()));
    }

    /// One host after the other in one place.
    async fn keep_host(self: Arc<Self>, first: bool, mut end: watch::Receiver<bool>) {
        if !first {
            // One host logs in first, the others after its success: a wrong PIN is tried once.
            let mut state = self.state.subscribe();
            tokio::select! {
                _ = state.wait_for(|state| *state == State::Up) => {}
                () = host::asked(&mut end) => return,
            }
        }
        let mut pause = FIRST_PAUSE;
        let mut failed = 0;
        while !*end.borrow() {
            let started = tokio::select! {
                started = self.start() => started,
                () = host::asked(&mut end) => return,
            };
            let wait = match started {
                Ok(host) => {
                    pause = FIRST_PAUSE;
                    failed = 0;
                    let death = self.serve(host, &mut end).await;
                    if death.proven || *end.borrow() {
                        continue;
                    }
                    FIRST_PAUSE
                }
                Err(Refusal::Pin(reason)) => {
                    self.down(State::PinRefused(reason));
                    PIN_LOOK
                }
                Err(Refusal::Death(death))
                    if death.class != FaultClass::Configuration && failed + 1 < LOOKS =>
                {
                    failed += 1;
                    jittered(FIRST_PAUSE / 2)
                }
                Err(Refusal::Death(death)) => {
                    self.down(if death.class == FaultClass::Configuration {
                        State::Misconfigured(death.reason)
                    } else {
                        State::Away(death.reason)
                    });
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    jittered(pause)
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = host::asked(&mut end) => return,
            }
        }
    }

    async fn serve(&self, host: host::Host, end: &mut watch::Receiver<bool>) -> Death {
        self.serving.fetch_add(1, Ordering::SeqCst);
        let (token, generation) = (&self.settings.name, host.generation());
        info!(token, host = generation, "a host serves");
        self.change(State::Up);
        let call_timeout = self.settings.call_timeout;
        let death = host
            .serve(&self.queue, &self.sequences, call_timeout, end)
            .await;
        self.serving.fetch_sub(1, Ordering::SeqCst);
        if death.class == FaultClass::Unspecified {
            info!(token, host = generation, "a host has ended");
        } else {
            warn!(token, host = generation, reason = %death.reason, "a host is replaced");
        }
        death
    }

    async fn start(&self) -> Result<host::Host, Refusal> {
        if let Some(reason) = self.pin.refusal() {
            return Err(Refusal::Pin(reason));
        }
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let waiting = host::start(&self.settings, &self.surroundings, generation)
            .await
            .map_err(Refusal::Death)?;
        // Security: one login at a time, and none after a refusal that came meanwhile.
        let _login = self.login.lock().await;
        if let Some(reason) = self.refusal(&waiting.found) {
            waiting.dismiss().await;
            return Err(Refusal::Pin(reason));
        }
        let found = waiting.found.clone();
        match waiting.log_in(&self.settings).await {
            Ok(host) => {
                self.pin.accepted();
                self.learn(&found, host.ready());
                Ok(host)
            }
            Err(death) if death.class == FaultClass::Pin => {
                let reason = format!(
                    "the token refuses the PIN ({}); mend {}, or run `hsmac token unlock {}` to try it once more",
                    death.reason,
                    self.settings
                        .pin_file
                        .as_deref()
                        .unwrap_or_else(|| "pin_file".as_ref())
                        .display(),
                    self.settings.name,
                );
                if let Err(error) = self.pin.refused(&found.serial, &reason) {
                    error!(%error, "the refusal of the PIN cannot be kept on disk: a restart would try it again");
                }
                Err(Refusal::Pin(reason))
            }
            Err(death) => Err(Refusal::Death(death)),
        }
    }

    /// Why this token must not be logged in to now.
    fn refusal(&self, found: &TokenFound) -> Option<String> {
        if let Some(reason) = self.pin.refusal() {
            return Some(reason);
        }
        let name = &self.settings.name;
        if found.user_pin_locked {
            return Some(
                "the token says that its user PIN is locked; its SO must set a new one".into(),
            );
        }
        if found.user_pin_final_try && !self.pin.take_permission() {
            return Some(format!(
                "the token says that one more wrong PIN locks it; check the PIN, then run `hsmac token unlock {name}`"
            ));
        }
        None
    }

    fn learn(&self, found: &TokenFound, ready: &Ready) {
        let facts = Facts {
            info: TokenInfo {
                label: found.label.clone(),
                manufacturer: found.manufacturer.clone(),
                model: found.model.clone(),
                serial: found.serial.clone(),
            },
            module: ready.module.clone(),
            sessions: ready.sessions,
            two_calls: ready.two_calls,
            algorithms: ready
                .digest_bits
                .iter()
                .filter_map(|bits| MacAlgorithm::from_digest_bits(*bits))
                .collect(),
            warnings: found
                .warnings
                .iter()
                .chain(&ready.warnings)
                .cloned()
                .collect(),
        };
        let before = self.facts.lock().expect(UNPOISONED).replace(facts.clone());
        if before.as_ref() != Some(&facts) {
            for warning in &facts.warnings {
                warn!(token = %self.settings.name, "{warning}");
            }
            info!(
                token = %self.settings.name, module = %facts.module, label = %facts.info.label,
                serial = %facts.info.serial, sessions = facts.sessions, two_calls = facts.two_calls,
                "logged in"
            );
        }
    }

    /// No host could start here; if no other one serves, the token is down and everybody is told.
    fn down(&self, state: State) {
        if self.serving.load(Ordering::SeqCst) > 0 {
            return;
        }
        self.queue
            .refuse_all(&Fault::Unavailable(state.to_string()));
        self.change(state);
    }

    /// Said once for each change, not once for each call.
    fn change(&self, state: State) {
        let token = &self.settings.name;
        self.state.send_if_modified(|before| {
            if *before == state {
                return false;
            }
            match &state {
                State::Up => info!(token, "the token is up"),
                State::Starting => {}
                State::Away(_) | State::PinRefused(_) | State::Misconfigured(_) => {
                    error!(token, reason = %state, "the token is unavailable");
                }
            }
            *before = state;
            true
        });
    }
}

const UNPOISONED: &str = "no holder of the lock on a token's facts panics";

/// Up to a quarter more or less, so that many bridges do not come at the same time.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() % 1000;
    let share = u32::try_from(random).expect("less than a thousand");
    pause * (750 + share / 2) / 1000
}
