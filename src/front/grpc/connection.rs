//! One connection of HTTP/2: deaf to garbage, bounded in what it makes us hold, and gathered writes.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    sync::watch,
    time::timeout,
};

use super::{
    super::{
        Gate,
        guest::Guest,
        listen::{Ended, Protocol},
    },
    Api,
};

impl Protocol for Api {
    fn gate(&self) -> watch::Receiver<Arc<Gate>> {
        self.gate.subscribe()
    }

    async fn converse<S>(
        self: Arc<Self>,
        mut stream: S,
        guest: Guest,
        mut draining: watch::Receiver<bool>,
    ) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // A peer that says nothing, or not this, costs no HTTP/2 state and is gone soon.
        let mut preface = [0; PREFACE.len()];
        tokio::select! {
            read = timeout(PREFACE_TIMEOUT, stream.read_exact(&mut preface)) => { read??; }
            () = guest.stay.is_displaced() => return Ok(()),
            _ = draining.wait_for(|draining| *draining) => return Ok(()),
        }
        if preface != *PREFACE {
            return Err("it does not begin with the preface of HTTP/2".into());
        }

        let max_streams = self.max_streams;
        let service = service_fn(|request: http::Request<Incoming>| {
            let (api, caller) = (self.clone(), guest.caller());
            async move { Ok::<_, Infallible>(api.answer(request, caller).await) }
        });
        let io = TokioIo::new(Greeted {
            preface: PREFACE,
            stream,
            gathered: false,
        });
        let mut conversation = pin!(http2(max_streams).serve_connection(io, service));
        tokio::select! {
            ended = conversation.as_mut() => return Ok(ended?),
            () = guest.falls() => {}
            () = guest.stay.is_displaced() => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
        conversation.as_mut().graceful_shutdown();
        Ok(conversation.await?)
    }
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

/// The first bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::oneshot, task::JoinHandle};
    use tonic::{
        Code, Request,
        transport::{Channel, Endpoint},
    };
    use tonic_prost::ProstCodec;

    use super::*;
    use crate::{
        front::{Gate, GrpcSettings, Listen, Principal, bind, serve},
        kms::tests::without_tokens,
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
            anonymous: Some(Principal(caller)),
            reflection: false,
            default_deadline: Duration::from_secs(5),
            max_connections: 2,
            max_streams: 16,
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
        let listener = bind(&settings.listen, settings.mode, settings.max_connections).unwrap();
        let anonymous = settings.anonymous.as_ref().map(|one| &one.0);
        let gate = Gate::new(None, &[], anonymous);
        let (api, _) = Api::new(without_tokens(), &settings, gate).await;
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

    const LONG: Duration = Duration::from_secs(10);
}
