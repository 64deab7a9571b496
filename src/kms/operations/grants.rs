//! Lists of grants. There are none yet, so they are empty.

use super::{
    marker::only_page,
    validate::{self, text},
};
use crate::{
    error::Error,
    kms::{
        authorization::{RequestContext, Subject},
        service::{Kms, check_state},
    },
    model::{Caller, Operation},
};

/// KMS: ListGrantsRequest.
#[derive(Clone, Debug, Default)]
pub struct ListGrants {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// 1 to 1,000.
    pub limit: Option<i64>,
    /// There is never a second page, so no marker is one of ours.
    pub marker: Option<String>,
    /// Only this grant.
    pub grant_id: Option<String>,
    /// Only the grants of this principal.
    pub grantee_principal: Option<String>,
    /// Only the grants of this AWS service.
    pub grantee_service_principal: Option<String>,
}

/// KMS: ListRetirableGrantsRequest.
#[derive(Clone, Debug, Default)]
pub struct ListRetirableGrants {
    /// 1 to 1,000.
    pub limit: Option<i64>,
    /// There is never a second page, so no marker is one of ours.
    pub marker: Option<String>,
    /// Who may retire them; this or the next.
    pub retiring_principal: Option<String>,
    /// The AWS service that may retire them.
    pub retiring_service_principal: Option<String>,
}

impl Kms {
    /// KMS: ListGrants. There are none.
    ///
    /// # Errors
    /// KMS's for ListGrants: `Kind::Validation`, `Kind::AccessDenied`, `Kind::NotFound`,
    /// `Kind::InvalidArn`, `Kind::InvalidMarker`.
    pub fn list_grants(&self, caller: &Caller, request: &ListGrants) -> Result<(), Error> {
        let mut broken = Vec::new();
        let marker = request.marker.as_deref();
        validate::page(request.limit, marker, &mut broken);
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        for (member, of, given) in [
            ("grantId", &text::GRANT_ID, &request.grant_id),
            (
                "granteePrincipal",
                &text::PRINCIPAL_ID,
                &request.grantee_principal,
            ),
            (
                "granteeServicePrincipal",
                &text::SERVICE_PRINCIPAL,
                &request.grantee_service_principal,
            ),
        ] {
            validate::optional_text(member, of, given.as_deref(), &mut broken);
        }
        let (Some(key_id), true) = (key_id, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let operation = Operation::ListGrants;
        let record = self.require_key(caller, operation, key_id, RequestContext::default())?;
        check_state(operation, &record)?;
        only_page(marker)
    }

    /// KMS: ListRetirableGrants. There are none.
    ///
    /// # Errors
    /// KMS's for ListRetirableGrants: `Kind::Validation`, `Kind::AccessDenied`,
    /// `Kind::InvalidMarker`.
    pub fn list_retirable_grants(
        &self,
        caller: &Caller,
        request: &ListRetirableGrants,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let marker = request.marker.as_deref();
        validate::page(request.limit, marker, &mut broken);
        let principal = request.retiring_principal.as_deref();
        let service = request.retiring_service_principal.as_deref();
        if service.is_none() {
            validate::required_text(
                "retiringPrincipal",
                &text::PRINCIPAL_ID,
                principal,
                &mut broken,
            );
        } else {
            validate::optional_text(
                "retiringPrincipal",
                &text::PRINCIPAL_ID,
                principal,
                &mut broken,
            );
        }
        let of = &text::SERVICE_PRINCIPAL;
        validate::optional_text("retiringServicePrincipal", of, service, &mut broken);
        if !broken.is_empty() {
            return Err(validate::refuse(broken));
        }
        let context = RequestContext::default();
        self.require(
            caller,
            Operation::ListRetirableGrants,
            Subject::Account,
            context,
        )?;
        only_page(marker)
    }
}
