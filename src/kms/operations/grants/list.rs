//! ListGrants and ListRetirableGrants.

use std::sync::Arc;

use super::{
    super::{
        marker,
        validate::{self, text},
    },
    principal, shown,
};
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::{RequestContext, Subject},
        catalogue::GrantRecord,
        principals::Principals,
        service::{Kms, check_state},
    },
    model::{AccountId, Caller, Date, GrantId, GrantOperations, Operation},
};

/// KMS: ListGrantsRequest.
#[derive(Clone, Debug, Default)]
pub struct ListGrants {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// 1 to 1,000, of which at most 100 are given; 50 if absent.
    pub limit: Option<i64>,
    /// [`GrantPage::next_marker`] of the page before.
    pub marker: Option<String>,
    /// Only this grant.
    pub grant_id: Option<String>,
    /// Only the grants of this principal.
    pub grantee_principal: Option<String>,
    /// Only the grants of this AWS service, of which there are none.
    pub grantee_service_principal: Option<String>,
}

/// KMS: ListRetirableGrantsRequest.
#[derive(Clone, Debug, Default)]
pub struct ListRetirableGrants {
    /// 1 to 1,000, of which at most 100 are given; 50 if absent.
    pub limit: Option<i64>,
    /// [`GrantPage::next_marker`] of the page before.
    pub marker: Option<String>,
    /// Who may retire them, a principal of the caller's account; this or the next.
    pub retiring_principal: Option<String>,
    /// The AWS service that may retire them, of which there are none.
    pub retiring_service_principal: Option<String>,
}

/// KMS: ListGrantsResponse.
#[derive(Clone, Debug, Default)]
pub struct GrantPage {
    /// In the order of their IDs.
    pub grants: Vec<ListedGrant>,
    /// Where the next page begins, if there is one.
    pub next_marker: Option<String>,
}

/// KMS: GrantListEntry.
#[derive(Clone, Debug)]
pub struct ListedGrant {
    /// The key's ARN.
    pub key_id: String,
    /// The grant's ID.
    pub grant_id: GrantId,
    /// If it has one.
    pub name: Option<String>,
    /// In whole seconds.
    pub created: Date,
    /// An ARN, or the immutable ID of whom the ARN no longer means.
    pub grantee_principal: String,
    /// The same, if there is one.
    pub retiring_principal: Option<String>,
    /// The account of whoever made it.
    pub issuing_account: AccountId,
    /// What it allows.
    pub operations: GrantOperations,
    /// The constraint, if there is one.
    pub source_arn: Option<String>,
}

impl Kms {
    /// A key's grants.
    ///
    /// # Errors
    /// KMS's for ListGrants: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`], [`Kind::InvalidGrantId`], [`Kind::InvalidMarker`].
    pub fn list_grants(&self, caller: &Caller, request: &ListGrants) -> Result<GrantPage, Error> {
        let mut broken = Vec::new();
        let limit = validate::limit(request.limit, 50, 100, &mut broken);
        let marker = request.marker.as_deref();
        let marker = marker.filter(|marker| validate::marker(marker, &mut broken));
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let (grant_id, grantee, service) = (
            request.grant_id.as_deref(),
            request.grantee_principal.as_deref(),
            request.grantee_service_principal.as_deref(),
        );
        for (member, of, given) in [
            ("grantId", &text::GRANT_ID, grant_id),
            ("granteePrincipal", &text::PRINCIPAL_ID, grantee),
            ("granteeServicePrincipal", &text::SERVICE_PRINCIPAL, service),
        ] {
            validate::optional_text(member, of, given, &mut broken);
        }
        let (Some(key_id), Some(limit), true) = (key_id, limit, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let operation = Operation::ListGrants;
        let record = self.require_key(caller, operation, key_id, RequestContext::default())?;
        check_state(operation, &record)?;

        let after = marker
            .map(|text| marker::read::<GrantId>(OF_KEY, text))
            .transpose()?;
        let grant_id = grant_id.map(|id| {
            let id = id.parse::<GrantId>();
            id.map_err(|_| Error::new(Kind::InvalidGrantId, ""))
        });
        let grant_id = grant_id.transpose()?;
        let principals = self.principals();
        let grantee = grantee.map(|text| {
            principal(&principals, "GranteePrincipal", text).or_else(|fault| {
                // Who is gone is found by the ID that it had: nobody has that often, so that it may cost.
                let had_it = |grant: &GrantRecord| grant.body.grantee.id.as_deref() == Some(text);
                let is_id = !text.contains(':');
                let found = is_id.then(|| record.grants.page(None, None, 1, had_it).0.pop());
                let grantee = found.flatten().map(|grant| grant.body.grantee.clone());
                grantee.ok_or_else(|| {
                    let say = "Input does not refer to a valid principal";
                    Error::new(Kind::InvalidArn, say).because(fault)
                })
            })
        });
        let grantee = grantee.transpose()?;
        if service.is_some() {
            return Ok(GrantPage::default());
        }
        let suits = |grant: &GrantRecord| {
            grant_id.is_none_or(|id| grant.id == id)
                && grantee
                    .as_ref()
                    .is_none_or(|grantee| grant.body.grantee == *grantee)
        };
        let (grants, more) = match grant_id {
            // A page is not searched for one of them.
            Some(id) => {
                let found = record.grants.find(&id).filter(|grant| suits(grant));
                let is_next = |grant: &Arc<GrantRecord>| after.is_none_or(|after| grant.id > after);
                (found.into_iter().filter(is_next).collect(), false)
            }
            None => {
                let arn = grantee.as_ref().map(|grantee| &*grantee.arn);
                record.grants.page(arn, after.as_ref(), limit, suits)
            }
        };
        Ok(self.grant_page(OF_KEY, &principals, &grants, more))
    }

    /// The grants that a principal of the caller's account may retire, on keys of every account.
    ///
    /// # Errors
    /// KMS's for ListRetirableGrants: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`], [`Kind::InvalidMarker`].
    pub fn list_retirable_grants(
        &self,
        caller: &Caller,
        request: &ListRetirableGrants,
    ) -> Result<GrantPage, Error> {
        let mut broken = Vec::new();
        let limit = validate::limit(request.limit, 50, 100, &mut broken);
        let marker = request.marker.as_deref();
        let marker = marker.filter(|marker| validate::marker(marker, &mut broken));
        let retiring = request.retiring_principal.as_deref();
        let service = request.retiring_service_principal.as_deref();
        if service.is_none() && retiring.is_none() {
            validate::missing("retiringPrincipal", &mut broken);
        }
        for (member, of, given) in [
            ("retiringPrincipal", &text::PRINCIPAL_ID, retiring),
            (
                "retiringServicePrincipal",
                &text::SERVICE_PRINCIPAL,
                service,
            ),
        ] {
            validate::optional_text(member, of, given, &mut broken);
        }
        let (Some(limit), true) = (limit, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let context = RequestContext::default();
        let operation = Operation::ListRetirableGrants;
        self.require(caller, operation, Subject::Account, context)?;

        let after = marker
            .map(|text| marker::read::<GrantId>(RETIRABLE, text))
            .transpose()?;
        let Some(retiring) = retiring else {
            return Ok(GrantPage::default());
        };
        let principals = self.principals();
        if !retiring.contains(':') && principals.arn_of(retiring).is_none() {
            let say = format!("Retiring principal {retiring} could not be found");
            return Err(Error::new(Kind::NotFound, say));
        }
        let principal = principal(&principals, "RetiringPrincipal", retiring)?;
        // Security: who may retire what is nobody's to know in another account.
        let is_own = Caller::parse(&principal.arn)
            .is_ok_and(|retiring| retiring.account() == caller.account());
        if !is_own {
            let say = format!("ARN does not refer to a valid principal: {retiring}");
            return Err(Error::new(Kind::InvalidArn, say));
        }
        let suits = |grant: &GrantRecord| grant.body.retiring.as_ref() == Some(&principal);
        let (grants, more) =
            self.catalogue
                .page_of_retirable(&principal.arn, after.as_ref(), limit, suits);
        Ok(self.grant_page(RETIRABLE, &principals, &grants, more))
    }

    fn grant_page(
        &self,
        list: &str,
        principals: &Principals,
        grants: &[Arc<GrantRecord>],
        more: bool,
    ) -> GrantPage {
        let listed = |grant: &Arc<GrantRecord>| ListedGrant {
            key_id: self.catalogue.key_arn(&grant.account, &grant.key_id),
            grant_id: grant.id,
            name: grant.body.name.clone(),
            created: grant.body.created,
            grantee_principal: shown(principals, &grant.body.grantee),
            retiring_principal: grant
                .body
                .retiring
                .as_ref()
                .map(|one| shown(principals, one)),
            issuing_account: grant.body.issuer.clone(),
            operations: grant.body.operations,
            source_arn: grant.body.source_arn.clone(),
        };
        GrantPage {
            grants: grants.iter().map(listed).collect(),
            next_marker: grants
                .last()
                .filter(|_| more)
                .map(|last| marker::write(list, last.id)),
        }
    }
}

/// What a marker of ListGrants begins with, and one of ListRetirableGrants.
const OF_KEY: &str = "grants:";
const RETIRABLE: &str = "retirable:";
