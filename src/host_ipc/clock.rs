//! The clock of deadlines, which both processes read alike.

use std::time::Duration;

use tokio::time::Instant;

/// CLOCK_MONOTONIC in nanoseconds: the one clock that both processes read alike.
#[cfg(not(test))]
pub fn monotonic() -> u64 {
    kernel_clock()
}

/// As outside of tests, but for one whose runtime has paused its clock: there it is that clock.
#[cfg(test)]
pub fn monotonic() -> u64 {
    static BOTH: std::sync::OnceLock<(Instant, u64)> = std::sync::OnceLock::new();
    let now = Instant::now();
    let (instant, nanoseconds_then) = *BOTH.get_or_init(|| (now, kernel_clock()));
    // A clock that was paused before this one was read first is behind it.
    let since = nanoseconds(now.saturating_duration_since(instant));
    let before = nanoseconds(instant.saturating_duration_since(now));
    nanoseconds_then + since - before
}

/// An [`Instant`] on that clock.
pub fn monotonic_at(instant: Instant) -> u64 {
    let ahead = instant.saturating_duration_since(Instant::now());
    monotonic().saturating_add(nanoseconds(ahead))
}

/// A span on that clock; more than 584 years do not fit and are cut.
pub fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn kernel_clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
