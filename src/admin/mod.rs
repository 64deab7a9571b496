//! What operators and their tools see: probes, metrics, the state of everything, an operator's page.
//!
//! Hides: HTTP, the text format of metrics, how the last hour is kept. Promises: an answer while every
//! worker of the main runtime is stuck, since it has a thread and a runtime of its own; nothing that it
//! shows is asked of a token or of the store; what is reachable over TCP changes nothing and names no key.
//! Does not: measure (each room does that itself).
//!
//! One observation is taken for each answer, and every form of it is made from that.

mod advice;
mod exposition;
mod history;
mod http;
mod log_level;
mod observation;
mod process;
mod readiness;
mod settings;
mod status;
#[cfg(test)]
mod testing;

pub use self::{
    history::Sample,
    http::{Admin, BindFault},
    observation::{Condition, Sources},
    settings::Settings,
    status::*,
};
