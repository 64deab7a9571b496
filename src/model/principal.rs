//! What is known of a principal besides its ARN: its identity policies, and what policies ask of it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::policy::Policy;

/// What a principal has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Principal {
    /// Its identity policies.
    pub policies: Vec<Policy>,
    /// What else policies ask of it.
    pub attributes: PrincipalAttributes,
    /// The ARN, with its path, of the role that it is or acts through, if that is declared.
    pub role_arn: Option<String>,
}

/// `[principal.attributes]`: what policies ask of a principal besides its ARN. A session has its
/// role's, unless it is declared with some of its own.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PrincipalAttributes {
    /// What stays when another principal gets the ARN: `AIDACKCEVSQ6C2EXAMPLE`; 1 to 128 letters and
    /// digits (IAM: `aws:userid`). A stored key policy means by an ARN the principal that had this ID
    /// when the policy was written.
    pub id: Option<PrincipalId>,
    /// By their keys, which are compared without regard to case (IAM: `aws:PrincipalTag/…`).
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Who acts through a role (IAM: `aws:SourceIdentity`).
    pub source_identity: Option<String>,
    /// Default: `[organization]`, for principals of the account.
    pub organization: Option<Organization>,
}

/// `[organization]`: an organization of AWS accounts, as policies ask for it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// `o-a1b2c3d4e5` (IAM: `aws:PrincipalOrgID`, `aws:ResourceOrgID`).
    pub id: String,
    /// Where in it the account is, `o-a1b2c3d4e5/r-ab12/ou-ab12-11111111/` (IAM:
    /// `aws:PrincipalOrgPaths`, `aws:ResourceOrgPaths`).
    #[serde(default)]
    pub paths: Vec<String>,
}

/// An immutable ID of a principal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct PrincipalId(String);

impl PrincipalId {
    /// The ID as it was set.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PrincipalId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(format!(
                "{text:?} is no ID of a principal: it must be 1 to 128 letters and digits"
            ))
        }
    }
}

impl Principal {
    /// The immutable ID, if there is one.
    pub fn id(&self) -> Option<&str> {
        self.attributes.id.as_ref().map(PrincipalId::as_str)
    }
}
