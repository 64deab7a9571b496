//! The connections of a listener on which nobody has proved yet who they are, and the one budget that
//! they share: connections, time, bytes.
//!
//! Promises: at most so many are here at a time, each for ten seconds at most; a newcomer always gets
//! in, because it takes the place of an old one of the source that has most; nobody goes before what they
//! have said already was looked at; what they make us hold is bounded; callers that are known have slots of their own. Does not: end a connection itself (it
//! says when, and for how long the goodbye may take).

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::{pending, poll_fn},
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::peer::Peer;
use crate::{front::log_limit::LogLimit, metrics::Counter};

/// The unauthenticated connections of a listener, the oldest first, and the number of authenticated
/// ones.
pub(in crate::front) struct PreAuthConnections {
    listener: &'static str,
    limit: usize,
    pool: Mutex<Pool>,
    authenticated: watch::Sender<usize>,
    /// One was looked at, or is gone.
    looked_at: Notify,
    evictions: LogLimit,
    evicted: Counter,
}

#[derive(Default)]
struct Pool {
    here: VecDeque<Entry>,
    /// The sum over `here`.
    bytes: usize,
    /// How many were evicted and are not gone yet.
    leaving: usize,
}

struct Entry {
    state: Arc<SlotState>,
    /// Bytes of a request that is being read.
    bytes: usize,
}

impl Entry {
    fn was_looked_at(&self) -> bool {
        self.state.was_looked_at.load(Ordering::Acquire)
    }

    fn is_promising(&self) -> bool {
        self.state.is_promising.load(Ordering::Acquire)
    }
}

/// Whom connections come from, as far as an address tells.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Source {
    V4(Ipv4Addr),
    /// The first 64 bits: one customer of a network has all addresses behind them.
    V6([u8; 8]),
    Uid(Option<u32>),
}

impl Source {
    fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Tcp(address) | Peer::Tls(address, _) => match address.ip().to_canonical() {
                IpAddr::V4(address) => Self::V4(address),
                IpAddr::V6(address) => {
                    let [a, b, c, d, e, f, g, h, ..] = address.octets();
                    Self::V6([a, b, c, d, e, f, g, h])
                }
            },
            Peer::Unix { uid, .. } => Self::Uid(*uid),
        }
    }
}

impl PreAuthConnections {
    /// For a listener whose settings allow this many connections of callers that are known; a quarter
    /// as many may be here besides, and no fewer than 16.
    pub(in crate::front) fn new(listener: &'static str, max_connections: u32) -> Arc<Self> {
        Self::at_most(listener, (max_connections as usize).div_ceil(4).max(16))
    }

    pub(in crate::front) fn at_most(listener: &'static str, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            listener,
            limit,
            pool: Mutex::default(),
            authenticated: watch::Sender::new(0),
            looked_at: Notify::new(),
            evictions: LogLimit::new(),
            evicted: Counter::default(),
        })
    }

    /// The number of authenticated connections, as it changes.
    pub(in crate::front) fn authenticated(&self) -> watch::Receiver<usize> {
        self.authenticated.subscribe()
    }

    /// Waits until one more may come in without one going that nobody has looked at yet: however fast
    /// they come, what each has said by then is heard.
    pub(in crate::front) async fn place_for_one(&self) {
        while !self.has_place() {
            self.looked_at.notified().await;
        }
    }

    fn has_place(&self) -> bool {
        let pool = self.lock();
        let victim = || &pool.here[pool.oldest_of_heaviest_source()];
        pool.here.len() < self.limit || victim().was_looked_at()
    }

    /// Lets one more in. If there are too many then, one has to go, whatever it is doing.
    pub(in crate::front) fn admit(self: &Arc<Self>, peer: &Peer) -> PreAuthSlot {
        let state = Arc::new(SlotState {
            source: Source::of(peer),
            since: Instant::now(),
            is_authenticated: AtomicBool::new(false),
            has_request: AtomicBool::new(false),
            is_promising: AtomicBool::new(false),
            was_looked_at: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            authenticated: Notify::new(),
            evicted: Notify::new(),
        });
        let mut pool = self.lock();
        if pool.here.len() >= self.limit {
            let victim = pool.oldest_of_heaviest_source();
            self.evict(&mut pool, victim);
        }
        pool.here.push_back(Entry {
            state: state.clone(),
            bytes: 0,
        });
        PreAuthSlot {
            connections: self.clone(),
            state,
        }
    }

    fn evict(&self, pool: &mut Pool, victim: usize) {
        let Some(entry) = pool.here.remove(victim) else {
            return;
        };
        pool.bytes -= entry.bytes;
        pool.leaving += 1;
        self.evicted.increment();
        entry.state.is_evicted.store(true, Ordering::Release);
        entry.state.evicted.notify_waiters();
        if let Some(count) = self.evictions.pass() {
            tracing::warn!(
                event = "strangers_closed", listener = self.listener,
                peer = %entry.state.source,
                count,
                "connections without a proof of who they are were closed to let others in; this is the last of them"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect(UNPOISONED)
    }

    /// The most of them.
    pub(in crate::front) fn limit(&self) -> usize {
        self.limit
    }

    /// How many had to go so far.
    pub(in crate::front) fn evicted(&self) -> u64 {
        self.evicted.get()
    }

    /// How many there are.
    pub(in crate::front) fn count(&self) -> usize {
        self.lock().here.len()
    }
}

impl Pool {
    /// Of the source that has most connections here: the oldest whose request does not look as if it
    /// proved something, or the oldest. One that was not looked at yet goes if there is no other. The
    /// newer half is left alone: it would always go before those that withhold the end of a request.
    fn oldest_of_heaviest_source(&self) -> usize {
        let mut counts: HashMap<Source, usize> = HashMap::new();
        for entry in &self.here {
            *counts.entry(entry.state.source).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or_default();
        let entries = self.here.iter().enumerate();
        let of_heaviest = entries.filter(|(_, entry)| counts[&entry.state.source] == most);
        let older = of_heaviest.take(most.div_ceil(2));
        let rank = |entry: &Entry| (!entry.was_looked_at(), entry.is_promising());
        let first = older.min_by_key(|(position, entry)| (rank(entry), *position));
        first.map_or(0, |(position, _)| position)
    }

    fn position(&self, state: &Arc<SlotState>) -> Option<usize> {
        self.here
            .iter()
            .position(|entry| Arc::ptr_eq(&entry.state, state))
    }
}

/// What is known of a connection's caller.
struct SlotState {
    source: Source,
    since: Instant,
    is_authenticated: AtomicBool,
    /// A request has arrived and is not answered yet.
    has_request: AtomicBool,
    /// What has arrived of that request may prove who has sent it.
    is_promising: AtomicBool,
    was_looked_at: AtomicBool,
    is_evicted: AtomicBool,
    authenticated: Notify,
    evicted: Notify,
}

/// The place of one connection, among the unauthenticated ones or among the others.
pub(in crate::front) struct PreAuthSlot {
    connections: Arc<PreAuthConnections>,
    state: Arc<SlotState>,
}

impl PreAuthSlot {
    /// The caller has proved who it is. From now on the connection may stay. One that was evicted
    /// before stays evicted.
    pub(in crate::front) fn mark_authenticated(&self) {
        let mut pool = self.connections.lock();
        let Some(position) = pool.position(&self.state) else {
            return;
        };
        if let Some(entry) = pool.here.remove(position) {
            pool.bytes -= entry.bytes;
        }
        drop(pool);
        self.connections.looked_at.notify_one();
        self.state.is_authenticated.store(true, Ordering::Release);
        self.state.authenticated.notify_one();
        self.connections
            .authenticated
            .send_modify(|count| *count += 1);
    }

    pub(in crate::front) fn is_authenticated(&self) -> bool {
        self.state.is_authenticated.load(Ordering::Acquire)
    }

    /// A request has arrived.
    pub(in crate::front) fn request_started(&self) {
        self.state.has_request.store(true, Ordering::Release);
    }

    /// What has arrived of the request may prove who has sent it: others go before it does.
    pub(in crate::front) fn request_is_promising(&self) {
        self.state.is_promising.store(true, Ordering::Release);
    }

    /// The request is answered; what was held of it is not any more.
    pub(in crate::front) fn request_answered(&self) {
        self.state.has_request.store(false, Ordering::Release);
        self.state.is_promising.store(false, Ordering::Release);
        if !self.is_authenticated() {
            let mut pool = self.connections.lock();
            if let Some(position) = pool.position(&self.state) {
                let held = std::mem::take(&mut pool.here[position].bytes);
                pool.bytes -= held;
            }
        }
    }

    pub(in crate::front) fn has_request(&self) -> bool {
        self.state.has_request.load(Ordering::Acquire)
    }

    /// Holds more bytes of a request. If all together would hold too many, the one that holds most has
    /// to go.
    ///
    /// # Errors
    /// This is the one that holds most, or it was evicted before and this is more than a short request.
    pub(in crate::front) fn hold(&self, bytes: usize) -> Result<(), Evicted> {
        if self.is_authenticated() {
            return Ok(());
        }
        let mut pool = self.connections.lock();
        let Some(position) = pool.position(&self.state) else {
            // What was here when its place went to another may still prove who has sent it.
            return if bytes <= LAST_BYTES {
                Ok(())
            } else {
                Err(Evicted)
            };
        };
        pool.here[position].bytes += bytes;
        pool.bytes += bytes;
        while pool.bytes > BYTES {
            let sizes = pool.here.iter().map(|entry| entry.bytes);
            let (most, _) = sizes
                .enumerate()
                .rev()
                .max_by_key(|(_, bytes)| *bytes)
                .ok_or(Evicted)?;
            let is_this = Arc::ptr_eq(&pool.here[most].state, &self.state);
            self.connections.evict(&mut pool, most);
            if is_this {
                return Err(Evicted);
            }
        }
        Ok(())
    }

    /// What is to be told when the connection was looked at for the first time.
    pub(in crate::front) fn first_look(&self) -> FirstLook {
        FirstLook {
            connections: self.connections.clone(),
            state: self.state.clone(),
        }
    }

    /// Returns when another connection takes the place of this one.
    pub(in crate::front) async fn evicted(&self) {
        let mut notified = pin!(self.state.evicted.notified());
        // From here on it is told, so that nothing is missed between the look and the wait.
        notified.as_mut().enable();
        if !self.state.is_evicted.load(Ordering::Acquire) {
            notified.await;
        }
    }

    /// Returns when there was no proof in time, or the connection is evicted; never, if there was one.
    pub(in crate::front) async fn auth_timed_out(&self) {
        if self.is_authenticated() {
            return pending().await;
        }
        tokio::select! {
            () = sleep_until(self.state.since + AUTH_TIMEOUT) => {
                if self.is_authenticated() {
                    pending().await
                }
            }
            () = self.evicted() => {}
            () = self.state.authenticated.notified() => pending().await,
        }
    }

    /// For how long the connection may say goodbye before its socket is closed. Not at all, if very
    /// many do so.
    pub(in crate::front) fn goodbye(&self) -> Duration {
        if self.connections.lock().leaving > self.connections.limit {
            Duration::ZERO
        } else {
            GOODBYE
        }
    }
}

/// A connection that nobody has looked at yet.
pub(in crate::front) struct FirstLook {
    connections: Arc<PreAuthConnections>,
    state: Arc<SlotState>,
}

impl FirstLook {
    /// Does what is done with the connection, and tells when it has to wait for the first time: by then
    /// everything that has arrived is heard.
    pub(in crate::front) async fn of<F: Future>(self, work: F) -> F::Output {
        let mut work = pin!(work);
        let first = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
        drop(self);
        match first {
            Poll::Ready(done) => done,
            Poll::Pending => work.await,
        }
    }
}

impl Drop for FirstLook {
    fn drop(&mut self) {
        self.state.was_looked_at.store(true, Ordering::Release);
        self.connections.looked_at.notify_one();
    }
}

impl Drop for PreAuthSlot {
    fn drop(&mut self) {
        self.connections.looked_at.notify_one();
        if self.is_authenticated() {
            self.connections
                .authenticated
                .send_modify(|count| *count -= 1);
            return;
        }
        let mut pool = self.connections.lock();
        if self.state.is_evicted.load(Ordering::Acquire) {
            pool.leaving -= 1;
        } else if let Some(position) = pool.position(&self.state)
            && let Some(entry) = pool.here.remove(position)
        {
            pool.bytes -= entry.bytes;
        }
    }
}

/// The connection has to go: others need what it holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::front) struct Evicted;

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(prefix) => {
                let mut octets = [0; 16];
                octets[..8].copy_from_slice(prefix);
                write!(f, "{}/64", std::net::Ipv6Addr::from(octets))
            }
            Self::Uid(Some(uid)) => write!(f, "uid {uid}"),
            Self::Uid(None) => f.write_str("a local process"),
        }
    }
}

const UNPOISONED: &str = "nobody panics with this lock held";
/// How long a connection may be there before it has proved who is on its other end.
pub(in crate::front) const AUTH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer that is being written, and the end of the protocol, may take then.
const GOODBYE: Duration = Duration::from_secs(1);
/// What the requests of all of them may hold.
const BYTES: usize = 8 << 20;
/// What one of them may hold while it leaves.
const LAST_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn from(host: u8) -> Peer {
        Peer::Tcp(([10, 0, 0, host], 1000).into())
    }

    fn is_evicted(slot: &PreAuthSlot) -> bool {
        slot.state.is_evicted.load(Ordering::Acquire)
    }

    #[test]
    fn the_heaviest_source_makes_room() {
        let connections = PreAuthConnections::at_most("test", 4);
        let quiet = connections.admit(&from(1));
        let loud: Vec<_> = (0..50).map(|_| connections.admit(&from(2))).collect();
        assert!(!is_evicted(&quiet));
        let left = loud.iter().filter(|slot| !is_evicted(slot)).count();
        assert_eq!((left, connections.count()), (3, 4));
        assert!(!is_evicted(loud.last().unwrap()));
    }

    #[test]
    fn one_whose_request_may_prove_something_goes_after_those_of_whom_nothing_is_known_but_goes() {
        let connections = PreAuthConnections::at_most("test", 4);
        let admit = || connections.admit(&from(1));
        let signs = || {
            let slot = admit();
            slot.request_started();
            slot.request_is_promising();
            slot
        };
        let signing = signs();
        let withholding = admit();
        withholding.request_started();
        let (second, third, fourth) = (signs(), signs(), signs());
        assert!(is_evicted(&withholding) && !is_evicted(&signing));
        let fifth = admit();
        assert!(is_evicted(&signing) && !is_evicted(&second));
        drop((third, fourth, fifth));
    }

    #[test]
    fn a_newcomer_has_time_to_speak_beside_those_that_withhold_the_end_of_what_they_say() {
        let connections = PreAuthConnections::at_most("test", 100);
        let withhold = || {
            let slot = connections.admit(&from(1));
            slot.request_started();
            slot.request_is_promising();
            slot
        };
        let mut others: Vec<_> = (0..100).map(|_| withhold()).collect();
        let newcomer = connections.admit(&from(1));
        others.extend((0..49).map(|_| withhold()));
        assert!(!is_evicted(&newcomer));
        newcomer.mark_authenticated();
        assert!(newcomer.is_authenticated());
    }

    #[test]
    fn authenticated_connections_have_slots_of_their_own() {
        let connections = PreAuthConnections::at_most("test", 1);
        let known = connections.admit(&from(1));
        known.mark_authenticated();
        known.mark_authenticated();
        let others: Vec<_> = (0..9).map(|_| connections.admit(&from(1))).collect();
        assert!(!is_evicted(&known));
        // Too late: its place is another's.
        others[0].mark_authenticated();
        assert!(!others[0].is_authenticated());
        assert_eq!(*connections.authenticated().borrow(), 1);
        drop((known, others));
        assert_eq!(*connections.authenticated().borrow(), 0);
        assert_eq!(connections.count(), 0);
        assert_eq!(connections.lock().leaving, 0);
    }

    #[test]
    fn who_holds_most_bytes_goes_first_and_all_bytes_come_back() {
        let connections = PreAuthConnections::at_most("test", 100);
        let large: Vec<_> = (0..32).map(|_| connections.admit(&from(1))).collect();
        for slot in &large {
            assert_eq!(slot.hold(BYTES / 32), Ok(()));
        }
        let small = connections.admit(&from(1));
        assert_eq!(small.hold(1000), Ok(()));
        assert_eq!(large.iter().filter(|slot| is_evicted(slot)).count(), 1);
        assert_eq!(small.hold(BYTES), Err(Evicted));
        assert!(is_evicted(&small));
        for slot in &large {
            slot.request_answered();
        }
        assert_eq!(connections.lock().bytes, 0);
        large[31].hold(1000).unwrap();
        drop(large);
        assert_eq!(connections.lock().bytes, 0);
    }

    /// However fast others come, what a newcomer has said is heard before it may have to go.
    #[tokio::test(start_paused = true)]
    async fn nobody_goes_before_they_were_looked_at() {
        let connections = PreAuthConnections::at_most("test", 4);
        let hasty: Vec<_> = (0..4).map(|_| connections.admit(&from(1))).collect();
        let place = || timeout(Duration::from_secs(1), connections.place_for_one());
        assert!(place().await.is_err());
        let look = hasty[1].first_look().of(pending::<()>());
        assert!(timeout(Duration::from_secs(1), look).await.is_err());
        place().await.unwrap();
        let fifth = connections.admit(&from(1));
        assert!(is_evicted(&hasty[1]) && !is_evicted(&hasty[0]));
        assert!(place().await.is_err());
        drop(fifth);
        place().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn ten_seconds_count_from_the_beginning_and_end_with_a_proof() {
        let connections = PreAuthConnections::at_most("test", 2);
        let (slow, known) = (connections.admit(&from(1)), connections.admit(&from(1)));
        let began = Instant::now();
        known.mark_authenticated();
        tokio::time::sleep(Duration::from_secs(4)).await;
        slow.auth_timed_out().await;
        assert_eq!(began.elapsed(), AUTH_TIMEOUT);
        let much = AUTH_TIMEOUT * 10;
        assert!(timeout(much, known.auth_timed_out()).await.is_err());
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_ipv6() {
        let of = |address: &str| Source::of(&Peer::Tcp(address.parse().unwrap())).to_string();
        assert_eq!(of("10.1.2.3:4"), "10.1.2.3");
        assert_eq!(of("[::ffff:10.1.2.3]:4"), "10.1.2.3");
        assert_eq!(of("[2001:db8:1:2:3::4]:5"), "2001:db8:1:2::/64");
    }
}
