//! One connection of HTTP/1.1: nobody keeps it for long without saying something, or without proving
//! who it is.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, watch},
    time::sleep,
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
        let (api, stay) = (&*self, &Stay::begin(&self.strangers));
        let standing = &*stay.standing;
        let service = service_fn(move |request: http::Request<Incoming>| async move {
            standing.asking.store(true, Ordering::Release);
            let (answer, proof) = api.answer(request).await;
            if proof == Proof::Signature {
                stay.prove();
            }
            standing.asking.store(false, Ordering::Release);
            Ok::<_, Infallible>(answer)
        });
        let mut conversation = pin!(http1().serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = conversation.as_mut() => return Ok(ended?),
            () = standing.overstays() => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
        // Who is being answered hears the end of it; whose request has not arrived yet does not.
        if !standing.asking.load(Ordering::Acquire) && !standing.proven.load(Ordering::Acquire) {
            return Ok(());
        }
        conversation.as_mut().graceful_shutdown();
        Ok(conversation.await?)
    }
}

/// The connections on which nobody has proved yet who he is, the oldest first.
pub(super) struct Strangers {
    most: usize,
    here: Mutex<VecDeque<Arc<Standing>>>,
}

impl Strangers {
    pub(super) fn at_most(most: usize) -> Self {
        Self {
            most,
            here: Mutex::default(),
        }
    }

    /// Lets one more in. If there are too many then, the one that has been here longest and asks for
    /// nothing has to go: a caller asks as soon as it is here, so that those who only sit there
    /// cannot keep it out.
    fn admit(&self) -> Arc<Standing> {
        let newcomer = Arc::<Standing>::default();
        let mut here = self.lock();
        if here.len() >= self.most {
            let idle = |one: &Arc<Standing>| !one.asking.load(Ordering::Acquire);
            let oldest = here.iter().position(idle).unwrap_or(0);
            if let Some(oldest) = here.remove(oldest) {
                oldest.leave.notify_one();
            }
        }
        here.push_back(newcomer.clone());
        newcomer
    }

    fn forget(&self, one: &Arc<Standing>) {
        self.lock().retain(|other| !Arc::ptr_eq(one, other));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Standing>>> {
        self.here.lock().expect("nobody panics with this lock held")
    }
}

/// What is known of a connection's caller.
#[derive(Default)]
struct Standing {
    proven: AtomicBool,
    /// A request has arrived and is not answered yet.
    asking: AtomicBool,
    /// There was a proof: from now on it may stay.
    stay: Notify,
    /// Another one takes its place.
    leave: Notify,
}

impl Standing {
    /// Returns when a stranger has been here for too long; never, if there was a proof in time.
    async fn overstays(&self) {
        tokio::select! {
            () = sleep(TO_PROVE) => {}
            () = self.leave.notified() => {}
            () = self.stay.notified() => std::future::pending().await,
        }
    }
}

/// A connection among the strangers, until a proof or its end.
struct Stay<'a> {
    strangers: &'a Strangers,
    standing: Arc<Standing>,
}

impl<'a> Stay<'a> {
    fn begin(strangers: &'a Strangers) -> Self {
        Self {
            strangers,
            standing: strangers.admit(),
        }
    }

    fn prove(&self) {
        if !self.standing.proven.swap(true, Ordering::AcqRel) {
            self.strangers.forget(&self.standing);
            self.standing.stay.notify_one();
        }
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.strangers.forget(&self.standing);
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
    async fn a_newcomer_takes_the_place_of_who_has_been_silent_for_longest() {
        let api = api(8);
        let began = Instant::now();
        let mut silent: Vec<Connected> = Vec::new();
        for _ in 0..20 {
            silent.push(connect(&api));
            tokio::task::yield_now().await;
        }
        let mut caller = connect(&api);
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
        assert!(api.strangers.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whose_request_has_arrived_keeps_its_place() {
        let api = api(8);
        let mut asking = connect(&api);
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{";
        asking.client.write_all(head.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        let silent: Vec<Connected> = (0..20).map(|_| connect(&api)).collect();
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
