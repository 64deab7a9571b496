//! `Condition`: what else must hold for a statement to apply.

use chrono::{DateTime, SecondsFormat};

use super::{
    explain::Misfit,
    pattern::{fits, fits_arn},
};

/// One operator with one key: `"StringEquals": {"kms:MacAlgorithm": ["HMAC_SHA_256"]}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    /// Operator and key as the document writes them.
    written: Box<(String, String)>,
    key: ContextKey,
    test: Test,
    negated: bool,
    if_exists: bool,
    quantifier: Option<Quantifier>,
}

/// How one value of the request is compared, with what the document gives.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Equal(Vec<String>),
    EqualIgnoringCase(Vec<String>),
    Like(Vec<String>),
    /// `ArnEquals` and `ArnLike` are the same.
    Arn(Vec<String>),
    Bool(Vec<bool>),
    Number(Order, Vec<f64>),
    /// In milliseconds since 1970.
    Date(Order, Vec<i64>),
    /// Whether the key must be absent.
    Null(bool),
}

/// The request's value, compared with the document's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// For keys with several values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Quantifier {
    All,
    Any,
}

/// The condition keys that a request for an HMAC key can have a value for, or that KMS knows and none
/// of these requests has.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    missing_docs,
    reason = "their names are those of IAM's and KMS's condition keys"
)]
pub enum ContextKey {
    CurrentTime,
    EpochTime,
    PrincipalAccount,
    PrincipalArn,
    /// The value of the key's tag of this name.
    ResourceTag(String),
    /// The value of this tag in the request.
    RequestTag(String),
    SecureTransport,
    TagKeys,
    BypassPolicyLockoutSafetyCheck,
    CallerAccount,
    KeyOrigin,
    KeySpec,
    KeyUsage,
    MacAlgorithm,
    MultiRegion,
    PolicyName,
    RequestAlias,
    ResourceAliases,
    ScheduleKeyDeletionPendingWindowInDays,
    ViaService,
}

/// Keys by their names. Two names of KMS's are older ones of the same thing.
const KEYS: [(&str, ContextKey); 20] = [
    ("aws:CurrentTime", ContextKey::CurrentTime),
    ("aws:EpochTime", ContextKey::EpochTime),
    ("aws:PrincipalAccount", ContextKey::PrincipalAccount),
    ("aws:PrincipalArn", ContextKey::PrincipalArn),
    ("aws:SecureTransport", ContextKey::SecureTransport),
    ("aws:TagKeys", ContextKey::TagKeys),
    (
        "kms:BypassPolicyLockoutSafetyCheck",
        ContextKey::BypassPolicyLockoutSafetyCheck,
    ),
    ("kms:CallerAccount", ContextKey::CallerAccount),
    ("kms:CustomerMasterKeySpec", ContextKey::KeySpec),
    ("kms:CustomerMasterKeyUsage", ContextKey::KeyUsage),
    ("kms:KeyOrigin", ContextKey::KeyOrigin),
    ("kms:KeySpec", ContextKey::KeySpec),
    ("kms:KeyUsage", ContextKey::KeyUsage),
    ("kms:MacAlgorithm", ContextKey::MacAlgorithm),
    ("kms:MultiRegion", ContextKey::MultiRegion),
    ("kms:PolicyName", ContextKey::PolicyName),
    ("kms:RequestAlias", ContextKey::RequestAlias),
    ("kms:ResourceAliases", ContextKey::ResourceAliases),
    (
        "kms:ScheduleKeyDeletionPendingWindowInDays",
        ContextKey::ScheduleKeyDeletionPendingWindowInDays,
    ),
    ("kms:ViaService", ContextKey::ViaService),
];

/// Where the values of condition keys come from.
pub trait Context {
    /// The values of a key in this request.
    fn values(&self, key: &ContextKey) -> Values;
}

/// The values of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Values {
    /// The request has none.
    Absent,
    /// The key has one value.
    One(String),
    /// The key is one of several values, of which there may be none.
    Several(Vec<String>),
}

impl Condition {
    /// # Errors
    /// A sentence on the operator, the key or a value that is not known.
    pub(super) fn new(operator: &str, key: &str, values: Vec<String>) -> Result<Self, String> {
        let unknown = || format!("Condition has the unknown operator {operator:?}.");
        let (quantifier, rest) = match operator.split_once(':') {
            Some(("ForAllValues", rest)) => (Some(Quantifier::All), rest),
            Some(("ForAnyValue", rest)) => (Some(Quantifier::Any), rest),
            Some(_) => return Err(unknown()),
            None => (None, operator),
        };
        let (name, if_exists) = match rest.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (rest, false),
        };
        let has_several =
            |key: &ContextKey| matches!(key, ContextKey::ResourceAliases | ContextKey::TagKeys);
        let name_of_key = key;
        let key = context_key(key)?;
        if has_several(&key) && quantifier.is_none() && name != "Null" {
            return Err(format!(
                "Condition key {name_of_key:?} has several values: write \"ForAnyValue:{operator}\" or \"ForAllValues:{operator}\"."
            ));
        }
        if values.is_empty() {
            return Err(format!("Condition {operator:?} has no value."));
        }
        let wrong =
            |value: &str| format!("Condition {operator:?} cannot have the value {value:?}.");
        let numbers = || {
            parsed(&values, |value| {
                value.parse().ok().filter(|number: &f64| number.is_finite())
            })
            .map_err(wrong)
        };
        let dates = || parsed(&values, date).map_err(wrong);
        let bools = || parsed(&values, |value| value.parse().ok()).map_err(wrong);
        let mut negated = false;
        let test = match name {
            "StringEquals" => Test::Equal(values),
            "StringNotEquals" => {
                negated = true;
                Test::Equal(values)
            }
            "StringEqualsIgnoreCase" => Test::EqualIgnoringCase(values),
            "StringNotEqualsIgnoreCase" => {
                negated = true;
                Test::EqualIgnoringCase(values)
            }
            "StringLike" => Test::Like(values),
            "StringNotLike" => {
                negated = true;
                Test::Like(values)
            }
            "ArnEquals" | "ArnLike" => Test::Arn(values),
            "ArnNotEquals" | "ArnNotLike" => {
                negated = true;
                Test::Arn(values)
            }
            "Bool" => Test::Bool(bools()?),
            "NumericEquals" => Test::Number(Order::Equal, numbers()?),
            "NumericNotEquals" => {
                negated = true;
                Test::Number(Order::Equal, numbers()?)
            }
            "NumericLessThan" => Test::Number(Order::Less, numbers()?),
            "NumericLessThanEquals" => Test::Number(Order::LessOrEqual, numbers()?),
            "NumericGreaterThan" => Test::Number(Order::Greater, numbers()?),
            "NumericGreaterThanEquals" => Test::Number(Order::GreaterOrEqual, numbers()?),
            "DateEquals" => Test::Date(Order::Equal, dates()?),
            "DateNotEquals" => {
                negated = true;
                Test::Date(Order::Equal, dates()?)
            }
            "DateLessThan" => Test::Date(Order::Less, dates()?),
            "DateLessThanEquals" => Test::Date(Order::LessOrEqual, dates()?),
            "DateGreaterThan" => Test::Date(Order::Greater, dates()?),
            "DateGreaterThanEquals" => Test::Date(Order::GreaterOrEqual, dates()?),
            "Null" if !if_exists && quantifier.is_none() => match bools()?[..] {
                [absent] => Test::Null(absent),
                _ => return Err(format!("Condition {operator:?} must have one value.")),
            },
            _ => return Err(unknown()),
        };
        Ok(Self {
            written: Box::new((operator.to_owned(), name_of_key.to_owned())),
            key,
            test,
            negated,
            if_exists,
            quantifier,
        })
    }

    /// What does not hold, with what the document gives and what the request has; None: it holds.
    pub(super) fn unmet(&self, context: &dyn Context) -> Option<Misfit> {
        let (operator, key) = &*self.written;
        (!self.holds(context)).then(|| Misfit::Condition {
            operator: operator.clone(),
            key: key.clone(),
            wanted: self.test.wanted(),
            seen: context.values(&self.key),
        })
    }

    pub(super) fn holds(&self, context: &dyn Context) -> bool {
        let values = context.values(&self.key);
        if let Test::Null(absent) = self.test {
            let is_absent = match values {
                Values::Absent => true,
                Values::One(_) => false,
                Values::Several(values) => values.is_empty(),
            };
            return is_absent == absent;
        }
        let fits = |value: &String| self.test.fits(value) != self.negated;
        match (&values, self.quantifier) {
            (Values::Absent, None) => self.negated || self.if_exists,
            (Values::Absent, Some(quantifier)) => self.if_exists || quantifier == Quantifier::All,
            (Values::One(value), _) => fits(value),
            // Security: such a document is refused: a Deny of it would let everybody through.
            (Values::Several(_), None) => false,
            (Values::Several(values), Some(Quantifier::All)) => values.iter().all(fits),
            (Values::Several(values), Some(Quantifier::Any)) => values.iter().any(fits),
        }
    }
}

impl Test {
    /// What the document gives, as text.
    fn wanted(&self) -> Vec<String> {
        fn shown<T: ToString>(values: &[T]) -> Vec<String> {
            values.iter().map(T::to_string).collect()
        }
        match self {
            Self::Equal(wanted)
            | Self::EqualIgnoringCase(wanted)
            | Self::Like(wanted)
            | Self::Arn(wanted) => wanted.clone(),
            Self::Bool(wanted) => shown(wanted),
            Self::Number(_, wanted) => shown(wanted),
            Self::Date(_, wanted) => wanted.iter().map(|millis| shown_date(*millis)).collect(),
            Self::Null(absent) => vec![absent.to_string()],
        }
    }

    /// Whether a value of the request fits any of the document's.
    fn fits(&self, value: &str) -> bool {
        match self {
            Self::Equal(wanted) => wanted.iter().any(|one| one == value),
            Self::EqualIgnoringCase(wanted) => {
                wanted.iter().any(|one| one.eq_ignore_ascii_case(value))
            }
            Self::Like(wanted) => wanted.iter().any(|one| fits(one, value)),
            Self::Arn(wanted) => wanted.iter().any(|one| fits_arn(one, value)),
            Self::Bool(wanted) => value.parse().is_ok_and(|value| wanted.contains(&value)),
            Self::Number(order, wanted) => value
                .parse()
                .is_ok_and(|value: f64| wanted.iter().any(|one| order.holds(&value, one))),
            Self::Date(order, wanted) => {
                date(value).is_some_and(|value| wanted.iter().any(|one| order.holds(&value, one)))
            }
            Self::Null(_) => false,
        }
    }
}

impl Order {
    fn holds<T: PartialOrd>(self, value: &T, wanted: &T) -> bool {
        match self {
            Self::Equal => value == wanted,
            Self::Less => value < wanted,
            Self::LessOrEqual => value <= wanted,
            Self::Greater => value > wanted,
            Self::GreaterOrEqual => value >= wanted,
        }
    }
}

/// Condition keys' names are the same in large and small letters, tags' names within them as well.
fn context_key(name: &str) -> Result<ContextKey, String> {
    let lower = name.to_ascii_lowercase();
    let tag = |prefix: &str| {
        lower
            .strip_prefix(prefix)
            .filter(|tag| !tag.is_empty())
            .map(str::to_owned)
    };
    if let Some(tag) = tag("aws:resourcetag/") {
        return Ok(ContextKey::ResourceTag(tag));
    }
    if let Some(tag) = tag("aws:requesttag/") {
        return Ok(ContextKey::RequestTag(tag));
    }
    KEYS.iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, key)| key.clone())
        .ok_or_else(|| format!("Condition has the unknown key {name:?}."))
}

/// All values in another form, or the first that has none.
fn parsed<T>(values: &[String], parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, &str> {
    values
        .iter()
        .map(|value| parse(value).ok_or(value.as_str()))
        .collect()
}

/// `2026-11-22T23:00:00Z`, or seconds since 1970.
fn date(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1000);
    }
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|date| date.timestamp_millis())
}

fn shown_date(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis).map_or_else(
        || millis.to_string(),
        |date| date.to_rfc3339_opts(SecondsFormat::AutoSi, true),
    )
}
