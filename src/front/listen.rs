//! The accept loop: bounded, and drained in order. What is spoken on its connections is the
//! protocol's.

use std::{
    error::Error as StdError,
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Gate, Listen, SocketMode,
    guest::Guest,
    handshake::{self, Refusals},
    peer::Peer,
    socket_file::{self, SocketFile},
    strangers::{Stay, Strangers},
};

/// What is spoken on the connections of a listener.
pub trait Protocol: Send + Sync + 'static {
    /// Who may come in, now and after each reload.
    fn gate(&self) -> watch::Receiver<Arc<Gate>>;

    /// Serves one connection until it ends. When `draining` turns true, calls in flight are
    /// answered and no more are taken.
    fn converse<S>(
        self: Arc<Self>,
        stream: S,
        guest: Guest,
        draining: watch::Receiver<bool>,
    ) -> impl Future<Output = Ended> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

/// How a connection ended.
pub(super) type Ended = Result<(), Box<dyn StdError + Send + Sync>>;

/// A bound address that nobody is served on yet.
pub struct Listener {
    socket: Socket,
    max_connections: u32,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Binds, so that clients may connect; they wait until [`serve`] runs. `mode` is for a Unix socket.
///
/// # Errors
/// The address and what is wrong with it. Must be called inside a runtime.
pub fn bind(
    listen: &Listen,
    mode: Option<SocketMode>,
    max_connections: u32,
) -> Result<Listener, BindFault> {
    let fault = |address: String, cause: io::Error| BindFault { address, cause };
    let socket = match listen {
        Listen::Tcp(address) => {
            Socket::Tcp(bind_tcp(*address).map_err(|cause| fault(address.to_string(), cause))?)
        }
        Listen::Unix(path) => {
            let (listener, file) = socket_file::bind(path, mode, BACKLOG)
                .map_err(|cause| fault(format!("unix:{}", path.display()), cause))?;
            Socket::Unix(listener, file)
        }
    };
    Ok(Listener {
        socket,
        max_connections,
    })
}

/// Serves until `shutdown`. Then nobody new is let in, calls in flight are answered, and what is
/// left after `grace` is dropped. Returns how many connections that were.
pub async fn serve(
    listener: Listener,
    api: Arc<impl Protocol>,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) -> usize {
    let (drain, draining) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(listener.max_connections as usize));
    let strangers = Strangers::at_most((listener.max_connections as usize).div_ceil(4));
    let refusals = Arc::new(Refusals::default());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept(&slots, &mut trouble) => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        let arrival = Arrival {
            accepted,
            stay: strangers.admit(),
            draining: draining.clone(),
        };
        connections.spawn(connection(arrival, api.clone(), refusals.clone()));
    }

    // The address is free before the drain: a successor may already bind it.
    drop(listener);
    drain.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(grace, drained).await.is_ok() {
        return 0;
    }
    let left = connections.len();
    connections.shutdown().await;
    left
}

impl Listener {
    /// The address, with the port that the kernel chose for port 0.
    pub fn address(&self) -> String {
        match &self.socket {
            Socket::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "tcp".into(), |address| address.to_string()),
            Socket::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct BindFault {
    address: String,
    cause: io::Error,
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

/// A connection that has a slot; the slot is free again when the connection is dropped.
struct Accepted {
    stream: Stream,
    peer: Peer,
    slot: OwnedSemaphorePermit,
}

enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Socket {
    /// The next connection. One for which there is no slot waits in the kernel's queue.
    async fn accept(&self, slots: &Arc<Semaphore>, trouble: &mut Trouble) -> Accepted {
        let slot = slots
            .clone()
            .acquire_owned()
            .await
            .expect("nobody closes the slots");
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                    // Answers are small and whole: waiting for more of them only delays them.
                    let _ = stream.set_nodelay(true);
                    (Stream::Tcp(stream, address), Peer::Tcp(address))
                }),
                Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                    let credentials = stream.peer_cred().ok();
                    let peer = Peer::Unix {
                        uid: credentials.map(|them| them.uid()),
                        pid: credentials.and_then(|them| them.pid()),
                    };
                    (Stream::Unix(stream), peer)
                }),
            };
            match accepted {
                Ok((stream, peer)) => {
                    trouble.is_over();
                    return Accepted { stream, peer, slot };
                }
                Err(error) => trouble.wait(&error).await,
            }
        }
    }
}

/// Errors of accept. Most are of one connection; without a pause, "too many open files" spins.
#[derive(Default)]
struct Trouble {
    pause: Duration,
}

impl Trouble {
    async fn wait(&mut self, error: &io::Error) {
        if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
        ) {
            return;
        }
        if self.pause.is_zero() {
            tracing::warn!(%error, "connections cannot be accepted; trying again with pauses");
        }
        self.pause = (self.pause * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
        sleep(self.pause).await;
    }

    fn is_over(&mut self) {
        self.pause = Duration::ZERO;
    }
}

/// A connection that is to be served.
struct Arrival {
    accepted: Accepted,
    stay: Stay,
    draining: watch::Receiver<bool>,
}

async fn connection(arrival: Arrival, api: Arc<impl Protocol>, refusals: Arc<Refusals>) {
    let Arrival {
        accepted,
        stay,
        mut draining,
    } = arrival;
    let Accepted {
        stream,
        peer,
        slot: _slot,
    } = accepted;
    tracing::debug!(%peer, "connected");
    let gate = api.gate();
    let tls = gate.borrow().tls().cloned();
    let (ended, peer) = match (stream, tls) {
        (Stream::Unix(stream), _) => {
            let shown = peer.to_string();
            let guest = Guest::new(peer, gate, stay);
            (api.converse(stream, guest, draining).await, shown)
        }
        (Stream::Tcp(stream, _), None) => {
            let shown = peer.to_string();
            let guest = Guest::new(peer, gate, stay);
            (api.converse(stream, guest, draining).await, shown)
        }
        (Stream::Tcp(stream, address), Some(tls)) => {
            let shaken = tokio::select! {
                shaken = handshake::shake(stream, &tls) => shaken,
                () = stay.is_displaced() => return,
                _ = draining.wait_for(|draining| *draining) => return,
            };
            let (stream, certificate) = match shaken {
                Ok(shaken) => shaken,
                Err(fault) => return refusals.note(&peer, &fault),
            };
            let peer = Peer::Tls(address, certificate);
            let shown = peer.to_string();
            tracing::debug!(peer = shown, "the handshake is done");
            let guest = Guest::new(peer, gate, stay);
            (api.converse(stream, guest, draining).await, shown)
        }
    };
    match ended {
        Ok(()) => tracing::debug!(peer, "disconnected"),
        Err(error) => tracing::debug!(peer, %error, "the connection broke"),
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

    fn at(listen: &Listen, mode: Option<SocketMode>) -> Result<Listener, BindFault> {
        bind(listen, mode, 2)
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
