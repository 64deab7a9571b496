//! Taking, doing and answering jobs.

use std::{
    io::Write as _,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, TryLockError,
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::{
    Front,
    faults::{Class, Trouble},
    keys::{Key, Keys, Opened},
    module::Module,
    objects::{Failure, Material, Objects, Proof, Templates},
    raw::MAX_MAC,
};
use crate::{
    proto::host::{
        Answer, Destroyed, Ending, Fault, FaultClass, FromHost, Job, KeyForgotten, KeyOpened,
        ProbeGood, ToHost, answer::Outcome, from_host, job::Work, to_host,
    },
    wire::{Board, monotonic, put},
};

/// How long an answer may wait for others to leave with it, in nanoseconds. A call that takes longer
/// is no reason to wait.
const HOLD: u64 = 200_000;

/// Answers that wait for each other take at most this much, in bytes.
const BATCH: usize = 16 * 1024;

/// What the threads of a host share.
pub(super) struct Host {
    pub(super) module: Module,
    pub(super) keys: Keys,
    pub(super) templates: Templates,
    pub(super) generation: u32,
    pub(super) call_timeout: Duration,
    pub(super) slow_timeout: Duration,
    pub(super) board: Board,
    pub(super) intake: Mutex<Front>,
    pub(super) outlet: Mutex<UnixStream>,
    pub(super) tasks: Sender<Task>,
    /// Set when this generation is over: nobody takes another job.
    pub(super) over: Arc<OnceLock<Instant>>,
}

/// What only the management session does.
pub(super) enum Task {
    /// A job whose key is not open, or that asks about one.
    Job(Job),
    /// Drop a key and say so.
    Forget(u64),
    /// This generation is over.
    End,
}

/// A job from the socket, and whether more of them have arrived.
struct Taken {
    job: Job,
    more: bool,
}

impl Host {
    /// A session's thread: takes jobs from the socket, one at a time, and answers in batches.
    pub(super) fn serve(&self, mut session: Session, index: u32) {
        let mut answers = BytesMut::new();
        let mut held_since = 0;
        while let Some(Taken { job, more }) = self.take(&mut answers) {
            let first = answers.is_empty();
            let began = monotonic();
            if began >= job.until {
                answer(&job, Outcome::Fault(expired()), 0, &mut answers);
            } else {
                self.board
                    .begin(index, job.sequence, began, self.call_timeout);
                self.work(&mut session, job, began, &mut answers);
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

    /// The management session's loop, until the end.
    pub(super) fn manage(&self, keeper: &Session, tasks: &Receiver<Task>) {
        let mut answers = BytesMut::new();
        while let Ok(task) = tasks.recv() {
            match task {
                Task::Job(job) => {
                    self.manage_job(keeper, job, &mut answers);
                }
                Task::Forget(reference) => {
                    self.keys.forget(keeper, reference);
                    let forgotten = KeyForgotten { reference };
                    push(from_host::Frame::KeyForgotten(forgotten), &mut answers);
                }
                Task::End => break,
            }
            self.send(&mut answers);
        }
        // Wakes the thread that waits in a read; the others find the intake at its end.
        if let Ok(outlet) = self.outlet.lock() {
            let _ = outlet.shutdown(Shutdown::Read);
        }
    }

    /// The next job. The thread that holds the intake reads the socket for all; what it has to say
    /// is said before it waits.
    fn take(&self, answers: &mut BytesMut) -> Option<Taken> {
        let mut front = match self.intake.try_lock() {
            Ok(front) => front,
            Err(TryLockError::WouldBlock) => {
                self.send(answers);
                self.intake.lock().ok()?
            }
            Err(TryLockError::Poisoned(_)) => return None,
        };
        loop {
            if self.over.get().is_some() {
                return None;
            }
            match front.inbox.take::<ToHost>() {
                Ok(Some(ToHost { frame: Some(frame) })) => {
                    if let Some(job) = self.accept(frame) {
                        return Some(Taken {
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
                    self.end(&Trouble::new(Class::Bug, "the front sent an empty frame"));
                }
                Err(fault) => self.end(&Trouble::new(Class::Bug, fault.to_string())),
            }
        }
    }

    fn receive(&self, front: &mut MutexGuard<'_, Front>) -> Option<()> {
        // End-of-file: the watching thread ends the process, or the end is planned.
        front.receive().ok()
    }

    fn accept(&self, frame: to_host::Frame) -> Option<Job> {
        match frame {
            to_host::Frame::Job(job) if job.generation == self.generation => return Some(job),
            to_host::Frame::Job(_) => {
                self.end(&Trouble::new(Class::Bug, "a job names another generation"));
            }
            to_host::Frame::DefineKey(definition) => {
                if let Err(trouble) = self.keys.define(definition) {
                    self.end(&trouble);
                }
            }
            to_host::Frame::ForgetKey(key) => self.hand(Task::Forget(key.reference)),
            to_host::Frame::End(_) => {
                let _ = self.over.set(Instant::now());
                self.hand(Task::End);
            }
            to_host::Frame::Settings(_) | to_host::Frame::LogIn(_) => {
                self.end(&Trouble::new(Class::Bug, "the front began a second time"));
            }
        }
        None
    }

    /// Does a job on a session and appends the answer, or hands it to the management session.
    fn work(&self, session: &mut Session, job: Job, began: u64, answers: &mut BytesMut) {
        let outcome = match &job.work {
            Some(Work::Mac(mac)) => {
                let open = self
                    .keys
                    .key(mac.key)
                    .and_then(|key| Some((key.opened()?, key)));
                let Some((opened, key)) = open else {
                    return self.hand(Task::Job(job));
                };
                let mut tag = [0; MAX_MAC];
                let made = self.on_session(session, |session| {
                    self.keys
                        .mac(&self.module, session, &key, &opened, &mac.message, &mut tag)
                });
                match made {
                    Ok(length) => Ok(Outcome::Mac(Bytes::copy_from_slice(&tag[..length]))),
                    // The management session closes the handle, finds the object again, or not.
                    Err(trouble) if trouble.class == Class::Handle => {
                        return self.hand(Task::Job(job));
                    }
                    Err(trouble) => Err(trouble),
                }
            }
            Some(Work::Random(random)) => {
                let wanted = random.number_of_bytes;
                self.on_session(session, |session| Ok(session.generate_random_vec(wanted)?))
                    .map(|bytes| Outcome::Random(bytes.into()))
            }
            Some(Work::Probe(probe)) => {
                let Some(key) = self.keys.key(probe.key) else {
                    return self.look(session, &job, None, answers);
                };
                let Some(opened) = key.opened() else {
                    return self.hand(Task::Job(job));
                };
                return self.look(session, &job, Some((&key, &opened)), answers);
            }
            Some(Work::DescribeKey(_) | Work::Generate(_) | Work::Import(_) | Work::Destroy(_)) => {
                return self.hand(Task::Job(job));
            }
            None => Err(Trouble::new(Class::Bug, "a job without work")),
        };
        let took = u32::try_from((monotonic() - began) / 1000).unwrap_or(u32::MAX);
        self.conclude(&job, outcome, took.max(1), answers);
    }

    /// A sign of life of one session, and of a key on it.
    fn look(
        &self,
        session: &mut Session,
        job: &Job,
        key: Option<(&Key, &Opened)>,
        answers: &mut BytesMut,
    ) {
        let looked = self.on_session(session, |session| {
            self.module.is_well(session)?;
            match key {
                Some((key, opened)) => self.keys.prove(&self.module, session, key, opened),
                None => Ok(()),
            }
        });
        let outcome = looked.map(|()| Outcome::ProbeGood(ProbeGood {}));
        self.conclude(job, outcome, 0, answers);
    }

    /// A job that needs a search or an attribute, or whose handle went stale.
    fn manage_job(&self, keeper: &Session, job: Job, answers: &mut BytesMut) {
        let now = monotonic();
        if now >= job.until {
            return answer(&job, Outcome::Fault(expired()), 0, answers);
        }
        self.board.begin(0, job.sequence, now, self.slow_timeout);
        let reference = match &job.work {
            Some(Work::Mac(mac)) => mac.key,
            Some(Work::DescribeKey(describe)) => describe.key,
            Some(Work::Probe(probe)) => probe.key,
            Some(Work::Generate(generate)) => generate.key,
            Some(Work::Import(import)) => import.key,
            Some(Work::Destroy(destroy)) => destroy.key,
            Some(Work::Random(_)) | None => return,
        };
        let Some(key) = self.keys.key(reference) else {
            // Forgotten while the job was on its way: this host cannot do it, another one may.
            let trouble = Trouble::new(Class::Session, "the host does not know the key");
            return answer(&job, Outcome::Fault(trouble.fault()), 0, answers);
        };
        if let Some(changed) = self.change(keeper, &key, &job) {
            return self.conclude_change(&job, changed, answers);
        }
        let mut outcome = self.with_key(keeper, &key, &job, answers);
        if let Err(trouble) = &outcome
            && matches!(trouble.class, Class::Handle | Class::Session)
        {
            // Once more from the beginning: the handle was stale, or the session not well.
            self.keys.close(keeper, &key);
            outcome = self.with_key(keeper, &key, &job, answers);
        }
        match outcome {
            Err(trouble) if trouble.class == Class::Handle => {
                let fault = Fault {
                    class: FaultClass::KeyMissing.into(),
                    ..trouble.fault()
                };
                answer(&job, Outcome::Fault(fault), 0, answers);
            }
            // The keeper cannot be replaced: closing it would log out.
            Err(trouble) if trouble.class == Class::Session => {
                self.conclude(&job, Err(trouble.judged(Class::Generation)), 0, answers);
            }
            settled => self.conclude(&job, settled, 0, answers),
        }
    }

    /// Makes or destroys an object, if that is what the job asks for.
    fn change(&self, keeper: &Session, key: &Key, job: &Job) -> Option<Result<Outcome, Failure>> {
        let objects = Objects {
            module: &self.module,
            keys: &self.keys,
            templates: &self.templates,
        };
        match &job.work {
            Some(Work::Generate(_)) => Some(
                objects
                    .create(key, &Material::Generated)
                    .map(Outcome::KeyFacts),
            ),
            Some(Work::Import(import)) => {
                let given = Material::Given(Zeroizing::new(import.material.to_vec()));
                Some(objects.create(key, &given).map(Outcome::KeyFacts))
            }
            Some(Work::Destroy(destroy)) => {
                let proof = if destroy.orphan {
                    Proof::Name
                } else {
                    Proof::CheckValue
                };
                let was_gone = objects.destroy(keeper, key, proof);
                Some(was_gone.map(|was_gone| Outcome::Destroyed(Destroyed { was_gone })))
            }
            Some(Work::Mac(_) | Work::DescribeKey(_) | Work::Random(_) | Work::Probe(_)) | None => {
                None
            }
        }
    }

    /// Answers a job that changes the token; unlike others it always has an answer, since nobody
    /// else may do it.
    fn conclude_change(
        &self,
        job: &Job,
        changed: Result<Outcome, Failure>,
        answers: &mut BytesMut,
    ) {
        let failure = match changed {
            Ok(outcome) => return answer(job, outcome, 0, answers),
            Err(failure) => failure,
        };
        let fault = failure.trouble.fault();
        let outcome = if failure.unsettled {
            Outcome::Unsettled(fault)
        } else {
            Outcome::Fault(fault)
        };
        answer(job, outcome, 0, answers);
        if matches!(
            failure.trouble.class,
            Class::Generation | Class::Away | Class::Bug
        ) {
            self.send(answers);
            self.end(&failure.trouble);
        }
    }

    fn with_key(
        &self,
        keeper: &Session,
        key: &Key,
        job: &Job,
        answers: &mut BytesMut,
    ) -> Result<Outcome, Trouble> {
        let opened = match key.opened() {
            Some(opened) => opened,
            None => {
                let found = self.keys.find(&self.module, keeper, key)?;
                // Only the search may be slow.
                self.board
                    .begin(0, job.sequence, monotonic(), self.call_timeout);
                let opened = self.keys.open(&self.module, keeper, key, found)?;
                let said = KeyOpened {
                    reference: key.reference,
                    check_value: key.check_value(),
                };
                push(from_host::Frame::KeyOpened(said), answers);
                // Before any session can use the key: the front judges its check value first.
                self.send(answers);
                key.publish(&opened);
                opened
            }
        };
        let message = match &job.work {
            Some(Work::Mac(mac)) => &mac.message,
            Some(Work::Probe(_)) => return Ok(Outcome::ProbeGood(ProbeGood {})),
            Some(
                Work::DescribeKey(_)
                | Work::Random(_)
                | Work::Generate(_)
                | Work::Import(_)
                | Work::Destroy(_),
            )
            | None => {
                return Ok(Outcome::KeyFacts(key.opened_facts(keeper, &opened)));
            }
        };
        let mut tag = [0; MAX_MAC];
        let length = self
            .keys
            .mac(&self.module, keeper, key, &opened, message, &mut tag)?;
        Ok(Outcome::Mac(Bytes::copy_from_slice(&tag[..length])))
    }

    /// Runs a call, and if the session is at fault runs it once more on a fresh one.
    fn on_session<T>(
        &self,
        session: &mut Session,
        mut call: impl FnMut(&Session) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let trouble = match call(session) {
            Ok(done) => return Ok(done),
            Err(trouble) => trouble,
        };
        if trouble.class == Class::Session {
            *session = self
                .module
                .open_session()
                .map_err(|trouble| trouble.judged(Class::Generation))?;
            return call(session).map_err(|again| {
                if again.class == Class::Session {
                    again.judged(Class::Generation)
                } else {
                    again
                }
            });
        }
        #[cfg(feature = "drill-unbound-handles")]
        if trouble.class == Class::Generation
            && let Ok(fresh) = self.module.log_in_again()
        {
            *session = fresh;
            return call(session);
        }
        // After CKR_BUFFER_TOO_SMALL the operation stays active (PKCS#11 v3.1 §5.2), and most
        // modules can only be rid of it by closing the session.
        if trouble.class == Class::Caller
            && let Ok(fresh) = self.module.open_session()
        {
            *session = fresh;
        }
        Err(trouble)
    }

    /// Answers a job; what only a fresh generation cures ends this one.
    fn conclude(
        &self,
        job: &Job,
        outcome: Result<Outcome, Trouble>,
        took_us: u32,
        answers: &mut BytesMut,
    ) {
        let trouble = match outcome {
            Ok(outcome) => return answer(job, outcome, took_us, answers),
            Err(trouble) => trouble,
        };
        match trouble.class {
            Class::Generation | Class::SessionLimit | Class::Away | Class::Pin | Class::Bug => {
                // Without an answer: the front gives the job to another host.
                self.send(answers);
                self.end(&trouble);
            }
            Class::Caller
            | Class::Key
            | Class::OtherKey
            | Class::Handle
            | Class::Session
            | Class::Template
            | Class::Unsupported
            | Class::Configuration => {
                answer(job, Outcome::Fault(trouble.fault()), took_us, answers);
            }
        }
    }

    /// Says that this generation is over, once.
    fn end(&self, trouble: &Trouble) {
        if self.over.set(Instant::now()).is_ok() {
            let mut out = BytesMut::new();
            let ending = Ending {
                fault: Some(trouble.fault()),
            };
            push(from_host::Frame::Ending(ending), &mut out);
            self.send(&mut out);
            self.hand(Task::End);
        }
    }

    fn hand(&self, task: Task) {
        // The receiver ends with the process only.
        let _ = self.tasks.send(task);
    }

    fn send(&self, answers: &mut BytesMut) {
        if answers.is_empty() {
            return;
        }
        if let Ok(mut outlet) = self.outlet.lock() {
            // A front that is gone is the watching thread's business.
            let _ = outlet.write_all(answers);
        }
        answers.clear();
    }
}

fn answer(job: &Job, outcome: Outcome, took_us: u32, answers: &mut BytesMut) {
    let answer = Answer {
        generation: job.generation,
        slot: job.slot,
        sequence: job.sequence,
        took_us,
        outcome: Some(outcome),
    };
    push(from_host::Frame::Answer(answer), answers);
}

fn push(frame: from_host::Frame, out: &mut BytesMut) {
    put(&FromHost { frame: Some(frame) }, out);
}

fn expired() -> Fault {
    Fault {
        class: FaultClass::Expired.into(),
        reason: "the deadline passed before the token was asked".into(),
        ..Fault::default()
    }
}
