//! How much a busy token gets at once: less at each sign of load, one more after each round that went
//! well (additive increase, multiplicative decrease).

use std::time::Duration;

use tokio::time::Instant;

/// The first pause after the token says that it is busy; it doubles up to the longest while that goes
/// on.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What one host may have at work.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// The most jobs at once; none: as many as the window has.
    limit: Option<u32>,
    /// Good answers since the limit was changed.
    good: u32,
    pause: Duration,
    paused_until: Option<Instant>,
}

impl Load {
    /// The window as far as the token can stand it.
    pub(super) fn window(&self, window: usize) -> usize {
        self.limit
            .map_or(window, |limit| window.min(limit as usize))
    }

    /// Until when the host gets nothing new, if it is paused.
    pub(super) fn paused_until(&mut self) -> Option<Instant> {
        self.paused_until.take_if(|until| *until <= Instant::now());
        self.paused_until
    }

    /// The token says that it is busy while it has so many jobs; true if it had not said so before.
    pub(super) fn is_busy(&mut self, jobs: usize) -> bool {
        let first = self.limit.is_none();
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        // Several answers of one moment are one sign.
        if self.paused_until().is_none() {
            let at_work = self.limit.map_or(jobs, |limit| limit.min(jobs));
            self.limit = Some((at_work / 2).max(1));
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            self.paused_until = Some(Instant::now() + self.pause);
        }
        self.good = 0;
        first
    }

    /// A job went well. After a round of them there may be one more at once; what the full window
    /// holds is no limit any more.
    pub(super) fn went_well(&mut self, window: usize) {
        let Some(limit) = self.limit else { return };
        self.good += 1;
        if self.good >= limit {
            self.good = 0;
            self.pause /= 2;
            self.limit = Some(limit + 1).filter(|limit| (*limit as usize) < window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_halves_what_is_at_work_and_good_rounds_bring_it_back() {
        let mut load = Load::default();
        assert_eq!(load.window(16), 16);
        assert!(load.is_busy(16));
        assert_eq!(load.window(16), 8);
        // The same moment counts once.
        assert!(!load.is_busy(16));
        assert_eq!(load.window(16), 8);
        assert!(load.paused_until().is_some());
        let mut rounds = 0;
        while load.window(16) < 16 {
            load.went_well(16);
            rounds += 1;
        }
        assert_eq!(rounds, (8..16).sum::<u32>());
        assert!(load.limit.is_none());
    }

    #[test]
    fn one_job_at_least_is_always_let_through() {
        let mut load = Load::default();
        for _ in 0..10 {
            load.is_busy(1);
            load.paused_until = None;
        }
        assert_eq!(load.window(16), 1);
        assert_eq!(load.pause, LONGEST_PAUSE);
    }
}
