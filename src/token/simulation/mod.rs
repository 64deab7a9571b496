//! Supervisor, queue, PIN care and fences in a deterministic simulation: a whole group on one thread, on a
//! paused clock, over models of hosts and tokens (`model_host.rs` and what follows it), with
//! faults that a seed decides on (`plan.rs`).
//!
//! Promises, for each seed:
//!
//! * no caller gets a wrong MAC, each is answered by its deadline, and a fault only if there was one;
//! * whoever has one call at a time is never refused for lack of room, whatever a crowd of another caller's
//!   calls does beside them;
//! * a PIN that was refused is tried once, one without a clear answer twice, also by an hsmac that was
//!   killed meanwhile;
//! * no more hosts start in a minute than may, and no token has more than two processes too many;
//! * a message is with two hosts at once at most, and one call costs two of them at most;
//! * what changes a token is made once at most, and never said to be unmade when it was made;
//! * when the closing of a key has returned no host has a handle of it, and no MAC is made with it;
//! * tokens that get other settings, leave their group or come back cost no call where nothing else goes wrong;
//! * when all faults have ended everything serves again; after the end there is no job and no host.
//!
//! The same seed does the same things in the same order. Run one alone, with its trace:
//! `SEED=7 cargo test --lib token::simulation -- --nocapture`.
//!
//! Does not: know what a real library does (that is the drills'), or start real processes. Creations and
//! the reaper are `kms`'s: its simulation has a group like this one (`group.rs`), and here their changes
//! come as they ask for them (`callers.rs`).

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the many things that are said and that befall, a model does something about few"
)]

mod callers;
mod group;
mod ledger;
mod model_answers;
mod model_host;
mod model_jobs;
mod model_token;
mod plan;
mod scene;
mod world;

pub(crate) use group::SimulatedGroup;
pub(crate) use world::World;

use std::ops::Range;

use crate::token::simulated::{mix, set_chance};

/// So many seeds in each test run, and in the long form.
const SEEDS: u64 = 200;
const LONG: u64 = 10_000;

#[test]
fn whatever_befalls_hosts_each_call_is_answered_rightly_and_in_time() {
    keeps_its_promises("token::simulation", run);
}

#[test]
fn a_seed_does_the_same_each_time() {
    takes_one_way(1000..1010, run);
}

/// Runs the seed that the environment names, with its trace, or all of them: none may break a promise.
pub(crate) fn keeps_its_promises(name: &str, run: impl Fn(u64) -> (Vec<String>, Vec<String>)) {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().expect("SEED is a number");
        let (trace, violations) = run(seed);
        println!("{}", trace.join("\n"));
        assert!(violations.is_empty(), "{violations:#?}");
        return;
    }
    let long = std::env::var_os("TEST_LONG").is_some();
    let seeds = if long { LONG } else { SEEDS };
    let mut failed = Vec::new();
    for seed in 0..seeds {
        let (trace, violations) = run(seed);
        if !violations.is_empty() {
            if failed.is_empty() {
                println!("{}", trace.join("\n"));
            }
            println!("seed {seed}: {violations:#?}");
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "promises are broken with the seeds {failed:?}; the first one's trace is above; run one alone with SEED=… cargo test --lib {name} -- --nocapture"
    );
}

/// Runs each seed twice: both traces must be one.
pub(crate) fn takes_one_way(seeds: Range<u64>, run: impl Fn(u64) -> (Vec<String>, Vec<String>)) {
    for seed in seeds {
        let (first, again) = (run(seed).0, run(seed).0);
        let differ = first.iter().zip(&again).find(|(one, other)| one != other);
        assert!(
            differ.is_none() && first.len() == again.len(),
            "seed {seed} takes two ways: {differ:?}"
        );
    }
}

/// The trace of a simulation, and which promises it broke.
fn run(seed: u64) -> (Vec<String>, Vec<String>) {
    set_chance(mix(!seed));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(scene::run(seed))
}
