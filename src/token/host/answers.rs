//! What a host says: answers to jobs, keys that it opened, faults.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tracing::{debug, error};

use crate::{
    proto::host::{self, FromHost, answer::Outcome, from_host},
    token::{
        dispatch::job::{Job, JobOutput, Work},
        host::{
            faults::refuse_change,
            process::HostExit,
            session::{DefinedKey, HostContext, HostSession, Pending},
        },
        key::{CheckValue, TokenKey, Verdict},
        status::{Destroyed, Fault, KeyFacts, Sealed},
    },
};

/// Why a host ends that reports a check value which cannot be its key's.
const WRONG_VERDICT: &str = "the host took an object for a key whose check value it does not make";

impl HostSession {
    /// Everything that has arrived. An error ends the host.
    pub(super) fn take_answers(&mut self, context: &HostContext<'_>) -> Result<(), HostExit> {
        let broken = |what: String| HostExit::accident(host::FaultClass::Bug, what);
        while let Some(frame) = self
            .process
            .inbox
            .take::<FromHost>()
            .map_err(|fault| broken(fault.to_string()))?
        {
            match frame.frame {
                Some(from_host::Frame::Answer(answer)) => self.take_answer(answer, context)?,
                Some(from_host::Frame::KeyOpened(opened)) => {
                    self.check_opened_key(opened, context.member)?
                }
                Some(from_host::Frame::KeyForgotten(forgotten)) => {
                    self.told_to_forget.remove(&forgotten.reference);
                    for one in &mut self.closing {
                        one.acknowledged |= one.key.reference() == forgotten.reference;
                    }
                }
                Some(from_host::Frame::Cured(cured)) => {
                    cured
                        .fault
                        .iter()
                        .for_each(|fault| context.metrics.failed(fault));
                }
                Some(from_host::Frame::Ending(ending)) => {
                    ending
                        .fault
                        .iter()
                        .for_each(|fault| context.metrics.failed(fault));
                    let exit = HostExit::of(ending.fault);
                    let accident = exit.class == host::FaultClass::Bug;
                    return Err(HostExit {
                        accident,
                        says_why: true,
                        charged: Some(ending.sequence).filter(|sequence| *sequence != 0),
                        ..exit
                    });
                }
                Some(
                    from_host::Frame::Hello(_)
                    | from_host::Frame::TokenFound(_)
                    | from_host::Frame::PinsRead(_)
                    | from_host::Frame::LoggedIn(_)
                    | from_host::Frame::Ready(_)
                    | from_host::Frame::Failed(_),
                )
                | None => return Err(broken("the host began a second time".into())),
            }
        }
        if !self.closing.is_empty() {
            self.settle_closed();
        }
        Ok(())
    }

    fn take_answer(
        &mut self,
        answer: host::Answer,
        context: &HostContext<'_>,
    ) -> Result<(), HostExit> {
        let broken = |what: &str| Err(HostExit::accident(host::FaultClass::Bug, what));
        // Security: an answer goes to the one job that it names, or to nobody.
        if answer.generation != self.process.generation {
            return broken("the host answered for another generation");
        }
        let known = self
            .slots
            .get_mut(answer.slot as usize)
            .and_then(|slot| slot.take_if(|pending| pending.sequence == answer.sequence));
        let Some(Pending { job, slow, .. }) = known else {
            return broken("the host answered a job that it does not have");
        };
        self.free.push(answer.slot);
        self.slow_jobs -= usize::from(slow);
        let window = self.window();
        if !matches!(answer.outcome, Some(Outcome::Fault(_)) | None) {
            self.load.went_well(window);
        }
        self.learn(answer.took_us);
        if let Some(function) = job.work.function() {
            let took = Duration::from_micros(answer.took_us.into());
            context.metrics.answered(function, took);
        }
        if let Some(Outcome::Fault(fault) | Outcome::Unsettled(fault)) = &answer.outcome {
            context.metrics.failed(fault);
        }
        if let (Some(key), true) = (job.key(), job.work.has_own_key()) {
            self.release_definition(&Arc::clone(key));
        }
        match (answer.outcome, &job.work) {
            (Some(Outcome::Mac(mac)), Work::Mac { .. }) => return self.take_mac(mac, job, context),
            (Some(Outcome::Random(bytes)), Work::Random { number_of_bytes }) => {
                if bytes.len() != *number_of_bytes as usize {
                    job.reply(Err(Fault::Internal("random bytes of wrong length".into())));
                    return broken("the host answered with random bytes of wrong length");
                }
                self.proven = true;
                job.reply(Ok(JobOutput::Random(bytes)));
            }
            (
                Some(Outcome::KeyFacts(facts)),
                Work::Describe { .. }
                | Work::Seek { .. }
                | Work::Generate { .. }
                | Work::Import { .. },
            ) => {
                return self.take_facts(facts, job, context);
            }
            (Some(Outcome::Destroyed(destroyed)), Work::Destroy { .. }) => {
                self.take_destroyed(destroyed.was_gone, job, context);
            }
            (Some(Outcome::Sealed(sealed)), Work::Seal { .. }) => {
                self.take_sealed(sealed, job, context);
            }
            (Some(Outcome::SealChecked(checked)), Work::CheckSeal { .. }) => {
                job.reply(Ok(JobOutput::SealChecked(checked.is_genuine)));
            }
            // Nobody knows what came of it, so nobody tries it again.
            (Some(Outcome::Unsettled(fault)), work) if work.changes() => {
                let HostExit { reason, .. } = HostExit::of(Some(fault));
                job.reply(Err(Fault::Unknown(reason)));
            }
            (Some(Outcome::ProbeGood(_)), Work::Probe { .. }) => {}
            (Some(Outcome::Fault(fault)), Work::Probe { .. }) => {
                let HostExit { reason, .. } = HostExit::of(Some(fault));
                debug!(token = %context.settings.name, host = self.process.generation, %reason, "a probe");
            }
            (Some(Outcome::Fault(fault)), Work::Seek { .. }) => {
                let HostExit { reason, .. } = HostExit::of(Some(fault));
                job.reply(Err(Fault::Key(reason)));
            }
            (Some(Outcome::Fault(fault)), work) if work.changes() => {
                refuse_change(fault, job, context)
            }
            (Some(Outcome::Fault(fault)), _) => self.handle_fault(fault, job, context),
            _ => return broken("the host answered another question"),
        }
        Ok(())
    }

    fn take_mac(
        &mut self,
        mac: Bytes,
        job: Job,
        context: &HostContext<'_>,
    ) -> Result<(), HostExit> {
        let Some(key) = job.key() else {
            return Ok(());
        };
        if mac.len() != key.spec().mac_algorithm().mac_len() {
            let reason = "the host made a MAC of wrong length";
            job.reply(Err(Fault::Internal(reason.into())));
            return Err(HostExit::accident(host::FaultClass::Bug, reason));
        }
        // Security: a key that this host opened with another check value was taken from it, and
        // nothing that it made with that object leaves this process, nor does what it made with a
        // key of which it said no check value.
        if !self.is_open(key) {
            if key.is_forgotten() {
                job.reply(Err(Fault::Closed));
                return Ok(());
            }
            self.host_lacks_key(job, context, "the object is another key".into());
            return Ok(());
        }
        self.proven = true;
        // A token that failed with the key on open handles is asked again without a search.
        key.recovered();
        job.reply(Ok(JobOutput::Mac(mac)));
        Ok(())
    }

    fn take_sealed(&mut self, sealed: host::Sealed, job: Job, context: &HostContext<'_>) {
        // Security: as with a MAC, nothing counts that was made with another object.
        if job.key().is_some_and(|key| !self.is_open(key)) {
            self.host_lacks_key(job, context, "the object is another key".into());
            return;
        }
        let Ok(root) = sealed.root.as_ref().try_into() else {
            job.reply(Err(Fault::Internal("the host sealed no root".into())));
            return;
        };
        self.proven = true;
        job.reply(Ok(JobOutput::Sealed(Sealed {
            size: sealed.size,
            root,
            seal: Some(sealed.seal).filter(|seal| !seal.is_empty()),
        })));
    }

    fn take_facts(
        &mut self,
        facts: host::KeyFacts,
        job: Job,
        context: &HostContext<'_>,
    ) -> Result<(), HostExit> {
        let Some(key) = job.key() else {
            return Ok(());
        };
        // Security: what is known of another object is not told as the key's.
        if self.was_taken(key) && !job.work.has_own_key() {
            self.host_lacks_key(job, context, "the object is another key".into());
            return Ok(());
        }
        let check_value = CheckValue::from(facts.check_value);
        if !key.may_have(&check_value) {
            if job.work.changes() {
                job.reply(Err(Fault::Unknown(WRONG_VERDICT.into())));
            } else {
                context.queue.record_crash(job, WRONG_VERDICT);
            }
            return Err(HostExit::accident(host::FaultClass::Bug, WRONG_VERDICT));
        }
        self.proven = true;
        job.reply(Ok(JobOutput::Facts(KeyFacts {
            token: context.settings.name.clone(),
            info: self.info.clone(),
            sensitive: facts.sensitive,
            extractable: facts.extractable,
            never_extractable: facts.never_extractable,
            local: facts.local,
            check_value,
        })));
        Ok(())
    }

    /// Whether this host has opened a key and said its check value. What it makes with one that is being
    /// closed counts until it is.
    fn is_open(&self, key: &TokenKey) -> bool {
        let reference = key.reference();
        match self.defined_keys.get(&reference) {
            Some(defined) => defined.open,
            None => {
                let mut closing = self.closing.iter();
                closing.any(|one| one.was_open && one.key.reference() == reference)
            }
        }
    }

    /// Whether a key that is in use was taken from this host.
    fn was_taken(&self, key: &TokenKey) -> bool {
        !self.defined_keys.contains_key(&key.reference()) && !key.is_forgotten()
    }

    fn take_destroyed(&mut self, was_gone: bool, job: Job, context: &HostContext<'_>) {
        let Work::Destroy { key, orphan } = &job.work else {
            return;
        };
        self.proven = true;
        if !was_gone {
            job.reply(Ok(JobOutput::Destroyed(Destroyed::Now)));
        } else if *orphan || self.is_fresh() {
            job.reply(Ok(JobOutput::Destroyed(Destroyed::WasGone)));
        } else {
            // A host that does not see the object is no proof that it is gone.
            key.set_absent_from(self.process.generation);
            self.replace_with_fresh_host(key, context, "no object to destroy");
            context.queue.give_back(job);
        }
    }

    /// A host has opened a key: is it the key that we know?
    fn check_opened_key(&mut self, opened: host::KeyOpened, member: usize) -> Result<(), HostExit> {
        let reference = opened.reference;
        let Some(DefinedKey {
            key,
            has_check_value,
            open,
        }) = self.defined_keys.get_mut(&reference)
        else {
            // It crossed the order to forget the key.
            let mut crossed = self.told_to_forget.contains(&reference);
            for one in &mut self.closing {
                if one.key.reference() == reference {
                    // Security: what it makes with what it has opened now nobody has looked at.
                    one.was_open = false;
                    crossed = true;
                }
            }
            if crossed {
                return Ok(());
            }
            return Err(HostExit::new(
                host::FaultClass::Bug,
                "the host opened a key that it was not given",
            ));
        };
        let reported = CheckValue::from(opened.check_value);
        // Security: a host that was told the check value, and takes an object with another one for the
        // key's, or that reports what no key makes, does not compare. It is believed nothing more.
        if !key.may_have(&reported) && (*has_check_value || !key.is_long_enough(&reported)) {
            return Err(HostExit::accident(host::FaultClass::Bug, WRONG_VERDICT));
        }
        let verdict = key.verify_check_value(reported, member, self.process.generation);
        if verdict == Verdict::Match {
            *open = true;
            return Ok(());
        }
        error!(
            event = "key_swapped", key_id = %key.key_id(), locator = %key.locator(), host = self.process.generation,
            "the object is another key than before: its check value differs"
        );
        let key = Arc::clone(key);
        self.forget(&key);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
