//! The bytes of requests that have arrived in part: how many all callers, and each principal, may make
//! this process hold.
//!
//! A request whose message comes in one piece is not counted: it is decoded at once. Requests of peers
//! without a proof have a budget of their own, in `auth::pre_auth`.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::error::{Error, Kind};

/// What is held for each principal, by its ARN.
#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_principal: HashMap<String, usize>,
}

static HELD: Mutex<Option<Held>> = Mutex::new(None);

/// Bytes that one request holds; given back when this is dropped.
#[derive(Debug)]
pub(super) struct ReceivedBytes {
    principal: String,
    count: usize,
}

impl ReceivedBytes {
    /// Of a request by this principal; nothing yet.
    pub(super) fn of(principal: &str) -> Self {
        Self {
            principal: principal.to_owned(),
            count: 0,
        }
    }

    /// Counts more bytes of the request.
    ///
    /// # Errors
    /// `Throttling`: the principal, or all together, hold as much as they may.
    pub(super) fn add(&mut self, count: usize) -> Result<(), Error> {
        let mut held = lock();
        let held = held.get_or_insert_default();
        let of_principal = held.by_principal.get(&self.principal).copied().unwrap_or(0);
        if held.total + count > OF_ALL || of_principal + count > OF_PRINCIPAL {
            return Err(Error::new(
                Kind::Throttling,
                "Too many requests of yours, or of all callers, have arrived in part only.",
            ));
        }
        held.total += count;
        held.by_principal
            .insert(self.principal.clone(), of_principal + count);
        self.count += count;
        Ok(())
    }
}

impl Drop for ReceivedBytes {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        if let Some(held) = &mut *lock() {
            held.total -= self.count;
            if let Some(of_principal) = held.by_principal.get_mut(&self.principal) {
                *of_principal -= self.count;
                if *of_principal == 0 {
                    held.by_principal.remove(&self.principal);
                }
            }
        }
    }
}

fn lock() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A principal that needs more sends its requests in pieces over many connections, and slowly.
const OF_PRINCIPAL: usize = 8 << 20;
/// Front RSS stays under 80 MB with it.
const OF_ALL: usize = 24 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_holds_8_mib_at_most_and_its_bytes_come_back() {
        let mut first = ReceivedBytes::of("first");
        first.add(OF_PRINCIPAL).unwrap();
        let error = ReceivedBytes::of("first").add(1).unwrap_err();
        assert_eq!(error.kind(), Kind::Throttling);
        let mut others: Vec<_> = ["second", "third"].map(ReceivedBytes::of).into();
        for other in &mut others {
            other.add(OF_PRINCIPAL).unwrap();
        }
        // All together hold as much as they may.
        assert!(ReceivedBytes::of("fourth").add(1).is_err());
        drop(first);
        ReceivedBytes::of("fourth").add(1).unwrap();
        drop(others);
        assert_eq!(lock().as_ref().unwrap().total, 0);
        assert!(lock().as_ref().unwrap().by_principal.is_empty());
    }
}
