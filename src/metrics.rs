//! What is counted and timed while hsmac serves: counters and histograms that cost the path of a MAC a
//! few nanoseconds.
//!
//! Hides: how threads share a histogram without a lock. Promises: nothing is lost or counted twice, and
//! reading disturbs nobody. Does not: know names, labels or formats; each room owns what it measures and
//! shows it in a snapshot, and `admin` gives all of it names.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread::LocalKey,
    time::Duration,
};

/// The upper bounds of a histogram's buckets, in seconds; what took longer is counted apart.
pub const BOUNDS: [f64; 17] = [
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3,
    1.0, 2.0, 5.0, 10.0,
];
const BOUNDS_NS: [u64; BOUNDS.len()] = [
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];
/// As many threads write without meeting each other's cache lines.
pub const SHARDS: usize = 4;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, each time, in the buckets of [`BOUNDS`].
#[derive(Debug, Default)]
pub struct Histogram {
    shards: [Shard; SHARDS],
}

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// It took so long, once more.
    pub fn observe(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        let shard = &self.shards[own_shard()];
        shard.counts[bucket].fetch_add(1, Ordering::Relaxed);
        shard.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// What was observed so far.
    pub fn snapshot(&self) -> Distribution {
        let mut distribution = Distribution::default();
        let mut sum_ns = 0_u64;
        for shard in &self.shards {
            for (total, count) in distribution.counts.iter_mut().zip(&shard.counts) {
                *total += count.load(Ordering::Relaxed);
            }
            sum_ns = sum_ns.saturating_add(shard.sum_ns.load(Ordering::Relaxed));
        }
        distribution.sum_seconds = Duration::from_nanos(sum_ns).as_secs_f64();
        distribution
    }
}

/// What a [`Histogram`] has observed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// How often in each bucket of [`BOUNDS`], and above the last bound.
    pub counts: [u64; BOUNDS.len() + 1],
    /// All times together.
    pub sum_seconds: f64,
}

impl Distribution {
    /// How often.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper bound of the bucket that the quantile (0 to 1) is in, in seconds; none without an
    /// observation. What lies above the last bound counts as the last bound.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "a rank among fewer than 2^52 observations"
        )]
        let rank = (quantile * count as f64).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|in_bucket| {
            seen += in_bucket;
            seen >= rank.max(1)
        })?;
        Some(BOUNDS[found.min(BOUNDS.len() - 1)])
    }

    /// What came since an earlier snapshot of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        for (count, before) in later.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        later.sum_seconds = (later.sum_seconds - earlier.sum_seconds).max(0.0);
        later
    }
}

impl std::ops::AddAssign<&Self> for Distribution {
    fn add_assign(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum_seconds += other.sum_seconds;
    }
}

/// True once in so many times on this thread, the first time among them: for what is timed by samples,
/// since two looks at the clock cost as much as some of what they would measure. Each thing that is timed has
/// a `count` of its own: of two that took turns with one, the second might never be looked at.
pub fn one_in(times: u32, count: &'static LocalKey<Cell<u32>>) -> bool {
    let before = count.replace(count.get().wrapping_add(1));
    before.is_multiple_of(times)
}

/// The shard of this thread, less than [`SHARDS`]: threads get them in turn.
pub fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    OWN.with(Cell::get)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_bounds_are_the_same_in_both_units_and_grow() {
        for (seconds, ns) in BOUNDS.iter().zip(BOUNDS_NS) {
            assert_eq!(Duration::from_secs_f64(*seconds), Duration::from_nanos(ns));
        }
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn a_bucket_has_what_is_at_most_its_bound() {
        let histogram = Histogram::default();
        for ns in [0, 50_000, 50_001, 10_000_000_000, 10_000_000_001] {
            histogram.observe(Duration::from_nanos(ns));
        }
        let seen = histogram.snapshot();
        assert_eq!((seen.counts[0], seen.counts[1]), (2, 1));
        assert_eq!((seen.counts[16], seen.counts[17]), (1, 1));
        assert_eq!(seen.count(), 5);
        assert!((seen.sum_seconds - 20.000_100_002).abs() < 1e-9);
    }

    #[test]
    fn no_thread_s_observation_is_lost() {
        let histogram = Histogram::default();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        histogram.observe(Duration::from_micros(70));
                    }
                });
            }
        });
        let seen = histogram.snapshot();
        assert_eq!((seen.count(), seen.counts[1]), (80_000, 80_000));
    }

    #[test]
    fn one_in_four_is_the_first_and_every_fourth_after_it() {
        thread_local! {
            static ONE: Cell<u32> = const { Cell::new(0) };
            static OTHER: Cell<u32> = const { Cell::new(0) };
        }
        let taken = thread::spawn(|| (0..9).filter(|_| one_in(4, &ONE)).count());
        assert_eq!(taken.join().unwrap(), 3);
        assert!(thread::spawn(|| one_in(1000, &ONE)).join().unwrap());
        // Two that take turns are both looked at.
        let turns = || (0..16).map(|_| [one_in(4, &ONE), one_in(4, &OTHER)]);
        let both = thread::spawn(move || turns().filter(|both| *both == [true; 2]).count());
        assert_eq!(both.join().unwrap(), 4);
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        for _ in 0..98 {
            histogram.observe(Duration::from_micros(70));
        }
        let before = histogram.snapshot();
        histogram.observe(Duration::from_millis(3));
        histogram.observe(Duration::from_secs(60));
        let seen = histogram.snapshot();
        assert_eq!(seen.quantile(0.5), Some(100e-6));
        assert_eq!(seen.quantile(0.99), Some(5e-3));
        assert_eq!(seen.quantile(1.0), Some(10.0));
        assert_eq!(seen.since(&before).count(), 2);
    }
}
