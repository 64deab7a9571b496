use std::{fmt, net::SocketAddr};

use super::certificate::ClientCertificate;

/// Who is on the other end of a connection, as far as the connection itself tells.
#[derive(Debug)]
pub(super) enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A TCP address behind TLS, and its certificate if it has shown one.
    Tls(SocketAddr, Option<ClientCertificate>),
    /// A process on this machine.
    Unix {
        /// Its user.
        uid: Option<u32>,
        /// Its process ID when it connected.
        pid: Option<i32>,
    },
}

impl Peer {
    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        match self {
            Self::Tls(_, certificate) => certificate.as_ref(),
            Self::Tcp(_) | Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Tls(address, None) => address.fmt(f),
            Self::Tls(address, Some(certificate)) => write!(f, "{address} {certificate}"),
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
