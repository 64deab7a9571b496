//! What all policies together say: IAM's evaluation logic for one key.

use super::{Policy, Question, Word};
use crate::model::AccountId;

/// The policies that a question is put to.
pub struct Rights<'a> {
    /// The key's policy and account; none for operations that have no key.
    pub key: Option<(&'a Policy, &'a AccountId)>,
    /// The policies of the caller.
    pub identity: &'a [Policy],
}

/// Whether the caller may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It may, on these grounds.
    Allowed(Grounds),
    /// It may not.
    Denied(Denial),
}

/// Which statement decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Grounds {
    /// A statement of the key's policy names the caller.
    KeyPolicy(usize),
    /// A statement of one of the caller's own policies: (policy, statement).
    IdentityPolicy(usize, usize),
    /// The caller is its account's root, which has all rights that nobody denies.
    Root,
}

/// Why the caller may not.
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
pub fn decide(rights: &Rights<'_>, question: &Question<'_>) -> Decision {
    let (single, all): ([Word; 1], Vec<Word>);
    let identity = match rights.identity {
        // Nearly everybody has one policy or none.
        [] => &[][..],
        [one] => {
            single = [one.says(question)];
            &single
        }
        several => {
            all = several.iter().map(|policy| policy.says(question)).collect();
            &all
        }
    };
    let key = rights
        .key
        .map(|(policy, account)| (policy.says(question), account));
    if let Some(statement) = key.and_then(|(word, _)| word.deny) {
        return Decision::Denied(Denial::KeyPolicy(statement));
    }
    // Security: of another account's key that does not let the caller in, nothing that the caller's own
    // policies say may sound different.
    let strange = |account: &AccountId| account != question.caller.account();
    if key.is_some_and(|(word, account)| strange(account) && !word.lets_in()) {
        return Decision::Denied(Denial::NoKeyPolicy);
    }
    let denies = |(policy, word): (usize, &Word)| word.deny.map(|at| (policy, at));
    if let Some((policy, statement)) = identity.iter().enumerate().find_map(denies) {
        return Decision::Denied(Denial::IdentityPolicy(policy, statement));
    }

    let allows = |(policy, word): (usize, &Word)| word.allow.map(|at| (policy, at));
    let own = identity
        .iter()
        .enumerate()
        .find_map(allows)
        .map(|(policy, statement)| Grounds::IdentityPolicy(policy, statement))
        .or_else(|| question.caller.is_root().then_some(Grounds::Root));
    let own = own.map_or(
        Decision::Denied(Denial::NoIdentityPolicy),
        Decision::Allowed,
    );
    let Some((word, account)) = key else {
        return own;
    };
    match (word.allow, word.delegate) {
        (Some(statement), _) if account == question.caller.account() => {
            Decision::Allowed(Grounds::KeyPolicy(statement))
        }
        (Some(_), _) | (None, Some(_)) => own,
        (None, None) => Decision::Denied(Denial::NoKeyPolicy),
    }
}
