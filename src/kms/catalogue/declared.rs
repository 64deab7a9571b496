//! Keys and aliases of the configuration.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, RwLock},
};

use tokio::sync::watch;

use super::{
    Alias, Catalogue, GroupNames, KeyRecord, Source,
    account::{Account, Entry},
    follow::{Retired, Retirement},
    groups::place_of,
    last_use::LastUse,
    stored::{StoredKey, StoredLocator, StoredState},
};
use crate::{
    kms::settings::{DeclaredKey, DeclaredPolicy, Settings},
    model::{AliasName, Description, KeyId, Origin, Tags, key_arn},
    store::Revision,
    token::TokenKey,
};

/// What a declaration came to.
#[derive(Default)]
pub(in crate::kms) struct Declared {
    /// The keys that calls admitted before may still hold.
    pub(in crate::kms) retired: Retired,
    /// A sentence on each declaration that is not in force: it contradicts another, or the store, or names
    /// no token that there is.
    pub(in crate::kms) faults: Vec<String>,
    /// How many keys were not declared before.
    pub(in crate::kms) added: usize,
    /// How many are something else than before.
    pub(in crate::kms) changed: usize,
    /// How many are declared no longer.
    pub(in crate::kms) removed: usize,
    /// The keys of groups that there are no longer, stored ones too, each with its group's place.
    pub(in crate::kms) without_group: Vec<(usize, Arc<TokenKey>)>,
}

impl Catalogue {
    /// The declared keys, and no others yet.
    ///
    /// # Errors
    /// A sentence on the first declaration that contradicts another or names no token.
    pub(in crate::kms) fn new(settings: Settings, groups: &[String]) -> Result<Self, String> {
        let Settings {
            account,
            region,
            new_keys: _,
            keys,
            rights,
        } = settings;
        let catalogue = Self {
            account,
            region,
            keys: RwLock::default(),
            seen: watch::Sender::new(Revision::default()),
        };
        for key in &keys {
            let mut policies = rights.keys.iter();
            if !policies.any(|policy| policy.key_id == key.key_id) {
                return Err(format!("key {}: no policy was read for it", key.key_id));
            }
        }
        let groups = groups.iter().cloned().map(Some).collect();
        let declared = catalogue.declare(&keys, rights.keys, Some(groups));
        match declared.faults.into_iter().next() {
            None => Ok(catalogue),
            Some(fault) => Err(fault),
        }
    }

    /// Has declared keys and aliases be what the configuration says by now. A key whose policy could not be
    /// read keeps the one that it has, or does not come to be. One that names a token that is not there stays
    /// where it is, and so does one of another account. `groups`: those that there are from now on, if they are
    /// others; keys of one that is gone, stored ones too, are unavailable, and those of one that comes serve.
    pub(in crate::kms) fn declare(
        &self,
        declared: &[DeclaredKey],
        policies: Vec<DeclaredPolicy>,
        groups: Option<GroupNames>,
    ) -> Declared {
        let policies = policies.into_iter();
        let mut policies: HashMap<KeyId, DeclaredPolicy> = policies
            .filter(|policy| policy.account == self.account)
            .map(|policy| (policy.key_id.clone(), policy))
            .collect();
        let mut outcome = Declared::default();
        let mut guard = self.write();
        let keys = &mut *guard;
        // All at once: no call meets one key as it was and another as it is.
        if let Some(groups) = groups {
            outcome.without_group = keys.set_groups(groups, &self.region);
        }
        let own = keys.accounts.entry(self.account.clone()).or_default();
        let mut wanted = BTreeSet::new();
        for key in declared {
            let key_id = &key.key_id;
            if !wanted.insert(key_id.clone()) {
                let fault = format!("two keys are declared with the key_id {key_id}");
                outcome.faults.push(fault);
                continue;
            }
            let policy = policies.remove(key_id);
            self.declare_key((own, &keys.groups), key, policy, &mut outcome);
        }
        for key_id in declared_keys(own) {
            if !wanted.contains(&key_id)
                && let Some(gone) = own.record(&key_id).cloned()
            {
                // Security: a key that is declared no longer is nobody's to use.
                own.remove_key(&self.region, &key_id);
                let fenced = Retirement::Key(gone.key.clone());
                outcome
                    .retired
                    .extend(gone.group.map(|group| (group, fenced)));
                outcome.removed += 1;
            }
        }
        self.declare_aliases(own, declared, &mut outcome.faults);
        outcome
    }

    fn declare_key(
        &self,
        (own, groups): (&mut Account, &GroupNames),
        declared: &DeclaredKey,
        policy: Option<DeclaredPolicy>,
        outcome: &mut Declared,
    ) {
        let key_id = &declared.key_id;
        let before = own.record(key_id).cloned();
        let is_stored = match own.keys().get(key_id) {
            Some(Entry::Key(record)) => record.source != Source::Declared,
            Some(Entry::Unreadable(_)) => true,
            None => own.deleting().contains_key(key_id),
        };
        if is_stored {
            let fault = format!("the key {key_id} is in the store: it cannot be declared as well");
            return outcome.faults.push(fault);
        }
        let (text, policy) = match (policy, &before) {
            (Some(new), _) => (new.text, new.policy),
            (None, Some(before)) => (before.body.policy.clone(), before.policy.clone()),
            // What is wrong with its policy has been told.
            (None, None) => return,
        };
        let body = match self.body_of(groups, declared, text) {
            Ok(body) => body,
            Err(fault) => {
                outcome.faults.push(fault);
                let Some(before) = &before else { return };
                // Security: what is said of who may use it counts all the same.
                StoredKey {
                    state: state_of(declared),
                    policy: before.body.policy.clone(),
                    ..before.body.clone()
                }
            }
        };
        let group = place_of(groups, &body.locator.token);
        let (key, retirement, epoch) = match &before {
            None => (Arc::new(declared.token_key()), None, 0),
            Some(before) => match successor(before, &body) {
                None => return,
                Some(successor) => successor,
            },
        };
        if let (Some(before), Some(retirement)) = (&before, retirement) {
            outcome
                .retired
                .extend(before.group.map(|group| (group, retirement)));
        }
        match &before {
            None => outcome.added += 1,
            Some(_) => outcome.changed += 1,
        }
        let last_use = before.map(|before| before.last_use.clone());
        let record = KeyRecord {
            source: Source::Declared,
            arn: key_arn(&self.region, &self.account, key_id).into(),
            policy,
            unreadable_policy: None,
            group,
            key,
            last_use: last_use.unwrap_or_else(|| Arc::new(LastUse::default())),
            // Who may use it is the configuration's word alone.
            grants: Arc::default(),
            held: false,
            body: StoredKey { epoch, ..body },
        };
        own.put_key(&self.region, key_id, Entry::Key(Arc::new(record)));
    }

    fn body_of(
        &self,
        groups: &GroupNames,
        declared: &DeclaredKey,
        policy: String,
    ) -> Result<StoredKey, String> {
        let key_id = &declared.key_id;
        let token = group_of(declared, groups)?.to_owned();
        let description = Description::try_from(declared.description.clone())
            .map_err(|fault| format!("key {key_id}: {fault}"))?;
        let object = &declared.object.0;
        Ok(StoredKey {
            key_id: key_id.clone(),
            account: self.account.clone(),
            spec: declared.key_spec,
            origin: Origin::AwsCloudHsm,
            state: state_of(declared),
            description,
            created: None,
            tags: Tags::default(),
            policy,
            policy_principals: BTreeMap::new(),
            check_value: declared.check_value.clone(),
            locator: StoredLocator {
                token,
                cka_id: object.id.clone(),
                label: object.label.clone(),
            },
            epoch: 0,
        })
    }

    /// Aliases follow the declarations of keys that are there; those that are declared no longer are gone.
    fn declare_aliases(
        &self,
        own: &mut Account,
        declared: &[DeclaredKey],
        faults: &mut Vec<String>,
    ) {
        let mut wanted: BTreeMap<AliasName, KeyId> = BTreeMap::new();
        for (key_id, alias) in declared
            .iter()
            .flat_map(|key| key.aliases.iter().map(|alias| (&key.key_id, alias)))
        {
            let Ok(name) = alias.parse::<AliasName>() else {
                faults.push(format!(
                    "the alias {alias:?} of key {key_id} must be alias/ and letters, digits, /, _ or -; at most 256 characters, and not begin with alias/aws/"
                ));
                continue;
            };
            if let Some(other) = wanted.get(&name) {
                faults.push(format!(
                    "the alias {name} is declared for key {other} and for key {key_id}"
                ));
            } else if own.is_declared(key_id) {
                wanted.insert(name, key_id.clone());
            }
        }
        let there = own.aliases().iter();
        let gone: Vec<AliasName> = there
            .filter(|(name, alias)| {
                alias.source == Source::Declared && wanted.get(*name) != alias.target.as_ref()
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            own.remove_alias(&self.region, &self.account, &name);
        }
        for (name, key_id) in wanted {
            match own.aliases().get(&name).map(|alias| alias.source) {
                Some(Source::Declared) => {}
                Some(Source::Stored(_)) => faults.push(format!(
                    "the alias {name} of key {key_id} is in the store: it cannot be declared as well"
                )),
                None => {
                    let alias = Alias {
                        target: Some(key_id),
                        source: Source::Declared,
                        created: None,
                        updated: None,
                    };
                    own.put_alias(&self.region, &self.account, &name, alias);
                }
            }
        }
    }
}

/// What calls of a declared key hold from now on, what becomes of what they held before, and the epoch; none:
/// nothing is different.
fn successor(
    before: &KeyRecord,
    now: &StoredKey,
) -> Option<(Arc<TokenKey>, Option<Retirement>, u64)> {
    let old = &before.body;
    let epoch = old.epoch + 1;
    let is_same_object = old.is_same_object(now);
    let is_admitted = old.policy == now.policy && old.state == now.state;
    if is_same_object && is_admitted {
        // What only people read.
        let is_other_text = old.description != now.description;
        return is_other_text.then(|| (before.key.clone(), None, old.epoch));
    }
    // Security: whoever was let in by what was said before loses the key that they held. Hosts keep the
    // handle of one that stays enabled.
    if is_same_object && before.is_enabled() && now.state == StoredState::Enabled {
        let admission = Retirement::Admission(before.key.clone());
        return Some((Arc::new(before.key.admitted_anew()), Some(admission), epoch));
    }
    // What was trusted first goes on to be, for the object that it was.
    let trusted = is_same_object.then(|| before.key.check_value().cloned());
    let trusted = StoredKey {
        check_value: now.check_value.clone().or_else(|| trusted.flatten()),
        ..now.clone()
    };
    let fenced = Retirement::Key(before.key.clone());
    Some((Arc::new(trusted.token_key()), Some(fenced), epoch))
}

fn state_of(declared: &DeclaredKey) -> StoredState {
    if declared.enabled {
        StoredState::Enabled
    } else {
        StoredState::Disabled
    }
}

fn declared_keys(own: &Account) -> Vec<KeyId> {
    let keys = own.keys().keys();
    keys.filter(|key_id| own.is_declared(key_id))
        .cloned()
        .collect()
}

fn group_of<'a>(declared: &DeclaredKey, groups: &'a GroupNames) -> Result<&'a str, String> {
    let key_id = &declared.key_id;
    let groups: Vec<&str> = groups.iter().flatten().map(String::as_str).collect();
    match (&declared.token, &groups[..]) {
        (Some(name), known) => known
            .iter()
            .find(|group| *group == name)
            .copied()
            .ok_or_else(|| {
                format!("key {key_id} names {name:?}, but there is no token or group of this name")
            }),
        (None, [only]) => Ok(only),
        (None, _) => Err(format!(
            "key {key_id} names no token, and there are {}; set token = \"…\" in its [[key]]",
            groups.len()
        )),
    }
}
