//! Answers about key policies.

use serde::Serialize;

use super::Answer;
use crate::{cli::kms::pages::Listed, proto::v1::GetKeyPolicyResponse};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    policy: String,
    policy_name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Policies {
    policy_names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
}

pub(in crate::cli::kms) fn get_key_policy(reply: GetKeyPolicyResponse) -> Answer {
    Answer::of(&Policy {
        policy: reply.policy,
        policy_name: reply.policy_name,
    })
}

pub(in crate::cli::kms) fn list_key_policies(listed: Listed<String>) -> Answer {
    Answer::of(&Policies {
        policy_names: listed.entries,
        next_marker: listed.next_marker,
        truncated: listed.truncated,
    })
}
