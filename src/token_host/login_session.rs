//! The login session: it logged in, and it does what moves handles or may be slow: searches, creations,
//! destructions, and keys to forget.

use std::{
    net::Shutdown,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cryptoki::session::Session;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{
    error::{Class, HostError},
    host_key::{HostKey, OpenKey},
    objects::{ChangeFailure, Material, Objects, Proof},
    raw::MAX_MAC,
    runtime::{HostRuntime, answer, expired, push},
    tasks::Task,
    witness::{self, Witnessed},
    work_session::{CallSubject, WorkSession},
};
use crate::{
    host_ipc::monotonic,
    model::audit_seal_message,
    proto::host::{
        Destroyed, Fault, FaultClass, Job, KeyOpened, ProbeGood, SealChecked, Sealed,
        answer::Outcome, from_host, job::Work,
    },
};

impl HostRuntime {
    /// The management session's loop, until the end.
    pub(super) fn manage(&self, login_session: &Session) {
        let mut answers = BytesMut::new();
        loop {
            match self.tasks.next() {
                Task::Job(job) => {
                    self.manage_job(login_session, job, &mut answers);
                }
                Task::CleanUp(key) => self.keys.close(login_session, &key),
                Task::End => break,
            }
            self.send(&mut answers);
        }
        // Wakes the thread that waits in a read; the others find the reader at its end.
        if let Ok(writer) = self.writer.lock() {
            let _ = writer.shutdown(Shutdown::Read);
        }
    }

    /// A job that needs a search or an attribute, or whose handle went stale.
    fn manage_job(&self, login_session: &Session, job: Job, answers: &mut BytesMut) {
        let now = monotonic();
        if now >= job.until {
            return answer(&job, Outcome::Fault(expired()), 0, answers);
        }
        self.in_flight
            .begin(0, job.sequence, now, self.slow_timeout);
        let reference = match &job.work {
            Some(Work::Probe(probe)) if probe.key == 0 => {
                let looked = self.look_at_sessions(&job, None);
                let outcome = looked.map(|()| Outcome::ProbeGood(ProbeGood {}));
                return self.answer_or_end(&job, outcome, 0, answers);
            }
            Some(Work::Mac(mac)) => mac.key,
            Some(Work::DescribeKey(describe)) => describe.key,
            Some(Work::Probe(probe)) => probe.key,
            Some(Work::Seal(seal)) => seal.key,
            Some(Work::CheckSeal(check)) => check.key,
            Some(Work::Generate(generate)) => generate.key,
            Some(Work::Import(import)) => import.key,
            Some(Work::Destroy(destroy)) => destroy.key,
            Some(Work::Random(_)) | None => return,
        };
        let Some(key) = self.keys.key(reference) else {
            // Forgotten while the job was on its way: this host cannot do it, another one may.
            let error = HostError::new(Class::Session, "the host does not know the key");
            return answer(&job, Outcome::Fault(error.fault()), 0, answers);
        };
        if let Some(changed) = self.change(login_session, &key, &job) {
            self.changing.store(false, Ordering::SeqCst);
            return self.answer_change(&job, changed, answers);
        }
        // What searches is the login session; what the key is proved and used on can be replaced.
        let mut own = None;
        let mut work = WorkSession::for_a_moment(&mut own, login_session);
        let mut outcome = self.with_key(login_session, &mut work, &key, &job, answers);
        if let Err(error) = &outcome
            && matches!(error.class, Class::Handle | Class::Session)
        {
            // Once more from the beginning: the handle was stale, or the session not well.
            self.keys.close(login_session, &key);
            outcome = self.with_key(login_session, &mut work, &key, &job, answers);
        }
        match outcome {
            Err(error) if error.class == Class::Handle => {
                let fault = Fault {
                    class: FaultClass::KeyMissing.into(),
                    ..error.fault()
                };
                answer(&job, Outcome::Fault(fault), 0, answers);
            }
            // The login session cannot be replaced: closing it would log out.
            Err(error) if error.class == Class::Session => {
                let over = error.judged(Class::Generation).unanswered();
                self.answer_or_end(&job, Err(over), 0, answers);
            }
            settled => self.answer_or_end(&job, settled, 0, answers),
        }
    }

    /// Makes or destroys an object, if that is what the job asks for.
    fn change(
        &self,
        login_session: &Session,
        key: &HostKey,
        job: &Job,
    ) -> Option<Result<Outcome, ChangeFailure>> {
        let objects = Objects {
            module: &self.module,
            keys: &self.keys,
            templates: &self.templates,
        };
        if let Some(Work::Generate(_) | Work::Import(_) | Work::Destroy(_)) = &job.work {
            self.changing.store(true, Ordering::SeqCst);
        }
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
                let was_gone = objects.destroy(login_session, key, proof);
                Some(was_gone.map(|was_gone| Outcome::Destroyed(Destroyed { was_gone })))
            }
            Some(
                Work::Mac(_)
                | Work::DescribeKey(_)
                | Work::Random(_)
                | Work::Probe(_)
                | Work::Seal(_)
                | Work::CheckSeal(_),
            )
            | None => None,
        }
    }

    /// Answers a job that changes the token; unlike others it always has an answer, since nobody
    /// else may do it.
    fn answer_change(
        &self,
        job: &Job,
        changed: Result<Outcome, ChangeFailure>,
        answers: &mut BytesMut,
    ) {
        let failure = match changed {
            Ok(outcome) => return answer(job, outcome, 0, answers),
            Err(failure) => failure,
        };
        let fault = failure.error.fault();
        let outcome = if failure.unsettled {
            Outcome::Unsettled(fault)
        } else {
            Outcome::Fault(fault)
        };
        answer(job, outcome, 0, answers);
        if matches!(
            failure.error.class,
            Class::Generation | Class::Away | Class::Bug
        ) {
            self.send(answers);
            self.end(&failure.error);
        }
    }

    /// A sign of life of every session that has no job: one that a firewall or the token dropped is
    /// replaced before a caller meets it. Who has a job is alive, or counts as stuck.
    fn look_at_sessions(
        &self,
        job: &Job,
        key: Option<(&HostKey, &OpenKey)>,
    ) -> Result<(), HostError> {
        for session in &self.sessions {
            if let Ok(mut session) = session.try_lock() {
                self.in_flight
                    .begin(0, job.sequence, monotonic(), self.call_timeout);
                self.is_alive(&mut WorkSession::of(&mut session), 0, job.sequence, key)?;
            }
        }
        Ok(())
    }

    fn with_key(
        &self,
        login_session: &Session,
        work: &mut WorkSession<'_>,
        key: &HostKey,
        job: &Job,
        answers: &mut BytesMut,
    ) -> Result<Outcome, HostError> {
        let open_key = self.opened(login_session, work, key, job, answers)?;
        let mut mac_of = |message: &[u8]| {
            let mut tag = [0; MAX_MAC];
            let subject = CallSubject::Message(key, &open_key);
            let length = self.on_session(work, subject, self.retime(job), |session| {
                self.keys
                    .mac(&self.module, session, key, &open_key, message, &mut tag)
            })?;
            self.served.store(monotonic(), Ordering::Relaxed);
            Ok::<_, HostError>(Bytes::copy_from_slice(&tag[..length]))
        };
        match &job.work {
            Some(Work::Mac(mac)) => mac_of(&mac.message).map(Outcome::Mac),
            Some(Work::Seal(seal)) => {
                // What the disk takes is no call of the module: a disk that hangs is no reason to end a host.
                self.in_flight.begin(0, 0, 0, Duration::ZERO);
                let witnessed = self.witness.extend(seal);
                self.retime(job)();
                let sealed = match witnessed? {
                    Witnessed::Sealed(checkpoint) => Sealed {
                        size: checkpoint.size,
                        seal: mac_of(&audit_seal_message(&checkpoint))?,
                        root: Bytes::copy_from_slice(&checkpoint.root),
                    },
                    Witnessed::Remembered { size, root } => Sealed {
                        size,
                        root: Bytes::copy_from_slice(&root),
                        seal: Bytes::new(),
                    },
                };
                Ok(Outcome::Sealed(sealed))
            }
            Some(Work::CheckSeal(check)) => {
                let right = mac_of(&audit_seal_message(&witness::checked(check)?))?;
                // Security: the right one is not told, and not by the time that this takes either.
                let is_genuine = right.ct_eq(&check.seal).into();
                Ok(Outcome::SealChecked(SealChecked { is_genuine }))
            }
            Some(Work::Probe(probe)) => {
                let opened = Some((key, &*open_key));
                if probe.every_session {
                    self.look_at_sessions(job, opened)?;
                } else {
                    self.is_alive(work, 0, job.sequence, opened)?;
                }
                Ok(Outcome::ProbeGood(ProbeGood {}))
            }
            Some(
                Work::DescribeKey(_)
                | Work::Random(_)
                | Work::Generate(_)
                | Work::Import(_)
                | Work::Destroy(_),
            )
            | None => Ok(Outcome::KeyFacts(
                key.open_key_facts(login_session, &open_key),
            )),
        }
    }

    /// The key's handles; finds and proves its object first, if it is not open.
    fn opened(
        &self,
        login_session: &Session,
        work: &mut WorkSession<'_>,
        key: &HostKey,
        job: &Job,
        answers: &mut BytesMut,
    ) -> Result<Arc<OpenKey>, HostError> {
        if let Some(open_key) = key.open_key() {
            return Ok(open_key);
        }
        let found = self.keys.find(&self.module, login_session, key)?;
        // Only the search may be slow.
        let retime = self.retime(job);
        retime();
        let open_key = self.on_session(work, CallSubject::Key(key), retime, |session| {
            self.keys.open(&self.module, session, key, found)
        })?;
        let said = KeyOpened {
            reference: key.reference,
            check_value: key.check_value(),
        };
        push(from_host::Frame::KeyOpened(said), answers);
        // Before any session can use the key: the front judges its check value first.
        self.send(answers);
        key.publish(&open_key);
        Ok(open_key)
    }

    /// Tells the front that another call begins.
    fn retime(&self, job: &Job) -> impl Fn() {
        move || {
            self.in_flight
                .begin(0, job.sequence, monotonic(), self.call_timeout);
        }
    }
}
