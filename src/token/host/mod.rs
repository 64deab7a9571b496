//! Host processes: their start, login, work and replacement.
//!
//! Hides: processes, sockets, credits, PIN care. Promises: each token has as many hosts as its settings
//! say, or a state that says why not; a job that a host could not finish is given back or answered. Does
//! not: choose a host for a job (that is [`dispatch`](crate::token::dispatch)).

mod answers;
mod child;
mod churn;
mod ending;
mod faults;
mod forget;
mod host_state;
mod load;
mod login;
pub(super) mod member;
mod outage;
pub(super) mod pin;
mod process;
mod session;
mod session_share;
mod start;
mod stream;
mod stuck;
mod supervisor;

use std::time::Duration;

/// Up to a quarter more or less, so that many bridges do not come at the same time.
fn jittered(pause: Duration) -> Duration {
    let share = u32::try_from(random() % 1000).expect("less than a thousand");
    pause * (750 + share / 2) / 1000
}

fn random() -> u128 {
    #[cfg(test)]
    if let Some(chance) = crate::token::simulated::chance() {
        return chance.into();
    }
    uuid::Uuid::new_v4().as_u128()
}
