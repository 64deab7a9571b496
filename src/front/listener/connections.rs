//! The connections of a listener, for those who look from outside.

use std::sync::Arc;

use super::handshake::HandshakeFailures;
use crate::front::{auth::pre_auth::PreAuthConnections, metrics::ConnectionsSnapshot};

/// The connections of a listener, also while it serves.
#[derive(Clone)]
pub struct Connections {
    pub(super) wire: &'static str,
    pub(super) limit: usize,
    pub(super) pre_auth: Arc<PreAuthConnections>,
    pub(super) failures: Arc<HandshakeFailures>,
}

impl Connections {
    /// How many there are at this moment.
    pub fn snapshot(&self) -> ConnectionsSnapshot {
        ConnectionsSnapshot {
            wire: self.wire,
            authenticated: *self.pre_auth.authenticated().borrow(),
            authenticated_limit: self.limit,
            unauthenticated: self.pre_auth.count(),
            unauthenticated_limit: self.pre_auth.limit(),
            evicted: self.pre_auth.evicted(),
            failed_handshakes: self.failures.totals(),
        }
    }
}
