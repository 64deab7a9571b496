//! The sessions that make MACs: each takes jobs from the socket, does them, and answers.

use std::{
    sync::{MutexGuard, TryLockError, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    UNPOISONED,
    error::{Class, HostError},
    front::FrontConnection,
    host_key::{HostKey, OpenKey},
    raw::MAX_MAC,
    runtime::{HostRuntime, answer, expired, push},
    tasks::Task,
    work_session::{CallSubject, WorkSession},
};
use crate::{
    host_ipc::monotonic,
    model::is_reserved,
    proto::host::{
        Job, KeyForgotten, ProbeGood, ToHost, answer::Outcome, from_host, job::Work, to_host,
    },
};
use bytes::{Bytes, BytesMut};

/// How long an answer may wait for others to leave with it, in nanoseconds. A call that takes longer
/// is no reason to wait.
const HOLD: u64 = 200_000;

/// Answers that wait for each other take at most this much, in bytes.
const BATCH: usize = 16 * 1024;

/// A job from the socket, and whether more of them have arrived.
struct TakenJob {
    job: Job,
    more: bool,
}

impl HostRuntime {
    /// A session's thread: takes jobs from the socket, one at a time, and answers in batches.
    pub(super) fn serve(&self, index: u32) {
        let session = &self.sessions[index as usize - 1];
        let mut answers = BytesMut::new();
        let mut held_since = 0;
        while let Some(TakenJob { job, more }) = self.take(&mut answers) {
            let first = answers.is_empty();
            let began = monotonic();
            if began >= job.until {
                answer(&job, Outcome::Fault(expired()), 0, &mut answers);
            } else {
                self.in_flight
                    .begin(index, job.sequence, began, self.call_timeout);
                let mut session = session.lock().expect(UNPOISONED);
                let mut session = WorkSession::of(&mut session);
                self.work(&mut session, index, job, began, &mut answers);
            }
            let now = monotonic();
            if first {
                held_since = now;
            }
            if !more || (now - held_since).max(now - began) > HOLD || answers.len() > BATCH {
                self.send(&mut answers);
            }
        }
        self.send(&mut answers);
    }

    /// The next job. The thread that holds the reader reads the socket for all; what it has to say
    /// is said before it waits.
    fn take(&self, answers: &mut BytesMut) -> Option<TakenJob> {
        let mut front = match self.reader.try_lock() {
            Ok(front) => front,
            Err(TryLockError::WouldBlock) => {
                self.send(answers);
                self.reader.lock().ok()?
            }
            Err(TryLockError::Poisoned(_)) => return None,
        };
        loop {
            if self.ended.get().is_some() {
                return None;
            }
            match front.inbox.take::<ToHost>() {
                Ok(Some(ToHost { frame: Some(frame) })) => {
                    if let Some(job) = self.accept(frame) {
                        return Some(TakenJob {
                            job,
                            more: front.inbox.has_frame(),
                        });
                    }
                }
                Ok(None) => {
                    self.send(answers);
                    self.receive(&mut front)?;
                }
                Ok(Some(ToHost { frame: None })) => {
                    self.end(&HostError::new(Class::Bug, "the front sent an empty frame"));
                }
                Err(fault) => self.end(&HostError::new(Class::Bug, fault.to_string())),
            }
        }
    }

    fn receive(&self, front: &mut MutexGuard<'_, FrontConnection>) -> Option<()> {
        // End-of-file: the watching thread ends the process, or the end is planned.
        front.receive().ok()
    }

    fn accept(&self, frame: to_host::Frame) -> Option<Job> {
        match frame {
            to_host::Frame::Job(job) if job.generation == self.generation => return Some(job),
            to_host::Frame::Job(_) => {
                self.end(&HostError::new(
                    Class::Bug,
                    "a job names another generation",
                ));
            }
            to_host::Frame::DefineKey(definition) => {
                if let Err(error) = self.keys.define(definition) {
                    self.end(&error);
                }
            }
            to_host::Frame::ForgetKey(key) => self.forget(key.reference),
            to_host::Frame::End(_) => {
                let _ = self.ended.set(Instant::now());
                self.tasks.push(Task::End);
            }
            to_host::Frame::Settings(_)
            | to_host::Frame::ReadPins(_)
            | to_host::Frame::LogIn(_) => {
                self.end(&HostError::new(Class::Bug, "the front began a second time"));
            }
        }
        None
    }

    /// Does a job on a session and appends the answer, or hands it to the management session.
    fn work(
        &self,
        session: &mut WorkSession<'_>,
        index: u32,
        job: Job,
        began: u64,
        answers: &mut BytesMut,
    ) {
        let sequence = job.sequence;
        let retime = || {
            self.in_flight
                .begin(index, sequence, monotonic(), self.call_timeout);
        };
        let outcome = match &job.work {
            // Security: what is told with the reserved prefix is told by this host, and not because somebody
            // asks for a MAC.
            Some(Work::Mac(mac)) if is_reserved(&mac.message) => Err(HostError::new(
                Class::Caller,
                "the message is a reserved one",
            )),
            Some(Work::Mac(mac)) => {
                let open = self
                    .keys
                    .key(mac.key)
                    .and_then(|key| Some((key.open_key()?, key)));
                let Some((open_key, key)) = open else {
                    return self.hand_over(index, job);
                };
                let mut tag = [0; MAX_MAC];
                let subject = CallSubject::Message(&key, &open_key);
                let made = self.on_session(session, subject, retime, |session| {
                    self.keys.mac(
                        &self.module,
                        session,
                        &key,
                        &open_key,
                        &mac.message,
                        &mut tag,
                    )
                });
                match made {
                    Ok(length) => Ok(Outcome::Mac(Bytes::copy_from_slice(&tag[..length]))),
                    // The management session closes the handle, finds the object again, or not.
                    Err(error) if error.class == Class::Handle => {
                        return self.hand_over(index, job);
                    }
                    Err(error) => Err(error),
                }
            }
            Some(Work::Random(random)) => {
                let wanted = random.number_of_bytes;
                self.on_session(session, CallSubject::Token, retime, |session| {
                    Ok(session.generate_random_vec(wanted)?)
                })
                .map(|bytes| Outcome::Random(bytes.into()))
            }
            Some(Work::Probe(probe)) if probe.every_session => return self.hand_over(index, job),
            Some(Work::Probe(probe)) => {
                let Some(key) = self.keys.key(probe.key) else {
                    return self.look(session, index, job, None, answers);
                };
                let Some(open_key) = key.open_key() else {
                    return self.hand_over(index, job);
                };
                return self.look(session, index, job, Some((&key, &open_key)), answers);
            }
            Some(
                Work::DescribeKey(_)
                | Work::Seal(_)
                | Work::CheckSeal(_)
                | Work::Generate(_)
                | Work::Import(_)
                | Work::Destroy(_),
            ) => {
                return self.hand_over(index, job);
            }
            None => Err(HostError::new(Class::Bug, "a job without work")),
        };
        let now = monotonic();
        if outcome.is_ok() {
            self.served.store(now, Ordering::Relaxed);
        }
        let took = u32::try_from((now - began) / 1000).unwrap_or(u32::MAX);
        self.answer_or_end(&job, outcome, took.max(1), answers);
    }

    /// Leaves a job to the management session, whose call counts as stuck later than this one's would.
    fn hand_over(&self, index: u32, job: Job) {
        self.in_flight.begin(index, 0, 0, Duration::ZERO);
        self.tasks.push(Task::Job(job));
    }

    /// A sign of life of one session, and of a key on it.
    fn look(
        &self,
        session: &mut WorkSession<'_>,
        index: u32,
        job: Job,
        key: Option<(&HostKey, &OpenKey)>,
        answers: &mut BytesMut,
    ) {
        match self.is_alive(session, index, job.sequence, key) {
            // The handle means another key now: the management session finds the object again, before a
            // caller gets a MAC of it.
            Err(error) if error.class == Class::Handle => self.hand_over(index, job),
            looked => {
                let outcome = looked.map(|()| Outcome::ProbeGood(ProbeGood {}));
                self.answer_or_end(&job, outcome, 0, answers);
            }
        }
    }

    /// Whether a session still does what it is for; it is replaced if it does not. `row` is that of the
    /// thread that asks.
    ///
    /// # Errors
    /// What no fresh session cures; `Handle`: it means another key now.
    pub(super) fn is_alive(
        &self,
        session: &mut WorkSession<'_>,
        row: u32,
        sequence: u64,
        key: Option<(&HostKey, &OpenKey)>,
    ) -> Result<(), HostError> {
        let retime = || {
            self.in_flight
                .begin(row, sequence, monotonic(), self.call_timeout);
        };
        let subject = key.map_or(CallSubject::Token, |(key, _)| CallSubject::Key(key));
        self.on_session(session, subject, retime, |session| {
            self.module.is_well(session)?;
            match key {
                Some((key, open_key)) => {
                    self.keys
                        .verify_check_value(&self.module, session, key, open_key)
                }
                None => Ok(()),
            }
        })
    }

    /// Answers a job; what only a fresh generation cures ends this one.
    pub(super) fn answer_or_end(
        &self,
        job: &Job,
        outcome: Result<Outcome, HostError>,
        took_us: u32,
        answers: &mut BytesMut,
    ) {
        let error = match outcome {
            Ok(outcome) => return answer(job, outcome, took_us, answers),
            Err(error) => error,
        };
        match error.class {
            Class::Generation | Class::SessionLimit | Class::Away | Class::Pin | Class::Bug => {
                // Without an answer: the front gives the job to another host.
                self.send(answers);
                self.end_over(&error, job);
            }
            Class::Caller
            | Class::Key
            | Class::OtherKey
            | Class::Handle
            | Class::Session
            | Class::MessageFails
            | Class::KeyFails
            | Class::Busy
            | Class::Template
            | Class::Unsupported
            | Class::Configuration => {
                answer(job, Outcome::Fault(error.fault()), took_us, answers);
            }
        }
    }

    /// Takes effect where it is read and is acknowledged at once: a search or a creation that runs on
    /// the management session holds up nobody who disables a key.
    fn forget(&self, reference: u64) {
        let mut out = BytesMut::new();
        if let Some(key) = self.keys.forget(reference) {
            for job in self.tasks.take_jobs_with(reference) {
                let error = HostError::new(Class::Session, "the key was forgotten meanwhile");
                answer(&job, Outcome::Fault(error.fault()), 0, &mut out);
            }
            self.tasks.push(Task::CleanUp(key));
        }
        let forgotten = KeyForgotten { reference };
        push(from_host::Frame::KeyForgotten(forgotten), &mut out);
        self.send(&mut out);
    }
}
