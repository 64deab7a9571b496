//! Grants: who may make and end them, what they allow, and what is refused in which words.

use tokio::task::JoinSet;

use super::*;
use crate::{
    kms::catalogue::Snapshot,
    model::{PrincipalAttributes, PrincipalId},
    store::Restored,
};

const ADMIN: &str = "arn:aws:iam::111122223333:user/admin";
const BOB: &str = "arn:aws:iam::111122223333:user/bob";
const EVE: &str = "arn:aws:iam::111122223333:user/eve";
const ROLE: &str = "arn:aws:iam::111122223333:role/of/shop/batch";
const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/batch/night";
const ROOT: &str = "arn:aws:iam::111122223333:root";
const FOREIGN: &str = "arn:aws:iam::444455556666:user/bob";
const FOREIGN_ROOT: &str = "arn:aws:iam::444455556666:root";

const ALL: &str = r#"{"Effect":"Allow","Action":"kms:*","Resource":"*"}"#;
const NOTHING: &str = r#"{"Effect":"Allow","Action":"kms:ListKeys","Resource":"*"}"#;

/// Nobody but the admin has rights on the key ONE, which leaves them to its account. Eve has an immutable
/// ID.
fn principals(foreign: &str, eve: &str) -> Settings {
    let principal = |(arn, statement): (&str, &str)| PrincipalPolicies {
        attributes: PrincipalAttributes {
            id: (arn == EVE).then(|| PrincipalId::try_from(eve.to_owned()).unwrap()),
            ..PrincipalAttributes::default()
        },
        caller: who(arn),
        policies: vec![policy(statement)],
    };
    let all = [
        (ADMIN, ALL),
        (BOB, NOTHING),
        (EVE, NOTHING),
        (ROLE, NOTHING),
        (FOREIGN, foreign),
    ];
    settings_with(all.into_iter().map(principal).collect())
}

fn who(arn: &str) -> Caller {
    Caller::parse(arn).unwrap()
}

async fn with_key(store: &Store) -> Arc<Kms> {
    seed(store, &stored_key(ONE, StoredState::Enabled)).await;
    opened(store, ALL, "AIDAEVE").await
}

async fn opened(store: &Store, foreign: &str, eve: &str) -> Arc<Kms> {
    let groups = ["a".into(), "b".into()];
    let kms = Kms::with_groups(principals(foreign, eve), &groups, Vec::new()).unwrap();
    kms.over_store(store.clone()).await.unwrap()
}

fn to(grantee: &str, operations: &[&str]) -> CreateGrant {
    CreateGrant {
        key_id: Some(arn(ONE)),
        grantee_principal: Some(grantee.into()),
        operations: Some(operations.iter().map(|one| (*one).to_owned()).collect()),
        ..CreateGrant::default()
    }
}

async fn made(kms: &Kms, grantee: &str, operations: &[&str]) -> GrantCreated {
    let request = to(grantee, operations);
    kms.create_grant(&who(ADMIN), &request, soon())
        .await
        .unwrap()
}

/// Whether a caller may describe the key ONE.
async fn describes(kms: &Kms, caller: &str) -> bool {
    let request = DescribeKey {
        key_id: Some(arn(ONE)),
        grant_tokens: Vec::new(),
    };
    match kms.describe_key(&who(caller), request, soon()).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), Kind::AccessDenied, "{error}");
            false
        }
    }
}

fn listed(kms: &Kms, limit: i64, marker: Option<String>) -> GrantPage {
    let request = ListGrants {
        key_id: Some(ONE.into()),
        limit: Some(limit),
        marker,
        ..ListGrants::default()
    };
    kms.list_grants(&who(ADMIN), &request).unwrap()
}

fn retire(grant: &GrantCreated) -> RetireGrant {
    RetireGrant {
        key_id: Some(arn(ONE)),
        grant_id: Some(grant.grant_id.to_string()),
        ..RetireGrant::default()
    }
}

fn revoke(grant: &GrantCreated) -> RevokeGrant {
    RevokeGrant {
        key_id: Some(ONE.into()),
        grant_id: Some(grant.grant_id.to_string()),
        dry_run: false,
    }
}

#[tokio::test]
async fn a_grant_lets_in_whom_it_means_until_it_is_revoked() {
    for (grantee, lets_in, does_not) in [
        (BOB, &[BOB][..], &[EVE, SESSION, FOREIGN][..]),
        (ROLE, &[ROLE, SESSION], &[BOB]),
        (SESSION, &[SESSION], &[ROLE]),
        (EVE, &[EVE], &[BOB]),
        ("AIDAEVE", &[EVE], &[BOB]),
        // Its own policies must allow it too, which Bob's do not.
        (ROOT, &[], &[BOB]),
        (FOREIGN, &[FOREIGN], &[BOB, FOREIGN_ROOT]),
        (FOREIGN_ROOT, &[FOREIGN, FOREIGN_ROOT], &[BOB]),
    ] {
        let kms = with_key(&Store::memory()).await;
        for caller in lets_in.iter().chain(does_not) {
            assert!(!describes(&kms, caller).await, "{caller} without a grant");
        }
        let grant = made(&kms, grantee, &["DescribeKey"]).await;
        for (callers, good) in [(lets_in, true), (does_not, false)] {
            for caller in callers {
                assert_eq!(describes(&kms, caller).await, good, "{grantee} {caller}");
            }
        }
        let admin = who(ADMIN);
        kms.revoke_grant(&admin, &revoke(&grant), soon())
            .await
            .unwrap();
        for caller in lets_in {
            assert!(!describes(&kms, caller).await, "{caller} after RevokeGrant");
        }
        let again = kms.revoke_grant(&admin, &revoke(&grant), soon()).await;
        let again = again.unwrap_err();
        let say = format!("Grant ID {} not found", grant.grant_id);
        assert_eq!((again.kind(), again.say()), (Kind::NotFound, &*say));
    }
}

/// Security: a foreign grantee needs a policy of its own account besides.
#[tokio::test]
async fn a_grant_to_another_account_is_half_of_the_right() {
    let store = Store::memory();
    seed(&store, &stored_key(ONE, StoredState::Enabled)).await;
    let kms = opened(&store, NOTHING, "AIDAEVE").await;
    made(&kms, FOREIGN, &["DescribeKey"]).await;
    assert!(!describes(&kms, FOREIGN).await);
}

/// Security: a grant is the principal's who had the ARN when it was made.
#[tokio::test]
async fn who_gets_a_grantee_s_arn_later_is_not_let_in_and_the_grant_shows_the_id() {
    let store = Store::memory();
    let kms = with_key(&store).await;
    made(&kms, EVE, &["DescribeKey"]).await;
    assert_eq!(listed(&kms, 10, None).grants[0].grantee_principal, EVE);
    let kms = opened(&store, ALL, "AIDAOTHER").await;
    assert!(!describes(&kms, EVE).await);
    assert_eq!(
        listed(&kms, 10, None).grants[0].grantee_principal,
        "AIDAEVE"
    );
    let by = |grantee: &str| {
        let request = ListGrants {
            key_id: Some(ONE.into()),
            grantee_principal: Some(grantee.into()),
            ..ListGrants::default()
        };
        kms.list_grants(&who(ADMIN), &request).unwrap().grants.len()
    };
    assert_eq!((by("AIDAEVE"), by("AIDAOTHER"), by(EVE)), (1, 0, 0));
}

/// Security: an explicit deny goes before every grant.
#[tokio::test]
async fn a_policy_that_denies_goes_before_a_grant() {
    let store = Store::memory();
    let mut key = stored_key(ONE, StoredState::Enabled);
    key.policy = format!(
        r#"{{"Statement":[{{"Effect":"Allow","Principal":{{"AWS":"{ADMIN}"}},"Action":"kms:*","Resource":"*"}},
        {{"Effect":"Deny","Principal":{{"AWS":"{BOB}"}},"Action":"kms:DescribeKey","Resource":"*"}}]}}"#
    );
    seed(&store, &key).await;
    let kms = opened(&store, ALL, "AIDAEVE").await;
    made(&kms, BOB, &["DescribeKey"]).await;
    made(&kms, EVE, &["DescribeKey"]).await;
    assert!(!describes(&kms, BOB).await);
    assert!(describes(&kms, EVE).await);
}

#[tokio::test]
async fn the_same_request_with_a_name_gets_the_grant_that_there_is_and_another_token() {
    let kms = with_key(&Store::memory()).await;
    let admin = who(ADMIN);
    let create = async |request: &CreateGrant| kms.create_grant(&admin, request, soon()).await;
    let named = CreateGrant {
        name: Some("for-bills".into()),
        ..to(BOB, &["VerifyMac", "GenerateMac"])
    };
    let first = create(&named).await.unwrap();
    let mut other_order = named.clone();
    other_order.operations.as_mut().unwrap().reverse();
    let second = create(&other_order).await.unwrap();
    assert_eq!(first.grant_id, second.grant_id);
    assert_ne!(first.grant_token, second.grant_token);
    let more = CreateGrant {
        retiring_principal: Some(EVE.into()),
        ..named.clone()
    };
    assert_ne!(create(&more).await.unwrap().grant_id, first.grant_id);
    let unnamed = to(BOB, &["GenerateMac"]);
    let (one, two) = (
        create(&unnamed).await.unwrap(),
        create(&unnamed).await.unwrap(),
    );
    assert_ne!(one.grant_id, two.grant_id);
    assert_eq!(listed(&kms, 100, None).grants.len(), 4);

    // Once it is gone, the name is free.
    kms.revoke_grant(&admin, &revoke(&first), soon())
        .await
        .unwrap();
    let third = create(&named).await.unwrap();
    assert_ne!(third.grant_id, first.grant_id);
    // Either token names it.
    let by_token = |token: &str| RetireGrant {
        grant_token: Some(token.into()),
        ..RetireGrant::default()
    };
    let second = by_token(&second.grant_token);
    let gone = kms.retire_grant(&admin, &second, soon()).await;
    assert_eq!(gone.unwrap_err().kind(), Kind::NotFound);
    let token = create(&named).await.unwrap().grant_token;
    kms.retire_grant(&admin, &by_token(&token), soon())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_ask_for_one_named_grant_at_once_all_get_the_same() {
    let store = Store::memory();
    let kms = with_key(&store).await;
    let mut askers = JoinSet::new();
    for _ in 0..20 {
        let kms = kms.clone();
        askers.spawn(async move {
            let named = CreateGrant {
                name: Some("one".into()),
                ..to(BOB, &["GenerateMac"])
            };
            kms.create_grant(&who(ADMIN), &named, soon())
                .await
                .unwrap()
                .grant_id
        });
    }
    let ids: std::collections::HashSet<_> = askers.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(listed(&kms, 100, None).grants.len(), 1);
}

#[tokio::test]
async fn every_refusal_in_kms_s_words() {
    let store = Store::memory();
    let kms = with_key(&store).await;
    seed(&store, &stored_key(TWO, StoredState::Disabled)).await;
    let now = store.revision().await.unwrap();
    kms.catalogue.reached(now).await;
    let encryption_context = GrantConstraints {
        encryption_context_equals: 1,
        ..GrantConstraints::default()
    };
    let group = "arn:aws:iam::111122223333:group/admins";
    let nobody = "arn:aws:iam::111122223333:user/nobody";
    let service = "s3.amazonaws.com";
    let good = || to(BOB, &["GenerateMac"]);
    type Edit<'a> = &'a dyn Fn(&mut CreateGrant);
    let cases: &[(Edit<'_>, Kind, &str)] = &[
        (
            &|it| it.operations = Some(vec!["Encrypt".into(), "GenerateMac".into()]),
            Kind::Validation,
            "Operations [Encrypt] are not supported when creating a grant for a symmetric KMS key with key usage GENERATE_VERIFY_MAC. Valid operations are [CreateGrant, RetireGrant, DescribeKey, GenerateMac, VerifyMac]",
        ),
        (
            &|it| it.operations = Some(Vec::new()),
            Kind::Validation,
            "Operations [] are not supported",
        ),
        (
            &|it| it.operations = None,
            Kind::Validation,
            "Value null at 'operations'",
        ),
        (
            &|it| it.operations = Some(vec!["Fly".into()]),
            Kind::Validation,
            "Value 'Fly' at 'operations.1.member' failed to satisfy constraint: Member must satisfy enum value set: [",
        ),
        (
            &|it| it.constraints = Some(encryption_context.clone()),
            Kind::Validation,
            "EncryptionContext is supported only when creating a grant for a symmetric encryption KMS key.",
        ),
        (
            &|it| {
                it.constraints = Some(GrantConstraints {
                    source_arn: Some("a".into()),
                    ..GrantConstraints::default()
                })
            },
            Kind::Validation,
            "2 validation errors detected: Value 'a' at 'constraints.sourceArn' failed",
        ),
        (
            &|it| it.grantee_principal = None,
            Kind::Validation,
            "Value null at 'granteePrincipal'",
        ),
        (
            &|it| it.grantee_principal = Some("a*".into()),
            Kind::Validation,
            "Value 'a*' at 'granteePrincipal'",
        ),
        (
            &|it| it.name = Some("a b".into()),
            Kind::Validation,
            "Value 'a b' at 'name'",
        ),
        (
            &|it| it.grantee_principal = Some(nobody.into()),
            Kind::InvalidArn,
            "ARN does not refer to a valid principal: arn:aws:iam::111122223333:user/nobody",
        ),
        (
            &|it| it.grantee_principal = Some(group.into()),
            Kind::InvalidArn,
            "ARN does not refer to a valid principal: arn:aws:iam::111122223333:group/admins",
        ),
        (
            &|it| it.retiring_principal = Some(nobody.into()),
            Kind::InvalidArn,
            "ARN does not refer to a valid principal",
        ),
        (
            &|it| it.grantee_principal = Some("arn:aws:bob".into()),
            Kind::InvalidArn,
            "ARN is not valid: arn:aws:bob",
        ),
        (
            &|it| it.grantee_principal = Some("AIDANOBODY".into()),
            Kind::InvalidArn,
            "GranteePrincipal does not refer to a valid principal.",
        ),
        (
            &|it| it.retiring_principal = Some("AIDANOBODY".into()),
            Kind::InvalidArn,
            "RetiringPrincipal does not refer to a valid principal.",
        ),
        (
            &|it| it.grantee_service_principal = Some(service.into()),
            Kind::Validation,
            "You cannot specify GranteePrincipal and GranteeServicePrincipal in the same request.",
        ),
        (
            &|it| {
                it.grantee_principal = None;
                it.grantee_service_principal = Some(service.into());
            },
            Kind::InvalidArn,
            "GranteeServicePrincipal does not refer to a valid principal.",
        ),
        (
            &|it| it.retiring_service_principal = Some(service.into()),
            Kind::InvalidArn,
            "RetiringServicePrincipal does not refer",
        ),
        (
            &|it| it.key_id = Some("alias/pay".into()),
            Kind::InvalidArn,
            "Key Aliases are not supported for this operation.",
        ),
        (
            &|it| it.key_id = Some("fake".into()),
            Kind::NotFound,
            "Invalid keyId 'fake'",
        ),
        (
            &|it| it.key_id = Some(TWO.into()),
            Kind::Disabled,
            "is disabled.",
        ),
        (
            &|it| it.key_id = Some(FIRST.into()),
            Kind::UnsupportedOperation,
            "is declared in the configuration",
        ),
        (
            &|it| it.grant_tokens = vec!["token".into()],
            Kind::InvalidGrantToken,
            "",
        ),
        (
            &|it| it.grant_tokens = vec!["t".into(); 11],
            Kind::Validation,
            "Value at 'grantTokens' failed",
        ),
        (
            &|it| it.dry_run = true,
            Kind::DryRun,
            "The request would have succeeded, but the DryRun option is set.",
        ),
    ];
    for (edit, kind, say) in cases {
        let mut request = good();
        edit(&mut request);
        let error = kms.create_grant(&who(ADMIN), &request, soon()).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), *kind, "{error:?} {request:?}");
        assert!(error.say().contains(say), "{error:?} {request:?}");
    }
    assert_eq!(listed(&kms, 100, None).grants.len(), 0);

    let list = |edit: &dyn Fn(&mut ListGrants)| {
        let mut request = ListGrants {
            key_id: Some(ONE.into()),
            ..ListGrants::default()
        };
        edit(&mut request);
        kms.list_grants(&who(ADMIN), &request).unwrap_err()
    };
    let error = list(&|it| it.grantee_principal = Some("AIDANOBODY".into()));
    assert_eq!(
        (error.kind(), error.say()),
        (
            Kind::InvalidArn,
            "Input does not refer to a valid principal"
        )
    );
    assert_eq!(
        list(&|it| it.grant_id = Some("0f".into())).kind(),
        Kind::InvalidGrantId
    );
    assert_eq!(
        list(&|it| it.marker = Some("m".into())).kind(),
        Kind::InvalidMarker
    );
    let retirable = |principal: Option<&str>| {
        let request = ListRetirableGrants {
            retiring_principal: principal.map(str::to_owned),
            ..ListRetirableGrants::default()
        };
        kms.list_retirable_grants(&who(ADMIN), &request)
            .unwrap_err()
    };
    assert_eq!(retirable(None).kind(), Kind::Validation);
    let error = retirable(Some("AIDANOBODY"));
    assert_eq!(
        (error.kind(), error.say()),
        (
            Kind::NotFound,
            "Retiring principal AIDANOBODY could not be found"
        )
    );
    // Security: who may retire what is nobody's to know in another account.
    assert_eq!(retirable(Some(FOREIGN)).kind(), Kind::InvalidArn);

    let refused = async |request: RetireGrant| {
        kms.retire_grant(&who(ADMIN), &request, soon())
            .await
            .unwrap_err()
    };
    let neither = "Grant token OR (grant ID, key ID) must be specified";
    assert_eq!(refused(RetireGrant::default()).await.say(), neither);
    let token = |token: &str| RetireGrant {
        grant_token: Some(token.into()),
        ..RetireGrant::default()
    };
    assert_eq!(
        refused(token("token")).await.kind(),
        Kind::InvalidGrantToken
    );
    assert!(!refused(token("")).await.say().contains("Value ''"));
    let grant = made(&kms, BOB, &["GenerateMac"]).await;
    let dry = RetireGrant {
        dry_run: true,
        ..retire(&grant)
    };
    assert_eq!(refused(dry).await.kind(), Kind::DryRun);
    let dry = RevokeGrant {
        dry_run: true,
        ..revoke(&grant)
    };
    let dry = kms
        .revoke_grant(&who(ADMIN), &dry, soon())
        .await
        .unwrap_err();
    assert_eq!(dry.kind(), Kind::DryRun);
    assert_eq!(listed(&kms, 100, None).grants.len(), 1);
}

/// Security: nobody passes on more than they were given, and nothing once that is gone.
#[tokio::test]
async fn a_child_grant_is_no_wider_than_one_parent() {
    let kms = with_key(&Store::memory()).await;
    let bucket = "arn:aws:s3:us-west-2:111122223333:bucket";
    let parent = made(&kms, BOB, &["CreateGrant", "GenerateMac"]).await;
    made(&kms, BOB, &["VerifyMac"]).await;
    let create = async |operations: &[&str], source_arn: Option<&str>| {
        let request = CreateGrant {
            constraints: source_arn.map(|arn| GrantConstraints {
                source_arn: Some(arn.into()),
                ..GrantConstraints::default()
            }),
            ..to(EVE, operations)
        };
        kms.create_grant(&who(BOB), &request, soon()).await
    };
    for (operations, source_arn, good) in [
        (&["GenerateMac"][..], None, true),
        (&["GenerateMac", "CreateGrant"], None, true),
        (&["GenerateMac"], Some(bucket), true),
        // Of two grants, neither of which has both.
        (&["GenerateMac", "VerifyMac"], None, false),
        (&["DescribeKey"], None, false),
        (&["Encrypt"], None, false),
    ] {
        let done = create(operations, source_arn).await;
        assert_eq!(done.is_ok(), good, "{operations:?}: {done:?}");
        if let Err(error) = done {
            assert_eq!(error.kind(), Kind::AccessDenied, "{error}");
        }
    }
    kms.revoke_grant(&who(ADMIN), &revoke(&parent), soon())
        .await
        .unwrap();
    let late = create(&["GenerateMac"], None).await.unwrap_err();
    assert_eq!(late.kind(), Kind::AccessDenied);
}

#[tokio::test]
async fn who_may_retire_a_grant() {
    let kms = with_key(&Store::memory()).await;
    for (operations, retiring, issuer, may, may_not) in [
        (
            &["GenerateMac"][..],
            None,
            ADMIN,
            &[ADMIN, ROOT][..],
            &[BOB, EVE, FOREIGN][..],
        ),
        (&["RetireGrant"], None, ADMIN, &[BOB], &[EVE]),
        (&["GenerateMac"], Some(EVE), ADMIN, &[EVE], &[BOB, FOREIGN]),
        (&["GenerateMac"], Some(ROLE), ADMIN, &[SESSION], &[BOB]),
        // Of another account, whose policies allow it.
        (&["GenerateMac"], Some(FOREIGN), ADMIN, &[FOREIGN], &[BOB]),
    ] {
        for (callers, good) in [(may, true), (may_not, false)] {
            for caller in callers {
                let request = CreateGrant {
                    retiring_principal: retiring.map(str::to_owned),
                    ..to(BOB, operations)
                };
                let grant = kms
                    .create_grant(&who(issuer), &request, soon())
                    .await
                    .unwrap();
                let done = kms
                    .retire_grant(&who(caller), &retire(&grant), soon())
                    .await;
                assert_eq!(
                    done.is_ok(),
                    good,
                    "{operations:?} {retiring:?} {caller}: {done:?}"
                );
                if let Err(error) = done {
                    assert_eq!(error.kind(), Kind::AccessDenied, "{error}");
                }
            }
        }
    }
    // Security: a stranger learns of a grant that is not there what it learns of a key that is not.
    let unknown = RetireGrant {
        key_id: Some(arn(ONE)),
        grant_id: Some("0f".repeat(32)),
        ..RetireGrant::default()
    };
    let no_key = RetireGrant {
        key_id: Some(arn(TWO)),
        ..unknown.clone()
    };
    let told = async |request: &RetireGrant| {
        let error = kms
            .retire_grant(&who(FOREIGN), request, soon())
            .await
            .unwrap_err();
        error.say().to_owned()
    };
    assert_eq!(told(&unknown).await, told(&no_key).await);
}

#[tokio::test]
async fn tokens_are_checked_by_the_catalogue_s_key_also_after_a_restart() {
    let store = Store::memory();
    let kms = with_key(&store).await;
    let grant = made(&kms, BOB, &["DescribeKey"]).await;
    let describe = async |kms: &Kms, tokens: Vec<String>| {
        let request = DescribeKey {
            key_id: Some(arn(ONE)),
            grant_tokens: tokens,
        };
        kms.describe_key(&who(BOB), request, soon()).await.map(drop)
    };
    let token = grant.grant_token.clone();
    describe(&kms, vec![token.clone(); 10]).await.unwrap();
    let again = opened(&store, ALL, "AIDAEVE").await;
    describe(&again, vec![token.clone()]).await.unwrap();
    let foreign = with_key(&Store::memory()).await;
    made(&foreign, BOB, &["DescribeKey"]).await;
    for wrong in ["token", &token[1..], &format!("{token}AAAA")] {
        let error = describe(&again, vec![token.clone(), wrong.into()]).await;
        assert_eq!(
            error.unwrap_err().kind(),
            Kind::InvalidGrantToken,
            "{wrong}"
        );
    }
    let error = describe(&foreign, vec![token]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidGrantToken);
    let error = describe(&again, vec![String::new()]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Validation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_whole_while_others_write() {
    let kms = with_key(&Store::memory()).await;
    let mut stay = std::collections::HashSet::new();
    for number in 0..200 {
        let retiring = (number % 2 == 0).then(|| EVE.to_owned());
        let request = CreateGrant {
            retiring_principal: retiring,
            ..to(BOB, &["GenerateMac"])
        };
        let made = kms
            .create_grant(&who(ADMIN), &request, soon())
            .await
            .unwrap();
        stay.insert(made.grant_id);
    }
    let writer = tokio::spawn({
        let kms = kms.clone();
        async move {
            loop {
                let grant = made(&kms, EVE, &["GenerateMac"]).await;
                kms.revoke_grant(&who(ADMIN), &revoke(&grant), soon())
                    .await
                    .unwrap();
            }
        }
    });
    for _ in 0..20 {
        let mut seen = Vec::new();
        let mut marker = None;
        loop {
            let page = listed(&kms, 7, marker);
            assert!(page.grants.len() <= 7);
            seen.extend(page.grants.iter().map(|grant| grant.grant_id));
            tokio::task::yield_now().await;
            marker = page.next_marker;
            if marker.is_none() {
                break;
            }
        }
        let all: std::collections::HashSet<_> = seen.iter().copied().collect();
        assert_eq!(all.len(), seen.len(), "one is on two pages");
        assert!(stay.is_subset(&all), "one that stays is on none");
        let retirable = ListRetirableGrants {
            retiring_principal: Some(EVE.into()),
            limit: Some(1000),
            ..ListRetirableGrants::default()
        };
        let page = kms.list_retirable_grants(&who(EVE), &retirable);
        // Eve may not ask; her account's admin may.
        assert_eq!(page.unwrap_err().kind(), Kind::AccessDenied);
        let page = kms.list_retirable_grants(&who(ADMIN), &retirable).unwrap();
        assert_eq!((page.grants.len(), page.next_marker), (100, None));
    }
    writer.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_50_000_grants_and_no_more() {
    let store = Store::memory();
    seed(&store, &stored_key(ONE, StoredState::Enabled)).await;
    let (account, key_id) = (ACCOUNT.parse().unwrap(), ONE.parse().unwrap());
    let mut change = Change::new();
    for number in 0_u32..49_999 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let grant = Grant {
            name: None,
            grantee: GrantPrincipal {
                arn: format!("arn:aws:iam::111122223333:user/{number}"),
                id: None,
            },
            retiring: None,
            operations: GrantOperations::named(["DescribeKey"]).unwrap(),
            source_arn: None,
            issuer: ACCOUNT.parse().unwrap(),
            parent: None,
            created: Date::now(),
        };
        let name = stored::grant_name(&account, &key_id, &GrantId::new(id));
        change = change.put(name, stored::write(&grant), Expect::Absent);
    }
    store.commit(change).await.unwrap();
    let kms = opened(&store, ALL, "AIDAEVE").await;
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let kms = kms.clone();
        writers.spawn(async move {
            let request = to(BOB, &["DescribeKey"]);
            kms.create_grant(&who(ADMIN), &request, soon())
                .await
                .map(drop)
        });
    }
    let done = writers.join_all().await;
    let refused = done.iter().filter_map(|done| done.as_ref().err());
    let refused: Vec<_> = refused.map(Error::kind).collect();
    assert_eq!(refused, [Kind::LimitExceeded; 7]);
    assert!(describes(&kms, BOB).await);
}

/// Security: a backup may be older than the end of a grant.
#[tokio::test]
async fn no_grant_counts_in_a_restored_store_until_an_operator_confirms_it() {
    let store = Store::memory();
    let kms = with_key(&store).await;
    made(&kms, BOB, &["DescribeKey"]).await;
    let mark = Restored::name();
    write(&store, mark.clone(), b"{}".to_vec()).await;
    let held = opened(&store, ALL, "AIDAEVE").await;
    assert!(!describes(&held, BOB).await);
    store
        .commit(Change::new().delete(mark, Expect::Any))
        .await
        .unwrap();
    held.catalogue
        .reached(store.revision().await.unwrap())
        .await;
    assert!(describes(&held, BOB).await);
}

#[tokio::test]
async fn a_grant_that_cannot_be_read_allows_nothing_and_is_not_listed() {
    let store = Store::memory();
    let kms = with_key(&store).await;
    let grant = made(&kms, BOB, &["DescribeKey"]).await;
    let name = stored::grant_name(
        &ACCOUNT.parse().unwrap(),
        &ONE.parse().unwrap(),
        &grant.grant_id,
    );
    write(&store, name, b"{}".to_vec()).await;
    kms.catalogue.reached(store.revision().await.unwrap()).await;
    assert!(!describes(&kms, BOB).await);
    assert_eq!(listed(&kms, 10, None).grants.len(), 0);
    assert!(Snapshot::of(&store).await.is_ok());
}
