//! Who may come in on each listener, and by what proof: read at one time, and replaced at one.
//!
//! Promises: no connection of one listener is judged by what was said later than what judges one of the
//! other; nobody is authenticated by a mixture of before and after.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    access_key::AccessKeys, authenticator::Authenticator, failure::AuthFailure, peer::Peer,
};
use crate::{front::tls::Tls, model::Caller};

/// What authenticates the callers of both listeners.
#[derive(Debug, Default)]
pub struct Access {
    /// The callers of gRPC's listener.
    pub grpc: Authenticator,
    /// The callers of AWS's, by their certificates.
    pub aws: Authenticator,
    /// The callers of AWS's, by their signatures.
    pub access_keys: AccessKeys,
}

impl Access {
    /// Each certificate and revocation list, with its listener (`grpc`, `aws`), the setting that names it
    /// and when it ends, in seconds since 1970.
    pub fn ends(&self) -> Vec<(&'static str, &'static str, i64)> {
        let listeners = [("grpc", &self.grpc), ("aws", &self.aws)];
        let with_tls = listeners
            .into_iter()
            .filter_map(|(wire, one)| Some((wire, one.tls()?)));
        with_tls
            .flat_map(|(wire, tls)| tls.all_ends().map(move |(kind, ends)| (wire, kind, ends)))
            .collect()
    }
}

/// What authenticates the callers of one listener, now and after each reload.
#[derive(Clone)]
pub struct AccessWatch {
    access: watch::Receiver<Arc<Access>>,
    of_listener: fn(&Access) -> &Authenticator,
}

impl AccessWatch {
    pub(in crate::front) fn new(
        access: watch::Receiver<Arc<Access>>,
        of_listener: fn(&Access) -> &Authenticator,
    ) -> Self {
        Self {
            access,
            of_listener,
        }
    }

    /// All that is said now, of both listeners.
    pub(in crate::front) fn now(&self) -> Arc<Access> {
        self.access.borrow().clone()
    }

    /// The TLS of the listener; none if its connections are plain.
    pub(in crate::front) fn tls(&self) -> Option<Arc<Tls>> {
        (self.of_listener)(&self.access.borrow()).tls().cloned()
    }

    /// The principal on the other end of a connection, as of now; what was said until now is not a
    /// change any more.
    ///
    /// # Errors
    /// Those of [`Authenticator::caller`].
    pub(in crate::front) fn caller(&mut self, peer: &Peer) -> Result<Arc<Caller>, AuthFailure> {
        (self.of_listener)(&self.access.borrow_and_update()).caller(peer)
    }

    /// Whether something else is said than when [`caller`](Self::caller) was asked last.
    pub(in crate::front) fn has_changed(&self) -> bool {
        self.access.has_changed().unwrap_or(false)
    }

    /// Returns at the next change.
    ///
    /// # Errors
    /// There will be none.
    pub(in crate::front) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.access.changed().await
    }
}
