//! How a model of a host works: its sessions, the session that searches, and what befalls a job there.
//! What it answers is in `model_answers.rs`.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use tokio::time::Instant;

use super::{
    model_host::{Exit, Handle, HostKey, ModelHost, SEGMENTATION_FAULT, fault, receive, until},
    model_token::check_value,
    plan::{JobFault, Plan},
};
use crate::{
    host_ipc::{monotonic, write_frame},
    proto::host::{
        Answer, FaultClass, FromHost, Job, KeyDefinition, KeyForgotten, ToHost, answer::Outcome,
        from_host, job::Work, to_host,
    },
};

/// A message that begins so kills the host.
pub(super) const POISON: &[u8] = b"poison";

/// What a host has to do.
#[derive(Default)]
pub(super) struct Jobs {
    /// For the sessions.
    waiting: VecDeque<Job>,
    /// For the session that searches.
    slow: VecDeque<Job>,
    /// What each session does; number 0 is the one that searches.
    sessions: Vec<Option<Running>>,
    /// The front wants no more of it.
    planned_end: bool,
    /// The thread that reads the socket hangs.
    deaf: bool,
}

/// A job on a session.
pub(super) struct Running {
    pub(super) job: Job,
    pub(super) fault: Option<JobFault>,
    began: Instant,
    /// `None`: never.
    done: Option<Instant>,
    /// What it was told of the key when it began: it works with that to its end.
    pub(super) definition: KeyDefinition,
    /// The handle that it works with.
    pub(super) handle: Option<Handle>,
}

impl ModelHost {
    /// Works until its end.
    pub(super) async fn serve(&mut self) -> Result<Infallible, Exit> {
        let sessions = self.settings.sessions as usize + 1;
        self.jobs.sessions.resize_with(sessions, || None);
        loop {
            while !self.jobs.deaf
                && let Some(frame) = self
                    .inbox
                    .take::<ToHost>()
                    .map_err(|_| self.confused("a frame"))?
            {
                let frame = frame.frame.ok_or_else(|| self.confused("a frame"))?;
                self.hear(frame)?;
            }
            while self.begin_one()? {}
            self.flush().await?;
            let running = self.jobs.sessions.iter().flatten();
            if self.jobs.planned_end && running.clone().next().is_none() {
                return Err(Exit(0));
            }
            let next = running.filter_map(|running| running.done).min();
            tokio::select! {
                biased;
                received = receive(&self.pipe, &mut self.inbox), if !self.jobs.deaf => received?,
                () = until(next) => self.finish_due().await?,
            }
        }
    }

    fn hear(&mut self, frame: to_host::Frame) -> Result<(), Exit> {
        match frame {
            to_host::Frame::DefineKey(definition) => {
                let reference = definition.reference;
                self.keys.entry(reference).or_insert(HostKey {
                    definition,
                    handle: None,
                });
            }
            to_host::Frame::ForgetKey(forget) => self.forget(forget.reference),
            to_host::Frame::Job(job) if job.generation == self.generation => self.take(job),
            to_host::Frame::End(_) => {
                self.jobs.planned_end = true;
                self.jobs.waiting.clear();
                self.jobs.slow.clear();
            }
            to_host::Frame::Job(_)
            | to_host::Frame::Settings(_)
            | to_host::Frame::ReadPins(_)
            | to_host::Frame::LogIn(_) => return Err(self.confused("a job")),
        }
        Ok(())
    }

    fn take(&mut self, job: Job) {
        let changes = self.changed_by(&job);
        self.ledger.job_read(self.process, job.sequence, changes);
        if self.jobs.planned_end {
            return;
        }
        match &job.work {
            Some(Work::Random(_) | Work::Probe(_) | Work::Mac(_)) => {
                self.jobs.waiting.push_back(job);
            }
            _ => self.jobs.slow.push_back(job),
        }
    }

    fn forget(&mut self, reference: u64) {
        if !self.token.is_calm() && self.world.happens(self.token.plan.deaf) {
            self.jobs.deaf = self.world.happens(500);
            let deaf = self.jobs.deaf;
            self.note(format_args!("does not forget a key; deaf: {deaf}"));
            return;
        }
        self.keys.remove(&reference);
        self.ledger.set_handle(self.process, reference, false);
        let (forgotten, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.jobs.slow)
            .into_iter()
            .partition(|job| key_of(job) == reference);
        self.jobs.slow = kept.into();
        for job in forgotten {
            self.refuse(&job, FaultClass::Retry, "the key was forgotten meanwhile");
        }
        self.push(from_host::Frame::KeyForgotten(KeyForgotten { reference }));
    }

    /// Begins one job on a session that has nothing to do; false if there is none.
    fn begin_one(&mut self) -> Result<bool, Exit> {
        let idle = |session: &Option<Running>| session.is_none();
        if idle(&self.jobs.sessions[0])
            && let Some(job) = self.jobs.slow.pop_front()
        {
            self.begin(0, job);
            return Ok(true);
        }
        let session = self.jobs.sessions.iter().skip(1).position(idle);
        let Some(session) = session.filter(|_| !self.jobs.waiting.is_empty()) else {
            return Ok(false);
        };
        let Some(job) = self.jobs.waiting.pop_front() else {
            return Ok(false);
        };
        // What needs a search goes to the other session.
        let handle = self.proved_handle(key_of(&job));
        match &job.work {
            Some(Work::Random(_)) => self.begin(session + 1, job),
            Some(Work::Probe(probe)) if probe.key == 0 || !self.keys.contains_key(&probe.key) => {
                self.begin(session + 1, job);
            }
            _ if handle.is_some() => self.begin(session + 1, job),
            _ => self.jobs.slow.push_back(job),
        }
        Ok(true)
    }

    /// The handle of a key, if it is open; proved anew where it may have another meaning.
    fn proved_handle(&mut self, reference: u64) -> Option<Handle> {
        let key = self.keys.get_mut(&reference)?;
        let handle = key.handle.as_mut()?;
        let expected = &key.definition.check_value;
        if !handle.proved && !expected.is_empty() && check_value(handle.secret) != *expected {
            key.handle = None;
            self.ledger.set_handle(self.process, reference, false);
            return None;
        }
        handle.proved = true;
        Some(*handle)
    }

    fn begin(&mut self, session: usize, job: Job) {
        let now = monotonic();
        if now >= job.until {
            return self.refuse(&job, FaultClass::Expired, "the deadline has passed");
        }
        let reference = key_of(&job);
        if session == 0 && !self.keys.contains_key(&reference) {
            return self.refuse(&job, FaultClass::Retry, "the host does not know the key");
        }
        let mut fault = match &job.work {
            Some(Work::Mac(mac)) if mac.message.starts_with(POISON) => Some(JobFault::CrashBefore),
            _ if self.token.is_calm() => None,
            _ => Plan::fault(&self.world, &self.token.plan.job_faults),
        };
        let limit = match session {
            0 => self.settings.slow_timeout_ms,
            _ => self.settings.call_timeout_ms,
        };
        match fault {
            Some(JobFault::Lost) => return self.note(format_args!("loses a job")),
            Some(JobFault::Renumbered) => {
                self.renumber();
                fault = None;
            }
            _ => {}
        }
        let handle = self.proved_handle(reference);
        if session > 0 && reference != 0 && handle.is_none() {
            return self.jobs.slow.push_back(job);
        }
        let number = u32::try_from(session).expect("few sessions");
        self.in_flight
            .begin(number, job.sequence, now, Duration::from_millis(limit));
        if let Some(Work::Mac(mac)) = &job.work {
            self.ledger.mac_begins(self.process, mac.key, &mac.message);
        }
        if fault == Some(JobFault::OtherObject)
            && self.world.happens(100)
            && let Some(key) = self.keys.get(&reference)
        {
            self.ledger.close_now(&key.definition.label);
        }
        let began = Instant::now();
        let takes = match (fault, session) {
            (Some(JobFault::Slow), _) => self.world.span(100, limit * 9 / 10),
            (_, 0) => self.world.span(3, 30),
            _ => self.world.span(1, 4),
        };
        let done = (fault != Some(JobFault::Hang)).then(|| began + takes);
        if let Some(fault) = fault {
            self.note(format_args!("{fault:?} with {}", name_of(&job)));
        }
        let key = self.keys.get(&reference);
        let definition = key.map(|key| key.definition.clone());
        self.jobs.sessions[session] = Some(Running {
            job,
            definition: definition.unwrap_or_default(),
            fault,
            began,
            done,
            handle,
        });
    }

    /// Every handle gets the meaning of the next.
    fn renumber(&mut self) {
        let mut handles: Vec<_> = self
            .keys
            .values_mut()
            .filter_map(|key| key.handle.as_mut())
            .collect();
        let secrets: Vec<_> = handles.iter().map(|handle| handle.secret).collect();
        for (at, handle) in handles.iter_mut().enumerate() {
            handle.secret = secrets[(at + 1) % secrets.len()];
            handle.proved = false;
        }
    }

    async fn finish_due(&mut self) -> Result<(), Exit> {
        let now = Instant::now();
        for session in 0..self.jobs.sessions.len() {
            let is_due = |running: &mut Running| running.done.is_some_and(|done| done <= now);
            if let Some(running) = self.jobs.sessions[session].take_if(is_due) {
                self.finish(session, running).await?;
            }
        }
        Ok(())
    }

    async fn finish(&mut self, session: usize, running: Running) -> Result<(), Exit> {
        let job = &running.job;
        if let Some(Work::Mac(mac)) = &job.work {
            self.ledger.mac_ends(self.process, &mac.message);
        }
        if !self.token.is_present() {
            return Err(self.end(FaultClass::TokenAway, "CKR_DEVICE_REMOVED").await);
        }
        match running.fault {
            Some(JobFault::CrashBefore) => {
                if self.world.happens(500) {
                    self.change(job);
                }
                if let Some(Work::Mac(mac)) = &job.work {
                    self.ledger.died_of(&mac.message);
                }
                return Err(Exit(SEGMENTATION_FAULT));
            }
            Some(JobFault::LoginLost) => {
                return Err(self.end(FaultClass::Retry, "CKR_USER_NOT_LOGGED_IN").await);
            }
            Some(JobFault::PinExpired) => {
                return Err(self.end(FaultClass::Pin, "CKR_PIN_EXPIRED").await);
            }
            _ => {}
        }
        let outcome = match self.class_of(&running) {
            Some(class) => self.failed(job, class),
            None => self.outcome(session, &running),
        };
        let took = running.began.elapsed().as_micros();
        let took_us = u32::try_from(took).unwrap_or(u32::MAX).max(1);
        let answer = Answer {
            generation: match running.fault {
                Some(JobFault::OtherGeneration) => self.generation + 1,
                _ => self.generation,
            },
            slot: job.slot,
            sequence: job.sequence,
            outcome: Some(outcome),
            took_us: if session == 0 { 0 } else { took_us },
        };
        if running.fault == Some(JobFault::SecondAnswer) {
            self.push(from_host::Frame::Answer(answer.clone()));
        }
        self.push(from_host::Frame::Answer(answer));
        if running.fault == Some(JobFault::CrashAfter) {
            self.flush().await?;
            return Err(Exit(SEGMENTATION_FAULT));
        }
        Ok(())
    }

    fn refuse(&mut self, job: &Job, class: FaultClass, reason: &str) {
        if let Some(reference) = self.changed_by(job) {
            self.ledger.unchanged(reference);
        }
        self.push(from_host::Frame::Answer(Answer {
            generation: self.generation,
            slot: job.slot,
            sequence: job.sequence,
            outcome: Some(Outcome::Fault(fault(class, reason))),
            took_us: 0,
        }));
    }

    pub(super) fn push(&mut self, frame: from_host::Frame) {
        write_frame(&FromHost { frame: Some(frame) }, &mut self.out);
    }
}

/// The key that a job is about; 0 if there is none.
pub(super) fn key_of(job: &Job) -> u64 {
    match &job.work {
        Some(Work::Mac(mac)) => mac.key,
        Some(Work::DescribeKey(describe)) => describe.key,
        Some(Work::Probe(probe)) => probe.key,
        Some(Work::Generate(generate)) => generate.key,
        Some(Work::Import(import)) => import.key,
        Some(Work::Destroy(destroy)) => destroy.key,
        Some(Work::Seal(seal)) => seal.key,
        Some(Work::CheckSeal(check)) => check.key,
        Some(Work::Random(_)) | None => 0,
    }
}

fn name_of(job: &Job) -> String {
    match &job.work {
        Some(Work::Mac(mac)) => String::from_utf8_lossy(&mac.message).into_owned(),
        Some(Work::Random(_)) => "a random call".into(),
        Some(Work::DescribeKey(_)) => "a description".into(),
        Some(Work::Probe(_)) => "a probe".into(),
        Some(Work::Generate(_)) => "a creation".into(),
        Some(Work::Import(_)) => "an import".into(),
        Some(Work::Destroy(_)) => "a destruction".into(),
        Some(Work::Seal(_) | Work::CheckSeal(_)) => "a seal".into(),
        None => "nothing".into(),
    }
}
