//! [`Kms`]: what all operations share. The operations themselves are in `operations/`, a file for each
//! chapter of the API.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tracing::{error, info};

use crate::{
    audit,
    error::{Error, Kind, Violation},
    kms::{
        authorization::{
            Authorized, Enforce, RequestContext, Resource, Subject, could_put_policy, require,
        },
        catalogue::{Catalogue, Declared, KeyRecord, Snapshot, stored},
        errors::{internal, wrong_state},
        groups::{GroupChange, Groups, TokenChanges, TokenGroups},
        lifecycle::{Decided, Lifecycle, may_change, tracking_start},
        metrics::Metrics,
        principals::Principals,
        serving::Serving,
        settings::{DeclaredKey, DeclaredRights, Settings},
    },
    model::{AccountId, Caller, Date, Operation, is_reserved, policy::Policy},
    store::{self, Change, Changes, Store},
    telemetry::StageTimer,
    token::{Group, GroupSnapshot, TokenKey},
};

/// The keys, and the tokens that they are in.
pub struct Kms {
    pub(super) catalogue: Arc<Catalogue>,
    /// None: declared keys only, which nothing changes.
    lifecycle: Option<Arc<Lifecycle>>,
    /// Since when last uses are recorded.
    pub(super) tracking_start: Date,
    principals: ArcSwap<Principals>,
    groups: Arc<Groups>,
    /// Told when declared keys, or the groups that may have them, are others than before.
    pub(super) declared_anew: Arc<Notify>,
    pub(super) metrics: Metrics,
    audit: OnceLock<Arc<audit::Log>>,
}

/// Why the operations cannot begin over a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// What is declared contradicts itself, or what is stored.
    #[error("{0}")]
    Contradiction(String),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Fault),
}

impl Kms {
    /// Maps declared keys to tokens, without a store; each group of tokens, or token without a group,
    /// stands under its name in the configuration.
    ///
    /// # Errors
    /// A sentence on the first declaration that contradicts another or names no token.
    pub fn new(
        settings: Settings,
        groups: BTreeMap<String, Arc<Group>>,
    ) -> Result<Arc<Self>, String> {
        let (names, groups): (Vec<_>, _) = groups.into_iter().unzip();
        Self::with_groups(settings, &names, groups).map(Arc::new)
    }

    /// Declared keys as [`Kms::new`], and besides them all that the store has, now and as it
    /// changes. Calls are recorded in `audit`, and what hsmac does by itself.
    ///
    /// # Errors
    /// [`OpenFault::Contradiction`]: a declared key or alias is in the store too, or a sentence of
    /// [`Kms::new`]; [`OpenFault::Store`].
    pub async fn open(
        settings: Settings,
        groups: BTreeMap<String, Arc<Group>>,
        store: Store,
        audit: Option<Arc<audit::Log>>,
    ) -> Result<Arc<Self>, OpenFault> {
        let (names, groups): (Vec<_>, _) = groups.into_iter().unzip();
        let kms = Self::with_groups(settings, &names, groups).map_err(OpenFault::Contradiction)?;
        if let Some(log) = audit {
            kms.record_to(log);
        }
        kms.over_store(store).await
    }

    /// Puts what the configuration says of keys and rights now in the place of what it said before. The next
    /// call meets it; calls that were admitted by another policy of their key, or while it was declared and
    /// enabled, or as another object, and are not with a token yet, are refused when this returns. Gives a
    /// sentence on each key or alias that is not as declared: the store has it.
    ///
    /// `tokens`: the groups that there are from now on, if they are others. The keys of one that is gone, stored
    /// ones too, are closed and unavailable; it takes no calls any more, and is the caller's to end.
    pub async fn declare(
        &self,
        keys: &[DeclaredKey],
        rights: DeclaredRights,
        tokens: Option<TokenGroups>,
    ) -> Vec<String> {
        let DeclaredRights {
            of_files: _,
            principals,
            keys: policies,
        } = rights;
        self.principals.store(principals);
        let change = tokens.map(|tokens| self.groups.change(tokens));
        let names = change.as_ref().map(|change| change.names.clone());
        let Declared {
            retired,
            faults,
            added,
            changed,
            removed,
            without_group,
        } = self.catalogue.declare(keys, policies, names);
        if let Some(change) = change {
            self.finish(&change, &without_group);
        }
        for (group, retirement) in retired {
            if let Some(group) = self.groups.get(group) {
                retirement.carry_out(&group).await;
            }
        }
        if added + changed + removed > 0 {
            info!(
                event = "keys_declared",
                added, changed, removed, "declared keys are what the configuration says now"
            );
            self.declared_anew.notify_one();
        }
        faults
    }

    /// Groups that are gone take no calls any more; those that came are followed.
    fn finish(&self, change: &GroupChange, without_group: &[(usize, Arc<TokenKey>)]) {
        for (place, group) in &change.gone {
            let keys = without_group.iter().filter(|(of, _)| of == place);
            let keys: Vec<_> = keys.map(|(_, key)| Arc::clone(key)).collect();
            group.close_all(&keys);
            let left = self.catalogue.count_without_group(group.name());
            if left > 0 {
                error!(
                    event = "keys_without_token",
                    token = group.name(),
                    keys = left,
                    "the configuration no longer has the token or group of these keys: they are unavailable until it is there again"
                );
            }
        }
        self.groups.remove(&change.gone);
        if let Some(lifecycle) = &self.lifecycle {
            for group in &change.added {
                lifecycle.follow_hosts(group);
            }
        }
        self.declared_anew.notify_one();
    }

    /// How often a client asked for the MAC of a message that hsmac keeps for itself.
    pub fn reserved_messages(&self) -> u64 {
        self.metrics.reserved_messages.get()
    }

    /// The groups of tokens at this moment.
    pub(super) fn group_snapshots(&self) -> Vec<GroupSnapshot> {
        let groups = self.groups.all();
        groups.iter().map(|group| group.snapshot()).collect()
    }

    /// Has every call recorded from now on; a second log is not taken.
    pub fn record_to(&self, log: Arc<audit::Log>) {
        let _ = self.audit.set(log);
    }

    /// Where calls are recorded, if they are.
    pub fn audit(&self) -> Option<&Arc<audit::Log>> {
        self.audit.get()
    }

    /// Whether each token serves, now and at each change.
    pub fn serving(&self) -> Vec<Serving> {
        let groups = self.groups.all();
        groups
            .iter()
            .flat_map(|group| group.states())
            .map(|(token, state)| Serving::new(&token, state))
            .collect()
    }

    /// Tells when the tokens are others, or one is served with other settings.
    pub fn token_changes(&self) -> TokenChanges {
        self.groups.changes()
    }

    /// Writes what is only in memory yet: the keys' last uses. For the end, before the store closes.
    pub async fn end(&self) {
        if let Some(lifecycle) = &self.lifecycle {
            lifecycle.stop().await;
        }
    }

    pub(super) fn with_groups(
        settings: Settings,
        names: &[String],
        groups: Vec<Arc<Group>>,
    ) -> Result<Self, String> {
        let groups = Groups::new(names, groups, settings.new_keys.as_deref())?;
        let principals = settings.rights.principals.clone();
        Ok(Self {
            catalogue: Arc::new(Catalogue::new(settings, names)?),
            lifecycle: None,
            tracking_start: Date::now(),
            principals: ArcSwap::new(principals),
            groups: Arc::new(groups),
            declared_anew: Arc::default(),
            metrics: Metrics::default(),
            audit: OnceLock::new(),
        })
    }

    pub(super) async fn over_store(mut self, store: Store) -> Result<Arc<Self>, OpenFault> {
        let changes = self.load(&store).await?;
        self.tracking_start = tracking_start(&store).await?;
        self.lifecycle = Some(Lifecycle::start(
            Arc::clone(&self.catalogue),
            store,
            Arc::clone(&self.groups),
            self.audit.get().cloned(),
            changes,
        ));
        Ok(Arc::new(self))
    }

    /// Takes over all that the store has; gives what changes from then on.
    pub(super) async fn load(&self, store: &Store) -> Result<Changes, OpenFault> {
        let snapshot = Snapshot::of(store).await?;
        if let Some(contradiction) = snapshot.contradiction(&self.catalogue) {
            return Err(OpenFault::Contradiction(contradiction));
        }
        Ok(self.catalogue.replace(snapshot).0)
    }

    /// What a request may use, once every right that its operation needs was asked for.
    ///
    /// # Errors
    /// Those of [`require`].
    pub(super) fn require(
        &self,
        caller: &Caller,
        operation: Operation,
        subject: Subject<'_>,
        context: RequestContext<'_>,
    ) -> Result<Authorized, Error> {
        audit::admit(caller, operation)?;
        match subject {
            Subject::Alias { name, .. } => audit::note_alias(name.as_str()),
            Subject::Grant { grant_id, .. } => audit::note_grant(grant_id),
            Subject::NewKey(arn) => audit::note_key(&arn.into()),
            Subject::Account | Subject::Key(_) | Subject::KeyOfAccount(_) => {}
        }
        if let Some(algorithm) = context.mac_algorithm {
            audit::note_algorithm(algorithm);
        }
        let principals = self.principals.load();
        let mut enforce = Enforce {
            catalogue: &self.catalogue,
            principals: &principals,
            caller,
        };
        let stage = StageTimer::begin();
        let authorized = require(
            &mut enforce,
            &self.catalogue,
            caller,
            operation,
            subject,
            context,
        );
        stage.end("authorize");
        authorized
    }

    /// The key of a request whose constraints hold: resolved, and the caller allowed to use it.
    ///
    /// # Errors
    /// Those of [`require`].
    pub(super) fn require_key(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
        context: RequestContext<'_>,
    ) -> Result<Arc<KeyRecord>, Error> {
        let authorized = self.require(caller, operation, Subject::Key(key_id), context)?;
        authorized
            .key
            .ok_or_else(|| internal("a key was authorised and not found"))
    }

    /// Whether a policy lets its writer write another one later.
    pub(super) fn could_put_policy(
        &self,
        caller: &Caller,
        subject: (Resource<'_>, &AccountId),
        policy: &Policy,
        context: &RequestContext<'_>,
    ) -> bool {
        let principals = self.principals.load();
        could_put_policy(
            (&self.catalogue, &principals),
            caller,
            subject,
            policy,
            context,
        )
    }

    /// The policies of principals, as they are now.
    pub(super) fn principals(&self) -> Arc<Principals> {
        self.principals.load_full()
    }

    /// The tokens of a key; none if the configuration no longer has them.
    pub(super) fn group(&self, record: &KeyRecord) -> Option<Arc<Group>> {
        self.groups.get(record.group?)
    }

    /// Whether a reload has taken the group of this record away since the record was looked up.
    pub(super) fn is_outdated(&self, record: &KeyRecord) -> bool {
        record.group.is_some_and(|group| self.groups.is_gone(group))
    }

    /// How many hosts of each group have come to serve, now and at each change.
    pub(super) fn hosts_started(&self) -> Vec<watch::Receiver<u64>> {
        let groups = self.groups.all();
        groups.iter().map(|group| group.generations()).collect()
    }

    /// The tokens that make random bytes; none if there are several and none is chosen.
    pub(super) fn random_group(&self) -> Option<Arc<Group>> {
        self.groups.new_keys()
    }

    /// What changes keys, without which nothing can be changed.
    ///
    /// # Errors
    /// [`Kind::UnsupportedOperation`]
    pub(super) fn lifecycle(&self) -> Result<&Arc<Lifecycle>, Error> {
        self.lifecycle.as_ref().ok_or_else(|| {
            Error::new(
                Kind::UnsupportedOperation,
                "This service has no store: its keys are declared in the configuration, and nothing of them can be changed by a request.",
            )
        })
    }

    /// Changes a key's record: resolved, the caller allowed, its state fit for the operation. Gives
    /// the record as it was before.
    ///
    /// # Errors
    /// Those of [`require`], of [`check_state`], of `edit`, and of [`Lifecycle::change`].
    pub(super) async fn change_key(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
        context: RequestContext<'_>,
        until: Instant,
        mut edit: impl FnMut(&KeyRecord, &mut stored::StoredKey) -> Result<(), Error>,
    ) -> Result<Arc<KeyRecord>, Error> {
        let lifecycle = self.lifecycle()?;
        let changed = lifecycle.change(until, || {
            let record = self.require_key(caller, operation, key_id, context)?;
            let expect = may_change(&record)?;
            check_state(operation, &record)?;
            let mut body = record.body.clone();
            edit(&record, &mut body)?;
            if body == record.body {
                return Ok(Decided::Done(record));
            }
            let name = stored::key_name(&body.account, &body.key_id);
            let change = Change::new().put(name, stored::write(&body), expect);
            Ok(Decided::Commit(change, record))
        });
        changed.await
    }

    /// The constraint that no client's message is one that hsmac signs for itself.
    pub(super) fn refuse_reserved(&self, message: Option<&[u8]>, broken: &mut Vec<Violation>) {
        if message.is_some_and(is_reserved) {
            self.metrics.reserved_messages.increment();
            tracing::debug!(
                count = self.reserved_messages(),
                "a client's message begins with hsmac's reserved prefix"
            );
            broken.push(Violation::new(
                "message",
                "Member must not begin with the 16 bytes that hsmac keeps for its own messages",
            ));
        }
    }
}

/// KMS's table of key states.
///
/// # Errors
/// [`Kind::Disabled`] or [`Kind::InvalidState`].
pub(super) fn check_state(operation: Operation, record: &KeyRecord) -> Result<(), Error> {
    operation
        .check(record.state())
        .map_err(|refusal| wrong_state(refusal, &record.arn))
}
