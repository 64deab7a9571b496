//! Entry points of fuzzers, with what must hold for every input. The tests replay the corpora;
//! `tests/fuzz` has the fuzzers.

use std::slice;

use super::{
    AliasName, Caller, KeyReference,
    policy::{
        ApplicablePolicies, Context, ContextKey, Decision, Policy, PolicyKind, PolicyRequest,
        Values, decide,
    },
};

/// Parses a policy document and evaluates it; gives whether it is one.
pub fn policy(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else {
        return false;
    };
    let caller = Caller::parse("arn:aws:iam::111122223333:user/billing").expect("it is a user's");
    let account = caller.account().clone();
    let deny = r#"{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}"#;
    let deny = Policy::parse(deny, PolicyKind::Identity).expect("it is a policy");
    let request = PolicyRequest {
        caller: &caller,
        principal_id: None,
        operation: super::Operation::GenerateMac,
        resource: Some(
            "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        ),
        context: &Everything,
    };
    let decided = |key: Option<&Policy>, identity: &[Policy]| {
        let rights = ApplicablePolicies {
            key: key.map(|policy| (policy, &account)),
            identity,
            grants: None,
        };
        matches!(decide(&rights, &request), Decision::Allowed(_))
    };

    let of_key = Policy::parse(text, PolicyKind::Key);
    if let Ok(policy) = &of_key {
        decided(Some(policy), &[]);
        assert!(
            !decided(Some(policy), slice::from_ref(&deny)),
            "a deny that does not win"
        );
    }
    let identity = Policy::parse(text, PolicyKind::Identity);
    if let Ok(policy) = &identity {
        decided(None, slice::from_ref(policy));
        assert!(
            !decided(None, &[policy.clone(), deny]),
            "a deny that does not win"
        );
    }
    for fault in [of_key.as_ref().err(), identity.as_ref().err()]
        .into_iter()
        .flatten()
    {
        assert!(!fault.to_string().is_empty());
    }
    of_key.is_ok() || identity.is_ok()
}

/// Parses an ARN, a key ID, an alias or a principal, which must print as it was; gives whether it is
/// one.
pub fn arn(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else {
        return false;
    };
    let key: Option<KeyReference> = text.parse().ok();
    let alias: Option<AliasName> = text.parse().ok();
    let caller = Caller::parse(text).ok();
    for printed in [
        key.as_ref().map(ToString::to_string),
        alias.as_ref().map(ToString::to_string),
        caller.as_ref().map(ToString::to_string),
    ] {
        assert!(printed.is_none_or(|printed| printed == text), "{text:?}");
    }
    key.is_some() || alias.is_some() || caller.is_some()
}

/// Has a value for every condition key.
struct Everything;

impl Context for Everything {
    fn values(&self, key: &ContextKey) -> Values<'_> {
        let one = |value: &'static str| Values::One(value.into());
        let several = [
            ContextKey::PrincipalOrgPaths,
            ContextKey::ResourceAliases,
            ContextKey::ResourceOrgPaths,
            ContextKey::TagKeys,
        ];
        if several.contains(key) {
            Values::Several(vec!["alias/a".into(), "b".into()])
        } else if *key == ContextKey::CurrentTime {
            one("2026-11-23T00:00:00Z")
        } else if matches!(key, ContextKey::NeverPresent(_)) {
            Values::Absent
        } else {
            one("7")
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Runs a target on its whole corpus; files whose names begin with `good` are accepted.
    pub(crate) fn replay(target: &str, target_fn: fn(&[u8]) -> bool) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fuzz/corpus")
            .join(target);
        let (mut good, mut others) = (0, 0);
        for file in fs::read_dir(corpus).unwrap() {
            let path = file.unwrap().path();
            let through = target_fn(&fs::read(&path).unwrap());
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(through, name.starts_with("good"), "{target}: {name}");
            if through {
                good += 1;
            } else {
                others += 1;
            }
        }
        assert!(good > 0 && others > 10, "{good} and {others} files");
    }

    #[test]
    fn the_corpus_of_policies() {
        replay("policy", policy);
    }

    #[test]
    fn the_corpus_of_arns() {
        replay("arn", arn);
    }
}
