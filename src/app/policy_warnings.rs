//! Warnings of stored policies in the log: each once, at the start or at the reload that brings it.

use std::collections::HashSet;

use tracing::warn;

use crate::kms::Kms;

/// What the log has been told.
#[derive(Default)]
pub(super) struct PolicyWarnings(HashSet<String>);

impl PolicyWarnings {
    /// Tells what is new; of many the first few, since `hsmac check` has them all.
    pub(super) fn tell(&mut self, kms: &Kms) {
        let now = kms.stored_policy_warnings();
        let new: Vec<&String> = now.iter().filter(|text| !self.0.contains(*text)).collect();
        for warning in new.iter().take(MOST) {
            warn!(event = "policy_warning", "{warning}");
        }
        if new.len() > MOST {
            let more = new.len() - MOST;
            warn!(
                event = "policy_warning",
                more, "more warnings of stored policies: hsmac check lists all"
            );
        }
        self.0 = now.into_iter().collect();
    }
}

/// How many are logged at a time.
const MOST: usize = 20;
