//! The end of a key whose deletion date has come: its object, then its record.
//!
//! Each step is committed before the next begins. An object is destroyed only if it proves, on the very
//! handle, that it is the key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{debug, info};

use super::{
    Lifecycle,
    fault_point::fault_point,
    reaper::{Reaper, TOKEN_TIMEOUT},
};
use crate::{
    audit::Phase,
    kms::catalogue::{
        KeyRecord,
        stored::{self, StoredKey, StoredState},
    },
    model::{AccountId, Date, KeyId, Origin, seconds},
    store::{self, Change, Expect, Name},
    token::{Destroyed, Fault, Group},
};

/// `alarm/ACCOUNT/KEYID`: why the object of a key that is deleting is not destroyed.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Alarm {
    reason: String,
    since: Date,
}

impl Reaper {
    /// The end of a key: no way back from the first commit on.
    pub(super) async fn delete(
        &mut self,
        lifecycle: &Lifecycle,
        record: &KeyRecord,
    ) -> Result<(), store::Fault> {
        let (account, key_id) = (&record.body.account, &record.body.key_id);
        let Some(mut revision) = record.source.revision() else {
            return Ok(());
        };
        if self.is_paused(key_id)
            || self.is_put_off(key_id, generations_of(lifecycle.group(record).as_deref()))
        {
            return Ok(());
        }
        let name = stored::key_name(account, key_id);
        if record.body.state != StoredState::Deleting {
            if !record_deletion(lifecycle, record, Phase::Attempt).await {
                return Ok(());
            }
            fault_point("delete:before-mark");
            let body = StoredKey {
                state: StoredState::Deleting,
                ..record.body.clone()
            };
            let mark = Change::new().put(name.clone(), stored::write(&body), Expect::At(revision));
            // Somebody was faster: cancelled, perhaps.
            let Some(committed) = self.commit(mark).await? else {
                return Ok(());
            };
            lifecycle.catalogue.reached(committed).await;
            lifecycle.fence(record).await;
            revision = committed;
            info!(event = "deletion_begun", %key_id, "the key's deletion date has come: it is being deleted");
            fault_point("delete:marked");
        }
        match record.body.origin {
            // Made here: destroyed here.
            Origin::AwsKms | Origin::External => {
                if !self.destroy(lifecycle, record).await? {
                    return Ok(());
                }
            }
            // Made by somebody else, and only mapped: the object stays.
            Origin::AwsCloudHsm => {}
        }
        fault_point("delete:destroyed");
        if !self.delete_grants(record).await? {
            return Ok(());
        }
        let forgotten = self.forget_key(lifecycle, account, key_id, name, revision);
        if forgotten.await? {
            // The key is gone, whether or not that can be recorded.
            record_deletion(lifecycle, record, Phase::Outcome).await;
        }
        Ok(())
    }

    /// Destroys a key's object; true if it is gone.
    async fn destroy(
        &mut self,
        lifecycle: &Lifecycle,
        record: &KeyRecord,
    ) -> Result<bool, store::Fault> {
        let (account, key_id) = (&record.body.account, &record.body.key_id);
        let group = lifecycle.group(record);
        let generations = generations_of(group.as_deref());
        let outcome = match group {
            None => Err(Fault::Key(
                "the configuration has no such token any more".into(),
            )),
            Some(group) => {
                // Another one than served: that was closed for good.
                let key = Arc::new(record.body.token_key());
                let done = self.destroyed.entry(key_id.clone()).or_default();
                let until = (Instant::now() + TOKEN_TIMEOUT).into_std();
                group.destroy(&key, done, until).await
            }
        };
        match outcome {
            Ok(destroyed) => {
                self.alarmed.remove(key_id);
                info!(event = "object_destroyed", %key_id, was_there = destroyed == Destroyed::Now, "the key's object is gone from the token");
                Ok(true)
            }
            Err(Fault::Key(reason) | Fault::Unsupported(reason)) => {
                if self.alarm(key_id, &reason, &record.body.locator) {
                    let since = Date::now();
                    let alarm = stored::write(&Alarm { reason, since });
                    let told = Change::new().put(alarm_name(account, key_id), alarm, Expect::Any);
                    self.commit(told).await?;
                }
                Ok(false)
            }
            Err(fault) => {
                let pause = self.put_off(key_id, generations);
                debug!(%key_id, reason = %fault, pause_s = seconds(pause), "the key's object cannot be destroyed now");
                Ok(false)
            }
        }
    }

    /// The grants of a key go before its record does, some at a time: there may be 50,000. False: somebody
    /// else is at it. No grant comes any more, since a grant's record is committed only while the key's is
    /// as it was.
    async fn delete_grants(&mut self, record: &KeyRecord) -> Result<bool, store::Fault> {
        let mut after = None;
        loop {
            let (grants, more) =
                record
                    .grants
                    .page(None, after.as_ref(), GRANTS_IN_A_CHANGE, |_| true);
            let Some(last) = grants.last() else {
                return Ok(true);
            };
            after = Some(last.id);
            let gone = grants.iter().fold(Change::new(), |change, grant| {
                stored::without_grant(change, grant, Expect::Any)
            });
            if self.commit(gone).await?.is_none() {
                return Ok(false);
            }
            fault_point("delete:grants");
            if !more {
                return Ok(true);
            }
        }
    }

    /// The key's record goes, and with it all that is kept of it: its aliases, as far as they still
    /// mean it.
    async fn forget_key(
        &mut self,
        lifecycle: &Lifecycle,
        account: &AccountId,
        key_id: &KeyId,
        name: Name,
        revision: store::Revision,
    ) -> Result<bool, store::Fault> {
        let mut change = Change::new()
            .delete(name, Expect::At(revision))
            .delete(stored::usage_name(account, key_id), Expect::Any)
            .delete(alarm_name(account, key_id), Expect::Any);
        for (alias, source) in lifecycle.catalogue.aliases_of(account, key_id) {
            if let Some(revision) = source.revision() {
                let name = stored::alias_name(account, &alias);
                change = change.delete(name, Expect::At(revision));
            }
        }
        self.destroyed.remove(key_id);
        self.put_off.remove(key_id);
        let is_forgotten = self.commit(change).await?.is_some();
        if is_forgotten {
            self.alarmed.remove(key_id);
            info!(event = "key_deleted", %key_id, "the key is deleted");
        }
        Ok(is_forgotten)
    }
}

/// Records that hsmac deletes a key whose date has come; false: that cannot be recorded now, and must be.
async fn record_deletion(lifecycle: &Lifecycle, record: &KeyRecord, phase: Phase) -> bool {
    match &lifecycle.audit {
        None => true,
        Some(log) => log.own_act(phase, "DeleteKey", &record.arn).await.is_ok(),
    }
}

/// How many hosts of a key's token have come to serve.
fn generations_of(group: Option<&Group>) -> u64 {
    group.map_or(0, |group| *group.generations().borrow())
}

/// How many grants go in one change.
const GRANTS_IN_A_CHANGE: usize = 500;

fn alarm_name(account: &AccountId, key_id: &KeyId) -> Name {
    Name::new(&format!("alarm/{account}/{key_id}"))
        .expect("accounts and key IDs are visible ASCII, and short")
}
