//! The accept loop: bounded, and drained in order. What is spoken on its connections is the
//! protocol's.

use std::{error::Error as StdError, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    connections::Connections,
    handshake::{self, HandshakeFailures},
    socket::{AcceptBackoff, BindFault, Socket, Stream},
};
use crate::{
    front::{
        auth::{
            access::AccessWatch,
            connection::ClientConnection,
            peer::Peer,
            pre_auth::{PreAuthConnections, PreAuthSlot},
        },
        log_limit::LogLimit,
        settings::{Listen, SocketMode},
        tls::Tls,
    },
    model::seconds,
};

/// What is spoken on the connections of a listener.
pub trait Protocol: Send + Sync + 'static {
    /// Who callers are, now and after each reload.
    fn access(&self) -> AccessWatch;

    /// Serves one connection until it ends. When `draining` turns true, calls in flight are
    /// answered and no more are taken.
    fn serve_connection<S>(
        self: Arc<Self>,
        stream: S,
        connection: ClientConnection,
        draining: watch::Receiver<bool>,
    ) -> impl Future<Output = ConnectionResult> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

/// How a connection ended.
pub(in crate::front) type ConnectionResult = Result<(), Box<dyn StdError + Send + Sync>>;

/// A bound address that nobody is served on yet.
pub struct Listener {
    section: &'static str,
    socket: Socket,
    max_connections: u32,
    full: watch::Sender<bool>,
    pre_auth: Arc<PreAuthConnections>,
    failures: Arc<HandshakeFailures>,
}

/// Binds, so that clients may connect; they wait until [`serve`] runs. `section` is that of the
/// configuration, `grpc` or `aws`; `mode` is for a Unix socket.
///
/// # Errors
/// The address and what is wrong with it. Must be called inside a runtime.
pub fn bind(
    section: &'static str,
    listen: &Listen,
    mode: Option<SocketMode>,
    max_connections: u32,
) -> Result<Listener, BindFault> {
    let socket = Socket::bind(listen, mode)?;
    Ok(Listener {
        section,
        socket,
        max_connections,
        full: watch::Sender::new(false),
        pre_auth: PreAuthConnections::new(section, max_connections),
        failures: Arc::new(HandshakeFailures::new(section)),
    })
}

/// Serves until `shutdown`. Then nobody new is let in, calls in flight are answered, and what is
/// left after `grace` is dropped. Returns how many connections that were.
pub async fn serve<P: Protocol>(
    listener: Listener,
    api: Arc<P>,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) -> usize {
    let (drain, draining) = watch::channel(false);
    let (pre_auth, failures) = (listener.pre_auth.clone(), listener.failures.clone());
    let mut room = Room::of(&listener);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut backoff = AcceptBackoff::default();
    loop {
        let accept = async {
            room.wait().await;
            pre_auth.place_for_one().await;
            listener.socket.accept(&mut backoff).await
        };
        let stream = tokio::select! {
            accepted = accept => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        let peer = stream.peer();
        tracing::debug!(%peer, "connected");
        let slot = pre_auth.admit(&peer);
        let (api, draining) = (api.clone(), draining.clone());
        let access = api.access();
        let tls = access.tls();
        match (stream, tls) {
            (Stream::Tcp(stream, address), Some(tls)) => {
                let arrival = TlsArrival {
                    stream,
                    address,
                    slot,
                    draining,
                };
                connections.spawn(serve_tls(arrival, tls, api, failures.clone()));
            }
            (Stream::Tcp(stream, _), None) => {
                let connection = ClientConnection::new(peer, access, slot);
                connections.spawn(serve_stream(stream, connection, api, draining));
            }
            (Stream::Unix(stream), _) => {
                let connection = ClientConnection::new(peer, access, slot);
                connections.spawn(serve_stream(stream, connection, api, draining));
            }
        }
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
    /// Whether it has as many connections of known callers as its settings allow.
    pub fn full(&self) -> watch::Receiver<bool> {
        self.full.subscribe()
    }

    /// Its connections, now and whenever it is looked at, also while it serves.
    pub fn connections(&self) -> Connections {
        Connections {
            wire: self.section,
            limit: self.max_connections as usize,
            pre_auth: self.pre_auth.clone(),
            failures: self.failures.clone(),
        }
    }

    /// The address, with the port that the kernel chose for port 0.
    pub fn address(&self) -> String {
        self.socket.address()
    }
}

/// Whether another caller may come in. While as many as the settings allow are here, newcomers wait in
/// the kernel's queue.
struct Room {
    section: &'static str,
    limit: usize,
    authenticated: watch::Receiver<usize>,
    /// Since when there is none.
    full_since: Option<Instant>,
    full: watch::Sender<bool>,
    log: LogLimit,
    /// Whether the log says that it is full.
    is_told: bool,
}

impl Room {
    fn of(listener: &Listener) -> Self {
        Self {
            section: listener.section,
            limit: listener.max_connections as usize,
            authenticated: listener.pre_auth.authenticated(),
            full_since: None,
            full: listener.full.clone(),
            log: LogLimit::new(),
            is_told: false,
        }
    }

    async fn wait(&mut self) {
        let limit = self.limit;
        if *self.authenticated.borrow() >= limit {
            self.full_since.get_or_insert_with(Instant::now);
            self.full.send_replace(true);
            if let Some(times) = self.log.pass() {
                self.is_told = true;
                tracing::warn!(
                    event = "listener_full",
                    listener = self.section,
                    max_connections = limit,
                    count = times,
                    "the listener has as many connections as it may have: more wait until one ends"
                );
            }
            // An error says that nobody counts any more: the listener is ending.
            let _ = self.authenticated.wait_for(|count| *count < limit).await;
        }
        if let Some(since) = self.full_since.take() {
            self.full.send_replace(false);
            let full_s = seconds(since.elapsed());
            let listener = self.section;
            // Where each call has a connection of its own, a listener may be full many times a second.
            if std::mem::take(&mut self.is_told) {
                tracing::info!(
                    event = "listener_has_room",
                    listener,
                    full_s,
                    "the listener has room again"
                );
            } else {
                tracing::debug!(listener, full_s, "the listener has room again");
            }
        }
    }
}

/// A TCP connection that TLS is to be spoken on.
struct TlsArrival {
    stream: TcpStream,
    address: SocketAddr,
    slot: PreAuthSlot,
    draining: watch::Receiver<bool>,
}

async fn serve_tls<P: Protocol>(
    arrival: TlsArrival,
    tls: Arc<Tls>,
    api: Arc<P>,
    failures: Arc<HandshakeFailures>,
) {
    let TlsArrival {
        stream,
        address,
        slot,
        mut draining,
    } = arrival;
    let handshake = tokio::select! {
        handshake = slot.first_look().of(handshake::accept_tls(stream, &tls)) => handshake,
        () = slot.evicted() => return,
        _ = draining.wait_for(|draining| *draining) => return,
    };
    let (stream, certificate) = match handshake {
        Ok(done) => done,
        Err(fault) => return failures.note(&Peer::Tls(address, None), &fault),
    };
    let peer = Peer::Tls(address, certificate);
    tracing::debug!(%peer, "the handshake is done");
    let connection = ClientConnection::new(peer, api.access(), slot);
    serve_stream(stream, connection, api, draining).await;
}

async fn serve_stream<P, S>(
    stream: S,
    connection: ClientConnection,
    api: Arc<P>,
    draining: watch::Receiver<bool>,
) where
    P: Protocol,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = connection.peer.to_string();
    let look = connection.slot.first_look();
    let serving = api.serve_connection(stream, connection, draining);
    match look.of(serving).await {
        Ok(()) => tracing::debug!(peer, "disconnected"),
        Err(error) => tracing::debug!(peer, reason = %error, "the connection broke"),
    }
}
