//! Reads a document's text into statements. Every element that is not known is refused by name.

use std::{borrow::Cow, fmt};

use super::{
    Effect, Patterns, Policy, Resource, Statement,
    action::ActionSet,
    condition::Condition,
    json::Json,
    pattern::ArnPattern,
    principal::{Principal, Principals},
};
use crate::model::{Arn, Caller};

/// What a document is attached to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PolicyKind {
    /// A key: each statement names its principals.
    Key,
    /// A principal: each statement is about that one.
    Identity,
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Identity => "identity",
        })
    }
}

/// Why a document is no policy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyFault {
    /// KMS: MalformedPolicyDocumentException.
    #[error("{0}")]
    Malformed(String),
    /// KMS: InvalidArnException.
    #[error("An ARN in the specified key policy is invalid.")]
    Arn,
}

impl Policy {
    /// Reads an IAM policy document.
    ///
    /// # Errors
    /// [`PolicyFault::Malformed`] with the first element that is missing, unknown or wrong;
    /// [`PolicyFault::Arn`] if a principal is a group.
    pub fn parse(text: &str, kind: PolicyKind) -> Result<Self, PolicyFault> {
        let json = serde_json::from_str(text)
            .map_err(|fault| malformed(format!("Policy is no JSON document: {fault}.")))?;
        let mut statements = None;
        // IAM: a document without a version is of the old one, which has no variables.
        let mut variables = false;
        for (name, value) in object("Policy", json)? {
            match name.as_str() {
                "Version" => match &*string("Version", value)? {
                    "2012-10-17" => variables = true,
                    "2008-10-17" => {}
                    other => {
                        return Err(malformed(format!(
                            "Policy has the unknown version {other:?}."
                        )));
                    }
                },
                "Id" => drop(string("Id", value)?),
                "Statement" => statements = Some(one_or_several(value)),
                _ => return Err(unknown("Policy", &name)),
            }
        }
        let statements = statements.ok_or_else(|| malformed("Policy has no Statement."))?;
        let read = |statement| Statement::read(statement, kind, variables);
        Ok(Self {
            name: Cow::Borrowed(""),
            statements: statements.into_iter().map(read).collect::<Result<_, _>>()?,
        })
    }
}

impl<T> Patterns<T> {
    fn read(negated: bool, patterns: Vec<T>) -> Self {
        match negated {
            false => Self::Any(patterns),
            true => Self::Except(patterns),
        }
    }
}

impl Statement {
    fn read(json: Json, kind: PolicyKind, variables: bool) -> Result<Self, PolicyFault> {
        let mut sid = None;
        let mut effect = None;
        let (mut principals, mut actions, mut resources) = (None, None, None);
        let mut conditions = Vec::new();
        for (name, value) in object("Statement", json)? {
            let negated = name.starts_with("Not");
            match name.as_str() {
                "Sid" => sid = Some(string("Sid", value)?),
                "Effect" => {
                    effect = Some(match &*string("Effect", value)? {
                        "Allow" => Effect::Allow,
                        "Deny" => Effect::Deny,
                        other => {
                            return Err(malformed(format!(
                                "Effect must be Allow or Deny, not {other:?}."
                            )));
                        }
                    });
                }
                "Principal" | "NotPrincipal" => {
                    let named = named_principals(value)?;
                    let read = match negated {
                        false => Principals::These(named),
                        true => Principals::AllBut(named),
                    };
                    once(&mut principals, read, "Principal and NotPrincipal")?;
                }
                "Action" | "NotAction" => {
                    let read = Patterns::read(negated, action_patterns(value)?);
                    once(&mut actions, read, "Action and NotAction")?;
                }
                "Resource" | "NotResource" => {
                    let read = Patterns::read(negated, resource_patterns(value, variables)?);
                    once(&mut resources, read, "Resource and NotResource")?;
                }
                "Condition" => conditions = conditions_in(value, variables)?,
                _ => return Err(unknown("Statement", &name)),
            }
        }
        let effect =
            effect.ok_or_else(|| malformed("Policy contains a statement with no effect."))?;
        let principals = match (kind, principals) {
            (PolicyKind::Key, Some(Principals::AllBut(_))) if effect == Effect::Allow => {
                return Err(malformed(
                    "A statement with NotPrincipal must deny: use Principal to allow.",
                ));
            }
            (PolicyKind::Key, Some(principals)) => principals,
            (PolicyKind::Key, None) => {
                return Err(malformed("Policy contains a statement with no principal."));
            }
            (PolicyKind::Identity, None) => Principals::Bearer,
            (PolicyKind::Identity, Some(_)) => {
                return Err(malformed(
                    "An identity policy must not say Principal: it is about whom it is attached to.",
                ));
            }
        };
        // KMS takes a key policy's statement that lacks one of these, and it has no effect.
        let lacks = |what: &str| match kind {
            PolicyKind::Key => Ok(()),
            PolicyKind::Identity => Err(malformed(format!(
                "Policy contains a statement with no {what}."
            ))),
        };
        if actions.is_none() {
            lacks("action")?;
        }
        if resources.is_none() {
            lacks("resource")?;
        }
        Ok(Self {
            sid,
            effect,
            principals,
            actions: ActionSet::of(&actions.unwrap_or(Patterns::Any(Vec::new()))),
            resources: resources.unwrap_or(Patterns::Any(Vec::new())),
            conditions,
        })
    }
}

fn named_principals(json: Json) -> Result<Vec<Principal>, PolicyFault> {
    let invalid = || malformed("Policy contains a statement with one or more invalid principals.");
    let kinds = match json {
        Json::Text(text) if text == "*" => return Ok(vec![Principal::Anyone]),
        Json::Object(kinds) => kinds,
        Json::Text(_) | Json::List(_) => return Err(invalid()),
    };
    let mut principals = Vec::new();
    for (kind, names) in kinds {
        for name in strings("Principal", names)? {
            principals.push(match kind.as_str() {
                "AWS" => aws_principal(&name)?,
                // No caller here is one of these.
                "Service" | "Federated" | "CanonicalUser" if !name.is_empty() => Principal::Foreign,
                _ => return Err(invalid()),
            });
        }
    }
    if principals.is_empty() {
        return Err(malformed("Policy contains a statement with no principal."));
    }
    Ok(principals)
}

fn aws_principal(name: &str) -> Result<Principal, PolicyFault> {
    if name == "*" {
        return Ok(Principal::Anyone);
    }
    if let Ok(account) = name.parse() {
        return Ok(Principal::Account(account));
    }
    if Arn::split(name).is_some_and(|arn| arn.resource.starts_with("group/")) {
        return Err(PolicyFault::Arn);
    }
    match Caller::parse(name) {
        Ok(root) if root.is_root() => Ok(Principal::Account(root.account().clone())),
        // A star in the middle of a principal means nothing to IAM.
        Ok(caller) if !name.contains(['*', '?']) => Ok(Principal::Arn {
            arn: caller.arn().to_owned(),
            id: None,
        }),
        Ok(_) | Err(_) => Err(malformed(
            "Policy contains a statement with one or more invalid principals.",
        )),
    }
}

fn action_patterns(json: Json) -> Result<Vec<String>, PolicyFault> {
    let patterns = strings("Action", json)?;
    for pattern in &patterns {
        let named = pattern.split_once(':').is_some_and(|(service, action)| {
            let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'*' | b'?');
            let (service, action) = (service.as_bytes(), action.as_bytes());
            !service.is_empty()
                && !action.is_empty()
                && service.iter().chain(action).all(|b| letters(*b))
        });
        if pattern != "*" && !named {
            return Err(malformed(format!(
                "Action {pattern:?} is none: write \"kms:GenerateMac\", with * and ? if you like."
            )));
        }
    }
    Ok(patterns)
}

fn resource_patterns(json: Json, variables: bool) -> Result<Vec<Resource>, PolicyFault> {
    let read = |text: String| {
        if text == "*" {
            return Ok(Resource::Anything);
        }
        if text != "arn" && !text.starts_with("arn:") {
            return Err(malformed(format!(
                "Resource {text:?} is neither * nor an ARN."
            )));
        }
        let pattern = ArnPattern::new(&text, variables);
        pattern.map(Resource::Arn).map_err(malformed)
    };
    strings("Resource", json)?.into_iter().map(read).collect()
}

fn conditions_in(json: Json, variables: bool) -> Result<Vec<Condition>, PolicyFault> {
    let mut conditions = Vec::new();
    for (operator, keys) in object("Condition", json)? {
        for (key, values) in object(&operator, keys)? {
            let values = strings(&key, values)?;
            let condition = Condition::new(&operator, &key, values, variables);
            conditions.push(condition.map_err(malformed)?);
        }
    }
    Ok(conditions)
}

fn object(what: &str, json: Json) -> Result<Vec<(String, Json)>, PolicyFault> {
    match json {
        Json::Object(members) => Ok(members),
        Json::Text(_) | Json::List(_) => Err(malformed(format!("{what} must be an object."))),
    }
}

fn string(what: &str, json: Json) -> Result<String, PolicyFault> {
    match json {
        Json::Text(text) => Ok(text),
        Json::List(_) | Json::Object(_) => Err(malformed(format!("{what} must be a text."))),
    }
}

/// A text, or a list of texts.
fn strings(what: &str, json: Json) -> Result<Vec<String>, PolicyFault> {
    one_or_several(json)
        .into_iter()
        .map(|item| string(what, item))
        .collect()
}

fn one_or_several(json: Json) -> Vec<Json> {
    match json {
        Json::List(items) => items,
        one @ (Json::Text(_) | Json::Object(_)) => vec![one],
    }
}

/// Sets an element that a statement may have once.
fn once<T>(place: &mut Option<T>, value: T, what: &str) -> Result<(), PolicyFault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed(format!("A statement cannot have both {what}."))),
    }
}

fn unknown(what: &str, name: &str) -> PolicyFault {
    malformed(format!("{what} has the unknown element {name:?}."))
}

fn malformed(say: impl Into<String>) -> PolicyFault {
    PolicyFault::Malformed(say.into())
}
