//! What a model of a host answers: what its token makes of a job, or the fault that the dice say.

use super::{
    model_host::{Handle, ModelHost, fault},
    model_jobs::{Running, key_of},
    model_token::{check_value, mac, replicate},
    plan::JobFault,
};
use crate::proto::host::{
    self, Destroyed, FaultClass, Job, KeyDefinition, KeyOpened, ProbeGood, answer::Outcome,
    from_host, job::Work,
};

impl ModelHost {
    /// The fault that the host answers, if it answers one.
    pub(super) fn class_of(&self, running: &Running) -> Option<FaultClass> {
        let is_mac = matches!(running.job.work, Some(Work::Mac(_)));
        let has_key = key_of(&running.job) != 0;
        Some(match running.fault? {
            JobFault::Busy => FaultClass::Busy,
            JobFault::Retry => FaultClass::Retry,
            JobFault::Away => FaultClass::TokenAway,
            JobFault::MessageFails if is_mac => FaultClass::MessageFails,
            JobFault::KeyFails if has_key => FaultClass::KeyFails,
            JobFault::KeyMissing if has_key => FaultClass::KeyMissing,
            // Of a key that no check value was set for the front would believe neither token again.
            JobFault::KeyDiffers if self.is_pinned(&running.job) => FaultClass::KeyDiffers,
            _ => return None,
        })
    }

    fn is_pinned(&self, job: &Job) -> bool {
        let key = self.keys.get(&key_of(job));
        key.is_some_and(|key| key.definition.label.starts_with("pinned"))
    }

    /// A fault; of a change perhaps one that leaves open what came of it.
    pub(super) fn failed(&mut self, job: &Job, class: FaultClass) -> Outcome {
        let fault = fault(class, "as the dice say");
        let Some(reference) = self.changed_by(job) else {
            return Outcome::Fault(fault);
        };
        if self.world.happens(500) {
            if self.world.happens(500) {
                self.change(job);
            }
            return Outcome::Unsettled(fault);
        }
        self.ledger.unchanged(reference);
        Outcome::Fault(fault)
    }

    pub(super) fn outcome(&mut self, session: usize, running: &Running) -> Outcome {
        let job = &running.job;
        if self.changed_by(job).is_some() {
            return self.change(job);
        }
        let mut handle = running.handle;
        if session == 0 && handle.is_none() {
            handle = self.open(&running.definition, running.fault);
            if handle.is_none() {
                return Outcome::Fault(fault(FaultClass::KeyMissing, "no such object"));
            }
        }
        let secret = handle.map(|handle| handle.secret).unwrap_or_default();
        match &job.work {
            Some(Work::Mac(wanted)) => {
                let mut made = mac(secret, &wanted.message);
                if running.fault == Some(JobFault::WrongLength) {
                    made.truncate(16);
                }
                Outcome::Mac(made)
            }
            Some(Work::Random(random)) => {
                Outcome::Random(vec![7; random.number_of_bytes as usize].into())
            }
            Some(Work::DescribeKey(_)) => Outcome::KeyFacts(facts(secret)),
            _ => Outcome::ProbeGood(ProbeGood {}),
        }
    }

    /// Finds a key's object and says its check value, before anything is made with it.
    fn open(&mut self, key: &KeyDefinition, fault: Option<JobFault>) -> Option<Handle> {
        let (reference, label) = (key.reference, &key.label);
        let mut secret = self.token.object(label)?;
        if fault == Some(JobFault::OtherObject) && !key.check_value.is_empty() {
            secret = self.token.another_object(label).unwrap_or(secret);
        }
        let handle = Handle {
            secret,
            proved: true,
        };
        self.push(from_host::Frame::KeyOpened(KeyOpened {
            reference,
            check_value: check_value(secret),
        }));
        // Forgotten meanwhile: nobody else finds the handle.
        if let Some(key) = self.keys.get_mut(&reference) {
            key.handle = Some(handle);
            // The first check value stands, also where the front has not said one.
            if key.definition.check_value.is_empty() {
                key.definition.check_value = check_value(secret);
            }
            self.ledger.set_handle(self.process, reference, true);
        }
        Some(handle)
    }

    /// Makes or destroys an object.
    pub(super) fn change(&mut self, job: &Job) -> Outcome {
        let Some(key) = self.keys.get(&key_of(job)) else {
            return Outcome::Fault(fault(FaultClass::Retry, "the host does not know the key"));
        };
        let label = key.definition.label.clone();
        let expected = key.definition.check_value.clone();
        match &job.work {
            Some(Work::Generate(_)) => {
                let is_new = self.token.object(&label).is_none();
                self.world
                    .promise(is_new, format_args!("{label} is made a second time"));
                let secret = self.world.between(1, u64::MAX - 1);
                self.token.put(&label, secret);
                self.note(format_args!("makes {label}"));
                replicate(&self.token, &label);
                Outcome::KeyFacts(facts(secret))
            }
            Some(Work::Destroy(destroy)) => {
                let Some(secret) = self.token.object(&label) else {
                    self.ledger.unchanged(key_of(job));
                    return Outcome::Destroyed(Destroyed { was_gone: true });
                };
                if !destroy.orphan && check_value(secret) != expected {
                    self.ledger.unchanged(key_of(job));
                    return Outcome::Fault(fault(FaultClass::KeyDiffers, "another key"));
                }
                self.note(format_args!("destroys {label}"));
                self.ledger.destroys(&label);
                self.token.remove(&label);
                replicate(&self.token, &label);
                Outcome::Destroyed(Destroyed { was_gone: false })
            }
            _ => Outcome::Fault(fault(FaultClass::Bug, "no change")),
        }
    }

    /// The key's reference, if the job changes the token.
    pub(super) fn changed_by(&self, job: &Job) -> Option<u64> {
        match &job.work {
            Some(Work::Generate(_) | Work::Import(_) | Work::Destroy(_)) => Some(key_of(job)),
            _ => None,
        }
    }
}

fn facts(secret: u64) -> host::KeyFacts {
    host::KeyFacts {
        sensitive: true,
        never_extractable: true,
        local: true,
        check_value: check_value(secret),
        ..host::KeyFacts::default()
    }
}
