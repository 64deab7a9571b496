//! Jobs on their way to a host: one bounded queue for each group of tokens.
//!
//! Hides: which host takes a job and in which order. Promises: a job has one answer, by its deadline;
//! what changes a token is given to one host only. Does not: know how a host is started or what it
//! does with a job.

mod drain_rate;
mod fair_queue;
pub(super) mod job;
mod mutation;
pub(super) mod poison;
pub(super) mod queue;
mod stream_room;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    host_ipc::monotonic,
    model::Flow,
    telemetry::{self, StageTimer, traces},
    token::{
        dispatch::{
            job::{Job, JobNote, JobOutput, Work},
            queue::Queue,
        },
        key::TokenKey,
        metrics::Function,
        settings::Settings,
        status::{Fault, State},
    },
};

/// The queue of a group of tokens, and what its callers must know of each token.
pub(super) struct Dispatcher {
    pub(super) group: String,
    pub(super) queue: Arc<Queue>,
    pub(super) tokens: Arc<TokenTable>,
}

/// The tokens of a group at this time; none once the configuration no longer has the group.
pub(super) type TokenTable = ArcSwap<Vec<TokenStatus>>;

/// One token of a group: its settings, and how it is now.
pub(super) struct TokenStatus {
    /// Its number in the group; with other settings it has another one.
    pub(super) member: usize,
    pub(super) settings: Settings,
    pub(super) state: watch::Sender<State>,
}

impl Dispatcher {
    /// Has some host do work with a key.
    ///
    /// # Errors
    /// [`Fault::Closed`], and those of [`Dispatcher::ask`].
    pub(super) async fn ask_about(
        &self,
        key: &TokenKey,
        work: Work,
        flow: Flow,
        until: Instant,
    ) -> Result<JobOutput, Fault> {
        // Before the key is in use: who waits for a place keeps no key from being closed.
        let _place = self.queue.stream_room.enter(flow, until).await?;
        // Whether the key can serve is looked at when a host takes the job, not here: callers may
        // have looked already, and what matters is what is known by then.
        let _using = key.begin_use().ok_or(Fault::Closed)?;
        self.ask(work, flow, until).await
    }

    /// Has some host do work, in its turn among the flows.
    ///
    /// # Errors
    /// Each [`Fault`] but `Unknown`; [`Fault::Closed`] if the configuration no longer has the group.
    pub(super) async fn ask(
        &self,
        work: Work,
        flow: Flow,
        until: Instant,
    ) -> Result<JobOutput, Fault> {
        if self.is_closed() {
            return Err(Fault::Closed);
        }
        self.available()?;
        let (job, answer) = Job::new(work, until);
        let note = Arc::<JobNote>::default();
        let job = job.in_flow(flow).noting(&note);
        let function = job.work.function();
        if job.is_pinned() && !self.queue.has_candidate(&job) {
            return Err(Fault::Unavailable(
                "no token of the group that can be asked has the key".into(),
            ));
        }
        let stage = StageTimer::begin();
        self.queue.push(job).map_err(|fault| self.named(fault))?;
        let answer = timeout_at(until, answer).await;
        note_stages(&stage, &note, function);
        match answer {
            Ok(Ok(answer)) => {
                self.note_host(&note.host, answer.is_ok());
                answer.map_err(|fault| self.named(fault))
            }
            // The queue drops jobs that nobody waits for any more, sometimes sooner than the timer
            // here wakes up.
            Ok(Err(_)) if Instant::now() < until => Err(Fault::Internal(
                "a job was dropped without an answer".into(),
            )),
            Ok(Err(_)) | Err(_) if !self.may_serve() => Err(self.unavailable()),
            Ok(Err(_)) | Err(_) => Err(Fault::Deadline("in the queue or in the token".into())),
        }
    }

    /// For log and traces: the host that answered this call, if somebody reads it.
    fn note_host(&self, note: &AtomicU32, is_good: bool) {
        let host = note.load(Ordering::Relaxed);
        let is_read = !is_good || traces::is_on() || tracing::enabled!(tracing::Level::DEBUG);
        if host == 0 || !is_read {
            return;
        }
        // Of a host that has ended since, the group is known.
        let tokens = self.tokens.load();
        let member = self.queue.member_of(host);
        let token = match &tokens[..] {
            [one] => Some(one),
            several => several.iter().find(|token| Some(token.member) == member),
        };
        let name = token.map_or(&self.group, |token| &token.settings.name);
        telemetry::note_host(name, host);
    }

    /// Whether a host serves or may come to.
    ///
    /// # Errors
    /// [`Fault::Unavailable`], with the reason.
    pub(super) fn available(&self) -> Result<(), Fault> {
        if self.may_serve() {
            Ok(())
        } else {
            Err(self.unavailable())
        }
    }

    /// No job is taken any more: the configuration no longer has the group.
    pub(super) fn close(&self) {
        self.tokens.store(Arc::default());
        // What one host must do once is not begun elsewhere; all others look where they belong now.
        let changes = |job: &Job| job.work.changes();
        self.queue.refuse(changes, &self.unavailable());
        self.queue.refuse(|_| true, &Fault::Closed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.tokens.load().is_empty()
    }

    fn may_serve(&self) -> bool {
        self.tokens.load().iter().any(|token| {
            let state = token.state.borrow();
            state.is_serving() || *state == State::Starting
        })
    }

    /// A fault of the queue, which knows no name.
    fn named(&self, fault: Fault) -> Fault {
        if let Fault::Saturated(text) = fault {
            Fault::Saturated(format!("token {}: {text}", self.group))
        } else {
            fault
        }
    }

    fn unavailable(&self) -> Fault {
        let tokens = self.tokens.load();
        if tokens.is_empty() {
            return Fault::Unavailable("the configuration has no such token any more".into());
        }
        let reason = |token: &TokenStatus| match tokens.len() {
            1 => token.state.borrow().to_string(),
            _ => format!("{}: {}", token.settings.name, *token.state.borrow()),
        };
        let reasons: Vec<String> = tokens.iter().map(reason).collect();
        Fault::Unavailable(reasons.join("; "))
    }
}

/// For traces: how long a call waited for a host, and how long the last one had it.
fn note_stages(stage: &StageTimer, note: &JobNote, function: Option<Function>) {
    let Some(began) = stage.began() else {
        return;
    };
    let now = std::time::Instant::now();
    let sent = note.sent.load(Ordering::Relaxed);
    let with_host = Duration::from_nanos(monotonic().saturating_sub(sent));
    let sent = (sent > 0).then(|| now.checked_sub(with_host)).flatten();
    telemetry::note_stage("queue", began, sent.unwrap_or(now));
    if let (Some(sent), Some(function)) = (sent, function) {
        telemetry::note_stage(function.of_pkcs11(), sent, now);
    }
}
