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
