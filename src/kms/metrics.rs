//! What is counted of the operations beyond the calls that each front counts.

use crate::metrics::{Counter, Histogram};

#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// MACs that did not match.
    pub(super) mac_mismatches: Counter,
    /// Messages that begin with what hsmac keeps for itself.
    pub(super) reserved_messages: Counter,
    /// Requests for MACs with a key that is pending deletion.
    pub(super) pending_deletion_calls: Counter,
    /// From a request for a MAC to its key, with the caller's rights judged; one in sixteen is timed.
    pub(super) authorization: Histogram,
}
