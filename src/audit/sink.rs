//! Records as JSON lines to a Unix socket, for a SIEM's collector: read from the log's files by a thread of its own, so that
//! no call ever waits for it. What the collector has taken is noted each second; after a restart, or when it was away, it
//! goes on from there, so that each record comes at least once.

use std::{
    fs, io,
    io::{BufWriter, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{export::record, files::replace, follow::Follower};

/// The way to a collector; it ends when this is dropped.
pub struct JsonLines {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ends: AtomicBool,
    /// The record that the collector gets next.
    next: AtomicU64,
    directory: PathBuf,
    socket: PathBuf,
}

impl JsonLines {
    /// Begins where the collector was left, or with the records that come from now on.
    ///
    /// # Errors
    /// There is no thread for it, or what was noted cannot be read.
    pub fn start(directory: &Path, socket: &Path, size: u64) -> io::Result<Self> {
        let next = match fs::read_to_string(directory.join(POSITION)) {
            Ok(text) => text.trim().parse().map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => size,
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared {
            ends: AtomicBool::new(false),
            next: AtomicU64::new(next),
            directory: directory.to_owned(),
            socket: socket.to_owned(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("audit-json".to_owned());
        let thread = thread.spawn(move || of_thread.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The record that the collector gets next.
    pub fn next(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }
}

impl Drop for JsonLines {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It panicked; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut is_away = false;
        while let Err(reason) = self.send(&mut is_away) {
            if !std::mem::replace(&mut is_away, true) {
                warn!(event = "audit_json_waits", socket = %self.socket.display(), reason, "the collector of the audit log's records is away: they wait in the log");
            }
            thread::park_timeout(PAUSE);
            if self.ends() {
                return;
            }
        }
    }

    /// Sends until the end; why it cannot go on.
    fn send(&self, was_away: &mut bool) -> Result<(), String> {
        let told = |error: io::Error| error.to_string();
        let stream = UnixStream::connect(&self.socket).map_err(told)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(told)?;
        let mut out = BufWriter::with_capacity(64 << 10, stream);
        let from = self.next.load(Ordering::Relaxed);
        let mut log = Follower::new(&self.directory, from).map_err(|damage| damage.to_string())?;
        let mut noted = Instant::now();
        loop {
            let (mut failed, mut left) = (None, AT_ONCE);
            let read = log.read(|index, bytes, entry, names| {
                if index >= from {
                    let line = record(index, bytes, entry, names);
                    failed = writeln!(out, "{line}").err();
                    left -= 1;
                }
                failed.is_none() && left > 0 && !self.ends()
            });
            failed.map_or_else(|| out.flush(), Err).map_err(told)?;
            read.map_err(|damage| damage.to_string())?;
            self.next.store(log.next().max(from), Ordering::Relaxed);
            if std::mem::replace(was_away, false) {
                info!(event = "audit_json_resumed", socket = %self.socket.display(), "the collector of the audit log's records is there");
            }
            let ends = self.ends();
            if ends || noted.elapsed() > SECOND {
                noted = Instant::now();
                let next = self.next.load(Ordering::Relaxed);
                replace(&self.directory, POSITION, &format!("{next}\n")).map_err(told)?;
            }
            if ends {
                return Ok(());
            }
            if left > 0 {
                thread::park_timeout(LOOK_AGAIN);
            }
        }
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }
}

/// So many records are sent before it is noted that they were.
const AT_ONCE: u32 = 10_000;
/// The file that says which record the collector gets next.
const POSITION: &str = "json-lines";
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(1);
/// How long a collector may take nothing.
const PATIENCE: Duration = Duration::from_secs(5);
