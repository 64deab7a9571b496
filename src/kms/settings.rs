//! What the configuration says of keys, and of what each principal may do.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use crate::{
    kms::{
        policy_documents,
        principals::{PrincipalPolicies, Principals},
    },
    model::{
        AccountId, Caller, KeyId, KeySpec, Organization,
        policy::{Policy, PolicyKind},
    },
    token::{self, CheckValue, ObjectUri},
};

/// What the operations need to know besides requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The account of declared keys.
    pub account: AccountId,
    /// The region in every ARN.
    pub region: String,
    /// The token or group that makes keys and random bytes; may be left out when there is one.
    pub new_keys: Option<String>,
    /// The keys that the configuration declares.
    pub keys: Vec<DeclaredKey>,
    /// The policies of the principals and of those keys.
    pub rights: DeclaredRights,
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
    /// Reads the key's policy; without a file it is KMS's default policy of the account.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn read_policy(&self, account: &AccountId) -> Result<DeclaredPolicy, String> {
        let (text, policy) = match &self.policy_file {
            Some(file) => policy_documents::read_with_text(file, PolicyKind::Key)?,
            None => (String::new(), policy_documents::compiled("", account)?),
        };
        Ok(DeclaredPolicy {
            account: account.clone(),
            key_id: self.key_id.clone(),
            text,
            policy: Arc::new(policy),
        })
    }

    /// The key as its token knows it.
    pub fn token_key(&self) -> token::TokenKey {
        token::TokenKey::new(
            self.key_id.clone(),
            self.key_spec,
            self.object.0.clone(),
            self.check_value.clone(),
        )
    }
}

/// The rights that the configuration's files give, read at one time.
#[derive(Clone, Debug, Default)]
pub struct DeclaredRights {
    pub(super) of_files: Vec<PrincipalPolicies>,
    pub(super) principals: Arc<Principals>,
    pub(super) keys: Vec<DeclaredPolicy>,
}

/// The policy of a declared key, as it was read.
#[derive(Clone, Debug)]
pub struct DeclaredPolicy {
    pub(super) account: AccountId,
    pub(super) key_id: KeyId,
    /// Empty for the default policy.
    pub(super) text: String,
    pub(super) policy: Arc<Policy>,
}

impl DeclaredPolicy {
    /// What its author should know of it, by statement.
    pub fn warnings(&self, region: &str) -> Vec<String> {
        self.policy.named_warnings(region)
    }
}

impl DeclaredRights {
    /// The policies of the principals and the organization of an account, and the policies of the declared
    /// keys.
    pub fn new(
        principals: Vec<PrincipalPolicies>,
        organization: Option<(AccountId, Organization)>,
        keys: Vec<DeclaredPolicy>,
    ) -> Self {
        Self {
            principals: Arc::new(Principals::new(&principals, organization)),
            of_files: principals,
            keys,
        }
    }

    /// A principal with what it has by these rights.
    pub fn authenticate(&self, caller: &Caller) -> Caller {
        self.principals.authenticate(caller)
    }

    /// What a principal's policies of this file were.
    pub fn policies_of(&self, caller: &Caller, file: &Path) -> Option<PrincipalPolicies> {
        let name = file.display().to_string();
        let is_of_file = |it: &&PrincipalPolicies| {
            it.caller == *caller && it.policies.iter().any(|policy| policy.name() == name)
        };
        self.of_files.iter().find(is_of_file).cloned()
    }
}

fn yes() -> bool {
    true
}
