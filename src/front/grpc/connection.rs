//! One connection of HTTP/2: bounded in time and in what it makes us hold, and less so while nobody
//! knows who is on its other end.

use std::{
    convert::Infallible,
    error::Error as _,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::header;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::watch,
    time::{sleep, timeout},
};
use tonic::body::Body;

use super::{
    super::{
        auth::{access::AccessWatch, connection::ClientConnection, peer::Peer},
        listener::accept::{ConnectionResult, Protocol},
        log_limit::LogLimit,
    },
    Api, StrangerAddress,
    flood::{Flood, FloodLimits, GuardedIo},
    is_stream,
    streams::StreamOrigin,
};

impl Protocol for Api {
    fn access(&self) -> AccessWatch {
        self.access.clone()
    }

    async fn serve_connection<S>(
        self: Arc<Self>,
        mut stream: S,
        connection: ClientConnection,
        mut draining: watch::Receiver<bool>,
    ) -> ConnectionResult
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // A peer that says nothing, or not this, costs no HTTP/2 state and is gone soon.
        let mut preface = [0; PREFACE.len()];
        tokio::select! {
            read = timeout(PREFACE_TIMEOUT, stream.read_exact(&mut preface)) => { read??; }
            () = connection.slot.auth_timed_out() => return Ok(()),
            _ = draining.wait_for(|draining| *draining) => return Ok(()),
        }
        if preface != *PREFACE {
            return Err("it does not begin with the preface of HTTP/2".into());
        }

        let (limits, builder) = if connection.slot.is_authenticated() {
            (FloodLimits::of_caller(), http2(self.max_streams))
        } else {
            (
                FloodLimits::before_authentication(),
                http2_before_authentication(),
            )
        };
        let calls = Arc::new(OpenCalls::default());
        let connection = Arc::new(connection);
        let (stream_draining, streams) = (draining.clone(), Arc::default());
        let service = service_fn(|mut request: http::Request<Incoming>| {
            let user_agent = request.headers().get(header::USER_AGENT);
            let api = self.clone();
            let caller = (self.calls).authenticating(|| connection.caller_by(user_agent));
            let call = calls.begin();
            let is_stream = is_stream(request.uri().path());
            if is_stream {
                let origin = StreamOrigin {
                    connection: connection.clone(),
                    user_agent: user_agent.cloned(),
                    draining: stream_draining.clone(),
                    streams: Arc::clone(&streams),
                };
                request.extensions_mut().insert(origin);
            }
            if let (Err(_), Some(address)) = (&caller, connection.peer.ip()) {
                request.extensions_mut().insert(StrangerAddress(address));
            }
            // Boxed here: hyper and tokio hand a call's future on by value, and this one is large.
            Box::pin(async move {
                let response = api.answer(request, caller).await;
                // An answer that is no stream is complete, and its connection in use no longer.
                Ok::<_, Infallible>(if is_stream {
                    response.map(|body| Body::new(StreamBody { body, _call: call }))
                } else {
                    response
                })
            })
        });
        let io = GuardedIo::new(stream, PREFACE, limits);
        let end = End {
            peer: &connection.peer,
            flood: io.flood(),
            log: &self.floods,
        };
        let mut serving = pin!(builder.serve_connection(TokioIo::new(io), service));
        let goodbye = tokio::select! {
            ended = serving.as_mut() => return end.tell(ended),
            () = connection.slot.auth_timed_out() => Some(connection.slot.goodbye()),
            () = connection.identity_revoked() => Some(REVOKED_GOODBYE),
            () = calls.idle() => Some(connection.slot.goodbye()),
            _ = draining.wait_for(|draining| *draining) => None,
        };
        serving.as_mut().graceful_shutdown();
        let goodbye_time = connection.slot.goodbye();
        match goodbye {
            // The accept loop waits for all of them, as long as a drain may take; not for a peer that
            // has no call open and does not answer.
            None => tokio::select! {
                ended = serving => end.tell(ended),
                () = calls.none_for(goodbye_time) => Ok(()),
            },
            // Security: whoever does not read the goodbye does not keep the connection by that.
            Some(goodbye) => match timeout(goodbye, serving).await {
                Ok(ended) => end.tell(ended),
                Err(_) => Ok(()),
            },
        }
    }
}

/// How a connection ends.
struct End<'a> {
    peer: &'a Peer,
    flood: Arc<OnceLock<Flood>>,
    log: &'a LogLimit,
}

impl End<'_> {
    /// A flood is told in the log: by our count, or by h2's.
    fn tell(&self, ended: hyper::Result<()>) -> ConnectionResult {
        let Err(error) = ended else {
            return Ok(());
        };
        let by_h2 = || {
            let cause = error.source()?.to_string();
            cause.contains("excessive load").then_some(cause)
        };
        let flood = self.flood.get().map(ToString::to_string).or_else(by_h2);
        if let Some(flood) = flood
            && let Some(count) = self.log.pass()
        {
            let peer = self.peer;
            tracing::warn!(event = "floods_closed", %peer, reason = flood, count, "connections were closed for what peers sent; this is the last of them");
        }
        Err(error.into())
    }
}

/// The calls of a connection, to see when it is idle.
#[derive(Default)]
struct OpenCalls {
    begun: AtomicU64,
    open: AtomicUsize,
}

impl OpenCalls {
    fn begin(self: &Arc<Self>) -> OpenCall {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenCall(self.clone())
    }

    /// Returns when no call is open, and none was a moment ago.
    async fn none_for(&self, moment: Duration) {
        loop {
            let open = self.open.load(Ordering::Relaxed);
            sleep(moment).await;
            if open == 0 && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    /// Returns when no call was made for [`IDLE`], or up to twice as long.
    async fn idle(&self) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            sleep(IDLE).await;
            if self.open.load(Ordering::Relaxed) == 0 && self.begun.load(Ordering::Relaxed) == begun
            {
                return;
            }
        }
    }
}

struct OpenCall(Arc<OpenCalls>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that goes on after its head was sent.
struct StreamBody {
    body: Body,
    _call: OpenCall,
}

impl hyper::body::Body for StreamBody {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

fn http2(max_streams: u32) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(max_streams)
        // What one connection may make us hold: the windows and one list of headers. Messages are read as
        // they come, but for the items of streams, and those often come in a frame each. h2 (0.4.20)
        // closes a connection with too many small frames that nobody has read: what they fall short of
        // 256 bytes must not be more than half of the connection's window. So the windows of all streams of
        // items (streams::OF_CONNECTION) fit in there with frames of 20 bytes, which no item is under, also
        // of a client that has not read our settings yet and sends 64 KiB in each.
        .initial_stream_window_size(16 << 10)
        .initial_connection_window_size(13 << 20)
        .max_header_list_size(16 << 10)
        // Streams that are reset before we look at them (CVE-2023-44487). Clients whose deadlines
        // pass do that too, so the limit follows what they may have open.
        .max_pending_accept_reset_streams(max_streams.clamp(20, 1024) as usize)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20))
        .auto_date_header(false);
    builder
}

/// For a peer that may ask for health, and is refused everything else before its body is read.
fn http2_before_authentication() -> http2::Builder<TokioExecutor> {
    let mut builder = http2(4);
    builder
        .initial_stream_window_size(1 << 10)
        // The least that the protocol has.
        .initial_connection_window_size((64 << 10) - 1)
        .max_header_list_size(8 << 10)
        .max_send_buf_size(8 << 10)
        .header_table_size(0);
    builder
}

/// The first bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that makes no call for so long connects again for its next: within a round trip, and
/// without an error to its caller.
const IDLE: Duration = Duration::from_mins(15);
/// How long calls of a caller that has lost its rights may go on.
const REVOKED_GOODBYE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use tokio::{
        io::AsyncWriteExt as _, net::TcpStream, sync::oneshot, task::JoinHandle, time::Instant,
    };
    use tonic::{
        Code, Request,
        transport::{Channel, Endpoint},
    };
    use tonic_prost::ProstCodec;

    use super::*;
    use crate::{
        front::{
            auth::{access::Access, authenticator::Authenticator, pre_auth::PreAuthConnections},
            bind, serve,
            settings::{GrpcSettings, Listen, PrincipalArn},
        },
        kms::testing::without_tokens,
        model::Caller,
        proto::v1::{
            GenerateMacRequest, GenerateMacResponse, ListKeysRequest,
            key_service_client::KeyServiceClient, mac_service_client::MacServiceClient,
        },
    };

    fn settings(listen: Listen) -> GrpcSettings {
        let caller = Caller::parse("arn:aws:iam::111122223333:user/billing").unwrap();
        GrpcSettings {
            listen,
            anonymous: Some(PrincipalArn(caller)),
            reflection: false,
            default_deadline: Duration::from_secs(5),
            max_connections: 2,
            max_streams: 16,
            secure_unix_socket: true,
            mode: None,
            tls: None,
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

    async fn run(settings: GrpcSettings, grace: Duration) -> Running {
        let listener = bind(
            "grpc",
            &settings.listen,
            settings.mode,
            settings.max_connections,
        )
        .unwrap();
        let anonymous = settings.anonymous.as_ref().map(|one| &one.0);
        let access = Access {
            grpc: Authenticator::new(None, &[], anonymous),
            ..Access::default()
        };
        let (_, access) = watch::channel(Arc::new(access));
        let (api, _) = Api::new(without_tokens(), &settings, access, Arc::default()).await;
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
            let settings = GrpcSettings {
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

    /// PINGs go on meanwhile: they say that the peer is there, and not that it has something to ask.
    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_call_is_closed_after_a_quarter_of_an_hour() {
        let settings = settings(loopback());
        let anonymous = settings.anonymous.as_ref().map(|one| &one.0);
        let access = Access {
            grpc: Authenticator::new(None, &[], anonymous),
            ..Access::default()
        };
        let (_sender, access) = watch::channel(Arc::new(access));
        let (api, _) = Api::new(without_tokens(), &settings, access, Arc::default()).await;
        let (client, server) = tokio::io::duplex(1 << 20);
        let peer = Peer::Tcp(([127, 0, 0, 1], 9).into());
        let slot = PreAuthConnections::at_most("grpc", 4).admit(&peer);
        let connection = ClientConnection::new(peer, api.access(), slot);
        let (_drain, draining) = watch::channel(false);
        let serving = tokio::spawn(api.serve_connection(server, connection, draining));

        let mut client = Some(TokioIo::new(client));
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let client = client.take().ok_or(std::io::ErrorKind::ConnectionRefused);
                async move { client.map_err(std::io::Error::from) }
            }))
            .await
            .unwrap();
        let mut keys = KeyServiceClient::new(channel);
        let began = Instant::now();
        keys.list_keys(ListKeysRequest::default()).await.unwrap();
        // The client hangs up when it is told: whether that is an error of the connection does not matter.
        let ended = timeout(3 * IDLE, serving).await;
        let _ = ended.expect("it stays").unwrap();
        let idle = began.elapsed();
        assert!(
            idle >= IDLE && idle <= 2 * IDLE + REVOKED_GOODBYE,
            "{idle:?}"
        );
    }

    const LONG: Duration = Duration::from_secs(10);
}
