//! The order in which jobs are served: deficit round robin (Shreedhar and Varghese, 1995) over flows, each
//! job counting the same.
//!
//! Promises: within a flow first in, first out; among flows that have jobs waiting each is served as
//! many times a round as its weight says, so that a job waits for the jobs of its own flow and for a
//! share of the others', however many those have. What was given back comes before all others. With one
//! flow it is a plain queue. Adding, and displacing a job of the longest flow, cost the same however many
//! jobs wait; taking costs what is taken and passed over. Does not: know what a job is, or lock.

use std::{collections::VecDeque, mem};

use crate::model::Flow;

/// Jobs that wait, by flow.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// What was given back, the last first.
    returned: VecDeque<T>,
    /// By the flow's number.
    flows: Vec<FlowQueue<T>>,
    /// The flows that have jobs, in the order of their turns.
    ring: VecDeque<u32>,
    lengths: Lengths,
    /// Jobs in `flows`.
    waiting: usize,
    takings: u64,
}

/// The jobs of one flow.
#[derive(Debug)]
struct FlowQueue<T> {
    jobs: VecDeque<T>,
    weight: u32,
    /// How many more are served in this turn; 0: its turn has not begun.
    credit: u32,
    /// Jobs that the taking of this number has passed over.
    passed_over: (u64, usize),
}

/// What is to be done with a job that is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It is served.
    Take,
    /// It stays where it is.
    PassOver,
    /// It goes, and its flow's turn is not used for it.
    Drop,
    /// It stays, and no other is looked at.
    Stop,
}

impl<T> FairQueue<T> {
    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.returned.len() + self.waiting
    }

    /// How many jobs wait that were not given back.
    pub(super) fn added(&self) -> usize {
        self.waiting
    }

    /// Adds a job at the end of its flow.
    pub(super) fn push(&mut self, flow: Flow, job: T) {
        let number = flow.number() as usize;
        if self.flows.len() <= number {
            self.flows.resize_with(number + 1, FlowQueue::default);
        }
        let queue = &mut self.flows[number];
        if queue.jobs.is_empty() {
            self.ring.push_back(flow.number());
        }
        queue.weight = flow.weight();
        queue.jobs.push_back(job);
        self.waiting += 1;
        self.lengths.set(flow.number(), queue.weighted_length());
    }

    /// Puts a job before all others.
    pub(super) fn give_back(&mut self, job: T) {
        self.returned.push_front(job);
    }

    /// Goes through the jobs in the order in which they are to be served. Gives whether there are jobs that
    /// were not looked at.
    pub(super) fn take(
        &mut self,
        mut judge: impl FnMut(&T) -> Verdict,
        mut serve: impl FnMut(T),
    ) -> bool {
        let mut passed_over = 0;
        while let Some(job) = self.returned.get(passed_over) {
            match judge(job) {
                Verdict::Stop => return self.len() > passed_over,
                Verdict::PassOver => passed_over += 1,
                Verdict::Drop => drop(self.returned.remove(passed_over)),
                Verdict::Take => self
                    .returned
                    .remove(passed_over)
                    .into_iter()
                    .for_each(&mut serve),
            }
        }
        self.takings += 1;
        let mut at = 0;
        while let Some(number) = self.ring.get(at).copied() {
            let queue = &mut self.flows[number as usize];
            if queue.passed_over.0 != self.takings {
                queue.passed_over = (self.takings, 0);
            }
            let (mut stopped, mut is_through, mut turn_is_over) = (false, false, false);
            while !turn_is_over {
                let at = queue.passed_over.1;
                let Some(job) = queue.jobs.get(at) else {
                    is_through = true;
                    break;
                };
                match judge(job) {
                    Verdict::Stop => {
                        stopped = true;
                        break;
                    }
                    Verdict::PassOver => {
                        queue.passed_over.1 += 1;
                        passed_over += 1;
                    }
                    verdict @ (Verdict::Take | Verdict::Drop) => {
                        let job = queue.jobs.remove(at);
                        self.waiting -= 1;
                        if verdict == Verdict::Take {
                            if queue.credit == 0 {
                                queue.credit = queue.weight;
                            }
                            queue.credit -= 1;
                            turn_is_over = queue.credit == 0;
                            job.into_iter().for_each(&mut serve);
                        }
                    }
                }
            }
            let is_empty = queue.jobs.is_empty();
            self.lengths.set(number, queue.weighted_length());
            if is_empty {
                self.leave_ring(at);
            } else if turn_is_over && self.ring.len() > 1 {
                self.ring.remove(at);
                self.ring.push_back(number);
            }
            if stopped {
                break;
            }
            // Those of which nothing suits keep their place, for whoever comes next.
            if is_through && !is_empty {
                at += 1;
            }
        }
        self.len() > passed_over
    }

    /// Room for a job of this flow in the place of another one: the last of the longest flow, if that is
    /// longer, weighed, than this flow would be.
    pub(super) fn displace(&mut self, flow: Flow) -> Option<T> {
        let own = self.of_flow(flow) + 1;
        let longest = self.lengths.longest()?;
        if self.lengths.highest <= own / flow.weight() as usize {
            return None;
        }
        let queue = &mut self.flows[longest as usize];
        let displaced = queue.jobs.pop_back();
        self.waiting -= usize::from(displaced.is_some());
        self.settle(longest);
        displaced
    }

    /// Takes away the first job that `which` is true of among so many of those that wait longest in the
    /// longest flow.
    pub(super) fn drop_one_of_longest(&mut self, looked_at: usize, which: impl Fn(&T) -> bool) {
        let Some(longest) = self.lengths.longest() else {
            return;
        };
        let queue = &mut self.flows[longest as usize];
        if let Some(at) = queue.jobs.iter().take(looked_at).position(which) {
            queue.jobs.remove(at);
            self.waiting -= 1;
            self.settle(longest);
        }
    }

    /// How many jobs of this flow wait.
    pub(super) fn of_flow(&self, flow: Flow) -> usize {
        let queue = self.flows.get(flow.number() as usize);
        queue.map_or(0, |queue| queue.jobs.len())
    }

    /// How many jobs are served before one of this flow that comes now, at least: those of its flow, and of
    /// each other flow what it has or what its weight gives it meanwhile. Costs a look at each flow that
    /// has jobs.
    pub(super) fn ahead_of(&self, flow: Flow) -> usize {
        let own = self.of_flow(flow);
        let rounds = own / flow.weight() as usize;
        let others = self.ring.iter().filter(|one| **one != flow.number());
        let of_others = others.map(|one| {
            let queue = &self.flows[*one as usize];
            queue.jobs.len().min(rounds * queue.weight as usize)
        });
        self.returned.len() + own + of_others.sum::<usize>()
    }

    /// Takes out all jobs of which `which` is true, wherever they are.
    pub(super) fn remove_all(&mut self, mut which: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        split(&mut self.returned, &mut which, &mut removed);
        let of_flows = removed.len();
        for number in self.ring.clone() {
            split(
                &mut self.flows[number as usize].jobs,
                &mut which,
                &mut removed,
            );
            self.settle(number);
        }
        self.waiting -= removed.len() - of_flows;
        removed
    }

    /// A flow has lost jobs.
    fn settle(&mut self, number: u32) {
        let queue = &self.flows[number as usize];
        self.lengths.set(number, queue.weighted_length());
        if queue.jobs.is_empty()
            && let Some(at) = self.ring.iter().position(|one| *one == number)
        {
            self.leave_ring(at);
        }
    }

    /// The flow at this place of the ring has no job any more.
    fn leave_ring(&mut self, at: usize) {
        if let Some(number) = self.ring.remove(at) {
            let queue = &mut self.flows[number as usize];
            queue.credit = 0;
            // What a burst needed is not kept for each flow that ever had one.
            if queue.jobs.capacity() > KEPT {
                queue.jobs.shrink_to(KEPT);
            }
        }
    }
}

/// Room for so many jobs stays with a flow that has none.
const KEPT: usize = 256;

fn split<T>(jobs: &mut VecDeque<T>, which: impl FnMut(&T) -> bool, removed: &mut Vec<T>) {
    let (gone, kept): (VecDeque<T>, VecDeque<T>) = mem::take(jobs).into_iter().partition(which);
    *jobs = kept;
    removed.extend(gone);
}

impl<T> FlowQueue<T> {
    fn weighted_length(&self) -> usize {
        self.jobs.len() / self.weight.max(1) as usize
    }
}

impl<T> Default for FlowQueue<T> {
    fn default() -> Self {
        Self {
            jobs: VecDeque::new(),
            weight: 1,
            credit: 0,
            passed_over: (0, 0),
        }
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            returned: VecDeque::new(),
            flows: Vec::new(),
            ring: VecDeque::new(),
            lengths: Lengths::default(),
            waiting: 0,
            takings: 0,
        }
    }
}

/// Which flow is the longest, at the same cost for any number of flows: a list of the flows of each
/// length, linked through the flows.
#[derive(Debug, Default)]
struct Lengths {
    /// The first flow of each length.
    heads: Vec<Option<u32>>,
    links: Vec<Link>,
    /// The greatest length that a flow has.
    highest: usize,
}

/// A flow's place in the list of its length. A length of 0 is in no list.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    length: usize,
    before: Option<u32>,
    after: Option<u32>,
}

impl Lengths {
    /// One of the flows of the greatest length; none if all are empty, or have less than their weight.
    fn longest(&self) -> Option<u32> {
        self.heads.get(self.highest).copied().flatten()
    }

    fn set(&mut self, flow: u32, length: usize) {
        let index = flow as usize;
        if self.links.len() <= index {
            self.links.resize(index + 1, Link::default());
        }
        let old = self.links[index];
        if old.length == length {
            return;
        }
        if old.length > 0 {
            match old.before {
                Some(before) => self.links[before as usize].after = old.after,
                None => self.heads[old.length] = old.after,
            }
            if let Some(after) = old.after {
                self.links[after as usize].before = old.before;
            }
        }
        let mut after = None;
        if length > 0 {
            if self.heads.len() <= length {
                self.heads.resize(length + 1, None);
            }
            after = self.heads[length].replace(flow);
            if let Some(after) = after {
                self.links[after as usize].before = Some(flow);
            }
        }
        self.links[index] = Link {
            length,
            before: None,
            after,
        };
        self.highest = self.highest.max(length);
        while self.highest > 0 && self.heads[self.highest].is_none() {
            self.highest -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
