//! Access keys: the proof of a principal in AWS's API.
//!
//! An access key ID names its principal and is no secret. The secret access key is in a file of its
//! own, is wiped when it is dropped, and is never shown.

use std::{collections::HashMap, fmt, fs::File, io::Read as _, path::Path, sync::Arc};

use zeroize::Zeroizing;

#[cfg(test)]
use crate::front::settings::PrincipalSettings;
use crate::{front::settings::AccessKeyId, model::Caller};

/// The secret half of an access key.
pub struct SecretAccessKey(Zeroizing<String>);

impl SecretAccessKey {
    /// The number of characters of a secret access key. AWS has never made others.
    pub const LEN: usize = 40;

    /// Reads a file that holds a secret access key and nothing else.
    ///
    /// # Errors
    /// A sentence that names the file, and nothing of what is in it.
    pub fn read(file: &Path) -> Result<Self, String> {
        // A buffer that grows leaves copies of the secret behind, so all of it is allocated at once.
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

    pub(in crate::front) fn parse(text: &[u8]) -> Option<Self> {
        let good = text.len() == Self::LEN && text.iter().all(u8::is_ascii_graphic);
        let text = good.then(|| str::from_utf8(text).expect("graphic ASCII is UTF-8"))?;
        Some(Self(Zeroizing::new(text.to_owned())))
    }

    /// Security: the only access to the characters; callers keep no copy.
    pub(in crate::front) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretAccessKey")
    }
}

/// Access keys with their principals.
#[derive(Debug, Default)]
pub struct AccessKeys(pub(in crate::front) HashMap<AccessKeyId, AccessKey>);

/// A principal with the secret that proves it.
#[derive(Debug)]
pub(in crate::front) struct AccessKey {
    pub(in crate::front) caller: Arc<Caller>,
    pub(in crate::front) secret: Arc<SecretAccessKey>,
}

impl AccessKeys {
    /// Access keys, each with its principal and its secret; `over_tls` says whether their requests
    /// come over TLS.
    ///
    /// # Errors
    /// A sentence that names an access key with two principals.
    pub fn new(
        access_keys: Vec<(AccessKeyId, Caller, Arc<SecretAccessKey>)>,
        over_tls: bool,
    ) -> Result<Self, String> {
        let mut keys = HashMap::new();
        for (id, caller, secret) in access_keys {
            let key = AccessKey {
                caller: Arc::new(if over_tls { caller.over_tls() } else { caller }),
                secret,
            };
            // Security: one proof, one principal.
            if keys.insert(id.clone(), key).is_some() {
                return Err(format!("the access key {} has two principals", id.as_str()));
            }
        }
        Ok(Self(keys))
    }

    /// The access keys of these principals, with the secrets that are in their files.
    #[cfg(test)]
    pub(in crate::front) fn load(principals: &[PrincipalSettings]) -> Result<Self, String> {
        let read = |principal: &PrincipalSettings| {
            let id = principal.access_key_id.clone()?;
            let secret = SecretAccessKey::read(principal.secret_access_key_file.as_ref()?);
            Some(secret.map(|secret| (id, principal.arn.0.clone(), Arc::new(secret))))
        };
        let keys: Result<_, _> = principals.iter().filter_map(read).collect();
        Self::new(keys?, false)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn principal(id: &str, file: PathBuf) -> PrincipalSettings {
        PrincipalSettings {
            access_key_id: Some(AccessKeyId::try_from(id.to_owned()).unwrap()),
            secret_access_key_file: Some(file),
            ..nobody()
        }
    }

    fn nobody() -> PrincipalSettings {
        PrincipalSettings::new(Caller::parse("arn:aws:iam::111122223333:user/billing").unwrap())
    }

    #[test]
    fn a_secret_access_key_file_holds_40_characters_and_at_most_one_line_end() {
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
    fn a_secret_access_key_is_not_in_debug_output() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, SECRET).unwrap();
        let keys = AccessKeys::load(&[principal("AKIDEXAMPLE", file)]).unwrap();
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
            AccessKeys::load(&[one.clone(), nobody()]).unwrap().0.len(),
            1
        );
        let twice = AccessKeys::load(&[one.clone(), one]).unwrap_err();
        assert_eq!(twice, "the access key AKIDEXAMPLE has two principals");
        assert!(AccessKeys::load(&[principal("A", folder.path().join("none"))]).is_err());
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
