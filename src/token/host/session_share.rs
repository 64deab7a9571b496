//! How many sessions each host of a token may have: where there are few, they are shared by all hosts,
//! and some are left to others.
//!
//! A token says in its info how many it has, or it says nothing and refuses one more at some time
//! (CKR_SESSION_COUNT). Then what the hosts have together is all that there is; those with more than their
//! share are replaced, so that the others can come up. It holds until hsmac ends.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::token::locks::UNPOISONED;

/// Left to other programs, and to the session of a creation.
const LEFT: u32 = 1;

/// The sessions of one token's hosts.
#[derive(Debug)]
pub(super) struct SessionShare {
    hosts: u32,
    /// Sessions for MACs that each host may have.
    share: AtomicU32,
    /// All sessions of each host, by its generation: the login session is one of them.
    open: Mutex<HashMap<u32, u32>>,
}

/// The share has become less.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lowered {
    /// What there is for all hosts.
    pub(super) sessions: u32,
    /// What each may have for MACs.
    pub(super) each: u32,
}

impl SessionShare {
    /// So many hosts, each of which would have so many sessions for MACs.
    pub(super) fn new(hosts: u32, wanted: u32) -> Self {
        Self {
            hosts,
            share: AtomicU32::new(wanted),
            open: Mutex::default(),
        }
    }

    /// How many sessions for MACs a host may have.
    pub(super) fn each(&self) -> u32 {
        self.share.load(Ordering::SeqCst)
    }

    /// Whether a host that has not ended yet leaves too little for its successor, if there are so many.
    pub(super) fn is_tight(&self, sessions: u64, hosts_at_once: usize) -> bool {
        let each = u64::from(self.each()) + 1;
        each * hosts_at_once as u64 + u64::from(LEFT) > sessions
    }

    /// The token says that it has so many.
    pub(super) fn there_are(&self, sessions: u64) -> Option<Lowered> {
        let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
        let each = self.fair(sessions).saturating_sub(1).max(1);
        let before = self.share.fetch_min(each, Ordering::SeqCst);
        (each < before).then_some(Lowered { sessions, each })
    }

    /// A host has opened so many.
    pub(super) fn opened(&self, host: u32, sessions: u32) {
        self.open.lock().expect(UNPOISONED).insert(host, sessions);
    }

    /// A host has ended.
    pub(super) fn closed(&self, host: u32) {
        self.open.lock().expect(UNPOISONED).remove(&host);
    }

    /// The token refused one more to this host. Nothing follows if it has its fair part of what all have:
    /// some tokens count for each process.
    pub(super) fn refused(&self, host: u32) -> Option<Lowered> {
        let (own, all) = {
            let open = self.open.lock().expect(UNPOISONED);
            let own = open.get(&host).copied().unwrap_or(0);
            (own, open.values().sum())
        };
        if own >= self.fair(all) {
            return None;
        }
        self.there_are(u64::from(all))
    }

    fn fair(&self, sessions: u32) -> u32 {
        sessions.saturating_sub(LEFT) / self.hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_has_is_shared_and_some_is_left() {
        for (hosts, wanted, sessions, each) in [
            (1, 8, 100, 8),
            (1, 8, 6, 4),
            (2, 8, 10, 3),
            (4, 8, 16, 2),
            // Too few for all: those that come up have one, the others say why they do not.
            (4, 8, 3, 1),
            (1, 1, 1, 1),
        ] {
            let share = SessionShare::new(hosts, wanted);
            share.there_are(sessions);
            assert_eq!(share.each(), each, "{hosts} hosts, {sessions} sessions");
        }
        let share = SessionShare::new(2, 8);
        assert!(!share.is_tight(37, 4) && share.is_tight(36, 4));
    }

    #[test]
    fn a_host_that_is_starved_makes_the_others_share() {
        let share = SessionShare::new(2, 8);
        share.opened(1, 9);
        share.opened(2, 1);
        let lowered = Lowered {
            sessions: 10,
            each: 3,
        };
        assert_eq!(share.refused(2), Some(lowered));
        // Once is enough.
        assert_eq!(share.refused(2), None);
        share.closed(1);
        assert_eq!(share.each(), 3);
    }

    #[test]
    fn a_limit_of_each_process_is_nobody_else_s() {
        let share = SessionShare::new(2, 8);
        share.opened(1, 5);
        share.opened(2, 5);
        assert_eq!(share.refused(2), None);
        assert_eq!(share.each(), 8);
    }
}
