//! `[limits]`: what an operator sets of how much each principal may ask for.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use serde::Deserialize;

use super::Quota;
use crate::{front::settings::PrincipalArn, model::Flow};

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LimitsSettings {
    /// `[limits.default]`
    #[serde(default)]
    pub default: DefaultLimits,
    /// `[[limits.principal]]`
    #[serde(default)]
    pub principal: Vec<OwnLimits>,
}

/// `[limits.default]`: what each principal may ask for, each for itself. Takes effect by a reload.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DefaultLimits {
    /// Calls a second by quota: `[limits.default.rates]` with lines such as `create_key = { rate = 5, burst = 10 }`.
    /// `rate` is 1 to 1,000,000, or 0 for no limit; `per` is the time that it counts for, 1 s to 1 h, by
    /// default 1 s; `burst` is how many calls may come at once after a pause, 1 to 1,000,000, by default as
    /// many as `rate`. The quotas are KMS's:
    /// `cryptographic_operations_symmetric` is GenerateMac, VerifyMac, items of streams and GenerateRandom together, `other_operations`
    /// what hsmac does not do, and each other operation has one of its own name. Default: no limits.
    #[serde(default)]
    pub rates: BTreeMap<Quota, Rate>,
    /// Calls at a time, 1 to 1,000,000, or 0 for no limit. Default 0: whoever has many calls waiting makes
    /// others wait no longer.
    #[serde(default)]
    pub concurrent: u32,
    /// How many calls of the principal a token serves in one turn among all that have calls waiting, 1
    /// to 100. Default 1.
    #[serde(default = "one")]
    pub weight: u32,
}

/// `[[limits.principal]]`: what one principal may ask for. What is not said here is as by default.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct OwnLimits {
    /// The principal's ARN, as in its `[[principal]]`.
    pub arn: PrincipalArn,
    /// As in `[limits.default]`, quota by quota.
    #[serde(default)]
    pub rates: BTreeMap<Quota, Rate>,
    /// As in `[limits.default]`.
    pub concurrent: Option<u32>,
    /// As in `[limits.default]`.
    pub weight: Option<u32>,
}

/// A rate and its burst.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Calls in the time of `per`; 0: no limit.
    pub rate: u32,
    /// The time that `rate` counts for. Default 1 s.
    #[serde(default = "one_second", with = "humantime_serde")]
    pub per: Duration,
    /// How many calls may come at once after a pause; by default as many as `rate`.
    pub burst: Option<NonZeroU32>,
}

/// The limits of one principal, all put together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limits {
    pub(super) rates: BTreeMap<Quota, Rate>,
    pub(super) concurrent: u32,
    pub(super) weight: u32,
}

impl LimitsSettings {
    /// Those of a principal.
    pub(super) fn of(&self, arn: &str) -> Limits {
        let mut limits = Limits {
            rates: self.default.rates.clone(),
            concurrent: self.default.concurrent,
            weight: self.default.weight,
        };
        if let Some(own) = self.principal.iter().find(|own| own.arn.0.arn() == arn) {
            limits.rates.extend(&own.rates);
            limits.concurrent = own.concurrent.unwrap_or(limits.concurrent);
            limits.weight = own.weight.unwrap_or(limits.weight);
        }
        limits
    }

    /// What is out of range, as (setting, sentence).
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let default = &self.default;
        let mut check = |at: &str, rates: &BTreeMap<Quota, Rate>, concurrent: u32, weight: u32| {
            for (quota, rate) in rates {
                let at = format!("{at}.rates.{}", quota.name());
                if rate.rate > MOST_RATE {
                    let text = "it must be 1 to 1,000,000 calls, or 0 for no limit";
                    faults.push((format!("{at}.rate"), text.to_owned()));
                }
                if !(Duration::from_secs(1)..=LONGEST).contains(&rate.per) {
                    let text = "it must be 1s to 1h";
                    faults.push((format!("{at}.per"), text.to_owned()));
                }
                if rate.burst.is_some_and(|burst| burst.get() > MOST_BURST) {
                    let text = "it must be 1 to 1,000,000 calls";
                    faults.push((format!("{at}.burst"), text.to_owned()));
                }
            }
            if concurrent > MOST_CONCURRENT {
                let text = "it must be 1 to 1,000,000 calls, or 0 for no limit";
                faults.push((format!("{at}.concurrent"), text.to_owned()));
            }
            if !(1..=Flow::MOST_WEIGHT).contains(&weight) {
                let text = format!("it must be 1 to {}", Flow::MOST_WEIGHT);
                faults.push((format!("{at}.weight"), text));
            }
        };
        check(
            "limits.default",
            &default.rates,
            default.concurrent,
            default.weight,
        );
        for (index, own) in self.principal.iter().enumerate() {
            let at = format!("limits.principal[{index}]");
            let (concurrent, weight) = (own.concurrent.unwrap_or(0), own.weight.unwrap_or(1));
            check(&at, &own.rates, concurrent, weight);
        }
        for (index, own) in self.principal.iter().enumerate() {
            let same = |other: &OwnLimits| other.arn.0.arn() == own.arn.0.arn();
            if let Some(first) = self.principal[..index].iter().position(same) {
                let text = format!("limits.principal[{first}] has the limits of this principal");
                faults.push((format!("limits.principal[{index}].arn"), text));
            }
        }
        faults
    }
}

impl Rate {
    /// The time from one call to the next and the burst; none: no limit.
    pub(super) fn spacing(self) -> Option<(Duration, NonZeroU32)> {
        let rate = NonZeroU32::new(self.rate)?;
        Some((self.per / rate.get(), self.burst.unwrap_or(rate)))
    }
}

/// A nanosecond, the clock's, is then a thousandth of the time between two calls.
const MOST_RATE: u32 = 1_000_000;
/// With the longest time between two calls it is a time that fits into 64 bits of nanoseconds.
const MOST_BURST: u32 = 1_000_000;
const LONGEST: Duration = Duration::from_hours(1);
const MOST_CONCURRENT: u32 = 1_000_000;

impl Default for DefaultLimits {
    /// No limits, and all count the same.
    fn default() -> Self {
        Self {
            rates: BTreeMap::new(),
            concurrent: 0,
            weight: one(),
        }
    }
}

fn one() -> u32 {
    1
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}
