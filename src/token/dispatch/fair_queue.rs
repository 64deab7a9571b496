//! The order in which jobs are served: deficit round robin (Shreedhar and Varghese, 1995) over flows, each
//! job counting the same.
//!
//! Promises: within a flow first in, first out; among flows that have jobs waiting each is served as
//! many times a round as its weight says, so that a job waits for the jobs of its own flow and for a
//! share of the others', however many those have; the calls and the stream items of a flow take turns. What was given back comes before all others. With one
//! flow it is a plain queue. Adding, and displacing a job of the longest flow, cost the same however many
//! jobs wait; taking costs what is taken and passed over. Does not: know what a job is, or lock.

mod flow_queue;
mod lengths;

use std::{collections::VecDeque, mem};

use self::{
    flow_queue::{FlowQueue, TurnEnd},
    lengths::Lengths,
};
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
        if queue.is_empty() {
            self.ring.push_back(flow.number());
        }
        queue.weight = flow.weight();
        queue.lanes[flow.lane() as usize].jobs.push_back(job);
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
            queue.begin(self.takings);
            let before = (queue.len(), queue.passed_over());
            let end = queue.take_turn(&mut judge, &mut serve);
            self.waiting -= before.0 - queue.len();
            passed_over += queue.passed_over() - before.1;
            let is_empty = queue.is_empty();
            self.lengths.set(number, queue.weighted_length());
            if is_empty {
                self.leave_ring(at);
            } else if end == TurnEnd::IsOver && self.ring.len() > 1 {
                self.ring.remove(at);
                self.ring.push_back(number);
            }
            if end == TurnEnd::Stopped {
                break;
            }
            // Those of which nothing suits keep their place, for whoever comes next.
            if end == TurnEnd::IsThrough && !is_empty {
                at += 1;
            }
        }
        self.len() > passed_over
    }

    /// Room for a job of this flow in the place of another one: the last of the longer lane of the longest
    /// flow, if that flow is longer, weighed, than this one would be; else the last of this flow's other lane,
    /// if that is longer than the job's would be.
    pub(super) fn displace(&mut self, flow: Flow) -> Option<T> {
        let own = self.of_flow(flow) + 1;
        let longest = self.lengths.longest()?;
        let (number, lane) = if self.lengths.highest > own / flow.weight() as usize {
            (longest, self.flows[longest as usize].longer_lane())
        } else {
            let lane = self.flows.get(flow.number() as usize)?.longer_lane();
            let is_longer = lane != flow.lane() as usize
                && self.flows[flow.number() as usize].lanes[lane].jobs.len()
                    > self.of_lane(flow) + 1;
            (flow.number(), is_longer.then_some(lane)?)
        };
        let displaced = self.flows[number as usize].lanes[lane].jobs.pop_back();
        self.waiting -= usize::from(displaced.is_some());
        self.settle(number);
        displaced
    }

    /// Takes away the first job that `which` is true of among so many of those that wait longest in the
    /// longer lane of the longest flow.
    pub(super) fn drop_one_of_longest(&mut self, looked_at: usize, which: impl Fn(&T) -> bool) {
        let Some(longest) = self.lengths.longest() else {
            return;
        };
        let queue = &mut self.flows[longest as usize];
        let jobs = &mut queue.lanes[queue.longer_lane()].jobs;
        if let Some(at) = jobs.iter().take(looked_at).position(which) {
            jobs.remove(at);
            self.waiting -= 1;
            self.settle(longest);
        }
    }

    /// How many jobs of this flow wait, calls and stream items.
    fn of_flow(&self, flow: Flow) -> usize {
        let queue = self.flows.get(flow.number() as usize);
        queue.map_or(0, FlowQueue::len)
    }

    /// How many jobs wait in this lane of the flow.
    pub(super) fn of_lane(&self, flow: Flow) -> usize {
        let queue = self.flows.get(flow.number() as usize);
        queue.map_or(0, |queue| queue.lanes[flow.lane() as usize].jobs.len())
    }

    /// How many jobs are served before one of this flow that comes now, at least: those of its lane, as many
    /// of the other lane, and of each other flow what it has or what its weight gives it meanwhile. Costs a
    /// look at each flow that has jobs.
    pub(super) fn ahead_of(&self, flow: Flow) -> usize {
        let of_lane = self.of_lane(flow);
        let own = self.of_flow(flow).min(2 * of_lane);
        let rounds = own / flow.weight() as usize;
        let others = self.ring.iter().filter(|one| **one != flow.number());
        let of_others = others.map(|one| {
            let queue = &self.flows[*one as usize];
            queue.len().min(rounds * queue.weight as usize)
        });
        self.returned.len() + own + of_others.sum::<usize>()
    }

    /// Takes out all jobs of which `which` is true, wherever they are.
    pub(super) fn remove_all(&mut self, mut which: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        split(&mut self.returned, &mut which, &mut removed);
        let of_flows = removed.len();
        for number in self.ring.clone() {
            for lane in &mut self.flows[number as usize].lanes {
                split(&mut lane.jobs, &mut which, &mut removed);
            }
            self.settle(number);
        }
        self.waiting -= removed.len() - of_flows;
        removed
    }

    /// A flow has lost jobs.
    fn settle(&mut self, number: u32) {
        let queue = &self.flows[number as usize];
        self.lengths.set(number, queue.weighted_length());
        if queue.is_empty()
            && let Some(at) = self.ring.iter().position(|one| *one == number)
        {
            self.leave_ring(at);
        }
    }

    /// The flow at this place of the ring has no job any more.
    fn leave_ring(&mut self, at: usize) {
        if let Some(number) = self.ring.remove(at) {
            let queue = &mut self.flows[number as usize];
            queue.rest();
        }
    }
}

fn split<T>(jobs: &mut VecDeque<T>, which: impl FnMut(&T) -> bool, removed: &mut Vec<T>) {
    let (gone, kept): (VecDeque<T>, VecDeque<T>) = mem::take(jobs).into_iter().partition(which);
    *jobs = kept;
    removed.extend(gone);
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

#[cfg(test)]
mod tests;
