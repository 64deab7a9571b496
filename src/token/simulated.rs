//! What takes the place of the world where hosts are models: a pipe for the socket, a task for the
//! process, and a chance that is the same each time.
//!
//! Everything happens on one thread and on the runtime's paused clock. Real sockets would not do: tokio
//! lets time pass when all tasks wait, also if a socket has just become readable.

use std::{
    cell::RefCell,
    fmt, io,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI32, Ordering},
    },
};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::{
    host_ipc::InFlightTable,
    token::{level::Level, locks::UNPOISONED},
};

/// Who starts models of hosts.
pub trait ModelHosts: Send + Sync {
    /// Starts the model of one host of a token; gives the front's end of its pipe, and the process.
    ///
    /// # Errors
    /// It cannot be started.
    fn start(
        &self,
        token: &str,
        generation: u32,
        in_flight: InFlightTable,
    ) -> io::Result<(PipeEnd, ModelProcess)>;
}

impl fmt::Debug for dyn ModelHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("models of hosts")
    }
}

/// One end of what is a socket elsewhere, with the same manners.
pub struct PipeEnd {
    reads: Arc<Way>,
    writes: Arc<Way>,
}

/// The bytes on one way.
#[derive(Default)]
struct Way {
    state: Mutex<WayState>,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct WayState {
    bytes: BytesMut,
    most: usize,
    /// Nobody writes, or nobody reads, any more.
    closed: bool,
}

impl PipeEnd {
    /// Two ends, with so much room on each way.
    pub(in crate::token) fn pair(room: usize) -> (Self, Self) {
        let way = || {
            let state = WayState {
                most: room,
                ..WayState::default()
            };
            Arc::new(Way {
                state: Mutex::new(state),
                ..Way::default()
            })
        };
        let (one, other) = (way(), way());
        let near = Self {
            reads: Arc::clone(&one),
            writes: Arc::clone(&other),
        };
        let far = Self {
            reads: other,
            writes: one,
        };
        (near, far)
    }

    pub(in crate::token) async fn readable(&self) -> io::Result<()> {
        self.reads
            .until(&self.reads.filled, |way| {
                !way.bytes.is_empty() || way.closed
            })
            .await;
        Ok(())
    }

    pub(in crate::token) async fn writable(&self) -> io::Result<()> {
        self.writes
            .until(&self.writes.drained, |way| {
                way.bytes.len() < way.most || way.closed
            })
            .await;
        Ok(())
    }

    pub(in crate::token) fn try_read_buf(&self, into: &mut BytesMut) -> io::Result<usize> {
        let mut way = self.reads.state.lock().expect(UNPOISONED);
        if way.bytes.is_empty() && !way.closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = way.bytes.split();
        into.extend_from_slice(&read);
        self.reads.drained.notify_one();
        Ok(read.len())
    }

    pub(in crate::token) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut way = self.writes.state.lock().expect(UNPOISONED);
        if way.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = way.most.saturating_sub(way.bytes.len()).min(bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        way.bytes.extend_from_slice(&bytes[..room]);
        self.writes.filled.notify_one();
        Ok(room)
    }

    pub(in crate::token) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        for way in [&self.reads, &self.writes] {
            way.state.lock().expect(UNPOISONED).closed = true;
            way.filled.notify_one();
            way.drained.notify_one();
        }
    }
}

impl Way {
    async fn until(&self, changed: &Notify, is_so: impl Fn(&WayState) -> bool) {
        while !is_so(&self.state.lock().expect(UNPOISONED)) {
            changed.notified().await;
        }
    }
}

/// A task that stands for a process, as its parent has it.
pub struct ModelProcess(Arc<ProcessState>);

/// The same as the task has it: when it is dropped the process has ended.
pub(in crate::token) struct RunningModel(Arc<ProcessState>);

#[derive(Default)]
struct ProcessState {
    killed: Level,
    ended: Level,
    status: AtomicI32,
}

impl ModelProcess {
    pub(in crate::token) fn new() -> (Self, RunningModel) {
        let state = Arc::<ProcessState>::default();
        (Self(Arc::clone(&state)), RunningModel(state))
    }

    pub(in crate::token) fn kill(&self) {
        self.0.killed.set(1);
    }

    pub(in crate::token) async fn wait(&self) -> ExitStatus {
        self.0.ended.until_positive().await;
        ExitStatus::from_raw(self.0.status.load(Ordering::SeqCst))
    }
}

impl Drop for ModelProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

impl RunningModel {
    pub(in crate::token) async fn killed(&self) {
        self.0.killed.until_positive().await;
    }

    /// Whether it was killed, for whoever wants to know without having it.
    pub(in crate::token) fn killed_flag(&self) -> KilledFlag {
        KilledFlag(Arc::clone(&self.0))
    }

    /// What `wait` says of it.
    pub(in crate::token) fn set_status(&self, status: i32) {
        self.0.status.store(status, Ordering::SeqCst);
    }
}

/// Whether a process was killed.
pub(in crate::token) struct KilledFlag(Arc<ProcessState>);

impl KilledFlag {
    pub(in crate::token) fn get(&self) -> bool {
        self.0.killed.get() > 0
    }
}

impl Drop for RunningModel {
    fn drop(&mut self) {
        self.0.ended.set(1);
    }
}

/// A generator of numbers that a seed decides on (SplitMix64).
#[derive(Clone, Debug)]
pub(in crate::token) struct Random(u64);

impl Random {
    pub(in crate::token) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in crate::token) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from `least` to `most`.
    pub(in crate::token) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }
}

/// A number that shows nothing of the one that it was made of.
pub(in crate::token) fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

thread_local! {
    static CHANCE: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// From here on this thread's chance is what a seed decides on.
pub(in crate::token) fn set_chance(seed: u64) {
    CHANCE.set(Some(Random::new(seed)));
}

/// The next number of this thread's chance, if a seed decides on it.
pub(in crate::token) fn chance() -> Option<u64> {
    CHANCE.with_borrow_mut(|chance| chance.as_mut().map(Random::next))
}
