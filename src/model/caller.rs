use std::fmt;

use super::AccountId;

/// Who sends a request: a principal's ARN and its account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    arn: String,
    account: AccountId,
    over_tls: bool,
}

impl Caller {
    /// Parses `arn:aws:iam::111122223333:user/name` (or `role/…`, `root`, `assumed-role/…` of STS).
    ///
    /// # Errors
    /// A sentence that names the part that is wrong.
    pub fn parse(arn: &str) -> Result<Self, String> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [scheme, partition, service, region, account, resource] = parts[..] else {
            return Err(format!(
                "{arn:?} is no principal ARN; write arn:aws:iam::ACCOUNT:user/NAME"
            ));
        };
        if scheme != "arn" || partition.is_empty() || !matches!(service, "iam" | "sts") {
            return Err(format!(
                "{arn:?} does not begin with arn:aws:iam:: or arn:aws:sts::"
            ));
        }
        if !region.is_empty() {
            return Err(format!("{arn:?} names a region; principals have none"));
        }
        let named = resource
            .split_once('/')
            .is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty());
        if resource != "root" && !named {
            return Err(format!(
                "{arn:?} does not end in root, user/NAME or role/NAME"
            ));
        }
        Ok(Self {
            arn: arn.to_owned(),
            account: account.parse()?,
            over_tls: false,
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

    /// The same, whose requests come over TLS.
    #[must_use]
    pub fn over_tls(self) -> Self {
        Self {
            over_tls: true,
            ..self
        }
    }

    /// Whether its requests come over TLS (KMS: the condition key `aws:SecureTransport`).
    pub fn is_over_tls(&self) -> bool {
        self.over_tls
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

    /// Whether this is the account's root principal, which has all rights that no policy denies.
    pub fn is_root(&self) -> bool {
        self.arn.ends_with(":root")
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arn)
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
    let mut parts = arn.splitn(6, ':').skip(2);
    let found = parts.next()?;
    let (_region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    (found == service).then_some((account, resource))
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
        assert_eq!(session("arn:aws:iam::111122223333:assumed-role/a/b"), None);
        assert_eq!(session("arn:aws:iam::111122223333:role/pay"), None);
        for wrong in [
            "billing",
            "arn:aws:iam::111122223333:",
            "arn:aws:iam::11112222333:user/a",
            "arn:aws:iam:us-west-2:111122223333:user/a",
            "arn:aws:kms::111122223333:user/a",
            "arn:aws:iam::111122223333:user/",
        ] {
            assert!(Caller::parse(wrong).is_err(), "{wrong}");
        }
    }
}
