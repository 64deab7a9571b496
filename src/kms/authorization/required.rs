//! What each operation needs: the rights that it asks for, in which order, and on what.
//!
//! Declared here once. The server enforces it ([`Enforce`] ends at the first denial); `hsmac policy
//! simulate` walks the very steps with an [`Authorizer`] that keeps each decision.

use std::sync::Arc;

use super::{Principals, RequestContext, Resource, authorize};
use crate::{
    audit,
    error::{Error, Kind},
    kms::{
        catalogue::{Alias, Catalogue, GrantRecord, KeyRecord},
        errors::{no_grant, no_such_resource},
    },
    model::{AliasName, Caller, GrantId, Operation, alias_in},
};

/// What a request asks for the right to, by the names in the request.
#[derive(Clone, Copy, Debug)]
pub(in crate::kms) enum Subject<'a> {
    /// The account: the operation is about no key.
    Account,
    /// A key that is to be made, by the ARN that it will have.
    NewKey(&'a str),
    /// A key.
    Key(&'a str),
    /// The account, of which one key is meant: its policy is not asked.
    KeyOfAccount(&'a str),
    /// A grant on a key: who may retire it is what the grant says.
    Grant { key_id: &'a str, grant_id: &'a str },
    /// An alias, and the key that it is to find from now on.
    Alias {
        name: &'a AliasName,
        target: Option<&'a str>,
    },
}

/// What was found on the way, all of which the caller may use.
#[derive(Default)]
pub(in crate::kms) struct Authorized {
    /// The key that the request names.
    pub(in crate::kms) key: Option<Arc<KeyRecord>>,
    /// UpdateAlias and DeleteAlias: the alias as it is.
    pub(in crate::kms) alias: Option<Alias>,
    /// The grant that alone allows the request to use the key; of RetireGrant the grant that is meant.
    pub(in crate::kms) grant: Option<Arc<GrantRecord>>,
}

/// Who decides on each right.
pub(in crate::kms) trait Authorizer {
    /// Gives the grant that alone allows it, if it is one.
    ///
    /// # Errors
    /// The caller does not have this right, and the rest need not be asked for.
    fn authorize(
        &mut self,
        operation: Operation,
        resource: Resource<'_>,
        context: &RequestContext<'_>,
    ) -> Result<Option<Arc<GrantRecord>>, Error>;

    /// No key that the caller may know of has this name, so that no policy was asked.
    fn not_found(&mut self, operation: Operation, key_id: &str, error: &Error);
}

/// Asks for every right that an operation needs.
///
/// # Errors
/// [`Kind::AccessDenied`], and why the names in the request find nothing: [`Kind::NotFound`],
/// [`Kind::InvalidArn`], [`Kind::InvalidState`], [`Kind::Validation`], [`Kind::InvalidGrantToken`].
pub(in crate::kms) fn require(
    authorizer: &mut impl Authorizer,
    catalogue: &Catalogue,
    caller: &Caller,
    operation: Operation,
    subject: Subject<'_>,
    context: RequestContext<'_>,
) -> Result<Authorized, Error> {
    let context = context.of(operation);
    let mut authorized = Authorized::default();
    let key_id = match subject {
        Subject::Account => {
            authorizer.authorize(operation, Resource::Any, &context)?;
            return Ok(authorized);
        }
        Subject::NewKey(arn) => {
            authorizer.authorize(operation, Resource::Any, &context)?;
            if context.tags.is_some_and(|tags| !tags.as_slice().is_empty()) {
                authorizer.authorize(Operation::TagResource, Resource::Arn(arn), &context)?;
            }
            return Ok(authorized);
        }
        Subject::KeyOfAccount(key_id) => {
            authorizer.authorize(operation, Resource::Any, &context)?;
            authorized.key = Some(resolve(authorizer, catalogue, caller, operation, key_id)?);
            return Ok(authorized);
        }
        Subject::Key(key_id) => key_id,
        Subject::Grant { key_id, grant_id } => {
            let record = resolve(authorizer, catalogue, caller, operation, key_id)?;
            let id: Option<GrantId> = grant_id.parse().ok();
            let Some(grant) = id.and_then(|id| record.grants.find(&id)) else {
                // Security: nor does a stranger learn that the key is there.
                let is_own = record.body.account == *caller.account();
                if is_own {
                    return Err(no_grant(grant_id));
                }
                let error = no_such_resource(caller, operation);
                authorizer.not_found(operation, key_id, &error);
                return Err(error);
            };
            let context = RequestContext {
                key_id: Some(key_id),
                retired: Some(&grant),
                ..context
            };
            authorizer.authorize(operation, Resource::Key(&record), &context)?;
            authorized.grant = Some(grant);
            authorized.key = Some(record);
            return Ok(authorized);
        }
        Subject::Alias { name, target } => {
            // Security: who has no right to an alias does not learn whether it is there.
            let arn = catalogue.alias_arn(caller.account(), name);
            authorizer.authorize(operation, Resource::Arn(&arn), &context)?;
            if operation != Operation::CreateAlias {
                let alias = catalogue
                    .alias(caller, name)
                    .ok_or_else(|| catalogue.no_alias(caller, name.as_str()))?;
                // The rights of the key that it finds now count too, while there is that key.
                let key = alias
                    .target
                    .as_ref()
                    .and_then(|id| catalogue.record(caller.account(), id));
                if let Some(key) = &key {
                    authorizer.authorize(operation, Resource::Key(key), &context)?;
                }
                authorized.alias = Some(alias);
            }
            match target {
                Some(key_id) if alias_in(key_id).is_some() => {
                    return Err(Error::new(
                        Kind::Validation,
                        "Aliases must refer to keys. Not aliases",
                    ));
                }
                Some(key_id) => key_id,
                None => return Ok(authorized),
            }
        }
    };
    let record = resolve(authorizer, catalogue, caller, operation, key_id)?;
    // Security: before anything that would tell somebody without rights that the key is there.
    let context = RequestContext {
        key_id: Some(key_id),
        ..context
    };
    authorized.grant = authorizer.authorize(operation, Resource::Key(&record), &context)?;
    if !context.grant_tokens.is_empty() {
        check_grant_tokens(catalogue, context.grant_tokens)?;
    }
    authorized.key = Some(record);
    Ok(authorized)
}

/// Whether tokens are ours. What their grants allow was decided without them: a grant counts from the
/// moment on at which CreateGrant has answered, and the catalogue knows it.
///
/// # Errors
/// [`Kind::InvalidGrantToken`]
fn check_grant_tokens(catalogue: &Catalogue, tokens: &[String]) -> Result<(), Error> {
    let key = catalogue.grant_token_key();
    let is_ours = |token: &String| key.as_ref().is_some_and(|key| key.open(token).is_some());
    match tokens.iter().all(is_ours) {
        true => Ok(()),
        false => Err(Error::new(Kind::InvalidGrantToken, "")),
    }
}

fn resolve(
    authorizer: &mut impl Authorizer,
    catalogue: &Catalogue,
    caller: &Caller,
    operation: Operation,
    key_id: &str,
) -> Result<Arc<KeyRecord>, Error> {
    let resolved = catalogue.resolve(caller, operation, key_id);
    resolved
        .inspect(|record| audit::note_key(&record.arn))
        .inspect_err(|error| authorizer.not_found(operation, key_id, error))
}

/// The server's decisions, by the policies that are in force.
pub(in crate::kms) struct Enforce<'a> {
    pub(in crate::kms) catalogue: &'a Catalogue,
    pub(in crate::kms) principals: &'a Principals,
    pub(in crate::kms) caller: &'a Caller,
}

impl Authorizer for Enforce<'_> {
    fn authorize(
        &mut self,
        operation: Operation,
        resource: Resource<'_>,
        context: &RequestContext<'_>,
    ) -> Result<Option<Arc<GrantRecord>>, Error> {
        authorize(
            self.catalogue,
            self.principals,
            self.caller,
            operation,
            resource,
            context,
        )
    }

    fn not_found(&mut self, _: Operation, _: &str, _: &Error) {}
}
