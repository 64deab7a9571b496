//! What the management session has to do, in the order in which it came.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use super::host_key::HostKey;
use crate::proto::host::{Job, job::Work};

/// What only the management session does.
pub(super) enum Task {
    /// A job whose key is not open, or that asks about one, or that changes the token.
    Job(Job),
    /// Destroy what is left of a key that was forgotten: its copy.
    CleanUp(Arc<HostKey>),
    /// This generation is over.
    End,
}

/// Tasks that wait. Not a channel: jobs of a key that is forgotten leave from the middle.
#[derive(Default)]
pub(super) struct TaskQueue {
    waiting: Mutex<VecDeque<Task>>,
    arrived: Condvar,
}

impl TaskQueue {
    /// Appends a task.
    pub(super) fn push(&self, task: Task) {
        self.waiting().push_back(task);
        self.arrived.notify_one();
    }

    /// The next task; waits for one.
    pub(super) fn next(&self) -> Task {
        let mut waiting = self.waiting();
        loop {
            match waiting.pop_front() {
                Some(task) => return task,
                None => waiting = self.arrived.wait(waiting).expect(UNPOISONED),
            }
        }
    }

    /// Takes out the jobs that use a key and change nothing.
    pub(super) fn take_jobs_with(&self, reference: u64) -> Vec<Job> {
        let uses = |task: &Task| match task {
            Task::Job(job) => key_of(job) == Some(reference),
            Task::CleanUp(_) | Task::End => false,
        };
        let mut waiting = self.waiting();
        let (taken, kept) = std::mem::take(&mut *waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(uses);
        *waiting = kept;
        let jobs = taken.into_iter().filter_map(|task| match task {
            Task::Job(job) => Some(job),
            Task::CleanUp(_) | Task::End => None,
        });
        jobs.collect()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.waiting.lock().expect(UNPOISONED)
    }
}

/// The key of a job that makes or checks something with it.
fn key_of(job: &Job) -> Option<u64> {
    match job.work.as_ref()? {
        Work::Mac(mac) => Some(mac.key),
        Work::DescribeKey(describe) => Some(describe.key),
        Work::Probe(probe) => Some(probe.key),
        Work::Seal(seal) => Some(seal.key),
        Work::CheckSeal(check) => Some(check.key),
        Work::Random(_) | Work::Generate(_) | Work::Import(_) | Work::Destroy(_) => None,
    }
}

const UNPOISONED: &str = "nobody panics while holding the lock of the task queue";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::host::{Generate, Mac};

    fn mac(key: u64, sequence: u64) -> Task {
        let message = Default::default();
        Task::Job(Job {
            sequence,
            work: Some(Work::Mac(Mac { key, message })),
            ..Job::default()
        })
    }

    #[test]
    fn jobs_of_a_forgotten_key_leave_and_the_order_of_the_others_stays() {
        let tasks = TaskQueue::default();
        for (key, sequence) in [(1, 1), (2, 2), (1, 3), (3, 4)] {
            tasks.push(mac(key, sequence));
        }
        let generate = Work::Generate(Generate { key: 1 });
        tasks.push(Task::Job(Job {
            sequence: 5,
            work: Some(generate),
            ..Job::default()
        }));
        let taken: Vec<_> = tasks.take_jobs_with(1);
        let sequences: Vec<_> = taken.iter().map(|job| job.sequence).collect();
        assert_eq!(sequences, [1, 3]);
        tasks.push(Task::End);
        let mut left = Vec::new();
        while let Task::Job(job) = tasks.next() {
            left.push(job.sequence);
        }
        // A creation under way is finished: only what it made can be destroyed again.
        assert_eq!(left, [2, 4, 5]);
    }
}
