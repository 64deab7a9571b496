//! The verbs about key policies.

use clap::{ArgAction, Args, Subcommand};

use super::{
    KmsClient, blob, output,
    pages::{Page, Pages},
};
use crate::{
    cli::CliError,
    proto::v1::{GetKeyPolicyRequest, ListKeyPoliciesRequest, PutKeyPolicyRequest},
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// A key's policy: who may do what with it.
    GetKeyPolicy(GetKeyPolicyArguments),
    /// Give a key another policy, which is in force when this returns.
    PutKeyPolicy(PutKeyPolicyArguments),
    /// The names of a key's policies; there is one.
    ListKeyPolicies(ListKeyPoliciesArguments),
}

#[derive(Args, Debug)]
pub(super) struct GetKeyPolicyArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    /// A key has one policy, whose name is default.
    #[arg(long)]
    policy_name: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct PutKeyPolicyArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    /// A key has one policy, whose name is default.
    #[arg(long)]
    policy_name: Option<String>,
    /// An IAM JSON document of at most 32 KiB: the text, or file://PATH.
    #[arg(long, value_parser = blob::document)]
    policy: String,
    /// Let the policy take from you the right to write another one.
    #[arg(long, overrides_with = "no_bypass_policy_lockout_safety_check")]
    bypass_policy_lockout_safety_check: bool,
    /// The default.
    #[arg(long, action = ArgAction::SetTrue)]
    no_bypass_policy_lockout_safety_check: bool,
}

#[derive(Args, Debug)]
pub(super) struct ListKeyPoliciesArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    #[command(flatten)]
    pages: Pages,
}

impl KmsClient {
    pub(super) async fn policy_verb(&self, verb: Verb) -> Result<output::CommandOutput, CliError> {
        match verb {
            Verb::GetKeyPolicy(verb) => {
                let request = self.request(GetKeyPolicyRequest {
                    key_id: verb.key_id,
                    policy_name: verb.policy_name,
                });
                let reply = self.key_service().get_key_policy(request).await;
                let reply = self.answer("GetKeyPolicy", reply)?;
                Ok(output::policies::get_key_policy(reply))
            }
            Verb::PutKeyPolicy(verb) => {
                let request = self.request(PutKeyPolicyRequest {
                    key_id: verb.key_id,
                    policy_name: verb.policy_name,
                    policy: Some(verb.policy),
                    bypass_policy_lockout_safety_check: verb.bypass_policy_lockout_safety_check,
                });
                let reply = self.key_service().put_key_policy(request).await;
                self.done("PutKeyPolicy", reply)
            }
            Verb::ListKeyPolicies(verb) => self.list_key_policies(verb).await,
        }
    }

    async fn list_key_policies(
        &self,
        verb: ListKeyPoliciesArguments,
    ) -> Result<output::CommandOutput, CliError> {
        let key_id = verb.key_id;
        let listed = verb.pages.fetch(async |limit, marker| {
            let request = self.request(ListKeyPoliciesRequest {
                key_id: key_id.clone(),
                limit,
                marker,
            });
            let page = self.key_service().list_key_policies(request).await;
            let page = self.answer("ListKeyPolicies", page)?;
            Ok(Page {
                entries: page.policy_names,
                next_marker: page.next_marker,
                truncated: page.truncated,
            })
        });
        Ok(output::policies::list_key_policies(listed.await?))
    }
}
