//! Locks of the room.

/// Why a lock is never poisoned.
pub(in crate::token) const UNPOISONED: &str =
    "nobody panics while holding a lock of the token room";
