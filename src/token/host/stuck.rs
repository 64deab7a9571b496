//! Calls of the vendor library that take too long: they get a second host, and in the end a new one.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::{
    host_ipc::{InFlightCall, monotonic},
    model::seconds,
    proto::host,
    token::{
        dispatch::job::{Job, Work},
        host::{
            process::{HostExit, StuckCall},
            session::{HostContext, HostSession, LOOK},
        },
        key::TokenKey,
        metrics::Move,
    },
};

/// A call is late when it takes so many times what calls take, however short `hedge_after` is:
/// otherwise a slow token would get every job twice.
const LATE: u32 = 8;

impl HostSession {
    /// Sends the hedge of each late job to another host, if there is one: the first answer wins.
    pub(super) fn hedge(&mut self, context: &HostContext<'_>) {
        let after = context.settings.hedge_after;
        if after.is_zero() {
            return;
        }
        let usual = Duration::from_micros(u64::from(self.took_us)) * LATE;
        let host = self.process.generation;
        let mut hedged = 0;
        for pending in self.slots.iter_mut().flatten() {
            let half = pending.job.until.saturating_duration_since(pending.sent) / 2;
            if !pending.hedged
                && pending.sent.elapsed() >= after.min(half).max(usual)
                && !matches!(pending.job.work, Work::Probe { .. } | Work::Seek { .. })
                && !pending.job.is_abandoned()
                && context.queue.has_other_candidate(&pending.job, host)
                && let Some(hedge) = pending.job.hedge(host, &context.queue.metrics.hedges_won)
            {
                pending.hedged = true;
                hedged += 1;
                context.queue.metrics.moved(Move::Hedge);
                context.queue.give_back(hedge);
            }
        }
        if hedged > 0 {
            debug!(token = %context.settings.name, host, hedged, "late jobs are given to another host too");
        }
    }

    /// Lets the host show that calls return, before anybody's job is given to it: its predecessor
    /// hung in `stuck_call`.
    pub(super) async fn prove(
        mut self,
        context: &HostContext<'_>,
        stuck_call: &StuckCall,
    ) -> Result<Self, HostExit> {
        let limit = context.settings.call_timeout;
        let key = stuck_call
            .key
            .as_ref()
            .filter(|key| key.is_usable())
            .map(|key| Arc::new(key.admitted_anew()));
        // Security: the queue does not know this host yet, so that no order to forget the key reaches it:
        // its closing waits for this use, and at its end the host has no handle of it.
        let using = key.as_ref().and_then(|key| key.begin_use());
        let key = key.as_ref().filter(|_| using.is_some());
        let probed = Work::Probe {
            key: key.cloned(),
            every_session: false,
        };
        let (probe, _nobody) = Job::new(probed, Instant::now() + limit);
        self.send(probe, context.queue.next_sequence());
        let until = Instant::now() + limit;
        loop {
            if self.pending() == 0
                && let Some(key) = key
            {
                self.release_definition(key);
            }
            if self.pending() == 0 && self.told_to_forget.is_empty() {
                break;
            }
            if key.is_some_and(|key| key.is_closed()) {
                self.process.kill();
                return Err(HostExit::new(
                    host::FaultClass::Retry,
                    "the key that it was proved with was closed",
                ));
            }
            if let Err(error) = self.process.flush() {
                return Err(self.write_failed(&error, context).await);
            }
            let look = until.min(Instant::now() + LOOK);
            match timeout_at(look, self.process.stream.readable()).await {
                Err(_) if look < until => {}
                Err(_) => {
                    self.process.kill();
                    return Err(HostExit::new(
                        host::FaultClass::TokenAway,
                        "calls of the module do not return (call_timeout)",
                    ));
                }
                Ok(readable) => {
                    let received = readable.and_then(|()| self.process.receive());
                    self.take_answers(context)?;
                    if let Err(error) = received {
                        return Err(self.connection_lost(&error).await);
                    }
                }
            }
        }
        Ok(self)
    }

    /// Says once in the log that calls miss their deadlines, long before `call_timeout` ends the host.
    pub(super) fn tell_late(&mut self, context: &HostContext<'_>) {
        let now = Instant::now();
        let late = self.slots.iter().flatten().find(|pending| {
            pending.job.until < now && !matches!(pending.job.work, Work::Probe { .. })
        });
        match late {
            Some(late) if !self.told_late => {
                self.told_late = true;
                warn!(
                    event = "calls_late", token = %context.settings.name, host = self.process.generation,
                    waited_s = seconds(late.sent.elapsed()), call_timeout_s = seconds(context.settings.call_timeout),
                    "calls miss their deadlines: the module has not answered"
                );
            }
            Some(_) => {}
            None => self.told_late = false,
        }
    }

    /// Whether something that the host owes by now is not there.
    pub(super) fn overdue(&mut self, call_timeout: Duration) -> Option<HostExit> {
        let now = Instant::now();
        if self.closing.iter().any(|one| one.by < now) {
            return Some(HostExit::new(
                host::FaultClass::TokenAway,
                "the host did not forget a key, or end its calls, within two seconds",
            ));
        }
        self.stuck(call_timeout)
    }

    /// Whether a call has been with the library longer than it may, or jobs lie with a host that
    /// does not take them.
    fn stuck(&mut self, call_timeout: Duration) -> Option<HostExit> {
        let pending = self.slots.iter().flatten();
        let Some(oldest) = pending.min_by_key(|pending| pending.sequence) else {
            self.suspects.clear();
            return None;
        };
        let entries = self
            .process
            .in_flight
            .entries(self.process.in_flight_entries);
        let mut late: Vec<InFlightCall> = entries
            .into_iter()
            .filter(|entry| self.has(entry.sequence))
            .collect();
        if late.is_empty() && oldest.sent.elapsed() > call_timeout {
            late.push(InFlightCall {
                sequence: oldest.sequence,
                stuck_at: 0,
            });
        }
        let now = monotonic();
        late.retain(|entry| entry.stuck_at < now);
        // Seen twice, since the table may be read while it is written.
        let stuck = late.iter().find(|entry| self.suspects.contains(entry));
        let stuck_call = stuck.map(|entry| StuckCall {
            key: self.key_of(entry.sequence),
        });
        self.suspects = late;
        stuck_call.map(|stuck_call| HostExit {
            stuck_call: Some(stuck_call),
            ..HostExit::accident(
                host::FaultClass::TokenAway,
                "a call of the module does not return (call_timeout)",
            )
        })
    }

    fn key_of(&self, sequence: u64) -> Option<Arc<TokenKey>> {
        let mut pending = self.slots.iter().flatten();
        let job = &pending.find(|pending| pending.sequence == sequence)?.job;
        job.key().cloned()
    }

    pub(super) fn has(&self, sequence: u64) -> bool {
        let mut pending = self.slots.iter().flatten();
        pending.any(|pending| pending.sequence == sequence)
    }
}
