//! One connection of HTTP/1.1: nobody keeps it for long without saying something, or without proving
//! who it is.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, OwnedSemaphorePermit, watch},
    time::{sleep, timeout},
};

use super::{
    super::{
        Peer,
        listen::{Ended, Protocol},
    },
    Api, Proof,
};

impl Protocol for Api {
    async fn converse<S>(
        self: Arc<Self>,
        stream: S,
        _peer: &Peer,
        mut draining: watch::Receiver<bool>,
    ) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stranger = tokio::select! {
            permit = timeout(TO_PROVE, self.strangers.clone().acquire_owned()) => permit??,
            _ = draining.wait_for(|draining| *draining) => return Ok(()),
        };
        let standing = Arc::new(Standing::of(stranger));
        let service = {
            let standing = standing.clone();
            service_fn(move |request: http::Request<Incoming>| {
                let (api, standing) = (self.clone(), standing.clone());
                async move {
                    standing.asking.store(true, Ordering::Release);
                    let (answer, proof) = api.answer(request).await;
                    standing.answered(proof);
                    Ok::<_, Infallible>(answer)
                }
            })
        };
        let mut conversation = pin!(http1().serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = conversation.as_mut() => return Ok(ended?),
            () = standing.overstays() => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
        // Who is being answered hears the end of it; whose request has not arrived yet does not.
        if !standing.asking.load(Ordering::Acquire) && !standing.is_proven() {
            return Ok(());
        }
        conversation.as_mut().graceful_shutdown();
        Ok(conversation.await?)
    }
}

/// What is known of a connection's caller.
struct Standing {
    /// Held until the caller has proved who it is.
    stranger: Mutex<Option<OwnedSemaphorePermit>>,
    proven: Notify,
    /// A request has arrived and is not answered yet.
    asking: AtomicBool,
}

impl Standing {
    fn of(stranger: OwnedSemaphorePermit) -> Self {
        Self {
            stranger: Mutex::new(Some(stranger)),
            proven: Notify::new(),
            asking: AtomicBool::new(false),
        }
    }

    fn answered(&self, proof: Proof) {
        self.asking.store(false, Ordering::Release);
        if proof == Proof::Signature && self.stranger.lock().expect(UNPOISONED).take().is_some() {
            self.proven.notify_one();
        }
    }

    fn is_proven(&self) -> bool {
        self.stranger.lock().expect(UNPOISONED).is_none()
    }

    /// Returns when a stranger has been here for too long; never, if there was a proof in time.
    async fn overstays(&self) {
        tokio::select! {
            () = sleep(TO_PROVE) => {}
            () = self.proven.notified() => std::future::pending().await,
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

/// How long a connection may be there before its first request that proves who sends it.
const TO_PROVE: Duration = Duration::from_secs(10);
/// How long a caller's connection may say nothing; AWS's clients keep theirs for a minute at most.
const IDLE: Duration = Duration::from_secs(75);
const UNPOISONED: &str = "nobody panics with this lock held";

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        task::JoinHandle,
        time::Instant,
    };

    use super::{super::tests::api, *};

    /// A connection to a server that allows one stranger at a time.
    struct Connected {
        client: DuplexStream,
        drain: watch::Sender<bool>,
        ended: JoinHandle<Ended>,
    }

    fn connect(api: &Arc<Api>) -> Connected {
        let (client, server) = duplex(1 << 20);
        let (drain, draining) = watch::channel(false);
        let peer = Peer::Tcp(([127, 0, 0, 1], 9).into());
        let api = api.clone();
        Connected {
            client,
            drain,
            ended: tokio::spawn(async move { api.converse(server, &peer, draining).await }),
        }
    }

    async fn rest(client: &mut DuplexStream) -> String {
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_says_it_slowly_is_gone_after_ten_seconds() {
        let api = api(4);
        for slowly in [false, true] {
            let began = Instant::now();
            let mut connected = connect(&api);
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
        let mut connected = connect(&api(4));
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
    async fn strangers_wait_for_strangers_and_not_for_ever() {
        let api = api(4);
        let mut first = connect(&api);
        let mut second = connect(&api);
        let get = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        second.client.write_all(get).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!second.ended.is_finished());
        first.client.write_all(get).await.unwrap();
        for connected in [&mut first, &mut second] {
            let answer = rest(&mut connected.client).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        }

        // The first stays for as long as one may, the second takes its turn.
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(connect(&api));
            tokio::task::yield_now().await;
        }
        let mut turned_away = 0;
        for connected in silent {
            turned_away += usize::from(connected.ended.await.unwrap().is_err());
        }
        assert_eq!(turned_away, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_idle_connections_at_once() {
        let api = api(8);
        let (silent, waiting) = (connect(&api), connect(&api));
        let began = Instant::now();
        for connected in [silent, waiting] {
            connected.drain.send_replace(true);
            connected.ended.await.unwrap().unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn garbage_ends_the_connection_and_nothing_else() {
        let api = api(4);
        for garbage in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            &[b'a'; 1 << 17],
        ] {
            let mut connected = connect(&api);
            let _ = connected.client.write_all(garbage).await;
            let answer = rest(&mut connected.client).await;
            let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            assert!(refused, "{answer}");
            drop(connected.ended.await.unwrap());
        }
    }
}
