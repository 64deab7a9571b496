//! Aliases: other names of keys, which move from key to key.

use std::{sync::Arc, time::Instant};

use super::{marker, validate};
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::{Authorized, RequestContext, Subject},
        catalogue::{
            Alias, KeyRecord,
            stored::{self, StoredAlias},
        },
        errors::{declared, internal},
        lifecycle::{Decided, may_change},
        service::{Kms, check_state},
    },
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
    /// KMS's for CreateAlias: [`Kind::Validation`], [`Kind::InvalidAliasName`],
    /// [`Kind::AlreadyExists`], [`Kind::AccessDenied`], [`Kind::NotFound`], [`Kind::InvalidArn`],
    /// [`Kind::InvalidState`], [`Kind::LimitExceeded`], [`Kind::UnsupportedOperation`],
    /// [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn create_alias(
        &self,
        caller: &Caller,
        request: &CreateAlias,
        until: Instant,
    ) -> Result<(), Error> {
        let (name, target) = names(
            request.alias_name.as_deref(),
            request.target_key_id.as_deref(),
        )?;
        let change = self.lifecycle()?.change(until, || {
            let (_, record) =
                self.require_alias(caller, Operation::CreateAlias, &name, Some(target))?;
            let record = record.ok_or_else(no_target)?;
            let expect = may_change(&record)?;
            check_state(Operation::CreateAlias, &record)?;
            if self.catalogue.alias(caller, &name).is_some() {
                let arn = self.catalogue.alias_arn(caller.account(), &name);
                return Err(Error::new(
                    Kind::AlreadyExists,
                    format!("An alias with the name {arn} already exists"),
                ));
            }
            self.has_room_for_alias(&record)?;
            let made = Date::now();
            let alias = StoredAlias {
                target: record.body.key_id.clone(),
                created: made,
                updated: made,
            };
            let change = point(caller, &name, &alias, Expect::Absent, expect);
            Ok(Decided::Commit(change, ()))
        });
        change.await
    }

    /// Moves an alias to another key: from the answer on it finds that one.
    ///
    /// # Errors
    /// KMS's for UpdateAlias: [`Kind::Validation`], [`Kind::InvalidAliasName`], [`Kind::AccessDenied`],
    /// [`Kind::NotFound`], [`Kind::InvalidState`], [`Kind::LimitExceeded`], [`Kind::UnsupportedOperation`],
    /// [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn update_alias(
        &self,
        caller: &Caller,
        request: &UpdateAlias,
        until: Instant,
    ) -> Result<(), Error> {
        let (name, target) = names(
            request.alias_name.as_deref(),
            request.target_key_id.as_deref(),
        )?;
        let change = self.lifecycle()?.change(until, || {
            let (alias, record) =
                self.require_alias(caller, Operation::UpdateAlias, &name, Some(target))?;
            let (alias, at) = self.stored_alias(caller, &name, alias)?;
            let record = record.ok_or_else(no_target)?;
            let expect = may_change(&record)?;
            check_state(Operation::UpdateAlias, &record)?;
            if alias.target.as_ref() != Some(&record.body.key_id) {
                self.has_room_for_alias(&record)?;
            }
            let updated = Date::now();
            let moved = StoredAlias {
                target: record.body.key_id.clone(),
                created: alias.created.unwrap_or(updated),
                updated,
            };
            let change = point(caller, &name, &moved, at, expect);
            Ok(Decided::Commit(change, ()))
        });
        change.await
    }

    /// Takes an alias away; the key stays.
    ///
    /// # Errors
    /// KMS's for DeleteAlias: [`Kind::Validation`], [`Kind::InvalidAliasName`],
    /// [`Kind::AccessDenied`], [`Kind::NotFound`], [`Kind::UnsupportedOperation`],
    /// [`Kind::DependencyTimeout`], [`Kind::Internal`].
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
        let change = self.lifecycle()?.change(until, || {
            let (alias, _) = self.require_alias(caller, Operation::DeleteAlias, &name, None)?;
            let (_, at) = self.stored_alias(caller, &name, alias)?;
            let record = stored::alias_name(caller.account(), &name);
            Ok(Decided::Commit(Change::new().delete(record, at), ()))
        });
        change.await
    }

    /// The aliases of the caller's account, or of one of its keys.
    ///
    /// # Errors
    /// KMS's for ListAliases: [`Kind::Validation`], [`Kind::InvalidMarker`],
    /// [`Kind::AccessDenied`], [`Kind::NotFound`], [`Kind::InvalidArn`].
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
        let subject = key_id
            .flatten()
            .map_or(Subject::Account, Subject::KeyOfAccount);
        let context = RequestContext::default();
        let Authorized { key: of, .. } =
            self.require(caller, Operation::ListAliases, subject, context)?;
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

    /// An alias as it is, and the key that it is to find, once the caller may use both.
    fn require_alias(
        &self,
        caller: &Caller,
        operation: Operation,
        name: &AliasName,
        target: Option<&str>,
    ) -> Result<(Option<Alias>, Option<Arc<KeyRecord>>), Error> {
        let subject = Subject::Alias { name, target };
        let authorized = self.require(caller, operation, subject, RequestContext::default())?;
        Ok((authorized.alias, authorized.key))
    }

    /// An alias of the store, and what must hold of it when it is changed.
    fn stored_alias(
        &self,
        caller: &Caller,
        name: &AliasName,
        alias: Option<Alias>,
    ) -> Result<(Alias, Expect), Error> {
        let alias = alias.ok_or_else(|| self.catalogue.no_alias(caller, name.as_str()))?;
        match alias.source.revision() {
            Some(revision) => Ok((alias, Expect::At(revision))),
            None => Err(declared(&self.catalogue.alias_arn(caller.account(), name))),
        }
    }

    /// Two callers at once may get one alias too many: the quota guards against runaway programs.
    fn has_room_for_alias(&self, record: &KeyRecord) -> Result<(), Error> {
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

fn names<'a>(
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

fn no_target() -> Error {
    internal("an alias's target was authorised and not found")
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
    alias: &StoredAlias,
    at: Expect,
    key: Expect,
) -> Change {
    let account = caller.account();
    Change::new()
        .put(stored::alias_name(account, name), stored::write(alias), at)
        .require(stored::key_name(account, &alias.target), key)
}
