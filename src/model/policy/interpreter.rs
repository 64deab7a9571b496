//! A second evaluator, written from IAM's rules as plainly as can be: it reads the JSON anew for each
//! request, and shares nothing with the first but the texts. Generated policies and requests must find
//! both of one mind.

use std::{collections::BTreeMap, net::Ipv4Addr};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{context::context_key, *};
use crate::model::{Date, Grant, GrantOperations, GrantPrincipal, GrantedTo};

/// Values of condition keys, by their names in small letters.
pub(crate) type Known = BTreeMap<&'static str, Vec<&'static str>>;

const ACCOUNT: &str = "111122223333";
pub(crate) const KEY: &str =
    "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
pub(crate) const CALLERS: [&str; 6] = [
    "arn:aws:iam::111122223333:root",
    "arn:aws:iam::111122223333:user/bob",
    "arn:aws:iam::111122223333:user/team/eve",
    "arn:aws:sts::111122223333:assumed-role/batch/night",
    "arn:aws:iam::444455556666:user/bob",
    "arn:aws:iam::444455556666:root",
];
const SEVERAL: [&str; 2] = ["kms:resourcealiases", "aws:tagkeys"];

/// A grant on [`KEY`], as ListGrants tells it.
pub(crate) type PlainGrant = Value;

pub(crate) struct Plain<'a> {
    pub(crate) caller: &'a str,
    pub(crate) action: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) known: &'a Known,
}

impl Plain<'_> {
    /// Whether the key's policy, its grants and the caller's own policy allow it.
    pub(crate) fn allows(&self, key: &Value, identity: &Value, grants: &[PlainGrant]) -> bool {
        let of_key = statements(key).filter(|one| self.applies(key, one));
        let of_key: Vec<&Value> = of_key.filter(|one| self.names_caller(one)).collect();
        let own = statements(identity).filter(|one| self.applies(identity, one));
        let own: Vec<&Value> = own.collect();
        let denies = |one: &&&Value| one["Effect"] == "Deny";
        if of_key.iter().any(|one| denies(&one)) || own.iter().any(|one| denies(&one)) {
            return false;
        }
        let is_own_account = part(self.caller, 4) == ACCOUNT;
        let own = !own.is_empty() || part(self.caller, 5) == "root";
        let itself = of_key.iter().any(|one| {
            let named = named(&one["Principal"]);
            named.iter().any(|name| self.is_itself(name))
        });
        let name = self.action.strip_prefix("kms:").unwrap();
        let granted = grants.iter().filter(|grant| {
            let operations = texts(&grant["Operations"]);
            // No request comes for the sake of an AWS resource.
            operations.iter().any(|one| one == name) && grant.get("Constraints").is_none()
        });
        let mut grantees = granted.map(|grant| grant["GranteePrincipal"].as_str().unwrap());
        let by_grant: Vec<_> = grantees.by_ref().collect();
        let granted_itself = by_grant.iter().any(|name| self.is_itself(name));
        let root = format!("arn:aws:iam::{}:root", part(self.caller, 4));
        let granted_account = by_grant.iter().any(|name| *name == root);
        let outside = !of_key.is_empty() || granted_itself || granted_account;
        match (is_own_account, itself || granted_itself) {
            (true, true) => true,
            // By the account: it, or both sides.
            _ => outside && own,
        }
    }

    fn names_caller(&self, statement: &Value) -> bool {
        let account = part(self.caller, 4);
        let root = format!("arn:aws:iam::{account}:root");
        let is_account = |name: &String| *name == root || name == account;
        if let Some(not) = statement.get("NotPrincipal") {
            let named = named(not);
            if named.iter().any(|name| name == "*") {
                return false;
            }
            // Each of what the caller is must be named.
            let mut parts = vec![named.iter().any(is_account)];
            if part(self.caller, 5) != "root" {
                parts.push(named.iter().any(|name| name == self.caller));
            }
            if self.role().is_some() {
                parts.push(named.iter().any(|name| self.is_role(name)));
            }
            return parts.contains(&false);
        }
        let named = named(&statement["Principal"]);
        named
            .iter()
            .any(|name| self.is_itself(name) || is_account(name))
    }

    fn is_itself(&self, name: &str) -> bool {
        // An account's root stands for its account.
        let is_root = part(name, 5) == "root";
        name == "*" || (name == self.caller && !is_root) || self.is_role(name)
    }

    fn role(&self) -> Option<&str> {
        let rest = part(self.caller, 5).strip_prefix("assumed-role/")?;
        rest.split('/').next()
    }

    fn is_role(&self, name: &str) -> bool {
        let is_role = part(name, 5).starts_with("role/");
        is_role && part(name, 4) == part(self.caller, 4) && name.rsplit('/').next() == self.role()
    }

    fn applies(&self, policy: &Value, statement: &Value) -> bool {
        let action =
            |pattern: &String| wild(&pattern.to_lowercase(), &self.action.to_lowercase(), '*');
        let actions = match statement.get("NotAction") {
            Some(not) => !texts(not).iter().any(action),
            None => texts(&statement["Action"]).iter().any(action),
        };
        let allow = statement["Effect"] == "Allow";
        let resource = |pattern: &String| self.is_resource(policy, pattern);
        let resources = match statement.get("NotResource") {
            Some(not) => {
                let patterns = texts(not);
                let mut replaced = patterns.iter().map(|one| self.replaced(policy, one));
                !patterns.iter().any(resource) && (!allow || replaced.all(|one| one.is_some()))
            }
            None => texts(&statement["Resource"]).iter().any(resource),
        };
        let conditions = statement.get("Condition").and_then(Value::as_object);
        let all_hold = conditions.into_iter().flatten().all(|(operator, keys)| {
            let mut keys = keys.as_object().unwrap().iter();
            keys.all(|(key, wanted)| self.holds(policy, allow, operator, key, &texts(wanted)))
        });
        actions && resources && all_hold
    }

    fn is_resource(&self, policy: &Value, pattern: &str) -> bool {
        if pattern == "*" {
            return true;
        }
        self.replaced(policy, pattern)
            .is_some_and(|pattern| is_arn(&pattern, self.resource))
    }

    /// The text with its variables replaced, and `\u{1}` for each wildcard; none if one has no value.
    fn replaced(&self, policy: &Value, text: &str) -> Option<String> {
        let wildcards = |text: &str| text.replace('*', "\u{1}");
        if policy["Version"] != "2012-10-17" {
            return Some(wildcards(text));
        }
        let mut result = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            result += &wildcards(&rest[..at]);
            let end = at + rest[at..].find('}').unwrap();
            let inside = &rest[at + 2..end];
            rest = &rest[end + 1..];
            if inside == "*" {
                result.push('*');
                continue;
            }
            let (name, default) = match inside.split_once(", ") {
                Some((name, default)) => (name, Some(default.trim_matches('\''))),
                None => (inside, None),
            };
            let value = self
                .known
                .get(&*name.to_lowercase())
                .map(|values| values[0]);
            result += value.or(default)?;
        }
        Some(result + &wildcards(rest))
    }

    fn holds(
        &self,
        policy: &Value,
        allow: bool,
        operator: &str,
        key: &str,
        wanted: &[String],
    ) -> bool {
        let values = self.known.get(&*key.to_lowercase());
        if operator == "Null" {
            return values.is_none() == (wanted[0] == "true");
        }
        let (quantifier, operator) = operator.split_once(':').unwrap_or(("", operator));
        let (operator, if_exists) = match operator.strip_suffix("IfExists") {
            Some(operator) => (operator, true),
            None => (operator, false),
        };
        let positive = operator.replace("Not", "");
        let negated = positive != operator;
        let replaced: Vec<_> = wanted
            .iter()
            .map(|one| self.replaced(policy, one))
            .collect();
        if negated && allow && replaced.contains(&None) {
            return false;
        }
        let Some(values) = values else {
            return if_exists
                || if quantifier.is_empty() {
                    negated
                } else {
                    quantifier == "ForAllValues"
                };
        };
        let fits = |value: &&str| {
            let mut wanted = replaced.iter().flatten();
            wanted.any(|wanted| compare(&positive, wanted, value)) != negated
        };
        match quantifier {
            "ForAllValues" => values.iter().all(fits),
            _ => values.iter().any(fits),
        }
    }
}

fn compare(operator: &str, wanted: &str, value: &str) -> bool {
    let plain = wanted.replace('\u{1}', "*");
    let number = |text: &str| text.parse::<f64>().unwrap();
    match operator {
        "StringEquals" => plain == value,
        "StringEqualsIgnoreCase" => plain.to_lowercase() == value.to_lowercase(),
        "StringLike" => wild(wanted, value, '\u{1}'),
        "ArnEquals" | "ArnLike" => is_arn(wanted, value),
        "Bool" => plain == value,
        "NumericEquals" => number(&plain) == number(value),
        "NumericLessThan" => number(value) < number(&plain),
        "NumericGreaterThanEquals" => number(value) >= number(&plain),
        "IpAddress" => {
            let (network, bits) = plain.split_once('/').unwrap_or((&plain, "32"));
            let shift = 32 - bits.parse::<u32>().unwrap();
            let bits = |text: &str| u64::from(u32::from(text.parse::<Ipv4Addr>().unwrap()));
            bits(network) >> shift == bits(value) >> shift
        }
        other => panic!("{other}"),
    }
}

/// Part by part; what is missing is `*`.
fn is_arn(pattern: &str, arn: &str) -> bool {
    let mut patterns: Vec<&str> = pattern.splitn(6, ':').collect();
    patterns.resize(6, "\u{1}");
    let mut both = patterns.iter().zip(arn.splitn(6, ':'));
    arn.splitn(6, ':').count() == 6 && both.all(|(pattern, part)| wild(pattern, part, '\u{1}'))
}

fn wild(pattern: &str, text: &str, star: char) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => text.is_empty(),
        Some(one) if one == star => {
            let rest = pattern.as_str();
            let mut ends = text.char_indices().map(|(at, _)| &text[at..]).chain([""]);
            ends.any(|text| wild(rest, text, star))
        }
        Some(one) => text
            .strip_prefix(one)
            .is_some_and(|text| wild(pattern.as_str(), text, star)),
    }
}

fn part(arn: &str, at: usize) -> &str {
    arn.splitn(6, ':').nth(at).unwrap_or("")
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![value.to_string()],
    }
}

/// The principals that callers here can be.
fn named(principal: &Value) -> Vec<String> {
    match principal {
        Value::Object(kinds) => kinds.get("AWS").map(texts).unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            texts(principal)
        }
    }
}

fn statements(policy: &Value) -> impl Iterator<Item = &Value> {
    policy["Statement"].as_array().unwrap().iter()
}

fn one_of(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(of)
}

fn some_of(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(one_of(of), 1..3)
}

/// Operator, key and values that belong together.
fn condition() -> impl Strategy<Value = (String, &'static str, Vec<&'static str>)> {
    const KEYS: &[&str] = &[
        "kms:KeySpec",
        "aws:username",
        "AWS:ResourceTag/Team",
        "kms:ViaService",
        "aws:PrincipalTag/team",
    ];
    let with = |quantified: bool,
                operators: &'static [&'static str],
                keys: &'static [&'static str],
                values| {
        let quantifier = match quantified {
            true => one_of(&["ForAllValues:", "ForAnyValue:"]),
            false => one_of(&[""]),
        };
        let suffix = one_of(&["", "", "IfExists"]);
        (
            quantifier,
            one_of(operators),
            suffix,
            one_of(keys),
            some_of(values),
        )
            .prop_map(|(quantifier, operator, suffix, key, values)| {
                (format!("{quantifier}{operator}{suffix}"), key, values)
            })
            .boxed()
    };
    const STRINGS: &[&str] = &[
        "StringEquals",
        "StringNotEquals",
        "StringEqualsIgnoreCase",
        "StringNotEqualsIgnoreCase",
        "StringLike",
        "StringNotLike",
    ];
    const TEXTS: &[&str] = &[
        "HMAC_256",
        "hmac_256",
        "HMAC_*",
        "bob",
        "b*",
        "${aws:username}",
        "${aws:PrincipalTag/team}",
        "${aws:PrincipalTag/team, 'pay'}",
        "pay",
        "${*}",
        "*",
        "alias/*",
    ];
    prop_oneof![
        with(false, STRINGS, KEYS, TEXTS),
        with(
            true,
            STRINGS,
            &["kms:ResourceAliases", "aws:TagKeys"],
            &["alias/a", "alias/*", "bob", "${aws:username}"]
        ),
        with(
            false,
            &["ArnEquals", "ArnNotEquals", "ArnLike", "ArnNotLike"],
            &["aws:PrincipalArn", "aws:SourceArn"],
            &[
                "arn:aws:iam::111122223333:user/*",
                "arn:aws:iam",
                "arn:aws:iam::111122223333:user/${aws:username}",
                "arn:aws:iam::*:root",
                "*"
            ]
        ),
        with(
            false,
            &["Bool"],
            &["aws:SecureTransport", "aws:MultiFactorAuthPresent"],
            &["true", "false"]
        ),
        with(
            false,
            &[
                "NumericEquals",
                "NumericNotEquals",
                "NumericLessThan",
                "NumericGreaterThanEquals"
            ],
            &["kms:ScheduleKeyDeletionPendingWindowInDays"],
            &["7", "30", "7.5"]
        ),
        with(
            false,
            &["IpAddress", "NotIpAddress"],
            &["aws:SourceIp", "aws:VpcSourceIp"],
            &["203.0.113.0/24", "10.0.0.1", "0.0.0.0/0"]
        ),
        (one_of(KEYS), one_of(&["true", "false"])).prop_map(|(key, absent)| (
            "Null".to_owned(),
            key,
            vec![absent]
        )),
    ]
}

fn generated_statement(with_principal: bool) -> impl Strategy<Value = Value> {
    const NAMED: &[&str] = &[
        "*",
        "111122223333",
        CALLERS[0],
        CALLERS[1],
        CALLERS[3],
        CALLERS[4],
        CALLERS[5],
        "arn:aws:iam::111122223333:role/of/batch",
        "arn:aws:iam::111122223333:user/team/eve",
    ];
    /// What a caller is, as NotPrincipal must name it.
    const SPARED: &[&str] = &[
        CALLERS[0],
        CALLERS[1],
        CALLERS[3],
        "arn:aws:iam::111122223333:role/of/batch",
    ];
    const ACTIONS: &[&str] = &[
        "*",
        "kms:*",
        "kms:GenerateMac",
        "KMS:generate*",
        "kms:VerifyMac",
        "s3:*",
    ];
    const RESOURCES: &[&str] = &[
        "*",
        KEY,
        "arn:aws:kms:*:111122223333:key/*",
        "arn:aws:kms",
        "arn:aws:s3:::b",
        "arn:aws:kms:us-west-2:*:key/${aws:username}*",
        "arn:aws:kms:us-west-2:*:key/1234${aws:PrincipalTag/team, 'abcd'}*",
    ];
    (
        any::<(bool, bool, bool, bool)>(),
        some_of(NAMED),
        prop::sample::subsequence(SPARED, 1..SPARED.len()),
        prop::bool::weighted(0.1),
        some_of(ACTIONS),
        some_of(RESOURCES),
        prop::collection::vec(condition(), 0..3),
    )
        .prop_map(
            move |(
                (allow, not_principal, not_action, not_resource),
                named,
                spared,
                service,
                actions,
                resources,
                conditions,
            )| {
                let mut statement = json!({ "Effect": if allow { "Allow" } else { "Deny" } });
                if with_principal {
                    let (kind, names) = if not_principal && !allow {
                        ("NotPrincipal", spared)
                    } else {
                        ("Principal", named)
                    };
                    let mut principals = json!({ "AWS": names });
                    if service {
                        principals["Service"] = json!("s3.amazonaws.com");
                    }
                    statement[kind] = principals;
                }
                statement[if not_action { "NotAction" } else { "Action" }] = json!(actions);
                statement[if not_resource {
                    "NotResource"
                } else {
                    "Resource"
                }] = json!(resources);
                for (operator, key, values) in conditions {
                    statement["Condition"][operator][key] = json!(values);
                }
                statement
            },
        )
}

/// A policy of a key, or of a caller.
pub(crate) fn policy(with_principal: bool) -> impl Strategy<Value = Value> {
    let statements = prop::collection::vec(generated_statement(with_principal), 0..4);
    let version = one_of(&["2012-10-17", "2012-10-17", "2008-10-17"]);
    (version, statements)
        .prop_map(|(version, statements)| json!({ "Version": version, "Statement": statements }))
}

/// Up to three grants.
pub(crate) fn grants() -> impl Strategy<Value = Vec<PlainGrant>> {
    const GRANTEES: &[&str] = &[
        CALLERS[0],
        CALLERS[1],
        CALLERS[2],
        CALLERS[3],
        CALLERS[4],
        CALLERS[5],
        "arn:aws:iam::111122223333:role/of/batch",
        "arn:aws:iam::111122223333:role/bob",
    ];
    const OPERATIONS: &[&str] = &["GenerateMac", "VerifyMac", "DescribeKey", "CreateGrant"];
    let constrained = prop::sample::select(vec![false, false, false, true]);
    let grant = (one_of(GRANTEES), some_of(OPERATIONS), constrained);
    let grant = grant.prop_map(|(grantee, operations, constrained)| {
        let mut grant = json!({ "GranteePrincipal": grantee, "Operations": operations });
        if constrained {
            let bucket = "arn:aws:s3:us-west-2:111122223333:bucket";
            grant["Constraints"] = json!({ "SourceArn": bucket });
        }
        grant
    });
    prop::collection::vec(grant, 0..4)
}

/// The same grant as the evaluator has it.
pub(crate) fn model_grant(grant: &PlainGrant) -> Grant {
    let operations = texts(&grant["Operations"]);
    Grant {
        name: None,
        grantee: GrantPrincipal {
            arn: grant["GranteePrincipal"].as_str().unwrap().to_owned(),
            id: None,
        },
        retiring: None,
        operations: GrantOperations::named(operations.iter().map(String::as_str)).unwrap(),
        source_arn: grant["Constraints"]["SourceArn"]
            .as_str()
            .map(str::to_owned),
        issuer: ACCOUNT.parse().unwrap(),
        parent: None,
        created: Date::default(),
    }
}

/// Grants without a catalogue.
pub(crate) struct Granted<'a>(pub(crate) &'a [Grant]);

impl Grants for Granted<'_> {
    fn allow(&self, request: &PolicyRequest<'_>) -> Option<GrantedTo> {
        let bearer = crate::model::Bearer {
            caller: request.caller,
            ids: [request.principal_id; 2],
        };
        let fit = self
            .0
            .iter()
            .filter(|one| one.covers(request.operation, None));
        let how: Vec<_> = fit.filter_map(|one| one.grantee.means(&bearer)).collect();
        let itself = how.iter().find(|how| **how == GrantedTo::Itself);
        itself.or_else(|| how.first()).copied()
    }
}

fn known() -> impl Strategy<Value = Known> {
    let values: Vec<(&'static str, &'static [&'static str])> = vec![
        ("kms:keyspec", &["HMAC_256"]),
        ("aws:username", &["bob", "b*", "1234"]),
        ("aws:resourcetag/team", &["pay", "bob", "*"]),
        ("aws:principaltag/team", &["pay", "abcd"]),
        ("aws:principalarn", &[CALLERS[0], CALLERS[1]]),
        ("aws:securetransport", &["true", "false"]),
        ("kms:schedulekeydeletionpendingwindowindays", &["7", "30"]),
        ("aws:sourceip", &["203.0.113.9", "10.0.0.1"]),
        ("kms:resourcealiases", &["alias/a", "alias/b", "bob"]),
        ("aws:tagkeys", &["bob", "team"]),
    ];
    let each: Vec<_> = values
        .into_iter()
        .map(|(name, values)| {
            let most = if SEVERAL.contains(&name) { 3 } else { 2 };
            prop::option::of(prop::collection::vec(one_of(values), 1..most))
                .prop_map(move |values| values.map(|values| (name, values)))
        })
        .collect();
    each.prop_map(|found| {
        let mut known: Known = found.into_iter().flatten().collect();
        if let Some(address) = known.get("aws:sourceip").cloned() {
            known.insert("aws:vpcsourceip", address);
        }
        known
    })
}

impl Context for Known {
    fn values(&self, key: &ContextKey) -> Values<'_> {
        let found = self
            .iter()
            .find(|(name, _)| context_key(name).as_ref() == Ok(key));
        match found {
            None => Values::Absent,
            Some((name, values)) if SEVERAL.contains(name) => {
                Values::Several(values.iter().map(|value| (*value).into()).collect())
            }
            Some((_, values)) => Values::One(values[0].into()),
        }
    }
}

/// How many cases of each generated test there are.
pub(crate) fn cases() -> u32 {
    let long = if std::env::var_os("TEST_LONG").is_some() {
        100_000
    } else {
        5_000
    };
    std::env::var("PROPTEST_CASES").map_or(long, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn the_plain_interpreter_agrees(
        key in policy(true),
        identity in policy(false),
        caller in prop::sample::select(&CALLERS[..]),
        operation in prop::sample::select(vec![Operation::GenerateMac, Operation::VerifyMac]),
        known in known(),
        grants in grants(),
    ) {
        let parsed = |policy: &Value, kind| Policy::parse(&policy.to_string(), kind).unwrap();
        let of_key = parsed(&key, PolicyKind::Key);
        let own = [parsed(&identity, PolicyKind::Identity)];
        let account = ACCOUNT.parse().unwrap();
        let granted: Vec<Grant> = grants.iter().map(model_grant).collect();
        let granted = Granted(&granted);
        let rights = ApplicablePolicies {
            key: Some((&of_key, &account)),
            identity: &own,
            grants: Some(&granted),
        };
        let who = Caller::parse(caller).unwrap();
        let request = PolicyRequest {
            caller: &who,
            principal_id: None,
            operation,
            resource: Some(KEY),
            context: &known,
        };
        let ours = matches!(decide(&rights, &request), Decision::Allowed(_));
        let plain = Plain { caller, action: operation.action(), resource: KEY, known: &known };
        let wanted = plain.allows(&key, &identity, &grants);
        prop_assert_eq!(ours, wanted, "{}\n{}\n{:?}\n{:?}", key, identity, known, grants);
    }
}
