//! [`Log`]: appends records, and writes them before their calls are answered.
//!
//! Whoever appends puts a record into the batch in memory, under a short lock. The first of a batch becomes its leader:
//! it lets the other tasks of its thread append too, then writes for all of them; the others wait for it. No thread is
//! woken for a record. The lock is never held while the disk is asked for anything: a disk that hangs holds up those
//! alone who wait for it.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{
    call::{CallRecord, unrecorded},
    files::{Folder, Found, end},
    sealing::Sealing,
    settings::{Durability, OnFailure, Settings},
    sink::JsonLines,
    state::{State, begin, now, started},
    upkeep,
};
use crate::{
    error::Error,
    metrics::{Counter, Distribution, Histogram},
    proto::audit::Phase,
};

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// The folder cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// What is there is not what was written.
    #[error(
        "the audit log is damaged: {0}; `hsmac audit verify` shows all; to begin another log, move the folder away and keep it"
    )]
    Damaged(String),
}

/// The audit log of this process.
pub struct Log {
    pub(super) folder: Folder,
    pub(super) settings: Settings,
    pub(super) origin: String,
    state: Mutex<State>,
    /// Wakes the log's thread.
    pub(super) work: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
    json_lines: Mutex<Option<JsonLines>>,
    /// Less room is left on the disk than the reserve.
    pub(super) is_low: AtomicBool,
    /// The log cannot be written: what [`State::trouble`] says, for those who only ask whether.
    pub(super) is_failing: AtomicBool,
    pub(super) records: AtomicU64,
    write_took: Histogram,
    unrecorded: Counter,
    failures: Counter,
}

/// How the log is, for operators.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Leaves that were written since the start.
    pub records: u64,
    /// Leaves of the log.
    pub size: u64,
    /// How long each write to the file took.
    pub write_took: Distribution,
    /// Calls that were not recorded.
    pub unrecorded: u64,
    /// How often writing failed.
    pub failures: u64,
    /// Bytes that are free on its disk.
    pub free_bytes: u64,
    /// Why it cannot be written.
    pub trouble: Option<String>,
    /// Whether calls are refused for it.
    pub refuses: bool,
    /// Records that the collector of JSON lines has not got yet; none: there is no collector.
    pub json_lag: Option<u64>,
    /// How far it is sealed; none: it is not to be.
    pub sealed: Option<SealedUpTo>,
}

/// How far a log is sealed.
#[derive(Clone, Debug, Default)]
pub struct SealedUpTo {
    /// Leaves that the newest seal of this process is of; 0: there was none yet.
    pub size: u64,
    /// For how long there has been something to seal.
    pub waiting: Duration,
    /// Why the last wish was not fulfilled.
    pub trouble: Option<String>,
}

impl Log {
    /// Opens the log, cuts what a crash left half written, and begins a segment. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`OpenFault`]
    pub fn open(settings: &Settings) -> Result<Arc<Self>, OpenFault> {
        let folder = Folder::open(&settings.directory)?;
        let Found { origin, tree, cut } = folder.recover()?;
        if let Some((bytes, file)) = cut {
            warn!(event = "audit_tail_cut", bytes, file = %file.display(), "the audit log's end was not written whole, and was put aside: no call of it was answered");
        }
        let unusable =
            |error| OpenFault::Unusable(format!("{}: {error}", settings.directory.display()));
        let (segment, with_first) = begin(&folder, &origin, &tree, started()).map_err(unusable)?;
        let synced = segment.file.sync_data().and_then(|()| folder.sync());
        synced.map_err(unusable)?;
        info!(event = "audit_opened", directory = %settings.directory.display(), origin, size = with_first.size(), "the audit log is open");
        let size = with_first.size();
        let sealing = settings.seals.then(Sealing::default);
        let state = State::new(segment, with_first, sealing);
        let log = Arc::new(Self {
            folder,
            settings: settings.clone(),
            origin,
            state: Mutex::new(state),
            work: Condvar::new(),
            thread: Mutex::default(),
            json_lines: Mutex::default(),
            is_low: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            records: AtomicU64::new(0),
            write_took: Histogram::default(),
            unrecorded: Counter::default(),
            failures: Counter::default(),
        });
        tokio::spawn(watch(Arc::downgrade(&log)));
        let tended = Arc::clone(&log);
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || upkeep::tend(&tended))
            .map_err(unusable)?;
        *log.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        if let Some(socket) = settings.json_lines_socket() {
            let json_lines = JsonLines::start(&settings.directory, socket, size);
            *log.json_lines() = Some(json_lines.map_err(unusable)?);
        }
        Ok(log)
    }

    /// Records how a call ended; returns once that is as durable as the settings say.
    ///
    /// # Errors
    /// [`Internal`](crate::error::Kind::Internal): it cannot be recorded, and `on_failure = "refuse"`. The
    /// call must be answered with this error.
    pub async fn outcome(&self, record: &CallRecord<'_>) -> Result<(), Error> {
        let synced = record.is_change() || self.settings.durability == Durability::Synced;
        let written = self.append(record, Phase::Outcome, synced).await;
        written.or_else(|cause| self.missing(cause))
    }

    /// Records that a change is about to be made; returns when that is on disk.
    pub(super) async fn attempt(&self, record: &CallRecord<'_>) -> Result<(), Error> {
        let written = self.append(record, Phase::Attempt, true).await;
        written.or_else(|cause| self.missing(cause))
    }

    /// Records what hsmac does by itself, without a caller: before it begins, and how it ended.
    ///
    /// # Errors
    /// [`Internal`](crate::error::Kind::Internal): it cannot be recorded, and `on_failure = "refuse"`.
    pub async fn own_act(
        &self,
        phase: Phase,
        operation: &str,
        key: &Arc<str>,
    ) -> Result<(), Error> {
        let written = self
            .append(&CallRecord::own_act(operation, key), phase, true)
            .await;
        written.or_else(|cause| self.missing(cause))
    }

    /// Refuses a call that could not be recorded.
    pub(super) fn admit(&self, cryptographic: bool) -> Result<(), Error> {
        if self.settings.on_failure == OnFailure::Answer {
            return Ok(());
        }
        if cryptographic && self.is_low.load(Ordering::Relaxed) {
            let cause = self.low();
            return self.missing(cause);
        }
        if !self.is_failing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let trouble = self.state().trouble.clone();
        trouble.map_or(Ok(()), |cause| self.missing(cause))
    }

    /// Counts a call of a peer who did not prove who it is.
    pub fn stranger(&self, source: Option<std::net::IpAddr>, exception: &'static str) {
        self.state().strangers.count(source, exception, now());
    }

    /// How it is.
    pub fn snapshot(&self) -> Snapshot {
        let (size, trouble, sealed) = {
            let state = self.state();
            let hung = is_hung(&state).then(|| HANGS.to_owned());
            (
                state.written.size(),
                state.trouble.clone().or(hung),
                state.sealing.as_ref().map(Sealing::snapshot),
            )
        };
        let low = || self.is_low.load(Ordering::Relaxed).then(|| self.low());
        Snapshot {
            records: self.records.load(Ordering::Relaxed),
            size,
            write_took: self.write_took.snapshot(),
            unrecorded: self.unrecorded.get(),
            failures: self.failures.get(),
            free_bytes: self.folder.free_bytes().unwrap_or(0),
            trouble: trouble.or_else(low),
            refuses: self.settings.on_failure == OnFailure::Refuse,
            sealed,
            json_lag: self
                .json_lines()
                .as_ref()
                .map(|sent| size.saturating_sub(sent.next())),
        }
    }

    /// Writes all there is and ends the segment. For the end, after the last call was answered.
    pub fn close(&self) {
        self.state().ends = true;
        self.work.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            error!(event = "audit_failed", reason = "its thread ended", directory = %self.folder.path.display(), "the audit log cannot be written");
        }
        // What it has not sent by now it sends after the next start.
        self.json_lines().take();
    }

    fn json_lines(&self) -> MutexGuard<'_, Option<JsonLines>> {
        self.json_lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(
        &self,
        record: &CallRecord<'_>,
        phase: Phase,
        synced: bool,
    ) -> Result<(), String> {
        let (batch, leads) = {
            let mut state = self.state();
            if let Some(trouble) = &state.trouble {
                return Err(trouble.clone());
            }
            if is_hung(&state) || state.buffer.len() > MOST_WAITING {
                return Err(HANGS.to_owned());
            }
            if !record.is_change() && self.is_low.load(Ordering::Relaxed) {
                return Err(self.low());
            }
            state.append_call(record, phase);
            let leads = !std::mem::replace(&mut state.has_leader, true);
            (Arc::clone(&state.batch), leads)
        };
        if leads {
            // Dropped at the latest when the call is: whoever waits for this one's write gets it.
            let leader = Leader(self);
            tokio::task::yield_now().await;
            drop(leader);
        }
        let written = batch.wait().await;
        if !written {
            let trouble = self.state().trouble.clone();
            return Err(trouble.unwrap_or_else(|| HANGS.to_owned()));
        }
        if synced {
            let (sender, on_disk) = oneshot::channel();
            self.state().sync_waiters.push(sender);
            self.work.notify_one();
            // As long as a slow disk may take: a change waits for it.
            return match tokio::time::timeout(SLOW_SYNC, on_disk).await {
                Ok(Ok(true)) => Ok(()),
                _ => Err("the disk does not take it".to_owned()),
            };
        }
        Ok(())
    }

    /// Writes until nothing is left to write. For whoever has become the leader.
    pub(super) fn write(&self) {
        let mut state = self.state();
        loop {
            if state.trouble.is_some() {
                break;
            } else if !state.buffer.is_empty() {
                state = self.write_batch(state);
            } else if state.segment.is_over() {
                state = self.rotate(state);
            } else {
                break;
            }
        }
        state.has_leader = false;
    }

    fn write_batch<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (bytes, batch) = state.take_batch();
        let (file, tree) = (Arc::clone(&state.segment.file), state.tree.clone());
        let began = Instant::now();
        state.writing_since = Some(began);
        drop(state);
        let written = std::io::Write::write_all(&mut &*file, &bytes);
        self.write_took.observe(began.elapsed());
        let mut state = self.state();
        state.writing_since = None;
        match written {
            // The log's thread has given the segment up meanwhile, and cuts this off.
            _ if state.trouble.is_some() => batch.finish(false),
            Ok(()) => {
                let new = tree.size() - state.written.size();
                self.records.fetch_add(new, Ordering::Relaxed);
                state.written = tree;
                state.segment.bytes += bytes.len() as u64;
                state.reuse(bytes);
                batch.finish(true);
            }
            Err(error) => {
                self.fail(&mut state, &error.to_string());
                batch.finish(false);
            }
        }
        state
    }

    /// Ends the segment and begins the next one; what is appended meanwhile is of the next one.
    fn rotate<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let before = state.tree.clone();
        let old = Arc::clone(&state.segment.file);
        state.segment.forget_names(before.size());
        state.append(started());
        let (first, batch) = state.take_batch();
        let with_first = state.tree.clone();
        state.writing_since = Some(Instant::now());
        drop(state);
        let next = end(&old, &self.origin, &before)
            .and_then(|()| self.folder.begin(&self.origin, &before, &first));
        let mut state = self.state();
        state.writing_since = None;
        match next {
            _ if state.trouble.is_some() => batch.finish(false),
            Ok((file, bytes)) => {
                self.records.fetch_add(1, Ordering::Relaxed);
                state.unsynced.push(old);
                state.segment.file = Arc::new(file);
                state.segment.bytes = bytes;
                state.written = with_first;
                batch.finish(true);
            }
            Err(error) => {
                self.fail(&mut state, &error.to_string());
                batch.finish(false);
            }
        }
        state
    }

    /// From here on nothing is written until the log's thread has begun another segment.
    pub(super) fn fail(&self, state: &mut State, reason: &str) {
        error!(event = "audit_failed", reason, directory = %self.folder.path.display(), "the audit log cannot be written");
        self.failures.increment();
        self.is_failing.store(true, Ordering::Relaxed);
        state.give_up(reason);
    }

    /// A call is not recorded.
    fn missing(&self, cause: String) -> Result<(), Error> {
        self.unrecorded.increment();
        let is_answered = self.settings.on_failure == OnFailure::Answer;
        self.state().missing.count(is_answered, &cause);
        if is_answered {
            Ok(())
        } else {
            Err(unrecorded(cause))
        }
    }

    fn release_hung(&self) {
        let mut state = self.state();
        if is_hung(&state) {
            state.give_up_waiting();
        }
    }

    pub(super) fn low(&self) -> String {
        format!(
            "less than {} MiB are free on its disk",
            self.settings.reserve_mib
        )
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who writes for all. The write is made when it is dropped.
struct Leader<'a>(&'a Log);

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.0.write();
    }
}

/// Tells those who wait for a write that it hangs: one look now and then costs less than a timer for each of them.
async fn watch(log: Weak<Log>) {
    while let Some(log) = log.upgrade() {
        log.release_hung();
        drop(log);
        tokio::time::sleep(HUNG / 4).await;
    }
}

pub(super) fn is_hung(state: &State) -> bool {
    state
        .writing_since
        .is_some_and(|since| since.elapsed() > HUNG)
}

/// The bytes that may wait for a write.
const MOST_WAITING: usize = 4 << 20;
/// A write that takes longer than this hangs. A machine that is busy makes short ones wait for a tenth of a second.
const HUNG: Duration = Duration::from_secs(1);
const SLOW_SYNC: Duration = Duration::from_secs(10);
const HANGS: &str = "its disk hangs";
