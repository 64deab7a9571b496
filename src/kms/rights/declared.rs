//! What the configuration says of rights: the policies of principals and of declared keys; and what
//! stands where nobody has said anything.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use crate::{
    kms::DeclaredKey,
    model::{
        AccountId, Caller, KeyId,
        policy::{Policy, PolicyKind},
    },
};

/// A principal, and the policies that are its own.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Who it is.
    pub caller: Caller,
    /// Its identity policies.
    pub policies: Vec<Policy>,
}

impl Principal {
    /// Reads the identity policy of a principal, if it has one.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn read(caller: &Caller, file: Option<&Path>) -> Result<Self, String> {
        let policies = file.map(|file| read(file, PolicyKind::Identity).map(|(_, policy)| policy));
        Ok(Self {
            caller: caller.clone(),
            policies: policies.transpose()?.into_iter().collect(),
        })
    }
}

/// The rights that the configuration's files give, read at one time.
pub struct DeclaredRights {
    pub(in crate::kms) principals: Vec<Principal>,
    /// Of declared keys.
    pub(in crate::kms) keys: Vec<DeclaredPolicy>,
}

/// The policy of a declared key.
pub(in crate::kms) struct DeclaredPolicy {
    pub(in crate::kms) account: AccountId,
    pub(in crate::kms) key_id: KeyId,
    pub(in crate::kms) text: String,
    pub(in crate::kms) policy: Arc<Policy>,
}

impl DeclaredRights {
    /// Reads the policies of `keys`, which are declared in `account`.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn read(
        account: &AccountId,
        principals: Vec<Principal>,
        keys: &[DeclaredKey],
    ) -> Result<Self, String> {
        let policy = |key: &DeclaredKey| {
            let (text, policy) = key.compiled_policy(account)?;
            Ok(DeclaredPolicy {
                account: account.clone(),
                key_id: key.key_id.clone(),
                text,
                policy,
            })
        };
        Ok(Self {
            principals,
            keys: keys.iter().map(policy).collect::<Result<_, String>>()?,
        })
    }
}

/// Reads a policy document from a file, which the policy is called by from then on.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn read_policy(file: &Path, kind: PolicyKind) -> Result<Policy, String> {
    read(file, kind).map(|(_, policy)| policy)
}

/// The same with the document's text.
pub(in crate::kms) fn read(file: &Path, kind: PolicyKind) -> Result<(String, Policy), String> {
    let shown = file.display();
    let unreadable = |error| format!("{shown}: {error}");
    // Its metadata first: to open a FIFO would wait for a writer.
    let found = fs::metadata(file).map_err(unreadable)?;
    if !found.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    if found.len() > LONGEST as u64 {
        return Err(format!("{shown}: a policy has at most {LONGEST} bytes"));
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    let policy = Policy::parse(&text, kind).map_err(|fault| format!("{shown}: {fault}"))?;
    Ok((text, policy.called(shown.to_string())))
}

/// The policies of all principals.
#[derive(Debug, Default)]
pub(in crate::kms) struct Principals {
    /// By ARN. A session has those of its role, and its own.
    own: HashMap<String, Vec<Policy>>,
    /// By a role's account and name: what sessions have that are not declared themselves.
    roles: HashMap<(AccountId, String), Vec<Policy>>,
}

impl Principals {
    pub(in crate::kms) fn new(principals: Vec<Principal>) -> Self {
        let mut all = Self::default();
        for Principal { caller, policies } in &principals {
            if let Some(role) = caller.role() {
                let role = (caller.account().clone(), role.to_owned());
                all.roles
                    .entry(role)
                    .or_default()
                    .extend_from_slice(policies);
            }
        }
        for Principal { caller, policies } in principals {
            let mut own = all.of(&caller).to_vec();
            own.extend(policies);
            all.own.insert(caller.arn().to_owned(), own);
        }
        all
    }

    /// Whether a principal has an entry of its own.
    pub(in crate::kms) fn has(&self, caller: &Caller) -> bool {
        self.own.contains_key(caller.arn())
    }

    pub(in crate::kms) fn of(&self, caller: &Caller) -> &[Policy] {
        match self.own.get(caller.arn()) {
            Some(own) => own,
            None => self.of_role(caller),
        }
    }

    fn of_role(&self, session: &Caller) -> &[Policy] {
        let Some(role) = session.session_role() else {
            return &[];
        };
        let role = (session.account().clone(), role.to_owned());
        self.roles.get(&role).map_or(&[], Vec::as_slice)
    }
}

/// The policy of a key that has none of its own: the account decides, by the policies of its
/// principals (KMS: the default key policy).
pub(in crate::kms) fn default_policy(account: &AccountId) -> String {
    format!(
        r#"{{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {{
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "arn:aws:iam::{account}:root"
    }},
    "Action" : "kms:*",
    "Resource" : "*"
  }} ]
}}"#
    )
}

/// A key's policy, compiled; an empty text is the default policy.
///
/// # Errors
/// Why it is none. What is written is checked first, so that only a record from elsewhere can be so.
pub(in crate::kms) fn compiled(text: &str, account: &AccountId) -> Result<Policy, String> {
    let policy = if text.is_empty() {
        Policy::parse(&default_policy(account), PolicyKind::Key)
            .map(|policy| policy.called("KMS's default"))
    } else {
        Policy::parse(text, PolicyKind::Key).map(|policy| policy.called("of the store"))
    };
    policy.map_err(|fault| fault.to_string())
}

/// What stands for a policy that cannot be read: the account's root, and nobody else, may read the
/// text and write another one. Root's own policies can still deny it.
pub(in crate::kms) fn for_repair(account: &AccountId) -> Policy {
    let text = format!(
        r#"{{
  "Version" : "2012-10-17",
  "Statement" : [ {{
    "Sid" : "Mend it",
    "Effect" : "Allow",
    "Principal" : {{ "AWS" : "{account}" }},
    "Action" : [ "kms:GetKeyPolicy", "kms:PutKeyPolicy" ],
    "Resource" : "*",
    "Condition" : {{ "ArnLike" : {{ "aws:PrincipalArn" : "arn:*:iam::{account}:root" }} }}
  }} ]
}}"#
    );
    Policy::parse(&text, PolicyKind::Key)
        .expect("it is a key policy for every account")
        .called("in place of one that cannot be read")
}

/// KMS: a key policy has at most 32 KiB.
pub(in crate::kms) const LONGEST: usize = 32 << 10;
