//! Operations on grants: JSON members to requests of `kms`, and its answers back.

use serde::Serialize;

use super::{
    super::json::{Members, bytes, seconds},
    Answered, Bytes, Call,
    responses::Page,
};
use crate::{
    error::Error,
    kms::{
        CreateGrant, GrantConstraints, GrantPage, ListGrants, ListRetirableGrants, ListedGrant,
        RetireGrant, RevokeGrant,
    },
    model::{Date, Operation},
};

impl Call<'_> {
    pub(super) async fn create_grant(mut self) -> Answered {
        let members = &mut self.members;
        let constraints = members.structure("Constraints")?;
        let request = CreateGrant {
            key_id: members.text("KeyId")?,
            grantee_principal: members.text("GranteePrincipal")?,
            retiring_principal: members.text("RetiringPrincipal")?,
            operations: members.texts_if_any("Operations")?,
            constraints: constraints.map(self::constraints).transpose()?,
            grant_tokens: members.texts("GrantTokens")?,
            name: members.text("Name")?,
            dry_run: members.flag("DryRun")?,
            grantee_service_principal: members.text("GranteeServicePrincipal")?,
            retiring_service_principal: members.text("RetiringServicePrincipal")?,
        };
        let made = self.kms.create_grant(self.caller, &request, self.until);
        let made = made.await?;
        Ok(bytes(&CreateGrantResponse {
            grant_id: made.grant_id.to_string(),
            grant_token: &made.grant_token,
        }))
    }

    pub(super) fn list_grants(mut self) -> Answered {
        let request = ListGrants {
            key_id: self.members.text("KeyId")?,
            limit: self.members.number("Limit")?,
            marker: self.members.text("Marker")?,
            grant_id: self.members.text("GrantId")?,
            grantee_principal: self.members.text("GranteePrincipal")?,
            grantee_service_principal: self.members.text("GranteeServicePrincipal")?,
        };
        let page = self.kms.list_grants(self.caller, &request)?;
        Ok(bytes(&Grants::from(page)))
    }

    pub(super) fn list_retirable_grants(mut self) -> Answered {
        let request = ListRetirableGrants {
            limit: self.members.number("Limit")?,
            marker: self.members.text("Marker")?,
            retiring_principal: self.members.text("RetiringPrincipal")?,
            retiring_service_principal: self.members.text("RetiringServicePrincipal")?,
        };
        let page = self.kms.list_retirable_grants(self.caller, &request)?;
        Ok(bytes(&Grants::from(page)))
    }

    pub(super) async fn retire_grant(mut self) -> Answered {
        let request = RetireGrant {
            grant_token: self.members.text("GrantToken")?,
            key_id: self.members.text("KeyId")?,
            grant_id: self.members.text("GrantId")?,
            dry_run: self.members.flag("DryRun")?,
        };
        let done = self.kms.retire_grant(self.caller, &request, self.until);
        done.await.map(|()| Bytes::new())
    }

    pub(super) async fn revoke_grant(mut self) -> Answered {
        let request = RevokeGrant {
            key_id: self.members.text("KeyId")?,
            grant_id: self.members.text("GrantId")?,
            dry_run: self.members.flag("DryRun")?,
        };
        let done = self.kms.revoke_grant(self.caller, &request, self.until);
        done.await.map(|()| Bytes::new())
    }
}

fn constraints(mut members: Members) -> Result<GrantConstraints, Error> {
    Ok(GrantConstraints {
        encryption_context_subset: members.pairs("EncryptionContextSubset")?,
        encryption_context_equals: members.pairs("EncryptionContextEquals")?,
        source_arn: members.text("SourceArn")?,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateGrantResponse<'a> {
    grant_id: String,
    grant_token: &'a str,
}

/// ListGrants and ListRetirableGrants.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Grants {
    grants: Vec<GrantListEntry>,
    #[serde(flatten)]
    page: Page,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GrantListEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    constraints: Option<Constraints>,
    #[serde(serialize_with = "seconds")]
    creation_date: Date,
    grant_id: String,
    grantee_principal: String,
    issuing_account: String,
    key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    operations: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retiring_principal: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Constraints {
    source_arn: String,
}

impl From<GrantPage> for Grants {
    fn from(page: GrantPage) -> Self {
        let entry = |grant: ListedGrant| GrantListEntry {
            constraints: grant
                .source_arn
                .map(|source_arn| Constraints { source_arn }),
            creation_date: grant.created,
            grant_id: grant.grant_id.to_string(),
            grantee_principal: grant.grantee_principal,
            issuing_account: format!("arn:aws:iam::{}:root", grant.issuing_account),
            key_id: grant.key_id,
            name: grant.name,
            operations: grant.operations.iter().map(Operation::name).collect(),
            retiring_principal: grant.retiring_principal,
        };
        Self {
            grants: page.grants.into_iter().map(entry).collect(),
            page: page.next_marker.into(),
        }
    }
}
