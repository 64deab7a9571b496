//! The one queue of a token: bounded, first in first out, shared by its hosts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::{Fault, Key, KeyFacts};

/// A unit of work for one session. `until` travels with it: when the caller has given up, computing
/// the MAC would only delay those still waiting.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) until: Instant,
    /// How many hosts died with this job in the library's hands.
    pub(super) charges: u8,
    reply: oneshot::Sender<Result<Answer, Fault>>,
}

pub(super) enum Work {
    Mac { key: Arc<Key>, message: Bytes },
    Random { number_of_bytes: u32 },
    Describe { key: Arc<Key> },
}

pub(super) enum Answer {
    Bytes(Bytes),
    Facts(KeyFacts),
}

impl Job {
    pub(super) fn new(
        work: Work,
        until: Instant,
    ) -> (Self, oneshot::Receiver<Result<Answer, Fault>>) {
        let (reply, answer) = oneshot::channel();
        (
            Self {
                work,
                until,
                charges: 0,
                reply,
            },
            answer,
        )
    }

    /// The key that the job is about.
    pub(super) fn key(&self) -> Option<&Arc<Key>> {
        match &self.work {
            Work::Mac { key, .. } | Work::Describe { key } => Some(key),
            Work::Random { .. } => None,
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed() || Instant::now() >= self.until
    }

    pub(super) fn reply(self, answer: Result<Answer, Fault>) {
        // A caller that has gone away is no fault.
        let _ = self.reply.send(answer);
    }
}

/// Jobs that no host has taken yet.
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    capacity: usize,
    arrived: Notify,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            jobs: Mutex::default(),
            capacity,
            arrived: Notify::new(),
        }
    }

    /// Never waits for room: a full queue sheds at the door.
    ///
    /// # Errors
    /// [`Fault::Saturated`].
    pub(super) fn push(&self, job: Job) -> Result<(), Fault> {
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
        self.arrived.notify_one();
        Ok(())
    }

    /// Gives back what a host could not finish: before all others, and even over the bound.
    pub(super) fn give_back(&self, job: Job) {
        self.jobs.lock().expect(UNPOISONED).push_front(job);
        self.arrived.notify_one();
    }

    /// Moves up to `most` jobs that somebody still waits for; true if more are left.
    pub(super) fn take(&self, most: usize, into: &mut Vec<Job>) -> bool {
        let mut jobs = self.jobs.lock().expect(UNPOISONED);
        while into.len() < most
            && let Some(job) = jobs.pop_front()
        {
            if !job.is_abandoned() {
                into.push(job);
            }
        }
        !jobs.is_empty()
    }

    /// Waits until a job may be there.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Wakes another host: there is more than the caller took.
    pub(super) fn call_another(&self) {
        self.arrived.notify_one();
    }

    /// Answers everybody who waits with the same fault.
    pub(super) fn refuse_all(&self, fault: &Fault) {
        let jobs = std::mem::take(&mut *self.jobs.lock().expect(UNPOISONED));
        for job in jobs {
            job.reply(Err(fault.clone()));
        }
    }
}

const UNPOISONED: &str = "no holder of the queue's lock panics";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn random() -> (Job, oneshot::Receiver<Result<Answer, Fault>>) {
        Job::new(
            Work::Random { number_of_bytes: 1 },
            Instant::now() + Duration::from_secs(60),
        )
    }

    #[test]
    fn a_full_queue_sheds_at_once_but_not_because_of_the_dead() {
        let queue = Queue::new(2);
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
        queue.take(9, &mut taken);
        assert_eq!(taken.len(), 2);
        drop(waits);
    }

    #[test]
    fn what_was_given_back_goes_first() {
        let queue = Queue::new(2);
        let (mut one, _a) = random();
        one.charges = 1;
        let (two, _b) = random();
        queue.push(two).unwrap();
        queue.give_back(one);
        let mut taken = Vec::new();
        assert!(queue.take(1, &mut taken), "one more is left");
        assert_eq!(taken[0].charges, 1);
    }

    #[test]
    fn expired_jobs_are_not_handed_out() {
        let queue = Queue::new(2);
        let (job, _waits) = Job::new(Work::Random { number_of_bytes: 1 }, Instant::now());
        queue.push(job).unwrap();
        let mut taken = Vec::new();
        assert!(!queue.take(1, &mut taken));
        assert!(taken.is_empty());
    }
}
