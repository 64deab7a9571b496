use std::time::Instant;

use super::{
    Kms,
    catalogue::{self, Record, names_alias},
    change::{Decision, check_state, declared, may_change},
    marker, now, records,
    rights::{Asks, On},
    validate,
};
use crate::{
    error::{Error, Kind},
    model::{AliasName, Caller, Date, KeyId, Operation},
    store::{Change, Expect},
};

/// KMS: CreateAliasRequest.
#[derive(Clone, Debug)]
pub struct CreateAlias {
    /// `alias/` and letters, digits, `/`, `_`, `-`; at most 256 characters.
    pub alias_name: Option<String>,
    /// Key ID or key ARN.
    pub target_key_id: Option<String>,
}

/// KMS: UpdateAliasRequest.
#[derive(Clone, Debug)]
pub struct UpdateAlias {
    /// As in [`CreateAlias`]; it must be there.
    pub alias_name: Option<String>,
    /// Key ID or key ARN.
    pub target_key_id: Option<String>,
}

/// KMS: DeleteAliasRequest.
#[derive(Clone, Debug)]
pub struct DeleteAlias {
    /// As in [`CreateAlias`]; it must be there.
    pub alias_name: Option<String>,
}

/// KMS: ListAliasesRequest.
#[derive(Clone, Debug)]
pub struct ListAliases {
    /// Key ID or key ARN: this key's aliases only.
    pub key_id: Option<String>,
    /// 1 to 1,000, of which at most 100 are given; 50 if absent.
    pub limit: Option<i64>,
    /// [`AliasPage::next_marker`] of the page before.
    pub marker: Option<String>,
}

/// KMS: ListAliasesResponse.
#[derive(Clone, Debug)]
pub struct AliasPage {
    /// In the order of their names.
    pub aliases: Vec<ListedAlias>,
    /// Where the next page begins, if there is one.
    pub next_marker: Option<String>,
}

/// KMS: AliasListEntry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedAlias {
    /// With its `alias/`.
    pub name: AliasName,
    /// The alias's ARN.
    pub arn: String,
    /// Absent if the alias's record cannot be read.
    pub target_key_id: Option<KeyId>,
    /// Absent for declared aliases.
    pub created: Option<Date>,
    /// Absent for declared aliases.
    pub updated: Option<Date>,
}

impl Kms {
    /// Gives a key another name.
    ///
    /// # Errors
    /// Those of KMS's CreateAlias.
    pub async fn create_alias(
        &self,
        caller: &Caller,
        request: &CreateAlias,
        until: Instant,
    ) -> Result<(), Error> {
        let (name, target) = named(
            request.alias_name.as_deref(),
            request.target_key_id.as_deref(),
        )?;
        self.store()?;
        self.change(until, || {
            let arn = self.catalogue.alias_arn(caller.account(), &name);
            self.may(
                caller,
                Operation::CreateAlias,
                &On::Arn(&arn),
                &Asks::default(),
            )?;
            let record = self.target(caller, Operation::CreateAlias, target)?;
            let expect = may_change(&record)?;
            check_state(Operation::CreateAlias, &record)?;
            if self.catalogue.alias(caller, &name).is_some() {
                return Err(Error::new(
                    Kind::AlreadyExists,
                    format!("An alias with the name {arn} already exists"),
                ));
            }
            self.has_room_for_alias(&record)?;
            let made = now();
            let alias = records::Alias {
                target: record.body.key_id.clone(),
                created: made,
                updated: made,
            };
            let change = point(caller, &name, &alias, Expect::Absent, expect);
            Ok(Decision::Commit(change, ()))
        })
        .await
    }

    /// Moves an alias to another key: from the answer on it finds that one.
    ///
    /// # Errors
    /// Those of KMS's UpdateAlias.
    pub async fn update_alias(
        &self,
        caller: &Caller,
        request: &UpdateAlias,
        until: Instant,
    ) -> Result<(), Error> {
        let (name, target) = named(
            request.alias_name.as_deref(),
            request.target_key_id.as_deref(),
        )?;
        self.store()?;
        self.change(until, || {
            let (alias, at) = self.own_alias(caller, Operation::UpdateAlias, &name)?;
            let record = self.target(caller, Operation::UpdateAlias, target)?;
            let expect = may_change(&record)?;
            check_state(Operation::UpdateAlias, &record)?;
            if alias.target.as_ref() != Some(&record.body.key_id) {
                self.has_room_for_alias(&record)?;
            }
            let updated = now();
            let moved = records::Alias {
                target: record.body.key_id.clone(),
                created: alias.created.unwrap_or(updated),
                updated,
            };
            let change = point(caller, &name, &moved, at, expect);
            Ok(Decision::Commit(change, ()))
        })
        .await
    }

    /// Takes an alias away; the key stays.
    ///
    /// # Errors
    /// Those of KMS's DeleteAlias.
    pub async fn delete_alias(
        &self,
        caller: &Caller,
        request: &DeleteAlias,
        until: Instant,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let name = validate::alias_name(request.alias_name.as_deref(), &mut broken);
        let Some(name) = name else {
            return Err(validate::refuse(broken));
        };
        let name = name?;
        self.store()?;
        self.change(until, || {
            let (_, at) = self.own_alias(caller, Operation::DeleteAlias, &name)?;
            let record = records::alias_name(caller.account(), &name);
            Ok(Decision::Commit(Change::new().delete(record, at), ()))
        })
        .await
    }

    /// The aliases of the caller's account, or of one of its keys.
    ///
    /// # Errors
    /// Those of KMS's ListAliases.
    pub fn list_aliases(&self, caller: &Caller, request: &ListAliases) -> Result<AliasPage, Error> {
        let mut broken = Vec::new();
        let key_id = request.key_id.as_deref();
        let key_id = key_id.map(|key_id| validate::key_id(Some(key_id), &mut broken));
        let limit = validate::limit(request.limit, 50, 100, &mut broken);
        let marker = request.marker.as_deref();
        let marker = marker.filter(|marker| validate::marker(marker, &mut broken));
        let (Some(limit), true) = (limit, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let of = match key_id.flatten() {
            Some(key_id) => {
                Some(self.admit(caller, Operation::ListAliases, key_id, &Asks::default())?)
            }
            None => {
                self.may(
                    caller,
                    Operation::ListAliases,
                    &On::Nothing,
                    &Asks::default(),
                )?;
                None
            }
        };
        let after: Option<AliasName> = marker.map(|text| marker::read(MARKER, text)).transpose()?;

        let (page, more) = self.catalogue.page_of_aliases(
            caller.account(),
            of.as_ref().map(|record| &record.body.key_id),
            after.as_ref(),
            limit,
        );
        let next_marker = page
            .last()
            .filter(|_| more)
            .map(|(last, _)| marker::write(MARKER, last));
        let aliases = page
            .into_iter()
            .map(|(name, alias)| ListedAlias {
                arn: self.catalogue.alias_arn(caller.account(), &name),
                name,
                target_key_id: alias.target,
                created: alias.created,
                updated: alias.updated,
            })
            .collect();
        Ok(AliasPage {
            aliases,
            next_marker,
        })
    }

    /// The key that an alias is to find.
    fn target(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
    ) -> Result<std::sync::Arc<Record>, Error> {
        if names_alias(key_id) {
            return Err(Error::new(
                Kind::Validation,
                "Aliases must refer to keys. Not aliases",
            ));
        }
        self.admit(caller, operation, key_id, &Asks::default())
    }

    /// An alias of the store that the caller may change, and what must hold of it then.
    fn own_alias(
        &self,
        caller: &Caller,
        operation: Operation,
        name: &AliasName,
    ) -> Result<(catalogue::Alias, Expect), Error> {
        let arn = self.catalogue.alias_arn(caller.account(), name);
        // Security: who has no right to an alias does not learn whether it is there.
        self.may(caller, operation, &On::Arn(&arn), &Asks::default())?;
        let alias = self
            .catalogue
            .alias(caller, name)
            .ok_or_else(|| self.catalogue.no_alias(caller, name.as_str()))?;
        // Its key's rights count too, while there is that key.
        let key = alias
            .target
            .as_ref()
            .and_then(|id| self.catalogue.record(caller.account(), id));
        if let Some(key) = &key {
            self.may(caller, operation, &On::Key(key), &Asks::default())?;
        }
        match alias.source.revision() {
            Some(revision) => Ok((alias, Expect::At(revision))),
            None => Err(declared(&arn)),
        }
    }

    /// Two callers at once may get one alias too many: the quota guards against runaway programs.
    fn has_room_for_alias(&self, record: &Record) -> Result<(), Error> {
        if self.catalogue.count_aliases(record) < MOST_ALIASES {
            return Ok(());
        }
        Err(Error::new(
            Kind::LimitExceeded,
            format!(
                "{} has {MOST_ALIASES} aliases, which is the most.",
                record.arn
            ),
        ))
    }
}

fn named<'a>(
    alias_name: Option<&str>,
    target_key_id: Option<&'a str>,
) -> Result<(AliasName, &'a str), Error> {
    let mut broken = Vec::new();
    let name = validate::alias_name(alias_name, &mut broken);
    let target = validate::key_id_at("targetKeyId", target_key_id, &mut broken);
    match (name, target) {
        (Some(name), Some(target)) => Ok((name?, target)),
        (_, _) => Err(validate::refuse(broken)),
    }
}

/// KMS's quota of aliases of one key.
const MOST_ALIASES: usize = 50;

/// What a marker of ListAliases begins with.
const MARKER: &str = "aliases:";

/// Lets an alias mean a key, if both still are what they were: a key that is deleted meanwhile gets
/// none.
fn point(
    caller: &Caller,
    name: &AliasName,
    alias: &records::Alias,
    at: Expect,
    key: Expect,
) -> Change {
    let account = caller.account();
    Change::new()
        .put(
            records::alias_name(account, name),
            records::write(alias),
            at,
        )
        .require(records::key_name(account, &alias.target), key)
}
