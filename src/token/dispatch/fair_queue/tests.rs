//! The queue against a model that says in the shortest way in which order jobs are served.

use proptest::prelude::*;

use super::*;

/// What befalls a queue.
#[derive(Clone, Debug)]
enum Event {
    Push {
        flow: u32,
    },
    /// So many jobs are taken at most, of those whose number is no multiple of this.
    Take {
        most: usize,
        but: u32,
    },
    GiveBack,
    Displace {
        flow: u32,
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
        8 => (0..6_u32).prop_map(|flow| Event::Push { flow }),
        4 => (0..6_usize, 2..5_u32).prop_map(|(most, but)| Event::Take { most, but }),
        1 => Just(Event::GiveBack),
        2 => (0..6_u32).prop_map(|flow| Event::Displace { flow }),
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
    jobs: Vec<u32>,
}

impl Model {
    fn flow(&self, number: u32) -> Option<&ModelFlow> {
        self.ring.iter().find(|flow| flow.number == number)
    }

    fn push(&mut self, flow: Flow, job: u32) {
        match self.ring.iter_mut().find(|it| it.number == flow.number()) {
            Some(it) => {
                it.weight = flow.weight();
                it.jobs.push(job);
            }
            None => self.ring.push(ModelFlow {
                number: flow.number(),
                weight: flow.weight(),
                credit: 0,
                jobs: vec![job],
            }),
        }
    }

    fn pick(&mut self, suits: impl Fn(u32) -> bool) -> Option<u32> {
        if let Some(at) = self.returned.iter().position(|job| suits(*job)) {
            return Some(self.returned.remove(at));
        }
        let of = |flow: &ModelFlow| flow.jobs.iter().position(|job| suits(*job));
        let (at, job) = self
            .ring
            .iter()
            .enumerate()
            .find_map(|(at, flow)| Some((at, of(flow)?)))?;
        let mut flow = self.ring.remove(at);
        let job = flow.jobs.remove(job);
        if flow.credit == 0 {
            flow.credit = flow.weight;
        }
        flow.credit -= 1;
        let at = if flow.credit == 0 {
            self.ring.len()
        } else {
            at
        };
        if !flow.jobs.is_empty() {
            self.ring.insert(at, flow);
        }
        Some(job)
    }

    fn remove(&mut self, which: impl Fn(u32) -> bool) {
        self.returned.retain(|job| !which(*job));
        for flow in &mut self.ring {
            flow.jobs.retain(|job| !which(*job));
        }
        self.ring.retain(|flow| !flow.jobs.is_empty());
    }

    fn len(&self) -> usize {
        let of_flows: usize = self.ring.iter().map(|flow| flow.jobs.len()).sum();
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
        let flow = |weights: &[u32; 6], number: u32| Flow::new(number, weights[number as usize]);
        for (job, event) in (1..).zip(events) {
            match event {
                Event::Push { flow: number } => {
                    queue.push(flow(&weights, number), job);
                    model.push(flow(&weights, number), job);
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
                Event::Displace { flow: number } => {
                    let weigh = |flow: &ModelFlow| flow.jobs.len() / flow.weight as usize;
                    let longest = model.ring.iter().map(weigh).max().unwrap_or(0);
                    let own = model.flow(number).map_or(0, |flow| flow.jobs.len()) + 1;
                    let weight = weights[number as usize];
                    match queue.displace(flow(&weights, number)) {
                        None => prop_assert!(longest <= own / weight as usize),
                        Some(job) => {
                            let of = model.ring.iter().find(|flow| flow.jobs.last() == Some(&job));
                            prop_assert!(of.is_some_and(|flow| weigh(flow) == longest));
                            prop_assert!(longest > own / weight as usize);
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
        let (own, weight) = (queue.of_flow(flow_of(flow)), weights[flow as usize] as usize);
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
