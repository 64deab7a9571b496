//! Generated policies and requests: the simulation, the evaluator and the plain interpreter of the
//! model's tests must be of one mind.

use std::sync::OnceLock;

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::*;
use crate::model::{
    GrantId, PrincipalAttributes, RequestOrigin, Tag, Tags,
    policy::{
        ApplicablePolicies, Decision, Policy, PolicyKind, PolicyRequest, decide,
        interpreter::{
            CALLERS, Granted, KEY, Known, Plain, PlainGrant, cases, model_grant, policy,
        },
    },
};

/// What is the same for many requests, and a simulator of it.
struct World {
    simulator: Simulator,
    /// The tag `team` of each principal, and `Team` of the key.
    principal_team: Option<&'static str>,
    key_team: Option<&'static str>,
    aliases: Vec<&'static str>,
    grants: Vec<PlainGrant>,
}

async fn world(
    principal_team: Option<&'static str>,
    key_team: Option<&'static str>,
    aliases: &[&'static str],
    grants: Vec<PlainGrant>,
) -> World {
    let store = Store::memory();
    let mut key = stored_key(KEY.rsplit('/').next().unwrap(), StoredState::Enabled);
    let tag = |team: &str| Tag::new("Team".into(), team.into()).unwrap();
    key.tags = Tags::new(key_team.into_iter().map(tag).collect()).unwrap();
    seed(&store, &key).await;
    for alias in aliases {
        let name = stored::alias_name(&key.account, &alias.parse().unwrap());
        let alias = StoredAlias {
            target: key.key_id.clone(),
            created: Date::now(),
            updated: Date::now(),
        };
        write(&store, name, stored::write(&alias)).await;
    }
    for (number, grant) in (1..).zip(&grants) {
        let id = GrantId::new([number; 32]);
        let name = stored::grant_name(&key.account, &key.key_id, &id);
        write(&store, name, stored::write(&model_grant(grant))).await;
    }
    let principal = |arn: &&str| PrincipalPolicies {
        attributes: PrincipalAttributes {
            tags: principal_team
                .map(|team| ("team".into(), team.into()))
                .into_iter()
                .collect(),
            ..PrincipalAttributes::default()
        },
        caller: Caller::parse(arn).unwrap(),
        policies: Vec::new(),
    };
    let mut settings = settings_with(CALLERS.iter().map(principal).collect());
    settings.keys.clear();
    let groups = ["a".into(), "b".into()];
    World {
        simulator: Simulator::new(settings, &groups, Some(&store))
            .await
            .unwrap(),
        principal_team,
        key_team,
        aliases: aliases.to_vec(),
        grants,
    }
}

impl World {
    /// What the request of this caller has for conditions, written down by hand.
    fn known(
        &self,
        caller: &'static str,
        is_secure: bool,
        source_ip: Option<&'static str>,
    ) -> Known {
        let mut known = Known::from([
            ("kms:keyspec", vec!["HMAC_256"]),
            (
                "aws:securetransport",
                vec![if is_secure { "true" } else { "false" }],
            ),
            ("kms:resourcealiases", self.aliases.clone()),
        ]);
        let principal_arn = match caller.contains(":assumed-role/") {
            true => "arn:aws:iam::111122223333:role/batch",
            false => caller,
        };
        known.insert("aws:principalarn", vec![principal_arn]);
        if caller.contains(":user/") {
            known.insert("aws:username", vec![caller.rsplit('/').next().unwrap()]);
        }
        if let Some(address) = source_ip {
            known.insert("aws:sourceip", vec![address]);
            known.insert("aws:vpcsourceip", vec![address]);
        }
        if let Some(team) = self.principal_team {
            known.insert("aws:principaltag/team", vec![team]);
        }
        if let Some(team) = self.key_team {
            known.insert("aws:resourcetag/team", vec![team]);
        }
        known
    }
}

proptest! {
    // The evaluator has as many again in the model's own tests.
    #![proptest_config(ProptestConfig::with_cases(cases() / 5))]

    #[test]
    fn simulation_evaluator_and_interpreter_agree(
        key in policy(true),
        identity in policy(false),
        caller in select(&CALLERS[..]),
        operation in select(vec![Operation::GenerateMac, Operation::VerifyMac]),
        is_secure in any::<bool>(),
        source_ip in select(vec![None, Some("203.0.113.9"), Some("10.0.0.1")]),
        at in 0..4_usize,
    ) {
        let world = &worlds()[at];
        let parsed = |policy: &Value, kind| Policy::parse(&policy.to_string(), kind).unwrap();
        let origin = RequestOrigin {
            is_secure,
            source_ip: source_ip.map(|address| address.parse().unwrap()),
            ..RequestOrigin::default()
        };
        let asked = SimulatedRequest {
            caller: Caller::parse(caller).unwrap().from(origin),
            operation,
            key_id: Some(KEY.into()),
            alias_name: None,
            mac_algorithm: None,
            key_spec: None,
            tags: Tags::default(),
            tag_keys: Vec::new(),
            pending_window_in_days: None,
            bypass_policy_lockout_safety_check: false,
            new_grant: SimulatedGrant::default(),
            grant_id: None,
            at: None,
            identity_policy: Some(parsed(&identity, PolicyKind::Identity)),
            key_policy: Some(parsed(&key, PolicyKind::Key)),
        };
        let simulated = world.simulator.ask(&asked).unwrap().is_allowed();

        let known = world.known(caller, is_secure, source_ip);
        let account = ACCOUNT.parse().unwrap();
        let granted: Vec<_> = world.grants.iter().map(model_grant).collect();
        let granted = Granted(&granted);
        let rights = ApplicablePolicies {
            key: asked.key_policy.as_ref().map(|policy| (policy, &account)),
            identity: asked.identity_policy.as_slice(),
            grants: Some(&granted),
        };
        let request = PolicyRequest {
            caller: &asked.caller,
            principal_id: None,
            operation,
            resource: Some(KEY),
            context: &known,
        };
        let decided = matches!(decide(&rights, &request), Decision::Allowed(_));
        let plain = Plain { caller, action: operation.action(), resource: KEY, known: &known };
        let plain = plain.allows(&key, &identity, &world.grants);
        prop_assert_eq!(
            (simulated, decided), (plain, plain),
            "{}\n{}\n{:?}", key, identity, known
        );
    }
}

fn to_callers() -> Vec<PlainGrant> {
    let to = |arn: &str, operation| json!({"GranteePrincipal": arn, "Operations": [operation]});
    vec![
        to(CALLERS[1], "GenerateMac"),
        to(CALLERS[3], "VerifyMac"),
        to(CALLERS[4], "GenerateMac"),
    ]
}

fn to_accounts() -> Vec<PlainGrant> {
    let to = |arn: &str| json!({"GranteePrincipal": arn, "Operations": ["GenerateMac"]});
    vec![to(CALLERS[0]), to(CALLERS[5])]
}

fn to_a_role() -> Vec<PlainGrant> {
    let bucket = "arn:aws:s3:us-west-2:111122223333:bucket";
    vec![
        json!({
            "GranteePrincipal": "arn:aws:iam::111122223333:role/of/batch",
            "Operations": ["GenerateMac", "CreateGrant"],
        }),
        json!({
            "GranteePrincipal": CALLERS[1],
            "Operations": ["GenerateMac", "VerifyMac"],
            "Constraints": { "SourceArn": bucket },
        }),
    ]
}

/// Made once, for all cases.
fn worlds() -> &'static [World; 4] {
    static WORLDS: OnceLock<[World; 4]> = OnceLock::new();
    WORLDS.get_or_init(|| {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            [
                world(None, None, &["alias/a"], Vec::new()).await,
                world(Some("pay"), None, &["alias/a", "alias/b"], to_callers()).await,
                world(Some("abcd"), Some("pay"), &["alias/b"], to_accounts()).await,
                world(Some("pay"), Some("bob"), &[], to_a_role()).await,
            ]
        })
    })
}
