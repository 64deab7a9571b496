//! Orphans: objects that creations which came to nothing may have left in a token.
//!
//! An intent that nobody works on any more is closed first; from that commit on no key can come of it.
//! Then its object is searched, again and again for a day, since a creation that hung may land late.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{
    Lifecycle,
    fault_point::fault_point,
    journal::{Intent, all_intents},
    reaper::{LastSearch, Reaper, TOKEN_TIMEOUT},
};
use crate::{
    kms::catalogue::stored,
    model::Date,
    store::{self, Change, Expect, Name},
    token::{Destroyed, Fault},
};

impl Reaper {
    /// Closes what nobody works on, and searches for what it may have left.
    pub(super) async fn settle_intents(
        &mut self,
        lifecycle: &Lifecycle,
        wall: Date,
    ) -> Result<(), store::Fault> {
        let mut last: Option<Name> = None;
        loop {
            let page = self.store.list(&all_intents(), last.as_ref(), PAGE).await?;
            last = page.last().map(|record| record.name.clone());
            let full = page.len() == PAGE;
            for record in page {
                match stored::read::<Intent>(&record) {
                    Ok(intent) => self.settle(lifecycle, wall, intent, &record).await?,
                    Err(fault) => {
                        if !self.unreadable.contains(&record.name) {
                            error!(event = "record_unreadable", record = %record.name, reason = %fault, "what was written down of a creation cannot be read: what it may have left in a token is not searched");
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
        lifecycle: &Lifecycle,
        wall: Date,
        mut intent: Intent,
        record: &store::Record,
    ) -> Result<(), store::Fault> {
        if lifecycle.journal.is_in_progress(&intent.key_id) {
            return Ok(());
        }
        let ours = intent.owner == lifecycle.journal.instance;
        let name = record.name.clone();
        let mut revision = record.revision;
        let closed = match intent.closed {
            Some(closed) => closed,
            // A store that one process has at a time: whoever owned it is gone.
            None if !ours && !self.store.is_exclusive() && intent.lease > wall => return Ok(()),
            None if lifecycle.catalogue.is_held() => {
                // Security: the backup saw the creation begin; that it ended well, and was told of,
                // may be younger than the backup. Such an object is left to a person.
                warn!(
                    event = "creation_left_alone", key_id = %intent.key_id, token = %intent.locator.token,
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
                    Change::new().put(name.clone(), stored::write(&intent), Expect::At(revision));
                let Some(committed) = self.commit(closing).await? else {
                    return Ok(());
                };
                revision = committed;
                fault_point("settle:closed");
                wall
            }
        };
        let over = closed.plus(TOMBSTONE) <= wall && self.clock.held().is_zero();
        let Some(found) = self.search(lifecycle, &intent, over).await else {
            return Ok(());
        };
        match found {
            Destroyed::Now => warn!(
                event = "orphan_destroyed", key_id = %intent.key_id, token = %intent.locator.token,
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
    async fn search(
        &mut self,
        lifecycle: &Lifecycle,
        intent: &Intent,
        over: bool,
    ) -> Option<Destroyed> {
        let key_id = &intent.key_id;
        let Some(group) = lifecycle
            .groups
            .all()
            .into_iter()
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
        match group
            .destroy_orphan(
                &key,
                &mut BTreeSet::new(),
                (Instant::now() + TOKEN_TIMEOUT).into_std(),
            )
            .await
        {
            Ok(found) => {
                self.alarmed.remove(key_id);
                let at = Instant::now();
                self.searched.insert(
                    intent.name(),
                    LastSearch {
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
                debug!(%key_id, reason = %fault, "what a creation may have left cannot be searched now");
                None
            }
        }
    }
}

/// How long a closed intent is searched for: a creation that hung may land in the token late.
const TOMBSTONE: Duration = Duration::from_secs(24 * 3600);

/// The pause after an intent's first search; each is six times as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// How many intents are listed at a time.
const PAGE: usize = 1000;
