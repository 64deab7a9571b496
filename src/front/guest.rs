//! A connection's standing: judged when it begins, at every reload, and when its certificate ends.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::{
    gate::{Gate, Stranger},
    peer::Peer,
    strangers::Stay,
};
use crate::model::Caller;

/// One connection, and who is on the other end.
pub struct Guest {
    pub(super) peer: Peer,
    pub(super) stay: Stay,
    judged: Mutex<Judged>,
}

struct Judged {
    gate: watch::Receiver<Arc<Gate>>,
    caller: Result<Arc<Caller>, Stranger>,
}

impl Guest {
    pub(super) fn new(peer: Peer, mut gate: watch::Receiver<Arc<Gate>>, stay: Stay) -> Self {
        let caller = gate.borrow_and_update().caller(&peer);
        if caller.is_ok() {
            stay.prove();
        }
        Self {
            peer,
            stay,
            judged: Mutex::new(Judged { gate, caller }),
        }
    }

    /// Who sends the request that has just arrived.
    pub(super) fn caller(&self) -> Result<Arc<Caller>, Stranger> {
        let mut judged = self
            .judged
            .lock()
            .expect("nobody panics with this lock held");
        // Security: what a reload has taken away is gone with the first request after it.
        if judged.gate.has_changed().unwrap_or(false) {
            let caller = judged.gate.borrow_and_update().caller(&self.peer);
            if caller.is_ok() {
                self.stay.prove();
            }
            judged.caller = caller;
        }
        let ended = |it: &super::certificate::ClientCertificate| it.has_ended();
        if self.peer.certificate().is_some_and(ended) {
            return Err(Stranger::Unrecognized);
        }
        judged.caller.clone()
    }

    /// The same by its certificate, if it has shown one.
    pub(super) fn certified(&self) -> Option<Result<Arc<Caller>, Stranger>> {
        self.peer.certificate().map(|_| self.caller())
    }

    /// Returns when a caller that was known is known no longer; never, if there was none.
    pub(super) async fn falls(&self) {
        if self.caller().is_err() {
            return pending().await;
        }
        let mut gate = {
            let judged = self
                .judged
                .lock()
                .expect("nobody panics with this lock held");
            judged.gate.clone()
        };
        while self.caller().is_ok() {
            // Timers do not follow the clock on the wall, so it is looked at now and then.
            let remains = self.peer.certificate().map_or(LOOK, |it| it.remains());
            tokio::select! {
                changed = gate.changed() => {
                    if changed.is_err() {
                        return pending().await;
                    }
                }
                () = sleep(remains.min(LOOK)) => {}
            }
        }
    }
}

const LOOK: Duration = Duration::from_mins(10);
