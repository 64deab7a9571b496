//! The decision on a request from all policies that apply: IAM's evaluation logic.

use super::{MatchedStatements, Policy, PolicyRequest};
use crate::model::AccountId;

/// The policies that decide a request.
pub struct ApplicablePolicies<'a> {
    /// The key's policy and account; none for operations that have no key.
    pub key: Option<(&'a Policy, &'a AccountId)>,
    /// The policies of the caller.
    pub identity: &'a [Policy],
}

/// Whether the request is allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It is allowed, on these grounds.
    Allowed(Grounds),
    /// It is denied.
    Denied(Denial),
}

/// Which statement decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Grounds {
    /// A statement of the key's policy names the caller.
    KeyPolicy(usize),
    /// A statement of one of the caller's own policies: (policy, statement).
    IdentityPolicy(usize, usize),
    /// The caller is its account's root, which has all rights that no policy denies.
    Root,
}

/// Why a request is denied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denial {
    /// A statement of the key's policy denies it.
    KeyPolicy(usize),
    /// A statement of one of the caller's own policies denies it: (policy, statement).
    IdentityPolicy(usize, usize),
    /// The key's policy allows neither the caller nor its account.
    NoKeyPolicy,
    /// The key's policy leaves it to the account, and none of the caller's own policies allows it; or
    /// there is no key, and none allows it.
    NoIdentityPolicy,
}

/// Security: the one place where rights are decided. An explicit deny wins. In the key's account the
/// key's policy must allow the caller, or its account and a policy of the caller's own; for a key of
/// another account both sides must allow it; without a key the caller's own policies decide.
pub fn decide(rights: &ApplicablePolicies<'_>, request: &PolicyRequest<'_>) -> Decision {
    let (single, all): ([MatchedStatements; 1], Vec<MatchedStatements>);
    let identity = match rights.identity {
        // Most callers have one policy or none: no allocation for them.
        [] => &[][..],
        [one] => {
            single = [one.evaluate(request)];
            &single
        }
        several => {
            all = several
                .iter()
                .map(|policy| policy.evaluate(request))
                .collect();
            &all
        }
    };
    let key = rights
        .key
        .map(|(policy, account)| (policy.evaluate(request), account));
    if let Some(statement) = key.and_then(|(matched, _)| matched.deny) {
        return Decision::Denied(Denial::KeyPolicy(statement));
    }
    // Security: if another account's key does not allow the caller, the answer must not depend on the
    // caller's own policies.
    let other_account = |account: &AccountId| account != request.caller.account();
    if key.is_some_and(|(matched, account)| other_account(account) && !matched.allows()) {
        return Decision::Denied(Denial::NoKeyPolicy);
    }
    let denies =
        |(policy, matched): (usize, &MatchedStatements)| matched.deny.map(|at| (policy, at));
    if let Some((policy, statement)) = identity.iter().enumerate().find_map(denies) {
        return Decision::Denied(Denial::IdentityPolicy(policy, statement));
    }

    let allows =
        |(policy, matched): (usize, &MatchedStatements)| matched.allow.map(|at| (policy, at));
    let own = identity
        .iter()
        .enumerate()
        .find_map(allows)
        .map(|(policy, statement)| Grounds::IdentityPolicy(policy, statement))
        .or_else(|| request.caller.is_root().then_some(Grounds::Root));
    let own = own.map_or(
        Decision::Denied(Denial::NoIdentityPolicy),
        Decision::Allowed,
    );
    let Some((matched, account)) = key else {
        return own;
    };
    match (matched.allow, matched.delegate) {
        (Some(statement), _) if account == request.caller.account() => {
            Decision::Allowed(Grounds::KeyPolicy(statement))
        }
        (Some(_), _) | (None, Some(_)) => own,
        (None, None) => Decision::Denied(Denial::NoKeyPolicy),
    }
}
