//! Whether the time of day can be believed when something is about to be destroyed by it.
//!
//! The time of day is held against the monotonic clock while hsmac runs, and against the time that
//! hsmac wrote down last when it starts. If it has jumped, more than five minutes forward or one
//! minute back, nothing is deleted for as long as the jump was long, a day at most: whoever set a
//! clock wrong, or NTP, has that long to set it right, and a service that was off for a night
//! deletes the next one. A jump while deletions are held makes the hold longer, never shorter. The
//! hold is written down with the time, and goes on after a restart.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Date, seconds},
    store::Name,
};

/// How far the time of day may be ahead of what it should be.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// How far it may be behind.
const BEHIND: Duration = Duration::from_secs(60);
/// The longest hold.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How often the time is written down, at most.
const WRITTEN: Duration = Duration::from_secs(60);

/// `clock`: the time of day when hsmac last looked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) at: Date,
    /// How long deletions were still held, in milliseconds.
    pub(super) held: u64,
}

pub(super) fn clock_name() -> Name {
    Name::new("clock").expect("it is visible ASCII")
}

/// A jump of the time of day.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Jump {
    Forward(Duration),
    Back(Duration),
}

impl Jump {
    /// Its length in seconds; less than 0: back.
    pub(super) fn seconds(self) -> f64 {
        match self {
            Self::Forward(by) => seconds(by),
            Self::Back(by) => -seconds(by),
        }
    }
}

/// The time of day, watched.
#[derive(Debug)]
pub(super) struct Clock {
    /// The time of day that belonged to a time on the monotonic clock. It moves with jumps only, so
    /// that many small steps are one large one.
    anchor: (Date, Duration),
    seen: Duration,
    held: Duration,
    written: Option<Duration>,
}

impl Clock {
    /// Begins to watch at a time of day and a time on the monotonic clock, with what was written
    /// down last. If nothing was, or it cannot be read, nobody knows what the time was: the longest
    /// hold.
    pub(super) fn start(
        wall: Date,
        monotonic: Duration,
        written: Option<Written>,
    ) -> (Self, Option<Jump>) {
        let jump = written.and_then(|written| jump(written.at, wall));
        let held = match written {
            None => LONGEST,
            Some(written) => {
                Duration::from_millis(written.held).max(jump.map_or(Duration::ZERO, length))
            }
        };
        let clock = Self {
            anchor: (wall, monotonic),
            seen: monotonic,
            held: held.min(LONGEST),
            written: None,
        };
        (clock, jump)
    }

    /// Looks at both clocks.
    pub(super) fn look(&mut self, wall: Date, monotonic: Duration) -> Option<Jump> {
        let passed = monotonic.saturating_sub(self.seen);
        self.seen = monotonic;
        self.held = self.held.saturating_sub(passed);
        let (then, at) = self.anchor;
        let jump = jump(then.plus(monotonic.saturating_sub(at)), wall)?;
        self.anchor = (wall, monotonic);
        self.held = self.held.max(length(jump)).min(LONGEST);
        Some(jump)
    }

    /// For how long nothing is deleted yet; zero: the time can be believed.
    pub(super) fn held(&self) -> Duration {
        self.held
    }

    /// What is to be written down now, if it is time: at once, then once a minute.
    pub(super) fn due(&mut self, wall: Date) -> Option<Written> {
        let due = self
            .written
            .is_none_or(|written| self.seen.saturating_sub(written) >= WRITTEN);
        due.then(|| {
            self.written = Some(self.seen);
            Written {
                at: wall,
                held: u64::try_from(self.held.as_millis()).unwrap_or(u64::MAX),
            }
        })
    }
}

fn jump(expected: Date, is: Date) -> Option<Jump> {
    let (expected, is) = (expected.millis(), is.millis());
    let ahead = Duration::from_millis(is.saturating_sub(expected));
    let behind = Duration::from_millis(expected.saturating_sub(is));
    if ahead > AHEAD {
        Some(Jump::Forward(ahead))
    } else if behind > BEHIND {
        Some(Jump::Back(behind))
    } else {
        None
    }
}

fn length(jump: Jump) -> Duration {
    match jump {
        Jump::Forward(length) | Jump::Back(length) => length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);
    const NOON: Date = Date::of_millis(1_790_000_000_000);

    fn before(date: Date, span: Duration) -> Date {
        Date::of_millis(date.millis() - u64::try_from(span.as_millis()).unwrap())
    }

    fn written(at: Date, held: Duration) -> Option<Written> {
        let held = u64::try_from(held.as_millis()).unwrap();
        Some(Written { at, held })
    }

    /// A clock that believes the time.
    fn steady() -> Clock {
        let (clock, jump) = Clock::start(NOON, HOUR, written(before(NOON, MINUTE), Duration::ZERO));
        assert_eq!((clock.held(), jump), (Duration::ZERO, None));
        clock
    }

    #[test]
    fn a_steady_clock_holds_nothing() {
        let mut clock = steady();
        for hour in 1..1000 {
            let passed = HOUR * hour;
            assert_eq!(clock.look(NOON.plus(passed), HOUR + passed), None);
            assert_eq!(clock.held(), Duration::ZERO);
        }
    }

    #[test]
    fn a_jump_holds_as_long_as_it_was_and_a_day_at_most() {
        for (is, jump, held) in [
            (NOON.plus(5 * MINUTE), None, Duration::ZERO),
            (
                NOON.plus(6 * MINUTE),
                Some(Jump::Forward(6 * MINUTE)),
                6 * MINUTE,
            ),
            (
                NOON.plus(9000 * HOUR),
                Some(Jump::Forward(9000 * HOUR)),
                LONGEST,
            ),
            (before(NOON, MINUTE), None, Duration::ZERO),
            (
                before(NOON, 2 * MINUTE),
                Some(Jump::Back(2 * MINUTE)),
                2 * MINUTE,
            ),
            (
                before(NOON, 9000 * HOUR),
                Some(Jump::Back(9000 * HOUR)),
                LONGEST,
            ),
        ] {
            // Against the monotonic clock, and against what was written down.
            let mut running = steady();
            assert_eq!(running.look(is, HOUR), jump);
            let (started, seen) = Clock::start(is, HOUR, written(NOON, Duration::ZERO));
            assert_eq!(seen, jump);
            for mut clock in [running, started] {
                assert_eq!(clock.held(), held);
                // The new time is believed once it went on steadily for that long.
                let almost = held.saturating_sub(Duration::from_secs(1));
                assert_eq!(clock.look(is.plus(almost), HOUR + almost), None);
                assert_eq!(clock.held(), held - almost);
                assert_eq!(clock.look(is.plus(held), HOUR + held), None);
                assert_eq!(clock.held(), Duration::ZERO);
            }
        }
    }

    #[test]
    fn small_steps_add_up() {
        let mut clock = steady();
        let step = 2 * MINUTE;
        assert_eq!(clock.look(NOON.plus(step), HOUR), None);
        assert_eq!(clock.look(NOON.plus(2 * step), HOUR), None);
        let jump = clock.look(NOON.plus(3 * step), HOUR);
        assert_eq!(jump, Some(Jump::Forward(3 * step)));
    }

    #[test]
    fn a_second_jump_never_shortens_a_hold() {
        let mut clock = steady();
        clock.look(NOON.plus(10 * HOUR), HOUR);
        assert_eq!(clock.held(), 10 * HOUR);
        // Set right again after an hour: nine hours are left, which is more than the ten that it
        // went back are not.
        clock.look(NOON.plus(HOUR), 2 * HOUR);
        assert_eq!(clock.held(), 10 * HOUR);
        clock.look(NOON.plus(HOUR + 7 * MINUTE), 2 * HOUR);
        assert_eq!(clock.held(), 10 * HOUR);
    }

    #[test]
    fn a_hold_outlives_a_restart_and_nothing_written_is_the_longest() {
        let mut clock = steady();
        clock.look(NOON.plus(10 * HOUR), HOUR);
        let wall = NOON.plus(11 * HOUR);
        clock.look(wall, 2 * HOUR);
        let last = clock.due(wall);
        assert_eq!(last, written(wall, 9 * HOUR));
        let (again, jump) = Clock::start(wall.plus(MINUTE), MINUTE, last);
        assert_eq!((again.held(), jump), (9 * HOUR, None));
        let (unknown, jump) = Clock::start(wall, MINUTE, None);
        assert_eq!((unknown.held(), jump), (LONGEST, None));
    }

    #[test]
    fn the_time_is_written_down_at_most_once_a_minute() {
        let mut clock = steady();
        let mut times = 0;
        for second in 0..600 {
            let passed = Duration::from_secs(second);
            clock.look(NOON.plus(passed), HOUR + passed);
            times += u32::from(clock.due(NOON.plus(passed)).is_some());
        }
        assert_eq!(times, 10);
    }
}
