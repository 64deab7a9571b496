//! The task that serves one host: handshake, jobs out, answers in, until it ends.

mod answers;

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot, watch},
    task::yield_now,
    time::{MissedTickBehavior, interval, interval_at},
};
use tracing::debug;

use self::answers::charge;
use super::{
    Fault, Key, Settings, Surroundings, TokenInfo, jittered,
    job::{Job, Work},
    line::{Death, Hang, Line},
    queue::{Forget, Queue, Seat},
};
use crate::{
    proto::host::{self, ForgetKey, LogIn, Ready, TokenFound, from_host, job, to_host},
    wire::{self, BUILD_ID, monotonic, on_wire},
};

/// How often jobs that a host has are looked at: for stuck calls, and for those worth a second host.
const LOOK: Duration = Duration::from_millis(25);
/// A miss in a generation younger than this needs no fresh generation to be believed.
const FRESH: Duration = Duration::from_secs(10);
/// A call is late when it takes so many times what calls take, however short `hedge_after` is:
/// otherwise a slow token would get every job twice.
const LATE: u32 = 8;
/// How long a host may take to forget a key.
const FORGET: Duration = Duration::from_secs(2);
/// A host has so much work waiting beside what its sessions do, in microseconds: enough to read and
/// write in batches, too little to strand behind a slow call while a sibling idles.
const WAITING_US: u32 = 500;
/// The most jobs that may wait in a host.
const MOST_WAITING: u32 = 64;

/// A host that has found the token and waits to be let in.
pub(super) struct Waiting {
    line: Line,
    /// What it found.
    pub(super) found: TokenFound,
}

/// A host that serves.
pub(super) struct Host {
    line: Line,
    ready: Ready,
    info: TokenInfo,
    started: Instant,
    /// What a session takes for a job, in microseconds, smoothed.
    took_us: u32,
    slots: Vec<Option<Pending>>,
    free: Vec<u32>,
    introduced: HashMap<u64, Arc<Key>>,
    forgetting: Vec<Forgetting>,
    suspects: Vec<wire::Entry>,
    worked: bool,
    proven: bool,
    ending: bool,
}

/// A job that the host has and we wait for.
struct Pending {
    sequence: u64,
    sent: Instant,
    hedged: bool,
    job: Job,
}

/// A key that the host was told to forget.
struct Forgetting {
    reference: u64,
    /// The host has no handle of it any more.
    acknowledged: bool,
    by: Instant,
    _done: oneshot::Sender<()>,
}

/// What a host serves.
pub(super) struct Post<'a> {
    pub(super) settings: &'a Settings,
    pub(super) queue: &'a Queue,
    /// The token's place in its group.
    pub(super) member: usize,
}

/// Starts a host and brings it to the point where it would log in.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else a host says at this point is the same fault"
)]
pub(super) async fn start(
    settings: &Settings,
    surroundings: &Surroundings,
    generation: u32,
    process: OwnedSemaphorePermit,
) -> Result<Waiting, Death> {
    let begun = |error: io::Error| {
        Death::new(
            host::FaultClass::TokenAway,
            format!("a host cannot be started: {error}"),
        )
    };
    let mut line = Line::open(settings, surroundings, generation, process).map_err(begun)?;
    let begin = to_host::Frame::Settings(settings.for_host(generation));
    let hello = line.within(settings.start_timeout, begin).await?;
    let same = |hello: &host::Hello| hello.build_id == BUILD_ID;
    if !matches!(&hello, from_host::Frame::Hello(hello) if same(hello)) {
        return Err(Death::new(
            host::FaultClass::Configuration,
            "the hsmac binary was replaced while hsmac runs: restart hsmac",
        ));
    }
    match line.receive_within(settings.start_timeout).await? {
        from_host::Frame::TokenFound(found) => Ok(Waiting { line, found }),
        from_host::Frame::Failed(failed) => Err(Death::of(failed.fault)),
        _ => Err(Death::new(
            host::FaultClass::Bug,
            "the host did not say what it found",
        )),
    }
}

impl Waiting {
    /// Lets the host log in, once.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else a host says at this point is the same fault"
    )]
    pub(super) async fn log_in(mut self, settings: &Settings) -> Result<Host, Death> {
        match self
            .line
            .within(settings.start_timeout, to_host::Frame::LogIn(LogIn {}))
            .await?
        {
            from_host::Frame::Ready(ready) => Ok(Host::new(self.line, ready, self.found)),
            from_host::Frame::Failed(failed) => Err(Death::of(failed.fault)),
            _ => Err(Death::new(
                host::FaultClass::Bug,
                "the host did not say that it is ready",
            )),
        }
    }

    /// Ends the host without a login.
    pub(super) async fn dismiss(mut self) {
        self.line.dismiss().await;
    }
}

impl Host {
    fn new(line: Line, ready: Ready, found: TokenFound) -> Self {
        Self {
            line,
            info: TokenInfo::from(found),
            started: Instant::now(),
            took_us: 1000,
            slots: Vec::new(),
            free: Vec::new(),
            introduced: HashMap::new(),
            forgetting: Vec::new(),
            suspects: Vec::new(),
            worked: false,
            proven: false,
            ending: false,
            ready,
        }
    }

    /// Which start of a host this is.
    pub(super) fn generation(&self) -> u32 {
        self.line.generation
    }

    /// What the host said when it was ready.
    pub(super) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// What the token says of itself.
    pub(super) fn info(&self) -> &TokenInfo {
        &self.info
    }

    /// Lets the host show that calls return, before anybody's job is given to it: its predecessor
    /// hung over `hang`.
    pub(super) async fn prove(mut self, post: &Post<'_>, hang: &Hang) -> Result<Self, Death> {
        let limit = post.settings.call_timeout;
        let key = hang.key.as_ref().filter(|key| key.is_usable()).cloned();
        let (probe, _nobody) = Job::new(Work::Probe { key }, Instant::now() + limit);
        self.send(probe, post.queue.next_sequence());
        let until = tokio::time::Instant::now() + limit;
        while self.pending() > 0 {
            if let Err(error) = self.line.flush() {
                return Err(self.hung_up(&error, post).await);
            }
            match tokio::time::timeout_at(until, self.line.stream.readable()).await {
                Err(_) => {
                    self.line.kill();
                    return Err(Death::new(
                        host::FaultClass::TokenAway,
                        "calls of the module do not return (call_timeout)",
                    ));
                }
                Ok(readable) => {
                    let received = readable.and_then(|()| self.line.receive());
                    self.take_answers(post)?;
                    if let Err(error) = received {
                        return Err(self.lost(&error).await);
                    }
                }
            }
        }
        Ok(self)
    }

    /// Serves the queue until the host ends or `end` is set; gives back what it could not finish.
    pub(super) async fn serve(
        mut self,
        post: &Post<'_>,
        seat: &Seat,
        end: &mut watch::Receiver<bool>,
    ) -> Death {
        let queue = post.queue;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let probes = post.settings.probe_interval;
        // Hosts that started together do not ask together.
        let mut idle = interval_at(
            tokio::time::Instant::now() + jittered(probes),
            probes.max(LOOK),
        );
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        let death = loop {
            if self.ending {
                seat.close();
                if self.pending() == 0 {
                    break Death::new(host::FaultClass::Unspecified, "planned");
                }
            }
            let room = if self.ending {
                0
            } else {
                self.window().saturating_sub(self.pending())
            };
            if room > 0 {
                let more = queue.take(seat, room, &mut taken);
                let filled = taken.len() == room;
                for job in taken.drain(..) {
                    self.send(job, queue.next_sequence());
                }
                if more && filled {
                    queue.call_another();
                }
            }
            if let Err(error) = self.line.flush() {
                break self.hung_up(&error, post).await;
            }
            let room = !self.ending && self.pending() < self.window();
            let busy = self.pending() > 0 || !self.forgetting.is_empty();
            tokio::select! {
                biased;
                readable = self.line.stream.readable() => {
                    let received = readable.and_then(|()| self.line.receive());
                    // Answers that came before an end are good; the rest goes to another host.
                    if let Err(death) = self.take_answers(post) {
                        break death;
                    }
                    if let Err(error) = received {
                        break self.lost(&error).await;
                    }
                }
                _ = self.line.stream.writable(), if !self.line.out.is_empty() => {}
                // What other callers are about to push shares the write with what woke us.
                () = queue.arrival(), if room => yield_now().await,
                () = seat.called() => self.take_orders(seat),
                () = asked(end), if !self.ending => self.ending = true,
                _ = look.tick(), if busy => {
                    if let Some(death) = self.overdue(post.settings.call_timeout) {
                        break death;
                    }
                    self.hedge(post);
                }
                _ = idle.tick(), if !busy && !probes.is_zero() => self.probe_if_idle(queue, probes),
            }
        };
        seat.close();
        self.finish(death, queue).await
    }

    fn pending(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn send(&mut self, job: Job, sequence: u64) {
        if let Some(key) = job.key() {
            // Security: a closed key's job was admitted too late to be made.
            if key.is_closed() {
                return job.reply(Err(Fault::Closed));
            }
            if let Some(reason) = key.refusal() {
                return job.reply(Err(Fault::Key(reason)));
            }
            if let Entry::Vacant(new) = self.introduced.entry(key.reference()) {
                self.line.put(to_host::Frame::DefineKey(key.definition()));
                new.insert(Arc::clone(key));
            }
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1)
                .expect("a window has fewer slots than u32 has numbers")
        });
        let work = match &job.work {
            Work::Mac { key, message } => job::Work::Mac(host::Mac {
                key: key.reference(),
                message: message.clone(),
            }),
            Work::Random { number_of_bytes } => job::Work::Random(host::Random {
                number_of_bytes: *number_of_bytes,
            }),
            Work::Describe { key } | Work::Seek { key } => {
                job::Work::DescribeKey(host::DescribeKey {
                    key: key.reference(),
                })
            }
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
            Work::Probe { key } => job::Work::Probe(host::Probe {
                key: key.as_ref().map_or(0, |key| key.reference()),
            }),
        };
        let frame = host::Job {
            generation: self.line.generation,
            slot,
            sequence,
            until: on_wire(job.until),
            work: Some(work),
        };
        job.tell_sent();
        self.line.put(to_host::Frame::Job(frame));
        self.worked = true;
        self.slots[slot as usize] = Some(Pending {
            sequence,
            sent: Instant::now(),
            hedged: false,
            job,
        });
    }

    /// Each session is asked for a sign of life when nobody else asked since the last look: sessions
    /// that firewalls or tokens drop when idle are healed before a caller meets them.
    fn probe_if_idle(&mut self, queue: &Queue, interval: Duration) {
        if std::mem::take(&mut self.worked) || self.ending {
            return;
        }
        let key = self
            .introduced
            .values()
            .find(|key| key.is_usable())
            .cloned();
        for _ in 0..self.ready.sessions {
            let (probe, _nobody) =
                Job::new(Work::Probe { key: key.clone() }, Instant::now() + interval);
            self.send(probe, queue.next_sequence());
        }
        self.worked = false;
    }

    /// Sends the twin of each late job to another host, if there is one: the first answer wins.
    fn hedge(&mut self, post: &Post<'_>) {
        let after = post.settings.hedge_after;
        if after.is_zero() {
            return;
        }
        let usual = Duration::from_micros(u64::from(self.took_us)) * LATE;
        let host = self.line.generation;
        let mut hedged = 0;
        for pending in self.slots.iter_mut().flatten() {
            let half = pending.job.until.saturating_duration_since(pending.sent) / 2;
            if !pending.hedged
                && pending.sent.elapsed() >= after.min(half).max(usual)
                && !matches!(pending.job.work, Work::Probe { .. } | Work::Seek { .. })
                && !pending.job.is_abandoned()
                && post.queue.has_another(&pending.job, host)
                && let Some(twin) = pending.job.twin(host)
            {
                pending.hedged = true;
                hedged += 1;
                post.queue.give_back(twin);
            }
        }
        if hedged > 0 {
            debug!(token = %post.settings.name, host, hedged, "late jobs are given to another host too");
        }
    }

    /// Begins what other parts ordered of this very host.
    fn take_orders(&mut self, seat: &Seat) {
        for Forget { key, done } in seat.orders() {
            let reference = key.reference();
            let known = self.introduced.remove(&reference).is_some();
            if known {
                self.line
                    .put(to_host::Frame::ForgetKey(ForgetKey { reference }));
            }
            self.forgetting.push(Forgetting {
                reference,
                acknowledged: !known,
                by: Instant::now() + FORGET,
                _done: done,
            });
        }
        self.settle_forgotten();
    }

    /// A key is forgotten when the host has said so and has no job of it any more; dropping the
    /// sender tells who waits.
    fn settle_forgotten(&mut self) {
        let mut forgetting = std::mem::take(&mut self.forgetting);
        forgetting.retain(|one| {
            let mut pending = self.slots.iter().flatten();
            !one.acknowledged
                || pending.any(|pending| {
                    let key = pending.job.key();
                    key.is_some_and(|key| key.reference() == one.reference)
                })
        });
        self.forgetting = forgetting;
    }

    /// Whether something that the host owes by now is not there.
    fn overdue(&mut self, call_timeout: Duration) -> Option<Death> {
        let now = Instant::now();
        if self.forgetting.iter().any(|one| one.by < now) {
            return Some(Death::new(
                host::FaultClass::TokenAway,
                "the host did not forget a key within two seconds",
            ));
        }
        self.stuck(call_timeout)
    }

    /// Whether a call has been with the library longer than it may, or jobs lie with a host that
    /// does not take them.
    fn stuck(&mut self, call_timeout: Duration) -> Option<Death> {
        let pending = self.slots.iter().flatten();
        let Some(oldest) = pending.min_by_key(|pending| pending.sequence) else {
            self.suspects.clear();
            return None;
        };
        let entries = self.line.board.entries(self.line.board_entries);
        let mut late: Vec<wire::Entry> = entries
            .into_iter()
            .filter(|entry| self.has(entry.sequence))
            .collect();
        if late.is_empty() && oldest.sent.elapsed() > call_timeout {
            late.push(wire::Entry {
                sequence: oldest.sequence,
                stuck_at: 0,
            });
        }
        let now = monotonic();
        late.retain(|entry| entry.stuck_at < now);
        // Seen twice, since a board may be read while it is written.
        let stuck = late.iter().find(|entry| self.suspects.contains(entry));
        let hung = stuck.map(|entry| Hang {
            key: self.key_of(entry.sequence),
        });
        self.suspects = late;
        hung.map(|hang| Death {
            hang: Some(hang),
            ..Death::accident(
                host::FaultClass::TokenAway,
                "a call of the module does not return (call_timeout)",
            )
        })
    }

    fn key_of(&self, sequence: u64) -> Option<Arc<Key>> {
        let mut pending = self.slots.iter().flatten();
        let job = &pending.find(|pending| pending.sequence == sequence)?.job;
        job.key().cloned()
    }

    fn has(&self, sequence: u64) -> bool {
        let mut pending = self.slots.iter().flatten();
        pending.any(|pending| pending.sequence == sequence)
    }

    /// The host takes nothing more. What it said before counts: answers, and why it ends.
    async fn hung_up(&mut self, error: &io::Error, post: &Post<'_>) -> Death {
        // Security: a PIN that was refused would be tried again, and a job that nothing befell be
        // charged, if the last word were not heard.
        let _ = self.line.receive();
        match self.take_answers(post) {
            Err(death) => death,
            Ok(()) => self.lost(error).await,
        }
    }

    /// The socket broke: what does the process say?
    async fn lost(&mut self, error: &io::Error) -> Death {
        let how = self.line.how_it_ended(error).await;
        Death::accident(
            host::FaultClass::Retry,
            format!("the host process ended: {how}"),
        )
    }

    /// Gives every unanswered job another chance and gets rid of the process.
    async fn finish(mut self, mut death: Death, queue: &Queue) -> Death {
        let planned = death.class == host::FaultClass::Unspecified;
        death.proven = self.proven;
        let held: Vec<u64> = if death.accident {
            let entries = self.line.board.entries(self.line.board_entries);
            entries.into_iter().map(|entry| entry.sequence).collect()
        } else {
            Vec::new()
        };
        for pending in std::mem::take(&mut self.slots).into_iter().flatten().rev() {
            if pending.job.work.changes() {
                let reason = death.reason.clone();
                pending.job.reply(Err(Fault::Unknown(reason)));
            } else if held.contains(&pending.sequence) {
                charge(pending.job, &death.reason, queue);
            } else {
                queue.give_back(pending.job);
            }
        }
        if planned {
            self.line.dismiss().await;
        } else {
            self.line.kill();
        }
        death
    }

    /// How many jobs the host may have: one for each session, and what keeps them busy until more
    /// can arrive.
    fn window(&self) -> usize {
        let sessions = self.ready.sessions;
        let least = (sessions / 4).max(2);
        let waiting = WAITING_US * sessions / self.took_us.max(1);
        (sessions + waiting.clamp(least, MOST_WAITING.max(least))) as usize
    }

    /// A session that was preempted for a while says little about the token: one sample counts at
    /// most four times the smoothed value.
    fn learn(&mut self, took_us: u32) {
        if took_us > 0 {
            let sample = took_us.min(self.took_us.saturating_mul(4).saturating_add(16));
            self.took_us = (self.took_us.saturating_mul(15).saturating_add(sample)) / 16;
        }
    }
}

/// Waits until the end is asked for.
pub(super) async fn asked(end: &mut watch::Receiver<bool>) {
    // A sender that is gone asks for the end too.
    let _ = end.wait_for(|end| *end).await;
}
