//! What becomes of a job that a host could not do, by the class of its fault.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::{
    proto::host,
    token::{
        dispatch::job::Job,
        host::{
            process::HostExit,
            session::{HostContext, HostSession},
        },
        key::TokenKey,
        metrics::Move,
        status::Fault,
    },
};

/// A miss in a generation younger than this needs no fresh generation to be believed.
const FRESH: Duration = Duration::from_secs(10);

impl HostSession {
    /// What a fault of a job means for it, for its key, and for this host.
    pub(super) fn handle_fault(&mut self, fault: host::Fault, job: Job, context: &HostContext<'_>) {
        let class = fault.class();
        let HostExit { reason, .. } = HostExit::of(Some(fault));
        match class {
            host::FaultClass::Caller => job.reply(Err(Fault::Message(reason))),
            host::FaultClass::MessageFails => context.queue.refuse_poison(job, Fault::Job(reason)),
            host::FaultClass::KeyFails => self.host_lacks_key(job, context, reason),
            host::FaultClass::Busy => self.back_off(job, context, &reason),
            host::FaultClass::Key => self.host_lacks_key(job, context, reason),
            host::FaultClass::KeyDiffers => {
                let elsewhere = job
                    .key()
                    .is_some_and(|key| key.report_mismatch(context.member));
                if elsewhere {
                    self.host_lacks_key(job, context, reason);
                } else {
                    job.reply(Err(Fault::Key(reason)));
                }
            }
            // "Gone" is said only by a fresh generation: some modules see new objects at
            // C_Initialize alone.
            host::FaultClass::KeyMissing => {
                if let Some(key) = job.key() {
                    if self.is_fresh() {
                        key.set_gone_from(context.member);
                    } else if !key.is_gone_from(context.member) && !self.ending {
                        self.replace_with_fresh_host(key, context, &reason);
                    }
                }
                self.host_lacks_key(job, context, reason);
            }
            host::FaultClass::Expired => job.reply(Err(Fault::Deadline(reason))),
            host::FaultClass::Unsupported => job.reply(Err(Fault::Unsupported(reason))),
            host::FaultClass::Retry | host::FaultClass::TokenAway => {
                context.queue.record_failure(job, &reason);
            }
            host::FaultClass::Pin
            | host::FaultClass::Configuration
            | host::FaultClass::Bug
            | host::FaultClass::Unspecified => job.reply(Err(Fault::Internal(reason))),
        }
    }

    /// The token is busy: it gets less at once, and the job waits for its next turn.
    fn back_off(&mut self, job: Job, context: &HostContext<'_>, reason: &str) {
        let at_work = self.pending() + 1;
        if self.load.is_busy(at_work) {
            warn!(event = "token_busy", token = %context.settings.name, host = self.process.generation, at_work, reason, "the token is busy: it gets less at once");
        }
        context.queue.metrics.moved(Move::Busy);
        context.queue.give_back(job);
    }

    /// Whether a miss in this generation needs no fresh one to be believed.
    pub(super) fn is_fresh(&self) -> bool {
        self.started.elapsed() < FRESH
    }

    /// Has a fresh host take this one's place, to look for a key once more.
    pub(super) fn replace_with_fresh_host(
        &mut self,
        key: &TokenKey,
        context: &HostContext<'_>,
        reason: &str,
    ) {
        info!(event = "key_sought_again", token = %context.settings.name, host = self.process.generation, reason, "looking again with a fresh host");
        key.set_gone_from(context.member);
        self.ending = true;
        context.queue.set_member_status(context.member, true, true);
    }

    /// This host cannot do a job's key; another one may.
    pub(super) fn host_lacks_key(&mut self, job: Job, context: &HostContext<'_>, reason: String) {
        let Some(key) = job.key().cloned() else {
            return job.reply(Err(Fault::Internal(reason)));
        };
        key.set_absent_from(self.process.generation);
        if self.ending || context.queue.has_candidate(&job) {
            debug!(token = %context.settings.name, host = self.process.generation, key_id = %key.key_id(), %reason, "another host is asked for a key");
            return context.queue.give_back(job);
        }
        if context.queue.is_whole() {
            // Security: only now, with every token of the group well and asked, it is the key's fault.
            key.fail_for_now(reason.clone());
            // Those that wait with it would find no host either.
            let waits = |other: &Job| other.key().is_some_and(|other| other.is_same_object(&key));
            let fault = Fault::Key(reason);
            context.queue.refuse(waits, &fault);
            job.reply(Err(fault));
        } else {
            job.reply(Err(Fault::Unavailable(format!(
                "no token of the group that can be asked has the key: {reason}"
            ))));
        }
    }
}

/// The host did not change the token, and says so. Only what this very host could not is worth a
/// try elsewhere.
pub(super) fn refuse_change(fault: host::Fault, job: Job, context: &HostContext<'_>) {
    let class = fault.class();
    let HostExit { reason, .. } = HostExit::of(Some(fault));
    let fault = match class {
        host::FaultClass::Retry | host::FaultClass::TokenAway => {
            return context.queue.record_failure(job, &reason);
        }
        host::FaultClass::Expired => Fault::Deadline(reason),
        host::FaultClass::Unsupported => Fault::Unsupported(reason),
        host::FaultClass::Busy => Fault::Saturated(reason),
        host::FaultClass::Key
        | host::FaultClass::KeyDiffers
        | host::FaultClass::KeyMissing
        | host::FaultClass::KeyFails => Fault::Key(reason),
        host::FaultClass::Caller
        | host::FaultClass::MessageFails
        | host::FaultClass::Pin
        | host::FaultClass::Configuration
        | host::FaultClass::Bug
        | host::FaultClass::Unspecified => Fault::Internal(reason),
    };
    job.reply(Err(fault));
}
