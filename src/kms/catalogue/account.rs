//! The keys and aliases of one account, under every name that finds them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{Alias, KeyRecord, Source, grants::KeyGrants};
use crate::{
    model::{AccountId, AliasName, KeyId, alias_arn, key_arn},
    store::Revision,
};

/// What is at a key ID.
pub(super) enum Entry {
    Key(Arc<KeyRecord>),
    /// A record of the store that cannot be read: the key is there, and unavailable.
    Unreadable(Revision),
}

/// The keys and aliases of one account, and the names that find them.
#[derive(Default)]
pub(super) struct Account {
    /// By key ID, key ARN, alias name and alias ARN, so that a request costs one look-up and no
    /// parsing. Only a name that is not here is taken apart, to tell what is wrong with it.
    names: HashMap<Box<str>, Arc<KeyRecord>>,
    keys: BTreeMap<KeyId, Entry>,
    /// Keys whose end has begun: no name finds them, and the reaper alone works on them.
    deleting: BTreeMap<KeyId, Arc<KeyRecord>>,
    aliases: BTreeMap<AliasName, Alias>,
    /// The aliases of each key, whether or not there is such a key.
    of_key: HashMap<KeyId, BTreeSet<AliasName>>,
    /// The grants of each key that has had some: they may come before the key's record.
    grants: HashMap<KeyId, Arc<KeyGrants>>,
}

impl Account {
    pub(super) fn find(&self, name: &str) -> Option<&Arc<KeyRecord>> {
        self.names.get(name)
    }

    pub(super) fn keys(&self) -> &BTreeMap<KeyId, Entry> {
        &self.keys
    }

    pub(super) fn deleting(&self) -> &BTreeMap<KeyId, Arc<KeyRecord>> {
        &self.deleting
    }

    pub(super) fn aliases(&self) -> &BTreeMap<AliasName, Alias> {
        &self.aliases
    }

    pub(super) fn record(&self, key_id: &KeyId) -> Option<&Arc<KeyRecord>> {
        match self.keys.get(key_id)? {
            Entry::Key(record) => Some(record),
            Entry::Unreadable(_) => None,
        }
    }

    pub(super) fn aliases_of(&self, key_id: &KeyId) -> impl Iterator<Item = &AliasName> {
        self.of_key.get(key_id).into_iter().flatten()
    }

    /// The grants of each key that has had some.
    pub(super) fn grants(&self) -> &HashMap<KeyId, Arc<KeyGrants>> {
        &self.grants
    }

    /// The grants of a key, whether or not there is such a key yet.
    pub(super) fn grants_of(&mut self, key_id: &KeyId) -> &Arc<KeyGrants> {
        self.grants.entry(key_id.clone()).or_default()
    }

    /// Forgets the list of grants of a key that is gone, if there are none in it.
    pub(super) fn release_grants(&mut self, key_id: &KeyId) {
        let is_there = self.keys.contains_key(key_id) || self.deleting.contains_key(key_id);
        if !is_there
            && self
                .grants
                .get(key_id)
                .is_some_and(|grants| grants.is_empty())
        {
            self.grants.remove(key_id);
        }
    }

    /// Puts a key, or what is to stand for it, under all its names.
    pub(super) fn put_key(&mut self, region: &str, key_id: &KeyId, entry: Entry) {
        self.remove_key(region, key_id);
        if let Entry::Key(record) = &entry {
            self.names.insert(key_id.as_str().into(), record.clone());
            self.names.insert((&*record.arn).into(), record.clone());
            for alias in self.of_key.get(key_id).into_iter().flatten() {
                let full = alias_arn(region, &record.body.account, alias.as_str());
                self.names.insert(full.into(), record.clone());
                self.names.insert(alias.as_str().into(), record.clone());
            }
        }
        self.keys.insert(key_id.clone(), entry);
    }

    /// Takes a key away from clients; it is being deleted.
    pub(super) fn put_deleting(&mut self, region: &str, key_id: &KeyId, record: Arc<KeyRecord>) {
        self.remove_key(region, key_id);
        self.deleting.insert(key_id.clone(), record);
    }

    /// Takes a key away; its aliases stay, and find nothing.
    pub(super) fn remove_key(&mut self, region: &str, key_id: &KeyId) {
        self.deleting.remove(key_id);
        let Some(Entry::Key(record)) = self.keys.remove(key_id) else {
            return;
        };
        let account = &record.body.account;
        self.names.remove(key_id.as_str());
        self.names.remove(&*key_arn(region, account, key_id));
        for alias in self.of_key.get(key_id).into_iter().flatten() {
            self.names.remove(alias.as_str());
            self.names
                .remove(&*alias_arn(region, account, alias.as_str()));
        }
    }

    pub(super) fn put_alias(
        &mut self,
        region: &str,
        account: &AccountId,
        name: &AliasName,
        alias: Alias,
    ) {
        self.remove_alias(region, account, name);
        if let Some(target) = &alias.target {
            self.of_key
                .entry(target.clone())
                .or_default()
                .insert(name.clone());
            if let Some(record) = self.record(target).cloned() {
                let full = alias_arn(region, account, name.as_str());
                self.names.insert(full.into(), record.clone());
                self.names.insert(name.as_str().into(), record);
            }
        }
        self.aliases.insert(name.clone(), alias);
    }

    pub(super) fn remove_alias(&mut self, region: &str, account: &AccountId, name: &AliasName) {
        let Some(alias) = self.aliases.remove(name) else {
            return;
        };
        if let Some(target) = alias.target
            && let Some(names) = self.of_key.get_mut(&target)
        {
            names.remove(name);
            if names.is_empty() {
                self.of_key.remove(&target);
            }
        }
        self.names.remove(name.as_str());
        self.names
            .remove(&*alias_arn(region, account, name.as_str()));
    }

    /// The revision at which the store has a key, if it does.
    pub(super) fn key_revision(&self, key_id: &KeyId) -> Option<Revision> {
        match self.keys.get(key_id)? {
            Entry::Key(record) => record.source.revision(),
            Entry::Unreadable(revision) => Some(*revision),
        }
    }

    pub(super) fn is_declared(&self, key_id: &KeyId) -> bool {
        self.record(key_id)
            .is_some_and(|record| record.source == Source::Declared)
    }
}
