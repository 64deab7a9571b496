//! Policy documents as texts: read from files, compiled, and what stands where nobody has written one.

use std::{fs, path::Path};

use crate::model::{
    AccountId,
    policy::{Policy, PolicyKind},
};

/// Reads a policy document from a file, which the policy is called by from then on.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn read_policy(file: &Path, kind: PolicyKind) -> Result<Policy, String> {
    read_with_text(file, kind).map(|(_, policy)| policy)
}

/// Reads a policy document from a file; gives its text too.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub(super) fn read_with_text(file: &Path, kind: PolicyKind) -> Result<(String, Policy), String> {
    let shown = file.display();
    let unreadable = |error| format!("{shown}: {error}");
    // Its metadata first: to open a FIFO would wait for a writer.
    let found = fs::metadata(file).map_err(unreadable)?;
    if !found.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    if found.len() > MAX_POLICY_BYTES as u64 {
        return Err(format!(
            "{shown}: a policy has at most {MAX_POLICY_BYTES} bytes"
        ));
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    let policy = Policy::parse(&text, kind).map_err(|fault| format!("{shown}: {fault}"))?;
    Ok((text, policy.called(shown.to_string())))
}

/// The policy of a key that has none of its own: the account decides, by the policies of its
/// principals (KMS: the default key policy).
pub(super) fn default_policy(account: &AccountId) -> String {
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
/// Why the text is no policy. What is written is checked first, so that only a record from elsewhere
/// can be so.
pub(super) fn compiled(text: &str, account: &AccountId) -> Result<Policy, String> {
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
pub(super) fn for_repair(account: &AccountId) -> Policy {
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
pub(super) const MAX_POLICY_BYTES: usize = 32 << 10;
