//! The groups of tokens come and go with the configuration, and keys stay: those of a group that is gone are
//! unavailable until one of its name is there again.

use std::sync::Arc;

use super::{Accounts, GroupNames, KeyRecord, account::Entry, stored::StoredKey};
use crate::token::TokenKey;

/// Where a group of this name stands.
pub(super) fn place_of(groups: &GroupNames, name: &str) -> Option<usize> {
    groups
        .iter()
        .position(|known| known.as_deref() == Some(name))
}

impl Accounts {
    /// From now on there are these groups. Gives the keys of those that are gone, with their group's place.
    pub(super) fn set_groups(
        &mut self,
        groups: GroupNames,
        region: &str,
    ) -> Vec<(usize, Arc<TokenKey>)> {
        let mut without = Vec::new();
        for own in self.accounts.values_mut() {
            let serving = own.keys().values().filter_map(|entry| match entry {
                Entry::Key(record) => Some(record),
                Entry::Unreadable(_) => None,
            });
            let records = serving.chain(own.deleting().values());
            let moved: Vec<(Arc<KeyRecord>, KeyRecord)> = records
                .filter_map(|record| {
                    let group = place_of(&groups, &record.body.locator.token);
                    (record.group != group).then(|| (record.clone(), in_group(record, group)))
                })
                .collect();
            for (before, record) in moved {
                without.extend(before.group.map(|group| (group, before.key.clone())));
                let key_id = &before.body.key_id;
                if own.deleting().contains_key(key_id) {
                    own.put_deleting(region, key_id, Arc::new(record));
                } else {
                    own.put_key(region, key_id, Entry::Key(Arc::new(record)));
                }
            }
        }
        self.groups = groups;
        without
    }
}

/// The record of a key whose group has come or gone.
fn in_group(record: &KeyRecord, group: Option<usize>) -> KeyRecord {
    let key = match group {
        None => record.key.clone(),
        // Security: a key that was closed stays so, and this is another one. What was trusted first goes on
        // to be.
        Some(_) => {
            let trusted = record.key.check_value().cloned();
            let body = StoredKey {
                check_value: record.body.check_value.clone().or(trusted),
                ..record.body.clone()
            };
            Arc::new(body.token_key())
        }
    };
    KeyRecord {
        group,
        key,
        ..record.clone()
    }
}
