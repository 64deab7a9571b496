//! One connection of HTTP/1.1: bounded in time and in what it makes us hold, and less so while nobody
//! knows who is on its other end.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};

use super::{
    super::{
        auth::{access::AccessWatch, connection::ClientConnection},
        listener::accept::{ConnectionResult, Protocol},
    },
    Api,
    sender::Sender,
};

impl Protocol for Api {
    fn access(&self) -> AccessWatch {
        self.access.clone()
    }

    async fn serve_connection<S>(
        self: Arc<Self>,
        stream: S,
        connection: ClientConnection,
        mut draining: watch::Receiver<bool>,
    ) -> ConnectionResult
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (api, sender) = (&*self, &Sender::new(&connection));
        let slot = &connection.slot;
        let service = service_fn(move |request: http::Request<Incoming>| async move {
            slot.request_started();
            let answer = api.answer(request, sender).await;
            slot.request_answered();
            Ok::<_, Infallible>(answer)
        });
        let mut serving = pin!(http1().serve_connection(TokioIo::new(stream), service));
        let goodbye = tokio::select! {
            // Who has to go is heard first: what has arrived may prove who it is.
            biased;
            ended = serving.as_mut() => return Ok(ended?),
            () = slot.auth_timed_out() => Some(slot.goodbye()),
            () = connection.identity_revoked() => Some(REVOKED_GOODBYE),
            _ = draining.wait_for(|draining| *draining) => None,
        };
        // Who is being answered hears the end of it; whose request has not arrived yet does not.
        if !slot.has_request() && !slot.is_authenticated() {
            return Ok(());
        }
        serving.as_mut().graceful_shutdown();
        match goodbye {
            // The accept loop waits for all of them, as long as a drain may take.
            None => Ok(serving.await?),
            // Security: whoever does not read the goodbye does not keep the connection by that.
            Some(goodbye) => timeout(goodbye, serving)
                .await
                .map_or(Ok(()), |ended| Ok(ended?)),
        }
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Counts while a connection is idle, too.
        .header_read_timeout(IDLE)
        .max_buf_size(32 << 10);
    builder
}

/// How long a caller's connection may say nothing; AWS's clients keep theirs for a minute at most.
const IDLE: Duration = Duration::from_secs(75);
/// How long calls of a caller that has lost its rights may go on.
const REVOKED_GOODBYE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        task::JoinHandle,
        time::{Instant, sleep},
    };

    use super::{
        super::{
            super::auth::{
                peer::Peer,
                pre_auth::{AUTH_TIMEOUT, PreAuthConnections},
            },
            tests::api,
        },
        *,
    };

    struct Server {
        api: Arc<Api>,
        pre_auth: Arc<PreAuthConnections>,
    }

    fn server(pre_auth: usize) -> Server {
        Server {
            api: api(),
            pre_auth: PreAuthConnections::at_most("aws", pre_auth),
        }
    }

    struct Connected {
        client: DuplexStream,
        drain: watch::Sender<bool>,
        ended: JoinHandle<ConnectionResult>,
    }

    fn connect(server: &Server) -> Connected {
        let (client, stream) = duplex(1 << 20);
        let (drain, draining) = watch::channel(false);
        let peer = Peer::Tcp(([127, 0, 0, 1], 9).into());
        let api = server.api.clone();
        let slot = server.pre_auth.admit(&peer);
        let connection = ClientConnection::new(peer, api.access(), slot);
        Connected {
            client,
            drain,
            ended: tokio::spawn(
                async move { api.serve_connection(stream, connection, draining).await },
            ),
        }
    }

    async fn rest(client: &mut DuplexStream) -> String {
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_says_it_slowly_is_gone_after_ten_seconds() {
        let server = server(1);
        for slowly in [false, true] {
            let began = Instant::now();
            let mut connected = connect(&server);
            if slowly {
                for byte in b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Long: aaaaaaaaaaaaaaaaaaaa" {
                    if connected.client.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(400)).await;
                }
            }
            assert_eq!(rest(&mut connected.client).await, "");
            connected.ended.await.unwrap().unwrap();
            let stayed = began.elapsed();
            assert!(
                stayed >= AUTH_TIMEOUT && stayed < AUTH_TIMEOUT * 3,
                "{stayed:?} {slowly}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_told_so() {
        let mut connected = connect(&server(1));
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 100\r\n\r\n{";
        connected.client.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut connected.client).await;
        assert!(
            answer.starts_with("HTTP/1.1 408 Request Timeout"),
            "{answer}"
        );
        connected.ended.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_takes_the_place_of_who_has_been_silent_for_longest() {
        let server = server(2);
        let began = Instant::now();
        let mut silent: Vec<Connected> = Vec::new();
        for _ in 0..20 {
            silent.push(connect(&server));
            tokio::task::yield_now().await;
        }
        let mut caller = connect(&server);
        let get = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        caller.client.write_all(get).await.unwrap();
        let answer = rest(&mut caller.client).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        // The last of them is left, and has its ten seconds.
        let last = silent.pop().unwrap();
        for connected in silent {
            connected.ended.await.unwrap().unwrap();
        }
        assert!(began.elapsed() < AUTH_TIMEOUT);
        assert!(!last.ended.is_finished());
        last.ended.await.unwrap().unwrap();
        assert!(server.pre_auth.count() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whose_request_may_be_signed_keeps_its_place() {
        let server = server(4);
        let now = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
        let (stamp, day) = (now.format("%Y%m%dT%H%M%SZ"), now.format("%Y%m%d"));
        for (access_key, status) in [("AKIDEXAMPLE", "400"), ("AKIDNOBODY", "503")] {
            let mut has_request = connect(&server);
            let head = format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\n\
                 X-Amz-Target: TrentService.ListKeys\r\nX-Amz-Date: {stamp}\r\n\
                 Authorization: AWS4-HMAC-SHA256 Credential={access_key}/{day}/us-west-2/kms/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature={:064}\r\n\
                 Connection: close\r\nContent-Length: 2\r\n\r\n{{",
                0
            );
            has_request.client.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            let silent: Vec<Connected> = (0..20).map(|_| connect(&server)).collect();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let _ = has_request.client.write_all(b"}").await;
            let answer = rest(&mut has_request.client).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{access_key}: {answer}"
            );
            drop(silent);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_idle_connections_at_once() {
        let server = server(2);
        let (silent, waiting) = (connect(&server), connect(&server));
        let began = Instant::now();
        for connected in [silent, waiting] {
            connected.drain.send_replace(true);
            connected.ended.await.unwrap().unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn garbage_ends_the_connection_and_nothing_else() {
        let server = server(1);
        for garbage in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            &[b'a'; 1 << 17],
        ] {
            let mut connected = connect(&server);
            let _ = connected.client.write_all(garbage).await;
            let answer = rest(&mut connected.client).await;
            let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            assert!(refused, "{answer}");
            drop(connected.ended.await.unwrap());
        }
    }
}
