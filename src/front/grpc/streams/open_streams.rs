//! How many streams each principal has open: each holds memory for as long as its peer likes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::error::{Error, Kind};

/// The open streams, by their principals' ARNs.
#[derive(Clone, Default)]
pub(in crate::front::grpc) struct OpenStreams(Arc<Mutex<HashMap<String, usize>>>);

/// A stream that counts as open until this is dropped.
pub(super) struct OpenStream {
    all: OpenStreams,
    principal: String,
}

impl OpenStreams {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenStream {
    /// Counts one more.
    ///
    /// # Errors
    /// `Throttling`: the principal has as many open as it may, or all together have.
    pub(super) fn begin(all: &OpenStreams, principal: &str) -> Result<Self, Error> {
        let mut open = all.lock();
        let of_principal = open.get(principal).copied().unwrap_or(0);
        if of_principal >= OF_PRINCIPAL || open.values().sum::<usize>() >= OF_ALL {
            let say = "Too many streams of yours, or of all callers, are open.";
            return Err(Error::new(Kind::Throttling, say).retry_after(PAUSE));
        }
        open.insert(principal.to_owned(), of_principal + 1);
        drop(open);
        Ok(Self {
            all: all.clone(),
            principal: principal.to_owned(),
        })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        if let Some(of_principal) = open.get_mut(&self.principal) {
            *of_principal -= 1;
            if *of_principal == 0 {
                open.remove(&self.principal);
            }
        }
    }
}

/// One stream is as good as many: a token is full with it.
const OF_PRINCIPAL: usize = 64;
const OF_ALL: usize = 1024;
/// When a stream ends nobody knows.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_has_64_streams_open_at_most_and_all_have_1024() {
        let all = OpenStreams::default();
        let open = |principal: &str| OpenStream::begin(&all, principal);
        let mut first: Vec<_> = (0..OF_PRINCIPAL).map(|_| open("first").unwrap()).collect();
        let refusal = open("first").err().unwrap();
        assert_eq!(
            (refusal.kind(), refusal.pause()),
            (Kind::Throttling, Some(PAUSE))
        );
        first.pop();
        first.push(open("first").unwrap());
        let others = (1..OF_ALL / OF_PRINCIPAL).flat_map(|number| [number; OF_PRINCIPAL]);
        let others: Vec<_> = others
            .map(|number| open(&number.to_string()).unwrap())
            .collect();
        assert!(open("last").is_err());
        drop((first, others));
        assert!(open("last").is_ok() && all.lock().is_empty());
    }
}
