//! How a host starts: within its budget, with one login at a time, and with its share of the token's
//! sessions.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use crate::{
    proto::host::{FaultClass, LoginFailure, LoginVerdict},
    token::{
        host::{
            churn::Admission,
            host_state::HostState,
            login::{self, UnauthenticatedHost},
            member::{Member, UNREAPED},
            pin::NoLogin,
            process::{HostExit, StuckCall},
            session::HostSession,
            session_share::Lowered,
        },
        locks::UNPOISONED,
        settings::Login,
        status::State,
    },
};

/// A host that takes longer than this to be replaced, or than twice what the last start took, is
/// not waited for: callers are told at once that the token is away.
const GRACE: Duration = Duration::from_secs(1);

/// Why a host did not come to serve.
pub(super) enum StartFailure {
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
    /// Starts a host. Callers wait for it for a while; then they are told that nobody serves.
    pub(super) async fn start_in(
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
                    event = "hosts_loop", token = %self.settings.name,
                    "hosts of the token end one after the other: max_starts_per_minute is used up, and it goes on with the hosts that it has; the lines before say why each ended"
                );
            }
            sleep(wait).await;
        }
        let process = Arc::clone(&self.processes)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        if self.end.get() > 0 {
            let exit = HostExit::new(FaultClass::Retry, "its token is to end");
            return Err(StartFailure::Exit(exit));
        }
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
        if host.ready().sessions < sessions && self.is_successor.load(Ordering::SeqCst) {
            self.session_refused(generation);
            let reason = "hosts with the settings from before have the token's sessions";
            return Err(StartFailure::Exit(host.give_up(reason).await));
        }
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
        // What the hosts with the settings from before have comes free with them: no limit of the token's.
        if self.is_successor.load(Ordering::SeqCst) {
            self.wants_sessions.set(1);
            return;
        }
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
                event = "sessions_shared", token = %self.settings.name, sessions, hosts = self.settings.hosts, each,
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
            warn!(event = "login_not_made", token = %settings.name, host = generation, reason, "no login is made");
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
}
