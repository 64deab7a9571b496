//! What the store tells, brought into memory.

use std::{collections::HashSet, sync::Arc};

use tracing::{error, info, warn};

use super::{
    Account, Accounts, Alias, Catalogue, Entry, GrantRecord, GroupNames, KeyRecord, Snapshot,
    Source, grants,
    groups::place_of,
    last_use::LastUse,
    stored::{self, RecordName, StoredAlias, StoredKey, StoredState},
};
use crate::{
    kms::policy_documents,
    model::{AccountId, AliasName, Grant, GrantId, KeyId, key_arn, policy::Policy},
    store::{self, Changes, Committed, Revision},
    token,
};

/// Keys whose calls must end, each with the group that it is in.
pub(in crate::kms) type Retired = Vec<(usize, Retirement)>;

/// How much of a key ends.
#[derive(Clone)]
pub(in crate::kms) enum Retirement {
    /// A grant is gone: calls that nothing but it admitted end.
    Grant(Arc<token::TokenKey>),
    /// Another policy decides: calls that the old one admitted end.
    Admission(Arc<token::TokenKey>),
    /// It serves no longer: hosts must forget it too.
    Key(Arc<token::TokenKey>),
}

impl Retirement {
    /// Returns when the calls have ended, and no host has a handle of a key that serves no longer.
    pub(in crate::kms) async fn carry_out(&self, group: &token::Group) {
        match self {
            Self::Grant(key) => group.end_grant(key).await,
            Self::Admission(key) => group.end_admission(key).await,
            Self::Key(key) => group.forget(key).await,
        }
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
        let there: HashSet<RecordName> = records.keys().map(RecordName::of).collect();
        for gone in keys.stored() {
            if !there.contains(&gone) {
                self.remove(&mut keys, &gone, &mut retired);
            }
        }
        self.hold(&mut keys, there.contains(&RecordName::Restored));
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
            self.remove(&mut keys, &RecordName::of(name), &mut retired);
        }
        for record in &committed.puts {
            if RecordName::of(&record.name) == RecordName::Restored {
                self.hold(&mut keys, true);
            }
            self.put(&mut keys, record, &mut retired);
        }
        drop(keys);
        self.seen.send_replace(committed.revision);
        retired
    }

    fn put(&self, keys: &mut Accounts, record: &store::Record, retired: &mut Retired) {
        let named = RecordName::of(&record.name);
        if let Some(fault) = contradiction(keys, record) {
            error!(event = "record_overridden", record = %record.name, reason = %fault, "a record contradicts the configuration, whose declaration counts");
            return;
        }
        let held = keys.held;
        match named {
            RecordName::Key(account, key_id) => {
                let own = keys.accounts.entry(account.clone()).or_default();
                if own.key_revision(&key_id) == Some(record.revision) {
                    return;
                }
                let before = own.record(&key_id).cloned();
                let grants = Arc::clone(own.grants_of(&key_id));
                let read = stored::read_key(record, &account, &key_id).map(|body| KeyRecord {
                    grants,
                    held,
                    ..self.record_of(&keys.groups, body, record.revision, before.as_deref())
                });
                match read {
                    Ok(record) if record.body.state == StoredState::Deleting => {
                        own.put_deleting(&self.region, &key_id, Arc::new(record));
                    }
                    Ok(record) => {
                        own.put_key(&self.region, &key_id, Entry::Key(Arc::new(record)));
                    }
                    Err(fault) => {
                        error!(
                            event = "record_unreadable", record = %record.name, reason = %fault,
                            "a key's record cannot be read: the key is unavailable"
                        );
                        let entry = Entry::Unreadable(record.revision);
                        own.put_key(&self.region, &key_id, entry);
                    }
                }
                retire(before.as_deref(), own.record(&key_id), retired);
            }
            RecordName::Alias(account, name) => {
                let alias = read_alias(record);
                let own = keys.accounts.entry(account.clone()).or_default();
                own.put_alias(&self.region, &account, &name, alias);
            }
            RecordName::Grant(account, key_id, id) => {
                put_grant(keys, record, (account, key_id, id), retired);
            }
            RecordName::GrantTokenKey => match stored::read(record) {
                Ok(key) => keys.grant_token_key = Some(Arc::new(key)),
                Err(fault) => {
                    error!(event = "record_unreadable", record = %record.name, reason = %fault, "the key of grant tokens cannot be read: no token is valid");
                }
            },
            RecordName::Usage(account, key_id) => {
                let known = keys
                    .accounts
                    .get(&account)
                    .and_then(|own| own.record(&key_id));
                match (known, stored::read(record)) {
                    (Some(known), Ok(usage)) => known.last_use.restore(usage),
                    (None, _) => {}
                    (Some(_), Err(fault)) => {
                        warn!(event = "record_unreadable", record = %record.name, reason = %fault, "a key's last use cannot be read");
                    }
                }
            }
            RecordName::Restored => {}
            RecordName::Other => {
                if RecordName::is_lost(&record.name) {
                    error!(event = "record_unreadable", record = %record.name, reason = "its name says nothing", "a record is passed over");
                }
            }
        }
    }

    fn remove(&self, keys: &mut Accounts, gone: &RecordName, retired: &mut Retired) {
        match gone {
            RecordName::Key(account, key_id) => {
                if let Some(own) = keys.accounts.get_mut(account)
                    && !own.is_declared(key_id)
                {
                    let before = own.record(key_id).cloned();
                    own.remove_key(&self.region, key_id);
                    own.release_grants(key_id);
                    retire(before.as_deref(), None, retired);
                }
            }
            RecordName::Alias(account, name) => {
                if let Some(own) = keys.accounts.get_mut(account)
                    && !is_declared_alias(own, name)
                {
                    own.remove_alias(&self.region, account, name);
                }
            }
            RecordName::Grant(account, key_id, id) => {
                let Some(own) = keys.accounts.get_mut(account) else {
                    return;
                };
                let gone = own.grants_of(key_id).remove(id);
                own.release_grants(key_id);
                if let Some(gone) = gone {
                    forget_grant(keys, &gone, retired);
                }
            }
            RecordName::GrantTokenKey => keys.grant_token_key = None,
            RecordName::Restored => self.hold(keys, false),
            RecordName::Usage(..) | RecordName::Other => {}
        }
    }

    /// After a restore every stored key counts as disabled until the mark is gone.
    fn hold(&self, keys: &mut Accounts, held: bool) {
        if keys.held == held {
            return;
        }
        keys.held = held;
        if held {
            warn!(
                event = "restore_unconfirmed",
                "the store was restored from a backup: every stored key counts as disabled and no key is deleted until `hsmac store confirm`"
            );
        } else {
            info!(
                event = "restore_confirmed",
                "the restored store is confirmed: keys are what their records say"
            );
        }
        for own in keys.accounts.values_mut() {
            let stored: Vec<Arc<KeyRecord>> = own
                .keys()
                .values()
                .filter_map(|entry| match entry {
                    Entry::Key(record) if record.source != Source::Declared => Some(record.clone()),
                    Entry::Key(_) | Entry::Unreadable(_) => None,
                })
                .collect();
            for record in stored {
                let changed = KeyRecord {
                    held,
                    ..(*record).clone()
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
        groups: &GroupNames,
        body: StoredKey,
        revision: Revision,
        before: Option<&KeyRecord>,
    ) -> KeyRecord {
        let unchanged = before.filter(|before| {
            let before = &before.body;
            before.policy == body.policy && before.policy_principals == body.policy_principals
        });
        let (policy, unreadable_policy) = match unchanged {
            Some(before) => (before.policy.clone(), before.unreadable_policy.clone()),
            None => compiled(&body),
        };
        let name = &body.locator.token;
        let group = place_of(groups, name);
        if group.is_none() {
            error!(
                event = "key_without_token", key_id = %body.key_id, token = name,
                "the configuration has no such token or group: the key is unavailable"
            );
        }
        let key = match before.filter(|before| before.body.is_same_object(&body)) {
            Some(same) if same.body.epoch == body.epoch => Arc::clone(&same.key),
            // Security: whoever the old policy let in loses the key that they held; hosts keep its handle.
            Some(same) if same.is_enabled() && body.state == StoredState::Enabled => {
                Arc::new(same.key.admitted_anew())
            }
            // Security: a key that was fenced stays closed; this is another one.
            Some(_) | None => Arc::new(body.token_key()),
        };
        KeyRecord {
            source: Source::Stored(revision),
            policy,
            unreadable_policy,
            arn: before.map_or_else(
                || key_arn(&self.region, &body.account, &body.key_id).into(),
                |before| before.arn.clone(),
            ),
            group,
            key,
            last_use: before.map_or_else(Arc::<LastUse>::default, |before| before.last_use.clone()),
            grants: Arc::default(),
            held: false,
            body,
        }
    }
}

impl Accounts {
    /// The names of everything that came from the store.
    fn stored(&self) -> Vec<RecordName> {
        let mut named = Vec::new();
        for (account, own) in &self.accounts {
            let ids = own.keys().keys().chain(own.deleting().keys());
            let ids = ids.filter(|id| !own.is_declared(id));
            named.extend(ids.map(|id| RecordName::Key(account.clone(), id.clone())));
            for (key_id, grants) in own.grants() {
                let named_by = |id| RecordName::Grant(account.clone(), key_id.clone(), id);
                named.extend(grants.ids().into_iter().map(named_by));
            }
            let aliases = own
                .aliases()
                .keys()
                .filter(|name| !is_declared_alias(own, name));
            named.extend(aliases.map(|name| RecordName::Alias(account.clone(), name.clone())));
        }
        named
    }
}

/// The policy that is in force; if the key's own cannot be read, why, and what stands for it.
fn compiled(key: &StoredKey) -> (Arc<Policy>, Option<Arc<str>>) {
    match policy_documents::compiled(&key.policy, &key.account) {
        Ok(policy) => {
            let policy = policy.of_principals(&key.policy_principals);
            (Arc::new(policy), None)
        }
        Err(fault) => {
            error!(
                event = "policy_unreadable", key_id = %key.key_id, reason = fault,
                "a key's policy cannot be read: the key is unavailable until its account's root has put another one"
            );
            let policy = policy_documents::for_repair(&key.account);
            (Arc::new(policy), Some(fault.into()))
        }
    }
}

/// A grant counts once it is read; one that cannot be read allows nothing.
fn put_grant(
    keys: &mut Accounts,
    record: &store::Record,
    (account, key_id, id): (AccountId, KeyId, GrantId),
    retired: &mut Retired,
) {
    let own = keys.accounts.entry(account.clone()).or_default();
    let grants = Arc::clone(own.grants_of(&key_id));
    let before = grants.find(&id);
    if before.is_some_and(|before| before.revision == record.revision) {
        return;
    }
    let body: Result<Grant, _> = stored::read(record);
    let gone = match body {
        Ok(body) => {
            let grant = Arc::new(GrantRecord {
                id,
                account,
                key_id,
                body,
                revision: record.revision,
                fence: token::GrantFence::default(),
            });
            let gone = grants.put(&grant);
            if let Some(gone) = &gone {
                forget_grant(keys, gone, retired);
            }
            if let Some(retiring) = &grant.body.retiring {
                let list = keys.retirable.entry(retiring.arn.as_str().into());
                list.or_default().insert(id, grant);
            }
            return;
        }
        Err(fault) => {
            error!(event = "record_unreadable", record = %record.name, reason = %fault, "a grant cannot be read: it allows nothing");
            grants.remove(&id)
        }
    };
    if let Some(gone) = gone {
        forget_grant(keys, &gone, retired);
    }
}

/// Security: calls that nothing but this grant let in are to end.
fn forget_grant(keys: &mut Accounts, gone: &GrantRecord, retired: &mut Retired) {
    if let Some(retiring) = &gone.body.retiring {
        grants::take_out(&mut keys.retirable, &retiring.arn, &gone.id);
    }
    let own = keys.accounts.get(&gone.account);
    // Without the key's record there is nothing left to end: it was retired with the key.
    if let Some(record) = own.and_then(|own| own.record(&gone.key_id))
        && let Some(group) = record.group
    {
        let key = Arc::new(record.key.under_grant(&gone.fence));
        retired.push((group, Retirement::Grant(key)));
    }
}

fn read_alias(record: &store::Record) -> Alias {
    let source = Source::Stored(record.revision);
    match stored::read::<StoredAlias>(record) {
        Ok(alias) => Alias {
            target: Some(alias.target),
            source,
            created: Some(alias.created),
            updated: Some(alias.updated),
        },
        Err(fault) => {
            error!(event = "record_unreadable", record = %record.name, reason = %fault, "an alias's record cannot be read: it finds no key");
            Alias {
                target: None,
                source,
                created: None,
                updated: None,
            }
        }
    }
}

/// A [`token::TokenKey`] that serves no longer, or that another one stands for now, is retired.
fn retire(before: Option<&KeyRecord>, after: Option<&Arc<KeyRecord>>, retired: &mut Retired) {
    let Some((before, group)) = before.and_then(|before| Some((before, before.group?))) else {
        return;
    };
    let key = Arc::clone(&before.key);
    let same = after.filter(|after| after.key.is_same_object(&key));
    let stopped = before.is_enabled() && !after.is_some_and(|after| after.is_enabled());
    match same {
        Some(after) if !stopped => {
            if !Arc::ptr_eq(&after.key, &key) {
                retired.push((group, Retirement::Admission(key)));
            }
        }
        Some(_) | None => retired.push((group, Retirement::Key(key))),
    }
}

/// What is declared and stored: it names both.
pub(super) fn contradiction(keys: &Accounts, record: &store::Record) -> Option<String> {
    match RecordName::of(&record.name) {
        RecordName::Key(account, id) => {
            keys.accounts.get(&account)?.is_declared(&id).then(|| {
                format!("[[key]] declares the key {id}, and the store has a key {id} of account {account}: take one of them out")
            })
        }
        RecordName::Alias(account, name) => {
            let own = keys.accounts.get(&account)?;
            let declared = own.aliases().get(&name)?.target.as_ref()?;
            is_declared_alias(own, &name).then(|| {
                let stored = read_alias(record)
                    .target
                    .map_or_else(|| "an unreadable key".into(), |id| format!("key {id}"));
                format!("[[key]] declares the alias {name} for key {declared}, and the store has it for {stored}: take one of them out")
            })
        }
        RecordName::Grant(..)
        | RecordName::GrantTokenKey
        | RecordName::Usage(..)
        | RecordName::Restored
        | RecordName::Other => None,
    }
}

fn is_declared_alias(own: &Account, name: &AliasName) -> bool {
    own.aliases()
        .get(name)
        .is_some_and(|alias| alias.source == Source::Declared)
}
