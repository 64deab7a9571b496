//! Who a statement is about.

use super::super::{AccountId, Caller, caller::role_in};

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

/// Whether a caller is a session of this role, `arn:aws:iam::A:role/path/R`.
fn is_session_of(caller: &Caller, role: &str) -> bool {
    caller
        .session_role()
        .is_some_and(|session| role_in(role) == Some((caller.account().as_str(), session)))
}
