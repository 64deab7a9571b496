//! Keys and aliases of the configuration.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, RwLock},
};

use tokio::sync::watch;

use super::{
    Accounts, Alias, Catalogue, KeyRecord, Source,
    account::Entry,
    follow::{Retired, Retirement},
    last_use::LastUse,
    stored::{StoredKey, StoredLocator, StoredState},
};
use crate::{
    kms::settings::{DeclaredKey, DeclaredPolicy, Settings},
    model::{AliasName, Description, KeyId, Origin, Tags, key_arn},
    store::Revision,
};

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
            keys: declared,
            rights,
        } = settings;
        let mut keys = Accounts::default();
        let own = keys.accounts.entry(account.clone()).or_default();
        for declared in declared {
            let group = group_of(&declared, groups)?;
            let key_id = declared.key_id.clone();
            if own.keys().contains_key(&key_id) {
                return Err(format!("two keys are declared with the key_id {key_id}"));
            }
            let key = Arc::new(declared.token_key());
            let policy = rights.keys.iter().find(|policy| policy.key_id == key_id);
            let policy =
                policy.ok_or_else(|| format!("key {key_id}: no policy was read for it"))?;
            let description = Description::try_from(declared.description)
                .map_err(|fault| format!("key {key_id}: {fault}"))?;
            let record = KeyRecord {
                body: StoredKey {
                    key_id: key_id.clone(),
                    account: account.clone(),
                    spec: declared.key_spec,
                    origin: Origin::AwsCloudHsm,
                    state: if declared.enabled {
                        StoredState::Enabled
                    } else {
                        StoredState::Disabled
                    },
                    description,
                    created: None,
                    tags: Tags::default(),
                    policy: policy.text.clone(),
                    policy_principals: BTreeMap::new(),
                    check_value: declared.check_value,
                    locator: StoredLocator {
                        token: groups[group].clone(),
                        cka_id: key.locator().id.clone(),
                        label: key.locator().label.clone(),
                    },
                    epoch: 0,
                },
                source: Source::Declared,
                arn: key_arn(&region, &account, &key_id).into(),
                policy: Arc::clone(&policy.policy),
                unreadable_policy: None,
                group: Some(group),
                key,
                last_use: Arc::new(LastUse::default()),
                held: false,
            };
            own.put_key(&region, &key_id, Entry::Key(Arc::new(record)));
            for alias in declared.aliases {
                let name: AliasName = alias.parse().map_err(|_| {
                    format!(
                        "the alias {alias:?} of key {key_id} must be alias/ and letters, digits, /, _ or -; at most 256 characters, and not begin with alias/aws/"
                    )
                })?;
                if let Some(other) = own.aliases().get(&name)
                    && let Some(other) = &other.target
                {
                    return Err(format!(
                        "the alias {name} is declared for key {other} and for key {key_id}"
                    ));
                }
                let alias = Alias {
                    target: Some(key_id.clone()),
                    source: Source::Declared,
                    created: None,
                    updated: None,
                };
                own.put_alias(&region, &account, &name, alias);
            }
        }
        Ok(Self {
            region,
            groups: groups.to_vec(),
            keys: RwLock::new(keys),
            seen: watch::Sender::new(Revision::default()),
        })
    }
}

impl Catalogue {
    /// Has declared keys be what the configuration says by now: their policies, and whether they are
    /// declared and enabled. A key whose policy could not be read keeps the one that it has; a key that
    /// was not declared when hsmac started is passed over. Gives the keys that calls admitted before may
    /// still hold.
    pub(in crate::kms) fn declare_again(
        &self,
        policies: Vec<DeclaredPolicy>,
        enabled: &BTreeSet<KeyId>,
    ) -> Retired {
        let mut policies: HashMap<_, _> = policies
            .into_iter()
            .map(|policy| ((policy.account.clone(), policy.key_id.clone()), policy))
            .collect();
        let mut retired = Retired::new();
        let declared = self.declared();
        // All at once: no call meets one key as it was and another as it is.
        let mut keys = self.write();
        for old in declared {
            let (account, key_id) = (&old.body.account, &old.body.key_id);
            let policy = policies.remove(&(account.clone(), key_id.clone()));
            // Security: a key that is declared no longer is nobody's to use.
            let state = if enabled.contains(key_id) {
                StoredState::Enabled
            } else {
                StoredState::Disabled
            };
            let (text, policy) = match policy {
                Some(new) => (new.text, new.policy),
                None => (old.body.policy.clone(), old.policy.clone()),
            };
            if old.body.policy == text && old.body.state == state {
                continue;
            }
            let body = StoredKey {
                policy: text,
                state,
                epoch: old.body.epoch + 1,
                ..old.body.clone()
            };
            // Security: whoever was let in by what was said before loses the key that they held. Hosts keep
            // the handle of one that stays enabled.
            let is_same = old.is_enabled() && state == StoredState::Enabled;
            let (key, retirement) = if is_same {
                let admission = Retirement::Admission(old.key.clone());
                (Arc::new(old.key.admitted_anew()), admission)
            } else {
                // What was trusted first goes on to be.
                let check_value = old.key.check_value().cloned();
                let trusted = StoredKey {
                    check_value: body.check_value.clone().or(check_value),
                    ..body.clone()
                };
                let fenced = Retirement::Key(old.key.clone());
                (Arc::new(trusted.token_key()), fenced)
            };
            retired.extend(old.group.map(|group| (group, retirement)));
            let record = KeyRecord {
                key,
                source: old.source,
                arn: old.arn.clone(),
                policy,
                unreadable_policy: None,
                group: old.group,
                last_use: old.last_use.clone(),
                held: old.held,
                body,
            };
            let own = keys.accounts.entry(account.clone()).or_default();
            own.put_key(&self.region, key_id, Entry::Key(Arc::new(record)));
        }
        retired
    }
}

fn group_of(declared: &DeclaredKey, groups: &[String]) -> Result<usize, String> {
    let key_id = &declared.key_id;
    match (&declared.token, groups) {
        (Some(name), _) => groups
            .iter()
            .position(|group| group == name)
            .ok_or_else(|| {
                format!("key {key_id} names {name:?}, but there is no token or group of this name")
            }),
        (None, [_]) => Ok(0),
        (None, _) => Err(format!(
            "key {key_id} names no token, and there are {}; set token = \"…\" in its [[key]]",
            groups.len()
        )),
    }
}
