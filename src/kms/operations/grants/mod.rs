//! CreateGrant, ListGrants, ListRetirableGrants, RetireGrant and RevokeGrant.

mod create;
mod end;
mod list;

pub use create::{CreateGrant, GrantConstraints, GrantCreated};
pub use end::{RetireGrant, RevokeGrant};
pub use list::{GrantPage, ListGrants, ListRetirableGrants, ListedGrant};

use crate::{
    error::{Error, Kind},
    kms::principals::Principals,
    model::{Arn, Caller, GrantPrincipal},
};

/// The principal that a request names by its ARN or its immutable ID, as far as there is one.
///
/// # Errors
/// KMS's [`Kind::InvalidArn`]; `member` is KMS's name of the member.
fn principal(principals: &Principals, member: &str, text: &str) -> Result<GrantPrincipal, Error> {
    if !text.contains(':') {
        let arn = principals.arn_of(text).ok_or_else(|| {
            let say = format!("{member} does not refer to a valid principal.");
            Error::new(Kind::InvalidArn, say)
        })?;
        return Ok(GrantPrincipal {
            arn: arn.to_owned(),
            id: Some(text.to_owned()),
        });
    }
    let caller = Caller::parse(text).map_err(|fault| {
        // Groups, services and what else has an ARN are no principals of a grant.
        let say = match Arn::split(text) {
            Some(arn) if arn.scheme == "arn" && matches!(arn.service, "iam" | "sts") => {
                format!("ARN does not refer to a valid principal: {text}")
            }
            Some(_) | None => format!("ARN is not valid: {text}"),
        };
        Error::new(Kind::InvalidArn, say).because(fault)
    })?;
    if !principals.knows(&caller) {
        let say = format!("ARN does not refer to a valid principal: {text}");
        return Err(Error::new(Kind::InvalidArn, say));
    }
    Ok(GrantPrincipal {
        arn: text.to_owned(),
        id: principals.id_of(text).map(str::to_owned),
    })
}

/// How a grant's principal is shown: by its ARN; by its ID, as KMS does it, if the ARN is somebody
/// else's or nobody's by now.
fn shown(principals: &Principals, principal: &GrantPrincipal) -> String {
    match &principal.id {
        Some(id) if principals.id_of(&principal.arn) != Some(id) => id.clone(),
        Some(_) | None => principal.arn.clone(),
    }
}
