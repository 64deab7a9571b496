//! The keys in memory: found by every name that a client may use, listed in the order of their IDs.
//!
//! Declared keys come from the configuration and its reloads; stored ones follow the store (`follow.rs`
//! feeds what it tells). Readers take a read lock for one look-up, and leave with an
//! `Arc`: no lock is held while anything is waited for. A lock and not a map that is swapped as a
//! whole (arc-swap): a change touches a few names, and must not cost a copy of 100,000.

mod account;
mod declared;
mod follow;
mod grants;
mod groups;
mod last_use;
mod list;
mod snapshot;
pub(super) mod stored;
#[cfg(test)]
pub(super) mod tests;

pub(super) use self::{
    declared::Declared,
    follow::{Retired, Retirement},
    grants::{GrantRecord, KeyGrants},
    snapshot::Snapshot,
};

use std::{
    collections::HashMap,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::watch;

use self::{
    account::{Account, Entry},
    grants::GrantsById,
    last_use::LastUse,
    stored::{StoredKey, StoredState},
};
use crate::{
    error::{Error, Kind},
    kms::{
        errors::{no_such_resource, unavailable},
        grant_token::GrantTokenKey,
    },
    model::{
        AccountId, AliasName, Caller, Date, GrantId, KeyId, KeyReference, KeyState, Operation,
        ReferenceFault, alias_arn, alias_in, echo, key_arn, policy::Policy,
    },
    store::{Name, Revision},
    token,
};

/// What is known of one key. Never changes: a change is a new record under the same names.
#[derive(Clone)]
pub(super) struct KeyRecord {
    pub(super) body: StoredKey,
    pub(super) source: Source,
    /// Ready for answers: the hot path does not format it.
    pub(super) arn: Arc<str>,
    /// The key's policy, compiled.
    pub(super) policy: Arc<Policy>,
    /// Why its own policy is not in force: this version cannot read it. Then `policy` lets the
    /// account's root mend it.
    pub(super) unreadable_policy: Option<Arc<str>>,
    /// Which of the groups of tokens has it; none if the configuration no longer has that one.
    pub(super) group: Option<usize>,
    /// Shared by all records of one epoch.
    pub(super) key: Arc<token::TokenKey>,
    pub(super) last_use: Arc<LastUse>,
    /// Shared by all records of the key.
    pub(super) grants: Arc<KeyGrants>,
    /// The store was restored from a backup, and nobody has confirmed it.
    pub(super) held: bool,
}

/// Who says what a key or an alias is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// The configuration.
    Declared,
    /// The store, at this revision.
    Stored(Revision),
}

impl Source {
    pub(super) fn revision(self) -> Option<Revision> {
        match self {
            Self::Declared => None,
            Self::Stored(revision) => Some(revision),
        }
    }
}

impl KeyRecord {
    /// Where it stands for KMS's table. Disabled hides that the token has trouble with the key: the
    /// operator's word comes first.
    pub(super) fn state(&self) -> KeyState {
        let configured = self.configured_state();
        let troubled = || self.group.is_none() || self.key.failure().is_some();
        if configured == KeyState::Enabled && troubled() {
            return KeyState::Unavailable;
        }
        configured
    }

    /// The grants that count now. A backup may be older than the end of a grant, and a policy that
    /// nobody can read may deny what a grant allows.
    pub(super) fn grants_in_force(&self) -> Option<&KeyGrants> {
        // Security: what is not known to be allowed is not.
        (!self.held && self.unreadable_policy.is_none()).then_some(&*self.grants)
    }

    /// Whether its record lets it serve, on hold or not.
    fn is_enabled(&self) -> bool {
        self.body.state == StoredState::Enabled
    }

    /// The state that the configuration or the store gives it, whatever its token says.
    pub(super) fn configured_state(&self) -> KeyState {
        match self.body.state {
            // Security: a backup may be older than a DisableKey.
            StoredState::Enabled if self.held => KeyState::Disabled,
            StoredState::Enabled => KeyState::Enabled,
            StoredState::Disabled => KeyState::Disabled,
            StoredState::PendingImport => KeyState::PendingImport,
            StoredState::PendingDeletion { .. } | StoredState::Deleting => {
                KeyState::PendingDeletion
            }
        }
    }
}

/// An alias.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Alias {
    /// None: its record cannot be read.
    pub(super) target: Option<KeyId>,
    pub(super) source: Source,
    /// Absent for declared ones.
    pub(super) created: Option<Date>,
    pub(super) updated: Option<Date>,
}

/// All keys and aliases.
pub(super) struct Catalogue {
    /// The account of declared keys.
    account: AccountId,
    region: String,
    keys: RwLock<Accounts>,
    /// The last change of the store that is seen here.
    seen: watch::Sender<Revision>,
}

#[derive(Default)]
struct Accounts {
    accounts: HashMap<AccountId, Account>,
    /// By the ARN of who may retire them, whoever's the key is.
    retirable: HashMap<Box<str>, GrantsById>,
    /// What makes and checks grant tokens, once there was a grant.
    grant_token_key: Option<Arc<GrantTokenKey>>,
    /// See [`KeyRecord::held`].
    held: bool,
    groups: GroupNames,
}

/// The names of the groups of tokens; records name theirs by its place here, which is no other's once it
/// is gone.
pub(super) type GroupNames = Vec<Option<String>>;

impl Catalogue {
    /// The key that a caller means.
    pub(super) fn resolve(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
    ) -> Result<Arc<KeyRecord>, Error> {
        if !operation.takes_alias() && alias_in(key_id).is_some() {
            return Err(Error::new(
                Kind::InvalidArn,
                "Key Aliases are not supported for this operation.",
            ));
        }
        // Security: key IDs and alias names mean those of the caller's own account.
        let own = self.find(caller.account(), key_id);
        own.or_else(|| self.cross_account(caller, operation, key_id))
            .ok_or_else(|| self.explain(caller, operation, key_id))
    }

    /// A key of another account, which only its ARN or an alias's ARN names, and only for operations
    /// that cross accounts. Whether its policy lets the caller in is not decided here.
    fn cross_account(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
    ) -> Option<Arc<KeyRecord>> {
        if !operation.crosses_accounts() {
            return None;
        }
        match key_id.parse() {
            Ok(KeyReference::Arn(scope, _) | KeyReference::AliasArn(scope, _))
                if scope.account != *caller.account() =>
            {
                self.find(&scope.account, key_id)
            }
            Ok(_) | Err(_) => None,
        }
    }

    fn find(&self, account: &AccountId, key_id: &str) -> Option<Arc<KeyRecord>> {
        self.read().accounts.get(account)?.find(key_id).cloned()
    }

    /// An alias of the caller's account.
    pub(super) fn alias(&self, caller: &Caller, name: &AliasName) -> Option<Alias> {
        let keys = self.read();
        let account = keys.accounts.get(caller.account())?;
        account.aliases().get(name).cloned()
    }

    /// How many aliases a key has.
    pub(super) fn count_aliases(&self, record: &KeyRecord) -> usize {
        let keys = self.read();
        keys.accounts
            .get(&record.body.account)
            .map_or(0, |account| account.aliases_of(&record.body.key_id).count())
    }

    /// How many keys an account has.
    pub(super) fn count_keys(&self, account: &AccountId) -> usize {
        let keys = self.read();
        keys.accounts
            .get(account)
            .map_or(0, |account| account.keys().len())
    }

    /// How many keys lie in a group that the configuration no longer has.
    pub(super) fn count_without_group(&self, name: &str) -> usize {
        let is_there =
            |record: &&Arc<KeyRecord>| record.group.is_none() && record.body.locator.token == name;
        self.all().iter().filter(is_there).count()
    }

    /// The record of a key, whoever asks.
    pub(super) fn record(&self, account: &AccountId, key_id: &KeyId) -> Option<Arc<KeyRecord>> {
        let keys = self.read();
        keys.accounts.get(account)?.record(key_id).cloned()
    }

    /// The stored keys that can be used or come back.
    pub(super) fn stored(&self) -> Vec<Arc<KeyRecord>> {
        let keys = self.read();
        let entries = keys.accounts.values().flat_map(|own| own.keys().values());
        let records = entries.filter_map(|entry| match entry {
            Entry::Key(record) => record.source.revision().map(|_| record.clone()),
            Entry::Unreadable(_) => None,
        });
        records.collect()
    }

    /// Stored keys that are to go: their deletion date has come, or their end has begun.
    pub(super) fn due(&self, now: Date) -> Vec<Arc<KeyRecord>> {
        let keys = self.read();
        let mut due = Vec::new();
        for account in keys.accounts.values() {
            due.extend(account.deleting().values().cloned());
            due.extend(account.keys().values().filter_map(|entry| match entry {
                Entry::Key(record) => match record.body.state {
                    StoredState::PendingDeletion { deletion_date, .. } => {
                        (deletion_date <= now).then(|| record.clone())
                    }
                    StoredState::Enabled
                    | StoredState::Disabled
                    | StoredState::PendingImport
                    | StoredState::Deleting => None,
                },
                Entry::Unreadable(_) => None,
            }));
        }
        due
    }

    /// The aliases of a key, and who says so.
    pub(super) fn aliases_of(
        &self,
        account: &AccountId,
        key_id: &KeyId,
    ) -> Vec<(AliasName, Source)> {
        let keys = self.read();
        let Some(own) = keys.accounts.get(account) else {
            return Vec::new();
        };
        own.aliases_of(key_id)
            .filter_map(|name| Some((name.clone(), own.aliases().get(name)?.source)))
            .collect()
    }

    /// Up to `limit` grants that a principal may retire, after an ID, and whether there are more. Those of
    /// keys that are deleting are gone for clients.
    pub(super) fn page_of_retirable(
        &self,
        retiring_arn: &str,
        after: Option<&GrantId>,
        limit: usize,
        suits: impl Fn(&GrantRecord) -> bool,
    ) -> (Vec<Arc<GrantRecord>>, bool) {
        let keys = self.read();
        let Some(grants) = keys.retirable.get(retiring_arn) else {
            return (Vec::new(), false);
        };
        let is_there = |grant: &GrantRecord| {
            let own = keys.accounts.get(&grant.account);
            own.is_some_and(|own| own.record(&grant.key_id).is_some())
        };
        grants::page(grants, after, limit, |grant| {
            is_there(grant) && suits(grant)
        })
    }

    /// What makes and checks grant tokens; none before the first grant.
    pub(super) fn grant_token_key(&self) -> Option<Arc<GrantTokenKey>> {
        self.read().grant_token_key.clone()
    }

    /// The last uses that the store does not know, with the names that they have there.
    pub(super) fn unwritten_uses(&self) -> Vec<(Name, Arc<LastUse>)> {
        let keys = self.read();
        let mut uses = Vec::new();
        for account in keys.accounts.values() {
            uses.extend(account.keys().values().filter_map(|entry| match entry {
                Entry::Key(record) if record.last_use.is_unwritten() => Some((
                    stored::usage_name(&record.body.account, &record.body.key_id),
                    record.last_use.clone(),
                )),
                Entry::Key(_) | Entry::Unreadable(_) => None,
            }));
        }
        uses
    }

    /// Whether keys are held because the store was restored.
    pub(super) fn is_held(&self) -> bool {
        self.read().held
    }

    /// The region of every key and alias.
    pub(super) fn region(&self) -> &str {
        &self.region
    }

    pub(super) fn key_arn(&self, account: &AccountId, key_id: &KeyId) -> String {
        key_arn(&self.region, account, key_id)
    }

    pub(super) fn alias_arn(&self, account: &AccountId, name: &AliasName) -> String {
        alias_arn(&self.region, account, name.as_str())
    }

    /// Returns once the changes up to `revision` are seen here.
    pub(super) async fn reached(&self, revision: Revision) {
        let mut seen = self.seen.subscribe();
        seen.wait_for(|seen| *seen >= revision)
            .await
            .expect("the catalogue itself holds the sender");
    }

    /// Why a name finds nothing: first its form, then its region, then its account, as KMS.
    fn explain(&self, caller: &Caller, operation: Operation, key_id: &str) -> Error {
        let not_found = |say: String| Error::new(Kind::NotFound, say);
        let reference = match key_id.parse() {
            Ok(reference) => reference,
            Err(ReferenceFault::KeyId) => {
                return not_found(format!("Invalid keyId '{}'", echo(key_id, KEY_ID_ECHO)));
            }
            // GenerateMac and VerifyMac have no InvalidArnException in KMS's model.
            Err(ReferenceFault::Arn) => {
                return not_found(format!("Invalid arn {}", echo(key_id, KEY_ID_ECHO)));
            }
        };
        match &reference {
            KeyReference::Arn(scope, _) | KeyReference::AliasArn(scope, _)
                if scope.region != self.region =>
            {
                not_found(format!("Invalid arn {}", scope.region))
            }
            KeyReference::Arn(scope, _) | KeyReference::AliasArn(scope, _)
                if scope.account != *caller.account() =>
            {
                no_such_resource(caller, operation)
            }
            KeyReference::Id(id) | KeyReference::Arn(_, id) => self.no_key(caller, id),
            KeyReference::Alias(name) | KeyReference::AliasArn(_, name) => {
                let target = name
                    .parse()
                    .ok()
                    .and_then(|name| self.alias(caller, &name)?.target);
                match target {
                    Some(id) if self.is_unreadable(caller.account(), &id) => {
                        self.no_key(caller, &id)
                    }
                    Some(_) | None => self.no_alias(caller, name),
                }
            }
        }
    }

    fn no_key(&self, caller: &Caller, id: &KeyId) -> Error {
        let arn = key_arn(&self.region, caller.account(), id);
        if self.is_unreadable(caller.account(), id) {
            return unavailable(&arn).because("its record in the store cannot be read");
        }
        Error::new(Kind::NotFound, format!("Key '{arn}' does not exist"))
    }

    /// KMS's word for an alias that is not there.
    pub(super) fn no_alias(&self, caller: &Caller, name: &str) -> Error {
        let arn = alias_arn(&self.region, caller.account(), name);
        Error::new(Kind::NotFound, format!("Alias {arn} is not found."))
    }

    fn is_unreadable(&self, account: &AccountId, id: &KeyId) -> bool {
        let keys = self.read();
        keys.accounts
            .get(account)
            .is_some_and(|account| matches!(account.keys().get(id), Some(Entry::Unreadable(_))))
    }

    fn read(&self) -> RwLockReadGuard<'_, Accounts> {
        self.keys.read().expect(UNPOISONED)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Accounts> {
        self.keys.write().expect(UNPOISONED)
    }
}

/// Whether a text names an alias, or begins as an alias's name or ARN does.
const UNPOISONED: &str = "no holder of the catalogue's lock panics";

/// The longest key ID, if it is plain ASCII.
const KEY_ID_ECHO: usize = 2048;
