//! How fast items are sent.

use std::time::{Duration, Instant};

/// How many items may be unanswered: half as many when the service has too much to do, and one more for
/// each round that goes well (additive increase, multiplicative decrease).
pub(super) struct Pace {
    most: f64,
    allowed: f64,
    /// Grows as long as nothing goes well.
    pause: Duration,
    until: Instant,
}

impl Pace {
    /// So many at most.
    pub(super) fn new(most: u32) -> Self {
        Self {
            most: most.into(),
            allowed: most.into(),
            pause: Duration::ZERO,
            until: Instant::now(),
        }
    }

    /// Whether one more may be sent.
    pub(super) fn has_room(&self, in_flight: usize) -> bool {
        (in_flight + 1) as f64 <= self.allowed && !self.is_paused()
    }

    /// When the pause ends.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    pub(super) fn is_paused(&self) -> bool {
        self.until > Instant::now()
    }

    /// Something has not gone well, and may after this time. One pause for all that fails together.
    pub(super) fn slow_down(&mut self, told: Duration) {
        if self.is_paused() {
            return;
        }
        self.allowed = (self.allowed / 2.0).max(1.0);
        self.pause = (self.pause * 2).clamp(PAUSE, LONGEST_PAUSE);
        self.until = Instant::now() + self.pause.max(told);
    }

    /// Something has gone well.
    pub(super) fn speed_up(&mut self) {
        self.allowed = (self.allowed + 1.0 / self.allowed).min(self.most);
        self.pause = Duration::ZERO;
    }
}

const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_badly_halves_and_what_goes_well_adds_one_a_round() {
        let mut pace = Pace::new(64);
        assert!(pace.has_room(63) && !pace.has_room(64));
        pace.slow_down(Duration::from_secs(60));
        assert!(pace.is_paused() && !pace.has_room(0));
        let until = pace.until();
        assert!(until > Instant::now() + Duration::from_secs(50));
        // All that fails meanwhile is one trouble.
        pace.slow_down(Duration::from_secs(3600));
        assert_eq!(pace.until(), until);
        pace.until = Instant::now();
        assert!(pace.has_room(31) && !pace.has_room(32));
        for _ in 0..33 {
            pace.speed_up();
        }
        assert!(pace.has_room(32) && !pace.has_room(33));
        for _ in 0..100 {
            pace.until = Instant::now();
            pace.slow_down(Duration::ZERO);
        }
        let left = pace.until() - Instant::now();
        assert!(
            left > Duration::from_millis(900) && left <= LONGEST_PAUSE,
            "{left:?}"
        );
        pace.until = Instant::now();
        assert!(pace.has_room(0) && !pace.has_room(1), "one always is");
    }
}
