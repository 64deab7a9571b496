//! What a simulation says is what the operations do.

use super::*;
use crate::model::{
    KeyUsage, NamesKey, Tag, Tags,
    policy::{Decision, Denial, Grounds, Policy, PolicyKind, StatementResult},
};

/// A store with the key ONE, which has a tag, an alias and this policy.
async fn store(key_policy: &str) -> Store {
    let store = Store::memory();
    let mut key = stored_key(ONE, StoredState::Enabled);
    key_policy.clone_into(&mut key.policy);
    key.tags = tags();
    seed(&store, &key).await;
    let name = stored::alias_name(&key.account, &"alias/one".parse().unwrap());
    let alias = StoredAlias {
        target: ONE.parse().unwrap(),
        created: Date::now(),
        updated: Date::now(),
    };
    write(&store, name, stored::write(&alias)).await;
    store
}

fn tags() -> Tags {
    Tags::new(vec![Tag::new("team".into(), "pay".into()).unwrap()]).unwrap()
}

/// Principals by their ARNs, each with one statement of its own.
fn with(principals: &[(&str, &str)]) -> Settings {
    let principal = |(arn, statement): &(&str, &str)| PrincipalPolicies {
        attributes: Default::default(),
        caller: Caller::parse(arn).unwrap(),
        policies: vec![policy(statement).called(format!("{arn}.json"))],
    };
    settings_with(principals.iter().map(principal).collect())
}

fn groups() -> [String; 2] {
    ["a".into(), "b".into()]
}

async fn simulator(settings: Settings, store: &Store) -> Simulator {
    let simulator = Simulator::new(settings, &groups(), Some(store)).await;
    simulator.unwrap()
}

fn asked(arn: &str, operation: Operation, key_id: &str) -> SimulatedRequest {
    let alias_name = operation.names_alias().then(|| {
        if operation == Operation::CreateAlias {
            "alias/new"
        } else {
            "alias/one"
        }
    });
    let names_key = operation.names_key() != NamesKey::Never;
    SimulatedRequest {
        caller: Caller::parse(arn).unwrap(),
        operation,
        key_id: names_key.then(|| key_id.into()),
        alias_name: alias_name.map(|name| name.parse().unwrap()),
        mac_algorithm: None,
        key_spec: None,
        tags: tags(),
        tag_keys: vec!["team".into()],
        pending_window_in_days: None,
        bypass_policy_lockout_safety_check: false,
        new_grant: SimulatedGrant {
            operations: vec!["GenerateMac".into()],
            grantee_principal: Some(USER.into()),
            ..SimulatedGrant::default()
        },
        grant_id: Some(grant_id(1)),
        at: None,
        identity_policy: None,
        key_policy: None,
    }
}

/// Why the operation itself, asked for the same, does not let the caller in: the exception's text if
/// it is about rights or names, none if it went on to other checks.
async fn really(kms: &Kms, asked: &SimulatedRequest) -> Option<String> {
    let (caller, key_id) = (&asked.caller, asked.key_id.clone());
    let alias_name = asked.alias_name.as_ref().map(ToString::to_string);
    let target_key_id = key_id.clone();
    let pairs = |tags: &Tags| {
        let tags = tags.as_slice().iter();
        tags.map(|tag| (Some(tag.key().into()), Some(tag.value().into())))
            .collect::<Vec<_>>()
    };
    let mac = GenerateMac {
        key_id: key_id.clone(),
        message: Some(bytes::Bytes::from_static(b"x")),
        mac_algorithm: EnumMember::Known(crate::model::MacAlgorithm::HmacSha256),
        grant_tokens: Vec::new(),
        dry_run: false,
    };
    let done = match asked.operation {
        Operation::CancelKeyDeletion => {
            let request = CancelKeyDeletion { key_id };
            let cancelled = kms.cancel_key_deletion(caller, &request, soon()).await;
            cancelled.map(drop)
        }
        Operation::CreateAlias => {
            let request = CreateAlias {
                alias_name,
                target_key_id,
            };
            kms.create_alias(caller, &request, soon()).await
        }
        Operation::CreateKey => {
            let request = CreateKey {
                policy: None,
                bypass_policy_lockout_safety_check: false,
                description: None,
                key_usage: EnumMember::Known(KeyUsage::GenerateVerifyMac),
                key_spec: EnumMember::Known(KeySpec::Hmac256),
                customer_master_key_spec: EnumMember::Absent,
                custom_key_store_id: None,
                xks_key_id: None,
                origin: EnumMember::Absent,
                tags: pairs(&asked.tags),
                // Refused once the rights are known: there is no token here.
                multi_region: true,
            };
            kms.create_key(caller, request, soon()).await.map(drop)
        }
        Operation::DeleteAlias => {
            kms.delete_alias(caller, &DeleteAlias { alias_name }, soon())
                .await
        }
        Operation::DescribeCustomKeyStores => {
            let request = DescribeCustomKeyStores::default();
            kms.describe_custom_key_stores(caller, &request)
        }
        Operation::DescribeKey => {
            let request = DescribeKey {
                key_id,
                grant_tokens: Vec::new(),
            };
            kms.describe_key(caller, request, soon()).await.map(drop)
        }
        Operation::DisableKey => {
            kms.disable_key(caller, &DisableKey { key_id }, soon())
                .await
        }
        Operation::DisableKeyRotation => kms.disable_key_rotation(caller, key_id.as_deref()),
        Operation::EnableKey => kms.enable_key(caller, &EnableKey { key_id }, soon()).await,
        Operation::EnableKeyRotation => {
            let request = EnableKeyRotation {
                key_id,
                rotation_period_in_days: None,
            };
            kms.enable_key_rotation(caller, &request).map(drop)
        }
        Operation::GenerateMac => kms.generate_mac(caller, mac, soon()).await.map(drop),
        Operation::GenerateRandom => {
            let request = GenerateRandom {
                number_of_bytes: Some(1),
                ..GenerateRandom::default()
            };
            kms.generate_random(caller, request, soon()).await.map(drop)
        }
        Operation::GetKeyLastUsage => {
            let request = GetKeyLastUsage { key_id };
            kms.key_last_usage(caller, &request).map(drop)
        }
        Operation::GetKeyPolicy => {
            let request = GetKeyPolicy {
                key_id,
                policy_name: None,
            };
            kms.get_key_policy(caller, &request).map(drop)
        }
        Operation::GetKeyRotationStatus => {
            kms.key_rotation_status(caller, key_id.as_deref()).map(drop)
        }
        Operation::ListAliases => {
            let request = ListAliases {
                key_id,
                limit: None,
                marker: None,
            };
            kms.list_aliases(caller, &request).map(drop)
        }
        Operation::CreateGrant => {
            let request = CreateGrant {
                key_id,
                grantee_principal: asked.new_grant.grantee_principal.clone(),
                operations: Some(asked.new_grant.operations.clone()),
                dry_run: true,
                ..CreateGrant::default()
            };
            kms.create_grant(caller, &request, soon()).await.map(drop)
        }
        Operation::ListGrants => {
            let request = ListGrants {
                key_id,
                ..ListGrants::default()
            };
            kms.list_grants(caller, &request).map(drop)
        }
        Operation::ListRetirableGrants => {
            let request = ListRetirableGrants {
                retiring_principal: Some(caller.arn().into()),
                ..ListRetirableGrants::default()
            };
            kms.list_retirable_grants(caller, &request).map(drop)
        }
        Operation::RetireGrant => {
            let request = RetireGrant {
                key_id,
                grant_id: asked.grant_id.clone(),
                dry_run: true,
                ..RetireGrant::default()
            };
            kms.retire_grant(caller, &request, soon()).await
        }
        Operation::RevokeGrant => {
            let request = RevokeGrant {
                key_id,
                grant_id: Some(grant_id(1)),
                dry_run: true,
            };
            kms.revoke_grant(caller, &request, soon()).await
        }
        Operation::ListKeyPolicies => {
            let request = ListKeyPolicies {
                key_id,
                limit: None,
                marker: None,
            };
            kms.list_key_policies(caller, &request).map(drop)
        }
        Operation::ListKeyRotations => {
            let request = ListKeyRotations {
                key_id,
                include_key_material: EnumMember::Absent,
                limit: None,
                marker: None,
            };
            kms.list_key_rotations(caller, &request).map(drop)
        }
        Operation::ListKeys => {
            let request = ListKeys {
                limit: None,
                marker: None,
                ..ListKeys::default()
            };
            kms.list_keys(caller, request).map(drop)
        }
        Operation::ListResourceTags => {
            let request = ListResourceTags {
                key_id,
                limit: None,
                marker: None,
            };
            kms.list_resource_tags(caller, &request).map(drop)
        }
        Operation::PutKeyPolicy => {
            let request = PutKeyPolicy {
                key_id,
                policy_name: None,
                policy: Some("{}".into()),
                bypass_policy_lockout_safety_check: false,
            };
            kms.put_key_policy(caller, request, soon()).await
        }
        Operation::RotateKeyOnDemand => kms
            .rotate_key_on_demand(caller, key_id.as_deref())
            .map(drop),
        Operation::ScheduleKeyDeletion => {
            let request = ScheduleKeyDeletion {
                key_id,
                pending_window_in_days: None,
            };
            let scheduled = kms.schedule_key_deletion(caller, &request, soon()).await;
            scheduled.map(drop)
        }
        Operation::TagResource => {
            let request = TagResource {
                key_id,
                tags: Some(pairs(&asked.tags)),
            };
            kms.tag_resource(caller, request, soon()).await
        }
        Operation::UntagResource => {
            let request = UntagResource {
                key_id,
                tag_keys: Some(asked.tag_keys.clone()),
            };
            kms.untag_resource(caller, &request, soon()).await
        }
        Operation::UpdateAlias => {
            let request = UpdateAlias {
                alias_name,
                target_key_id,
            };
            kms.update_alias(caller, &request, soon()).await
        }
        Operation::UpdateKeyDescription => {
            let request = UpdateKeyDescription {
                key_id,
                description: Some(String::new()),
            };
            kms.update_key_description(caller, request, soon()).await
        }
        Operation::VerifyMac => {
            let request = VerifyMac {
                of: mac,
                mac: Some(bytes::Bytes::from_static(b"x")),
            };
            kms.verify_mac(caller, request, soon()).await.map(drop)
        }
        Operation::Unsupported(foreign) => {
            let members = foreign.members().iter();
            let values: Vec<_> = members
                .map(|member| good_value(member, key_id.as_deref()))
                .collect();
            Err(kms.refuse_unsupported(caller, foreign, &values))
        }
    };
    let about_rights = |error: &Error| {
        let cause = error.cause().map(ToString::to_string).unwrap_or_default();
        matches!(
            error.kind(),
            Kind::AccessDenied | Kind::NotFound | Kind::InvalidArn
        ) || error.say().contains("must refer to keys")
            || cause.contains("policy cannot be read")
            || cause.contains("record in the store")
    };
    // The key that is to be made has another ID each time.
    let masked = |error: Error| match (asked.operation, error.say().split_once("key/")) {
        (Operation::CreateKey, Some((before, id))) => {
            let after = id.split_once(' ').unwrap().1;
            format!("{before}key/{} {after}", NEW_KEY_ID)
        }
        _ => error.say().to_owned(),
    };
    done.err().filter(about_rights).map(masked)
}

/// A value whose constraints hold, with this key wherever one is named.
fn good_value(member: &Member, key_id: Option<&str>) -> Option<MemberValue> {
    let text = |text: &str| MemberValue::Text(text.into());
    Some(match (&member.of, member.name) {
        (_, "keyId" | "sourceKeyId" | "destinationKeyId") => text(key_id?),
        (_, "primaryRegion" | "replicaRegion") => text("us-east-1"),
        (MemberType::Blob(_), _) => MemberValue::Blob(bytes::Bytes::from_static(b"x")),
        (MemberType::Enum(names), _) => text(names[0]),
        (MemberType::List(..), _) => MemberValue::List(Vec::new()),
        _ => return None,
    })
}

/// What the simulation says instead.
fn simulated(simulator: &Simulator, asked: &SimulatedRequest) -> Option<String> {
    match simulator.ask(asked) {
        Ok(simulation) if simulation.is_allowed() => None,
        Ok(simulation) => {
            let last = simulation.evaluations.last().unwrap();
            Some(last.told.as_ref().unwrap().1.clone())
        }
        Err(unanswered) => Some(unanswered.to_string()),
    }
}

async fn same(key_policy: &str, settings: &Settings, asked: &SimulatedRequest) {
    let store = store(key_policy).await;
    for (number, arn, operations) in [
        (1, FOREIGN, &["GenerateMac", "CreateGrant"][..]),
        (2, USER, &["DescribeKey"]),
        (3, ROOT, &["VerifyMac", "CreateGrant"]),
    ] {
        seed_grant(&store, number, arn, operations).await;
    }
    let simulated = simulated(&simulator(settings.clone(), &store).await, asked);
    let kms = Kms::with_groups(settings.clone(), &groups(), Vec::new()).unwrap();
    let really = really(&kms.over_store(store).await.unwrap(), asked).await;
    match (&simulated, &really) {
        // Of what is not decided the exception is named too.
        (Some(simulated), Some(really)) if simulated.starts_with(really) => {}
        _ => assert_eq!(simulated, really, "{key_policy} {settings:?} {asked:?}"),
    }
}

const USER: &str = "arn:aws:iam::111122223333:user/billing";
const ROOT: &str = "arn:aws:iam::111122223333:root";
const FOREIGN: &str = "arn:aws:iam::444455556666:user/billing";
const ALL: &str = r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#;

/// A key policy that says this of everybody.
fn to_all(effect: &str) -> String {
    format!(
        r#"{{"Statement":[{{"Effect":"{effect}","Principal":"*","Action":"kms:*","Resource":"*"}},{{"Effect":"Allow","Principal":"*","Action":"kms:Describe*","Resource":"*"}}]}}"#
    )
}

#[tokio::test]
async fn every_operation_is_simulated_as_it_is_done() {
    let alias = r#"{"Effect":"Allow","Action":"*","Resource":"arn:aws:kms:*:*:alias/*"}"#;
    let keys = r#"{"Effect":"Allow","Action":"*","Resource":"arn:aws:kms:*:*:key/*"}"#;
    let no_tags = r#"{"Effect":"Allow","NotAction":"kms:TagResource","Resource":"*"}"#;
    let deny = r#"{"Effect":"Deny","Action":"*","Resource":"*"}"#;
    for own in [ALL, alias, keys, no_tags, deny] {
        for key_policy in [
            String::new(),
            to_all("Allow"),
            to_all("Deny"),
            r#"{"Surprise":1}"#.into(),
        ] {
            for (arn, key_id) in [
                (USER, ONE.to_owned()),
                (USER, "alias/one".into()),
                (USER, arn(TWO)),
                (ROOT, arn(ONE)),
                (FOREIGN, arn(ONE)),
                (FOREIGN, arn(TWO)),
            ] {
                let settings = with(&[(USER, own), (FOREIGN, own)]);
                for operation in Operation::ALL {
                    same(&key_policy, &settings, &asked(arn, operation, &key_id)).await;
                }
            }
        }
    }
}

/// Every condition sees in a simulation what it sees in a request, at least whether there is a value.
#[tokio::test]
async fn conditions_see_the_same_in_a_simulation() {
    for key in [
        "aws:CurrentTime",
        "aws:EpochTime",
        "aws:PrincipalAccount",
        "aws:PrincipalArn",
        "aws:RequestTag/team",
        "aws:ResourceTag/team",
        "aws:SecureTransport",
        "aws:TagKeys",
        "kms:BypassPolicyLockoutSafetyCheck",
        "kms:CallerAccount",
        "kms:GrantConstraintType",
        "kms:GrantIsForAWSResource",
        "kms:GrantOperations",
        "kms:GranteePrincipal",
        "kms:RetiringPrincipal",
        "kms:KeyOrigin",
        "kms:KeySpec",
        "kms:KeyUsage",
        "kms:MacAlgorithm",
        "kms:MultiRegion",
        "kms:PolicyName",
        "kms:RequestAlias",
        "kms:ResourceAliases",
        "kms:ScheduleKeyDeletionPendingWindowInDays",
        "kms:ViaService",
    ] {
        let own = format!(
            r#"{{"Effect":"Allow","Action":"*","Resource":"*","Condition":{{"Null":{{"{key}":"false"}}}}}}"#
        );
        let settings = with(&[(USER, &own)]);
        for operation in Operation::ALL {
            let key_id = if operation.takes_alias() {
                "alias/one"
            } else {
                ONE
            };
            same("", &settings, &asked(USER, operation, key_id)).await;
        }
    }
    for condition in [
        r#""StringEquals":{"kms:MacAlgorithm":"HMAC_SHA_256"}"#,
        r#""StringEquals":{"kms:KeySpec":"HMAC_256","aws:RequestTag/team":"pay"}"#,
        r#""NumericEquals":{"kms:ScheduleKeyDeletionPendingWindowInDays":"30"}"#,
        r#""StringEquals":{"kms:PolicyName":"default"}"#,
        r#""Bool":{"kms:BypassPolicyLockoutSafetyCheck":"false"}"#,
    ] {
        let own = format!(
            r#"{{"Effect":"Allow","Action":"*","Resource":"*","Condition":{{{condition}}}}}"#
        );
        let settings = with(&[(USER, &own)]);
        for operation in Operation::ALL {
            same("", &settings, &asked(USER, operation, ONE)).await;
        }
    }
}

#[tokio::test]
async fn a_simulation_names_the_statement_and_every_policy_it_looked_at() {
    let store = store("").await;
    let simulator = simulator(with(&[(USER, ALL)]), &store).await;
    assert_eq!(simulator.revision(), Some(store.revision().await.unwrap()));
    let simulation = simulator
        .ask(&asked(USER, Operation::GenerateMac, "alias/one"))
        .unwrap();
    assert!(simulation.is_declared && simulation.notes.is_empty());
    let [evaluation] = &simulation.evaluations[..] else {
        panic!("{simulation:?}");
    };
    assert_eq!(evaluation.resource.as_deref(), Some(&*arn(ONE)));
    assert_eq!(
        evaluation.decision,
        Some(Decision::Allowed(Grounds::IdentityPolicy(0, 0)))
    );
    assert_eq!(evaluation.decided_by, Some((1, 0)));
    let [key, own] = &evaluation.policies[..] else {
        panic!("{evaluation:?}");
    };
    assert_eq!((key.kind, &*key.name), (PolicyKind::Key, "KMS's default"));
    assert_eq!(key.statements[0].result, StatementResult::AllowsAccount);
    assert_eq!(own.kind, PolicyKind::Identity);
    assert_eq!(own.name, format!("{USER}.json"));
    assert_eq!(own.statements[0].result, StatementResult::Allows);

    // A key of the configuration, asked by somebody whom it does not know.
    let request = asked(
        "arn:aws:iam::111122223333:user/x",
        Operation::VerifyMac,
        DISABLED,
    );
    let simulation = simulator.ask(&request).unwrap();
    assert!(!simulation.is_declared);
    let evaluation = &simulation.evaluations[0];
    assert_eq!(
        evaluation.decision,
        Some(Decision::Denied(Denial::NoIdentityPolicy))
    );
    assert_eq!(
        (evaluation.decided_by, evaluation.policies.len()),
        (None, 1)
    );
    assert!(
        simulation.notes[0].contains("is disabled"),
        "{simulation:?}"
    );

    // Policies that are only tried.
    let deny = r#"{"Effect":"Deny","Action":"*","Resource":"*"}"#;
    let trial = SimulatedRequest {
        identity_policy: Some(policy(deny).called("trial.json")),
        ..asked(USER, Operation::GenerateMac, FIRST)
    };
    let simulation = simulator.ask(&trial).unwrap();
    assert_eq!(
        simulation.evaluations[0].decision,
        Some(Decision::Denied(Denial::IdentityPolicy(0, 0)))
    );
    assert_eq!(simulation.evaluations[0].policies[1].name, "trial.json");
    let key_policy = Policy::parse(&to_all("Deny"), PolicyKind::Key).unwrap();
    let trial = SimulatedRequest {
        key_policy: Some(key_policy),
        mac_algorithm: Some(crate::model::MacAlgorithm::HmacSha512),
        ..asked(USER, Operation::GenerateMac, FIRST)
    };
    let simulation = simulator.ask(&trial).unwrap();
    assert_eq!(
        simulation.evaluations[0].decision,
        Some(Decision::Denied(Denial::KeyPolicy(0)))
    );
    assert!(
        simulation.notes[0].contains("HMAC_SHA_512 is incompatible with key spec HMAC_256"),
        "{simulation:?}"
    );
}

#[tokio::test]
async fn a_simulation_can_be_of_another_time() {
    let store = store("").await;
    let own = r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:CurrentTime":"2020-01-01T00:00:00Z"}}}"#;
    let simulator = simulator(with(&[(USER, own)]), &store).await;
    for (at, allowed) in [(None, false), (Some(1_500_000_000), true)] {
        let request = SimulatedRequest {
            at,
            ..asked(USER, Operation::DescribeKey, ONE)
        };
        let simulation = simulator.ask(&request).unwrap();
        assert_eq!(simulation.is_allowed(), allowed);
    }
}

#[tokio::test]
async fn what_cannot_be_decided_is_told() {
    let store = store("").await;
    let name = stored::key_name(&ACCOUNT.parse().unwrap(), &TWO.parse().unwrap());
    write(&store, name, b"{}".to_vec()).await;
    let simulator = simulator(with(&[(USER, ALL)]), &store).await;
    for (operation, key_id, wanted) in [
        (
            Operation::GenerateMac,
            "alias/none",
            SimulationError::Request(format!(
                "Alias arn:aws:kms:us-west-2:{ACCOUNT}:alias/none is not found. (NotFoundException)"
            )),
        ),
        (
            Operation::DisableKey,
            "alias/one",
            SimulationError::Request(
                "Key Aliases are not supported for this operation. (InvalidArnException)".into(),
            ),
        ),
        (
            Operation::CreateAlias,
            "alias/one",
            SimulationError::Request(
                "Aliases must refer to keys. Not aliases (ValidationException)".into(),
            ),
        ),
        (
            Operation::GenerateMac,
            TWO,
            SimulationError::Store(format!(
                "{} is unavailable. (its record in the store cannot be read)",
                arn(TWO)
            )),
        ),
    ] {
        let unanswered = simulator.ask(&asked(USER, operation, key_id)).unwrap_err();
        assert_eq!(format!("{unanswered:?}"), format!("{wanted:?}"));
    }
    let request = SimulatedRequest {
        alias_name: None,
        ..asked(USER, Operation::DeleteAlias, "")
    };
    let unanswered = simulator.ask(&request).unwrap_err();
    assert_eq!(
        unanswered.to_string(),
        "AliasName is required. (ValidationException)"
    );
    // Nobody of another account learns whether a key exists; the operator sees that no policy was asked.
    let request = asked(FOREIGN, Operation::GenerateMac, &arn(TWO));
    let simulation = simulator.ask(&request).unwrap();
    assert_eq!(simulation.evaluations[0].decision, None);
    assert!(!simulation.is_allowed());

    let twice = Store::memory();
    seed(&twice, &stored_key(FIRST, StoredState::Enabled)).await;
    let fault = Simulator::new(settings(), &groups(), Some(&twice)).await;
    assert!(fault.is_err_and(|fault| fault.to_string().contains(FIRST)));
}

/// A session acts with its role's policies, whether or not it is declared itself.
#[tokio::test]
async fn a_session_has_the_policies_of_its_role() {
    let describe = r#"{"Effect":"Allow","Action":"kms:DescribeKey","Resource":"*"}"#;
    let random = r#"{"Effect":"Allow","Action":"kms:GenerateRandom","Resource":"*"}"#;
    let deny = r#"{"Effect":"Deny","Action":"kms:GenerateMac","Resource":"*"}"#;
    let role = "arn:aws:iam::111122223333:role/shop/batch";
    let declared = "arn:aws:sts::111122223333:assumed-role/batch/night";
    let settings = with(&[
        (declared, random),
        (role, describe),
        (role, deny),
        ("arn:aws:iam::444455556666:role/other", ALL),
    ]);
    for (arn, describes, draws) in [
        (role, true, false),
        (declared, true, true),
        (
            "arn:aws:sts::111122223333:assumed-role/batch/day",
            true,
            false,
        ),
        (
            "arn:aws:sts::111122223333:assumed-role/other/day",
            false,
            false,
        ),
        // A role that is not declared is no session of one of the same name.
        ("arn:aws:iam::111122223333:role/bank/batch", false, false),
        ("arn:aws:iam::111122223333:user/batch", false, false),
    ] {
        let kms = Kms::with_groups(settings.clone(), &groups(), Vec::new()).unwrap();
        let kms = kms.over_store(store("").await).await.unwrap();
        let caller = Caller::parse(arn).unwrap();
        let request = DescribeKey {
            key_id: Some(ONE.into()),
            grant_tokens: Vec::new(),
        };
        let described = kms.describe_key(&caller, request, soon()).await;
        assert_eq!(described.is_ok(), describes, "{arn}");
        let request = GenerateRandom {
            number_of_bytes: Some(1),
            ..GenerateRandom::default()
        };
        let drawn = kms.generate_random(&caller, request, soon()).await;
        assert_eq!(drawn.unwrap_err().kind() != Kind::AccessDenied, draws);
        for operation in [Operation::GenerateMac, Operation::DescribeKey] {
            same("", &settings, &asked(arn, operation, ONE)).await;
        }
    }
}

/// Security: a policy that this version cannot read lets in nobody but who is to mend it.
#[tokio::test]
async fn the_account_s_root_alone_mends_a_policy_that_cannot_be_read() {
    let broken = r#"{"Statement":[],"Surprise":1}"#;
    let settings = with(&[(USER, ALL), (FOREIGN, ALL)]);
    let kms = Kms::with_groups(settings.clone(), &groups(), Vec::new()).unwrap();
    let with_grant = store(broken).await;
    // Nor does a grant: nobody knows what the policy denies.
    seed_grant(&with_grant, 1, USER, &["GenerateMac", "RetireGrant"]).await;
    let kms = kms.over_store(with_grant).await.unwrap();
    for operation in Operation::ALL {
        // ListAliases asks no key's policy, even if it names a key.
        if operation.names_key() != NamesKey::Always {
            continue;
        }
        let allowed = matches!(operation, Operation::GetKeyPolicy | Operation::PutKeyPolicy);
        for arn in [USER, ROOT] {
            let told = really(&kms, &asked(arn, operation, ONE)).await;
            let unavailable = Some(format!("{} is unavailable.", super::arn(ONE)));
            let wanted = unavailable.filter(|_| !(allowed && arn == ROOT));
            // Its own alias is judged before the key.
            if arn == USER || !operation.names_alias() {
                assert_eq!(told, wanted, "{arn} {operation:?}");
            }
        }
    }
    let describe = asked(FOREIGN, Operation::DescribeKey, &arn(ONE));
    let told = really(&kms, &describe).await.unwrap();
    assert!(told.contains("the resource does not exist"), "{told}");

    let root = Caller::parse(ROOT).unwrap();
    let get = GetKeyPolicy {
        key_id: Some(ONE.into()),
        policy_name: None,
    };
    assert_eq!(kms.get_key_policy(&root, &get).unwrap().policy, broken);
    let put = |policy: &str| PutKeyPolicy {
        key_id: Some(ONE.into()),
        policy_name: None,
        policy: Some(policy.into()),
        bypass_policy_lockout_safety_check: false,
    };
    let to_account = r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"kms:*","Resource":"*"}}"#;
    kms.put_key_policy(&root, put(to_account), soon())
        .await
        .unwrap();
    let described = really(&kms, &asked(USER, Operation::DescribeKey, ONE)).await;
    assert_eq!(described, None);

    // Root's own policies count here too.
    let deny = r#"{"Effect":"Deny","Action":"kms:PutKeyPolicy","Resource":"*"}"#;
    let kms = Kms::with_groups(with(&[(ROOT, deny)]), &groups(), Vec::new()).unwrap();
    let kms = kms.over_store(store(broken).await).await.unwrap();
    assert!(
        kms.put_key_policy(&root, put(to_account), soon())
            .await
            .is_err()
    );
    let simulator = simulator(settings, &store(broken).await).await;
    let simulation = simulator
        .ask(&asked(USER, Operation::GenerateMac, ONE))
        .unwrap();
    assert!(
        simulation.notes[0].contains("has the unknown element \"Surprise\""),
        "{simulation:?}"
    );
}
