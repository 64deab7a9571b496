//! The task that serves one host: handshake, jobs out, answers in, until it ends.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::{
    Fault, Key, KeyFacts, Settings, Surroundings,
    line::{Death, Line},
    queue::{Answer, Job, Queue, Work},
};
use crate::{
    proto::host::{
        self, ForgetKey, FromHost, LogIn, Ready, TokenFound, answer::Outcome, from_host, job,
        to_host,
    },
    wire::{self, BUILD_ID, monotonic, on_wire},
};

/// How often a host's board is looked at for stuck calls.
const LOOK: Duration = Duration::from_millis(100);
/// A miss in a generation younger than this needs no fresh generation to be believed.
const FRESH: Duration = Duration::from_secs(10);
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
    started: Instant,
    /// What a session takes for a job, in microseconds, smoothed.
    took_us: u32,
    slots: Vec<Option<Pending>>,
    free: Vec<u32>,
    introduced: HashMap<u64, Arc<Key>>,
    suspects: Vec<wire::Entry>,
    proven: bool,
    ending: bool,
}

/// A job that the host has and we wait for.
struct Pending {
    sequence: u64,
    sent: Instant,
    job: Job,
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
) -> Result<Waiting, Death> {
    let begun = |error: io::Error| {
        Death::new(
            host::FaultClass::TokenAway,
            format!("a host cannot be started: {error}"),
        )
    };
    let mut line = Line::open(settings, surroundings, generation).map_err(begun)?;
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
            from_host::Frame::Ready(ready) => Ok(Host::new(self.line, ready)),
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
    fn new(line: Line, ready: Ready) -> Self {
        Self {
            line,
            started: Instant::now(),
            took_us: 1000,
            slots: Vec::new(),
            free: Vec::new(),
            introduced: HashMap::new(),
            suspects: Vec::new(),
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

    /// Serves the queue until the host ends or `end` is set; gives back what it could not finish.
    pub(super) async fn serve(
        mut self,
        queue: &Queue,
        sequences: &AtomicU64,
        call_timeout: Duration,
        end: &mut watch::Receiver<bool>,
    ) -> Death {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        let death = loop {
            if self.ending && self.pending() == 0 {
                break Death::new(host::FaultClass::Unspecified, "planned");
            }
            let room = if self.ending {
                0
            } else {
                self.window().saturating_sub(self.pending())
            };
            if room > 0 {
                let more = queue.take(room, &mut taken);
                let filled = taken.len() == room;
                for job in taken.drain(..) {
                    self.send(job, sequences);
                }
                if more && filled {
                    queue.call_another();
                }
            }
            if let Err(error) = self.line.flush() {
                break self.lost(&error).await;
            }
            let room = !self.ending && self.pending() < self.window();
            tokio::select! {
                biased;
                readable = self.line.stream.readable() => {
                    let received = readable.and_then(|()| self.line.receive());
                    // Answers that came before an end are good; the rest goes to another host.
                    if let Err(death) = self.take_answers(queue) {
                        break death;
                    }
                    if let Err(error) = received {
                        break self.lost(&error).await;
                    }
                }
                _ = self.line.stream.writable(), if !self.line.out.is_empty() => {}
                // What other callers are about to push shares the write with what woke us.
                () = queue.arrival(), if room => yield_now().await,
                () = asked(end), if !self.ending => self.ending = true,
                _ = look.tick() => {
                    if let Some(death) = self.stuck(call_timeout) {
                        break death;
                    }
                }
            }
        };
        self.finish(death, queue).await
    }

    fn pending(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn send(&mut self, job: Job, sequences: &AtomicU64) {
        if let Some(key) = job.key() {
            if let Some(reason) = key.refusal() {
                return job.reply(Err(Fault::Key(reason)));
            }
            if let Entry::Vacant(new) = self.introduced.entry(key.reference()) {
                self.line.put(to_host::Frame::DefineKey(key.definition()));
                new.insert(Arc::clone(key));
            }
        }
        let sequence = sequences.fetch_add(1, Ordering::Relaxed);
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
            Work::Describe { key } => job::Work::DescribeKey(host::DescribeKey {
                key: key.reference(),
            }),
        };
        let frame = host::Job {
            generation: self.line.generation,
            slot,
            sequence,
            until: on_wire(job.until),
            work: Some(work),
        };
        self.line.put(to_host::Frame::Job(frame));
        self.slots[slot as usize] = Some(Pending {
            sequence,
            sent: Instant::now(),
            job,
        });
    }

    /// Everything that has arrived. An error ends the host.
    fn take_answers(&mut self, queue: &Queue) -> Result<(), Death> {
        let broken = |what: String| Death::accident(host::FaultClass::Bug, what);
        while let Some(frame) = self
            .line
            .inbox
            .take::<FromHost>()
            .map_err(|fault| broken(fault.to_string()))?
        {
            match frame.frame {
                Some(from_host::Frame::Answer(answer)) => self.take_answer(answer, queue)?,
                Some(from_host::Frame::KeyOpened(opened)) => self.judge(opened)?,
                Some(from_host::Frame::KeyForgotten(_)) => {}
                Some(from_host::Frame::Ending(ending)) => {
                    let death = Death::of(ending.fault);
                    let accident = death.class == host::FaultClass::Bug;
                    return Err(Death { accident, ..death });
                }
                Some(
                    from_host::Frame::Hello(_)
                    | from_host::Frame::TokenFound(_)
                    | from_host::Frame::Ready(_)
                    | from_host::Frame::Failed(_),
                )
                | None => return Err(broken("the host began a second time".into())),
            }
        }
        Ok(())
    }

    fn take_answer(&mut self, answer: host::Answer, queue: &Queue) -> Result<(), Death> {
        let broken = |what: &str| Err(Death::accident(host::FaultClass::Bug, what));
        // Security: an answer goes to the one job that it names, or to nobody.
        if answer.generation != self.line.generation {
            return broken("the host answered for another generation");
        }
        let known = self
            .slots
            .get_mut(answer.slot as usize)
            .and_then(|slot| slot.take_if(|pending| pending.sequence == answer.sequence));
        let Some(Pending { job, .. }) = known else {
            return broken("the host answered a job that it does not have");
        };
        self.free.push(answer.slot);
        self.learn(answer.took_us);
        match (answer.outcome, &job.work) {
            (Some(Outcome::Mac(mac)), Work::Mac { key, .. }) => {
                if mac.len() != key.spec().mac_algorithm().mac_len() {
                    job.reply(Err(Fault::Internal(
                        "the host made a MAC of wrong length".into(),
                    )));
                    return broken("the host made a MAC of wrong length");
                }
                // Security: a key that this host opened with another check value was taken from it,
                // and nothing that it made with that object leaves this process.
                if !self.introduced.contains_key(&key.reference()) {
                    let reason = key.trouble().unwrap_or_default();
                    job.reply(Err(Fault::Key(reason)));
                    return Ok(());
                }
                self.proven = true;
                job.reply(Ok(Answer::Bytes(mac)));
            }
            (Some(Outcome::Random(bytes)), Work::Random { number_of_bytes }) => {
                if bytes.len() != *number_of_bytes as usize {
                    job.reply(Err(Fault::Internal("random bytes of wrong length".into())));
                    return broken("the host answered with random bytes of wrong length");
                }
                self.proven = true;
                job.reply(Ok(Answer::Bytes(bytes)));
            }
            (Some(Outcome::KeyFacts(facts)), Work::Describe { .. }) => {
                self.proven = true;
                job.reply(Ok(Answer::Facts(KeyFacts {
                    sensitive: facts.sensitive,
                    extractable: facts.extractable,
                    never_extractable: facts.never_extractable,
                    local: facts.local,
                    check_value: facts.check_value.into(),
                })));
            }
            (Some(Outcome::Fault(fault)), _) => self.take_fault(fault, job, queue),
            _ => return broken("the host answered another question"),
        }
        Ok(())
    }

    fn take_fault(&mut self, fault: host::Fault, job: Job, queue: &Queue) {
        let class = fault.class();
        let Death { reason, .. } = Death::of(Some(fault));
        match class {
            host::FaultClass::Caller => job.reply(Err(Fault::Message(reason))),
            host::FaultClass::Key => refuse_key(job, reason),
            // "Gone" is said only by a fresh generation: some modules see new objects at
            // C_Initialize alone.
            host::FaultClass::KeyMissing => {
                let fresh = self.started.elapsed() < FRESH;
                let known_gone = job.key().is_some_and(|key| key.is_gone());
                if fresh || known_gone || self.ending {
                    if let Some(key) = job.key() {
                        key.set_gone();
                    }
                    refuse_key(job, reason);
                } else {
                    info!(host = self.line.generation, %reason, "looking again with a fresh host");
                    self.ending = true;
                    queue.give_back(job);
                }
            }
            host::FaultClass::Expired => job.reply(Err(Fault::Deadline(reason))),
            host::FaultClass::Unsupported => job.reply(Err(Fault::Unsupported(reason))),
            host::FaultClass::Retry | host::FaultClass::TokenAway => charge(job, &reason, queue),
            host::FaultClass::Pin
            | host::FaultClass::Configuration
            | host::FaultClass::Bug
            | host::FaultClass::Unspecified => job.reply(Err(Fault::Internal(reason))),
        }
    }

    /// A host has opened a key: is it the key that we know?
    fn judge(&mut self, opened: host::KeyOpened) -> Result<(), Death> {
        let Some(key) = self.introduced.get(&opened.reference) else {
            return Err(Death::new(
                host::FaultClass::Bug,
                "the host opened a key that it was not given",
            ));
        };
        if key.trust(opened.check_value.into()) {
            return Ok(());
        }
        let reference = opened.reference;
        warn!(
            key_id = %key.key_id(), locator = %key.locator(),
            "the object is another key than before: its check value differs; the key is unavailable"
        );
        self.line
            .put(to_host::Frame::ForgetKey(ForgetKey { reference }));
        self.introduced.remove(&reference);
        Ok(())
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
        let stuck = late.iter().any(|entry| self.suspects.contains(entry));
        self.suspects = late;
        stuck.then(|| {
            Death::accident(
                host::FaultClass::TokenAway,
                "a call of the module does not return (call_timeout)",
            )
        })
    }

    fn has(&self, sequence: u64) -> bool {
        let mut pending = self.slots.iter().flatten();
        pending.any(|pending| pending.sequence == sequence)
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
            if held.contains(&pending.sequence) {
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

/// A job whose host had an accident with it: once more elsewhere, not twice.
fn charge(mut job: Job, reason: &str, queue: &Queue) {
    job.charges += 1;
    if job.charges >= 2 {
        job.reply(Err(Fault::Unavailable(format!(
            "two hosts failed with this job: {reason}"
        ))));
    } else {
        queue.give_back(job);
    }
}

fn refuse_key(job: Job, reason: String) {
    if let Some(key) = job.key() {
        key.set_trouble(reason.clone());
    }
    job.reply(Err(Fault::Key(reason)));
}
