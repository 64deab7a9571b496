use std::{path::PathBuf, sync::Arc};

use serde::Deserialize;

use super::rights::{self, Principal};
use crate::{
    model::{
        AccountId, KeyId, KeySpec,
        policy::{Policy, PolicyKind},
    },
    token::{CheckValue, Key, ObjectUri},
};

/// What the operations need to know besides requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The account of declared keys.
    pub account: AccountId,
    /// The region in every ARN.
    pub region: String,
    /// The token that GenerateRandom asks; may be left out when there is one.
    pub new_keys: Option<String>,
    /// The keys that the configuration declares.
    pub keys: Vec<DeclaredKey>,
    /// Who may call, and what each may do.
    pub principals: Vec<Principal>,
}

/// `[[key]]`: maps a key ID to an object that is in a token already.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DeclaredKey {
    /// A UUID in lowercase: the key ID that clients name.
    pub key_id: KeyId,
    /// The token's name; may be left out when there is one.
    pub token: Option<String>,
    /// The object (RFC 7512): `pkcs11:object=LABEL` and, to be exact, `;id=%01…`.
    pub object: ObjectUri,
    /// HMAC_224, HMAC_256, HMAC_384 or HMAC_512.
    pub key_spec: KeySpec,
    /// Alias names, each beginning with `alias/`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// For people; at most 8,192 characters.
    #[serde(default)]
    pub description: String,
    /// The key check value that the object must have, as `hsmac check` prints it. Without it the
    /// first value is trusted until hsmac ends.
    pub check_value: Option<CheckValue>,
    /// A file with the key's policy, an IAM JSON document of at most 32 KiB. Default: KMS's default
    /// policy, which leaves it to the account.
    pub policy_file: Option<PathBuf>,
    /// False: the key answers Disabled. Default true.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl DeclaredKey {
    /// The text of the key's policy; empty for the default policy.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn policy(&self) -> Result<String, String> {
        match &self.policy_file {
            Some(file) => rights::read(file, PolicyKind::Key).map(|(text, _)| text),
            None => Ok(String::new()),
        }
    }

    /// The text of the key's policy, which is of this account, and the policy.
    pub(super) fn compiled_policy(
        &self,
        account: &AccountId,
    ) -> Result<(String, Arc<Policy>), String> {
        let text = self.policy()?;
        let mut policy = rights::compiled(&text, account)?;
        if let Some(file) = &self.policy_file {
            policy = policy.called(file.display().to_string());
        }
        Ok((text, Arc::new(policy)))
    }

    /// The key as its token knows it.
    pub fn token_key(&self) -> Key {
        Key::new(
            self.key_id.clone(),
            self.key_spec,
            self.object.0.clone(),
            self.check_value.clone(),
        )
    }
}

fn yes() -> bool {
    true
}
