//! What a connection itself tells of its other end.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::certificate::ClientCertificate;

/// Who is on the other end of a connection, as far as the connection itself tells.
#[derive(Debug)]
pub(in crate::front) enum Peer {
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
    pub(in crate::front) fn certificate(&self) -> Option<&ClientCertificate> {
        match self {
            Self::Tls(_, certificate) => certificate.as_ref(),
            Self::Tcp(_) | Self::Unix { .. } => None,
        }
    }
}

impl Peer {
    /// The address, of which IPv4's is never in the form of IPv6; none over a Unix socket.
    pub(in crate::front) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => Some(address.ip().to_canonical()),
            Self::Unix { .. } => None,
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
