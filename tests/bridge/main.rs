//! The real binary over a real token: what clients see.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "whatever a test does not expect fails it"
)]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod audit;
mod bench;
mod calls;
mod catalogue;
mod changes;
mod creation;
mod deletion;
mod drills;
mod grants;
mod keys;
mod limits;
mod logs;
mod many;
mod objects;
mod operator;
mod ordinary;
mod policies;
mod processes;
mod reload;
mod reload_tokens;
mod requests;
mod rights;
mod seeds;
mod simulate;
mod smoke;
mod start;
mod status;
mod streams;
mod tls;
mod token_faults;
#[cfg(feature = "otlp")]
mod traces;
mod vectors;
mod wire;
