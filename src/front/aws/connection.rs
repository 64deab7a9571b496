//! One connection of HTTP/1.1: nobody keeps it for long without saying something, or without proving
//! who it is.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::{
    super::{
        Gate,
        guest::Guest,
        listen::{Ended, Protocol},
    },
    Api, Proof,
};

impl Protocol for Api {
    fn gate(&self) -> watch::Receiver<Arc<Gate>> {
        self.gate.subscribe()
    }

    async fn converse<S>(
        self: Arc<Self>,
        stream: S,
        guest: Guest,
        mut draining: watch::Receiver<bool>,
    ) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (api, guest) = (&*self, &guest);
        let stay = &guest.stay;
        let service = service_fn(move |request: http::Request<Incoming>| async move {
            stay.asks();
            let (answer, proof) = api.answer(request, guest.certified()).await;
            if proof == Proof::Given {
                stay.prove();
            }
            stay.is_answered();
            Ok::<_, Infallible>(answer)
        });
        let mut conversation = pin!(http1().serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = conversation.as_mut() => return Ok(ended?),
            () = stay.overstays(TO_PROVE) => {}
            () = guest.falls() => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
        // Who is being answered hears the end of it; whose request has not arrived yet does not.
        if !stay.is_asking() && !stay.is_proven() {
            return Ok(());
        }
        conversation.as_mut().graceful_shutdown();
        Ok(conversation.await?)
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

/// How long a connection may be there before its first request that proves who sends it.
const TO_PROVE: Duration = Duration::from_secs(10);
/// How long a caller's connection may say nothing; AWS's clients keep theirs for a minute at most.
const IDLE: Duration = Duration::from_secs(75);

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        task::JoinHandle,
        time::{Instant, sleep},
    };

    use super::{
        super::{
            super::{peer::Peer, strangers::Strangers},
            tests::api,
        },
        *,
    };

    struct Server {
        api: Arc<Api>,
        strangers: Arc<Strangers>,
    }

    fn server(strangers: usize) -> Server {
        Server {
            api: api(),
            strangers: Strangers::at_most(strangers),
        }
    }

    struct Connected {
        client: DuplexStream,
        drain: watch::Sender<bool>,
        ended: JoinHandle<Ended>,
    }

    fn connect(server: &Server) -> Connected {
        let (client, stream) = duplex(1 << 20);
        let (drain, draining) = watch::channel(false);
        let peer = Peer::Tcp(([127, 0, 0, 1], 9).into());
        let api = server.api.clone();
        let guest = Guest::new(peer, api.gate(), server.strangers.admit());
        Connected {
            client,
            drain,
            ended: tokio::spawn(async move { api.converse(stream, guest, draining).await }),
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
                stayed >= TO_PROVE && stayed < TO_PROVE * 3,
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
        assert!(began.elapsed() < TO_PROVE);
        assert!(!last.ended.is_finished());
        last.ended.await.unwrap().unwrap();
        assert!(server.strangers.count() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whose_request_has_arrived_keeps_its_place() {
        let server = server(2);
        let mut asking = connect(&server);
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{";
        asking.client.write_all(head.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        let silent: Vec<Connected> = (0..20).map(|_| connect(&server)).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        asking.client.write_all(b"}").await.unwrap();
        let answer = rest(&mut asking.client).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        drop(silent);
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
