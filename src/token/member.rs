//! One token of a group: keeps its hosts alive, lets them log in one after the other, replaces those
//! that end, and says how the token is.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, Semaphore, watch},
    task::JoinSet,
    time::sleep,
};
use tracing::{error, info, warn};

use super::{
    Facts, Fault, Settings, State, Surroundings, TokenInfo,
    host::{self, Post},
    jittered,
    line::{Death, Hang},
    pin::PinGuard,
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
/// sibling writes): so many starts must fail in a row, for so long, before the token counts as away.
/// The time is for a machine whose starts fail fast and whose siblings are slow.
const LOOKS: u32 = 3;
const LOOKING: Duration = Duration::from_millis(500);
/// A host that takes longer than this to be replaced, or than twice what the last start took, is
/// not waited for: callers are told at once that the token is away.
const GRACE: Duration = Duration::from_secs(1);
/// How often a refused PIN's file and marker are looked at.
const PIN_LOOK: Duration = Duration::from_millis(500);
/// Processes of ended hosts that the kernel has not let go of (a call stuck in a driver): with so
/// many no further host is started.
const UNREAPED: usize = 2;

/// One token and the places of its hosts.
pub(super) struct Member {
    pub(super) settings: Settings,
    pub(super) state: watch::Sender<State>,
    pub(super) facts: StdMutex<Option<Facts>>,
    /// Its place in the group.
    index: usize,
    queue: Arc<Queue>,
    surroundings: Surroundings,
    pin: PinGuard,
    /// Held by the one host that may log in.
    login: Mutex<()>,
    places: StdMutex<Vec<Place>>,
    /// One permit for each process, held until it is reaped.
    processes: Arc<Semaphore>,
    /// How long the last start took, in microseconds.
    start_took_us: AtomicU64,
}

/// How it stands with one of the token's hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    /// Not begun: the first host has not logged in yet.
    Idle,
    /// A host is on its way, and callers wait for it.
    Coming,
    /// A host serves.
    Serving,
    /// No host can come up; the token's state if none of the others serves.
    Failed(State),
}

/// The starts that came to nothing since a host last served.
#[derive(Default)]
struct Failed {
    looks: u32,
    since: Option<Instant>,
}

impl Failed {
    /// Counts one more; whether it says too little to call the token away.
    fn may_look_again(&mut self) -> bool {
        self.looks += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        self.looks < LOOKS || since.elapsed() < LOOKING
    }
}

/// Why a host did not come to serve.
enum Refusal {
    /// The PIN was refused, now or before.
    Pin(String),
    /// The start failed.
    Death(Death),
}

impl Member {
    pub(super) fn new(
        settings: Settings,
        surroundings: Surroundings,
        queue: Arc<Queue>,
        index: usize,
    ) -> Self {
        let pin = PinGuard::new(
            &surroundings.state_dir,
            &settings.name,
            settings.pin_file.clone(),
        );
        let hosts = settings.hosts as usize;
        Self {
            state: watch::Sender::new(State::Starting),
            facts: StdMutex::new(None),
            index,
            queue,
            pin,
            login: Mutex::new(()),
            places: StdMutex::new(vec![Place::Idle; hosts]),
            processes: Arc::new(Semaphore::new(hosts + UNREAPED)),
            start_took_us: AtomicU64::new(0),
            settings,
            surroundings,
        }
    }

    /// Keeps all hosts until `end` is set and the last of them has ended.
    pub(super) async fn keep_hosts(self: Arc<Self>, end: watch::Receiver<bool>) {
        let mut hosts = JoinSet::new();
        for place in 0..self.settings.hosts as usize {
            hosts.spawn(Arc::clone(&self).keep_host(place, end.clone()));
        }
        while hosts.join_next().await.is_some() {}
        self.queue.set_standing(self.index, false, false);
    }

    /// One host after the other in one place.
    async fn keep_host(self: Arc<Self>, place: usize, mut end: watch::Receiver<bool>) {
        if place > 0 {
            // One host logs in first, the others after its success: a wrong PIN is tried once.
            let mut state = self.state.subscribe();
            tokio::select! {
                _ = state.wait_for(State::is_serving) => {}
                () = host::asked(&mut end) => return,
            }
        }
        self.set(place, Place::Coming);
        let mut pause = FIRST_PAUSE;
        let mut failed = Failed::default();
        let mut hang = None;
        while !*end.borrow() {
            let started = tokio::select! {
                started = self.start_in(place, hang.as_ref()) => started,
                () = host::asked(&mut end) => return,
            };
            let refusal = match started {
                Ok(host) => {
                    (pause, failed) = (FIRST_PAUSE, Failed::default());
                    let death = self.serve(place, host, &mut end).await;
                    hang.clone_from(&death.hang);
                    if death.class == FaultClass::Pin {
                        Refusal::Pin(self.pin_refused(&death))
                    } else {
                        if !death.proven && !*end.borrow() {
                            sleep(FIRST_PAUSE).await;
                        }
                        continue;
                    }
                }
                Err(refusal) => refusal,
            };
            let wait = match refusal {
                Refusal::Pin(reason) => {
                    self.set(place, Place::Failed(State::PinRefused(reason)));
                    PIN_LOOK
                }
                Refusal::Death(death)
                    if death.class != FaultClass::Configuration && failed.may_look_again() =>
                {
                    jittered(FIRST_PAUSE / 2)
                }
                Refusal::Death(death) => {
                    let state = if death.class == FaultClass::Configuration {
                        State::Misconfigured(death.reason)
                    } else {
                        State::Away(death.reason)
                    };
                    self.set(place, Place::Failed(state));
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

    async fn serve(
        &self,
        place: usize,
        host: host::Host,
        end: &mut watch::Receiver<bool>,
    ) -> Death {
        let (token, generation) = (&self.settings.name, host.generation());
        info!(token, host = generation, "a host serves");
        let seat = self.queue.sit(generation, self.index);
        self.set(place, Place::Serving);
        let death = host.serve(&self.post(), &seat, end).await;
        if death.class == FaultClass::Unspecified {
            info!(token, host = generation, "a host has ended");
        } else {
            warn!(token, host = generation, reason = %death.reason, "a host is replaced");
        }
        // In this order, so that at no moment jobs seem to have no host to wait for.
        self.set(place, Place::Coming);
        self.queue.leave(&seat);
        death
    }

    /// Starts a host. Callers wait for it for a while; then they are told that nobody serves.
    async fn start_in(&self, place: usize, hang: Option<&Hang>) -> Result<host::Host, Refusal> {
        let last = Duration::from_micros(self.start_took_us.load(Ordering::Relaxed));
        let grace = (last * 2).clamp(GRACE, self.settings.start_timeout.max(GRACE));
        let mut start = pin!(self.start(hang));
        let first_start = *self.state.borrow() == State::Starting;
        tokio::select! {
            started = &mut start => return started,
            () = sleep(grace), if !first_start => {}
        }
        let waited = self.places.lock().expect(UNPOISONED)[place] == Place::Coming;
        if waited {
            self.set(
                place,
                Place::Failed(State::Away(format!(
                    "no host has come up within {grace:?}; the module does not answer"
                ))),
            );
        }
        start.await
    }

    async fn start(&self, hang: Option<&Hang>) -> Result<host::Host, Refusal> {
        if let Some(reason) = self.pin.refusal() {
            return Err(Refusal::Pin(reason));
        }
        let process = Arc::clone(&self.processes)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let began = Instant::now();
        let generation = self.queue.next_generation();
        let waiting = host::start(&self.settings, &self.surroundings, generation, process)
            .await
            .map_err(Refusal::Death)?;
        let host = self.log_in(waiting).await?;
        let host = match hang {
            None => host,
            Some(hang) => host
                .prove(&self.post(), hang)
                .await
                .map_err(Refusal::Death)?,
        };
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.start_took_us.store(took, Ordering::Relaxed);
        Ok(host)
    }

    async fn log_in(&self, waiting: host::Waiting) -> Result<host::Host, Refusal> {
        // Security: one login at a time, and none after a refusal that came meanwhile.
        let _login = self.login.lock().await;
        if let Some(reason) = self.refusal(&waiting.found) {
            waiting.dismiss().await;
            return Err(Refusal::Pin(reason));
        }
        let warnings = waiting.found.warnings.clone();
        let serial = waiting.found.serial.clone();
        match waiting.log_in(&self.settings).await {
            Ok(host) => {
                self.pin.accepted();
                self.learn(warnings, host.info(), host.ready());
                Ok(host)
            }
            Err(death) if death.class == FaultClass::Pin => {
                Err(Refusal::Pin(self.keep_refusal(&serial, &death)))
            }
            Err(death) => Err(Refusal::Death(death)),
        }
    }

    /// The token refused the PIN to a host that had logged in: it has expired or was locked since.
    fn pin_refused(&self, death: &Death) -> String {
        let facts = self.facts.lock().expect(UNPOISONED);
        let serial = facts.as_ref().map_or("", |facts| &facts.info.serial);
        self.keep_refusal(serial, death)
    }

    /// Keeps on disk that the PIN was refused, and says so.
    fn keep_refusal(&self, serial: &str, death: &Death) -> String {
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
        if let Err(error) = self.pin.refused(serial, &reason) {
            error!(%error, "the refusal of the PIN cannot be kept on disk: a restart would try it again");
        }
        reason
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

    fn learn(&self, mut warnings: Vec<String>, info: &TokenInfo, ready: &Ready) {
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
                warn!(token = %self.settings.name, "{warning}");
            }
            info!(
                token = %self.settings.name, module = %facts.module, label = %facts.info.label,
                serial = %facts.info.serial, sessions = facts.sessions, two_calls = facts.two_calls,
                "logged in"
            );
        }
    }

    fn post(&self) -> Post<'_> {
        Post {
            settings: &self.settings,
            queue: &self.queue,
            member: self.index,
        }
    }

    /// What has become of one place, and with it of the token.
    fn set(&self, place: usize, now: Place) {
        let mut places = self.places.lock().expect(UNPOISONED);
        places[place] = now;
        let hosts = places.len();
        let serving = places.iter().filter(|place| **place == Place::Serving);
        let serving = serving.count();
        let coming = places.contains(&Place::Coming);
        let failed = places.iter().find_map(|place| match place {
            Place::Failed(state) => Some(state.clone()),
            Place::Idle | Place::Coming | Place::Serving => None,
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
        // Told under the lock, so that two changes are told in their order.
        self.queue.set_standing(self.index, serving > 0, coming);
        if let Some(state) = state {
            self.change(state);
        }
        drop(places);
        if serving == 0 && !coming {
            let state = self.state.borrow().to_string();
            let queue = &self.queue;
            queue.refuse(|job| !queue.has_hope(job), &Fault::Unavailable(state));
        }
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
                State::Degraded(reason) => warn!(token, %reason, "the token is degraded"),
                State::Away(_) | State::PinRefused(_) | State::Misconfigured(_) => {
                    error!(token, reason = %state, "the token is unavailable");
                }
            }
            *before = state;
            true
        });
    }
}

const UNPOISONED: &str = "no holder of a lock on a token's state panics";
