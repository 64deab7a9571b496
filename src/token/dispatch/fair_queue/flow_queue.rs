//! The jobs of one flow: its calls and the items of its streams, which take turns.

use std::collections::VecDeque;

use super::Verdict;

/// The jobs of one flow.
#[derive(Debug)]
pub(super) struct FlowQueue<T> {
    /// By the number of their [`Lane`](crate::model::Lane).
    pub(super) lanes: [LaneQueue<T>; LANES],
    /// The lane whose turn it is, if it has a job.
    next: usize,
    pub(super) weight: u32,
    /// How many more are served in this turn; 0: its turn has not begun.
    credit: u32,
    /// The last taking that has looked here.
    looked_at: u64,
}

/// The jobs of one lane of a flow.
#[derive(Debug)]
pub(super) struct LaneQueue<T> {
    pub(super) jobs: VecDeque<T>,
    /// How many of them the last taking has passed over.
    passed_over: usize,
}

/// How the look at a flow's jobs has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TurnEnd {
    /// It had what its weight gives it.
    IsOver,
    /// There is no job that was not looked at.
    IsThrough,
    /// No other flow is looked at either.
    Stopped,
}

impl<T> FlowQueue<T> {
    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.jobs.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.jobs.is_empty())
    }

    /// How many jobs this taking has passed over.
    pub(super) fn passed_over(&self) -> usize {
        self.lanes.iter().map(|lane| lane.passed_over).sum()
    }

    /// Its length for one of its weight.
    pub(super) fn weighted_length(&self) -> usize {
        self.len() / self.weight.max(1) as usize
    }

    /// The lane that has more jobs; that of stream items if both have as many.
    pub(super) fn longer_lane(&self) -> usize {
        usize::from(self.lanes[1].jobs.len() >= self.lanes[0].jobs.len())
    }

    /// The lane of the next job that was not looked at.
    fn next_lane(&self) -> Option<usize> {
        let has_one = |lane: &usize| self.lanes[*lane].passed_over < self.lanes[*lane].jobs.len();
        [self.next, 1 - self.next].into_iter().find(has_one)
    }

    /// The taking of this number looks at the jobs, from the first on unless it did before.
    pub(super) fn begin(&mut self, taking: u64) {
        if self.looked_at != taking {
            self.looked_at = taking;
            self.lanes.iter_mut().for_each(|lane| lane.passed_over = 0);
        }
    }

    /// The flow has no job any more.
    pub(super) fn rest(&mut self) {
        (self.credit, self.next) = (0, 0);
        // What a burst needed is not kept for each flow that ever had one.
        for lane in &mut self.lanes {
            if lane.jobs.capacity() > KEPT {
                lane.jobs.shrink_to(KEPT);
            }
        }
    }

    /// Goes through the jobs, as far as this turn goes.
    pub(super) fn take_turn(
        &mut self,
        mut judge: impl FnMut(&T) -> Verdict,
        mut serve: impl FnMut(T),
    ) -> TurnEnd {
        while let Some(number) = self.next_lane() {
            let lane = &mut self.lanes[number];
            let at = lane.passed_over;
            match judge(&lane.jobs[at]) {
                Verdict::Stop => return TurnEnd::Stopped,
                Verdict::PassOver => lane.passed_over += 1,
                Verdict::Drop => drop(lane.jobs.remove(at)),
                Verdict::Take => {
                    lane.jobs.remove(at).into_iter().for_each(&mut serve);
                    self.next = 1 - number;
                    if self.credit == 0 {
                        self.credit = self.weight;
                    }
                    self.credit -= 1;
                    if self.credit == 0 {
                        return TurnEnd::IsOver;
                    }
                }
            }
        }
        TurnEnd::IsThrough
    }
}

impl<T> Default for FlowQueue<T> {
    fn default() -> Self {
        Self {
            lanes: [LaneQueue::default(), LaneQueue::default()],
            next: 0,
            weight: 1,
            credit: 0,
            looked_at: 0,
        }
    }
}

impl<T> Default for LaneQueue<T> {
    fn default() -> Self {
        Self {
            jobs: VecDeque::new(),
            passed_over: 0,
        }
    }
}

/// The calls, and the items of streams.
const LANES: usize = 2;
/// Room for so many jobs stays with a lane that has none.
const KEPT: usize = 256;
