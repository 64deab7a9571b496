//! The decision on a request from all policies that apply: IAM's evaluation logic.

use std::cell::OnceCell;

use super::{MatchedStatements, Policy, PolicyRequest};
use crate::model::{AccountId, GrantedTo, Operation};

/// The policies that decide a request.
pub struct ApplicablePolicies<'a> {
    /// The key's policy and account; none for operations that have no key.
    pub key: Option<(&'a Policy, &'a AccountId)>,
    /// The policies of the caller.
    pub identity: &'a [Policy],
    /// The grants on the key, if it has any that count.
    pub grants: Option<&'a dyn Grants>,
}

/// The grants on a key. They are asked only for what no policy allows: a call that needs none costs
/// nothing for them.
pub trait Grants {
    /// How a grant allows the request, if one does. Of RetireGrant: how the grant that is to be retired
    /// lets the caller do it.
    fn allow(&self, request: &PolicyRequest<'_>) -> Option<GrantedTo>;
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
    /// A grant allows it: to the caller, or to its account, and then a policy of the caller's own too.
    Grant(GrantedTo),
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
/// key's policy or a grant must allow the caller, or its account and a policy of the caller's own; for a
/// key of another account both sides must allow it; without a key the caller's own policies decide. Who
/// may retire a grant is the grant's word alone: the key's policy can forbid it, and not allow it.
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
    let key = rights.key.map(|(policy, account)| {
        let mut matched = policy.evaluate(request);
        if request.operation == Operation::RetireGrant {
            (matched.allow, matched.delegate) = (None, None);
        }
        (matched, account)
    });
    if let Some(statement) = key.and_then(|(matched, _)| matched.deny) {
        return Decision::Denied(Denial::KeyPolicy(statement));
    }
    // Security: if another account's key does not allow the caller, the answer must not depend on the
    // caller's own policies.
    let other_account = |account: &AccountId| account != request.caller.account();
    let grant = OnceCell::new();
    let grant = || *grant.get_or_init(|| rights.grants?.allow(request));
    if key.is_some_and(|(matched, account)| other_account(account) && !matched.allows())
        && grant().is_none()
    {
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
    let by_policy = match (matched.allow, matched.delegate) {
        (Some(statement), _) if !other_account(account) => {
            Decision::Allowed(Grounds::KeyPolicy(statement))
        }
        (Some(_), _) | (None, Some(_)) => own,
        (None, None) => Decision::Denied(Denial::NoKeyPolicy),
    };
    if matches!(by_policy, Decision::Allowed(_)) {
        return by_policy;
    }
    match grant() {
        None => by_policy,
        Some(GrantedTo::Itself) if !other_account(account) => {
            Decision::Allowed(Grounds::Grant(GrantedTo::Itself))
        }
        Some(how) => match own {
            Decision::Allowed(_) => Decision::Allowed(Grounds::Grant(how)),
            Decision::Denied(_) => own,
        },
    }
}
