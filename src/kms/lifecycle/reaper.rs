//! What takes objects out of tokens: keys whose deletion date has come, and what creations that
//! came to nothing may have left behind.
//!
//! Every step is committed before the next one begins, so that the work goes on where it was after
//! any end of the process: a key is *deleting* in the store before its object is touched, an intent
//! is closed before its object is searched. Nothing is destroyed that did not prove, to the host and
//! on the very handle, that it is the key; what does not is left alone, and an operator is told.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};

use super::{
    Lifecycle,
    clock::{Clock, Jump, Written, clock_name},
    journal::Journal,
};
use crate::{
    kms::catalogue::stored::{self, StoredLocator},
    model::{Date, KeyId, seconds},
    store::{self, Change, CommitFault, Expect, Name, Store},
    token::Group,
};

/// Has the reaper look when a host of a group has come to serve: it may see what no host saw before.
pub(super) fn wake_with_hosts(journal: &Arc<Journal>, group: &Group) {
    let (mut generations, journal) = (group.generations(), Arc::clone(journal));
    tokio::spawn(async move {
        while generations.changed().await.is_ok() {
            journal.wake.notify_one();
        }
    });
}

/// Looks until the operations are gone or the store is closed.
pub(super) async fn reap(lifecycle: Weak<Lifecycle>) {
    let mut reaper: Option<Reaper> = None;
    let mut told: Option<Instant> = None;
    loop {
        let Some(lifecycle) = lifecycle.upgrade() else {
            return;
        };
        let journal = Arc::clone(&lifecycle.journal);
        let round = async {
            let reaper = match &mut reaper {
                Some(reaper) => reaper,
                none => none.insert(Reaper::start(lifecycle.store.clone()).await?),
            };
            let done = reaper.round(&lifecycle).await;
            let alarms = reaper.alarmed.len();
            lifecycle.alarms.store(alarms, Ordering::Relaxed);
            done
        };
        match round.await {
            Ok(()) => told = None,
            Err(store::Fault::Closed) => return,
            Err(fault) => {
                if told.is_none_or(|at| at.elapsed() >= SAID_AGAIN) {
                    warn!(
                        event = "store_unreadable", reason = %fault,
                        "deletions wait: the store cannot be read; tried again"
                    );
                    told = Some(Instant::now());
                }
            }
        }
        drop(lifecycle);
        tokio::select! {
            () = journal.wake.notified() => {}
            () = sleep(INTERVAL) => {}
        }
    }
}

/// What it knows from round to round. Its two trades are in `orphans.rs` and `deletion.rs`.
pub(super) struct Reaper {
    pub(super) store: Store,
    pub(super) clock: Clock,
    began: Instant,
    pub(super) searched: HashMap<Name, LastSearch>,
    /// What a person was told of a key, and when it was tried last.
    pub(super) alarmed: HashMap<KeyId, (String, Instant)>,
    /// Tokens of its group that a key is gone from already.
    pub(super) destroyed: HashMap<KeyId, BTreeSet<String>>,
    /// Keys whose token could not be asked.
    pub(super) put_off: HashMap<KeyId, PutOff>,
    /// Records that cannot be read are told of once.
    pub(super) unreadable: Vec<Name>,
    told_held: bool,
}

/// The last good search for what an intent may have left.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastSearch {
    pub(super) at: Instant,
    pub(super) pause: Duration,
    /// How many hosts of the token had started by then.
    pub(super) generations: u64,
}

/// When the token of a key that is to go is asked again.
#[derive(Clone, Copy, Debug)]
pub(super) struct PutOff {
    until: Instant,
    pause: Duration,
    /// How many hosts of the token had started by then.
    generations: u64,
}

impl Reaper {
    async fn start(store: Store) -> Result<Self, store::Fault> {
        let written = store.read(&clock_name()).await?;
        let written = written.and_then(|record| match stored::read::<Written>(&record) {
            Ok(written) => Some(written),
            Err(fault) => {
                error!(event = "record_unreadable", record = %record.name, reason = %fault, "the time that was written down cannot be read");
                None
            }
        });
        let (clock, jump) = Clock::start(Date::now(), Duration::ZERO, written);
        if written.is_some() {
            say_jump(jump, clock.held());
        }
        Ok(Self {
            store,
            clock,
            began: Instant::now(),
            searched: HashMap::new(),
            alarmed: HashMap::new(),
            destroyed: HashMap::new(),
            put_off: HashMap::new(),
            unreadable: Vec::new(),
            told_held: false,
        })
    }

    async fn round(&mut self, lifecycle: &Lifecycle) -> Result<(), store::Fault> {
        let wall = Date::now();
        let jump = self.clock.look(wall, self.began.elapsed());
        say_jump(jump, self.clock.held());
        if let Some(written) = self.clock.due(wall) {
            let change = Change::new().put(clock_name(), stored::write(&written), Expect::Any);
            self.commit(change).await?;
        }
        self.settle_intents(lifecycle, wall).await?;
        // Security: a clock that somebody set wrong, or a catalogue of yesterday, deletes nothing.
        let due = lifecycle.catalogue.due(wall);
        let restored = lifecycle.catalogue.is_held();
        if !restored && self.clock.held().is_zero() {
            self.told_held = false;
            for record in due {
                self.delete(lifecycle, &record).await?;
            }
        } else if !due.is_empty() && !self.told_held {
            self.told_held = true;
            warn!(
                event = "deletions_held",
                keys = due.len(),
                restored,
                clock_held_s = seconds(self.clock.held()),
                "keys are due to be deleted and are held"
            );
        }
        Ok(())
    }

    /// Tells a person, once for each reason; true if it was not known.
    pub(super) fn alarm(&mut self, key_id: &KeyId, reason: &str, locator: &StoredLocator) -> bool {
        let known = self
            .alarmed
            .get(key_id)
            .is_some_and(|(known, _)| known == reason);
        if !known {
            error!(
                event = "deletion_alarm", %key_id, token = %locator.token,
                label = locator.label.as_deref().unwrap_or_default(), reason,
                "ALARM: an object that was to be destroyed is not the one that it should be, or cannot go; it is left alone"
            );
        }
        self.alarmed
            .insert(key_id.clone(), (reason.to_owned(), Instant::now()));
        !known
    }

    pub(super) fn is_paused(&self, key_id: &KeyId) -> bool {
        self.alarmed
            .get(key_id)
            .is_some_and(|(_, at)| at.elapsed() < ALARMED_PAUSE)
    }

    /// A key's token could not be asked: it is asked again after a pause, twice as long each time.
    pub(super) fn put_off(&mut self, key_id: &KeyId, generations: u64) -> Duration {
        let pause = match self.put_off.get(key_id) {
            Some(before) => (before.pause * 2).min(ALARMED_PAUSE),
            None => INTERVAL,
        };
        let until = Instant::now() + pause;
        self.put_off.insert(
            key_id.clone(),
            PutOff {
                until,
                pause,
                generations,
            },
        );
        pause
    }

    /// Whether it is too early to ask a key's token again. A host that has come to serve since is
    /// reason enough to.
    pub(super) fn is_put_off(&self, key_id: &KeyId, generations: u64) -> bool {
        self.put_off.get(key_id).is_some_and(|put_off| {
            Instant::now() < put_off.until && generations == put_off.generations
        })
    }

    /// Commits; `None` if somebody else was faster.
    pub(super) async fn commit(
        &self,
        change: Change,
    ) -> Result<Option<store::Revision>, store::Fault> {
        match self.store.commit(change).await {
            Ok(revision) => Ok(Some(revision)),
            Err(CommitFault::Stale { name }) => {
                debug!(%name, "changed by somebody else meanwhile");
                Ok(None)
            }
            Err(CommitFault::Store(fault)) => Err(fault),
        }
    }
}

fn say_jump(jump: Option<Jump>, held: Duration) {
    if let Some(jump) = jump {
        warn!(
            event = "clock_jumped",
            jump_s = jump.seconds(),
            held_s = seconds(held),
            "the time of day has jumped, or hsmac was off: no key is deleted until it has been steady for as long"
        );
    }
}

/// How often the log says that it cannot.
const SAID_AGAIN: Duration = Duration::from_mins(1);

/// How often it looks, if nothing wakes it before.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long one destruction or search may wait for its token.
pub(super) const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause after a destruction that a person must look at.
const ALARMED_PAUSE: Duration = Duration::from_secs(10 * 60);
