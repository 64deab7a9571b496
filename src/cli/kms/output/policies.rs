//! Answers about key policies.

use serde::Serialize;

use super::{CommandOutput, PageMembers};
use crate::{cli::kms::pages::Listed, proto::v1::GetKeyPolicyResponse};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyPolicyOutput {
    policy: String,
    policy_name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyPolicyList {
    policy_names: Vec<String>,
    #[serde(flatten)]
    page: PageMembers,
}

pub(in crate::cli::kms) fn get_key_policy(reply: GetKeyPolicyResponse) -> CommandOutput {
    CommandOutput::of(&KeyPolicyOutput {
        policy: reply.policy,
        policy_name: reply.policy_name,
    })
}

pub(in crate::cli::kms) fn list_key_policies(listed: Listed<String>) -> CommandOutput {
    let page = PageMembers::of(&listed);
    CommandOutput::of(&KeyPolicyList {
        policy_names: listed.entries,
        page,
    })
}
