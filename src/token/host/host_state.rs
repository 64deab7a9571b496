//! The state of one host of a token.

use crate::token::status::State;

/// The state of one of a token's hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum HostState {
    /// Not begun: another place tries first whether a host can serve.
    Idle,
    /// A host is on its way, and callers wait for it.
    Coming,
    /// A host serves.
    Serving,
    /// No host can come up; the token's state if none of the others serves.
    Failed(State),
}
