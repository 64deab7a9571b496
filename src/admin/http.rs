//! The listeners of operators: a thread and a runtime of their own, HTTP/1.1, and the few paths there are.

use std::{
    convert::Infallible,
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Builder, Runtime},
    sync::{Semaphore, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    exposition::{self, Format},
    history::{self, History},
    log_level,
    observation::{Observation, Sources},
    readiness::{self, Check},
    settings::Settings,
    status::StatusReport,
};
use crate::front::{AcceptBackoff, Listen, Socket, Stream};

/// As many connections are answered at once on each listener; others wait.
const MOST_CONNECTIONS: usize = 64;
/// What a connection over TCP may take, all of it: its peer has proved nothing.
const TCP_TIME: Duration = Duration::from_secs(10);
/// How long a connection of the socket may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// How often the runtime that serves callers shows that it is alive.
const BEAT: Duration = Duration::from_millis(500);
/// After so long without a sign, it is stuck.
const DEAD: Duration = Duration::from_secs(5);
/// The page may load and run nothing but what is served here, and ask for nothing from elsewhere.
const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; ",
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);
/// The page, its style and its program.
const PAGE: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("page.html")),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("page.css"),
    ),
    (
        "/page.js",
        "text/javascript; charset=utf-8",
        include_str!("page.js"),
    ),
];

/// The thread that answers operators; it ends when this is dropped.
pub struct Admin {
    state: Arc<State>,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    tcp_address: Option<String>,
}

/// Why operators cannot be listened to.
#[derive(Debug)]
pub struct BindFault {
    setting: &'static str,
    cause: String,
}

impl BindFault {
    fn new(setting: &'static str, cause: &dyn fmt::Display) -> Self {
        let cause = cause.to_string();
        Self { setting, cause }
    }
}

impl fmt::Display for BindFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.cause)
    }
}

impl std::error::Error for BindFault {}

impl Drop for Admin {
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // It panicked; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Admin {
    /// Binds what the settings name, and answers from a thread of its own. Until [`show`](Self::show) it
    /// answers that hsmac is alive, starts, and is not ready. Must be called inside the runtime that will
    /// serve callers.
    ///
    /// # Errors
    /// The setting, the address and what is wrong with it.
    pub fn start(settings: &Settings) -> Result<Self, BindFault> {
        let state = Arc::new(State {
            heartbeat: Heartbeat::start(),
            history: Mutex::default(),
            sources: OnceLock::new(),
        });
        let (end, ended) = watch::channel(false);
        let (bound, binding) = mpsc::channel();
        let (settings, seen) = (settings.clone(), Arc::clone(&state));
        // The runtime begins and ends in its thread: others may be inside of one of their own.
        let thread = thread::Builder::new().name("admin".into()).spawn(move || {
            let listeners = Listeners::bind(&settings);
            let (told, listeners) = match listeners {
                Ok(listeners) => (Ok(listeners.tcp_address()), Some(listeners)),
                Err(fault) => (Err(fault), None),
            };
            // An error says that nobody waits for it any more.
            let _ = bound.send(told);
            if let Some(Listeners {
                runtime,
                socket,
                tcp,
            }) = listeners
            {
                runtime.block_on(answer(seen, socket, tcp, ended));
            }
        });
        let thread = thread.map_err(|error| BindFault::new("admin", &error))?;
        let tcp_address = binding
            .recv()
            .unwrap_or_else(|_| Err(BindFault::new("admin", &"its thread has ended")))?;
        Ok(Self {
            state,
            end,
            thread: Some(thread),
            tcp_address,
        })
    }

    /// What there is to see, once hsmac serves. Later calls change nothing.
    pub fn show(&self, sources: Sources) {
        // It was shown before.
        let _ = self.state.sources.set(sources);
    }

    /// The address over TCP, if there is one, with the port that the kernel chose for port 0.
    pub fn tcp_address(&self) -> Option<&str> {
        self.tcp_address.as_deref()
    }
}

/// What is listened on, and the runtime that does it.
struct Listeners {
    runtime: Runtime,
    socket: Option<Socket>,
    tcp: Option<Socket>,
}

impl Listeners {
    fn bind(settings: &Settings) -> Result<Self, BindFault> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| BindFault::new("admin", &error))?;
        let bind = |setting, listen: Option<Listen>, mode| {
            let _inside = runtime.enter();
            let bound = listen.map(|listen| Socket::bind(&listen, mode)).transpose();
            bound.map_err(|error| BindFault::new(setting, &error))
        };
        let path = settings.socket.clone().map(Listen::Unix);
        let socket = bind("admin.socket", path, settings.mode)?;
        let tcp = bind("admin.listen", settings.listen.map(Listen::Tcp), None)?;
        for socket in [&socket, &tcp].into_iter().flatten() {
            info!(event = "listening", address = %socket.address(), listener = "admin",  "listening for operators");
        }
        Ok(Self {
            runtime,
            socket,
            tcp,
        })
    }

    fn tcp_address(&self) -> Option<String> {
        self.tcp.as_ref().map(Socket::address)
    }
}

struct State {
    heartbeat: Arc<Heartbeat>,
    history: Mutex<History>,
    /// None while hsmac starts.
    sources: OnceLock<Sources>,
}

/// Whether the runtime that serves callers still runs tasks.
struct Heartbeat {
    started: Instant,
    /// Milliseconds after the start.
    last: AtomicU64,
}

impl Heartbeat {
    fn start() -> Arc<Self> {
        let heartbeat = Arc::new(Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
        });
        let beats = Arc::downgrade(&heartbeat);
        tokio::spawn(async move {
            while let Some(heartbeat) = beats.upgrade() {
                let now = heartbeat.started.elapsed().as_millis();
                heartbeat
                    .last
                    .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
                drop(heartbeat);
                tokio::time::sleep(BEAT).await;
            }
        });
        heartbeat
    }

    fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

/// Which paths there are.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    /// A Unix socket, which only those may open whom its mode lets.
    Everything,
    /// TCP, where nobody proves who they are.
    Probes,
}

async fn answer(
    state: Arc<State>,
    socket: Option<Socket>,
    tcp: Option<Socket>,
    mut ended: watch::Receiver<bool>,
) {
    let sampling = sample(&state);
    let listeners = async {
        tokio::join!(
            accept(&state, socket, Scope::Everything),
            accept(&state, tcp, Scope::Probes)
        )
    };
    let mut work = pin!(async { tokio::join!(sampling, listeners) });
    tokio::select! {
        _ = &mut work => {}
        // An error says that nobody can ask for the end any more.
        _ = ended.wait_for(|ended| *ended) => {}
    }
}

/// Keeps the last hour.
async fn sample(state: &State) {
    let mut last = Instant::now();
    loop {
        if let Some(sources) = state.sources.get() {
            let now = Instant::now();
            let since = now.duration_since(std::mem::replace(&mut last, now));
            state.history().add(&sources.observe(), since);
        }
        tokio::time::sleep(history::INTERVAL).await;
    }
}

async fn accept(state: &Arc<State>, socket: Option<Socket>, scope: Scope) {
    let Some(socket) = socket else { return };
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut backoff = AcceptBackoff::default();
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let stream = socket.accept(&mut backoff).await;
        let state = Arc::clone(state);
        tokio::spawn(async move {
            match stream {
                Stream::Tcp(stream, _) => {
                    // Who takes longer is closed.
                    let _ = timeout(TCP_TIME, serve(stream, state, scope)).await;
                }
                Stream::Unix(stream) => serve(stream, state, scope).await,
            }
            drop(place);
        });
    }
}

async fn serve<S>(stream: S, state: Arc<State>, scope: Scope)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let response = state.respond(&request, scope);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if scope == Scope::Everything {
            IDLE
        } else {
            TCP_TIME
        })
        .keep_alive(scope == Scope::Everything)
        // Who has said all that it asks, as `nc -N` does, still gets its answers.
        .half_close(true)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(reason = %error, "an operator's connection broke");
    }
}

impl State {
    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history
            .lock()
            .expect("nobody panics with this lock held")
    }

    fn respond<B>(&self, request: &Request<B>, scope: Scope) -> Response<Full<Bytes>> {
        if scope == Scope::Everything
            && request.uri().path() == log_level::PATH
            && names_loopback(request)
        {
            return log_level::answer(request);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(header::ALLOW, allowed);
            return refusal;
        }
        match (request.uri().path(), scope) {
            ("/livez", _) => self.livez(),
            ("/readyz", _) => self.observed(readyz),
            ("/metrics", _) => self.observed(|now| metrics(now, request)),
            (_, Scope::Probes) => text(StatusCode::NOT_FOUND, NOT_A_PROBE),
            // Security: a web page that reaches the socket through a tunnel under a name of its own (DNS
            // rebinding) may not read it.
            (_, Scope::Everything) if !names_loopback(request) => {
                text(StatusCode::FORBIDDEN, NOT_LOOPBACK)
            }
            ("/status.json", Scope::Everything) => self.observed(|now| self.status(now)),
            (path, Scope::Everything) => match PAGE.iter().find(|(known, ..)| *known == path) {
                Some((_, content_type, body)) => {
                    response(StatusCode::OK, content_type, (*body).to_owned())
                }
                None => text(StatusCode::NOT_FOUND, NOT_A_PATH),
            },
        }
    }

    /// An answer that is made from what there is to see, if that is known yet.
    fn observed(
        &self,
        answer: impl FnOnce(&Observation) -> Response<Full<Bytes>>,
    ) -> Response<Full<Bytes>> {
        match self.sources.get() {
            Some(sources) => answer(&sources.observe()),
            None => text(StatusCode::SERVICE_UNAVAILABLE, STARTS),
        }
    }

    fn status(&self, now: &Observation) -> Response<Full<Bytes>> {
        let report = StatusReport::new(now, &self.history());
        match serde_json::to_string(&report) {
            Ok(body) => response(StatusCode::OK, "application/json", body),
            Err(error) => {
                warn!(event = "status_unwritable", reason = %error, "the state cannot be written as JSON");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the state cannot be written\n",
                )
            }
        }
    }

    /// Whether the process can do anything at all. Nothing about tokens: a restart would not bring one back.
    fn livez(&self) -> Response<Full<Bytes>> {
        let silent = self.heartbeat.silent_for();
        if silent < DEAD {
            text(StatusCode::OK, "alive\n")
        } else {
            let said = format!("no task has run for {} s\n", silent.as_secs());
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, said)
        }
    }
}

/// In the format that the client asks for.
fn metrics<B>(now: &Observation, request: &Request<B>) -> Response<Full<Bytes>> {
    let accepted = request.headers().get_all(header::ACCEPT).iter();
    let format = Format::accepted(accepted.filter_map(|accept| accept.to_str().ok()));
    response(
        StatusCode::OK,
        format.content_type(),
        exposition::text(now.clone(), format),
    )
}

fn readyz(observation: &Observation) -> Response<Full<Bytes>> {
    let checks = readiness::checks(observation);
    let is_ready = checks.iter().all(|check| check.is_good);
    let line = |check: &Check| {
        let mark = match (check.is_good, check.is_warning) {
            (false, _) => '-',
            (true, true) => '!',
            (true, false) => '+',
        };
        format!("[{mark}] {}: {}\n", check.name, check.reason)
    };
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    response(status, TEXT, checks.iter().map(line).collect())
}

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const STARTS: &str = "[-] serving: hsmac starts\n";
const NOT_A_PROBE: &str = concat!(
    "there are /livez, /readyz and /metrics here; ",
    "everything else is at the socket (admin.socket)\n"
);
const NOT_A_PATH: &str = "there are /, /status.json, /log-level, /metrics, /livez and /readyz\n";
const NOT_LOOPBACK: &str = "the Host header must be localhost or a loopback address\n";

fn names_loopback<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(header::HOST);
    let authority = host
        .and_then(|host| host.to_str().ok())
        .and_then(|host| host.parse::<http::uri::Authority>().ok());
    authority.is_some_and(|authority| {
        let name = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    })
}

pub(super) fn text(status: StatusCode, said: &'static str) -> Response<Full<Bytes>> {
    response(status, TEXT, said.to_owned())
}

pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: String,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;

    fn asked(address: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn operators_are_answered_while_every_worker_is_stuck_and_told_of_it() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let settings = Settings {
            listen: Some(([127, 0, 0, 1], 0).into()),
            ..Settings::default()
        };
        let admin = runtime.block_on(async { Admin::start(&settings).unwrap() });
        let address = admin.tcp_address().unwrap().to_owned();
        assert!(asked(&address, "/livez").ends_with("\r\n\r\nalive\n"));
        let (go_on, stuck) = mpsc::channel::<()>();
        let stuck = Arc::new(Mutex::new(stuck));
        for _ in 0..2 {
            let stuck = Arc::clone(&stuck);
            // As a worker would be that waits for a lock for ever.
            runtime.spawn(async move { stuck.lock().unwrap().recv().unwrap_err() });
        }
        let dead = loop {
            let said = asked(&address, "/livez");
            if !said.starts_with("HTTP/1.1 200") {
                break said;
            }
        };
        assert!(
            dead.contains("503") && dead.contains("no task has run for 5 s"),
            "{dead}"
        );
        assert!(asked(&address, "/readyz").ends_with("[-] serving: hsmac starts\n"));
        drop(go_on);
        while !asked(&address, "/livez").ends_with("alive\n") {}
    }

    #[test]
    fn the_end_of_the_server_is_the_end_of_its_listeners() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            socket: Some(folder.path().join("admin.sock")),
            ..Settings::default()
        };
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let admin = Admin::start(&settings).unwrap();
            // Inside a runtime, as in the server, a second one is refused and ends nothing.
            let fault = Admin::start(&settings).err().unwrap().to_string();
            assert!(fault.starts_with("admin.socket: unix:"), "{fault}");
            assert_eq!(admin.tcp_address(), None);
            drop(admin);
        });
        assert!(!folder.path().join("admin.sock").exists());
    }
}
