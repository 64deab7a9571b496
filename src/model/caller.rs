//! Callers: the principals that requests come from.

use std::{fmt, net::IpAddr, sync::Arc};

use super::{AccountId, Arn, Flow, Principal};

/// Who sends a request: a principal's ARN and its account, and what policies ask of the request's way.
#[derive(Clone)]
pub struct Caller {
    arn: String,
    account: AccountId,
    origin: RequestOrigin,
    principal: Option<Arc<Principal>>,
    flow: Flow,
}

/// What policies ask of the way that a request came.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequestOrigin {
    /// Nobody on the way can read or change it (IAM: `aws:SecureTransport`).
    pub is_secure: bool,
    /// The peer's address; none over a Unix socket (IAM: `aws:SourceIp`).
    pub source_ip: Option<IpAddr>,
    /// What the client calls itself (IAM: `aws:UserAgent`).
    pub user_agent: Option<String>,
    /// Since when the proof of a temporary principal is valid, in seconds since 1970 (IAM:
    /// `aws:TokenIssueTime`).
    pub proof_issued: Option<i64>,
}

impl Caller {
    /// Parses `arn:aws:iam::111122223333:user/name` (or `role/…`, `root`; of STS `assumed-role/…`,
    /// `federated-user/…`), with the names and paths that IAM takes.
    ///
    /// # Errors
    /// A sentence that quotes the ARN and names the part that is wrong.
    pub fn parse(arn: &str) -> Result<Self, String> {
        let Arn {
            scheme,
            partition,
            service,
            region,
            account,
            resource,
        } = Arn::split(arn).ok_or_else(|| {
            format!("{arn:?} is no principal ARN; write arn:aws:iam::ACCOUNT:user/NAME")
        })?;
        let in_aws = partition == "aws" || partition.starts_with("aws-");
        if scheme != "arn" || !in_aws || !matches!(service, "iam" | "sts") {
            return Err(format!(
                "{arn:?} does not begin with arn:aws:iam:: or arn:aws:sts::"
            ));
        }
        if !region.is_empty() {
            return Err(format!("{arn:?} names a region; principals have none"));
        }
        if !is_principal(service, resource) {
            return Err(format!(
                "{arn:?} does not end in root, user/NAME, role/NAME, or of STS assumed-role/ROLE/SESSION or federated-user/NAME; a name has 1 to 64 letters, digits and any of +=,.@_-"
            ));
        }
        Ok(Self {
            arn: arn.to_owned(),
            account: account.parse()?,
            origin: RequestOrigin::default(),
            principal: None,
            flow: Flow::OWN,
        })
    }

    /// The principal's ARN.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The account that bare key IDs and alias names resolve in.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// This caller, whose requests come this way.
    #[must_use]
    pub fn from(self, origin: RequestOrigin) -> Self {
        Self { origin, ..self }
    }

    /// This caller, marked as one whose requests come over TLS.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.origin.is_secure = true;
        self
    }

    /// The way that its requests come.
    pub fn origin(&self) -> &RequestOrigin {
        &self.origin
    }

    /// The name of a user, without its path (IAM: `aws:username`).
    pub fn user_name(&self) -> Option<&str> {
        let (_, user) = resource(&self.arn, "iam")?;
        user.strip_prefix("user/")?.rsplit('/').next()
    }

    /// S of a session's ARN, `arn:aws:sts::A:assumed-role/R/S`.
    pub fn session_name(&self) -> Option<&str> {
        let (_, session) = resource(&self.arn, "sts")?;
        session.strip_prefix("assumed-role/")?.split('/').nth(1)
    }

    /// The kind of principal (IAM: `aws:PrincipalType`). Whoever has a role's ARN acts as the role.
    pub fn kind(&self) -> &'static str {
        if self.is_root() {
            "Account"
        } else if self.user_name().is_some() {
            "User"
        } else if self.role().is_some() || self.session_role().is_some() {
            "AssumedRole"
        } else {
            "FederatedUser"
        }
    }

    /// The ARN of its role as far as the session tells, `arn:aws:iam::A:role/R`, without the role's path.
    pub fn session_role_arn(&self) -> Option<String> {
        let role = self.session_role()?;
        let partition = self.arn.split(':').nth(1)?;
        Some(format!("arn:{partition}:iam::{}:role/{role}", self.account))
    }

    /// This caller, with what the principal has when it is authenticated.
    #[must_use]
    pub fn with_principal(self, principal: Arc<Principal>) -> Self {
        Self {
            principal: Some(principal),
            ..self
        }
    }

    /// This caller, whose calls wait in this flow.
    #[must_use]
    pub fn in_flow(self, flow: Flow) -> Self {
        Self { flow, ..self }
    }

    /// In which flow its calls wait for a token.
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// What the principal had when it was authenticated; none, if nobody did that.
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        self.principal.as_ref()
    }

    /// R of a role's ARN, `arn:aws:iam::A:role/path/R`.
    pub fn role(&self) -> Option<&str> {
        role_in(&self.arn).map(|(_, role)| role)
    }

    /// R of a session's ARN, `arn:aws:sts::A:assumed-role/R/s`. It acts with the rights of that role,
    /// whose path it does not tell; an account has one role of a name, whatever the path.
    pub fn session_role(&self) -> Option<&str> {
        let (_, session) = resource(&self.arn, "sts")?;
        session.strip_prefix("assumed-role/")?.split('/').next()
    }

    /// Whether an ARN names this caller, or the role whose session it is.
    pub fn is_named_by(&self, arn: &str) -> bool {
        arn == self.arn || self.is_session_of(arn)
    }

    /// Whether this is a session of this role, `arn:aws:iam::A:role/path/R`.
    pub fn is_session_of(&self, role: &str) -> bool {
        self.session_role()
            .is_some_and(|session| role_in(role) == Some((self.account.as_str(), session)))
    }

    /// Whether this is the account's root principal, which has all rights that no policy denies.
    pub fn is_root(&self) -> bool {
        resource(&self.arn, "iam").is_some_and(|(_, resource)| resource == "root")
    }
}

/// Callers are equal if they are the same principal, by the same way.
impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        (&self.arn, &self.origin) == (&other.arn, &other.origin)
    }
}

impl Eq for Caller {}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caller").field(&self.arn).finish()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arn)
    }
}

/// IAM: a user or role has a path of at most 512 printable characters, and a name.
fn is_principal(service: &str, resource: &str) -> bool {
    let is_name = |name: &str| {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
        (1..=64).contains(&name.len()) && name.bytes().all(letter)
    };
    let is_path = |path: &str| {
        let segment = |one: &str| !one.is_empty() && one.bytes().all(|b| b.is_ascii_graphic());
        path.len() <= 510 && path.split('/').all(segment)
    };
    let (kind, rest) = resource.split_once('/').unwrap_or((resource, ""));
    match (service, kind) {
        ("iam", "root") => resource == "root",
        ("iam", "user" | "role") => match rest.rsplit_once('/') {
            Some((path, name)) => is_path(path) && is_name(name),
            None => is_name(rest),
        },
        ("sts", "assumed-role") => rest
            .split_once('/')
            .is_some_and(|(role, session)| is_name(role) && is_name(session)),
        ("sts", "federated-user") => is_name(rest),
        _ => false,
    }
}

/// Account and name of the role whose ARN this is, `arn:aws:iam::A:role/path/R`.
pub(super) fn role_in(arn: &str) -> Option<(&str, &str)> {
    let (account, role) = resource(arn, "iam")?;
    let name = role.strip_prefix("role/")?.rsplit('/').next()?;
    Some((account, name))
}

/// Account and resource of an ARN of this service.
fn resource<'a>(arn: &'a str, service: &str) -> Option<(&'a str, &'a str)> {
    let arn = Arn::split(arn)?;
    (arn.service == service).then_some((arn.account, arn.resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_have_an_account_and_a_name() {
        let caller = Caller::parse("arn:aws:iam::111122223333:user/billing").unwrap();
        assert_eq!(caller.account().as_str(), "111122223333");
        assert!(!caller.is_root());
        assert!(
            Caller::parse("arn:aws:iam::111122223333:root")
                .unwrap()
                .is_root()
        );
        let role = |arn: &str| Caller::parse(arn).unwrap().role().map(str::to_owned);
        let session = |arn: &str| {
            let caller = Caller::parse(arn).unwrap();
            caller.session_role().map(str::to_owned)
        };
        let of_pay = Some("pay".to_owned());
        assert_eq!(role("arn:aws:iam::111122223333:role/pay"), of_pay);
        assert_eq!(role("arn:aws:iam::111122223333:role/of/shop/pay"), of_pay);
        assert_eq!(role("arn:aws:iam::111122223333:user/pay"), None);
        assert_eq!(
            session("arn:aws:sts::111122223333:assumed-role/pay/s1"),
            of_pay
        );
        let federated = Caller::parse("arn:aws:sts::111122223333:federated-user/bob").unwrap();
        assert_eq!(federated.kind(), "FederatedUser");
        assert_eq!(session("arn:aws:iam::111122223333:role/pay"), None);
        for wrong in [
            "billing",
            "arn:aws:iam::111122223333:",
            "arn:aws:iam::11112222333:user/a",
            "arn:aws:iam:us-west-2:111122223333:user/a",
            "arn:aws:kms::111122223333:user/a",
            "arn:aws:iam::111122223333:user/",
            "arn:aws:iam::111122223333:user/a b",
            "arn:aws:iam::111122223333:user/a:root",
            "arn:aws:iam::111122223333:user//a",
            "arn:aws:iam::111122223333:user/*",
            "arn:aws:iam::111122223333:user/bj\u{f6}rn",
            "arn:aws:iam::111122223333:root/a",
            "arn:aws:iam::111122223333:group/a",
            "arn:aws:iam::111122223333:assumed-role/a/b",
            "arn:aws:sts::111122223333:assumed-role/a",
            "arn:aws:sts::111122223333:assumed-role/a/b/c",
            "arn:aws:sts::111122223333:user/a",
            "arn:gcp:iam::111122223333:user/a",
        ] {
            assert!(Caller::parse(wrong).is_err(), "{wrong}");
        }
    }
}
