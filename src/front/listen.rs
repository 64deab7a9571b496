//! The accept loop: bounded, deaf to garbage, and drained in order.

use std::{
    error::Error as StdError,
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Listen, Peer, Settings,
    grpc::Api,
    socket_file::{self, SocketFile},
};

/// A bound address that nobody is served on yet.
pub struct Listener {
    socket: Socket,
    max_connections: u32,
    max_streams: u32,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Binds, so that clients may connect; they wait until [`serve`] runs.
///
/// # Errors
/// The address and what is wrong with it. Must be called inside a runtime.
pub fn bind(settings: &Settings) -> Result<Listener, BindFault> {
    let fault = |address: String, cause: io::Error| BindFault { address, cause };
    let socket = match &settings.listen {
        Listen::Tcp(address) => {
            Socket::Tcp(bind_tcp(*address).map_err(|cause| fault(address.to_string(), cause))?)
        }
        Listen::Unix(path) => {
            let (listener, file) = socket_file::bind(path, settings.mode, BACKLOG)
                .map_err(|cause| fault(format!("unix:{}", path.display()), cause))?;
            Socket::Unix(listener, file)
        }
    };
    Ok(Listener {
        socket,
        max_connections: settings.max_connections,
        max_streams: settings.max_streams,
    })
}

/// Serves until `shutdown`. Then nobody new is let in, calls in flight are answered, and what is
/// left after `grace` is dropped. Returns how many connections that were.
pub async fn serve(
    listener: Listener,
    api: Arc<Api>,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) -> usize {
    let (drain, draining) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(listener.max_connections as usize));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept(&slots, &mut trouble) => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        connections.spawn(connection(
            accepted,
            api.clone(),
            listener.max_streams,
            draining.clone(),
        ));
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
                "{address} is in use by another process; stop that one or set another grpc.listen"
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
    Tcp(TcpStream),
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
                    (Stream::Tcp(stream), Peer::Tcp(address))
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

async fn connection(
    accepted: Accepted,
    api: Arc<Api>,
    max_streams: u32,
    draining: watch::Receiver<bool>,
) {
    let Accepted {
        stream,
        peer,
        slot: _slot,
    } = accepted;
    tracing::debug!(%peer, "connected");
    let ended = match stream {
        Stream::Tcp(stream) => converse(stream, &peer, api, max_streams, draining).await,
        Stream::Unix(stream) => converse(stream, &peer, api, max_streams, draining).await,
    };
    match ended {
        Ok(()) => tracing::debug!(%peer, "disconnected"),
        Err(error) => tracing::debug!(%peer, %error, "the connection broke"),
    }
}

async fn converse<S>(
    mut stream: S,
    peer: &Peer,
    api: Arc<Api>,
    max_streams: u32,
    mut draining: watch::Receiver<bool>,
) -> Result<(), Box<dyn StdError + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // A peer that says nothing, or not this, costs no HTTP/2 state and is gone soon.
    let mut preface = [0; PREFACE.len()];
    tokio::select! {
        read = timeout(PREFACE_TIMEOUT, stream.read_exact(&mut preface)) => { read??; }
        _ = draining.wait_for(|draining| *draining) => return Ok(()),
    }
    if preface != *PREFACE {
        return Err("it does not begin with the preface of HTTP/2".into());
    }

    let caller = peer.caller(api.anonymous());
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (api, caller) = (api.clone(), caller.clone());
        async move { Ok::<_, std::convert::Infallible>(api.answer(request, caller).await) }
    });
    let io = TokioIo::new(Greeted {
        preface: PREFACE,
        stream,
        gathered: false,
    });
    let mut conversation = pin!(http2(max_streams).serve_connection(io, service));
    tokio::select! {
        ended = conversation.as_mut() => return Ok(ended?),
        _ = draining.wait_for(|draining| *draining) => {}
    }
    conversation.as_mut().graceful_shutdown();
    Ok(conversation.await?)
}

fn http2(max_streams: u32) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(max_streams)
        // What one connection may make us hold: the windows and one list of headers.
        .initial_stream_window_size(128 << 10)
        .initial_connection_window_size(512 << 10)
        .max_header_list_size(16 << 10)
        // Streams that are reset before we look at them (CVE-2023-44487). Clients whose deadlines
        // pass do that too, so the limit follows what they may have open.
        .max_pending_accept_reset_streams(max_streams.clamp(20, 1024) as usize)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20))
        .auto_date_header(false);
    builder
}

/// A stream whose first bytes were read ahead, and that writes what answers together.
struct Greeted<S> {
    preface: &'static [u8],
    stream: S,
    gathered: bool,
}

impl<S> Greeted<S> {
    /// Lets every task that is ready run once before a write, so that the answers of calls that
    /// ended together leave in one system call: each alone would cost more than making it.
    fn gather(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.gathered = !self.gathered;
        if self.gathered {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let (now, later) = self
            .preface
            .split_at(buffer.remaining().min(self.preface.len()));
        buffer.put_slice(now);
        self.preface = later;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.gather(context));
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.gather(context));
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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

/// The first bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
const BACKLOG: u32 = 1024;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use http::uri::PathAndQuery;
    use tokio::{io::AsyncWriteExt as _, sync::oneshot, task::JoinHandle};
    use tonic::{
        Code, Request,
        transport::{Channel, Endpoint},
    };
    use tonic_prost::ProstCodec;

    use super::*;
    use crate::{
        front::{Principal, SocketMode},
        kms::tests::without_tokens,
        model::Caller,
        proto::v1::{
            GenerateMacRequest, GenerateMacResponse, ListKeysRequest,
            key_service_client::KeyServiceClient, mac_service_client::MacServiceClient,
        },
    };

    fn settings(listen: Listen) -> Settings {
        let caller = Caller::parse("arn:aws:iam::111122223333:user/local").unwrap();
        Settings {
            listen,
            anonymous: Some(Principal(caller)),
            reflection: false,
            default_deadline: Duration::from_secs(5),
            max_connections: 2,
            max_streams: 16,
            mode: None,
        }
    }

    fn loopback() -> Listen {
        Listen::Tcp(([127, 0, 0, 1], 0).into())
    }

    struct Running {
        address: String,
        stop: oneshot::Sender<()>,
        served: JoinHandle<usize>,
    }

    async fn run(settings: Settings, grace: Duration) -> Running {
        let listener = bind(&settings).unwrap();
        let (api, _) = Api::new(without_tokens(), &settings).await;
        let address = listener.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async move { drop(stopped.await) };
        Running {
            address,
            stop,
            served: tokio::spawn(serve(listener, api, until, grace)),
        }
    }

    async fn list_keys(address: &str) -> Result<usize, Code> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.map_err(|_| Code::Unavailable)?;
        let answer = KeyServiceClient::new(channel)
            .list_keys(ListKeysRequest::default())
            .await;
        answer
            .map(|keys| keys.into_inner().keys.len())
            .map_err(|status| status.code())
    }

    /// Ends a hang.
    async fn soon<F: Future>(future: F) -> F::Output {
        timeout(Duration::from_secs(20), future)
            .await
            .expect("it hangs")
    }

    #[tokio::test]
    async fn garbage_and_giants_are_refused_while_others_are_served() {
        let Running {
            address,
            stop,
            served,
        } = run(settings(loopback()), LONG).await;
        let mut garbage = TcpStream::connect(&address).await.unwrap();
        garbage
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = soon(garbage.read_to_end(&mut answer)).await;
        assert!(answer.is_empty());

        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut giant = MacServiceClient::new(endpoint.connect().await.unwrap());
        let message = vec![0; 16 << 20].into();
        let request = GenerateMacRequest {
            message,
            ..Default::default()
        };
        let status = soon(giant.generate_mac(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("131072 bytes"), "{status:?}");

        assert_eq!(soon(list_keys(&address)).await, Ok(2));
        drop((giant, stop));
        assert_eq!(soon(served).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn one_connection_more_than_there_are_slots_waits_for_one() {
        let Running {
            address,
            stop,
            served,
        } = run(settings(loopback()), LONG).await;
        let first = TcpStream::connect(&address).await.unwrap();
        let second = TcpStream::connect(&address).await.unwrap();
        let third = tokio::spawn(async move { list_keys(&address).await });
        assert!(
            timeout(Duration::from_millis(100), second.readable())
                .await
                .is_err()
        );
        assert!(!third.is_finished());
        drop(first);
        assert_eq!(soon(third).await.unwrap(), Ok(2));
        drop((second, stop));
        assert_eq!(soon(served).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_drain_frees_the_address_and_ends_idle_connections() {
        let Running {
            address,
            stop,
            served,
        } = run(settings(loopback()), LONG).await;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut idle = KeyServiceClient::new(endpoint.connect().await.unwrap());
        soon(idle.list_keys(ListKeysRequest::default()))
            .await
            .unwrap();
        let silent = TcpStream::connect(&address).await.unwrap();
        drop(stop);
        assert_eq!(soon(served).await.unwrap(), 0);
        assert_eq!(list_keys(&address).await, Err(Code::Unavailable));
        drop(silent);
    }

    #[tokio::test]
    async fn a_drain_waits_for_calls_in_flight_but_not_for_ever() {
        for (grace, dropped, wanted) in [
            (LONG, 0, Some(Code::DeadlineExceeded)),
            (Duration::from_millis(10), 1, None),
        ] {
            let settings = Settings {
                default_deadline: Duration::from_millis(500),
                ..settings(loopback())
            };
            let Running {
                address,
                stop,
                served,
            } = run(settings, grace).await;
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let channel = endpoint.connect().await.unwrap();
            let stalled = tokio::spawn(call_without_message(channel.clone()));
            tokio::task::yield_now().await;
            // Its streams are opened in order: when this one is answered, the other is in flight.
            let mut keys = KeyServiceClient::new(channel);
            soon(keys.list_keys(ListKeysRequest::default()))
                .await
                .unwrap();

            drop(stop);
            assert_eq!(soon(served).await.unwrap(), dropped);
            let code = soon(stalled).await.unwrap();
            assert!(wanted.is_none_or(|wanted| wanted == code), "{code}");
        }
    }

    /// GenerateMac whose message never arrives.
    async fn call_without_message(channel: Channel) -> Code {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let nothing = tonic::codegen::tokio_stream::pending::<GenerateMacRequest>();
        let path = PathAndQuery::from_static("/hsmac.v1.MacService/GenerateMac");
        let codec = ProstCodec::<_, GenerateMacResponse>::default();
        client
            .client_streaming(Request::new(nothing), path, codec)
            .await
            .unwrap_err()
            .code()
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = bind(&settings(loopback())).unwrap();
        let taken = Listen::Tcp(first.address().parse().unwrap());
        let fault = bind(&settings(taken)).err().unwrap().to_string();
        assert!(fault.starts_with(&format!("{} is in use by another process", first.address())));
    }

    #[tokio::test]
    async fn a_unix_socket_keeps_out_whom_its_mode_keeps_out_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grpc.sock");
        let unix = || Listen::Unix(path.clone());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

        let listener = bind(&settings(unix())).unwrap();
        assert_eq!(mode(&path), 0o600);
        let fault = bind(&settings(unix())).err().unwrap().to_string();
        assert!(
            fault.contains("grpc.sock is in use by another process"),
            "{fault}"
        );
        drop(listener);
        assert!(!path.exists());

        // A process that was killed leaves its file; it refuses connections.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let wide = Settings {
            mode: Some(SocketMode(0o666)),
            ..settings(unix())
        };
        let listener = bind(&wide).unwrap();
        assert_eq!(mode(&path), 0o666);

        // A successor's file is not ours to remove.
        fs::remove_file(&path).unwrap();
        let successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
        drop(successor);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        let fault = bind(&settings(unix())).err().unwrap().to_string();
        assert!(fault.contains("no socket"), "{fault}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    const LONG: Duration = Duration::from_secs(10);
}
