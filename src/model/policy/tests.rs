//! Policies against tables of what IAM decides, and properties that every policy has.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::model::AccountId;

const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const USER: &str = "arn:aws:iam::111122223333:user/billing";
const ROOT: &str = "arn:aws:iam::111122223333:root";
const STRANGER: &str = "arn:aws:iam::444455556666:user/billing";

/// A request's values, as pairs; a name that stands several times has several values.
struct Pairs<'a>(&'a [(ContextKey, &'a str)]);

impl Context for Pairs<'_> {
    fn values(&self, key: &ContextKey) -> Values<'_> {
        let mut found: Vec<Cow<'_, str>> = self
            .0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| Cow::Borrowed(*value))
            .collect();
        match (key, found.len()) {
            (_, 0) => Values::Absent,
            (ContextKey::ResourceAliases | ContextKey::TagKeys, _) => Values::Several(found),
            _ => Values::One(found.remove(0)),
        }
    }
}

fn key_policy(statements: &str) -> Policy {
    let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
    Policy::parse(&text, PolicyKind::Key).unwrap()
}

fn identity_policy(statements: &str) -> Policy {
    let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
    Policy::parse(&text, PolicyKind::Identity).unwrap()
}

fn decided(caller: &str, key: Option<&Policy>, identity: &[Policy]) -> Decision {
    let account: AccountId = "111122223333".parse().unwrap();
    let rights = ApplicablePolicies {
        key: key.map(|policy| (policy, &account)),
        identity,
        grants: None,
    };
    let caller = Caller::parse(caller).unwrap();
    let request = PolicyRequest {
        caller: &caller,
        principal_id: None,
        operation: Operation::GenerateMac,
        resource: key.map(|_| KEY),
        context: &Pairs(&[]),
    };
    decide(&rights, &request)
}

const TO_ACCOUNT: &str = r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}"#;
const TO_USER: &str = r#"{"Sid":"Use","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/billing"},"Action":["kms:GenerateMac","kms:VerifyMac"],"Resource":"*"}"#;
const DENY_USER: &str = r#"{"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::111122223333:user/billing"},"Action":"kms:GenerateMac","Resource":"*"}"#;
const MAY: &str =
    r#"{"Effect":"Allow","Action":"kms:generate*","Resource":"arn:aws:kms:*:111122223333:key/*"}"#;
const MAY_ALL: &str = r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#;
const MUST_NOT: &str = r#"{"Effect":"Deny","NotAction":"kms:DescribeKey","Resource":"*"}"#;

#[test]
fn key_policy_and_identity_policy_decide_as_in_iam() {
    let to_account = key_policy(TO_ACCOUNT);
    let to_user = key_policy(TO_USER);
    let to_stranger = key_policy(&TO_USER.replace("111122223333", "444455556666"));
    let to_strangers_account = key_policy(&TO_ACCOUNT.replace("111122223333", "444455556666"));
    let may = [identity_policy(MAY)];
    let may_all = [identity_policy(MAY_ALL)];
    let must_not = [identity_policy(MAY_ALL), identity_policy(MUST_NOT)];
    let denied = key_policy(&format!("{TO_USER},{TO_ACCOUNT},{DENY_USER}"));

    use Decision::{Allowed, Denied};
    for (caller, key, identity, wanted) in [
        (
            USER,
            Some(&to_user),
            &[][..],
            Allowed(Grounds::KeyPolicy(0)),
        ),
        (
            USER,
            Some(&to_account),
            &[],
            Denied(Denial::NoIdentityPolicy),
        ),
        (
            USER,
            Some(&to_account),
            &may,
            Allowed(Grounds::IdentityPolicy(0, 0)),
        ),
        (
            USER,
            Some(&to_stranger),
            &may_all,
            Denied(Denial::NoKeyPolicy),
        ),
        (USER, Some(&denied), &may_all, Denied(Denial::KeyPolicy(2))),
        (
            USER,
            Some(&to_user),
            &must_not,
            Denied(Denial::IdentityPolicy(1, 0)),
        ),
        // The account's root has what nobody denies, where the key leaves it to the account.
        (ROOT, Some(&to_account), &[], Allowed(Grounds::Root)),
        (ROOT, Some(&to_user), &[], Denied(Denial::NoKeyPolicy)),
        (
            ROOT,
            Some(&to_account),
            &must_not,
            Denied(Denial::IdentityPolicy(1, 0)),
        ),
        // Another account: both sides.
        (
            STRANGER,
            Some(&to_stranger),
            &[],
            Denied(Denial::NoIdentityPolicy),
        ),
        (
            STRANGER,
            Some(&to_stranger),
            &may_all,
            Allowed(Grounds::IdentityPolicy(0, 0)),
        ),
        (
            STRANGER,
            Some(&to_strangers_account),
            &may,
            Allowed(Grounds::IdentityPolicy(0, 0)),
        ),
        (
            STRANGER,
            Some(&to_account),
            &may_all,
            Denied(Denial::NoKeyPolicy),
        ),
        // Without a key the caller's own policies decide.
        (USER, None, &[], Denied(Denial::NoIdentityPolicy)),
        (USER, None, &may, Denied(Denial::NoIdentityPolicy)),
        (USER, None, &may_all, Allowed(Grounds::IdentityPolicy(0, 0))),
        (ROOT, None, &[], Allowed(Grounds::Root)),
    ] {
        assert_eq!(
            decided(caller, key, identity),
            wanted,
            "{caller} {key:?} {identity:?}"
        );
    }
    assert_eq!(to_user.statement_name(0), "\"Use\"");
    assert_eq!(to_account.statement_name(0), "number 1");
}

#[test]
fn principals_match_as_in_iam() {
    let session = "arn:aws:sts::111122223333:assumed-role/batch/job-7";
    for (principal, caller, wanted) in [
        (r#""*""#, STRANGER, true),
        (r#"{"AWS":"*"}"#, STRANGER, true),
        (
            r#"{"AWS":["arn:aws:iam::111122223333:user/other","arn:aws:iam::111122223333:user/billing"]}"#,
            USER,
            true,
        ),
        (
            r#"{"AWS":"arn:aws:iam::111122223333:user/bill"}"#,
            USER,
            false,
        ),
        (
            r#"{"AWS":"arn:aws:iam::111122223333:role/batch"}"#,
            session,
            true,
        ),
        (
            r#"{"AWS":"arn:aws:iam::111122223333:role/path/batch"}"#,
            session,
            true,
        ),
        (
            r#"{"AWS":"arn:aws:iam::444455556666:role/batch"}"#,
            session,
            false,
        ),
        (
            r#"{"AWS":"arn:aws:iam::111122223333:role/job-7"}"#,
            session,
            false,
        ),
        (
            r#"{"AWS":"arn:aws:iam::111122223333:user/batch"}"#,
            session,
            false,
        ),
        (r#"{"Service":"s3.amazonaws.com"}"#, USER, false),
    ] {
        let policy = key_policy(&format!(
            r#"{{"Effect":"Allow","Principal":{principal},"Action":"kms:*","Resource":"*"}}"#
        ));
        // The other side allows, so that only the principal decides.
        let decision = decided(caller, Some(&policy), &[identity_policy(MAY_ALL)]);
        let allowed = matches!(decision, Decision::Allowed(_));
        assert_eq!(allowed, wanted, "{principal} {caller}");
    }
}

/// IAM looks at the account, the role and the session, each by itself.
#[test]
fn not_principal_denies_whoever_is_not_named_with_their_account() {
    const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/batch/job-7";
    const OTHER: &str = "arn:aws:iam::111122223333:user/other";
    const ROLE: &str = "arn:aws:iam::111122223333:role/of/batch";
    let may_all = [identity_policy(MAY_ALL)];
    for (named, caller, denied) in [
        (&[USER, ROOT][..], USER, false),
        (&[USER, ROOT], ROOT, false),
        (&[USER, ROOT], OTHER, true),
        (&[USER, ROOT], SESSION, true),
        (&[USER, ROOT], STRANGER, true),
        // An account excludes its root and nobody else.
        (&[ROOT], ROOT, false),
        (&["111122223333"], USER, true),
        (&[USER], USER, true),
        (&[USER], ROOT, true),
        (&[SESSION, ROLE, ROOT], SESSION, false),
        (&[ROLE, ROOT], SESSION, true),
        (&[SESSION, ROOT], SESSION, true),
        (&["*"], STRANGER, false),
    ] {
        let policy = key_policy(&format!(
            r#"{{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}},{{"Effect":"Deny","NotPrincipal":{{"AWS":{named:?}}},"Action":"*","Resource":"*"}}"#
        ));
        let decision = decided(caller, Some(&policy), &may_all);
        let is_denied = decision == Decision::Denied(Denial::KeyPolicy(1));
        assert_eq!(is_denied, denied, "{named:?} {caller}");
    }
}

#[test]
fn statements_that_never_apply_here_are_told() {
    let policy = key_policy(&format!(
        r#"{{"Effect":"Allow","Principal":{{"Service":"s3.amazonaws.com"}},"Action":"kms:*","Resource":"*"}},
        {{"Sid":"Console","Effect":"Allow","Principal":{{"AWS":"{USER}"}},"Action":["s3:GetObject"],"Resource":"*"}},
        {{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"arn:aws:kms:eu-west-1"}},
        {{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*","Condition":{{"StringEquals":{{"kms:ViaService":"s3.us-west-2.amazonaws.com"}}}}}},
        {{"Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*","Condition":{{"StringNotEquals":{{"aws:SourceVpce":"vpce-1"}}}}}},
        {{"Effect":"Deny","NotPrincipal":{{"AWS":"{USER}"}},"Action":"kms:*","Resource":"*"}}"#
    ));
    let warnings = policy.warnings("us-west-2");
    for (at, said) in [
        "statement number 1 never applies here: its principals are services",
        "statement \"Console\" never applies here: it has no action",
        "statement number 3 never applies here: none of its resources",
        "statement number 4 never applies here: StringEquals kms:ViaService",
        "statement number 6 denies arn:aws:iam::111122223333:user/billing too",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(warnings[at].contains(said), "{}", warnings[at]);
    }
    assert_eq!(warnings.len(), 5, "{warnings:?}");
}

#[test]
fn a_principal_that_got_the_arn_later_is_not_meant() {
    let policy = key_policy(TO_USER);
    let ids = [(USER.to_owned(), "AIDA1".to_owned())].into();
    let of_first = policy.clone().of_principals(&ids);
    let caller = Caller::parse(USER).unwrap();
    for (policy, id, allowed) in [
        (&policy, None, true),
        (&policy, Some("AIDA2"), true),
        (&of_first, Some("AIDA1"), true),
        (&of_first, Some("AIDA2"), false),
        (&of_first, None, false),
    ] {
        let request = PolicyRequest {
            caller: &caller,
            principal_id: id,
            operation: Operation::GenerateMac,
            resource: Some(KEY),
            context: &Pairs(&[]),
        };
        assert_eq!(policy.evaluate(&request).allow.is_some(), allowed, "{id:?}");
        let explained = &policy.explain(&request)[0].result;
        let orphan = StatementResult::DoesNotApply(vec![Mismatch::ReplacedPrincipal]);
        assert_eq!(*explained == orphan, !allowed);
        assert_eq!(policy.orphans(|_| id).is_empty(), allowed, "{id:?}");
    }
}

#[test]
fn unknown_elements_of_a_policy_are_refused_by_name() {
    let statement = |rest: &str| format!(r#"{{"Statement":{{"Effect":"Allow",{rest}}}}}"#);
    let current = |rest: &str| {
        format!(r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow",{rest}}}}}"#)
    };
    let who = r#""Principal":"*","Action":"kms:*","Resource":"*""#;
    for (text, said) in [
        ("{".to_owned(), "Policy is no JSON document"),
        ("[]".to_owned(), "Policy must be an object."),
        ("{}".to_owned(), "Policy has no Statement."),
        (
            r#"{"Statement":[],"Statement":[]}"#.to_owned(),
            "stands there twice",
        ),
        (
            r#"{"Version":"2013","Statement":[]}"#.to_owned(),
            "unknown version",
        ),
        (
            r#"{"Statements":[]}"#.to_owned(),
            "Policy has the unknown element \"Statements\".",
        ),
        (
            statement(&format!(r#"{who},"Conditions":{{}}"#)),
            "Statement has the unknown element \"Conditions\".",
        ),
        (
            statement(&format!(r#"{who},"NotAction":"kms:*""#)),
            "both Action and NotAction",
        ),
        (
            statement(&format!(r#"{who},"Effect":"Deny""#)),
            "stands there twice",
        ),
        (
            r#"{"Statement":{"Principal":"*"}}"#.to_owned(),
            "a statement with no effect",
        ),
        (
            r#"{"Statement":{"Effect":"allow"}}"#.to_owned(),
            "Effect must be Allow or Deny",
        ),
        (
            statement(r#""Action":"kms:*","Resource":"*""#),
            "Policy contains a statement with no principal.",
        ),
        (
            statement(r#""Principal":{"AWS":[]},"Action":"kms:*""#),
            "Policy contains a statement with no principal.",
        ),
        (
            statement(r#""Principal":"billing""#),
            "one or more invalid principals",
        ),
        (
            statement(r#""Principal":{"AWS":"arn:aws:iam::111122223333:user/*"}"#),
            "one or more invalid principals",
        ),
        (
            statement(r#""Principal":{"Nobody":"x"}"#),
            "one or more invalid principals",
        ),
        (
            statement(r#""NotPrincipal":"*","Action":"kms:*","Resource":"*""#),
            "NotPrincipal must deny",
        ),
        (
            statement(r#""Principal":{"AWS":"arn:aws:iam::111122223333:group/g"}"#),
            "An ARN in the specified key policy is invalid.",
        ),
        (
            statement(r#""Principal":"*","Action":"GenerateMac""#),
            "Action \"GenerateMac\" is none",
        ),
        (
            statement(r#""Principal":"*","Resource":"key/*""#),
            "neither * nor an ARN",
        ),
        (
            current(r#""Principal":"*","Resource":"arn:aws:kms:*:*:key/${aws:nobody}""#),
            "no policy variable that IAM or KMS know",
        ),
        (
            current(r#""Principal":"*","Resource":"arn:aws:kms:*:*:key/${aws:username""#),
            "without its }",
        ),
        (
            current(r#""Principal":"*","Resource":"arn:aws:kms:*:*:key/${aws:TagKeys}""#),
            "has several values",
        ),
        (
            current(r#""Principal":"*","Resource":"arn:aws:kms:*:*:key/${aws:username, none}""#),
            "in single quotes",
        ),
        (
            current(r#""Principal":"*","Resource":"arn:aws:kms:${aws:username}""#),
            "all six parts",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"IpAddress":{{"aws:SourceIp":"10.0.0.0/33"}}}}"#
            )),
            "cannot have the value \"10.0.0.0/33\"",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"BinaryEquals":{{"kms:KeySpec":"?"}}}}"#
            )),
            "cannot have the value \"?\"",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"StringMatches":{{"kms:KeySpec":"x"}}}}"#
            )),
            "unknown operator \"StringMatches\"",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"ForSomeValues:StringEquals":{{"aws:TagKeys":"x"}}}}"#
            )),
            "unknown operator",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"StringEquals":{{"kms:Nothing":"x"}}}}"#
            )),
            "unknown key \"kms:Nothing\"",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"StringEquals":{{"kms:KeySpec":[]}}}}"#
            )),
            "has no value",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"StringEquals":{{"kms:ResourceAliases":"x"}}}}"#
            )),
            "has several values",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"Bool":{{"aws:SecureTransport":"yes"}}}}"#
            )),
            "cannot have the value \"yes\"",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"NullIfExists":{{"kms:KeySpec":"true"}}}}"#
            )),
            "unknown operator",
        ),
        (
            statement(&format!(
                r#"{who},"Condition":{{"DateLessThan":{{"aws:CurrentTime":"soon"}}}}"#
            )),
            "cannot have the value \"soon\"",
        ),
    ] {
        let fault = Policy::parse(&text, PolicyKind::Key)
            .unwrap_err()
            .to_string();
        assert!(fault.contains(said), "{text}: {fault}");
    }
    let on_somebody = statement(who);
    let fault = Policy::parse(&on_somebody, PolicyKind::Identity).unwrap_err();
    assert!(
        fault.to_string().contains("must not say Principal"),
        "{fault}"
    );
    let fault = Policy::parse(&statement(r#""Action":"kms:*""#), PolicyKind::Identity).unwrap_err();
    assert!(fault.to_string().contains("no resource"), "{fault}");
}

#[test]
fn a_key_policy_s_statement_without_action_or_resource_has_no_effect() {
    for rest in [r#""Action":"kms:*""#, r#""Resource":"*""#] {
        let policy = key_policy(&format!(r#"{{"Effect":"Allow","Principal":"*",{rest}}}"#));
        assert_eq!(
            decided(USER, Some(&policy), &[]),
            Decision::Denied(Denial::NoKeyPolicy)
        );
    }
}

#[test]
fn every_condition_operator_evaluates_as_in_iam() {
    use ContextKey as K;
    let spec = |value| vec![(K::KeySpec, value)];
    let aliases = vec![
        (K::ResourceAliases, "alias/a"),
        (K::ResourceAliases, "alias/b"),
    ];
    let days = |value| vec![(K::ScheduleKeyDeletionPendingWindowInDays, value)];
    let time = |value| vec![(K::CurrentTime, value)];
    for (operator, key, values, request, holds) in [
        (
            "StringEquals",
            "kms:KeySpec",
            r#"["HMAC_224","HMAC_256"]"#,
            spec("HMAC_256"),
            true,
        ),
        (
            "StringEquals",
            "KMS:keyspec",
            r#""HMAC_224""#,
            spec("HMAC_256"),
            false,
        ),
        (
            "StringEquals",
            "kms:KeySpec",
            r#""HMAC_256""#,
            vec![],
            false,
        ),
        (
            "StringEqualsIfExists",
            "kms:KeySpec",
            r#""HMAC_256""#,
            vec![],
            true,
        ),
        (
            "StringEqualsIfExists",
            "kms:KeySpec",
            r#""HMAC_256""#,
            spec("HMAC_224"),
            false,
        ),
        (
            "StringNotEquals",
            "kms:KeySpec",
            r#"["HMAC_224","HMAC_256"]"#,
            spec("HMAC_256"),
            false,
        ),
        (
            "StringNotEquals",
            "kms:KeySpec",
            r#""HMAC_224""#,
            spec("HMAC_256"),
            true,
        ),
        (
            "StringNotEquals",
            "kms:KeySpec",
            r#""HMAC_224""#,
            vec![],
            true,
        ),
        (
            "StringEqualsIgnoreCase",
            "kms:KeySpec",
            r#""hmac_256""#,
            spec("HMAC_256"),
            true,
        ),
        (
            "StringNotEqualsIgnoreCase",
            "kms:KeySpec",
            r#""hmac_256""#,
            spec("HMAC_256"),
            false,
        ),
        (
            "StringLike",
            "kms:KeySpec",
            r#""HMAC_*""#,
            spec("HMAC_256"),
            true,
        ),
        (
            "StringLike",
            "kms:KeySpec",
            r#""hmac_*""#,
            spec("HMAC_256"),
            false,
        ),
        (
            "StringNotLike",
            "kms:KeySpec",
            r#""HMAC_2?6""#,
            spec("HMAC_256"),
            false,
        ),
        (
            "ArnLike",
            "aws:PrincipalArn",
            r#""arn:aws:iam::*:user/b*""#,
            vec![(K::PrincipalArn, USER)],
            true,
        ),
        (
            "ArnEquals",
            "aws:PrincipalArn",
            r#""arn:*:user/billing""#,
            vec![(K::PrincipalArn, USER)],
            false,
        ),
        (
            "ArnNotLike",
            "aws:PrincipalArn",
            r#""arn:aws:iam::*:role/*""#,
            vec![(K::PrincipalArn, USER)],
            true,
        ),
        (
            "ArnNotEquals",
            "aws:PrincipalArn",
            r#""arn:aws:iam::*:user/*""#,
            vec![(K::PrincipalArn, USER)],
            false,
        ),
        (
            "Bool",
            "aws:SecureTransport",
            "true",
            vec![(K::SecureTransport, "true")],
            true,
        ),
        (
            "Bool",
            "aws:SecureTransport",
            r#""false""#,
            vec![(K::SecureTransport, "true")],
            false,
        ),
        (
            "NumericEquals",
            "kms:ScheduleKeyDeletionPendingWindowInDays",
            "7",
            days("7"),
            true,
        ),
        (
            "NumericNotEquals",
            "kms:ScheduleKeyDeletionPendingWindowInDays",
            "[7,8]",
            days("7"),
            false,
        ),
        (
            "NumericLessThan",
            "kms:ScheduleKeyDeletionPendingWindowInDays",
            "7",
            days("7"),
            false,
        ),
        (
            "NumericLessThanEquals",
            "kms:ScheduleKeyDeletionPendingWindowInDays",
            "7.0",
            days("7"),
            true,
        ),
        (
            "NumericGreaterThan",
            "kms:ScheduleKeyDeletionPendingWindowInDays",
            "7",
            days("30"),
            true,
        ),
        (
            "NumericGreaterThanEquals",
            "kms:ScheduleKeyDeletionPendingWindowInDays",
            "30",
            days("7"),
            false,
        ),
        (
            "NumericEquals",
            "kms:ScheduleKeyDeletionPendingWindowInDays",
            "7",
            days("seven"),
            false,
        ),
        (
            "DateLessThan",
            "aws:CurrentTime",
            r#""2026-11-23T00:00:00Z""#,
            time("2026-11-22T23:59:59Z"),
            true,
        ),
        (
            "DateLessThanEquals",
            "aws:CurrentTime",
            r#""2026-11-22T00:00:00Z""#,
            time("2026-11-22T00:00:00Z"),
            true,
        ),
        (
            "DateGreaterThan",
            "aws:CurrentTime",
            "1795305600",
            time("2026-11-22T00:00:00Z"),
            false,
        ),
        (
            "DateGreaterThanEquals",
            "aws:CurrentTime",
            "1795305600",
            time("2026-11-22T00:00:00Z"),
            true,
        ),
        (
            "DateEquals",
            "aws:CurrentTime",
            r#""2026-11-22T01:00:00+01:00""#,
            time("2026-11-22T00:00:00Z"),
            true,
        ),
        (
            "DateNotEquals",
            "aws:CurrentTime",
            r#""2026-11-22T00:00:00Z""#,
            time("2026-11-22T00:00:00Z"),
            false,
        ),
        (
            "DateLessThan",
            "aws:CurrentTime",
            r#""2026-11-23""#,
            time("2026-11-22T23:59:59Z"),
            true,
        ),
        (
            "IpAddress",
            "aws:SourceIp",
            r#""203.0.113.0/24""#,
            vec![(K::SourceIp, "203.0.113.9")],
            true,
        ),
        (
            "IpAddress",
            "aws:VpcSourceIp",
            r#""203.0.113.9""#,
            vec![(K::SourceIp, "203.0.113.9")],
            true,
        ),
        (
            "IpAddress",
            "aws:SourceIp",
            r#""203.0.113.0/24""#,
            vec![(K::SourceIp, "198.51.100.1")],
            false,
        ),
        (
            "IpAddress",
            "aws:SourceIp",
            r#""2001:db8::/32""#,
            vec![(K::SourceIp, "2001:db8::1")],
            true,
        ),
        (
            "NotIpAddress",
            "aws:SourceIp",
            r#"["10.0.0.0/8","192.168.0.0/16"]"#,
            vec![(K::SourceIp, "192.168.1.1")],
            false,
        ),
        (
            "NotIpAddress",
            "aws:SourceIp",
            r#""10.0.0.0/8""#,
            vec![],
            true,
        ),
        (
            "BinaryEquals",
            "kms:KeySpec",
            r#""SE1BQ18yNTY=""#,
            vec![(K::KeySpec, "HMAC_256")],
            true,
        ),
        (
            "BinaryEquals",
            "kms:KeySpec",
            r#""SE1BQ18yNTY=""#,
            vec![(K::KeySpec, "HMAC_512")],
            false,
        ),
        (
            "StringEquals",
            "kms:KeySpec",
            r#""${aws:username}""#,
            vec![(K::KeySpec, "x"), (K::Username, "x")],
            true,
        ),
        (
            "StringNotEquals",
            "kms:KeySpec",
            r#""${aws:username}""#,
            vec![(K::KeySpec, "x")],
            false,
        ),
        (
            "StringLike",
            "aws:ResourceTag/a",
            r#""${aws:PrincipalTag/team, 'none'}-*""#,
            vec![(K::ResourceTag("a".into()), "none-1")],
            true,
        ),
        (
            "Bool",
            "aws:SecureTransport",
            r#""False""#,
            vec![(K::SecureTransport, "false")],
            true,
        ),
        ("StringEquals", "kms:ViaService", r#""s3""#, vec![], false),
        ("StringNotEquals", "kms:ViaService", r#""s3""#, vec![], true),
        (
            "StringEqualsIfExists",
            "aws:SourceVpce",
            r#""v""#,
            vec![],
            true,
        ),
        (
            "BoolIfExists",
            "aws:MultiFactorAuthPresent",
            r#""true""#,
            vec![],
            true,
        ),
        ("Null", "kms:RequestAlias", "true", vec![], true),
        ("Null", "kms:RequestAlias", "false", vec![], false),
        (
            "Null",
            "kms:RequestAlias",
            "false",
            vec![(K::RequestAlias, "alias/a")],
            true,
        ),
        (
            "Null",
            "kms:ResourceAliases",
            "false",
            aliases.clone(),
            true,
        ),
        (
            "ForAnyValue:StringEquals",
            "kms:ResourceAliases",
            r#""alias/b""#,
            aliases.clone(),
            true,
        ),
        (
            "ForAnyValue:StringEquals",
            "kms:ResourceAliases",
            r#""alias/c""#,
            aliases.clone(),
            false,
        ),
        (
            "ForAnyValue:StringEquals",
            "kms:ResourceAliases",
            r#""alias/c""#,
            vec![],
            false,
        ),
        (
            "ForAllValues:StringLike",
            "kms:ResourceAliases",
            r#""alias/*""#,
            aliases.clone(),
            true,
        ),
        (
            "ForAllValues:StringEquals",
            "kms:ResourceAliases",
            r#""alias/a""#,
            aliases.clone(),
            false,
        ),
        (
            "ForAllValues:StringEquals",
            "kms:ResourceAliases",
            r#""alias/a""#,
            vec![],
            true,
        ),
        (
            "ForAnyValue:StringNotEquals",
            "kms:ResourceAliases",
            r#""alias/a""#,
            aliases.clone(),
            true,
        ),
        (
            "ForAllValues:StringNotEquals",
            "kms:ResourceAliases",
            r#""alias/a""#,
            aliases,
            false,
        ),
        (
            "StringEquals",
            "aws:ResourceTag/Team",
            r#""pay""#,
            vec![(K::ResourceTag("team".into()), "pay")],
            true,
        ),
        (
            "StringEquals",
            "aws:RequestTag/Team",
            r#""pay""#,
            vec![(K::RequestTag("team".into()), "own")],
            false,
        ),
    ] {
        let policy = identity_policy(&format!(
            r#"{{"Effect":"Allow","Action":"*","Resource":"*","Condition":{{"{operator}":{{"{key}":{values}}}}}}}"#
        ));
        let caller = Caller::parse(USER).unwrap();
        let evaluated = PolicyRequest {
            caller: &caller,
            principal_id: None,
            operation: Operation::GenerateMac,
            resource: Some(KEY),
            context: &Pairs(&request),
        };
        let said = policy.evaluate(&evaluated).allow.is_some();
        assert_eq!(said, holds, "{operator} {key} {values} {request:?}");
    }
}

fn statement() -> impl Strategy<Value = String> {
    (
        prop::sample::select(vec!["Allow", "Deny"]),
        prop::sample::select(vec!["Action", "NotAction"]),
        prop::collection::vec(
            prop::sample::select(vec![
                "kms:GenerateMac", "kms:generatemac", "kms:*", "*", "kms:Verify*", "kms:?enerateMac",
                "s3:GetObject", "kms:DescribeKey",
            ]),
            1..3,
        ),
        prop::sample::select(vec!["Resource", "NotResource"]),
        prop::collection::vec(
            prop::sample::select(vec![
                "*",
                KEY,
                "arn:aws:kms:us-west-2:111122223333:key/*",
                "arn:aws:kms:*:111122223333:key/1234*",
                "arn:aws:kms:us-west-2:111122223333:alias/*",
                "arn:aws:kms:us-west-2:444455556666:key/*",
            ]),
            1..3,
        ),
        prop::option::of((
            prop::sample::select(vec![
                "StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringLike",
                "StringNotLike", "StringEqualsIfExists",
            ]),
            prop::collection::vec(
                prop::sample::select(vec!["HMAC_256", "hmac_256", "HMAC_*", "HMAC_512"]),
                1..3,
            ),
        )),
    )
        .prop_map(|(effect, action, actions, resource, resources, condition)| {
            let condition = condition.map_or_else(String::new, |(operator, values)| {
                format!(r#","Condition":{{"{operator}":{{"kms:KeySpec":{values:?}}}}}"#)
            });
            format!(
                r#"{{"Effect":"{effect}","{action}":{actions:?},"{resource}":{resources:?}{condition}}}"#
            )
        })
}

fn action() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "kms:GenerateMac",
        "kms:VerifyMac",
        "kms:DescribeKey",
        "kms:ListKeys",
    ])
}

fn matched(statements: &[String], action: &str, spec: Option<&str>) -> MatchedStatements {
    let policy = identity_policy(&statements.join(","));
    asked(action, spec, |request| {
        let matched = policy.evaluate(request);
        assert_eq!(matched, as_explained(&policy.explain(request)));
        matched
    })
}

/// What the explanations of all statements add up to.
fn as_explained(explained: &[StatementTrace]) -> MatchedStatements {
    let first = |wanted: StatementResult| explained.iter().position(|one| one.result == wanted);
    MatchedStatements {
        deny: first(StatementResult::Denies),
        allow: first(StatementResult::Allows),
        delegate: first(StatementResult::AllowsAccount),
    }
}

fn asked<T>(action: &str, spec: Option<&str>, ask: impl FnOnce(&PolicyRequest<'_>) -> T) -> T {
    let caller = Caller::parse(USER).unwrap();
    let pairs: Vec<_> = spec
        .map(|spec| (ContextKey::KeySpec, spec))
        .into_iter()
        .collect();
    ask(&PolicyRequest {
        caller: &caller,
        principal_id: None,
        operation: Operation::named(action.strip_prefix("kms:").unwrap()).unwrap(),
        resource: Some(KEY),
        context: &Pairs(&pairs),
    })
}

#[test]
fn an_explanation_names_every_mismatch() {
    let condition = r#""Condition":{"StringEquals":{"kms:KeySpec":["HMAC_512","HMAC_384"]},"DateLessThan":{"aws:CurrentTime":"2026-01-31T00:00:00Z"},"Null":{"kms:requestalias":"false"},"NumericLessThan":{"kms:ScheduleKeyDeletionPendingWindowInDays":"8"}}"#;
    let policy = key_policy(&format!(
        r#"{TO_ACCOUNT},{TO_USER},{DENY_USER},{{"Effect":"Deny","Principal":{{"AWS":"{STRANGER}"}},"Action":"kms:Verify*","Resource":"arn:aws:kms:*:*:alias/*",{condition}}}"#
    ));
    let explained = asked("kms:GenerateMac", Some("HMAC_256"), |request| {
        policy.explain(request)
    });
    let said: Vec<_> = explained.iter().map(|one| &one.result).collect();
    let condition = |operator: &str, key: &str, wanted: &[&str], seen| Mismatch::Condition {
        operator: operator.into(),
        key: key.into(),
        wanted: wanted.iter().map(|one| (*one).to_owned()).collect(),
        seen,
    };
    let mismatches = StatementResult::DoesNotApply(vec![
        Mismatch::Principal,
        Mismatch::Action,
        Mismatch::Resource,
        condition(
            "StringEquals",
            "kms:KeySpec",
            &["HMAC_512", "HMAC_384"],
            Values::One("HMAC_256".into()),
        ),
        condition(
            "DateLessThan",
            "aws:CurrentTime",
            &["2026-01-31T00:00:00Z"],
            Values::Absent,
        ),
        condition("Null", "kms:requestalias", &["false"], Values::Absent),
        condition(
            "NumericLessThan",
            "kms:ScheduleKeyDeletionPendingWindowInDays",
            &["8"],
            Values::Absent,
        ),
    ]);
    assert_eq!(
        said,
        [
            &StatementResult::AllowsAccount,
            &StatementResult::Allows,
            &StatementResult::Denies,
            &mismatches
        ]
    );
    assert_eq!(explained[1].sid.as_deref(), Some("Use"));
    assert_eq!(explained[3].effect, Effect::Deny);
}

/// Whether the matched statements of one identity policy allows.
fn allows(matched: MatchedStatements) -> bool {
    matched.deny.is_none() && matched.allow.is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(interpreter::cases()))]

    #[test]
    fn adding_a_deny_never_widens(
        statements in prop::collection::vec(statement(), 0..4),
        more in statement(),
        action in action(),
        spec in prop::option::of(prop::sample::select(vec!["HMAC_256", "HMAC_512"])),
    ) {
        let before = allows(matched(&statements, action, spec));
        let deny = more.replace(r#""Effect":"Allow""#, r#""Effect":"Deny""#);
        let with = [statements, vec![deny]].concat();
        prop_assert!(before || !allows(matched(&with, action, spec)));
    }

    #[test]
    fn the_order_of_statements_is_irrelevant(
        statements in prop::collection::vec(statement(), 0..5),
        by in 0usize..5,
        action in action(),
    ) {
        let one = matched(&statements, action, Some("HMAC_256"));
        let mut turned = statements.clone();
        turned.rotate_left(by % statements.len().max(1));
        let other = matched(&turned, action, Some("HMAC_256"));
        prop_assert_eq!(
            (one.deny.is_some(), one.allow.is_some()),
            (other.deny.is_some(), other.allow.is_some())
        );
    }

    /// Another evaluator says the same of the same document.
    #[test]
    fn iam_rs_agrees(
        statements in prop::collection::vec(statement(), 0..4),
        action in action(),
        spec in prop::option::of(prop::sample::select(vec!["HMAC_256", "HMAC_512"])),
    ) {
        use iam_rs::{Arn, Context as Theirs, ContextValue, Decision as Decided, IAMPolicy, IAMRequest, Principal, PrincipalId};
        let text = format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","));
        let policy: IAMPolicy = serde_json::from_str(&text).unwrap();
        let mut context = Theirs::new();
        if let Some(spec) = spec {
            context.insert("kms:KeySpec".into(), ContextValue::String(spec.into()));
        }
        let request = IAMRequest::new_with_context(
            Principal::Aws(PrincipalId::String(USER.into())),
            action,
            Arn::parse(KEY).unwrap(),
            context,
        );
        let theirs = iam_rs::evaluate_policy(&policy, &request).unwrap();
        let ours = matched(&statements, action, spec);
        let wanted = match (ours.deny, ours.allow) {
            (Some(_), _) => Decided::Deny,
            (None, Some(_)) => Decided::Allow,
            (None, None) => Decided::NotApplicable,
        };
        prop_assert_eq!(theirs, wanted, "{}", text);
    }

    #[test]
    fn no_document_panics(text in "\\PC{0,200}") {
        let _ = Policy::parse(&text, PolicyKind::Key);
    }
}
