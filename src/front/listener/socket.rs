//! Sockets that listen, and what they accept.

use std::{
    error::Error as StdError,
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    time::sleep,
};

use super::unix_socket::{self, SocketFile};
use crate::front::{
    auth::peer::Peer,
    settings::{Listen, SocketMode},
};

/// A socket that listens. A Unix socket's file goes with it.
pub enum Socket {
    /// At an address.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixListener, SocketFile),
}

/// A connection that was accepted.
pub enum Stream {
    /// With the peer's address.
    Tcp(TcpStream, SocketAddr),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Binds, so that clients may connect; `mode` is for a Unix socket.
    ///
    /// # Errors
    /// The address and what is wrong with it. Must be called inside a runtime.
    pub fn bind(listen: &Listen, mode: Option<SocketMode>) -> Result<Self, BindFault> {
        let fault = |address: String, cause: io::Error| BindFault { address, cause };
        match listen {
            Listen::Tcp(address) => bind_tcp(*address)
                .map(Self::Tcp)
                .map_err(|cause| fault(address.to_string(), cause)),
            Listen::Unix(path) => unix_socket::bind(path, mode, BACKLOG)
                .map(|(listener, file)| Self::Unix(listener, file))
                .map_err(|cause| fault(format!("unix:{}", path.display()), cause)),
        }
    }

    /// The address, with the port that the kernel chose for port 0.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "tcp".into(), |address| address.to_string()),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    /// The next connection. What prevents one is waited out.
    pub async fn accept(&self, backoff: &mut AcceptBackoff) -> Stream {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                    // Answers are small and whole: waiting for more of them only delays them.
                    let _ = stream.set_nodelay(true);
                    Stream::Tcp(stream, address)
                }),
                Self::Unix(listener, _) => {
                    let accepted = listener.accept().await;
                    accepted.map(|(stream, _)| Stream::Unix(stream))
                }
            };
            match accepted {
                Ok(accepted) => {
                    backoff.pause = Duration::ZERO;
                    return accepted;
                }
                Err(error) => backoff.wait(&error).await,
            }
        }
    }
}

impl Stream {
    pub(in crate::front) fn peer(&self) -> Peer {
        match self {
            Self::Tcp(_, address) => Peer::Tcp(*address),
            Self::Unix(stream) => {
                let credentials = stream.peer_cred().ok();
                Peer::Unix {
                    uid: credentials.map(|them| them.uid()),
                    pid: credentials.and_then(|them| them.pid()),
                }
            }
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct BindFault {
    address: String,
    cause: io::Error,
}

impl BindFault {
    /// Whether somebody else has it: hsmac itself, perhaps.
    pub fn is_in_use(&self) -> bool {
        self.cause.kind() == ErrorKind::AddrInUse
    }
}

impl fmt::Display for BindFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause } = self;
        if cause.kind() == ErrorKind::AddrInUse {
            write!(
                f,
                "{address} is in use by another process; stop that one or set another address"
            )
        } else {
            write!(f, "cannot listen on {address}: {cause}")
        }
    }
}

impl StdError for BindFault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.cause)
    }
}

/// Errors of accept. Most are of one connection; without a pause, "too many open files" spins.
#[derive(Debug, Default)]
pub struct AcceptBackoff {
    pause: Duration,
}

impl AcceptBackoff {
    async fn wait(&mut self, error: &io::Error) {
        if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
        ) {
            return;
        }
        if self.pause.is_zero() {
            tracing::warn!(event = "accept_failed", reason = %error, "connections cannot be accepted; trying again with pauses");
        }
        self.pause = (self.pause * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
        sleep(self.pause).await;
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart need not wait for old connections in TIME_WAIT; a live listener still refuses us.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

const BACKLOG: u32 = 1024;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;

    fn at(listen: &Listen, mode: Option<SocketMode>) -> Result<Socket, BindFault> {
        Socket::bind(listen, mode)
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = at(&Listen::Tcp(([127, 0, 0, 1], 0).into()), None).unwrap();
        let taken = Listen::Tcp(first.address().parse().unwrap());
        let fault = at(&taken, None).err().unwrap().to_string();
        assert!(fault.starts_with(&format!("{} is in use by another process", first.address())));
    }

    #[tokio::test]
    async fn a_unix_socket_keeps_out_whom_its_mode_keeps_out_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grpc.sock");
        let unix = || Listen::Unix(path.clone());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

        let listener = at(&unix(), None).unwrap();
        assert_eq!(mode(&path), 0o600);
        let fault = at(&unix(), None).err().unwrap().to_string();
        assert!(
            fault.contains("grpc.sock is in use by another process"),
            "{fault}"
        );
        drop(listener);
        assert!(!path.exists());

        // A process that was killed leaves its file; it refuses connections.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = at(&unix(), Some(SocketMode(0o666))).unwrap();
        assert_eq!(mode(&path), 0o666);

        // A successor's file is not ours to remove.
        fs::remove_file(&path).unwrap();
        let successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
        drop(successor);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        let fault = at(&unix(), None).err().unwrap().to_string();
        assert!(fault.contains("no socket"), "{fault}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
