//! Sockets: bound, accepted from, and made into connections.
//!
//! Hides: TCP and Unix sockets, the TLS handshake, the drain. Promises: as many connections as the
//! settings allow; at a drain, calls in flight are answered. Does not: know what is spoken on a
//! connection (that is the [`accept::Protocol`]).

pub(super) mod accept;
pub(super) mod connections;
pub(super) mod handshake;
pub(super) mod socket;
mod unix_socket;
