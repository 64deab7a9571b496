//! The claims of a signed request: access key, date, scope and signed headers. None is verified here.

use chrono::{DateTime, NaiveDate, Utc};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, DATE},
    request::Parts,
};
use percent_encoding::percent_decode_str;

use crate::error::{Error, Kind};

/// A well-formed signature that is not verified yet.
pub(super) struct Claim<'a> {
    credential: &'a str,
    pub(super) access_key_id: &'a str,
    pub(super) day: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) terminator: &'a str,
    signature: &'a str,
    /// The request's date as text, and parsed.
    pub(super) stamp: &'a str,
    pub(super) time: DateTime<Utc>,
    /// The headers under the signature, by name, each once.
    pub(super) signed: Vec<(HeaderName, &'a HeaderValue)>,
}

impl<'a> Claim<'a> {
    /// # Errors
    /// `MissingAuthenticationToken`, `IncompleteSignature` or `InvalidSignature`, in KMS's order.
    pub(super) fn of(head: &'a Parts) -> Result<Self, Error> {
        let Some(authorization) = one(&head.headers, &AUTHORIZATION)? else {
            return Err(Error::new(
                Kind::MissingAuthenticationToken,
                "Missing Authentication Token",
            ));
        };
        // A signature in the query string is not supported, but two signatures contradict each other.
        if in_query(head, "X-Amz-Algorithm") {
            return Err(invalid(
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP \
                 header.",
            ));
        }
        let authorization = Authorization::parse(authorization)?;
        let (date_header, date) = match one(&head.headers, &X_AMZ_DATE)? {
            Some(date) => ("X-Amz-Date", Some(date)),
            None => ("Date", one(&head.headers, &DATE)?),
        };
        let (credential, signature, names, date) = authorization.whole(date)?;
        let (stamp, time) = time(date)?;
        if authorization.algorithm != ALGORITHM {
            return Err(incomplete(format!(
                "Unsupported AWS 'algorithm': '{}'.",
                echo(authorization.algorithm)
            )));
        }
        let parts: Vec<&str> = credential.splitn(6, '/').collect();
        let [access_key_id, day, region, service, terminator] = parts[..] else {
            return Err(incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. \
                 keyid/date/region/service/term, got '{}'",
                echo(credential)
            )));
        };
        let mut required = vec!["Host", "X-Amz-Target", date_header];
        if head.headers.contains_key(SECURITY_TOKEN) {
            required.push("X-Amz-Security-Token");
        }
        Ok(Self {
            credential,
            access_key_id,
            day,
            region,
            service,
            terminator,
            signature,
            stamp,
            time,
            signed: signed(names, &required, &head.headers)?,
        })
    }

    /// The Authorization header that says this and nothing else.
    pub(super) fn proof(&self) -> HeaderValue {
        let names: Vec<&str> = self.signed.iter().map(|(name, _)| name.as_str()).collect();
        let text = format!(
            "{ALGORITHM} Credential={}, SignedHeaders={}, Signature={}",
            self.credential,
            names.join(";"),
            self.signature
        );
        HeaderValue::try_from(text).expect("parts of a printable header are printable")
    }
}

/// The parts of the Authorization header; each may be missing.
struct Authorization<'a> {
    text: &'a str,
    algorithm: &'a str,
    credential: Option<&'a str>,
    signature: Option<&'a str>,
    signed_headers: Option<&'a str>,
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a HeaderValue) -> Result<Self, Error> {
        let text = header.to_str().map_err(|_| {
            incomplete("Authorization header has characters other than printable ASCII.".into())
        })?;
        let (algorithm, parameters) = match text.trim().split_once(' ') {
            Some(both) => both,
            None => (text.trim(), ""),
        };
        let mut parsed = Self {
            text,
            algorithm,
            credential: None,
            signature: None,
            signed_headers: None,
        };
        for parameter in parameters.split(',').map(str::trim) {
            if parameter.is_empty() {
                continue;
            }
            let Some((name, value)) = parameter.split_once('=') else {
                return Err(incomplete(format!(
                    "'{}' not a valid key=value pair (missing equal-sign) in Authorization \
                     header: '{}'.",
                    echo(parameter),
                    echo(text)
                )));
            };
            let place = match name {
                "Credential" => &mut parsed.credential,
                "Signature" => &mut parsed.signature,
                "SignedHeaders" => &mut parsed.signed_headers,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(incomplete(format!(
                    "Authorization header has the '{name}' parameter more than once."
                )));
            }
        }
        Ok(parsed)
    }

    /// All parts, or a sentence for each that is missing.
    fn whole(&self, date: Option<&'a HeaderValue>) -> Result<AuthorizationParts<'a>, Error> {
        if let (Some(credential), Some(signature), Some(signed_headers), Some(date)) =
            (self.credential, self.signature, self.signed_headers, date)
        {
            return Ok((credential, signature, signed_headers, date));
        }
        let mut missing = String::new();
        for (name, part) in [
            ("Credential", self.credential),
            ("Signature", self.signature),
            ("SignedHeaders", self.signed_headers),
        ] {
            if part.is_none() {
                missing += &format!("Authorization header requires '{name}' parameter. ");
            }
        }
        if date.is_none() {
            missing += "Authorization header requires existence of either a 'X-Amz-Date' or a \
                        'Date' header. ";
        }
        Err(incomplete(format!(
            "{missing}Authorization={}",
            echo(self.text)
        )))
    }
}

/// Credential, signature, names of signed headers, date.
type AuthorizationParts<'a> = (&'a str, &'a str, &'a str, &'a HeaderValue);

/// The headers that the signature is over, in the order of their names.
fn signed<'a>(
    names: &'a str,
    required: &[&str],
    headers: &'a HeaderMap,
) -> Result<Vec<(HeaderName, &'a HeaderValue)>, Error> {
    let mut names: Vec<&str> = names.split(';').collect();
    names.sort_unstable();
    // Security: a header that is not signed can be changed on the way.
    for header in required {
        if !names.iter().any(|name| name.eq_ignore_ascii_case(header)) {
            return Err(invalid(&format!(
                "'{header}' must be a 'SignedHeader' in the AWS Authorization."
            )));
        }
    }
    let mut signed: Vec<(HeaderName, &HeaderValue)> = Vec::with_capacity(names.len());
    for text in names {
        let name = HeaderName::from_lowercase(text.as_bytes());
        let mut values = headers.get_all(text).iter();
        // Security: a header that occurs twice is ambiguous.
        let (Ok(name), Some(value), None) = (name, values.next(), values.next()) else {
            return Err(invalid(&format!(
                "The 'SignedHeader' '{}' must be the lowercase name of a header that is in the \
                 request exactly once.",
                echo(text)
            )));
        };
        if signed.last().is_some_and(|(before, _)| *before == name) {
            return Err(invalid(&format!(
                "'{name}' is a 'SignedHeader' more than once."
            )));
        }
        signed.push((name, value));
    }
    Ok(signed)
}

/// The value of a header that may occur at most once.
pub(super) fn one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Error> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(incomplete(format!(
            "The header '{name}' is in the request more than once."
        )));
    }
    Ok(value)
}

pub(super) fn in_query(head: &Parts, name: &str) -> bool {
    let parameters = head.uri.query().unwrap_or_default().split('&');
    parameters
        .map(|parameter| parameter.split('=').next().unwrap_or_default())
        .any(|key| percent_decode_str(key).eq(name.bytes()))
}

/// ISO 8601's basic format, `20150830T123600Z`, and no other.
fn time(header: &HeaderValue) -> Result<(&str, DateTime<Utc>), Error> {
    let text = header.to_str().ok();
    let read = text.and_then(|text| Some((text, parse_time(text.as_bytes())?)));
    read.ok_or_else(|| {
        incomplete(format!(
            "Date must be in ISO-8601 'basic format'. Got '{}'. See \
             http://en.wikipedia.org/wiki/ISO_8601",
            echo(&String::from_utf8_lossy(header.as_bytes()))
        ))
    })
}

fn parse_time(text: &[u8]) -> Option<DateTime<Utc>> {
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0, |number: u32, digit| {
            let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
            Some(number * 10 + u32::from(digit))
        })
    };
    let (date, rest) = text.split_at_checked(8)?;
    let time = rest.strip_prefix(b"T")?.strip_suffix(b"Z")?;
    if time.len() != 6 {
        return None;
    }
    let year = i32::try_from(number(&date[..4])?).ok()?;
    let day = NaiveDate::from_ymd_opt(year, number(&date[4..6])?, number(&date[6..])?)?;
    let (hour, minute, second) = (
        number(&time[..2])?,
        number(&time[2..4])?,
        number(&time[4..])?,
    );
    Some(day.and_hms_opt(hour, minute, second)?.and_utc())
}

/// A client's text as an error repeats it: short, and without control characters.
pub(super) fn echo(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .filter(|char| !char.is_control())
        .take(LONGEST_ECHO)
        .collect();
    if text.len() > shown.len() {
        shown.push('…');
    }
    shown
}

fn incomplete(say: String) -> Error {
    Error::new(Kind::IncompleteSignature, say)
}

fn invalid(say: &str) -> Error {
    Error::new(Kind::InvalidSignature, say.to_owned())
}

/// The one algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// chrono's format of a time in ISO 8601's basic format.
pub(super) const STAMP: &str = "%Y%m%dT%H%M%SZ";
const LONGEST_ECHO: usize = 128;
pub(super) const SECURITY_TOKEN: &str = "x-amz-security-token";
static X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
