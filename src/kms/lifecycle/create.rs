//! CreateKey's back half: the object in the token, and the record that names it.
//!
//! ```text
//!  intent ─▶ object in the token ─▶ record, and the intent's end: one commit ─▶ answer
//!     └───────────┴─ whatever ends here is closed and destroyed, never finished
//! ```
//!
//! The work goes on in a task of its own when the caller is gone; whether somebody still waits is
//! settled right before the commit, once, so that a key is either told of or destroyed.

use std::{
    collections::BTreeMap,
    {
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Instant,
    },
};

use tokio::{task::JoinHandle, time::timeout_at};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{
    Lifecycle,
    fault_point::fault_point,
    journal::{CreationGuard, Intent},
};
use crate::{
    audit,
    error::Error,
    kms::{
        catalogue::{
            KeyRecord,
            stored::{self, StoredKey, StoredState},
        },
        errors::{from_token, internal, timed_out},
    },
    model::{AccountId, Date, Description, KeyId, KeySpec, Origin, Tags},
    store::{Change, CommitFault, Expect, Revision, Store},
    token::{self, Group},
};

/// A key that may be made: every constraint holds, the caller is allowed, the account has room.
#[derive(Clone, Debug)]
pub(in crate::kms) struct NewKey {
    pub(in crate::kms) account: AccountId,
    pub(in crate::kms) spec: KeySpec,
    pub(in crate::kms) description: Description,
    pub(in crate::kms) tags: Tags,
    /// Empty: the default policy.
    pub(in crate::kms) policy: String,
    /// The immutable IDs of principals that the policy names, by ARN.
    pub(in crate::kms) policy_principals: BTreeMap<String, String>,
}

/// Makes the object, from given material if there is any, and commits the record; gives it as the
/// catalogue has it.
pub(in crate::kms) async fn create(
    lifecycle: &Lifecycle,
    new: NewKey,
    key_id: KeyId,
    material: Option<Zeroizing<Vec<u8>>>,
    until: Instant,
) -> Result<Arc<KeyRecord>, Error> {
    audit::attempt().await?;
    let account = new.account.clone();
    let creation = Creation::new(lifecycle, new, key_id.clone(), material)?;
    let caller = CallerGuard(Arc::default());
    let waits = CallerGuard(Arc::clone(&caller.0));
    let mut work: JoinHandle<_> =
        tokio::spawn(async move { creation.carry_out(waits, until).await });
    let done = match timeout_at(until.into(), &mut work).await {
        Ok(done) => done,
        Err(_) if caller.take() => return Err(timed_out()),
        // The commit has begun: its answer is near, and whoever has it must hear it.
        Err(_) => work.await,
    };
    let revision = done.map_err(internal)??;
    lifecycle.catalogue.reached(revision).await;
    lifecycle
        .catalogue
        .record(&account, &key_id)
        .ok_or_else(|| internal("a key that was made just now is gone"))
}

/// Whether the caller still waits. Taken once: by the caller who leaves, or by the commit.
struct CallerGuard(Arc<AtomicBool>);

impl CallerGuard {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }
}

/// A caller that is dropped has left.
impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// All that a creation needs when its caller is gone.
pub(in crate::kms) struct Creation {
    store: Store,
    group: Arc<Group>,
    intent: Intent,
    /// Until the end of the creation, the commit included, the reaper leaves the intent alone.
    _in_progress: CreationGuard,
    new: NewKey,
    given: bool,
    material: Option<Zeroizing<Vec<u8>>>,
}

impl Creation {
    pub(in crate::kms) fn new(
        lifecycle: &Lifecycle,
        new: NewKey,
        key_id: KeyId,
        material: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Self, Error> {
        let group = lifecycle.new_keys_group()?;
        // A token that is known to be away leaves no intent behind.
        group.available().map_err(from_token)?;
        let intent = Intent::new(
            &lifecycle.journal,
            key_id,
            new.account.clone(),
            new.spec,
            group.name().to_owned(),
        );
        Ok(Self {
            store: lifecycle.store.clone(),
            group,
            _in_progress: lifecycle.journal.begin(&intent.key_id),
            intent,
            new,
            given: material.is_some(),
            material,
        })
    }

    async fn carry_out(mut self, waits: CallerGuard, until: Instant) -> Result<Revision, Error> {
        let (intended, facts) = self.make(until).await?;
        // Security: a key that its caller will not be told of is destroyed, not kept: nobody holds
        // its ID. From here on the caller waits for the commit.
        if !waits.take() {
            info!(event = "creation_abandoned", key_id = %self.intent.key_id, "the caller did not wait for the key: it is destroyed");
            return Err(timed_out());
        }
        fault_point("create:before-commit");
        let body = self.body(facts);
        let name = stored::key_name(&body.account, &body.key_id);
        let value = stored::write(&body);
        let change = Change::new()
            .put(name.clone(), value.clone(), Expect::Absent)
            .delete(self.intent.name(), Expect::At(intended));
        let revision = match self.store.commit(change).await {
            Ok(revision) => revision,
            Err(CommitFault::Stale { name }) => {
                return Err(internal(format!("{name} changed during a creation")));
            }
            // Whether it was committed is what the store says: a committed record wins.
            Err(CommitFault::Store(fault)) => match self.store.read(&name).await {
                Ok(Some(there)) if there.value == value => there.revision,
                Ok(_) | Err(_) => return Err(internal(fault)),
            },
        };
        fault_point("create:after-commit");
        Ok(revision)
    }

    /// Commits the intent and makes the object.
    pub(in crate::kms) async fn make(
        &mut self,
        until: Instant,
    ) -> Result<(Revision, token::KeyFacts), Error> {
        fault_point("create:before-intent");
        let name = self.intent.name();
        let put = Change::new().put(name.clone(), stored::write(&self.intent), Expect::Absent);
        let intended = self.store.commit(put).await.map_err(internal)?;
        fault_point("create:after-intent");
        let key = self.intent.token_key();
        let made = match self.material.take() {
            None => self.group.generate(&key, until).await,
            Some(material) => self.group.import(&key, material, until).await,
        };
        fault_point("create:after-object");
        match made {
            Ok(facts) => Ok((intended, facts)),
            Err(fault) => {
                warn!(event = "creation_failed", key_id = %self.intent.key_id, token = %self.intent.locator.token, reason = %fault, "no key was made");
                if fault.is_settled() {
                    // The token has said that nothing was made.
                    let over = Change::new().delete(name, Expect::At(intended));
                    if let Err(error) = self.store.commit(over).await {
                        warn!(event = "creation_unsettled", key_id = %self.intent.key_id, reason = %error, "what was written down of a creation that came to nothing could not be removed; it is tried again");
                    }
                }
                Err(from_token(fault))
            }
        }
    }

    fn body(&mut self, facts: token::KeyFacts) -> StoredKey {
        let origin = if self.given {
            Origin::External
        } else {
            Origin::AwsKms
        };
        StoredKey {
            key_id: self.intent.key_id.clone(),
            account: self.new.account.clone(),
            spec: self.new.spec,
            origin,
            state: StoredState::Enabled,
            description: std::mem::take(&mut self.new.description),
            created: Some(Date::now()),
            tags: std::mem::take(&mut self.new.tags),
            policy: std::mem::take(&mut self.new.policy),
            policy_principals: std::mem::take(&mut self.new.policy_principals),
            check_value: Some(facts.check_value),
            locator: self.intent.locator.clone(),
            epoch: 0,
        }
    }
}
