//! The grants of a key in memory: found by ID, by who is let in, and by name.
//!
//! Promises: what a call costs depends on how many grants its own caller has on the key, not on how many
//! there are; a page costs what is on it. A grant that is gone is never found again, and its fence can be
//! closed for those whom it let in.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{
        Arc, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::UNPOISONED;
use crate::{
    model::{AccountId, Bearer, Caller, Grant, GrantId, GrantedTo, KeyId},
    store::Revision,
    token::GrantFence,
};

/// What is known of one grant. Never changes.
#[derive(Debug)]
pub(in crate::kms) struct GrantRecord {
    pub(in crate::kms) id: GrantId,
    pub(in crate::kms) account: AccountId,
    pub(in crate::kms) key_id: KeyId,
    pub(in crate::kms) body: Grant,
    pub(in crate::kms) revision: Revision,
    /// Closed when the grant is gone.
    pub(in crate::kms) fence: GrantFence,
}

/// Grants in the order of their IDs.
pub(in crate::kms) type GrantsById = BTreeMap<GrantId, Arc<GrantRecord>>;

/// The grants of one key; shared by all records of the key.
#[derive(Debug, Default)]
pub(in crate::kms) struct KeyGrants {
    index: RwLock<Index>,
    /// Grants that are being made: they have a place already.
    coming: AtomicUsize,
}

#[derive(Debug, Default)]
struct Index {
    all: GrantsById,
    /// By [`index_name`] of the grantee.
    of_grantee: HashMap<Box<str>, GrantsById>,
    named: HashMap<Box<str>, GrantsById>,
}

/// A place for one more grant, until this is dropped.
#[derive(Debug)]
pub(in crate::kms) struct GrantPlace(Arc<KeyGrants>);

impl KeyGrants {
    pub(in crate::kms) fn find(&self, id: &GrantId) -> Option<Arc<GrantRecord>> {
        self.read().all.get(id).cloned()
    }

    /// The first grant that lets a caller in and suits: one that means the caller itself before one that
    /// means its account.
    pub(in crate::kms) fn of_caller(
        &self,
        bearer: &Bearer<'_>,
        suits: impl Fn(&GrantRecord) -> bool,
    ) -> Option<(Arc<GrantRecord>, GrantedTo)> {
        let caller = bearer.caller;
        let index = self.read();
        if index.all.is_empty() {
            return None;
        }
        // Its own name, unless that is a role's, and the name of the role that it is or acts through.
        let role = caller.role().or_else(|| caller.session_role());
        let role = role.map(|role| role_name(caller.account(), role));
        let own = [Some(caller.arn()), role.as_deref()].into_iter().flatten();
        let account = caller.account().as_str();
        let found = own.chain([account]).find_map(|name| {
            let grants = index.of_grantee.get(name)?.values();
            let mut fit = grants.filter(|grant| suits(grant));
            fit.find_map(|grant| Some((grant, grant.body.grantee.means(bearer)?)))
        });
        found.map(|(grant, how)| (Arc::clone(grant), how))
    }

    /// The grant that a request for this one asks for again: KMS gives that one for a name that is known.
    pub(in crate::kms) fn same_as(&self, grant: &Grant) -> Option<Arc<GrantRecord>> {
        let index = self.read();
        let named = index.named.get(grant.name.as_deref()?)?;
        let same = named.values().find(|one| one.body.is_same_request(grant));
        same.cloned()
    }

    /// Up to `limit` grants after an ID that suit, and whether there are more. With a grantee's ARN only
    /// its own are looked at.
    pub(in crate::kms) fn page(
        &self,
        of_grantee: Option<&str>,
        after: Option<&GrantId>,
        limit: usize,
        suits: impl Fn(&GrantRecord) -> bool,
    ) -> (Vec<Arc<GrantRecord>>, bool) {
        let index = self.read();
        match of_grantee {
            None => page(&index.all, after, limit, suits),
            Some(arn) => match index.of_grantee.get(&*index_name(arn)) {
                Some(own) => page(own, after, limit, suits),
                None => (Vec::new(), false),
            },
        }
    }

    /// A place for one more, if there are fewer than `most`, those on the way included.
    pub(in crate::kms) fn place(self: &Arc<Self>, most: usize) -> Option<GrantPlace> {
        let coming = self.coming.fetch_add(1, Ordering::SeqCst);
        let place = GrantPlace(Arc::clone(self));
        // Counted first: two who come at once do not both take the last place.
        (self.read().all.len() + coming < most).then_some(place)
    }

    /// Puts a grant in; gives the one that it replaces.
    pub(super) fn put(&self, grant: &Arc<GrantRecord>) -> Option<Arc<GrantRecord>> {
        let mut index = self.index.write().expect(UNPOISONED);
        let before = index.remove(&grant.id);
        let grantee = index_name(&grant.body.grantee.arn);
        let own = index.of_grantee.entry(grantee).or_default();
        own.insert(grant.id, Arc::clone(grant));
        if let Some(name) = &grant.body.name {
            let named = index.named.entry(name.as_str().into()).or_default();
            named.insert(grant.id, Arc::clone(grant));
        }
        index.all.insert(grant.id, Arc::clone(grant));
        before
    }

    pub(super) fn remove(&self, id: &GrantId) -> Option<Arc<GrantRecord>> {
        self.index.write().expect(UNPOISONED).remove(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.read().all.is_empty()
    }

    pub(super) fn ids(&self) -> Vec<GrantId> {
        self.read().all.keys().copied().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().expect(UNPOISONED)
    }
}

impl Index {
    fn remove(&mut self, id: &GrantId) -> Option<Arc<GrantRecord>> {
        let grant = self.all.remove(id)?;
        take_out(
            &mut self.of_grantee,
            &index_name(&grant.body.grantee.arn),
            id,
        );
        if let Some(name) = &grant.body.name {
            take_out(&mut self.named, name, id);
        }
        Some(grant)
    }
}

impl Drop for GrantPlace {
    fn drop(&mut self) {
        self.0.coming.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Takes a grant out of the lists by name, and the list with its last one.
pub(super) fn take_out(lists: &mut HashMap<Box<str>, GrantsById>, name: &str, id: &GrantId) {
    if let Some(list) = lists.get_mut(name) {
        list.remove(id);
        if list.is_empty() {
            lists.remove(name);
        }
    }
}

/// Up to `limit` grants after an ID that suit, and whether there are more.
pub(super) fn page(
    grants: &GrantsById,
    after: Option<&GrantId>,
    limit: usize,
    suits: impl Fn(&GrantRecord) -> bool,
) -> (Vec<Arc<GrantRecord>>, bool) {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let rest = grants.range((from, Bound::Unbounded));
    let mut rest = rest.map(|(_, grant)| grant).filter(|grant| suits(grant));
    let page = rest.by_ref().take(limit).cloned().collect();
    (page, rest.next().is_some())
}

/// What a principal's grants stand under: a session does not tell the path of its role, and an account's
/// root stands for the account.
fn index_name(arn: &str) -> Box<str> {
    match Caller::parse(arn) {
        Ok(caller) if caller.is_root() => caller.account().as_str().into(),
        Ok(caller) => match caller.role() {
            Some(role) => role_name(caller.account(), role).into(),
            None => arn.into(),
        },
        // It lets nobody in, and can be listed.
        Err(_) => arn.into(),
    }
}

fn role_name(account: &AccountId, role: &str) -> String {
    format!("{account}/{role}")
}
