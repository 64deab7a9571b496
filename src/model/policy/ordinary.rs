//! Ordinary key policies, in the forms that AWS's console, its documentation and infrastructure tools
//! give them (`tests/policies/ordinary.json`): each is taken, and decided as documented for three
//! callers. `tests/bridge/ordinary.rs` asks the same of `hsmac policy simulate` and of a server.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{context::context_key, *};

const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ACCOUNT: &str = "111122223333";

#[derive(Deserialize)]
struct Table {
    /// ARNs by the names that `allowed` uses.
    callers: BTreeMap<String, String>,
    policies: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    /// Who may make a MAC, if their identity policies allow it.
    allowed: Vec<String>,
    statements: Vec<Value>,
}

/// What a request of each of the three has, besides what the ARN says.
struct Request {
    caller: Caller,
}

impl Context for Request {
    fn values(&self, key: &ContextKey) -> Values<'_> {
        let of_session = self.caller.session_role().is_some();
        let known = [
            (
                "aws:PrincipalArn",
                self.caller
                    .session_role_arn()
                    .unwrap_or_else(|| self.caller.arn().into()),
            ),
            ("aws:PrincipalAccount", self.caller.account().to_string()),
            ("kms:CallerAccount", self.caller.account().to_string()),
            ("aws:PrincipalType", self.caller.kind().to_owned()),
            ("aws:PrincipalOrgID", "o-exampleorgid".to_owned()),
            ("aws:PrincipalIsAWSService", "false".to_owned()),
            ("aws:ViaAWSService", "false".to_owned()),
            ("aws:SourceIp", "192.0.2.10".to_owned()),
            ("aws:SecureTransport", "true".to_owned()),
            ("aws:RequestedRegion", "us-west-2".to_owned()),
            ("aws:ResourceAccount", ACCOUNT.to_owned()),
            ("aws:ResourceTag/Project", "Alpha".to_owned()),
            ("aws:CurrentTime", "2026-11-26T12:00:00Z".to_owned()),
            ("kms:KeySpec", "HMAC_256".to_owned()),
            ("kms:KeyUsage", "GENERATE_VERIFY_MAC".to_owned()),
            ("kms:KeyOrigin", "AWS_KMS".to_owned()),
            ("kms:MultiRegion", "false".to_owned()),
            ("kms:MacAlgorithm", "HMAC_SHA_256".to_owned()),
            ("kms:RequestAlias", "alias/app".to_owned()),
        ];
        let is_this = |name: &str| context_key(name).as_ref() == Ok(key);
        if is_this("kms:ResourceAliases") {
            return Values::Several(vec!["alias/app".into()]);
        }
        if is_this("aws:PrincipalOrgPaths") {
            return Values::Several(vec!["o-exampleorgid/r-ab12/ou-ab12-11111111/".into()]);
        }
        // Of the three only the session's role is tagged, and only the session has begun some time.
        if is_this("aws:TokenIssueTime") && of_session {
            return Values::One("2024-01-01T00:00:00Z".into());
        }
        if is_this("aws:PrincipalTag/Project") && of_session {
            return Values::One("Alpha".into());
        }
        if let (true, Some(name)) = (is_this("aws:username"), self.caller.user_name()) {
            return Values::One(name.into());
        }
        let found = known.into_iter().find(|(name, _)| is_this(name));
        found.map_or(Values::Absent, |(_, value)| Values::One(value.into()))
    }
}

#[test]
fn each_is_decided_as_documented() {
    let table = include_str!("../../../tests/policies/ordinary.json");
    let Table { callers, policies } = serde_json::from_str(table).unwrap();
    assert!(callers.len() == 3 && policies.len() >= 58);
    let own = r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#;
    let own = [Policy::parse(own, PolicyKind::Identity).unwrap()];
    let account = ACCOUNT.parse().unwrap();
    for Row {
        allowed,
        statements,
    } in policies
    {
        let text = json!({ "Version": "2012-10-17", "Id": "key-policy", "Statement": statements });
        let text = text.to_string();
        let policy = Policy::parse(&text, PolicyKind::Key);
        let policy = policy.unwrap_or_else(|fault| panic!("{text}: {fault}"));
        for (name, arn) in &callers {
            let request = Request {
                caller: Caller::parse(arn).unwrap(),
            };
            let rights = ApplicablePolicies {
                key: Some((&policy, &account)),
                identity: &own,
                grants: None,
            };
            let asked = PolicyRequest {
                caller: &request.caller,
                principal_id: None,
                operation: Operation::GenerateMac,
                resource: Some(KEY),
                context: &request,
            };
            let is_allowed = matches!(decide(&rights, &asked), Decision::Allowed(_));
            assert_eq!(is_allowed, allowed.contains(name), "{name}: {text}");
        }
    }
}
