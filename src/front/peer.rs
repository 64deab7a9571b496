use std::{fmt, net::SocketAddr, sync::Arc};

use crate::model::Caller;

/// Who is on the other end of a connection, as far as the kernel tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix {
        /// Its user.
        uid: Option<u32>,
        /// Its process ID when it connected.
        pid: Option<i32>,
    },
}

impl Peer {
    /// Who sends this connection's requests.
    pub(super) fn caller(&self, anonymous: Option<&Arc<Caller>>) -> Option<Arc<Caller>> {
        // Security: nothing is proved yet, neither a certificate nor a uid, so nobody is more than
        // the anonymous caller, and nobody at all unless the settings name one.
        anonymous.cloned()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix {
                uid: Some(uid),
                pid: Some(pid),
            } => write!(f, "uid {uid} pid {pid}"),
            Self::Unix {
                uid: Some(uid),
                pid: None,
            } => write!(f, "uid {uid}"),
            Self::Unix { uid: None, pid: _ } => f.write_str("unix"),
        }
    }
}
