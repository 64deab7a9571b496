//! What the store tells, brought into memory.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tracing::{error, info, warn};

use super::{Account, Alias, Catalogue, Entry, Keys, Record, Source};
use crate::{
    kms::{
        records::{self, Life, Named},
        rights,
        usage::Usage,
    },
    model::{AliasName, key_arn, policy::Policy},
    store::{self, Changes, Committed, Name, Revision, Store, WatchFault},
    token,
};

/// Keys that serve no longer: hosts must forget them.
pub(in crate::kms) type Retired = Vec<(usize, Arc<token::Key>)>;

/// Everything that the store has, at one revision, and what comes after it.
pub(in crate::kms) struct Snapshot {
    records: BTreeMap<Name, store::Record>,
    at: Revision,
    changes: Changes,
}

impl Snapshot {
    /// Lists the store, and watches it from there on.
    ///
    /// # Errors
    /// [`store::Fault`]
    pub(in crate::kms) async fn of(store: &Store) -> Result<Self, store::Fault> {
        loop {
            match Self::once(store).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(WatchFault::TooOld) => {}
                Err(WatchFault::Store(fault)) => return Err(fault),
            }
        }
    }

    async fn once(store: &Store) -> Result<Self, WatchFault> {
        let began = store.revision().await?;
        let mut changes = store.watch(began).await?;
        let mut records = BTreeMap::new();
        let mut last: Option<Name> = None;
        loop {
            let page = store
                .list(&records::everything(), last.as_ref(), PAGE)
                .await?;
            last = page.last().map(|record| record.name.clone());
            let full = page.len() == PAGE;
            records.extend(page.into_iter().map(|record| (record.name.clone(), record)));
            if !full {
                break;
            }
        }
        // Pages may have seen several revisions; what was changed meanwhile makes them one.
        let ended = store.revision().await?;
        let mut at = began;
        while at < ended {
            let committed = changes.next().await?;
            at = committed.revision;
            for record in committed.puts {
                let newer = records
                    .get(&record.name)
                    .is_none_or(|known: &store::Record| known.revision < record.revision);
                if newer {
                    records.insert(record.name.clone(), record);
                }
            }
            for name in committed.deletes {
                if records.get(&name).is_some_and(|known| known.revision < at) {
                    records.remove(&name);
                }
            }
        }
        Ok(Self {
            records,
            at,
            changes,
        })
    }

    /// The first contradiction between what is declared and what is stored.
    pub(in crate::kms) fn contradiction(&self, catalogue: &Catalogue) -> Option<String> {
        let keys = catalogue.read();
        self.records
            .values()
            .find_map(|record| contradiction(&keys, record))
    }
}

impl Catalogue {
    /// Takes over a snapshot, whatever was there before; gives the changes that follow it.
    pub(in crate::kms) fn replace(&self, snapshot: Snapshot) -> (Changes, Retired) {
        let Snapshot {
            records,
            at,
            changes,
        } = snapshot;
        let mut retired = Vec::new();
        let mut keys = self.write();
        let there: HashSet<Named> = records.keys().map(Named::of).collect();
        for gone in keys.stored() {
            if !there.contains(&gone) {
                self.remove(&mut keys, &gone, &mut retired);
            }
        }
        self.hold(&mut keys, there.contains(&Named::Restored));
        for record in records.values() {
            self.put(&mut keys, record, &mut retired);
        }
        drop(keys);
        self.seen.send_replace(at);
        (changes, retired)
    }

    /// Takes over one change.
    pub(in crate::kms) fn apply(&self, committed: &Committed) -> Retired {
        let mut retired = Vec::new();
        let mut keys = self.write();
        for name in &committed.deletes {
            self.remove(&mut keys, &Named::of(name), &mut retired);
        }
        for record in &committed.puts {
            if Named::of(&record.name) == Named::Restored {
                self.hold(&mut keys, true);
            }
            self.put(&mut keys, record, &mut retired);
        }
        drop(keys);
        self.seen.send_replace(committed.revision);
        retired
    }

    fn put(&self, keys: &mut Keys, record: &store::Record, retired: &mut Retired) {
        let named = Named::of(&record.name);
        if let Some(fault) = contradiction(keys, record) {
            error!(record = %record.name, "{fault}; the declaration counts");
            return;
        }
        let held = keys.held;
        match named {
            Named::Key(account, key_id) => {
                let own = keys.accounts.entry(account.clone()).or_default();
                if own.key_revision(&key_id) == Some(record.revision) {
                    return;
                }
                let before = own.record(&key_id).cloned();
                let read = records::read_key(record, &account, &key_id)
                    .map(|body| self.record_of(body, record.revision, before.as_deref(), held));
                match read {
                    Ok(record) if record.body.life == Life::Deleting => {
                        own.put_deleting(&self.region, &key_id, Arc::new(record));
                    }
                    Ok(record) => {
                        own.put_key(&self.region, &key_id, Entry::Key(Arc::new(record)));
                    }
                    Err(fault) => {
                        error!(
                            record = %record.name, %fault,
                            "a key's record cannot be read: the key is unavailable"
                        );
                        let entry = Entry::Unreadable(record.revision);
                        own.put_key(&self.region, &key_id, entry);
                    }
                }
                retire(before.as_deref(), own.record(&key_id), retired);
            }
            Named::Alias(account, name) => {
                let alias = read_alias(record);
                let own = keys.accounts.entry(account.clone()).or_default();
                own.put_alias(&self.region, &account, &name, alias);
            }
            Named::Usage(account, key_id) => {
                let known = keys
                    .accounts
                    .get(&account)
                    .and_then(|own| own.record(&key_id));
                match (known, records::read(record)) {
                    (Some(known), Ok(usage)) => known.usage.restore(usage),
                    (None, _) => {}
                    (Some(_), Err(fault)) => {
                        warn!(record = %record.name, %fault, "a key's last use cannot be read");
                    }
                }
            }
            Named::Restored => {}
            Named::Other => {
                if Named::is_lost(&record.name) {
                    error!(record = %record.name, "a record whose name says nothing is passed over");
                }
            }
        }
    }

    fn remove(&self, keys: &mut Keys, gone: &Named, retired: &mut Retired) {
        match gone {
            Named::Key(account, key_id) => {
                if let Some(own) = keys.accounts.get_mut(account)
                    && !own.is_declared(key_id)
                {
                    let before = own.record(key_id).cloned();
                    own.remove_key(&self.region, key_id);
                    retire(before.as_deref(), None, retired);
                }
            }
            Named::Alias(account, name) => {
                if let Some(own) = keys.accounts.get_mut(account)
                    && !is_declared_alias(own, name)
                {
                    own.remove_alias(&self.region, account, name);
                }
            }
            Named::Restored => self.hold(keys, false),
            Named::Usage(..) | Named::Other => {}
        }
    }

    /// After a restore every stored key counts as disabled until the mark is gone.
    fn hold(&self, keys: &mut Keys, held: bool) {
        if keys.held == held {
            return;
        }
        keys.held = held;
        if held {
            warn!(
                "the store was restored from a backup: every stored key counts as disabled and no key is deleted until `hsmac store confirm`"
            );
        } else {
            info!("the restored store is confirmed: keys are what their records say");
        }
        for own in keys.accounts.values_mut() {
            let stored: Vec<Arc<Record>> = own
                .keys()
                .values()
                .filter_map(|entry| match entry {
                    Entry::Key(record) if record.source != Source::Declared => Some(record.clone()),
                    Entry::Key(_) | Entry::Unreadable(_) => None,
                })
                .collect();
            for record in stored {
                let changed = Record {
                    body: record.body.clone(),
                    source: record.source,
                    arn: record.arn.clone(),
                    policy: record.policy.clone(),
                    unreadable_policy: record.unreadable_policy.clone(),
                    group: record.group,
                    key: record.key.clone(),
                    usage: record.usage.clone(),
                    held,
                };
                own.put_key(
                    &self.region,
                    &record.body.key_id,
                    Entry::Key(Arc::new(changed)),
                );
            }
        }
    }

    fn record_of(
        &self,
        body: records::Key,
        revision: Revision,
        before: Option<&Record>,
        held: bool,
    ) -> Record {
        let unchanged = before.filter(|before| before.body.policy == body.policy);
        let (policy, unreadable_policy) = match unchanged {
            Some(before) => (before.policy.clone(), before.unreadable_policy.clone()),
            None => compiled(&body),
        };
        let name = &body.locator.token;
        let group = self.groups.iter().position(|known| known == name);
        if group.is_none() {
            error!(
                key_id = %body.key_id, token = name,
                "the configuration has no such token or group: the key is unavailable"
            );
        }
        let same = before.filter(|before| before.body.is_same_object(&body));
        Record {
            source: Source::Stored(revision),
            policy,
            unreadable_policy,
            arn: before.map_or_else(
                || key_arn(&self.region, &body.account, &body.key_id).into(),
                |before| before.arn.clone(),
            ),
            group,
            key: same.map_or_else(|| Arc::new(body.token_key()), |same| same.key.clone()),
            usage: before.map_or_else(Arc::<Usage>::default, |before| before.usage.clone()),
            held,
            body,
        }
    }
}

impl Keys {
    /// The names of everything that came from the store.
    fn stored(&self) -> Vec<Named> {
        let mut named = Vec::new();
        for (account, own) in &self.accounts {
            let ids = own.keys().keys().chain(own.deleting().keys());
            let ids = ids.filter(|id| !own.is_declared(id));
            named.extend(ids.map(|id| Named::Key(account.clone(), id.clone())));
            let aliases = own
                .aliases()
                .keys()
                .filter(|name| !is_declared_alias(own, name));
            named.extend(aliases.map(|name| Named::Alias(account.clone(), name.clone())));
        }
        named
    }
}

/// The policy that is in force; if the key's own cannot be read, why, and what stands for it.
fn compiled(key: &records::Key) -> (Arc<Policy>, Option<Arc<str>>) {
    match rights::compiled(&key.policy, &key.account) {
        Ok(policy) => (Arc::new(policy), None),
        Err(fault) => {
            error!(
                key_id = %key.key_id, fault,
                "a key's policy cannot be read: the key is unavailable until its account's root has put another one"
            );
            let policy = rights::for_repair(&key.account);
            (Arc::new(policy), Some(fault.into()))
        }
    }
}

fn read_alias(record: &store::Record) -> Alias {
    let source = Source::Stored(record.revision);
    match records::read::<records::Alias>(record) {
        Ok(alias) => Alias {
            target: Some(alias.target),
            source,
            created: Some(alias.created),
            updated: Some(alias.updated),
        },
        Err(fault) => {
            error!(record = %record.name, %fault, "an alias's record cannot be read: it finds no key");
            Alias {
                target: None,
                source,
                created: None,
                updated: None,
            }
        }
    }
}

/// A [`token::Key`] that serves no longer, or that another one stands for now, is retired.
fn retire(before: Option<&Record>, after: Option<&Arc<Record>>, retired: &mut Retired) {
    let Some((before, group)) = before.and_then(|before| Some((before, before.group?))) else {
        return;
    };
    let replaced = after.is_none_or(|after| !Arc::ptr_eq(&after.key, &before.key));
    let serves = |record: &Record| record.body.life == Life::Enabled;
    let stopped = serves(before) && !after.is_some_and(|after| serves(after));
    if replaced || stopped {
        retired.push((group, before.key.clone()));
    }
}

/// What is declared and stored: it names both.
fn contradiction(keys: &Keys, record: &store::Record) -> Option<String> {
    match Named::of(&record.name) {
        Named::Key(account, id) => {
            keys.accounts.get(&account)?.is_declared(&id).then(|| {
                format!("[[key]] declares the key {id}, and the store has a key {id} of account {account}: take one of them out")
            })
        }
        Named::Alias(account, name) => {
            let own = keys.accounts.get(&account)?;
            let declared = own.aliases().get(&name)?.target.as_ref()?;
            is_declared_alias(own, &name).then(|| {
                let stored = read_alias(record)
                    .target
                    .map_or_else(|| "an unreadable key".into(), |id| format!("key {id}"));
                format!("[[key]] declares the alias {name} for key {declared}, and the store has it for {stored}: take one of them out")
            })
        }
        Named::Usage(..) | Named::Restored | Named::Other => None,
    }
}

fn is_declared_alias(own: &Account, name: &AliasName) -> bool {
    own.aliases()
        .get(name)
        .is_some_and(|alias| alias.source == Source::Declared)
}

/// How many records are listed at a time.
const PAGE: usize = 1000;
