//! What the threads of a host share, and how each of them answers.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use cryptoki::session::Session;

use super::{
    error::HostError,
    front::FrontConnection,
    keys::Keys,
    module::Module,
    tasks::{Task, TaskQueue},
    templates::AcceptedTemplates,
    witness::Witness,
};
use crate::{
    host_ipc::{InFlightTable, write_frame},
    proto::host::{
        Answer, Cured, Ending, Fault, FaultClass, FromHost, Job, answer::Outcome, from_host,
    },
};

/// What the threads of a host share.
pub(super) struct HostRuntime {
    pub(super) module: Module,
    pub(super) keys: Keys,
    pub(super) templates: AcceptedTemplates,
    /// Those that make MACs; none while one is replaced. Each is held by its thread while that has a job,
    /// and free to be looked after in between.
    pub(super) sessions: Vec<Mutex<Option<Session>>>,
    pub(super) generation: u32,
    pub(super) call_timeout: Duration,
    pub(super) slow_timeout: Duration,
    pub(super) in_flight: InFlightTable,
    pub(super) reader: Mutex<FrontConnection>,
    pub(super) writer: Mutex<UnixStream>,
    pub(super) tasks: TaskQueue,
    /// What was sealed of the audit log.
    pub(super) witness: Witness,
    /// When a job last had a good answer ([`monotonic`]).
    pub(super) served: AtomicU64,
    /// Set when this generation is over: nobody takes another job.
    pub(super) ended: Arc<OnceLock<Instant>>,
    /// The module is at a creation or destruction.
    pub(super) changing: Arc<AtomicBool>,
}

impl HostRuntime {
    /// Says that this generation is over, once.
    pub(super) fn end(&self, error: &HostError) {
        self.say_end(error, 0);
    }

    /// Says that this generation is over, once; and that it was over this job, if nothing was answered
    /// after it.
    pub(super) fn end_over(&self, error: &HostError, job: &Job) {
        let sequence = if error.is_unanswered() {
            job.sequence
        } else {
            0
        };
        self.say_end(error, sequence);
    }

    fn say_end(&self, error: &HostError, sequence: u64) {
        if self.ended.set(Instant::now()).is_ok() {
            let mut out = BytesMut::new();
            let ending = Ending {
                fault: Some(error.fault()),
                sequence,
            };
            push(from_host::Frame::Ending(ending), &mut out);
            self.send(&mut out);
            self.tasks.push(Task::End);
        }
    }

    /// Tells of a fault that a fresh session has cured, so that it is counted.
    pub(super) fn cured(&self, error: &HostError) {
        let mut out = BytesMut::new();
        let cured = Cured {
            fault: Some(error.fault()),
        };
        push(from_host::Frame::Cured(cured), &mut out);
        self.send(&mut out);
    }

    /// Writes answers to the front.
    pub(super) fn send(&self, answers: &mut BytesMut) {
        if answers.is_empty() {
            return;
        }
        if let Ok(mut writer) = self.writer.lock() {
            // A front that is gone is the watching thread's business.
            let _ = writer.write_all(answers);
        }
        answers.clear();
    }

    /// When a job last had a good answer ([`monotonic`]).
    pub(super) fn last_success(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

/// Appends a job's answer; `took_us` as the protocol has it.
pub(super) fn answer(job: &Job, outcome: Outcome, took_us: u32, answers: &mut BytesMut) {
    let answer = Answer {
        generation: job.generation,
        slot: job.slot,
        sequence: job.sequence,
        took_us,
        outcome: Some(outcome),
    };
    push(from_host::Frame::Answer(answer), answers);
}

/// Appends a frame.
pub(super) fn push(frame: from_host::Frame, out: &mut BytesMut) {
    write_frame(&FromHost { frame: Some(frame) }, out);
}

/// The fault of a job whose deadline has passed.
pub(super) fn expired() -> Fault {
    Fault {
        class: FaultClass::Expired.into(),
        reason: "the deadline passed before the token was asked".into(),
        ..Fault::default()
    }
}
