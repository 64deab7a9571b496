//! The task that serves one host: jobs out, answers in, until it ends.

use std::{collections::hash_map::Entry, sync::Arc, time::Duration};

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval, interval_at},
};
use tracing::info;

use crate::{
    host_ipc::{InFlightCall, monotonic_at},
    proto::host::{self, Ready, TokenFound, job, to_host},
    token::{
        dispatch::{
            job::{Job, Work},
            queue::{HostHandle, Queue, Room},
        },
        host::{
            jittered,
            load::Load,
            process::{HostExit, HostProcess},
            session_share::SessionShare,
        },
        key::{Closing, TokenKey},
        level::Level,
        metrics::TokenMetrics,
        settings::Settings,
        status::{Fault, TokenInfo},
    },
};

/// How often jobs that a host has are looked at: for stuck calls, and for those worth a second host.
pub(super) const LOOK: Duration = Duration::from_millis(25);
/// A host has so much work waiting beside what its sessions do, in microseconds: enough to read and
/// write in batches, too little to strand behind a slow call while a sibling idles.
const WAITING_US: u32 = 500;
/// The most jobs that may wait in a host.
const MOST_WAITING: u32 = 64;
/// The most jobs that the management session of a host may have: enough that it need not wait for the next
/// one, and few, since whose turn it is among callers is decided in the queue, not here.
const MOST_SLOW: usize = 4;

/// A host that serves.
pub(super) struct HostSession {
    pub(super) process: HostProcess,
    pub(super) ready: Ready,
    pub(super) info: TokenInfo,
    pub(super) started: Instant,
    /// What a session takes for a job, in microseconds, smoothed.
    pub(super) took_us: u32,
    pub(super) slots: Vec<Option<Pending>>,
    pub(super) free: Vec<u32>,
    /// What the host knows, by reference.
    pub(super) defined_keys: FxHashMap<u64, DefinedKey>,
    pub(super) closing: Vec<BeingClosed>,
    /// Keys that the host was told to forget and has not said yet that it has.
    pub(super) told_to_forget: FxHashSet<u64>,
    pub(super) suspects: Vec<InFlightCall>,
    pub(super) worked: bool,
    pub(super) proven: bool,
    pub(super) ending: bool,
    pub(super) load: Load,
    /// Jobs that the management session has.
    pub(super) slow_jobs: usize,
    /// The log has been told that calls of this host miss their deadlines.
    pub(super) told_late: bool,
}

/// A job that the host has and we wait for.
pub(super) struct Pending {
    pub(super) sequence: u64,
    pub(super) sent: Instant,
    pub(super) hedged: bool,
    /// It goes to the management session.
    pub(super) slow: bool,
    pub(super) job: Job,
}

/// A key that the host was told of.
pub(super) struct DefinedKey {
    pub(super) key: Arc<TokenKey>,
    /// Its check value was known by then, so that the host compares too.
    pub(super) has_check_value: bool,
    /// The host has found its object: MACs with it need no search.
    pub(super) open: bool,
}

/// A key whose calls end in this host.
pub(super) struct BeingClosed {
    pub(super) key: Arc<TokenKey>,
    pub(super) closing: Closing,
    /// The host had found its object, if it must forget it.
    pub(super) was_open: bool,
    /// The host has no handle of it any more, if it must not have one.
    pub(super) acknowledged: bool,
    pub(super) by: Instant,
    pub(super) _done: oneshot::Sender<()>,
}

/// What a host serves.
pub(super) struct HostContext<'a> {
    pub(super) settings: &'a Settings,
    pub(super) queue: &'a Queue,
    /// The token's place in its group.
    pub(super) member: usize,
    pub(super) share: &'a SessionShare,
    pub(super) metrics: &'a TokenMetrics,
}

impl HostSession {
    pub(super) fn new(process: HostProcess, ready: Ready, found: TokenFound) -> Self {
        Self {
            process,
            info: TokenInfo::from(found),
            started: Instant::now(),
            took_us: 1000,
            slots: Vec::new(),
            free: Vec::new(),
            defined_keys: FxHashMap::default(),
            closing: Vec::new(),
            told_to_forget: FxHashSet::default(),
            suspects: Vec::new(),
            worked: false,
            proven: false,
            ending: false,
            load: Load::default(),
            slow_jobs: 0,
            told_late: false,
            ready,
        }
    }

    /// Which start of a host this is.
    pub(super) fn generation(&self) -> u32 {
        self.process.generation
    }

    /// What the host said when it was ready.
    pub(super) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// What the token says of itself.
    pub(super) fn info(&self) -> &TokenInfo {
        &self.info
    }

    /// Serves the queue until the host ends or `end` is set; gives back what it could not finish.
    pub(super) async fn serve(
        mut self,
        context: &HostContext<'_>,
        handle: &HostHandle,
        end: &Level,
    ) -> HostExit {
        let queue = context.queue;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let probes = context.settings.probe_interval;
        // Hosts that started together do not ask together.
        let mut idle = interval_at(Instant::now() + jittered(probes), probes.max(LOOK));
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        self.keep_to_share(context);
        let exit = loop {
            if self.ending {
                handle.close();
                if self.pending() == 0 {
                    break HostExit::new(host::FaultClass::Unspecified, "planned");
                }
            }
            let paused_until = self.load.paused_until();
            let room = self.room();
            if room.fast + room.slow > 0 {
                let more = queue.take(handle, room, |job| self.is_slow(job), &mut taken);
                let filled = taken.len() == room.fast + room.slow;
                for job in taken.drain(..) {
                    self.send(job, queue.next_sequence());
                }
                if more && filled {
                    queue.call_another();
                }
            }
            if let Err(error) = self.process.flush() {
                break self.write_failed(&error, context).await;
            }
            let Room { fast, slow } = self.room();
            let room = fast + slow > 0;
            handle.show_jobs(self.pending());
            let busy = self.pending() > 0 || !self.closing.is_empty();
            tokio::select! {
                biased;
                readable = self.process.stream.readable() => {
                    let received = readable.and_then(|()| self.process.receive());
                    // Answers that came before an end are good; the rest goes to another host.
                    if let Err(exit) = self.take_answers(context) {
                        break exit;
                    }
                    if let Err(error) = received {
                        break self.connection_lost(&error).await;
                    }
                }
                _ = self.process.stream.writable(), if !self.process.out.is_empty() => {}
                // What other callers are about to push shares the write with what woke us.
                () = queue.arrival(), if room => yield_now().await,
                () = handle.called() => {
                    self.take_orders(handle);
                    self.keep_to_share(context);
                }
                () = until(paused_until), if paused_until.is_some() => {}
                () = end.until_positive(), if !self.ending => self.ending = true,
                _ = look.tick(), if busy => {
                    if let Some(exit) = self.overdue(context.settings.call_timeout) {
                        break exit;
                    }
                    self.tell_late(context);
                    handle.show_stuck(self.told_late);
                    self.hedge(context);
                }
                _ = idle.tick(), if !busy && !probes.is_zero() => self.probe_if_idle(queue, probes),
            }
        };
        handle.close();
        self.finish(exit, queue).await
    }

    /// Ends, for a successor with fewer sessions, if it has more than its share of what the token has.
    fn keep_to_share(&mut self, context: &HostContext<'_>) {
        let (has, each) = (self.ready.sessions, context.share.each());
        if has > each && !self.ending {
            info!(event = "host_over_share", token = %context.settings.name, host = self.process.generation, has, each, "a host has more than its share of the token's sessions: it ends, and its successor has fewer");
            self.ending = true;
        }
    }

    /// How many more jobs the host may have now.
    fn room(&mut self) -> Room {
        if self.ending || self.load.paused_until().is_some() {
            return Room { fast: 0, slow: 0 };
        }
        let fast_jobs = self.pending() - self.slow_jobs;
        Room {
            fast: self.load.window(self.window()).saturating_sub(fast_jobs),
            slow: MOST_SLOW.saturating_sub(self.slow_jobs),
        }
    }

    /// Whether a job goes to the host's management session: what searches or changes the token.
    fn is_slow(&self, job: &Job) -> bool {
        match &job.work {
            Work::Mac { key, .. } => {
                let defined = self.defined_keys.get(&key.reference());
                !defined.is_some_and(|defined| defined.open)
            }
            Work::Probe { .. } | Work::Random { .. } => false,
            Work::Describe { .. }
            | Work::Seek { .. }
            | Work::Generate { .. }
            | Work::Import { .. }
            | Work::Destroy { .. }
            | Work::Seal { .. }
            | Work::CheckSeal { .. } => true,
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn send(&mut self, mut job: Job, sequence: u64) {
        if let Some(key) = job.key() {
            // Security: a closed key's job was admitted too late to be made.
            if key.is_closed() {
                return job.reply(Err(Fault::Closed));
            }
            // Looked at here, where the job leaves the queue, and nowhere before in this room: what it
            // failed of meanwhile spares those behind it the way to the token.
            if let Some(reason) = key.refusal() {
                return job.reply(Err(Fault::Key(reason)));
            }
            if let Entry::Vacant(new) = self.defined_keys.entry(key.reference()) {
                let definition = key.definition();
                new.insert(DefinedKey {
                    key: Arc::clone(key),
                    has_check_value: !definition.check_value.is_empty(),
                    open: false,
                });
                self.process
                    .queue_frame(to_host::Frame::DefineKey(definition));
            }
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1)
                .expect("a window has fewer slots than u32 has numbers")
        });
        let frame = host::Job {
            generation: self.process.generation,
            slot,
            sequence,
            until: monotonic_at(job.until),
            work: Some(work_on_wire(&job.work)),
        };
        let slow = self.is_slow(&job);
        self.slow_jobs += usize::from(slow);
        job.tell_sent(self.process.generation);
        self.process.queue_frame(to_host::Frame::Job(frame));
        self.worked = true;
        self.slots[slot as usize] = Some(Pending {
            sequence,
            sent: Instant::now(),
            hedged: false,
            slow,
            job,
        });
    }

    /// Each session is asked for a sign of life when nobody else asked since the last look: sessions
    /// that firewalls or tokens drop when idle are healed before a caller meets them.
    fn probe_if_idle(&mut self, queue: &Queue, interval: Duration) {
        if std::mem::take(&mut self.worked) || self.ending {
            return;
        }
        let keys = self.defined_keys.values().map(|defined| &defined.key);
        let usable = keys.filter(|key| key.is_usable());
        // The same one each time.
        let key = usable.min_by_key(|key| key.reference());
        let probe = Work::Probe {
            key: key.map(|key| Arc::new(key.admitted_anew())),
            every_session: true,
        };
        let (probe, _nobody) = Job::new(probe, Instant::now() + interval);
        self.send(probe, queue.next_sequence());
        self.worked = false;
    }

    /// How many jobs the host may have: one for each session, and what keeps them busy until more
    /// can arrive.
    pub(super) fn window(&self) -> usize {
        let sessions = self.ready.sessions;
        let least = (sessions / 4).max(2);
        let waiting = WAITING_US * sessions / self.took_us.max(1);
        (sessions + waiting.clamp(least, MOST_WAITING.max(least))) as usize
    }

    /// A session that was preempted for a while says little about the token: one sample counts at
    /// most four times the smoothed value.
    pub(super) fn learn(&mut self, took_us: u32) {
        if took_us > 0 {
            let sample = took_us.min(self.took_us.saturating_mul(4).saturating_add(16));
            self.took_us = (self.took_us.saturating_mul(15).saturating_add(sample)) / 16;
        }
    }
}

/// A job's work as the host's protocol has it.
fn work_on_wire(work: &Work) -> job::Work {
    match work {
        Work::Mac { key, message } => job::Work::Mac(host::Mac {
            key: key.reference(),
            message: message.clone(),
        }),
        Work::Random { number_of_bytes } => job::Work::Random(host::Random {
            number_of_bytes: *number_of_bytes,
        }),
        Work::Describe { key } | Work::Seek { key } => job::Work::DescribeKey(host::DescribeKey {
            key: key.reference(),
        }),
        Work::Generate { key } => job::Work::Generate(host::Generate {
            key: key.reference(),
        }),
        Work::Import { key, material } => job::Work::Import(host::Import {
            key: key.reference(),
            material: Bytes::copy_from_slice(material),
        }),
        Work::Destroy { key, orphan } => job::Work::Destroy(host::Destroy {
            key: key.reference(),
            orphan: *orphan,
        }),
        Work::Seal {
            key,
            origin,
            leaves,
        } => {
            let subtrees = leaves.subtrees().iter();
            let (levels, hashes) = subtrees
                .map(|(level, hash)| (u32::from(*level), Bytes::copy_from_slice(hash)))
                .unzip();
            job::Work::Seal(host::Seal {
                key: key.reference(),
                origin: origin.clone(),
                begin: leaves.begin(),
                levels,
                hashes,
            })
        }
        Work::CheckSeal {
            key,
            checkpoint,
            seal,
        } => job::Work::CheckSeal(host::CheckSeal {
            key: key.reference(),
            origin: checkpoint.origin.clone(),
            size: checkpoint.size,
            root: Bytes::copy_from_slice(&checkpoint.root),
            seal: seal.clone(),
        }),
        Work::Probe { key, every_session } => job::Work::Probe(host::Probe {
            key: key.as_ref().map_or(0, |key| key.reference()),
            every_session: *every_session,
        }),
    }
}

/// Waits until an instant; for ever if there is none.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
