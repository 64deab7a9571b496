//! Members of requests and answers in AWS JSON 1.1: text, numbers, base64 blobs, seconds since 1970.
//!
//! A member that is null is absent; one that nobody knows is ignored. A member of the wrong type is
//! a SerializationException in the words of AWS's servers, which name Java's types.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::{Serialize, Serializer, de::IgnoredAny};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Kind},
    kms::{EnumMember, Member, MemberType, MemberValue},
    model::Date,
};

pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// An answer with its headers; an operation without output has an empty body.
pub(super) fn response(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

/// An answer's body.
pub(super) fn bytes(answer: &impl Serialize) -> Bytes {
    serde_json::to_vec(answer)
        .expect("answers have text as names, and nothing that cannot be written")
        .into()
}

/// Whether a body is JSON at all. Keeps nothing of it: the peer has not authenticated yet.
pub(super) fn require_json(body: &[u8]) -> Result<(), Error> {
    serde_json::from_slice::<IgnoredAny>(body)
        .map(drop)
        .map_err(|fault| Error::new(Kind::Serialization, "").because(fault))
}

/// The members of a request that were not taken yet.
pub(super) struct Members(Map<String, Value>);

impl Members {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Error> {
        match serde_json::from_slice(body) {
            Ok(value) => structure(value),
            Err(fault) => Err(Error::new(Kind::Serialization, "").because(fault)),
        }
    }

    pub(super) fn text(&mut self, member: &str) -> Result<Option<String>, Error> {
        self.take(member).map(text).transpose()
    }

    /// A list of texts; an absent one is empty.
    pub(super) fn texts(&mut self, member: &str) -> Result<Vec<String>, Error> {
        Ok(self.texts_if_any(member)?.unwrap_or_default())
    }

    pub(super) fn texts_if_any(&mut self, member: &str) -> Result<Option<Vec<String>>, Error> {
        self.list(member, text)
    }

    pub(super) fn structure(&mut self, member: &str) -> Result<Option<Self>, Error> {
        self.take(member).map(structure).transpose()
    }

    /// How many texts by names there are; none, if the member is absent.
    pub(super) fn pairs(&mut self, member: &str) -> Result<usize, Error> {
        let Some(Self(pairs)) = self.structure(member)? else {
            return Ok(0);
        };
        let count = pairs.len();
        for value in pairs.into_iter().map(|(_, value)| value) {
            text(value)?;
        }
        Ok(count)
    }

    pub(super) fn structures(&mut self, member: &str) -> Result<Option<Vec<Self>>, Error> {
        self.list(member, structure)
    }

    /// One of a closed set, by its name.
    pub(super) fn named<T: Copy>(
        &mut self,
        member: &str,
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Result<EnumMember<T>, Error> {
        let Some(text) = self.text(member)? else {
            return Ok(EnumMember::Absent);
        };
        let known = all.iter().find(|one| name(**one) == text);
        Ok(known.map_or(EnumMember::Unknown(text), |known| EnumMember::Known(*known)))
    }

    pub(super) fn number(&mut self, member: &str) -> Result<Option<i64>, Error> {
        self.take(member).map(number).transpose()
    }

    pub(super) fn flag(&mut self, member: &str) -> Result<bool, Error> {
        self.take(member).map_or(Ok(false), flag)
    }

    pub(super) fn blob(&mut self, member: &str) -> Result<Option<Bytes>, Error> {
        self.take(member).map(blob).transpose()
    }

    /// A member by its type.
    pub(super) fn value(&mut self, member: &Member) -> Result<Option<MemberValue>, Error> {
        let value = self.take(&pascal_case(member.name));
        value.map(|value| value_of(&member.of, value)).transpose()
    }

    /// A value, or none, for each of these members.
    pub(super) fn values(&mut self, members: &[Member]) -> Result<Vec<Option<MemberValue>>, Error> {
        members.iter().map(|member| self.value(member)).collect()
    }

    fn list<T>(
        &mut self,
        member: &str,
        item: impl Fn(Value) -> Result<T, Error>,
    ) -> Result<Option<Vec<T>>, Error> {
        let list = |value| list(value)?.into_iter().map(item).collect();
        self.take(member).map(list).transpose()
    }

    fn take(&mut self, member: &str) -> Option<Value> {
        self.0.remove(member).filter(|value| !value.is_null())
    }
}

/// `KeyId`, which is `keyId` in constraints.
fn pascal_case(name: &str) -> String {
    let mut chars = name.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

/// A value by its type.
fn value_of(of: &MemberType, value: Value) -> Result<MemberValue, Error> {
    Ok(match of {
        MemberType::Blob(_) => MemberValue::Blob(blob(value)?),
        MemberType::Enum(_) | MemberType::Text(_) => MemberValue::Text(text(value)?),
        MemberType::Number(..) => MemberValue::Number(number(value)?),
        MemberType::Structure(members) => {
            MemberValue::Structure(structure(value)?.values(members)?)
        }
        MemberType::List(of, ..) => {
            let values = list(value)?.into_iter();
            MemberValue::List(
                values
                    .map(|value| value_of(of, value))
                    .collect::<Result<_, _>>()?,
            )
        }
        MemberType::Date if value.is_number() => MemberValue::Unconstrained,
        MemberType::Date => return Err(type_mismatch(&value, "Date")),
        MemberType::Flag => flag(value).map(|_| MemberValue::Unconstrained)?,
        MemberType::Map => {
            let Members(texts) = structure(value)?;
            for value in texts.into_iter().map(|(_, value)| value) {
                text(value)?;
            }
            MemberValue::Unconstrained
        }
    })
}

fn structure(value: Value) -> Result<Members, Error> {
    let Value::Object(members) = value else {
        return Err(type_mismatch(&value, "a structure"));
    };
    Ok(Members(members))
}

fn list(value: Value) -> Result<Vec<Value>, Error> {
    let Value::Array(values) = value else {
        return Err(Error::new(Kind::Serialization, "Expected list or null"));
    };
    Ok(values)
}

fn number(value: Value) -> Result<i64, Error> {
    value
        .as_i64()
        .ok_or_else(|| type_mismatch(&value, "Integer"))
}

fn flag(value: Value) -> Result<bool, Error> {
    value
        .as_bool()
        .ok_or_else(|| type_mismatch(&value, "Boolean"))
}

fn blob(value: Value) -> Result<Bytes, Error> {
    let Value::String(text) = value else {
        return Err(type_mismatch(&value, "Blob"));
    };
    decode_base64(&text)
}

fn text(value: Value) -> Result<String, Error> {
    let Value::String(text) = value else {
        return Err(type_mismatch(&value, "String"));
    };
    Ok(text)
}

/// Standard base64, padded. The error shows the first illegal character and nothing else of the blob.
fn decode_base64(text: &str) -> Result<Bytes, Error> {
    STANDARD.decode(text).map(Bytes::from).map_err(|_| {
        let foreign = text
            .chars()
            .find(|char| !(char.is_ascii_alphanumeric() || matches!(char, '+' | '/' | '=')));
        let why = match foreign {
            _ if !text.len().is_multiple_of(4) => format!(
                "Base64 encoded length is expected a multiple of 4 bytes but found: {}",
                text.len()
            ),
            Some(foreign) => format!("Invalid Base64 character: '{}'", foreign.escape_debug()),
            None => "Invalid Base64 padding or trailing bits".to_owned(),
        };
        Error::new(
            Kind::Serialization,
            format!("The value can not be converted to a Blob: {why}"),
        )
    })
}

/// The error for a value of the wrong type.
fn type_mismatch(value: &Value, expected: &str) -> Error {
    match value {
        Value::Array(_) => Error::new(
            Kind::Serialization,
            "Start of list found where not expected",
        ),
        Value::Object(_) => Error::new(
            Kind::Serialization,
            "Start of structure or map found where not expected.",
        ),
        Value::Bool(_) => not_convertible("class java.lang.Boolean", expected),
        Value::Number(_) => not_convertible("class java.math.BigDecimal", expected),
        Value::String(_) => not_convertible("class java.lang.String", expected),
        Value::Null => not_convertible("null", expected),
    }
}

fn not_convertible(found: &str, expected: &str) -> Error {
    let article = if expected.starts_with("a ") {
        ""
    } else {
        "an "
    };
    Error::new(
        Kind::Serialization,
        format!("{found} can not be converted to {article}{expected}"),
    )
}

/// For `#[serde(serialize_with)]`: a blob.
pub(super) fn base64<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(bytes))
}

/// For `#[serde(serialize_with)]`: a date in seconds since 1970, with milliseconds as a fraction.
pub(super) fn seconds<S: Serializer>(date: &Date, to: S) -> Result<S::Ok, S::Error> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits hold the milliseconds of 285,000 years"
    )]
    let millis = date.millis() as f64;
    to.serialize_f64(millis / 1000.0)
}

/// For `#[serde(serialize_with)]`: a date that may be missing, as [`seconds`] writes it.
pub(super) fn seconds_if_any<S: Serializer>(date: &Option<Date>, to: S) -> Result<S::Ok, S::Error> {
    match date {
        Some(date) => seconds(date, to),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MacAlgorithm;

    fn members(json: &str) -> Members {
        Members::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn members_are_absent_null_or_what_they_are() {
        let mut members = members(
            r#"{"KeyId":"k","Limit":7,"DryRun":true,"Message":"SGVsbG8gV29ybGQ=","GrantTokens":["a","b"],
                "Marker":null,"MacAlgorithm":"HMAC_SHA_256","Other":{"deep":[1]}}"#,
        );
        assert_eq!(members.text("KeyId").unwrap().as_deref(), Some("k"));
        assert_eq!(members.text("KeyId").unwrap(), None);
        assert_eq!(members.number("Limit").unwrap(), Some(7));
        assert!(members.flag("DryRun").unwrap());
        assert_eq!(members.blob("Message").unwrap().unwrap(), "Hello World");
        assert_eq!(members.texts("GrantTokens").unwrap(), ["a", "b"]);
        assert_eq!(members.text("Marker").unwrap(), None);
        let algorithms = MacAlgorithm::ALL;
        let named = members.named("MacAlgorithm", &algorithms, MacAlgorithm::name);
        assert_eq!(named.unwrap(), EnumMember::Known(MacAlgorithm::HmacSha256));
        let absent = members.named("MacAlgorithm", &algorithms, MacAlgorithm::name);
        assert_eq!(absent.unwrap(), EnumMember::Absent);
        assert!(members.texts("Tags").unwrap().is_empty());
    }

    #[test]
    fn a_wrong_type_is_told_in_the_words_of_aws() {
        type Read = fn(&mut Members) -> Option<Error>;
        let text: Read = |members| members.text("A").err();
        let number: Read = |members| members.number("A").err();
        let flag: Read = |members| members.flag("A").err();
        let blob: Read = |members| members.blob("A").err();
        let texts: Read = |members| members.texts("A").err();
        let structures: Read = |members| members.structures("A").err();
        for (json, read, said) in [
            (
                r#"{"A":true}"#,
                text,
                "class java.lang.Boolean can not be converted to an String",
            ),
            (
                r#"{"A":1}"#,
                text,
                "class java.math.BigDecimal can not be converted to an String",
            ),
            (
                r#"{"A":[]}"#,
                text,
                "Start of list found where not expected",
            ),
            (
                r#"{"A":{}}"#,
                text,
                "Start of structure or map found where not expected.",
            ),
            (
                r#"{"A":"1"}"#,
                number,
                "class java.lang.String can not be converted to an Integer",
            ),
            (
                r#"{"A":1.5}"#,
                number,
                "class java.math.BigDecimal can not be converted to an Integer",
            ),
            (
                r#"{"A":"true"}"#,
                flag,
                "class java.lang.String can not be converted to an Boolean",
            ),
            (r#"{"A":"a"}"#, texts, "Expected list or null"),
            (
                r#"{"A":[1]}"#,
                texts,
                "class java.math.BigDecimal can not be converted to an String",
            ),
            (
                r#"{"A":["a"]}"#,
                structures,
                "class java.lang.String can not be converted to a structure",
            ),
            (
                r#"{"A":"abc"}"#,
                blob,
                "The value can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 3",
            ),
            (
                r#"{"A":"ab*d"}"#,
                blob,
                "The value can not be converted to a Blob: Invalid Base64 character: '*'",
            ),
            (
                r#"{"A":"a==="}"#,
                blob,
                "The value can not be converted to a Blob: Invalid Base64 padding or trailing bits",
            ),
        ] {
            let error = read(&mut members(json)).unwrap();
            assert_eq!((error.kind(), error.say()), (Kind::Serialization, said));
        }
    }

    #[test]
    fn what_is_no_json_object_is_no_request() {
        for json in ["", "{", "nul", "{\"a\":1}x", "\u{0}"] {
            assert!(require_json(json.as_bytes()).is_err(), "{json}");
            assert!(Members::parse(json.as_bytes()).is_err(), "{json}");
        }
        // Deep nesting ends in an error, not in the stack.
        let deep = "[".repeat(100_000);
        assert!(require_json(deep.as_bytes()).is_err());
        for json in ["[]", "1", "null", "\"a\""] {
            assert!(require_json(json.as_bytes()).is_ok(), "{json}");
            assert!(Members::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn dates_are_seconds_with_milliseconds() {
        #[derive(Serialize)]
        struct Answer {
            #[serde(serialize_with = "seconds")]
            date: Date,
        }
        let date = Date::of_millis(1_669_973_196_214);
        assert_eq!(bytes(&Answer { date }), r#"{"date":1669973196.214}"#);
    }
}
