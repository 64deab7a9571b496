//! The queue against a model that says in the shortest way in which order jobs are served.

use proptest::prelude::*;

use super::*;

/// What befalls a queue.
#[derive(Clone, Debug)]
enum Event {
    Push {
        flow: u32,
        items: bool,
    },
    /// So many jobs are taken at most, of those whose number is no multiple of this.
    Take {
        most: usize,
        but: u32,
    },
    GiveBack,
    Displace {
        flow: u32,
        items: bool,
    },
    RemoveAll {
        multiples_of: u32,
    },
    /// The flow weighs so much from its next job on.
    Weigh {
        flow: u32,
        weight: u32,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..6_u32, any::<bool>()).prop_map(|(flow, items)| Event::Push { flow, items }),
        4 => (0..6_usize, 2..5_u32).prop_map(|(most, but)| Event::Take { most, but }),
        1 => Just(Event::GiveBack),
        2 => (0..6_u32, any::<bool>()).prop_map(|(flow, items)| Event::Displace { flow, items }),
        1 => (2..4_u32).prop_map(|multiples_of| Event::RemoveAll { multiples_of }),
        1 => (0..6_u32, 1..5_u32).prop_map(|(flow, weight)| Event::Weigh { flow, weight }),
    ];
    prop::collection::vec(event, 0..200)
}

/// Jobs are numbers. One is picked at a time, each time from the beginning.
#[derive(Default)]
struct Model {
    returned: Vec<u32>,
    ring: Vec<ModelFlow>,
}

struct ModelFlow {
    number: u32,
    weight: u32,
    credit: u32,
    /// Calls, and items of streams.
    lanes: [Vec<u32>; 2],
    next: usize,
}

impl ModelFlow {
    fn len(&self) -> usize {
        self.lanes[0].len() + self.lanes[1].len()
    }

    /// The first job that suits, and its lane.
    fn first(&self, suits: impl Fn(u32) -> bool) -> Option<(usize, usize)> {
        let mut lanes = [self.next, 1 - self.next].into_iter();
        lanes.find_map(|lane| {
            let at = self.lanes[lane].iter().position(|job| suits(*job))?;
            Some((lane, at))
        })
    }

    fn longer(&self) -> usize {
        usize::from(self.lanes[1].len() >= self.lanes[0].len())
    }
}

impl Model {
    fn flow(&self, number: u32) -> Option<&ModelFlow> {
        self.ring.iter().find(|flow| flow.number == number)
    }

    fn push(&mut self, flow: Flow, job: u32) {
        match self.ring.iter_mut().find(|it| it.number == flow.number()) {
            Some(it) => {
                it.weight = flow.weight();
                it.lanes[flow.lane() as usize].push(job);
            }
            None => {
                let mut new = ModelFlow {
                    number: flow.number(),
                    weight: flow.weight(),
                    credit: 0,
                    lanes: Default::default(),
                    next: 0,
                };
                new.lanes[flow.lane() as usize].push(job);
                self.ring.push(new);
            }
        }
    }

    fn pick(&mut self, suits: impl Fn(u32) -> bool) -> Option<u32> {
        if let Some(at) = self.returned.iter().position(|job| suits(*job)) {
            return Some(self.returned.remove(at));
        }
        let mut flows = self.ring.iter().enumerate();
        let (at, (lane, job)) = flows.find_map(|(at, flow)| Some((at, flow.first(&suits)?)))?;
        let mut flow = self.ring.remove(at);
        let job = flow.lanes[lane].remove(job);
        flow.next = 1 - lane;
        if flow.credit == 0 {
            flow.credit = flow.weight;
        }
        flow.credit -= 1;
        let at = if flow.credit == 0 {
            self.ring.len()
        } else {
            at
        };
        if flow.len() > 0 {
            self.ring.insert(at, flow);
        }
        Some(job)
    }

    fn remove(&mut self, which: impl Fn(u32) -> bool) {
        self.returned.retain(|job| !which(*job));
        for flow in &mut self.ring {
            for lane in &mut flow.lanes {
                lane.retain(|job| !which(*job));
            }
        }
        self.ring.retain(|flow| flow.len() > 0);
    }

    fn len(&self) -> usize {
        let of_flows: usize = self.ring.iter().map(ModelFlow::len).sum();
        of_flows + self.returned.len()
    }
}

/// The jobs that are taken, and whether some were not looked at.
fn take(queue: &mut FairQueue<u32>, most: usize, but: u32) -> (Vec<u32>, bool) {
    let mut taken = Vec::new();
    let room = std::cell::Cell::new(most);
    let more = queue.take(
        |job| match job {
            _ if room.get() == 0 => Verdict::Stop,
            job if job.is_multiple_of(but) => Verdict::PassOver,
            _ => {
                room.set(room.get() - 1);
                Verdict::Take
            }
        },
        |job| taken.push(job),
    );
    (taken, more)
}

proptest! {
    #[test]
    fn the_queue_does_as_the_model(events in events()) {
        let (mut queue, mut model) = (FairQueue::default(), Model::default());
        let mut weights = [1, 1, 1, 2, 3, 1];
        let mut returnable = Vec::new();
        let flow = |weights: &[u32; 6], number: u32, items: bool| {
            let flow = Flow::new(number, weights[number as usize]);
            if items { flow.of_stream_items() } else { flow }
        };
        for (job, event) in (1..).zip(events) {
            match event {
                Event::Push { flow: number, items } => {
                    queue.push(flow(&weights, number, items), job);
                    model.push(flow(&weights, number, items), job);
                }
                Event::Take { most, but } => {
                    let (taken, more) = take(&mut queue, most, but);
                    let suits = |job: u32| !job.is_multiple_of(but);
                    let wanted: Vec<u32> = (0..most).map_while(|_| model.pick(suits)).collect();
                    prop_assert_eq!(&taken, &wanted);
                    prop_assert!(!more || taken.len() == most);
                    returnable.extend(taken);
                }
                Event::GiveBack => if let Some(job) = returnable.pop() {
                    queue.give_back(job);
                    model.returned.insert(0, job);
                },
                Event::Displace { flow: number, items } => {
                    let weigh = |flow: &ModelFlow| flow.len() / flow.weight as usize;
                    let longest = model.ring.iter().map(weigh).max().unwrap_or(0);
                    let own = model.flow(number);
                    let own_length = own.map_or(0, ModelFlow::len) + 1;
                    let weight = weights[number as usize];
                    let is_longest = longest <= own_length / weight as usize;
                    let lane = usize::from(items);
                    // Of the flow itself, a job goes that has more of its kind than the new one.
                    let makes_room_itself = longest > 0 && own.is_some_and(|own| {
                        own.lanes[1 - lane].len() > own.lanes[lane].len() + 1
                    });
                    let last = |flow: &ModelFlow| flow.lanes[flow.longer()].last().copied();
                    match queue.displace(flow(&weights, number, items)) {
                        None => prop_assert!(is_longest && !makes_room_itself),
                        Some(job) => {
                            let of = model.ring.iter().find(|flow| last(flow) == Some(job));
                            let is_right = of.is_some_and(|flow| match is_longest {
                                true => flow.number == number && makes_room_itself,
                                false => weigh(flow) == longest,
                            });
                            prop_assert!(is_right);
                            model.remove(|one| one == job);
                        }
                    }
                }
                Event::RemoveAll { multiples_of } => {
                    let which = |job: &u32| job.is_multiple_of(multiples_of);
                    let removed = queue.remove_all(which);
                    prop_assert!(removed.iter().all(which));
                    model.remove(|job| which(&job));
                }
                Event::Weigh { flow, weight } => weights[flow as usize] = weight,
            }
            prop_assert_eq!(queue.len(), model.len());
        }
        let (all, more) = take(&mut queue, usize::MAX, u32::MAX);
        let wanted: Vec<u32> = std::iter::from_fn(|| model.pick(|_| true)).collect();
        prop_assert_eq!(all, wanted);
        prop_assert!(!more && queue.len() == 0);
    }

    #[test]
    fn a_job_waits_for_its_own_flow_and_a_share_of_the_others(
        before in prop::collection::vec((1..6_u32, 1..20_usize), 1..6),
        flow in 1..6_u32,
        weights in prop::array::uniform6(1..5_u32),
        served in 0..40_usize,
        others_add in any::<bool>(),
    ) {
        let mut queue = FairQueue::default();
        let flow_of = |number: u32| Flow::new(number, weights[number as usize]);
        for (number, jobs) in &before {
            for _ in 0..*jobs {
                queue.push(flow_of(*number), 1);
            }
        }
        take(&mut queue, served, u32::MAX);
        let others: Vec<u32> = queue.ring.iter().copied().filter(|one| *one != flow).collect();
        let (own, weight) = (queue.of_lane(flow_of(flow)), weights[flow as usize] as usize);
        let least = queue.ahead_of(flow_of(flow));
        let a_round: usize = others.iter().map(|one| weights[*one as usize] as usize).sum();
        let most = own + (own.div_ceil(weight) + 1) * a_round;
        queue.push(flow_of(flow), 2);
        for waited in 0..=most {
            let (taken, _) = take(&mut queue, 1, u32::MAX);
            if taken == [2] {
                prop_assert!(waited >= least, "{waited}: {least} were foreseen");
                return Ok(());
            }
            for other in others.iter().filter(|_| others_add) {
                queue.push(flow_of(*other), 1);
            }
        }
        prop_assert!(false, "more than {most} were served before");
    }
}

#[test]
fn with_one_flow_it_is_first_in_first_out() {
    let mut queue = FairQueue::default();
    for job in 0..1000 {
        queue.push(Flow::new(1, 1 + job % 3), job);
    }
    let all: Vec<u32> = (0..1000).collect();
    let (first, more) = take(&mut queue, 300, u32::MAX);
    assert!(more);
    // Nought is a multiple of every number.
    assert_eq!(first, all[1..=300]);
    let (rest, more) = take(&mut queue, usize::MAX, u32::MAX);
    assert_eq!((rest.as_slice(), more), (&all[301..], false));
}

#[test]
fn a_modest_caller_is_served_next_beside_a_thousand_jobs_of_another() {
    let mut queue = FairQueue::default();
    for _ in 0..1000 {
        queue.push(Flow::new(1, 1), 1);
    }
    for number in 2..12 {
        queue.push(Flow::new(number, 1), number);
    }
    let (first, _) = take(&mut queue, 11, u32::MAX);
    assert_eq!(first, (1..12).collect::<Vec<_>>());
    // One that counts three times as much is served three times as often.
    for _ in 0..1000 {
        queue.push(Flow::new(20, 3), 20);
    }
    let (served, _) = take(&mut queue, 400, u32::MAX);
    let thrice = served.iter().filter(|flow| **flow == 20).count();
    assert!((299..=301).contains(&thrice), "{thrice} of 400");
}

#[test]
fn the_longest_flow_makes_room_for_others_until_they_are_as_long() {
    let mut queue = FairQueue::default();
    for job in 1..=100 {
        queue.push(Flow::new(1, 1), job);
    }
    assert_eq!(
        queue.displace(Flow::new(1, 1)),
        None,
        "its own last is the new one"
    );
    let mut displaced = Vec::new();
    while let Some(job) = queue.displace(Flow::new(2, 1)) {
        displaced.push(job);
        queue.push(Flow::new(2, 1), 0);
    }
    let last: Vec<u32> = (51..=100).rev().collect();
    assert_eq!(displaced, last, "the last of the longest flow goes first");
    assert_eq!(queue.len(), 100);
}

#[test]
fn a_principal_s_own_calls_and_stream_items_take_turns() {
    let (calls, mut queue) = (Flow::new(1, 1), FairQueue::default());
    let items = calls.of_stream_items();
    for _ in 0..1000 {
        queue.push(items, 1);
    }
    queue.push(Flow::new(2, 1), 3);
    queue.push(calls, 2);
    queue.push(calls, 2);
    assert_eq!(queue.ahead_of(calls), 2 + 2 + 1);
    assert_eq!(take(&mut queue, 6, u32::MAX).0, [2, 3, 1, 2, 1, 1]);
    // When the queue is full, a call gets the place of one of its principal's own items.
    assert_eq!(queue.displace(items), None);
    assert_eq!(queue.displace(calls), Some(1));
}
