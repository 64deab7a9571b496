//! PKCS#11 URIs (RFC 7512), the part of them that names a token or a key's object.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::token::key::ObjectLocator;

/// Which token of which module: `pkcs11:token=…;serial=…?module-path=…`.
///
/// What is absent matches every token; two tokens that match are an error at start.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct TokenUri {
    /// `module-path`: the PKCS#11 library.
    pub module_path: PathBuf,
    /// `token`: CK_TOKEN_INFO.label
    pub label: Option<String>,
    /// `serial`: CK_TOKEN_INFO.serialNumber
    pub serial: Option<String>,
    /// `manufacturer`: CK_TOKEN_INFO.manufacturerID
    pub manufacturer: Option<String>,
    /// `model`: CK_TOKEN_INFO.model
    pub model: Option<String>,
    /// `slot-id`: slot numbers move; labels and serials do not.
    pub slot_id: Option<u64>,
}

impl TryFrom<String> for TokenUri {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut uri = Self::default();
        let mut module_path = None;
        for (name, value) in attributes(&text)? {
            match name {
                "token" => uri.label = Some(utf8(name, value)?),
                "serial" => uri.serial = Some(utf8(name, value)?),
                "manufacturer" => uri.manufacturer = Some(utf8(name, value)?),
                "model" => uri.model = Some(utf8(name, value)?),
                "slot-id" => {
                    let number = utf8(name, value)?;
                    uri.slot_id = Some(
                        number
                            .parse()
                            .map_err(|_| format!("slot-id {number:?} is not a number"))?,
                    );
                }
                "module-path" => module_path = Some(PathBuf::from(utf8(name, value)?)),
                "pin-value" | "pin-source" => {
                    return Err(format!("{name} does not belong here: set pin_file instead"));
                }
                other => {
                    return Err(unknown(
                        other,
                        "token, serial, manufacturer, model, slot-id and module-path",
                    ));
                }
            }
        }
        uri.module_path = module_path
            .ok_or("it lacks ?module-path=/path/to/library.so, the PKCS#11 module to load")?;
        Ok(uri)
    }
}

/// Which object of a token: `pkcs11:object=…;id=…`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct ObjectUri(pub ObjectLocator);

impl TryFrom<String> for ObjectUri {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut locator = ObjectLocator::default();
        for (name, value) in attributes(&text)? {
            match name {
                "object" => locator.label = Some(utf8(name, value)?),
                "id" => locator.id = Some(value),
                "type" if value == b"secret-key" => {}
                "type" => return Err("an HMAC key has type=secret-key".into()),
                other => return Err(unknown(other, "object, id and type")),
            }
        }
        if locator == ObjectLocator::default() {
            return Err("it names no object: write pkcs11:object=LABEL or pkcs11:id=%01%02".into());
        }
        Ok(Self(locator))
    }
}

/// Path and query attributes alike, percent-decoded; each at most once.
fn attributes(text: &str) -> Result<Vec<(&str, Vec<u8>)>, String> {
    let rest = text
        .strip_prefix("pkcs11:")
        .ok_or_else(|| format!("{text:?} does not begin with pkcs11:"))?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut found: Vec<(&str, Vec<u8>)> = Vec::new();
    for pair in path
        .split(';')
        .chain(query.split('&'))
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?} has no = in it"))?;
        if found.iter().any(|(seen, _)| *seen == name) {
            return Err(format!("{name} is there twice"));
        }
        found.push((name, percent_decode_str(value).collect()));
    }
    Ok(found)
}

fn utf8(name: &str, value: Vec<u8>) -> Result<String, String> {
    String::from_utf8(value).map_err(|_| format!("{name} is not UTF-8"))
}

fn unknown(name: &str, known: &str) -> String {
    format!("{name} is no attribute that hsmac knows; there are {known} (RFC 7512)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Result<TokenUri, String> {
        TokenUri::try_from(text.to_owned())
    }

    #[test]
    fn a_token_uri_names_label_serial_and_slot() {
        let uri = token("pkcs11:token=my%20hsm;serial=abc?module-path=/usr/lib/p%3b11.so").unwrap();
        assert_eq!(uri.label.as_deref(), Some("my hsm"));
        assert_eq!(uri.serial.as_deref(), Some("abc"));
        assert_eq!(uri.module_path, PathBuf::from("/usr/lib/p;11.so"));
        assert_eq!(
            token("pkcs11:slot-id=7?module-path=/m.so").unwrap().slot_id,
            Some(7)
        );
    }

    #[test]
    fn a_wrong_token_uri_is_refused_by_attribute() {
        for (text, said) in [
            ("token=a", "does not begin with pkcs11:"),
            ("pkcs11:token=a", "lacks ?module-path"),
            (
                "pkcs11:token=a?module-path=/m.so&pin-value=1234",
                "set pin_file instead",
            ),
            ("pkcs11:token=a;token=b?module-path=/m.so", "twice"),
            ("pkcs11:slot-id=x?module-path=/m.so", "not a number"),
            ("pkcs11:tokne=a?module-path=/m.so", "tokne is no attribute"),
            ("pkcs11:token?module-path=/m.so", "has no ="),
            ("pkcs11:token=%ff?module-path=/m.so", "not UTF-8"),
        ] {
            let fault = token(text).unwrap_err();
            assert!(fault.contains(said), "{text}: {fault}");
            assert!(!fault.contains("1234"), "a PIN must not be echoed");
        }
    }

    #[test]
    fn an_object_uri_names_label_or_id() {
        let object = |text: &str| ObjectUri::try_from(text.to_owned());
        assert_eq!(
            object("pkcs11:object=pay;id=%01%ff;type=secret-key")
                .unwrap()
                .0,
            ObjectLocator {
                id: Some(vec![1, 255]),
                label: Some("pay".into())
            }
        );
        assert!(object("pkcs11:").unwrap_err().contains("names no object"));
        assert!(
            object("pkcs11:type=private;object=a")
                .unwrap_err()
                .contains("secret-key")
        );
    }
}
