//! How fast a queue is worked off, as far as it is known.
//!
//! Promises: the estimate errs on the fast side, and there is none where nothing is known, so that no job is
//! refused that might have been in time. It is measured only while jobs are left over each time that a
//! host has taken some: else it would say how fast jobs come. The best of the last windows counts, so that
//! a host that was replaced a moment ago does not make the token slow; after a pause in which nothing was
//! taken at all nothing is known.

use std::time::Duration;

use tokio::time::Instant;

/// What is measured at once.
const WINDOW: Duration = Duration::from_millis(100);
/// So many windows count.
const WINDOWS: usize = 8;
/// How many of them there must be.
const LEAST: u64 = 4;
/// How long the last window is believed.
const FRESH: Duration = Duration::from_secs(1);

/// Jobs a second that hosts took of late while there were enough.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    /// When the window began, and the jobs that were taken since.
    window: Option<(Instant, usize)>,
    rates: [f64; WINDOWS],
    /// Windows so far, and when the last one ended.
    count: u64,
    last: Option<Instant>,
}

impl DrainRate {
    /// A host has taken so many jobs; `has_more` says whether some were left that it had no room for.
    pub(super) fn taken(&mut self, now: Instant, jobs: usize, has_more: bool) {
        if !has_more {
            self.window = None;
            return;
        }
        let Some((began, taken)) = &mut self.window else {
            self.window = Some((now, 0));
            return;
        };
        *taken += jobs;
        let took = now.saturating_duration_since(*began);
        if took < WINDOW {
            return;
        }
        let place = usize::try_from(self.count % WINDOWS as u64).unwrap_or(0);
        self.rates[place] = *taken as f64 / took.as_secs_f64();
        self.count += 1;
        self.last = Some(now);
        self.window = Some((now, 0));
    }

    /// How long so many jobs take at least; none if that is not known.
    pub(super) fn time_for(&self, jobs: usize, now: Instant) -> Option<Duration> {
        let is_fresh = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) <= FRESH);
        if self.count < LEAST || !is_fresh {
            return None;
        }
        let best = self.rates.iter().copied().fold(0.0, f64::max);
        let seconds = jobs as f64 / best;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// So many takings of so many jobs, a step apart; gives the time after them.
    fn run(rate: &mut DrainRate, mut now: Instant, takings: usize, jobs: usize) -> Instant {
        for _ in 0..takings {
            now += STEP;
            rate.taken(now, jobs, true);
        }
        now
    }

    #[test]
    fn the_best_of_the_last_windows_says_how_long_jobs_take() {
        let mut rate = DrainRate::default();
        let now = run(&mut rate, Instant::now(), 30, 10);
        assert_eq!(rate.time_for(1000, now), None, "too little is known");
        let now = run(&mut rate, now, 30, 10);
        let took = rate.time_for(1000, now).unwrap();
        assert!(took.abs_diff(Duration::from_secs(1)) < STEP, "{took:?}");
        // A slow moment changes nothing; a token that is slow for a second is slow.
        let now = run(&mut rate, now, 30, 1);
        assert!(rate.time_for(1000, now).unwrap() < Duration::from_millis(1010));
        let now = run(&mut rate, now, 90, 1);
        assert!(rate.time_for(1000, now).unwrap() > Duration::from_secs(9));
    }

    #[test]
    fn nothing_is_known_when_jobs_are_few_or_after_a_pause() {
        let mut rate = DrainRate::default();
        let mut now = Instant::now();
        for _ in 0..1000 {
            now += STEP;
            rate.taken(now, 10, false);
        }
        assert_eq!(rate.time_for(1000, now), None);
        let now = run(&mut rate, now, 100, 10);
        assert!(rate.time_for(1000, now).is_some());
        assert_eq!(rate.time_for(1000, now + FRESH + STEP), None);
    }
}
