//! How much each principal may ask for: rates by quota, calls at a time, and in which flow its calls wait.
//!
//! Hides: how rates are kept (GCRA, by `governor`). Promises: one place for both APIs, so that a principal's
//! connections, processes and proofs count as one; a refusal says when the principal is admitted again; a call
//! costs two loads and, where there is a limit, a compare-and-swap; what is kept is bounded by the principals
//! that the configuration has had since the start. Does not: authenticate, or know what a call asks for.

mod quota;
mod settings;

pub use self::{
    quota::Quota,
    settings::{DefaultLimits, LimitsSettings, OwnLimits, Rate},
};

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use governor::{
    RateLimiter,
    clock::{Clock, MonotonicClock, Reference},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tracing::warn;

use super::log_limit::LogLimit;
use crate::{
    error::{Error, Kind},
    model::{Caller, Flow},
};

/// The limits of all principals, as they are now.
#[derive(Default)]
pub struct Limits {
    table: ArcSwap<LimitTable>,
}

/// The limits of all principals, as one configuration has them.
#[derive(Default)]
pub struct LimitTable {
    numbers: HashMap<String, u32>,
    /// By the number of a principal's flow, which begin with 1.
    principals: Vec<PrincipalLimits>,
}

/// What one principal may ask for.
struct PrincipalLimits {
    limits: settings::Limits,
    /// By quota. Shared with the table before, if the rate is the same: a reload gives nobody a burst.
    rates: Vec<Option<Arc<Limiter<MonotonicClock>>>>,
    usage: Arc<Usage>,
}

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// What a principal has asked for.
struct Usage {
    arn: String,
    in_flight: AtomicU32,
    /// Calls that were refused: by quota, and for being too many at a time.
    throttled: [AtomicU64; Quota::COUNT + 1],
    /// When the last was, in seconds since 1970, and under which of these.
    last: AtomicU64,
    last_quota: AtomicU32,
    told: LogLimit,
}

/// A call that was let in. It counts as one at a time until this is dropped.
#[must_use]
pub(super) struct CallPermit(Option<Arc<Usage>>);

/// Who was throttled, and how often.
#[derive(Clone, Debug, Default)]
pub struct LimitsSnapshot {
    /// Calls that were refused, by quota; `concurrent` for being too many at a time.
    pub throttled: Vec<(&'static str, u64)>,
    /// The principals that were throttled, who was last first; 32 at most.
    pub principals: Vec<ThrottledPrincipal>,
}

/// A principal that was throttled.
#[derive(Clone, Debug)]
pub struct ThrottledPrincipal {
    /// Its ARN.
    pub arn: String,
    /// By what, the last time: a quota, or `concurrent`.
    pub quota: &'static str,
    /// How many of its calls were refused for their rate or number so far.
    pub count: u64,
    /// When it was the last time.
    pub at: SystemTime,
}

impl Limits {
    /// The limits of these principals by these settings, to be [put in force](Self::replace). Who had a number
    /// keeps it, and rates that are the same go on.
    pub fn prepare<'a>(
        &self,
        settings: &LimitsSettings,
        arns: impl Iterator<Item = &'a str>,
    ) -> LimitTable {
        let before = self.table.load();
        let mut numbers = before.numbers.clone();
        let mut all: Vec<Arc<Usage>> = before
            .principals
            .iter()
            .map(|it| it.usage.clone())
            .collect();
        for arn in arns {
            if !numbers.contains_key(arn) {
                all.push(Arc::new(Usage::new(arn)));
                let number = u32::try_from(all.len()).unwrap_or(u32::MAX);
                numbers.insert(arn.to_owned(), number);
            }
        }
        let principals = all.into_iter().enumerate();
        let principals = principals.map(|(index, usage)| {
            let limits = settings.of(&usage.arn);
            PrincipalLimits::new(limits, usage, before.principals.get(index))
        });
        LimitTable {
            numbers,
            principals: principals.collect(),
        }
    }

    /// Puts limits in force, from the next call on.
    pub fn replace(&self, table: LimitTable) {
        self.table.store(Arc::new(table));
    }

    /// Lets a call in, or says when to come again.
    ///
    /// # Errors
    /// [`Kind::Throttling`] with KMS's text and the time after which the principal is let in, if nobody else
    /// of it comes first.
    pub(super) fn admit(&self, caller: &Caller, quota: Quota) -> Result<CallPermit, Error> {
        let table = self.table.load();
        let index = (caller.flow().number() as usize).wrapping_sub(1);
        match table.principals.get(index) {
            Some(principal) => principal.admit(quota),
            None => Ok(CallPermit(None)),
        }
    }

    /// Who was throttled so far.
    pub fn snapshot(&self) -> LimitsSnapshot {
        let table = self.table.load();
        let usages = || table.principals.iter().map(|principal| &principal.usage);
        let count = |index: usize| {
            let counts = usages().map(|usage| usage.throttled[index].load(Ordering::Relaxed));
            (name(index), counts.sum())
        };
        let mut principals: Vec<_> = usages().filter_map(|usage| usage.shown()).collect();
        principals.sort_by_key(|one| std::cmp::Reverse(one.at));
        principals.truncate(SHOWN);
        LimitsSnapshot {
            throttled: (0..=Quota::COUNT).map(count).collect(),
            principals,
        }
    }
}

impl LimitTable {
    /// A caller in the flow of its principal.
    #[must_use]
    pub fn in_flow(&self, caller: Caller) -> Caller {
        let Some(number) = self.numbers.get(caller.arn()) else {
            return caller;
        };
        let principal = self.principals.get(*number as usize - 1);
        let weight = principal.map_or(1, |principal| principal.limits.weight);
        caller.in_flow(Flow::new(*number, weight))
    }
}

impl PrincipalLimits {
    fn new(limits: settings::Limits, usage: Arc<Usage>, before: Option<&Self>) -> Self {
        let limiter = |quota: Quota| {
            let rate = *limits.rates.get(&quota)?;
            let same = before.filter(|before| before.limits.rates.get(&quota) == Some(&rate));
            match same.and_then(|before| before.rates[quota.index()].clone()) {
                Some(limiter) => Some(limiter),
                None => limiter(rate, MonotonicClock).map(Arc::new),
            }
        };
        Self {
            rates: Quota::all().map(limiter).collect(),
            limits,
            usage,
        }
    }

    fn admit(&self, quota: Quota) -> Result<CallPermit, Error> {
        let mut permit = CallPermit(None);
        if self.limits.concurrent > 0 {
            let before = self.usage.in_flight.fetch_add(1, Ordering::Relaxed);
            permit = CallPermit(Some(self.usage.clone()));
            if before >= self.limits.concurrent {
                return Err(self.usage.refuse(Quota::COUNT, CONCURRENT_PAUSE));
            }
        }
        if let Some(limiter) = &self.rates[quota.index()]
            && let Some(wait) = wait(limiter, &MonotonicClock)
        {
            return Err(self.usage.refuse(quota.index(), wait));
        }
        Ok(permit)
    }
}

/// What keeps a rate; none if there is no limit.
fn limiter<C: Clock>(rate: Rate, clock: C) -> Option<Limiter<C>> {
    let (spacing, burst) = rate.spacing()?;
    let quota = governor::Quota::with_period(spacing)?.allow_burst(burst);
    Some(RateLimiter::direct_with_clock(quota, clock))
}

/// How long a call must wait, if it must.
fn wait<C: Clock>(limiter: &Limiter<C>, clock: &C) -> Option<Duration>
where
    C::Instant: Reference,
{
    let refused = limiter.check().err()?;
    Some(refused.wait_time_from(clock.now()))
}

impl Usage {
    fn new(arn: &str) -> Self {
        Self {
            arn: arn.to_owned(),
            in_flight: AtomicU32::new(0),
            throttled: std::array::from_fn(|_| AtomicU64::new(0)),
            last: AtomicU64::new(0),
            last_quota: AtomicU32::new(0),
            told: LogLimit::new(),
        }
    }

    /// Counts a refusal, and tells the log of it once a minute.
    fn refuse(&self, index: usize, wait: Duration) -> Error {
        self.throttled[index].fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        self.last.store(now, Ordering::Relaxed);
        let quota = u32::try_from(index).unwrap_or_default();
        self.last_quota.store(quota, Ordering::Relaxed);
        if let Some(count) = self.told.pass() {
            let (principal, quota) = (&self.arn, name(index));
            warn!(
                event = "throttled",
                principal, quota, count, "a principal asks for more than its limits allow"
            );
        }
        // Clients are told whole milliseconds, and come too early with fewer.
        let whole = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Error::new(Kind::Throttling, TEXT).retry_after(Duration::from_millis(whole))
    }

    fn shown(&self) -> Option<ThrottledPrincipal> {
        let counts = self.throttled.iter();
        let count = counts.map(|count| count.load(Ordering::Relaxed)).sum();
        (count > 0).then(|| ThrottledPrincipal {
            arn: self.arn.clone(),
            quota: name(self.last_quota.load(Ordering::Relaxed) as usize),
            count,
            at: UNIX_EPOCH + Duration::from_secs(self.last.load(Ordering::Relaxed)),
        })
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some(usage) = &self.0 {
            usage.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn name(index: usize) -> &'static str {
    Quota::all().nth(index).map_or("concurrent", Quota::name)
}

/// KMS's.
const TEXT: &str =
    "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.";
/// When a place is free nobody knows: calls that wait for a token take about so long.
const CONCURRENT_PAUSE: Duration = Duration::from_millis(100);
/// So many principals are shown to operators.
const SHOWN: usize = 32;

#[cfg(test)]
mod tests;
