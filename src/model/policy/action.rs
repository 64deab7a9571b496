//! `Action` and `NotAction`: patterns, which become a set of operations once.

use super::{Patterns, pattern::fits_ignoring_case};
use crate::model::Operation;

/// The operations that a statement is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ActionSet(u64);

impl ActionSet {
    pub(super) fn of(patterns: &Patterns<String>) -> Self {
        let mut set = 0;
        for (bit, operation) in Operation::ALL.into_iter().enumerate() {
            let action = operation.action();
            if patterns.has(|pattern| fits_ignoring_case(pattern, action)) {
                set |= 1 << bit;
            }
        }
        Self(set)
    }

    pub(super) fn has(self, operation: Operation) -> bool {
        let bit = Operation::ALL.iter().position(|one| *one == operation);
        bit.is_some_and(|bit| self.0 & (1 << bit) != 0)
    }

    /// Whether it has none that hsmac has.
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

const _: () = assert!(Operation::ALL.len() <= 64, "each operation has a bit");
