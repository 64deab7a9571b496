//! What a host says: answers to jobs, keys that it opened, faults.

use tracing::{debug, error, info};

use super::{FRESH, Host, Pending, Post};
use crate::{
    proto::host::{self, ForgetKey, FromHost, answer::Outcome, from_host, to_host},
    token::{
        Destroyed, Fault, Key, KeyFacts,
        job::{Answer, Job, Work},
        key::Verdict,
        line::Death,
        queue::Queue,
    },
};

impl Host {
    /// Everything that has arrived. An error ends the host.
    pub(super) fn take_answers(&mut self, post: &Post<'_>) -> Result<(), Death> {
        let broken = |what: String| Death::accident(host::FaultClass::Bug, what);
        while let Some(frame) = self
            .line
            .inbox
            .take::<FromHost>()
            .map_err(|fault| broken(fault.to_string()))?
        {
            match frame.frame {
                Some(from_host::Frame::Answer(answer)) => self.take_answer(answer, post)?,
                Some(from_host::Frame::KeyOpened(opened)) => self.judge(opened, post.member)?,
                Some(from_host::Frame::KeyForgotten(forgotten)) => {
                    for one in &mut self.forgetting {
                        one.acknowledged |= one.reference == forgotten.reference;
                    }
                }
                Some(from_host::Frame::Ending(ending)) => {
                    let death = Death::of(ending.fault);
                    let accident = death.class == host::FaultClass::Bug;
                    return Err(Death { accident, ..death });
                }
                Some(
                    from_host::Frame::Hello(_)
                    | from_host::Frame::TokenFound(_)
                    | from_host::Frame::Ready(_)
                    | from_host::Frame::Failed(_),
                )
                | None => return Err(broken("the host began a second time".into())),
            }
        }
        if !self.forgetting.is_empty() {
            self.settle_forgotten();
        }
        Ok(())
    }

    fn take_answer(&mut self, answer: host::Answer, post: &Post<'_>) -> Result<(), Death> {
        let broken = |what: &str| Err(Death::accident(host::FaultClass::Bug, what));
        // Security: an answer goes to the one job that it names, or to nobody.
        if answer.generation != self.line.generation {
            return broken("the host answered for another generation");
        }
        let known = self
            .slots
            .get_mut(answer.slot as usize)
            .and_then(|slot| slot.take_if(|pending| pending.sequence == answer.sequence));
        let Some(Pending { job, .. }) = known else {
            return broken("the host answered a job that it does not have");
        };
        self.free.push(answer.slot);
        self.learn(answer.took_us);
        match (answer.outcome, &job.work) {
            (Some(Outcome::Mac(mac)), Work::Mac { key, .. }) => {
                if mac.len() != key.spec().mac_algorithm().mac_len() {
                    job.reply(Err(Fault::Internal(
                        "the host made a MAC of wrong length".into(),
                    )));
                    return broken("the host made a MAC of wrong length");
                }
                // Security: a key that this host opened with another check value was taken from it,
                // and nothing that it made with that object leaves this process.
                if !self.introduced.contains_key(&key.reference()) && !key.is_closed() {
                    self.lack(job, post, "the object is another key".into());
                    return Ok(());
                }
                self.proven = true;
                job.reply(Ok(Answer::Bytes(mac)));
            }
            (Some(Outcome::Random(bytes)), Work::Random { number_of_bytes }) => {
                if bytes.len() != *number_of_bytes as usize {
                    job.reply(Err(Fault::Internal("random bytes of wrong length".into())));
                    return broken("the host answered with random bytes of wrong length");
                }
                self.proven = true;
                job.reply(Ok(Answer::Bytes(bytes)));
            }
            (
                Some(Outcome::KeyFacts(facts)),
                Work::Describe { .. }
                | Work::Seek { .. }
                | Work::Generate { .. }
                | Work::Import { .. },
            ) => {
                self.proven = true;
                job.reply(Ok(Answer::Facts(KeyFacts {
                    token: post.settings.name.clone(),
                    info: self.info.clone(),
                    sensitive: facts.sensitive,
                    extractable: facts.extractable,
                    never_extractable: facts.never_extractable,
                    local: facts.local,
                    check_value: facts.check_value.into(),
                })));
            }
            (Some(Outcome::Destroyed(destroyed)), Work::Destroy { key, orphan }) => {
                self.proven = true;
                if !destroyed.was_gone {
                    job.reply(Ok(Answer::Destroyed(Destroyed::Now)));
                } else if *orphan || self.is_fresh() {
                    job.reply(Ok(Answer::Destroyed(Destroyed::WasGone)));
                } else {
                    // A host that does not see the object is no proof that it is gone.
                    key.set_absent_from(self.line.generation);
                    self.look_afresh(key, post, "no object to destroy");
                    post.queue.give_back(job);
                }
            }
            // Nobody knows what came of it, so nobody tries it again.
            (Some(Outcome::Unsettled(fault)), work) if work.changes() => {
                let Death { reason, .. } = Death::of(Some(fault));
                job.reply(Err(Fault::Unknown(reason)));
            }
            (Some(Outcome::ProbeGood(_)), Work::Probe { .. }) => {}
            (Some(Outcome::Fault(fault)), Work::Probe { .. }) => {
                let Death { reason, .. } = Death::of(Some(fault));
                debug!(token = %post.settings.name, host = self.line.generation, %reason, "a probe");
            }
            (Some(Outcome::Fault(fault)), Work::Seek { .. }) => {
                let Death { reason, .. } = Death::of(Some(fault));
                job.reply(Err(Fault::Key(reason)));
            }
            (Some(Outcome::Fault(fault)), work) if work.changes() => {
                refuse_change(fault, job, post)
            }
            (Some(Outcome::Fault(fault)), _) => self.take_fault(fault, job, post),
            _ => return broken("the host answered another question"),
        }
        Ok(())
    }

    fn take_fault(&mut self, fault: host::Fault, job: Job, post: &Post<'_>) {
        let class = fault.class();
        let Death { reason, .. } = Death::of(Some(fault));
        match class {
            host::FaultClass::Caller => job.reply(Err(Fault::Message(reason))),
            host::FaultClass::Key => self.lack(job, post, reason),
            host::FaultClass::KeyDiffers => {
                let elsewhere = job.key().is_some_and(|key| key.differs(post.member));
                if elsewhere {
                    self.lack(job, post, reason);
                } else {
                    job.reply(Err(Fault::Key(reason)));
                }
            }
            // "Gone" is said only by a fresh generation: some modules see new objects at
            // C_Initialize alone.
            host::FaultClass::KeyMissing => {
                if let Some(key) = job.key() {
                    if self.is_fresh() {
                        key.set_gone_from(post.member);
                    } else if !key.is_gone_from(post.member) && !self.ending {
                        self.look_afresh(key, post, &reason);
                    }
                }
                self.lack(job, post, reason);
            }
            host::FaultClass::Expired => job.reply(Err(Fault::Deadline(reason))),
            host::FaultClass::Unsupported => job.reply(Err(Fault::Unsupported(reason))),
            host::FaultClass::Retry | host::FaultClass::TokenAway => {
                charge(job, &reason, post.queue);
            }
            host::FaultClass::Pin
            | host::FaultClass::Configuration
            | host::FaultClass::Bug
            | host::FaultClass::Unspecified => job.reply(Err(Fault::Internal(reason))),
        }
    }

    /// Whether a miss in this generation needs no fresh one to be believed.
    fn is_fresh(&self) -> bool {
        self.started.elapsed() < FRESH
    }

    /// Has a fresh host take this one's place, to look for a key once more.
    fn look_afresh(&mut self, key: &Key, post: &Post<'_>, reason: &str) {
        info!(token = %post.settings.name, host = self.line.generation, reason, "looking again with a fresh host");
        key.set_gone_from(post.member);
        self.ending = true;
        post.queue.set_standing(post.member, true, true);
    }

    /// This host cannot do a job's key; another one may.
    fn lack(&mut self, job: Job, post: &Post<'_>, reason: String) {
        let Some(key) = job.key().cloned() else {
            return job.reply(Err(Fault::Internal(reason)));
        };
        key.set_absent_from(self.line.generation);
        if self.ending || post.queue.has_hope(&job) {
            debug!(token = %post.settings.name, host = self.line.generation, key_id = %key.key_id(), %reason, "another host is asked for a key");
            return post.queue.give_back(job);
        }
        if post.queue.is_whole() {
            // Security: only now, with every token of the group well and asked, it is the key's fault.
            key.set_trouble(reason.clone());
            job.reply(Err(Fault::Key(reason)));
        } else {
            job.reply(Err(Fault::Unavailable(format!(
                "no token of the group that can be asked has the key: {reason}"
            ))));
        }
    }

    /// A host has opened a key: is it the key that we know?
    fn judge(&mut self, opened: host::KeyOpened, member: usize) -> Result<(), Death> {
        let reference = opened.reference;
        let Some(key) = self.introduced.get(&reference) else {
            // It crossed the order to forget the key.
            if self.forgetting.iter().any(|one| one.reference == reference) {
                return Ok(());
            }
            return Err(Death::new(
                host::FaultClass::Bug,
                "the host opened a key that it was not given",
            ));
        };
        let verdict = key.trust(opened.check_value.into(), member, self.line.generation);
        if verdict == Verdict::Right {
            return Ok(());
        }
        error!(
            key_id = %key.key_id(), locator = %key.locator(), host = self.line.generation,
            "the object is another key than before: its check value differs"
        );
        self.line
            .put(to_host::Frame::ForgetKey(ForgetKey { reference }));
        self.introduced.remove(&reference);
        Ok(())
    }
}

/// A job whose host had an accident with it: once more elsewhere, not twice.
pub(super) fn charge(mut job: Job, reason: &str, queue: &Queue) {
    if job.charge() {
        queue.give_back(job);
    } else {
        job.reply(Err(Fault::Unavailable(format!(
            "two hosts failed with this job: {reason}"
        ))));
    }
}

/// The host did not change the token, and says so. Only what this very host could not is worth a
/// try elsewhere.
fn refuse_change(fault: host::Fault, job: Job, post: &Post<'_>) {
    let class = fault.class();
    let Death { reason, .. } = Death::of(Some(fault));
    let fault = match class {
        host::FaultClass::Retry | host::FaultClass::TokenAway => {
            return charge(job, &reason, post.queue);
        }
        host::FaultClass::Expired => Fault::Deadline(reason),
        host::FaultClass::Unsupported => Fault::Unsupported(reason),
        host::FaultClass::Key | host::FaultClass::KeyDiffers | host::FaultClass::KeyMissing => {
            Fault::Key(reason)
        }
        host::FaultClass::Caller
        | host::FaultClass::Pin
        | host::FaultClass::Configuration
        | host::FaultClass::Bug
        | host::FaultClass::Unspecified => Fault::Internal(reason),
    };
    job.reply(Err(fault));
}
