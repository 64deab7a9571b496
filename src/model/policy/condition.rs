//! `Condition`: what must hold of a request, besides principal, action and resource.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;

use super::{
    Effect,
    context::{Context, ContextKey, Values, context_key},
    date::{date, shown_date},
    explain::Mismatch,
    pattern::{ArnPattern, Pattern},
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

/// How one value of the request is compared, with the values that the document gives.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Equal(Vec<Pattern>),
    EqualIgnoringCase(Vec<Pattern>),
    Like(Vec<Pattern>),
    /// Of `ArnEquals` and `ArnLike`, which do not differ.
    Arn(Vec<ArnPattern>),
    Binary(Vec<Vec<u8>>),
    Bool(Vec<bool>),
    Ip(Vec<IpNet>),
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

impl Condition {
    /// Reads an operator, a condition key and the values to compare with; `variables` says whether
    /// `${…}` in them is replaced.
    ///
    /// # Errors
    /// A sentence that quotes the operator, the key or the value that is not known.
    pub(super) fn new(
        operator: &str,
        key: &str,
        values: Vec<String>,
        variables: bool,
    ) -> Result<Self, String> {
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
        let name_of_key = key;
        let key = context_key(key)?;
        if key.has_several_values() && quantifier.is_none() && name != "Null" {
            return Err(format!(
                "Condition key {name_of_key:?} has several values: write \"ForAnyValue:{operator}\" or \"ForAllValues:{operator}\"."
            ));
        }
        if values.is_empty() {
            return Err(format!("Condition {operator:?} has no value."));
        }
        let (name, negated) = match name {
            "StringNotEquals" => ("StringEquals", true),
            "StringNotEqualsIgnoreCase" => ("StringEqualsIgnoreCase", true),
            "StringNotLike" => ("StringLike", true),
            "ArnNotEquals" | "ArnNotLike" => ("ArnLike", true),
            "NumericNotEquals" => ("NumericEquals", true),
            "DateNotEquals" => ("DateEquals", true),
            "NotIpAddress" => ("IpAddress", true),
            name => (name, false),
        };
        let test = match name {
            "Null" if if_exists || quantifier.is_some() => None,
            name => Test::new(operator, name, &values, variables)?,
        };
        Ok(Self {
            written: Box::new((operator.to_owned(), name_of_key.to_owned())),
            key,
            test: test.ok_or_else(unknown)?,
            negated,
            if_exists,
            quantifier,
        })
    }

    /// Why the condition does not hold; `None` if it holds.
    pub(super) fn unmet(&self, effect: Effect, context: &dyn Context) -> Option<Mismatch> {
        let (operator, key) = &*self.written;
        (!self.holds(effect, context)).then(|| Mismatch::Condition {
            operator: operator.clone(),
            key: key.clone(),
            wanted: self.test.wanted(),
            seen: context.values(&self.key).into_owned(),
        })
    }

    pub(super) fn holds(&self, effect: Effect, context: &dyn Context) -> bool {
        let values = context.values(&self.key);
        if let Test::Null(absent) = self.test {
            let is_absent = match values {
                Values::Absent => true,
                Values::One(_) => false,
                Values::Several(values) => values.is_empty(),
            };
            return is_absent == absent;
        }
        // Security: a variable without a value is equal to nothing, and "not equal" to that allows
        // nobody.
        if self.negated && effect == Effect::Allow && !self.test.is_resolved(context) {
            return false;
        }
        let fits = |value: &str| self.test.fits(value, context) != self.negated;
        match (&values, self.quantifier) {
            (Values::Absent, None) => self.negated || self.if_exists,
            (Values::Absent, Some(quantifier)) => self.if_exists || quantifier == Quantifier::All,
            (Values::One(value), _) => fits(value),
            // Security: such a document is refused when it is read; its Deny would never apply.
            (Values::Several(_), None) => false,
            (Values::Several(values), Some(Quantifier::All)) => {
                values.iter().all(|value| fits(value))
            }
            (Values::Several(values), Some(Quantifier::Any)) => {
                values.iter().any(|value| fits(value))
            }
        }
    }

    /// Why no request here can meet the condition; `None` if one can.
    pub(super) fn never_holds(&self) -> Option<String> {
        let (operator, key) = &*self.written;
        let holds_when_absent = match (&self.test, self.quantifier) {
            (Test::Null(absent), _) => *absent,
            (_, None) => self.negated || self.if_exists,
            (_, Some(quantifier)) => self.if_exists || quantifier == Quantifier::All,
        };
        (!self.key.can_be_present() && !holds_when_absent)
            .then(|| format!("{operator} {key}: no request to hsmac has this key"))
    }
}

impl Test {
    /// The test that an operator without its affixes stands for; `None` if there is no such operator.
    fn new(
        operator: &str,
        name: &str,
        values: &[String],
        variables: bool,
    ) -> Result<Option<Self>, String> {
        let wrong =
            |value: &str| format!("Condition {operator:?} cannot have the value {value:?}.");
        let number = |value: &str| value.parse().ok().filter(|number: &f64| number.is_finite());
        let numbers = || parsed(values, number).map_err(wrong);
        let dates = || parsed(values, date).map_err(wrong);
        let bools = || parsed(values, truth).map_err(wrong);
        let patterns = || -> Result<Vec<Pattern>, String> {
            values
                .iter()
                .map(|value| Pattern::new(value, variables))
                .collect()
        };
        let arns = || -> Result<Vec<ArnPattern>, String> {
            values
                .iter()
                .map(|value| ArnPattern::new(value, variables))
                .collect()
        };
        Ok(Some(match name {
            "StringEquals" => Self::Equal(patterns()?),
            "StringEqualsIgnoreCase" => Self::EqualIgnoringCase(patterns()?),
            "StringLike" => Self::Like(patterns()?),
            "ArnEquals" | "ArnLike" => Self::Arn(arns()?),
            "BinaryEquals" => {
                Self::Binary(parsed(values, |value| STANDARD.decode(value).ok()).map_err(wrong)?)
            }
            "Bool" => Self::Bool(bools()?),
            "IpAddress" => Self::Ip(parsed(values, network).map_err(wrong)?),
            "NumericEquals" => Self::Number(Order::Equal, numbers()?),
            "NumericLessThan" => Self::Number(Order::Less, numbers()?),
            "NumericLessThanEquals" => Self::Number(Order::LessOrEqual, numbers()?),
            "NumericGreaterThan" => Self::Number(Order::Greater, numbers()?),
            "NumericGreaterThanEquals" => Self::Number(Order::GreaterOrEqual, numbers()?),
            "DateEquals" => Self::Date(Order::Equal, dates()?),
            "DateLessThan" => Self::Date(Order::Less, dates()?),
            "DateLessThanEquals" => Self::Date(Order::LessOrEqual, dates()?),
            "DateGreaterThan" => Self::Date(Order::Greater, dates()?),
            "DateGreaterThanEquals" => Self::Date(Order::GreaterOrEqual, dates()?),
            "Null" => match bools()?[..] {
                [absent] => Self::Null(absent),
                _ => return Err(format!("Condition {operator:?} must have one value.")),
            },
            _ => return Ok(None),
        }))
    }

    /// What the document gives, as text.
    fn wanted(&self) -> Vec<String> {
        fn shown<T: ToString>(values: &[T]) -> Vec<String> {
            values.iter().map(T::to_string).collect()
        }
        match self {
            Self::Equal(wanted) | Self::EqualIgnoringCase(wanted) | Self::Like(wanted) => {
                shown(wanted)
            }
            Self::Arn(wanted) => shown(wanted),
            Self::Binary(wanted) => wanted.iter().map(|value| STANDARD.encode(value)).collect(),
            Self::Bool(wanted) => shown(wanted),
            Self::Ip(wanted) => shown(wanted),
            Self::Number(_, wanted) => shown(wanted),
            Self::Date(_, wanted) => wanted.iter().map(|millis| shown_date(*millis)).collect(),
            Self::Null(absent) => vec![absent.to_string()],
        }
    }

    /// Whether all variables among the document's values stand for something in this request.
    fn is_resolved(&self, context: &dyn Context) -> bool {
        match self {
            Self::Equal(wanted) | Self::EqualIgnoringCase(wanted) | Self::Like(wanted) => {
                wanted.iter().all(|one| one.is_resolved(context))
            }
            Self::Arn(wanted) => wanted.iter().all(|one| one.is_resolved(context)),
            Self::Binary(_)
            | Self::Bool(_)
            | Self::Ip(_)
            | Self::Number(..)
            | Self::Date(..)
            | Self::Null(_) => true,
        }
    }

    /// Whether a value of the request fits any of the document's.
    fn fits(&self, value: &str, context: &dyn Context) -> bool {
        match self {
            Self::Equal(wanted) => wanted.iter().any(|one| one.equals(value, context)),
            Self::EqualIgnoringCase(wanted) => wanted
                .iter()
                .any(|one| one.equals_ignoring_case(value, context)),
            Self::Like(wanted) => wanted.iter().any(|one| one.fits(value, context)),
            Self::Arn(wanted) => wanted.iter().any(|one| one.fits(value, context)),
            Self::Binary(wanted) => wanted.iter().any(|one| one == value.as_bytes()),
            Self::Bool(wanted) => truth(value).is_some_and(|value| wanted.contains(&value)),
            Self::Ip(wanted) => value
                .parse()
                .is_ok_and(|value: IpAddr| wanted.iter().any(|one| one.contains(&value))),
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

/// All values in another form, or the first that has none.
fn parsed<T>(values: &[String], parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, &str> {
    values
        .iter()
        .map(|value| parse(value).ok_or(value.as_str()))
        .collect()
}

fn truth(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// `203.0.113.0/24`, `2001:db8::/32`, or one address.
fn network(text: &str) -> Option<IpNet> {
    let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(one)
}
