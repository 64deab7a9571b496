//! The end of a host: what it said last counts, what it could not finish is given back, and its process
//! goes.

use std::{io, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    proto::host,
    token::{
        dispatch::queue::Queue,
        host::{
            process::HostExit,
            session::{HostContext, HostSession},
        },
        metrics::Move,
        status::Fault,
    },
};

/// How long the end of what a host has said is waited for, once it takes nothing more.
const LAST_WORD: Duration = Duration::from_secs(2);

impl HostSession {
    /// The host takes nothing more. What it said before counts: answers, and why it ends.
    pub(super) async fn write_failed(
        &mut self,
        error: &io::Error,
        context: &HostContext<'_>,
    ) -> HostExit {
        // Security: a PIN that was refused would be tried again, and a job that nothing befell be
        // charged, if the last word were not heard. It may lie in the socket while the runtime does not
        // know yet that there is something to read: the end of what was said is waited for.
        let until = Instant::now() + LAST_WORD;
        while let Ok(Ok(())) = timeout_at(until, self.process.stream.readable()).await {
            if self.process.receive().is_err() {
                break;
            }
        }
        match self.take_answers(context) {
            Err(exit) => exit,
            Ok(()) => self.connection_lost(error).await,
        }
    }

    /// Ends a host that has come up and is not to serve after all.
    pub(super) async fn give_up(mut self, reason: &str) -> HostExit {
        self.process.end_gracefully().await;
        HostExit::new(host::FaultClass::TokenAway, reason)
    }

    /// The socket broke: what does the process say?
    pub(super) async fn connection_lost(&mut self, error: &io::Error) -> HostExit {
        let how = self.process.how_it_ended(error).await;
        HostExit::accident(
            host::FaultClass::Retry,
            format!("the host process ended: {how}"),
        )
    }

    /// Gives every unanswered job another chance and gets rid of the process.
    pub(super) async fn finish(mut self, mut exit: HostExit, queue: &Queue) -> HostExit {
        let planned = exit.class == host::FaultClass::Unspecified;
        exit.proven = self.proven;
        let held: Vec<u64> = if exit.accident {
            let entries = self
                .process
                .in_flight
                .entries(self.process.in_flight_entries);
            entries.into_iter().map(|entry| entry.sequence).collect()
        } else {
            exit.charged.into_iter().collect()
        };
        for pending in std::mem::take(&mut self.slots).into_iter().flatten().rev() {
            if pending.job.work.changes() {
                let reason = exit.reason.clone();
                pending.job.reply(Err(Fault::Unknown(reason)));
            } else if held.contains(&pending.sequence) {
                queue.record_crash(pending.job, &exit.reason);
            } else {
                queue.metrics.moved(Move::Host);
                queue.give_back(pending.job);
            }
        }
        if planned {
            self.process.end_gracefully().await;
        } else if exit.says_why {
            // Its own decision: it closes its sessions and finalises (TPMs count unclean ends), while
            // its successor starts.
            self.process.reap_in_background();
        } else {
            self.process.kill();
        }
        exit
    }
}
