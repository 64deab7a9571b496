//! A connection and the principal on its other end: authenticated when the connection begins, at every
//! reload, and no longer than its certificate is valid.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::HeaderValue;
use tokio::time::sleep;

use super::{access::AccessWatch, failure::AuthFailure, peer::Peer, pre_auth::PreAuthSlot};
use crate::model::{Caller, RequestOrigin};

/// One connection, and who is on the other end.
pub struct ClientConnection {
    pub(in crate::front) peer: Peer,
    pub(in crate::front) slot: PreAuthSlot,
    identity: Mutex<Identity>,
}

struct Identity {
    access: AccessWatch,
    caller: Result<Arc<Caller>, AuthFailure>,
}

impl ClientConnection {
    pub(in crate::front) fn new(peer: Peer, mut access: AccessWatch, slot: PreAuthSlot) -> Self {
        let caller = access.caller(&peer);
        if caller.is_ok() {
            slot.mark_authenticated();
        }
        let caller = caller.map(|caller| locate(&caller, &peer, None));
        Self {
            peer,
            slot,
            identity: Mutex::new(Identity { access, caller }),
        }
    }

    /// Who sends the request that has just arrived.
    ///
    /// # Errors
    /// There is no proof, or none that stands for a principal now.
    pub(in crate::front) fn caller(&self) -> Result<Arc<Caller>, AuthFailure> {
        let mut identity = self.identity();
        // Security: what a reload has taken away is gone with the first request after it.
        if identity.access.has_changed() {
            let caller = identity.access.caller(&self.peer);
            if caller.is_ok() {
                self.slot.mark_authenticated();
            }
            identity.caller = caller.map(|caller| self.locate(&caller, None));
        }
        match self.peer.certificate() {
            Some(certificate) if certificate.has_expired() => Err(certificate.expired()),
            _ => identity.caller.clone(),
        }
    }

    /// Who sends the request that has just arrived, by a client that calls itself this.
    ///
    /// # Errors
    /// Those of [`caller`](Self::caller).
    pub(in crate::front) fn caller_by(
        &self,
        user_agent: Option<&HeaderValue>,
    ) -> Result<Arc<Caller>, AuthFailure> {
        let caller = self.caller()?;
        if caller.origin().user_agent.as_deref() == shown(user_agent) {
            return Ok(caller);
        }
        // One client, most of the time: the next request finds it.
        let caller = self.locate(&caller, user_agent);
        let mut identity = self.identity();
        if identity.caller.is_ok() && !identity.access.has_changed() {
            identity.caller = Ok(caller.clone());
        }
        Ok(caller)
    }

    /// A caller, with the way that its requests come over this connection.
    pub(in crate::front) fn locate(
        &self,
        caller: &Caller,
        user_agent: Option<&HeaderValue>,
    ) -> Arc<Caller> {
        locate(caller, &self.peer, user_agent)
    }

    /// The principal of the certificate, if the peer has shown one.
    pub(in crate::front) fn certificate_caller(&self) -> Option<Result<Arc<Caller>, AuthFailure>> {
        self.peer.certificate().map(|_| self.caller())
    }

    /// Returns when a caller that was known, at first or since a reload, is known no longer.
    pub(in crate::front) async fn identity_revoked(&self) {
        let mut access = self.identity().access.clone();
        let mut was_known = false;
        loop {
            let is_known = self.caller().is_ok();
            if was_known && !is_known {
                return;
            }
            was_known = is_known;
            // Timers do not follow the wall clock, so that is looked at now and then.
            let time_left = self.peer.certificate().map_or(LOOK, |it| it.time_left());
            tokio::select! {
                changed = access.changed() => {
                    if changed.is_err() {
                        return pending().await;
                    }
                }
                () = sleep(time_left.clamp(Duration::from_secs(1), LOOK)) => {}
            }
        }
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().expect(UNPOISONED)
    }
}

fn locate(caller: &Caller, peer: &Peer, user_agent: Option<&HeaderValue>) -> Arc<Caller> {
    let is_temporary = caller.session_role().is_some();
    let issued = peer.certificate().map(|certificate| certificate.begins());
    Arc::new(caller.clone().from(RequestOrigin {
        is_secure: caller.origin().is_secure,
        source_ip: peer.ip(),
        user_agent: shown(user_agent).map(str::to_owned),
        proof_issued: issued.filter(|_| is_temporary),
    }))
}

fn shown(user_agent: Option<&HeaderValue>) -> Option<&str> {
    user_agent.and_then(|user_agent| user_agent.to_str().ok())
}

const UNPOISONED: &str = "nobody panics with this lock held";
const LOOK: Duration = Duration::from_mins(10);
