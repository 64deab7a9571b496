//! The real binary over a real token: what clients see.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod processes;
mod smoke;
