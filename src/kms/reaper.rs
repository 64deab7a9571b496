//! What takes objects out of tokens: keys whose deletion date has come, and what creations that
//! came to nothing may have left behind.
//!
//! Every step is committed before the next one begins, so that the work goes on where it was after
//! any end of the process: a key is *deleting* in the store before its object is touched, an intent
//! is closed before its object is searched. Nothing is destroyed that did not prove, to the host and
//! on the very handle, that it is the key; what does not is left alone, and an operator is told.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::{
    Kms,
    catalogue::Record,
    clock::{Clock, Jump, Written, clock_name},
    fault_point::fault_point,
    intent::{Intent, all_intents},
    now,
    records::{self, Life},
};
use crate::{
    model::{AccountId, Date, KeyId, Origin},
    store::{self, Change, CommitFault, Expect, Name, Store},
    token::{Destroyed, Fault},
};

/// How often it looks, if nothing wakes it before.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long one destruction or search may wait for its token.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a closed intent is searched for: a creation that hung may land in the token late.
const TOMBSTONE: Duration = Duration::from_secs(24 * 3600);
/// The pause after an intent's first search; each is six times as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// The pause after a destruction that a person must look at.
const ALARMED_PAUSE: Duration = Duration::from_secs(10 * 60);

/// `alarm/ACCOUNT/KEYID`: why the object of a key that is deleting is not destroyed.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Alarm {
    reason: String,
    since: Date,
}

/// Has the reaper look when a host has come to serve: it may see what no host saw before.
pub(super) fn wake_with_hosts(kms: &Kms) {
    for group in &kms.groups {
        let (mut generations, journal) = (group.generations(), Arc::clone(&kms.journal));
        tokio::spawn(async move {
            while generations.changed().await.is_ok() {
                journal.wake.notify_one();
            }
        });
    }
}

/// Looks until the operations are gone or the store is closed.
pub(super) async fn reap(kms: Weak<Kms>, store: Store) {
    let mut reaper: Option<Reaper> = None;
    loop {
        let Some(kms) = kms.upgrade() else { return };
        let journal = Arc::clone(&kms.journal);
        let round = async {
            let reaper = match &mut reaper {
                Some(reaper) => reaper,
                none => none.insert(Reaper::start(store.clone()).await?),
            };
            reaper.round(&kms).await
        };
        match round.await {
            Ok(()) => {}
            Err(store::Fault::Closed) => return,
            Err(fault) => warn!(%fault, "the reaper cannot read the store; it looks again"),
        }
        drop(kms);
        tokio::select! {
            () = journal.wake.notified() => {}
            () = sleep(INTERVAL) => {}
        }
    }
}

struct Reaper {
    store: Store,
    clock: Clock,
    began: Instant,
    searched: HashMap<Name, Searched>,
    /// What a person was told of a key, and when it was tried last.
    alarmed: HashMap<KeyId, (String, Instant)>,
    /// Records that cannot be read are told of once.
    unreadable: Vec<Name>,
    told_held: bool,
}

/// The last good search for what an intent may have left.
#[derive(Clone, Copy, Debug)]
struct Searched {
    at: Instant,
    pause: Duration,
    /// How many hosts of the token had started by then.
    generations: u64,
}

impl Reaper {
    async fn start(store: Store) -> Result<Self, store::Fault> {
        let written = store.read(&clock_name()).await?;
        let written = written.and_then(|record| match records::read::<Written>(&record) {
            Ok(written) => Some(written),
            Err(fault) => {
                error!(record = %record.name, %fault, "the time that was written down cannot be read");
                None
            }
        });
        let (clock, jump) = Clock::start(now(), Duration::ZERO, written);
        if written.is_some() {
            say_jump(jump, clock.held());
        }
        Ok(Self {
            store,
            clock,
            began: Instant::now(),
            searched: HashMap::new(),
            alarmed: HashMap::new(),
            unreadable: Vec::new(),
            told_held: false,
        })
    }

    async fn round(&mut self, kms: &Kms) -> Result<(), store::Fault> {
        let wall = now();
        let jump = self.clock.look(wall, self.began.elapsed());
        say_jump(jump, self.clock.held());
        if let Some(written) = self.clock.due(wall) {
            let change = Change::new().put(clock_name(), records::write(&written), Expect::Any);
            self.commit(change).await?;
        }
        self.settle_intents(kms, wall).await?;
        // Security: a clock that somebody set wrong, or a catalogue of yesterday, deletes nothing.
        let due = kms.catalogue.due(wall);
        let restored = kms.catalogue.is_held();
        if !restored && self.clock.held().is_zero() {
            self.told_held = false;
            for record in due {
                self.delete(kms, &record).await?;
            }
        } else if !due.is_empty() && !self.told_held {
            self.told_held = true;
            warn!(
                keys = due.len(), restored, clock_held_for = ?self.clock.held(),
                "keys are due to be deleted and are held"
            );
        }
        Ok(())
    }

    /// Closes what nobody works on, and searches for what it may have left.
    async fn settle_intents(&mut self, kms: &Kms, wall: Date) -> Result<(), store::Fault> {
        let mut last: Option<Name> = None;
        loop {
            let page = self.store.list(&all_intents(), last.as_ref(), PAGE).await?;
            last = page.last().map(|record| record.name.clone());
            let full = page.len() == PAGE;
            for record in page {
                match records::read::<Intent>(&record) {
                    Ok(intent) => self.settle(kms, wall, intent, &record).await?,
                    Err(fault) => {
                        if !self.unreadable.contains(&record.name) {
                            error!(record = %record.name, %fault, "an intent cannot be read: what it may have left in a token is not searched");
                            self.unreadable.push(record.name);
                        }
                    }
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    async fn settle(
        &mut self,
        kms: &Kms,
        wall: Date,
        mut intent: Intent,
        record: &store::Record,
    ) -> Result<(), store::Fault> {
        if kms.journal.is_live(&intent.key_id) {
            return Ok(());
        }
        let ours = intent.owner == kms.journal.instance;
        let name = record.name.clone();
        let mut revision = record.revision;
        let closed = match intent.closed {
            Some(closed) => closed,
            // A store that one process has at a time: whoever owned it is gone.
            None if !ours && !self.store.is_exclusive() && intent.lease > wall => return Ok(()),
            None if kms.catalogue.is_held() => {
                // Security: the backup saw the creation begin; that it ended well, and was told of,
                // may be younger than the backup. Such an object is left to a person.
                warn!(
                    key_id = %intent.key_id, token = %intent.locator.token,
                    label = intent.locator.label.as_deref().unwrap_or_default(),
                    "a creation that the restored backup had only begun: whether its object is an orphan nobody knows; it is left alone"
                );
                let forgotten = Change::new().delete(name, Expect::At(revision));
                return self.commit(forgotten).await.map(drop);
            }
            None => {
                // Before the search: from this commit on no key can come of it.
                intent.closed = Some(wall);
                let closing =
                    Change::new().put(name.clone(), records::write(&intent), Expect::At(revision));
                let Some(committed) = self.commit(closing).await? else {
                    return Ok(());
                };
                revision = committed;
                fault_point("settle:closed");
                wall
            }
        };
        let over = closed.plus(TOMBSTONE) <= wall && self.clock.held().is_zero();
        let Some(found) = self.search(kms, &intent, over).await else {
            return Ok(());
        };
        match found {
            Destroyed::Now => warn!(
                key_id = %intent.key_id, token = %intent.locator.token,
                "a creation that nobody was told of had left an object in the token: it is destroyed"
            ),
            Destroyed::WasGone => debug!(key_id = %intent.key_id, "a creation left nothing"),
        }
        fault_point("settle:searched");
        if over {
            self.searched.remove(&name);
            self.alarmed.remove(&intent.key_id);
            let done = Change::new().delete(name, Expect::At(revision));
            self.commit(done).await?;
        }
        Ok(())
    }

    /// Searches for an intent's object and destroys it, if it is time; `None` if nothing is known.
    async fn search(&mut self, kms: &Kms, intent: &Intent, over: bool) -> Option<Destroyed> {
        let key_id = &intent.key_id;
        let Some(group) = kms
            .groups
            .iter()
            .find(|group| group.name() == intent.locator.token)
        else {
            self.alarm(
                key_id,
                "the configuration has no such token any more",
                &intent.locator,
            );
            return None;
        };
        let generations = *group.generations().borrow();
        let pause = match self.searched.get(&intent.name()) {
            // A fresh host may see what no host saw before.
            Some(before) if generations == before.generations && !over => {
                if before.at.elapsed() < before.pause {
                    return None;
                }
                (before.pause * 6).min(LAST_PAUSE)
            }
            Some(_) | None => FIRST_PAUSE,
        };
        if self.is_paused(key_id) {
            return None;
        }
        // Security: no check value was seen, so none can be proved. The object goes by its CKA_ID of
        // 16 random bytes, which this intent drew and no other object was ever given, and its label;
        // the host refuses anything less, and several objects.
        let key = intent.token_key();
        match group.destroy_orphan(&key, Instant::now() + PATIENCE).await {
            Ok(found) => {
                let at = Instant::now();
                self.searched.insert(
                    intent.name(),
                    Searched {
                        at,
                        pause,
                        generations,
                    },
                );
                Some(found)
            }
            Err(Fault::Key(reason) | Fault::Unsupported(reason)) => {
                self.alarm(key_id, &reason, &intent.locator);
                None
            }
            Err(fault) => {
                debug!(%key_id, %fault, "an intent's object cannot be searched now");
                None
            }
        }
    }

    /// The end of a key: no way back from the first commit on.
    async fn delete(&mut self, kms: &Kms, record: &Record) -> Result<(), store::Fault> {
        let (account, key_id) = (&record.body.account, &record.body.key_id);
        let Some(mut revision) = record.source.revision() else {
            return Ok(());
        };
        if self.is_paused(key_id) {
            return Ok(());
        }
        let name = records::key_name(account, key_id);
        if record.body.life != Life::Deleting {
            fault_point("delete:before-mark");
            let body = records::Key {
                life: Life::Deleting,
                ..record.body.clone()
            };
            let mark = Change::new().put(name.clone(), records::write(&body), Expect::At(revision));
            // Somebody was faster: cancelled, perhaps.
            let Some(committed) = self.commit(mark).await? else {
                return Ok(());
            };
            kms.catalogue.reached(committed).await;
            kms.fence(record).await;
            revision = committed;
            info!(%key_id, "the key's deletion date has come: it is being deleted");
            fault_point("delete:marked");
        }
        match record.body.origin {
            // Made here: destroyed here.
            Origin::AwsKms | Origin::External => {
                if !self.destroy(kms, record).await? {
                    return Ok(());
                }
            }
            // Made by somebody else, and only mapped: the object stays.
            Origin::AwsCloudHsm => {}
        }
        fault_point("delete:destroyed");
        self.forget_key(kms, account, key_id, name, revision).await
    }

    /// Destroys a key's object; true if it is gone.
    async fn destroy(&mut self, kms: &Kms, record: &Record) -> Result<bool, store::Fault> {
        let (account, key_id) = (&record.body.account, &record.body.key_id);
        let group = kms.group(record);
        let outcome = match group {
            None => Err(Fault::Key(
                "the configuration has no such token any more".into(),
            )),
            Some(group) => {
                // Another one than served: that was closed for good.
                let key = Arc::new(record.body.token_key());
                group.destroy(&key, Instant::now() + PATIENCE).await
            }
        };
        match outcome {
            Ok(destroyed) => {
                info!(%key_id, ?destroyed, "the key's object is gone from the token");
                Ok(true)
            }
            Err(Fault::Key(reason) | Fault::Unsupported(reason)) => {
                if self.alarm(key_id, &reason, &record.body.locator) {
                    let since = now();
                    let alarm = records::write(&Alarm { reason, since });
                    let told = Change::new().put(alarm_name(account, key_id), alarm, Expect::Any);
                    self.commit(told).await?;
                }
                Ok(false)
            }
            Err(fault) => {
                debug!(%key_id, %fault, "the key's object cannot be destroyed now");
                Ok(false)
            }
        }
    }

    /// The key's record goes, and with it all that is kept of it: its aliases, as far as they still
    /// mean it.
    async fn forget_key(
        &mut self,
        kms: &Kms,
        account: &AccountId,
        key_id: &KeyId,
        name: Name,
        revision: store::Revision,
    ) -> Result<(), store::Fault> {
        let mut change = Change::new()
            .delete(name, Expect::At(revision))
            .delete(records::usage_name(account, key_id), Expect::Any)
            .delete(alarm_name(account, key_id), Expect::Any);
        for (alias, source) in kms.catalogue.aliases_of(account, key_id) {
            if let Some(revision) = source.revision() {
                let name = records::alias_name(account, &alias);
                change = change.delete(name, Expect::At(revision));
            }
        }
        if self.commit(change).await?.is_some() {
            self.alarmed.remove(key_id);
            info!(%key_id, "the key is deleted");
        }
        Ok(())
    }

    /// Tells a person, once for each reason; true if it was not known.
    fn alarm(&mut self, key_id: &KeyId, reason: &str, locator: &records::Locator) -> bool {
        let known = self
            .alarmed
            .get(key_id)
            .is_some_and(|(known, _)| known == reason);
        if !known {
            error!(
                %key_id, token = %locator.token,
                label = locator.label.as_deref().unwrap_or_default(), reason,
                "ALARM: an object that was to be destroyed is not the one that it should be, or cannot go; it is left alone"
            );
        }
        self.alarmed
            .insert(key_id.clone(), (reason.to_owned(), Instant::now()));
        !known
    }

    fn is_paused(&self, key_id: &KeyId) -> bool {
        self.alarmed
            .get(key_id)
            .is_some_and(|(_, at)| at.elapsed() < ALARMED_PAUSE)
    }

    /// Commits; `None` if somebody else was faster.
    async fn commit(&self, change: Change) -> Result<Option<store::Revision>, store::Fault> {
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

fn alarm_name(account: &AccountId, key_id: &KeyId) -> Name {
    Name::new(&format!("alarm/{account}/{key_id}"))
        .expect("accounts and key IDs are visible ASCII, and short")
}

fn say_jump(jump: Option<Jump>, held: Duration) {
    if let Some(jump) = jump {
        warn!(
            ?jump, held_for = ?held,
            "the time of day has jumped, or hsmac was off: no key is deleted until it has been steady for as long"
        );
    }
}

/// How many intents are listed at a time.
const PAGE: usize = 1000;
