//! The principals that a statement is about.

use super::super::{AccountId, Caller};

/// `Principal` or `NotPrincipal`; identity policies have neither.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Principals {
    /// The principal that the policy is attached to.
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
    Arn {
        arn: String,
        /// The immutable ID that the principal had when the policy was written, if it had one.
        id: Option<String>,
    },
    /// An AWS service, an identity provider, a canonical user: no caller of hsmac is one.
    Foreign,
}

/// How a statement's principals include a caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PrincipalMatch {
    /// By its own ARN, its role, or `*`.
    Itself,
    /// By its account, whose other policies must allow the caller.
    ByItsAccount,
}

/// A caller, as principals are compared with it.
#[derive(Clone, Copy)]
pub(super) struct Bearer<'a> {
    pub(super) caller: &'a Caller,
    /// The caller's immutable ID, or its role's.
    pub(super) id: Option<&'a str>,
}

impl Principals {
    /// Whether the statement is about this caller.
    pub(super) fn include(&self, bearer: Bearer<'_>) -> Option<PrincipalMatch> {
        match self {
            Self::Bearer => Some(PrincipalMatch::Itself),
            Self::These(these) => {
                let how = || these.iter().filter_map(|one| one.means(bearer));
                let itself = how().find(|how| *how == PrincipalMatch::Itself);
                itself.or_else(|| how().next())
            }
            Self::AllBut(these) => (!is_excluded(these, bearer)).then_some(PrincipalMatch::Itself),
        }
    }

    /// Those that are named, of either kind.
    pub(super) fn named(&self) -> &[Principal] {
        match self {
            Self::Bearer => &[],
            Self::These(these) | Self::AllBut(these) => these,
        }
    }

    pub(super) fn named_mut(&mut self) -> &mut [Principal] {
        match self {
            Self::Bearer => &mut [],
            Self::These(these) | Self::AllBut(these) => these,
        }
    }
}

impl Principal {
    fn means(&self, bearer: Bearer<'_>) -> Option<PrincipalMatch> {
        match self {
            Self::Anyone => Some(PrincipalMatch::Itself),
            Self::Account(account) if account == bearer.caller.account() => {
                Some(PrincipalMatch::ByItsAccount)
            }
            Self::Arn { arn, .. } if self.is_orphan(bearer) || !bearer.caller.is_named_by(arn) => {
                None
            }
            Self::Arn { .. } => Some(PrincipalMatch::Itself),
            Self::Account(_) | Self::Foreign => None,
        }
    }

    /// Whether it names the caller's ARN, and means a principal that had this ARN before.
    pub(super) fn is_orphan(&self, bearer: Bearer<'_>) -> bool {
        match self {
            Self::Arn { arn, id: Some(id) } => {
                bearer.caller.is_named_by(arn) && bearer.id != Some(id)
            }
            Self::Arn { id: None, .. } | Self::Anyone | Self::Account(_) | Self::Foreign => false,
        }
    }
}

/// IAM looks at each part of who a caller is, the account, the role, the session, and denies if one of
/// them is not named. So an account's root by itself excludes the root and nobody else.
fn is_excluded(these: &[Principal], bearer: Bearer<'_>) -> bool {
    let caller = bearer.caller;
    let names = |wanted: &dyn Fn(&str) -> bool| {
        these.iter().any(|one| match one {
            Principal::Anyone => true,
            Principal::Arn { arn, .. } => wanted(arn) && !one.is_orphan(bearer),
            Principal::Account(_) | Principal::Foreign => false,
        })
    };
    let account = these.iter().any(|one| match one {
        Principal::Anyone => true,
        Principal::Account(account) => account == caller.account(),
        Principal::Arn { .. } | Principal::Foreign => false,
    });
    let itself = caller.is_root() || names(&|arn| arn == caller.arn());
    let role = caller.session_role().is_none() || names(&|arn| caller.is_session_of(arn));
    account && itself && role
}
