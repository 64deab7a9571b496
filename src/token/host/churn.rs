//! How often a token's hosts may be replaced: a token that eats its hosts goes on with those that it has.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::token::locks::UNPOISONED;

/// A budget of starts that refills with time: so many at once, and so many a minute.
#[derive(Debug)]
pub(super) struct StartBudget {
    most: u32,
    /// After the budget is used up, one start in so long.
    refill: Duration,
    state: Mutex<Budget>,
}

#[derive(Debug)]
struct Budget {
    left: u32,
    refilled: Instant,
    told: bool,
}

/// Whether a host may start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// Now.
    Granted,
    /// After so long; the flag tells whether it is the first refusal of its row.
    Later(Duration, bool),
}

impl StartBudget {
    /// So many starts a minute, at least one.
    pub(super) fn new(a_minute: u32) -> Self {
        let most = a_minute.max(1);
        Self {
            most,
            refill: Duration::from_secs(60) / most,
            state: Mutex::new(Budget {
                left: most,
                refilled: Instant::now(),
                told: false,
            }),
        }
    }

    /// Takes one start from the budget, if there is one.
    pub(super) fn take(&self, now: Instant) -> Admission {
        let mut budget = self.state.lock().expect(UNPOISONED);
        while budget.left < self.most
            && now.saturating_duration_since(budget.refilled) >= self.refill
        {
            budget.left += 1;
            budget.refilled += self.refill;
        }
        if budget.left == self.most {
            budget.refilled = now;
            budget.told = false;
        }
        if budget.left > 0 {
            budget.left -= 1;
            return Admission::Granted;
        }
        let wait = self
            .refill
            .saturating_sub(now.saturating_duration_since(budget.refilled));
        let first = !std::mem::replace(&mut budget.told, true);
        Admission::Later(wait, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_beyond_the_budget_come_one_by_one() {
        let budget = StartBudget::new(30);
        let refill = Duration::from_secs(2);
        let mut now = Instant::now();
        let most = (0..100)
            .take_while(|_| budget.take(now) == Admission::Granted)
            .count();
        assert_eq!(most, 30);
        // Said once, not at each refusal.
        assert!(matches!(budget.take(now), Admission::Later(_, false)));
        now += refill;
        assert_eq!(budget.take(now), Admission::Granted);
        assert!(matches!(budget.take(now), Admission::Later(wait, false) if wait <= refill));
        // A quiet minute fills it again.
        now += refill * 30;
        let again = (0..100)
            .take_while(|_| budget.take(now) == Admission::Granted)
            .count();
        assert_eq!(again, 30);
        assert!(matches!(budget.take(now), Admission::Later(..)));
    }
}
