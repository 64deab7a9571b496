//! Log lines that peers can cause: at most one a minute each, with a count of the others.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Of one kind of line, one a minute may be logged.
#[derive(Debug)]
pub(super) struct LogLimit {
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    count: u64,
}

impl LogLimit {
    /// For a `static`.
    pub(super) const fn new() -> Self {
        Self::every(PAUSE)
    }

    /// The same, with another time than a minute between two lines.
    pub(super) const fn every(pause: Duration) -> Self {
        let state = State {
            last: None,
            count: 0,
        };
        Self {
            pause,
            state: Mutex::new(state),
        }
    }

    /// Counts an event. If a line may be logged now: how many events there were since the last line,
    /// with this one.
    pub(super) fn pass(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        if state.last.is_some_and(|last| last.elapsed() < self.pause) {
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.count))
    }
}

const PAUSE: Duration = Duration::from_mins(1);

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_those_that_were_not_logged() {
        let limit = LogLimit::new();
        assert_eq!(limit.pass(), Some(1));
        for _ in 0..9 {
            assert_eq!(limit.pass(), None);
        }
        limit.state.lock().unwrap().last = Some(Instant::now() - PAUSE);
        assert_eq!(limit.pass(), Some(10));
        assert_eq!(limit.pass(), None);
    }
}
