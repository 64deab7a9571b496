//! Keys and aliases of the configuration.

use std::sync::{Arc, RwLock};

use tokio::sync::watch;

use super::{Alias, Catalogue, Keys, Record, Source, account::Entry};
use crate::{
    kms::{Settings, records, rights::DeclaredPolicy, settings::DeclaredKey, usage::Usage},
    model::{AliasName, Description, Origin, Tags, key_arn},
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
            principals: _,
        } = settings;
        let mut keys = Keys::default();
        let own = keys.accounts.entry(account.clone()).or_default();
        for declared in declared {
            let group = group_of(&declared, groups)?;
            let key_id = declared.key_id.clone();
            if own.keys().contains_key(&key_id) {
                return Err(format!("two keys are declared with the key_id {key_id}"));
            }
            let key = Arc::new(declared.token_key());
            let (policy, compiled) = declared
                .compiled_policy(&account)
                .map_err(|fault| format!("key {key_id}: {fault}"))?;
            let description = Description::try_from(declared.description)
                .map_err(|fault| format!("key {key_id}: {fault}"))?;
            let record = Record {
                body: records::Key {
                    key_id: key_id.clone(),
                    account: account.clone(),
                    spec: declared.key_spec,
                    origin: Origin::AwsCloudHsm,
                    life: if declared.enabled {
                        records::Life::Enabled
                    } else {
                        records::Life::Disabled
                    },
                    description,
                    created: None,
                    tags: Tags::default(),
                    policy,
                    check_value: declared.check_value,
                    locator: records::Locator {
                        token: groups[group].clone(),
                        cka_id: key.locator().id.clone(),
                        label: key.locator().label.clone(),
                    },
                    epoch: 0,
                },
                source: Source::Declared,
                arn: key_arn(&region, &account, &key_id).into(),
                policy: compiled,
                unreadable_policy: None,
                group: Some(group),
                key,
                usage: Arc::new(Usage::default()),
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
    /// Gives declared keys other policies. A key that was not declared when hsmac started is passed
    /// over.
    pub(in crate::kms) fn declare_policies(&self, policies: Vec<DeclaredPolicy>) {
        let mut keys = self.write();
        for DeclaredPolicy {
            account,
            key_id,
            text,
            policy,
        } in policies
        {
            let Some(own) = keys.accounts.get_mut(&account) else {
                continue;
            };
            let Some(old) = own.record(&key_id) else {
                continue;
            };
            if old.source != Source::Declared || old.body.policy == text {
                continue;
            }
            let record = Record {
                body: records::Key {
                    policy: text,
                    ..old.body.clone()
                },
                source: old.source,
                arn: old.arn.clone(),
                policy,
                unreadable_policy: None,
                group: old.group,
                key: old.key.clone(),
                usage: old.usage.clone(),
                held: old.held,
            };
            own.put_key(&self.region, &key_id, Entry::Key(Arc::new(record)));
        }
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
