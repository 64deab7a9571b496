//! Pages of keys and aliases.

use std::{ops::Bound, sync::Arc};

use super::{Alias, Catalogue, Entry, KeyRecord, Source};
use crate::model::{AccountId, AliasName, KeyId, key_arn};

impl Catalogue {
    /// Up to `limit` keys of an account after a key ID, with their ARNs, and whether there are more.
    pub(in crate::kms) fn page(
        &self,
        account: &AccountId,
        after: Option<&KeyId>,
        limit: usize,
    ) -> (Vec<(KeyId, Arc<str>)>, bool) {
        let keys = self.read();
        let Some(own) = keys.accounts.get(account) else {
            return (Vec::new(), false);
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = own.keys().range((from, Bound::Unbounded));
        let page = rest
            .by_ref()
            .take(limit)
            .map(|(id, entry)| {
                let arn = match entry {
                    Entry::Key(record) => record.arn.clone(),
                    Entry::Unreadable(_) => key_arn(&self.region, account, id).into(),
                };
                (id.clone(), arn)
            })
            .collect();
        (page, rest.next().is_some())
    }

    /// All keys whose record can be read.
    pub(in crate::kms) fn all(&self) -> Vec<Arc<KeyRecord>> {
        self.records_of(|_| true)
    }

    /// The keys that the configuration declares.
    pub(in crate::kms) fn declared(&self) -> Vec<Arc<KeyRecord>> {
        self.records_of(|record| record.source == Source::Declared)
    }

    fn records_of(&self, is_meant: impl Fn(&KeyRecord) -> bool) -> Vec<Arc<KeyRecord>> {
        let keys = self.read();
        let entries = keys.accounts.values().flat_map(|own| own.keys().values());
        let meant = entries.filter_map(|entry| match entry {
            Entry::Key(record) if is_meant(record) => Some(record.clone()),
            Entry::Key(_) | Entry::Unreadable(_) => None,
        });
        meant.collect()
    }

    /// Up to `limit` aliases of an account, or of one key of it, after a name; and whether there are
    /// more. An alias whose key is gone is not shown.
    pub(in crate::kms) fn page_of_aliases(
        &self,
        account: &AccountId,
        of: Option<&KeyId>,
        after: Option<&AliasName>,
        limit: usize,
    ) -> (Vec<(AliasName, Alias)>, bool) {
        let keys = self.read();
        let Some(own) = keys.accounts.get(account) else {
            return (Vec::new(), false);
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let shown = |(name, alias): (&AliasName, &Alias)| {
            let there = alias
                .target
                .as_ref()
                .is_none_or(|id| own.keys().contains_key(id));
            there.then(|| (name.clone(), alias.clone()))
        };
        let mut page: Vec<_> = match of {
            None => own
                .aliases()
                .range((from, Bound::Unbounded))
                .filter_map(shown)
                .take(limit.saturating_add(1))
                .collect(),
            Some(key_id) => own
                .aliases_of(key_id)
                .filter(|name| after.is_none_or(|after| *name > after))
                .filter_map(|name| shown((name, own.aliases().get(name)?)))
                .take(limit.saturating_add(1))
                .collect(),
        };
        let more = page.len() > limit;
        page.truncate(limit);
        (page, more)
    }
}
