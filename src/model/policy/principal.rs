//! Who a statement is about.

use super::super::{AccountId, Caller};

/// `Principal` or `NotPrincipal`; identity policies have neither.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Principals {
    /// Whoever the policy is attached to.
    Bearer,
    These(Vec<Principal>),
    AllBut(Vec<Principal>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Principal {
    /// `*`
    Anyone,
    /// The account's root ARN, or its 12 digits.
    Account(AccountId),
    /// A user, role or session, by its ARN.
    Arn(String),
    /// An AWS service: nobody here is one.
    Service,
}

/// How a caller is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum How {
    Itself,
    /// Its account is meant, which may pass the right on.
    ByItsAccount,
}

impl Principals {
    /// Whether the statement is about this caller.
    pub(super) fn include(&self, caller: &Caller) -> Option<How> {
        match self {
            Self::Bearer => Some(How::Itself),
            Self::These(these) => {
                let how = || these.iter().filter_map(|one| one.means(caller));
                let itself = how().find(|how| *how == How::Itself);
                itself.or_else(|| how().next())
            }
            Self::AllBut(these) => {
                let excluded = these.iter().any(|one| one.means(caller).is_some());
                (!excluded).then_some(How::Itself)
            }
        }
    }
}

impl Principal {
    fn means(&self, caller: &Caller) -> Option<How> {
        match self {
            Self::Anyone => Some(How::Itself),
            Self::Account(account) if account == caller.account() => Some(How::ByItsAccount),
            Self::Arn(arn) if arn == caller.arn() || is_session_of(caller, arn) => {
                Some(How::Itself)
            }
            Self::Account(_) | Self::Arn(_) | Self::Service => None,
        }
    }
}

/// A session `arn:aws:sts::A:assumed-role/R/s` acts with the rights of the role
/// `arn:aws:iam::A:role/path/R`; a session's ARN does not tell the role's path.
fn is_session_of(caller: &Caller, role: &str) -> bool {
    let session = caller.arn().splitn(6, ':').nth(5);
    let Some(session) = session.and_then(|resource| resource.strip_prefix("assumed-role/")) else {
        return false;
    };
    let parts: Vec<&str> = role.splitn(6, ':').collect();
    let [_, _, "iam", _, account, resource] = parts[..] else {
        return false;
    };
    let named = resource
        .strip_prefix("role/")
        .and_then(|path| path.rsplit('/').next());
    account == caller.account().as_str() && named.is_some() && session.split('/').next() == named
}
