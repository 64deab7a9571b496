//! What both ends of a host's socket share: frames, the table of calls in flight, and the clock of
//! deadlines.
//!
//! Hides: how bytes become messages, and how a file descriptor crosses a socket. Promises: a frame
//! arrives whole or not at all; both processes read a deadline alike. Does not: know what a message
//! means (that is `token` and `token_host`).

mod clock;
mod frame;
mod in_flight;

pub use clock::{monotonic, monotonic_at, nanoseconds};
pub use frame::{FrameFault, Inbox, MAX_FRAME, write_frame};
pub use in_flight::{InFlightCall, InFlightTable};

/// Names this build on the handshake: a front and a host of different builds refuse each other.
pub const BUILD_ID: &str = env!("BUILD_ID_OF_HSMAC");
