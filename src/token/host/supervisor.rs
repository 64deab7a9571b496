//! One token of a group: keeps its hosts alive, lets them log in one after the other, replaces those
//! that end, and says how the token is.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Mutex, MutexGuard, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    proto::host::{FaultClass, LoginFailure, LoginVerdict},
    token::{
        dispatch::queue::Queue,
        host::{
            churn::{Admission, StartBudget},
            host_state::HostState,
            jittered,
            login::{self, UnauthenticatedHost},
            pin::{LoginGovernor, NoLogin},
            process::{HostExit, StuckCall},
            session::{HostContext, HostSession},
            session_share::{Lowered, SessionShare},
        },
        level::Level,
        locks::UNPOISONED,
        metrics::{TokenMetrics, TokenSnapshot},
        settings::{HostEnvironment, Login, Settings},
        status::{Facts, State},
    },
};

/// The first pause after a start that came to nothing; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A token that is away is asked this often at least; `hsmac token kick` has it asked at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A busy store can fail a first look, and shows itself only to a fresh generation (SoftHSM2 while a
/// sibling writes): so many starts must fail in a row, for so long, before the token counts as away.
/// The time is for a machine whose starts fail fast and whose siblings are slow.
const LOOKS: u32 = 3;
const LOOKING: Duration = Duration::from_millis(500);
/// A host that takes longer than this to be replaced, or than twice what the last start took, is
/// not waited for: callers are told at once that the token is away.
const GRACE: Duration = Duration::from_secs(1);
/// How long a host that is starting when hsmac ends may take to come to an end of it.
const LAST_START: Duration = Duration::from_secs(1);
/// How often the files of a refused PIN are looked at.
const PIN_LOOK: Duration = Duration::from_millis(500);
/// How often it is looked at in a pause whether somebody wants the token to be asked now.
const CALL_LOOK: Duration = Duration::from_millis(250);
/// Processes of ended hosts that the kernel has not let go of (a call stuck in a driver): with so
/// many no further host is started.
const UNREAPED: usize = 2;

/// One token and the state of each of its hosts.
pub(in crate::token) struct Member {
    pub(in crate::token) settings: Settings,
    pub(in crate::token) state: watch::Sender<State>,
    /// Since when it is so.
    pub(super) since: StdMutex<SystemTime>,
    metrics: TokenMetrics,
    pub(super) facts: StdMutex<Option<Facts>>,
    /// Its place in the group.
    pub(super) index: usize,
    pub(super) queue: Arc<Queue>,
    environment: HostEnvironment,
    pin: LoginGovernor,
    /// Held by the one host that may log in.
    login: Mutex<()>,
    /// Held by the one place that tries to start a host while none serves.
    canary: Mutex<()>,
    /// How many hosts serve.
    pub(super) serving: Level,
    pub(super) host_states: StdMutex<Vec<HostState>>,
    /// One permit for each process, held until it is reaped.
    processes: Arc<Semaphore>,
    /// How many hosts may start.
    starts: StartBudget,
    share: SessionShare,
    /// Permits of `processes` that are taken away, since the token has no room for hosts that end.
    withheld: StdMutex<usize>,
    /// How long the last start took, in microseconds.
    start_took_us: AtomicU64,
}

/// The starts that came to nothing since a host last served.
#[derive(Default)]
struct FailedStarts {
    looks: u32,
    since: Option<Instant>,
}

impl FailedStarts {
    /// Counts one more; whether it says too little to call the token away.
    fn may_look_again(&mut self) -> bool {
        self.looks += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        self.looks < LOOKS || since.elapsed() < LOOKING
    }
}

/// Why a host did not come to serve.
enum StartFailure {
    /// The PIN was refused, now or before.
    Pin(String),
    /// The start failed.
    Exit(HostExit),
}

impl StartFailure {
    fn reason(&self) -> &str {
        match self {
            Self::Pin(reason) => reason,
            Self::Exit(exit) => &exit.reason,
        }
    }
}

impl From<NoLogin> for StartFailure {
    fn from(no_login: NoLogin) -> Self {
        match no_login {
            NoLogin::Refused(reason) => Self::Pin(reason),
            NoLogin::Unwritable(reason) => Self::Exit(HostExit::new(FaultClass::TokenAway, reason)),
            NoLogin::NoPin(reason) => Self::Exit(HostExit::new(FaultClass::Configuration, reason)),
        }
    }
}

impl Member {
    pub(in crate::token) fn new(
        settings: Settings,
        environment: &HostEnvironment,
        queue: Arc<Queue>,
        index: usize,
    ) -> Self {
        let pin_files = settings.pin_files().cloned().collect();
        let pin = LoginGovernor::new(&environment.state_dir, &settings.name, pin_files);
        let hosts = settings.hosts as usize;
        Self {
            state: watch::Sender::new(State::Starting),
            since: StdMutex::new(SystemTime::now()),
            metrics: TokenMetrics::default(),
            facts: StdMutex::new(None),
            index,
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
        }
    }

    /// Keeps all hosts until `end` is set and the last of them has ended.
    pub(in crate::token) async fn keep_hosts(self: Arc<Self>, end: Arc<Level>) {
        let mut hosts = JoinSet::new();
        for place in 0..self.settings.hosts as usize {
            hosts.spawn(Arc::clone(&self).keep_host(place, Arc::clone(&end)));
        }
        while hosts.join_next().await.is_some() {}
        self.queue.set_member_status(self.index, false, false);
    }

    /// One host after the other in one place.
    async fn keep_host(self: Arc<Self>, place: usize, end: Arc<Level>) {
        let mut pause = FIRST_PAUSE;
        let mut failed = FailedStarts::default();
        let mut stuck_call = None;
        let mut canary = None;
        while end.get() == 0 {
            if canary.is_none() {
                canary = tokio::select! {
                    biased;
                    canary = self.become_canary(place) => canary,
                    () = end.until_positive() => return,
                };
            }
            let started = {
                let mut start = pin!(self.start_in(place, stuck_call.as_ref()));
                tokio::select! {
                    biased;
                    started = &mut start => started,
                    // A module that is killed in C_Login may leave a token that nobody can read
                    // (SoftHSM2 writes its file then): it comes to the end of it first.
                    () = end.until_positive() => match timeout(LAST_START, &mut start).await {
                        Ok(started) => started,
                        Err(_) => return,
                    },
                }
            };
            let refusal = match started {
                Ok(host) => {
                    (pause, failed) = (FIRST_PAUSE, FailedStarts::default());
                    let exit = self.serve(place, host, canary.take(), &end).await;
                    stuck_call.clone_from(&exit.stuck_call);
                    if exit.class == FaultClass::Pin {
                        StartFailure::Pin(self.pin.refused_in_service(&exit.reason).await)
                    } else {
                        if !exit.proven && end.get() == 0 {
                            sleep(FIRST_PAUSE).await;
                        }
                        continue;
                    }
                }
                Err(refusal) => refusal,
            };
            let wait = match refusal {
                StartFailure::Pin(reason) => {
                    self.set(place, HostState::Failed(State::PinRefused(reason)));
                    PIN_LOOK
                }
                StartFailure::Exit(exit)
                    if exit.class != FaultClass::Configuration && failed.may_look_again() =>
                {
                    jittered(FIRST_PAUSE / 2)
                }
                StartFailure::Exit(exit) => {
                    let state = if exit.class == FaultClass::Configuration {
                        State::Misconfigured(exit.reason)
                    } else {
                        State::Away(exit.reason)
                    };
                    self.set(place, HostState::Failed(state));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    jittered(pause)
                }
            };
            tokio::select! {
                biased;
                called = self.pause(wait) => if called { pause = FIRST_PAUSE },
                () = end.until_positive() => return,
            }
        }
    }

    /// Waits until a host of the token serves, or this place is the one that finds out whether one
    /// can: a token that is away, or a PIN that may be wrong, is tried by one host.
    async fn become_canary(&self, place: usize) -> Option<MutexGuard<'_, ()>> {
        // What the first look gets is kept: were it given back, another place could take it before this
        // one waits for it, and this one would count as a host that is on its way.
        let canary = match self.canary.try_lock() {
            Ok(canary) => Some(canary),
            Err(_) if self.serving.get() > 0 => None,
            Err(_) => {
                self.set(place, HostState::Idle);
                tokio::select! {
                    biased;
                    () = self.serving.until_positive() => None,
                    canary = self.canary.lock() => Some(canary),
                }
            }
        };
        let is_idle = self.host_states.lock().expect(UNPOISONED)[place] == HostState::Idle;
        if is_idle {
            self.set(place, HostState::Coming);
        }
        canary.filter(|_| self.serving.get() == 0)
    }

    /// Waits so long, or until somebody wants the token to be asked now; true if so.
    async fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            sleep(left.min(CALL_LOOK)).await;
            if self.pin.is_called() {
                info!(token = %self.settings.name, "the token is asked now");
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
        }
    }

    async fn serve(
        &self,
        place: usize,
        host: HostSession,
        canary: Option<MutexGuard<'_, ()>>,
        end: &Level,
    ) -> HostExit {
        let (token, generation) = (&self.settings.name, host.generation());
        info!(token, host = generation, "a host serves");
        let sessions = host.ready().sessions;
        let handle = self.queue.register(generation, self.index, sessions);
        self.set(place, HostState::Serving);
        drop(canary);
        let exit = host.serve(&self.context(), &handle, end).await;
        self.share.closed(generation);
        self.metrics.ended(exit.counted_as());
        if exit.class == FaultClass::Unspecified {
            info!(token, host = generation, "a host has ended");
        } else {
            warn!(token, host = generation, reason = %exit.reason, "a host is replaced");
        }
        // In this order, so that at no moment jobs seem to have no host to wait for.
        self.set(place, HostState::Coming);
        self.queue.unregister(&handle);
        exit
    }

    /// Starts a host. Callers wait for it for a while; then they are told that nobody serves.
    async fn start_in(
        &self,
        place: usize,
        stuck_call: Option<&StuckCall>,
    ) -> Result<HostSession, StartFailure> {
        let last = Duration::from_micros(self.start_took_us.load(Ordering::Relaxed));
        let grace = (last * 2).clamp(GRACE, self.settings.start_timeout.max(GRACE));
        let mut start = pin!(self.start(stuck_call));
        let first_start = *self.state.borrow() == State::Starting;
        tokio::select! {
            biased;
            started = &mut start => return started,
            () = sleep(grace), if !first_start => {}
        }
        let waited = self.host_states.lock().expect(UNPOISONED)[place] == HostState::Coming;
        if waited {
            self.set(
                place,
                HostState::Failed(State::Away(format!(
                    "no host has come up within {grace:?}; the module does not answer"
                ))),
            );
        }
        start.await
    }

    async fn start(&self, stuck_call: Option<&StuckCall>) -> Result<HostSession, StartFailure> {
        if let Some(reason) = self.pin.refusal() {
            return Err(StartFailure::Pin(reason));
        }
        while let Admission::Later(wait, first) = self.starts.take(Instant::now()) {
            if first {
                error!(
                    token = %self.settings.name,
                    "hosts of the token end one after the other: max_starts_per_minute is used up, and it goes on with the hosts that it has; the lines before say why each ended"
                );
            }
            sleep(wait).await;
        }
        let process = Arc::clone(&self.processes)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let began = Instant::now();
        let generation = self.queue.next_generation();
        let waiting = login::start(&self.settings, &self.environment, generation, process)
            .await
            .map_err(StartFailure::Exit)?;
        self.mind_session_limit(waiting.found.most_sessions);
        let host = async {
            let host = self.log_in(waiting).await?;
            match stuck_call {
                None => Ok(host),
                Some(stuck_call) => {
                    let proved = host.prove(&self.context(), stuck_call).await;
                    proved.map_err(StartFailure::Exit)
                }
            }
        };
        let host = host.await.inspect_err(|_| self.share.closed(generation))?;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.start_took_us.store(took, Ordering::Relaxed);
        Ok(host)
    }

    /// Lets a host log in, if the governor does.
    async fn log_in(&self, mut host: UnauthenticatedHost) -> Result<HostSession, StartFailure> {
        // Security: one login at a time, and none after a refusal that came meanwhile.
        let one_at_a_time = self.login.lock().await;
        let generation = host.generation();
        let sessions = self.share.each();
        self.share.opened(generation, 1);
        let logged_in = if self.settings.login() == Login::None {
            let untried = host.log_in(&self.settings, 0, sessions).await;
            untried.map_err(|failed| StartFailure::Exit(failed.exit))
        } else {
            self.log_in_with_pin(&mut host, sessions).await
        };
        drop(one_at_a_time);
        if let Err(failure) = logged_in {
            if matches!(&failure, StartFailure::Exit(exit) if exit.no_session) {
                self.session_refused(generation);
            }
            host.end_gracefully().await;
            return Err(failure);
        }
        let warnings = host.found.warnings.clone();
        let host = host.ready(&self.settings).await;
        let host = host.map_err(|exit| {
            if exit.no_session {
                self.session_refused(generation);
            }
            StartFailure::Exit(exit)
        })?;
        self.share.opened(generation, host.ready().sessions + 1);
        if host.ready().sessions < sessions {
            self.session_refused(generation);
        }
        self.learn(warnings, host.info(), host.ready());
        Ok(host)
    }

    /// The token says how many sessions it has; 0: it does not.
    fn mind_session_limit(&self, sessions: u64) {
        if sessions == 0 {
            return;
        }
        let hosts = self.settings.hosts as usize + UNREAPED;
        if self.share.is_tight(sessions, hosts) {
            self.withhold_processes();
        }
        self.tell_share(self.share.there_are(sessions));
    }

    /// The token had no further session for this host.
    fn session_refused(&self, host: u32) {
        // The sessions of a host that has not ended yet are not known here. From now on there is no such
        // host beside one that starts, and what is refused then is a limit.
        if self.withhold_processes() {
            self.tell_share(self.share.refused(host));
        }
    }

    /// Lets no host start before its predecessor has been reaped; true if that held before.
    fn withhold_processes(&self) -> bool {
        let mut withheld = self.withheld.lock().expect(UNPOISONED);
        let before = *withheld;
        *withheld += self.processes.forget_permits(UNREAPED - before);
        before == UNREAPED
    }

    fn tell_share(&self, lowered: Option<Lowered>) {
        if let Some(Lowered { sessions, each }) = lowered {
            warn!(
                token = %self.settings.name, sessions, hosts = self.settings.hosts, each,
                "the token has fewer sessions than its hosts would take: they share them"
            );
            self.queue.call_hosts(self.index);
        }
    }

    async fn log_in_with_pin(
        &self,
        host: &mut UnauthenticatedHost,
        sessions: u32,
    ) -> Result<(), StartFailure> {
        let settings = &self.settings;
        let generation = host.generation();
        let not_made = |no_login| {
            let failure = StartFailure::from(no_login);
            let reason = failure.reason();
            warn!(token = %settings.name, host = generation, reason, "no login is made");
            failure
        };
        let turn = self.pin.turn(&host.found, settings.start_timeout).await;
        let mut turn = turn.map_err(not_made)?;
        let pins = host.read_pins(settings, turn.salts()).await;
        let pins = pins.map_err(StartFailure::Exit)?;
        let pin = turn.choose(&pins).map_err(not_made)?;
        turn.begin().await.map_err(not_made)?;
        match host.log_in(settings, pin, sessions).await {
            Ok(()) => {
                turn.succeeded().await;
                Ok(())
            }
            Err(failed) => {
                let not_tried = LoginFailure {
                    verdict: LoginVerdict::NotJudged.into(),
                    pin_flags: None,
                };
                let failure = match &failed.failure {
                    None if !failed.tried => Some(&not_tried),
                    known => known.as_ref(),
                };
                let refused = turn.failed(&failed.exit.reason, failure).await;
                Err(match refused {
                    Some(reason) => StartFailure::Pin(reason),
                    None => StartFailure::Exit(failed.exit),
                })
            }
        }
    }

    fn context(&self) -> HostContext<'_> {
        HostContext {
            settings: &self.settings,
            queue: &self.queue,
            member: self.index,
            share: &self.share,
            metrics: &self.metrics,
        }
    }
}
