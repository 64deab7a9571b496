//! One token of a group: keeps its hosts alive, lets them log in one after the other, replaces those
//! that end, and says how the token is.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::MutexGuard,
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use crate::{
    proto::host::FaultClass,
    token::{
        host::{
            host_state::HostState,
            jittered,
            member::{ENDS, Member},
            process::HostExit,
            session::HostSession,
            start::StartFailure,
        },
        locks::UNPOISONED,
        status::State,
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
/// How long a host that is starting when hsmac ends may take to come to an end of it.
const LAST_START: Duration = Duration::from_secs(1);
/// How often the files of a refused PIN are looked at.
const PIN_LOOK: Duration = Duration::from_millis(500);
/// How often it is looked at in a pause whether somebody wants the token to be asked now.
const CALL_LOOK: Duration = Duration::from_millis(250);
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

impl Member {
    /// Keeps all hosts until the end is set and the last of them has ended.
    pub(in crate::token) async fn keep_hosts(self: Arc<Self>) {
        let mut hosts = JoinSet::new();
        for place in 0..self.settings.hosts as usize {
            hosts.spawn(Arc::clone(&self).keep_host(place));
        }
        tokio::select! {
            () = async { while hosts.join_next().await.is_some() {} } => {}
            () = self.remind() => {}
        }
        self.queue.set_member_status(self.index, false, false);
    }

    /// One host after the other in one place.
    async fn keep_host(self: Arc<Self>, place: usize) {
        let end = &self.end;
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
                    () = self.until_cut_off() => return,
                }
            };
            let refusal = match started {
                Ok(host) => {
                    (pause, failed) = (FIRST_PAUSE, FailedStarts::default());
                    let exit = self.serve(place, host, canary.take()).await;
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

    /// Waits until hsmac ends and a start has had its moment.
    async fn until_cut_off(&self) {
        self.end.until(ENDS).await;
        sleep(LAST_START).await;
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
                info!(event = "token_asked", token = %self.settings.name, "the token is asked now");
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
    ) -> HostExit {
        let (token, generation) = (&self.settings.name, host.generation());
        info!(
            event = "host_serves",
            token,
            host = generation,
            "a host serves"
        );
        let sessions = host.ready().sessions;
        let handle = self.queue.register(generation, self.index, sessions);
        self.set(place, HostState::Serving);
        drop(canary);
        let exit = host.serve(&self.context(), &handle, &self.end).await;
        self.share.closed(generation);
        self.metrics.ended(exit.counted_as());
        if exit.class == FaultClass::Unspecified {
            info!(
                event = "host_ended",
                token,
                host = generation,
                "a host has ended"
            );
        } else {
            warn!(event = "host_replaced", token, host = generation, reason = %exit.reason, "a host is replaced");
        }
        // In this order, so that at no moment jobs seem to have no host to wait for.
        self.set(place, HostState::Coming);
        self.queue.unregister(&handle);
        exit
    }
}
