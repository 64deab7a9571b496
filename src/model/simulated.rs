//! What takes the place of the time of day and of chance where a simulation decides on both.

use std::cell::RefCell;

use uuid::Uuid;

use super::Date;

type Source<T> = RefCell<Option<Box<dyn Fn() -> T>>>;

thread_local! {
    static NOW: Source<Date> = const { RefCell::new(None) };
    static CHANCE: Source<u128> = const { RefCell::new(None) };
}

/// From here on this thread's time of day and its random identifiers are these.
pub(crate) fn simulate(now: impl Fn() -> Date + 'static, chance: impl Fn() -> u128 + 'static) {
    NOW.set(Some(Box::new(now)));
    CHANCE.set(Some(Box::new(chance)));
}

pub(super) fn now() -> Option<Date> {
    NOW.with_borrow(|now| now.as_ref().map(|now| now()))
}

pub(super) fn uuid() -> Option<Uuid> {
    let chance = CHANCE.with_borrow(|chance| chance.as_ref().map(|chance| chance()))?;
    Some(uuid::Builder::from_random_bytes(chance.to_be_bytes()).into_uuid())
}
