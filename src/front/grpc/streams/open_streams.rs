//! How many streams each principal, and each connection, has open: each holds memory for as long as its
//! peer likes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
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
    of_connection: Arc<AtomicUsize>,
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
    /// `Throttling`: the connection or the principal has as many open as it may, or all together have.
    pub(super) fn begin(
        all: &OpenStreams,
        principal: &str,
        of_connection: &Arc<AtomicUsize>,
    ) -> Result<Self, Error> {
        let mut open = all.lock();
        let of_principal = open.get(principal).copied().unwrap_or(0);
        // Changed under the lock alone.
        let connection = of_connection.load(Ordering::Relaxed);
        let sum = open.values().sum::<usize>();
        if connection >= OF_CONNECTION || of_principal >= OF_PRINCIPAL || sum >= OF_ALL {
            let say = "Too many streams of this connection, of yours, or of all callers, are open.";
            return Err(Error::new(Kind::Throttling, say).retry_after(PAUSE));
        }
        open.insert(principal.to_owned(), of_principal + 1);
        of_connection.store(connection + 1, Ordering::Relaxed);
        drop(open);
        Ok(Self {
            all: all.clone(),
            principal: principal.to_owned(),
            of_connection: of_connection.clone(),
        })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        self.of_connection.fetch_sub(1, Ordering::Relaxed);
        if let Some(of_principal) = open.get_mut(&self.principal) {
            *of_principal -= 1;
            if *of_principal == 0 {
                open.remove(&self.principal);
            }
        }
    }
}

/// See the windows of `http2` in `grpc/connection.rs`.
const OF_CONNECTION: usize = 8;
/// One stream is as good as many: a token is full with it.
const OF_PRINCIPAL: usize = 64;
const OF_ALL: usize = 1024;
/// When a stream ends nobody knows.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_8_streams_open_at_most_a_principal_64_and_all_1024() {
        let all = OpenStreams::default();
        let open = |principal: &str| OpenStream::begin(&all, principal, &Arc::default());
        let one = Arc::default();
        let on_one = || OpenStream::begin(&all, "first", &one);
        let mut connection: Vec<_> = (0..OF_CONNECTION).map(|_| on_one().unwrap()).collect();
        assert!(on_one().is_err());
        connection.pop();
        assert!(on_one().is_ok());
        drop(connection);
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
