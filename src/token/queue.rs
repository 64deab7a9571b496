//! The one queue of a group of tokens: bounded, first in first out, shared by all hosts.
//!
//! A host that serves has a *seat*: through it the others know which hosts there are, and who asks
//! all of them for something reaches each. Hosts take jobs as they have room, so that the fastest
//! does the most and nobody routes.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, oneshot, watch};

use super::{Fault, Key, job::Job};

/// Jobs that no host has taken yet.
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    capacity: usize,
    arrived: Notify,
    seats: RwLock<Vec<Arc<Seat>>>,
    members: Vec<Standing>,
    generations: AtomicU32,
    sequences: AtomicU64,
    /// Hosts that have come to serve, ever.
    seated: watch::Sender<u64>,
}

/// One host that serves.
pub(super) struct Seat {
    /// Its generation, which no other host of the group has.
    pub(super) host: u32,
    /// The place in the group of the token that it serves.
    member: usize,
    /// False once it finishes what it has and takes no more.
    taking: AtomicBool,
    orders: Mutex<Vec<Forget>>,
    called: Notify,
}

/// An order to a host: no handle of this key may be left when `done` is answered.
pub(super) struct Forget {
    pub(super) key: Arc<Key>,
    pub(super) done: oneshot::Sender<()>,
}

/// What the queue knows of one token of the group.
#[derive(Default)]
struct Standing {
    /// Some host of it serves.
    serving: AtomicBool,
    /// A host of it is on its way.
    coming: AtomicBool,
}

impl Queue {
    /// For so many jobs and so many tokens.
    pub(super) fn new(capacity: usize, members: usize) -> Self {
        Self {
            jobs: Mutex::default(),
            capacity,
            arrived: Notify::new(),
            seats: RwLock::default(),
            members: (0..members).map(|_| Standing::default()).collect(),
            generations: AtomicU32::new(1),
            sequences: AtomicU64::new(1),
            seated: watch::Sender::new(0),
        }
    }

    /// A number that no other host of the group has had.
    pub(super) fn next_generation(&self) -> u32 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// A number that no other job of the group has had.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequences.fetch_add(1, Ordering::Relaxed)
    }

    /// How many hosts have come to serve so far.
    pub(super) fn seated(&self) -> watch::Receiver<u64> {
        self.seated.subscribe()
    }

    /// Never waits for room: a full queue sheds at the door.
    ///
    /// # Errors
    /// [`Fault::Saturated`].
    pub(super) fn push(&self, job: Job) -> Result<(), Fault> {
        let picky = job.is_picky();
        {
            let mut jobs = self.jobs.lock().expect(UNPOISONED);
            if jobs.len() >= self.capacity {
                // Room that only the dead take is room.
                jobs.retain(|job| !job.is_abandoned());
                if jobs.len() >= self.capacity {
                    return Err(Fault::Saturated);
                }
            }
            jobs.push_back(job);
        }
        self.call(picky);
        Ok(())
    }

    /// Gives back what a host could not finish: before all others, and even over the bound.
    pub(super) fn give_back(&self, job: Job) {
        // Security: nobody makes a MAC with a key that was closed meanwhile.
        if job.key().is_some_and(|key| key.is_closed()) {
            return job.reply(Err(Fault::Closed));
        }
        let picky = job.is_picky();
        self.jobs.lock().expect(UNPOISONED).push_front(job);
        self.call(picky);
    }

    /// Moves up to `most` jobs that suit the host and that somebody still waits for; true if more
    /// are left for others.
    pub(super) fn take(&self, seat: &Seat, most: usize, into: &mut Vec<Job>) -> bool {
        let mut jobs = self.jobs.lock().expect(UNPOISONED);
        let mut passed_over = 0;
        while into.len() < most
            && let Some(job) = jobs.get(passed_over)
        {
            if job.is_abandoned() {
                jobs.remove(passed_over);
            } else if job.suits(seat.host, seat.member) {
                into.extend(jobs.remove(passed_over));
            } else {
                passed_over += 1;
            }
        }
        jobs.len() > passed_over
    }

    /// Waits until a job may be there.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Wakes another host: there is more than the caller took.
    pub(super) fn call_another(&self) {
        self.arrived.notify_one();
    }

    /// Answers those who wait and of whom `which` is true.
    pub(super) fn refuse(&self, which: impl Fn(&Job) -> bool, fault: &Fault) {
        let refused: VecDeque<Job> = {
            let mut jobs = self.jobs.lock().expect(UNPOISONED);
            let (refused, kept) = std::mem::take(&mut *jobs).into_iter().partition(which);
            *jobs = kept;
            refused
        };
        for job in refused {
            job.reply(Err(fault.clone()));
        }
    }

    /// A host begins to serve.
    pub(super) fn sit(&self, host: u32, member: usize) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            host,
            member,
            taking: AtomicBool::new(true),
            orders: Mutex::default(),
            called: Notify::new(),
        });
        self.seats
            .write()
            .expect(UNPOISONED)
            .push(Arc::clone(&seat));
        self.seated.send_modify(|hosts| *hosts += 1);
        seat
    }

    /// A host has ended, and what becomes of its place is known.
    pub(super) fn leave(&self, seat: &Seat) {
        let mut seats = self.seats.write().expect(UNPOISONED);
        seats.retain(|other| other.host != seat.host);
    }

    /// How one of the tokens stands.
    pub(super) fn set_standing(&self, member: usize, serving: bool, coming: bool) {
        self.members[member]
            .serving
            .store(serving, Ordering::SeqCst);
        self.members[member].coming.store(coming, Ordering::SeqCst);
    }

    /// Whether every token of the group can be asked.
    pub(super) fn is_whole(&self) -> bool {
        let mut members = self.members.iter();
        members.all(|member| member.serving.load(Ordering::SeqCst))
    }

    /// Whether some host may do the job now or soon. One that ends has a successor.
    pub(super) fn has_hope(&self, job: &Job) -> bool {
        let coming = |member: &Standing| member.coming.load(Ordering::SeqCst);
        let seats = self.seats.read().expect(UNPOISONED);
        let may = |seat: &Arc<Seat>| seat.is_closed() || seat.may_take(job);
        seats.iter().any(may) || self.members.iter().any(coming)
    }

    /// Whether a host other than this one serves that may do the job.
    pub(super) fn has_another(&self, job: &Job, host: u32) -> bool {
        let seats = self.seats.read().expect(UNPOISONED);
        seats
            .iter()
            .any(|seat| seat.host != host && seat.may_take(job))
    }

    /// Orders every host to forget a key, and waits until each has, or has ended. A host owes it
    /// within two seconds.
    pub(super) async fn forget(&self, key: &Arc<Key>) {
        let ordered: Vec<_> = self
            .seats
            .read()
            .expect(UNPOISONED)
            .iter()
            .map(|seat| {
                let (done, forgotten) = oneshot::channel();
                let key = Arc::clone(key);
                let mut orders = seat.orders.lock().expect(UNPOISONED);
                orders.push(Forget { key, done });
                seat.called.notify_one();
                forgotten
            })
            .collect();
        for forgotten in ordered {
            // A host that ends drops the order, and with the process went the handle.
            let _ = forgotten.await;
        }
    }

    /// Any host will do, or each must look whether the job is for it.
    fn call(&self, picky: bool) {
        if picky {
            for seat in &*self.seats.read().expect(UNPOISONED) {
                seat.called.notify_one();
            }
        } else {
            self.arrived.notify_one();
        }
    }
}

impl Seat {
    /// Waits until this very host is wanted.
    pub(super) async fn called(&self) {
        self.called.notified().await;
    }

    /// The host takes no more jobs; what it has it finishes.
    pub(super) fn close(&self) {
        self.taking.store(false, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        !self.taking.load(Ordering::SeqCst)
    }

    fn may_take(&self, job: &Job) -> bool {
        !self.is_closed() && job.suits(self.host, self.member)
    }

    /// What the host is ordered to forget.
    pub(super) fn orders(&self) -> Vec<Forget> {
        std::mem::take(&mut *self.orders.lock().expect(UNPOISONED))
    }
}

const UNPOISONED: &str = "no holder of the queue's locks panics";

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{
        super::job::{Outcome, Work},
        *,
    };

    fn random() -> (Job, oneshot::Receiver<Outcome>) {
        Job::new(
            Work::Random { number_of_bytes: 1 },
            Instant::now() + Duration::from_secs(60),
        )
    }

    #[test]
    fn a_full_queue_sheds_at_once_but_not_because_of_the_dead() {
        let queue = Queue::new(2, 1);
        let (one, waits) = random();
        let (two, gone) = random();
        queue.push(one).unwrap();
        queue.push(two).unwrap();
        let (three, _waits_too) = random();
        assert_eq!(queue.push(three).unwrap_err(), Fault::Saturated);
        drop(gone);
        let (three, _waits_too) = random();
        queue.push(three).unwrap();
        let mut taken = Vec::new();
        queue.take(&queue.sit(1, 0), 9, &mut taken);
        assert_eq!(taken.len(), 2);
        drop(waits);
    }

    #[test]
    fn what_was_given_back_goes_first() {
        let queue = Queue::new(2, 1);
        let (mut one, _a) = random();
        let (two, _b) = random();
        queue.push(two).unwrap();
        queue.give_back(one.twin(9).unwrap());
        let mut taken = Vec::new();
        assert!(
            queue.take(&queue.sit(1, 0), 1, &mut taken),
            "one more is left"
        );
        assert!(!taken[0].suits(9, 0));
    }

    #[test]
    fn expired_jobs_are_not_handed_out() {
        let queue = Queue::new(2, 1);
        let (job, _waits) = Job::new(Work::Random { number_of_bytes: 1 }, Instant::now());
        queue.push(job).unwrap();
        let mut taken = Vec::new();
        assert!(!queue.take(&queue.sit(1, 0), 1, &mut taken));
        assert!(taken.is_empty());
    }

    #[test]
    fn a_job_passes_over_the_hosts_that_it_does_not_suit() {
        let queue = Queue::new(9, 1);
        let (mut late, _a) = random();
        let picky = late.twin(1).unwrap();
        let (plain, _b) = random();
        queue.push(picky).unwrap();
        queue.push(plain).unwrap();
        let (one, two) = (queue.sit(1, 0), queue.sit(2, 0));
        let mut taken = Vec::new();
        assert!(
            !queue.take(&one, 9, &mut taken),
            "the rest is not for others"
        );
        assert_eq!(taken.len(), 1);
        queue.take(&two, 9, &mut taken);
        assert_eq!(taken.len(), 2, "the host that it suits takes it");
        assert!(queue.has_hope(&taken[1]) && !queue.has_another(&taken[1], 2));
        queue.leave(&two);
        assert!(!queue.has_hope(&taken[1]));
        queue.set_standing(0, false, true);
        assert!(queue.has_hope(&taken[1]), "a fresh host may do it");
        queue.leave(&one);
    }
}
