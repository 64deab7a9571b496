//! The one queue of a group of tokens: bounded, fair among flows, shared by all hosts.
//!
//! When it is full, who has the most jobs in it loses one; a job that cannot be served by its deadline, as
//! fast as the token is, is refused at once and not when the deadline has passed. A host that serves is
//! registered with a [`HostHandle`]: the handles say which hosts there are, and an order to all hosts goes to
//! each handle. Hosts take jobs as they have room, so that the fastest does the most and nobody routes.

use std::{
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

use crate::{
    model::Flow,
    token::{
        dispatch::{
            drain_rate::DrainRate,
            fair_queue::{FairQueue, Verdict},
            job::{Job, Work},
            poison::PoisonList,
            stream_room::StreamRoom,
        },
        key::{Closing, TokenKey},
        locks::UNPOISONED,
        metrics::{GroupSnapshot, HostSnapshot, Move, QueueMetrics},
        status::Fault,
    },
};

/// Jobs that no host has taken yet.
pub(in crate::token) struct Queue {
    waiting: Mutex<Waiting>,
    capacity: AtomicUsize,
    arrived: Notify,
    hosts: RwLock<Vec<Arc<HostHandle>>>,
    members: RwLock<Vec<MemberStatus>>,
    /// The number of the next token.
    next_member: AtomicUsize,
    generations: AtomicU32,
    sequences: AtomicU64,
    /// Messages that a token of the group fails with.
    pub(in crate::token) poison: PoisonList,
    /// Hosts that have come to serve, ever.
    hosts_started: watch::Sender<u64>,
    pub(super) stream_room: StreamRoom,
    pub(in crate::token) metrics: QueueMetrics,
}

/// The jobs, and how fast they go.
#[derive(Default)]
struct Waiting {
    jobs: FairQueue<Job>,
    rate: DrainRate,
    /// Looks at jobs that calls of a full queue have paid for: once they are enough all jobs are looked at,
    /// so that refusing a job costs no more however long the queue is.
    looks: usize,
}

/// One host that serves.
pub(in crate::token) struct HostHandle {
    /// Its generation, which no other host of the group has.
    pub(in crate::token) host: u32,
    /// The number in the group of the token that it serves.
    member: usize,
    /// Its sessions for MACs.
    sessions: u32,
    since: SystemTime,
    /// Jobs that it has, for those who look from outside.
    jobs: AtomicUsize,
    /// Its calls miss their deadlines.
    stuck: AtomicBool,
    /// False once it finishes what it has and takes no more.
    taking: AtomicBool,
    orders: Mutex<Vec<CloseOrder>>,
    called: Notify,
}

/// An order to a host: when `done` is dropped, no call of this key may be left, and no handle if the
/// object is closed.
pub(in crate::token) struct CloseOrder {
    pub(in crate::token) key: Arc<TokenKey>,
    pub(in crate::token) closing: Closing,
    pub(in crate::token) done: oneshot::Sender<()>,
}

/// How many more jobs a host may have. Searches, creations and destructions have credits of their own
/// and never take a MAC's place.
#[derive(Clone, Copy, Debug)]
pub(in crate::token) struct Room {
    /// Jobs with a key that the host has open, and random bytes.
    pub(in crate::token) fast: usize,
    /// Jobs of the management session.
    pub(in crate::token) slow: usize,
}

/// What the queue knows of one token of the group.
struct MemberStatus {
    /// Its number, which no other token of the group has had, nor this one with other settings.
    member: usize,
    /// Some host of it serves.
    serving: bool,
    /// A host of it is on its way.
    coming: bool,
    /// The group is whole only if it serves.
    required: bool,
}

impl Queue {
    /// For so many jobs; no token yet.
    pub(in crate::token) fn new(capacity: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            capacity: AtomicUsize::new(capacity),
            arrived: Notify::new(),
            hosts: RwLock::default(),
            members: RwLock::default(),
            next_member: AtomicUsize::new(0),
            generations: AtomicU32::new(1),
            sequences: AtomicU64::new(1),
            poison: PoisonList::default(),
            hosts_started: watch::Sender::new(0),
            stream_room: StreamRoom::new(capacity),
            metrics: QueueMetrics::default(),
        }
    }

    /// From now on so many jobs may wait. Those that do wait on, were there more.
    pub(in crate::token) fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
        self.stream_room.set_capacity(capacity);
    }

    fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// A number that no other host of the group has had.
    pub(in crate::token) fn next_generation(&self) -> u32 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// A number that no other job of the group has had.
    pub(in crate::token) fn next_sequence(&self) -> u64 {
        self.sequences.fetch_add(1, Ordering::Relaxed)
    }

    /// How many hosts have come to serve so far.
    pub(in crate::token) fn hosts_started(&self) -> watch::Receiver<u64> {
        self.hosts_started.subscribe()
    }

    /// Adds a job at the end of its flow; never waits for room.
    ///
    /// # Errors
    /// [`Fault::Saturated`]: the queue is full and no flow has more jobs in it, or the job would be too late.
    pub(in crate::token) fn push(&self, job: Job) -> Result<(), Fault> {
        let pinned = job.is_pinned();
        let displaced = {
            let mut waiting = self.waiting.lock().expect(UNPOISONED);
            if !pinned && let Some(wait) = waiting.is_hopeless(&job) {
                self.metrics.hopeless.increment();
                let ahead = waiting.jobs.len();
                return Err(Fault::Saturated(format!(
                    "{ahead} calls wait, and this one's turn would come in {wait:.1?}, after its deadline"
                )));
            }
            let displaced = self.make_room(&mut waiting, job.flow)?;
            waiting.jobs.push(job.flow, job);
            displaced
        };
        if let Some(displaced) = displaced {
            self.metrics.displaced.increment();
            displaced.reply(Err(Fault::Saturated(format!(
                "the queue is full: {} calls wait, and no other caller has as many of them",
                self.capacity()
            ))));
        }
        self.call(pinned);
        Ok(())
    }

    /// Gives the job that another caller loses for this one, if it must.
    fn make_room(&self, waiting: &mut Waiting, flow: Flow) -> Result<Option<Job>, Fault> {
        // What was given back counts for nobody: hosts have had room for it.
        let capacity = self.capacity();
        if waiting.jobs.added() < capacity {
            return Ok(None);
        }
        // Abandoned jobs are dropped before the queue is reported full: of the longest flow those that
        // wait longest, which are abandoned first, and now and then all.
        waiting
            .jobs
            .drop_one_of_longest(LOOKED_AT, Job::is_abandoned);
        waiting.looks += LOOKED_AT;
        if waiting.jobs.added() >= capacity && waiting.looks >= waiting.jobs.len() {
            waiting.looks = 0;
            waiting.jobs.remove_all(Job::is_abandoned);
        }
        if waiting.jobs.added() < capacity {
            return Ok(None);
        }
        if let Some(displaced) = waiting.jobs.displace(flow) {
            return Ok(Some(displaced));
        }
        self.metrics.full.increment();
        Err(Fault::Saturated(format!(
            "the queue is full: {capacity} calls wait"
        )))
    }

    /// Gives back what a host could not finish: before all others, and even over the bound.
    pub(in crate::token) fn give_back(&self, job: Job) {
        // Security: nobody makes a MAC with a key that was closed meanwhile.
        if job.key().is_some_and(|key| key.is_closed()) {
            return job.reply(Err(Fault::Closed));
        }
        let pinned = job.is_pinned();
        let mut waiting = self.waiting.lock().expect(UNPOISONED);
        waiting.jobs.give_back(job);
        drop(waiting);
        self.call(pinned);
    }

    /// Takes a job that a host could not do: once more elsewhere, not twice.
    pub(in crate::token) fn record_failure(&self, mut job: Job, reason: &str) {
        if job.record_crash() {
            self.metrics.moved(Move::Host);
            self.give_back(job);
        } else {
            self.refuse_failed(job, reason);
        }
    }

    /// Takes a job that a host died with: once more elsewhere, not twice. If its hedge is on its way it is
    /// left to that, since with the hedge's host a message that kills would have a third.
    pub(in crate::token) fn record_crash(&self, mut job: Job, reason: &str) {
        let hedged = job.has_hedge();
        match job.record_crash() {
            true if hedged => job.reply(Err(Fault::Unavailable(reason.to_owned()))),
            true => {
                self.metrics.moved(Move::Host);
                self.give_back(job);
            }
            false => self.refuse_failed(job, reason),
        }
    }

    fn refuse_failed(&self, job: Job, reason: &str) {
        let fault = Fault::Unavailable(format!("two hosts failed with this job: {reason}"));
        self.refuse_poison(job, fault);
    }

    /// Answers a job that a token fails with, and remembers its message.
    pub(in crate::token) fn refuse_poison(&self, job: Job, fault: Fault) {
        if let Work::Mac { key, message } = &job.work {
            self.poison.add(key, message, fault.clone());
        }
        job.reply(Err(fault));
    }

    /// Moves jobs that suit the host, that it has room for, and that somebody still waits for; true if
    /// more are left for others. `is_slow` tells which jobs go to the host's management session.
    pub(in crate::token) fn take(
        &self,
        handle: &HostHandle,
        mut room: Room,
        is_slow: impl Fn(&Job) -> bool,
        into: &mut Vec<Job>,
    ) -> bool {
        let (now, before) = (Instant::now(), into.len());
        let mut waiting = self.waiting.lock().expect(UNPOISONED);
        let judge = |job: &Job| {
            if room.fast + room.slow == 0 {
                return Verdict::Stop;
            }
            if job.is_abandoned_at(now) {
                self.metrics.expired.increment();
                return Verdict::Drop;
            }
            let lane = if is_slow(job) {
                &mut room.slow
            } else {
                &mut room.fast
            };
            if *lane > 0 && job.suits(handle.host, handle.member) {
                *lane -= 1;
                Verdict::Take
            } else {
                Verdict::PassOver
            }
        };
        let has_more = waiting.jobs.take(judge, |job| into.push(job));
        waiting.rate.taken(now, into.len() - before, has_more);
        drop(waiting);
        for queued in into[before..].iter().filter_map(|job| job.queued) {
            self.metrics
                .wait
                .observe(now.saturating_duration_since(queued));
        }
        has_more
    }

    /// How many jobs no host has taken yet.
    pub(in crate::token) fn len(&self) -> usize {
        self.waiting.lock().expect(UNPOISONED).jobs.len()
    }

    /// The queue at this moment; the tokens are the caller's to add.
    pub(in crate::token) fn snapshot(&self, name: &str) -> GroupSnapshot {
        GroupSnapshot::new(name, (self.len(), self.capacity()), &self.metrics)
    }

    /// The hosts of a token that serve, at this moment.
    pub(in crate::token) fn serving_hosts(&self, member: usize) -> Vec<HostSnapshot> {
        let hosts = self.hosts.read().expect(UNPOISONED);
        let of_member = hosts.iter().filter(|handle| handle.member == member);
        of_member.map(|handle| handle.snapshot()).collect()
    }

    /// The token of a host that serves, by its number in the group.
    pub(in crate::token) fn member_of(&self, host: u32) -> Option<usize> {
        let hosts = self.hosts.read().expect(UNPOISONED);
        let handle = hosts.iter().find(|handle| handle.host == host);
        handle.map(|handle| handle.member)
    }

    /// Waits until a job may be there.
    pub(in crate::token) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Wakes another host: there is more than the caller took.
    pub(in crate::token) fn call_another(&self) {
        self.arrived.notify_one();
    }

    /// Answers those who wait and of whom `which` is true.
    pub(in crate::token) fn refuse(&self, which: impl Fn(&Job) -> bool, fault: &Fault) {
        let refused = {
            let mut waiting = self.waiting.lock().expect(UNPOISONED);
            waiting.jobs.remove_all(which)
        };
        for job in refused {
            job.reply(Err(fault.clone()));
        }
    }

    /// A host begins to serve.
    pub(in crate::token) fn register(
        &self,
        host: u32,
        member: usize,
        sessions: u32,
    ) -> Arc<HostHandle> {
        let handle = Arc::new(HostHandle {
            host,
            member,
            sessions,
            since: SystemTime::now(),
            jobs: AtomicUsize::new(0),
            stuck: AtomicBool::new(false),
            taking: AtomicBool::new(true),
            orders: Mutex::default(),
            called: Notify::new(),
        });
        self.hosts
            .write()
            .expect(UNPOISONED)
            .push(Arc::clone(&handle));
        self.hosts_started.send_modify(|hosts| *hosts += 1);
        handle
    }

    /// A host has ended, and what becomes of its place is known.
    pub(in crate::token) fn unregister(&self, handle: &HostHandle) {
        let mut hosts = self.hosts.write().expect(UNPOISONED);
        hosts.retain(|other| other.host != handle.host);
    }

    /// A token is to be served; gives its number. The group is not whole without one that is required.
    pub(in crate::token) fn add_member(&self, required: bool) -> usize {
        let member = self.next_member.fetch_add(1, Ordering::Relaxed);
        self.members.write().expect(UNPOISONED).push(MemberStatus {
            member,
            serving: false,
            coming: false,
            required,
        });
        member
    }

    /// The hosts of a token have ended, and none will come: who waits for them alone waits no longer.
    pub(in crate::token) fn remove_member(&self, member: usize) {
        let mut members = self.members.write().expect(UNPOISONED);
        members.retain(|other| other.member != member);
        drop(members);
        let gone =
            Fault::Unavailable("its token is served no longer, or with other settings".into());
        self.refuse(
            |job| job.is_only_for(member) || !self.has_candidate(job),
            &gone,
        );
    }

    /// Sets whether hosts of a token serve, and whether one is on its way.
    pub(in crate::token) fn set_member_status(&self, member: usize, serving: bool, coming: bool) {
        self.edit_member(member, |status| {
            (status.serving, status.coming) = (serving, coming);
        });
    }

    /// Sets whether the group is whole without this token.
    pub(in crate::token) fn set_required(&self, member: usize, required: bool) {
        self.edit_member(member, |status| status.required = required);
    }

    fn edit_member(&self, member: usize, edit: impl FnOnce(&mut MemberStatus)) {
        let mut members = self.members.write().expect(UNPOISONED);
        members
            .iter_mut()
            .find(|one| one.member == member)
            .map(edit);
    }

    /// Whether every token of the group can be asked.
    pub(in crate::token) fn is_whole(&self) -> bool {
        let members = self.members.read().expect(UNPOISONED);
        members
            .iter()
            .all(|member| member.serving || !member.required)
    }

    /// Whether some host may do the job now or soon. One that ends has a successor.
    pub(in crate::token) fn has_candidate(&self, job: &Job) -> bool {
        let hosts = self.hosts.read().expect(UNPOISONED);
        let may = |handle: &Arc<HostHandle>| handle.is_closed() || handle.may_take(job);
        let members = || self.members.read().expect(UNPOISONED);
        hosts.iter().any(may) || members().iter().any(|member| member.coming)
    }

    /// Whether a host other than this one serves that may do the job.
    pub(in crate::token) fn has_other_candidate(&self, job: &Job, host: u32) -> bool {
        let hosts = self.hosts.read().expect(UNPOISONED);
        hosts
            .iter()
            .any(|handle| handle.host != host && handle.may_take(job))
    }

    /// Orders every host to end the calls of a key, and to forget it if its object is closed; waits until
    /// each has, or has ended. A host owes it within two seconds.
    pub(in crate::token) async fn close(&self, key: &Arc<TokenKey>, closing: Closing) {
        let ordered: Vec<_> = self
            .hosts
            .read()
            .expect(UNPOISONED)
            .iter()
            .map(|handle| {
                let (done, closed) = oneshot::channel();
                let key = Arc::clone(key);
                let mut orders = handle.orders.lock().expect(UNPOISONED);
                orders.push(CloseOrder { key, closing, done });
                handle.called.notify_one();
                closed
            })
            .collect();
        for closed in ordered {
            // A host that ends drops the order, and with the process went the handle.
            let _ = closed.await;
        }
    }

    /// Wakes every host of a token: what it may do has changed.
    pub(in crate::token) fn call_hosts(&self, member: usize) {
        let hosts = self.hosts.read().expect(UNPOISONED);
        for handle in hosts.iter().filter(|handle| handle.member == member) {
            handle.called.notify_one();
        }
    }

    /// Any host will do, or each must look whether the job is for it.
    fn call(&self, pinned: bool) {
        if pinned {
            for handle in &*self.hosts.read().expect(UNPOISONED) {
                handle.called.notify_one();
            }
        } else {
            self.arrived.notify_one();
        }
    }
}

/// So many jobs are looked at for each one that comes when the queue is full.
const LOOKED_AT: usize = 32;
/// A flow that has fewer jobs is not foreseen to be late: that would cost each call a look at the clock, and
/// others cannot make it late.
const FORESEEN: usize = 32;

impl Waiting {
    /// How long a job would wait, if that is longer than its caller does.
    fn is_hopeless(&self, job: &Job) -> Option<Duration> {
        if self.jobs.of_lane(job.flow) < FORESEEN || !job.work.is_foreseen() {
            return None;
        }
        let now = Instant::now();
        let is_late = |wait: &Duration| now + *wait > job.until;
        // Most jobs would be in time even behind all others.
        self.rate
            .time_for(self.jobs.len(), now)
            .filter(is_late)
            .and_then(|_| self.rate.time_for(self.jobs.ahead_of(job.flow), now))
            .filter(is_late)
    }
}

impl HostHandle {
    /// Waits until this very host is wanted.
    pub(in crate::token) async fn called(&self) {
        self.called.notified().await;
    }

    /// The host takes no more jobs; what it has it finishes.
    pub(in crate::token) fn close(&self) {
        self.taking.store(false, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        !self.taking.load(Ordering::SeqCst)
    }

    fn may_take(&self, job: &Job) -> bool {
        !self.is_closed() && job.suits(self.host, self.member)
    }

    /// Tells those who look from outside how many jobs the host has.
    pub(in crate::token) fn show_jobs(&self, jobs: usize) {
        self.jobs.store(jobs, Ordering::Relaxed);
    }

    /// Tells those who look from outside whether the host's calls miss their deadlines.
    pub(in crate::token) fn show_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    fn snapshot(&self) -> HostSnapshot {
        HostSnapshot {
            generation: self.host,
            since: self.since,
            sessions: self.sessions,
            jobs: self.jobs.load(Ordering::Relaxed),
            stuck: self.stuck.load(Ordering::Relaxed),
        }
    }

    /// What the host is ordered to do.
    pub(in crate::token) fn orders(&self) -> Vec<CloseOrder> {
        std::mem::take(&mut *self.orders.lock().expect(UNPOISONED))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::token::dispatch::job::{Outcome, Work};

    fn random() -> (Job, oneshot::Receiver<Outcome>) {
        Job::new(
            Work::Random { number_of_bytes: 1 },
            Instant::now() + Duration::from_secs(60),
        )
    }

    fn fast(fast: usize) -> Room {
        Room { fast, slow: 0 }
    }

    #[tokio::test]
    async fn a_queue_that_gets_its_capacity_later_has_room_for_items_of_streams_by_it() {
        let queue = Queue::new(0);
        let items = Flow::new(1, 1).of_stream_items();
        let until = Instant::now() + Duration::from_secs(60);
        let first = queue.stream_room.enter(items, until).await.unwrap();
        queue.set_capacity(100);
        let mut places = vec![first];
        for _ in 0..25 {
            places.push(queue.stream_room.enter(items, until).await.unwrap());
        }
        let soon = Instant::now();
        assert!(queue.stream_room.enter(items, soon).await.is_err());
    }

    #[test]
    fn slow_jobs_have_credits_of_their_own() {
        let queue = Queue::new(9);
        queue.add_member(true);
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let (job, waits) = random();
            queue.push(job).unwrap();
            waiting.push(waits);
        }
        let host = queue.register(1, 0, 1);
        let mut taken = Vec::new();
        // Two that the host must search for, one that it has open: the searches take no MAC's place.
        let number = std::cell::Cell::new(0);
        let is_slow = |_: &Job| {
            number.set(number.get() + 1);
            number.get() != 3
        };
        let more = queue.take(&host, Room { fast: 1, slow: 1 }, is_slow, &mut taken);
        assert_eq!(taken.len(), 2);
        assert!(!more);
    }

    #[test]
    fn a_full_queue_refuses_at_once_after_dropping_abandoned_jobs() {
        let queue = Queue::new(2);
        queue.add_member(true);
        let (one, waits) = random();
        let (two, gone) = random();
        queue.push(one).unwrap();
        queue.push(two).unwrap();
        let (three, _waits_too) = random();
        let refused = queue.push(three).unwrap_err();
        assert_eq!(refused.to_string(), "the queue is full: 2 calls wait");
        drop(gone);
        let (three, _waits_too) = random();
        queue.push(three).unwrap();
        let mut taken = Vec::new();
        queue.take(&queue.register(1, 0, 1), fast(9), |_| false, &mut taken);
        assert_eq!(taken.len(), 2);
        drop(waits);
    }

    #[test]
    fn a_full_queue_has_room_for_a_caller_who_has_fewer_jobs_in_it() {
        let queue = Queue::new(4);
        queue.add_member(true);
        let mut of_greedy = Vec::new();
        for _ in 0..4 {
            let (job, waits) = random();
            queue.push(job.in_flow(Flow::new(1, 1))).unwrap();
            of_greedy.push(waits);
        }
        let modest = || {
            let (job, waits) = random();
            (job.in_flow(Flow::new(2, 1)), waits)
        };
        let (one, mut waits) = modest();
        queue.push(one).unwrap();
        assert!(waits.try_recv().is_err(), "it waits");
        let last = of_greedy.pop().unwrap().try_recv().unwrap();
        assert!(
            matches!(last, Err(Fault::Saturated(why)) if why.contains("no other caller has as many"))
        );
        let (another, _waits) = modest();
        queue.push(another).unwrap();
        let (third, _waits_too) = modest();
        assert!(queue.push(third).is_err(), "two and two are fair");
        let refused = queue.snapshot("").refused;
        assert_eq!(refused[..2], [("full", 1), ("displaced", 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_would_be_too_late_is_refused_at_once() {
        let queue = Queue::new(1000);
        queue.add_member(true);
        let host = queue.register(1, 0, 1);
        let push = |seconds: u64| {
            let until = Instant::now() + Duration::from_secs(seconds);
            let (job, waits) = Job::new(Work::Random { number_of_bytes: 1 }, until);
            queue.push(job.in_flow(Flow::new(1, 1))).map(|()| waits)
        };
        let mut waiting = Vec::new();
        let mut taken = Vec::new();
        // A hundred jobs a second, while more come than go.
        for _ in 0..100 {
            waiting.push(push(600).unwrap());
            waiting.push(push(600).unwrap());
            tokio::time::advance(Duration::from_millis(10)).await;
            queue.take(&host, fast(1), |_| false, &mut taken);
        }
        assert_eq!(queue.len(), 100);
        waiting.push(push(5).unwrap());
        let late = push(0).err().unwrap().to_string();
        assert!(late.contains("after its deadline"), "{late}");
        // Whoever has fewer waiting is not behind all of them.
        let (job, waits) = Job::new(
            Work::Random { number_of_bytes: 1 },
            Instant::now() + Duration::from_millis(500),
        );
        queue.push(job.in_flow(Flow::new(2, 1))).unwrap();
        waiting.push(waits);
        // After an outage nothing is known of how fast it goes.
        tokio::time::advance(Duration::from_secs(3)).await;
        waiting.push(push(0).unwrap());
        assert_eq!(queue.snapshot("").refused[2], ("hopeless", 1));
    }

    #[test]
    fn a_job_that_was_given_back_goes_first() {
        let queue = Queue::new(2);
        queue.add_member(true);
        let (mut one, _a) = random();
        let (two, _b) = random();
        queue.push(two).unwrap();
        queue.give_back(one.hedge(9, &Arc::default()).unwrap());
        let mut taken = Vec::new();
        assert!(
            queue.take(&queue.register(1, 0, 1), fast(1), |_| false, &mut taken),
            "one more is left"
        );
        assert!(!taken[0].suits(9, 0));
    }

    #[test]
    fn a_job_that_a_host_died_with_is_left_to_its_hedge() {
        let queue = Queue::new(2);
        queue.add_member(true);
        let (mut job, mut answer) = random();
        let hedge = job.hedge(1, &Arc::default()).unwrap();
        queue.record_crash(job, "a crash");
        assert_eq!(queue.len(), 0, "two hosts would have it again");
        assert!(answer.try_recv().is_err(), "the hedge may still answer");
        queue.record_crash(hedge, "a crash");
        assert!(matches!(
            answer.try_recv().unwrap(),
            Err(Fault::Unavailable(_))
        ));
        let (alone, _waits) = random();
        queue.record_crash(alone, "a crash");
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn expired_jobs_are_not_handed_out() {
        let queue = Queue::new(2);
        queue.add_member(true);
        let (job, _waits) = Job::new(Work::Random { number_of_bytes: 1 }, Instant::now());
        queue.push(job).unwrap();
        let mut taken = Vec::new();
        assert!(!queue.take(&queue.register(1, 0, 1), fast(1), |_| false, &mut taken));
        assert!(taken.is_empty());
    }

    #[test]
    fn a_job_passes_over_the_hosts_that_it_does_not_suit() {
        let queue = Queue::new(9);
        queue.add_member(true);
        let (mut late, _a) = random();
        let pinned = late.hedge(1, &Arc::default()).unwrap();
        let (plain, _b) = random();
        queue.push(pinned).unwrap();
        queue.push(plain).unwrap();
        let (one, two) = (queue.register(1, 0, 1), queue.register(2, 0, 1));
        let mut taken = Vec::new();
        assert!(
            !queue.take(&one, fast(9), |_| false, &mut taken),
            "the rest is not for others"
        );
        assert_eq!(taken.len(), 1);
        queue.take(&two, fast(9), |_| false, &mut taken);
        assert_eq!(taken.len(), 2, "the host that it suits takes it");
        assert!(queue.has_candidate(&taken[1]) && !queue.has_other_candidate(&taken[1], 2));
        queue.unregister(&two);
        assert!(!queue.has_candidate(&taken[1]));
        queue.set_member_status(0, false, true);
        assert!(queue.has_candidate(&taken[1]), "a fresh host may do it");
        queue.unregister(&one);
    }
}
