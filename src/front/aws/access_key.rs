//! Access keys: the proof of a principal on AWS's wire.
//!
//! An access key ID names its principal and is no secret. The secret access key stands in a file of
//! its own, is read once, wiped when it is dropped, and never shown.

use std::{
    borrow::Borrow, collections::HashMap, fmt, fs::File, io::Read as _, path::Path, sync::Arc,
};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::DeclaredPrincipal;
use crate::model::Caller;

/// The public half of an access key.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct AccessKeyId(String);

impl AccessKeyId {
    /// The ID as requests name it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AccessKeyId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(format!(
                "{text:?} is no access key ID: it must be 1 to 128 letters, digits and _"
            ))
        }
    }
}

// For look-ups by what a request says.
impl Borrow<str> for AccessKeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The secret half of an access key.
pub struct SecretAccessKey(Zeroizing<String>);

impl SecretAccessKey {
    /// How many characters each has. AWS has never made others, and its clients' key chain begins
    /// with this many.
    pub const LEN: usize = 40;

    /// Reads a file that holds one and nothing else.
    ///
    /// # Errors
    /// A sentence that names the file, and nothing of what is in it.
    pub fn read(file: &Path) -> Result<Self, String> {
        // Room for all at once: a buffer that grows leaves its bytes behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::LEN + 2));
        File::open(file)
            .and_then(|open| open.take(Self::LEN as u64 + 2).read_to_end(&mut bytes))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        Self::parse(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).ok_or_else(|| {
            format!(
                "{} holds no secret access key: that is {} printable characters, and nothing else \
                 but a line's end",
                file.display(),
                Self::LEN
            )
        })
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let good = text.len() == Self::LEN && text.iter().all(u8::is_ascii_graphic);
        let text = good.then(|| str::from_utf8(text).expect("graphic ASCII is UTF-8"))?;
        Some(Self(Zeroizing::new(text.to_owned())))
    }

    /// Security: the only way to the characters; whoever calls this keeps no copy.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretAccessKey")
    }
}

/// Who has which access key.
#[derive(Debug, Default)]
pub struct AccessKeys(pub(super) HashMap<AccessKeyId, AccessKey>);

/// A principal with the secret that proves it.
#[derive(Debug)]
pub(super) struct AccessKey {
    pub(super) caller: Arc<Caller>,
    pub(super) secret: SecretAccessKey,
}

impl AccessKeys {
    /// Reads the secrets of those principals that have an access key, whose requests come over TLS
    /// or not.
    ///
    /// # Errors
    /// A secret that cannot be read, or an access key with two principals.
    pub fn load(principals: &[DeclaredPrincipal], over_tls: bool) -> Result<Self, String> {
        let mut keys = HashMap::new();
        for principal in principals {
            let (Some(id), Some(file)) =
                (&principal.access_key_id, &principal.secret_access_key_file)
            else {
                continue;
            };
            let caller = principal.arn.0.clone();
            let key = AccessKey {
                caller: Arc::new(if over_tls { caller.over_tls() } else { caller }),
                secret: SecretAccessKey::read(file)?,
            };
            // Security: one proof, one principal.
            if keys.insert(id.clone(), key).is_some() {
                return Err(format!("the access key {} has two principals", id.as_str()));
            }
        }
        Ok(Self(keys))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn principal(id: &str, file: PathBuf) -> DeclaredPrincipal {
        DeclaredPrincipal {
            access_key_id: Some(AccessKeyId::try_from(id.to_owned()).unwrap()),
            secret_access_key_file: Some(file),
            ..nobody()
        }
    }

    fn nobody() -> DeclaredPrincipal {
        DeclaredPrincipal::new(Caller::parse("arn:aws:iam::111122223333:user/billing").unwrap())
    }

    #[test]
    fn a_secret_is_40_characters_and_perhaps_a_line_s_end() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("secret");
        for (content, good) in [
            (SECRET.to_owned(), true),
            (format!("{SECRET}\n"), true),
            (format!("{SECRET}\n\n"), false),
            (format!("{SECRET}\r\n"), false),
            (format!("{SECRET}x"), false),
            (SECRET[1..].to_owned(), false),
            (format!("{} ", &SECRET[1..]), false),
            (format!("{}ä", &SECRET[2..]), false),
            (String::new(), false),
            (SECRET.repeat(1000), false),
        ] {
            fs::write(&file, &content).unwrap();
            let read = SecretAccessKey::read(&file);
            assert_eq!(read.is_ok(), good, "{content:?}");
            if let Err(text) = read {
                let begins = format!("{} holds no secret access key", file.display());
                assert!(
                    text.starts_with(&begins) && !text.contains("wJal"),
                    "{text}"
                );
            }
        }
        fs::remove_file(&file).unwrap();
        assert!(
            SecretAccessKey::read(&file)
                .unwrap_err()
                .contains("No such file")
        );
    }

    #[test]
    fn secrets_are_not_in_debug() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, SECRET).unwrap();
        let keys = AccessKeys::load(&[principal("AKIDEXAMPLE", file)], false).unwrap();
        let shown = format!("{keys:?}");
        assert!(
            shown.contains("AKIDEXAMPLE") && !shown.contains("wJal"),
            "{shown}"
        );
    }

    #[test]
    fn an_access_key_has_one_principal_and_a_secret() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, SECRET).unwrap();
        let one = principal("AKIDEXAMPLE", file);
        assert_eq!(
            AccessKeys::load(&[one.clone(), nobody()], false)
                .unwrap()
                .0
                .len(),
            1
        );
        let twice = AccessKeys::load(&[one.clone(), one], false).unwrap_err();
        assert_eq!(twice, "the access key AKIDEXAMPLE has two principals");
        assert!(AccessKeys::load(&[principal("A", folder.path().join("none"))], false).is_err());
    }

    #[test]
    fn an_access_key_id_is_a_word() {
        for (text, good) in [
            ("AKIDEXAMPLE", true),
            ("a_1", true),
            ("", false),
            ("A/B", false),
            ("A B", false),
            (&"A".repeat(128), true),
            (&"A".repeat(129), false),
        ] {
            assert_eq!(
                AccessKeyId::try_from(text.to_owned()).is_ok(),
                good,
                "{text}"
            );
        }
    }
}
