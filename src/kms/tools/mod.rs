//! What stands on the operations and is no operation itself: seeds of a development server, the
//! simulation of policies, and what is to be said of those that the store has.

mod review;
mod seed;
mod simulate;

pub use seed::Seed;
pub use simulate::{
    Evaluation, PolicyTrace, SimulatedGrant, SimulatedRequest, Simulation, SimulationError,
    Simulator,
};

#[cfg(test)]
pub(super) use simulate::NEW_KEY_ID;
