//! RetireGrant and RevokeGrant: both take a grant away, and differ in who may do it.

use std::{sync::Arc, time::Instant};

use super::super::{
    dry_run,
    validate::{self, text},
};
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::{Authorized, RequestContext, Subject},
        catalogue::{GrantRecord, KeyRecord, stored},
        errors::{internal, no_grant},
        lifecycle::Decided,
        service::{Kms, check_state},
    },
    model::{Caller, Operation},
    store::{Change, Expect},
};

/// KMS: RetireGrantRequest. The grant's token, or its key and its ID.
#[derive(Clone, Debug, Default)]
pub struct RetireGrant {
    /// As CreateGrant gave it.
    pub grant_token: Option<String>,
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// 64 lowercase hex digits.
    pub grant_id: Option<String>,
    /// Do everything but that, then answer with an error.
    pub dry_run: bool,
}

/// KMS: RevokeGrantRequest.
#[derive(Clone, Debug, Default)]
pub struct RevokeGrant {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// 64 lowercase hex digits.
    pub grant_id: Option<String>,
    /// Do everything but that, then answer with an error.
    pub dry_run: bool,
}

impl Kms {
    /// Takes a grant away for whom the grant itself lets do it: its retiring principal, its grantee if it
    /// may, and whom its issuing account lets. When this has returned, no call that the grant alone
    /// allowed makes a MAC with the key.
    ///
    /// # Errors
    /// KMS's for RetireGrant: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`], [`Kind::InvalidGrantToken`], [`Kind::DryRun`],
    /// [`Kind::UnsupportedOperation`], [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn retire_grant(
        &self,
        caller: &Caller,
        request: &RetireGrant,
        until: Instant,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let (token, key_id, grant_id) = (
            request.grant_token.as_deref(),
            request.key_id.as_deref(),
            request.grant_id.as_deref(),
        );
        for (member, of, given) in [
            ("grantToken", &text::GRANT_TOKEN, token),
            ("keyId", &text::KEY_ID, key_id),
            ("grantId", &text::GRANT_ID, grant_id),
        ] {
            validate::optional_text(member, of, given, &mut broken);
        }
        if !broken.is_empty() {
            return Err(validate::refuse(broken));
        }
        let (key_id, grant_id) = match (token, key_id, grant_id) {
            (Some(token), None, None) => {
                let key = self.catalogue.grant_token_key();
                let named = key.and_then(|key| key.open(token));
                let named = named.ok_or_else(|| Error::new(Kind::InvalidGrantToken, ""))?;
                let arn = self.catalogue.key_arn(&named.account, &named.key_id);
                (arn, named.grant_id.to_string())
            }
            (None, Some(key_id), Some(grant_id)) => (key_id.to_owned(), grant_id.to_owned()),
            (Some(_), _, _) | (None, _, _) => {
                return Err(Error::new(
                    Kind::Validation,
                    "Grant token OR (grant ID, key ID) must be specified",
                ));
            }
        };
        let subject = Subject::Grant {
            key_id: &key_id,
            grant_id: &grant_id,
        };
        self.end_grant(request.dry_run, until, || {
            let operation = Operation::RetireGrant;
            let context = RequestContext::default();
            let Authorized { key, grant, .. } =
                self.require(caller, operation, subject, context)?;
            let (Some(record), Some(grant)) = (key, grant) else {
                return Err(internal("a grant was authorised and not found"));
            };
            check_state(operation, &record)?;
            Ok((record, grant))
        })
        .await
    }

    /// Takes a grant away, by the right to do so with the key's grants. When this has returned, no call
    /// that the grant alone allowed makes a MAC with the key.
    ///
    /// # Errors
    /// KMS's for RevokeGrant: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`], [`Kind::DryRun`], [`Kind::UnsupportedOperation`],
    /// [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn revoke_grant(
        &self,
        caller: &Caller,
        request: &RevokeGrant,
        until: Instant,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let grant_id = request.grant_id.as_deref();
        let grant_id = validate::required_text("grantId", &text::GRANT_ID, grant_id, &mut broken);
        let (Some(key_id), Some(grant_id)) = (key_id, grant_id) else {
            return Err(validate::refuse(broken));
        };
        self.end_grant(request.dry_run, until, || {
            let operation = Operation::RevokeGrant;
            let context = RequestContext::default();
            let record = self.require_key(caller, operation, key_id, context)?;
            check_state(operation, &record)?;
            let id = grant_id.parse().ok();
            let grant = id.and_then(|id| record.grants.find(&id));
            let grant = grant.ok_or_else(|| no_grant(grant_id))?;
            Ok((record, grant))
        })
        .await
    }

    /// Takes the grant away that `find` gives, and waits for those who came by it alone.
    async fn end_grant(
        &self,
        is_dry_run: bool,
        until: Instant,
        mut find: impl FnMut() -> Result<(Arc<KeyRecord>, Arc<GrantRecord>), Error>,
    ) -> Result<(), Error> {
        let lifecycle = self.lifecycle()?;
        let ended = lifecycle.change(until, || {
            let (record, grant) = find()?;
            if is_dry_run {
                return Err(dry_run());
            }
            let expect = Expect::At(grant.revision);
            let change = stored::without_grant(Change::new(), &grant, expect);
            Ok(Decided::Commit(change, (record, grant)))
        });
        let (record, grant) = ended.await?;
        lifecycle.fence_grant(&record, &grant).await;
        Ok(())
    }
}
