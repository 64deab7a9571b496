//! The verbs about grants.

use std::collections::HashMap;

use clap::{ArgAction, Args, Subcommand};
use serde::Deserialize;

use super::{
    KmsClient, output,
    pages::{Page, Pages},
};
use crate::{
    cli::CliError,
    proto::v1::{
        CreateGrantRequest, GrantConstraints, ListGrantsRequest, ListRetirableGrantsRequest,
        RetireGrantRequest, RevokeGrantRequest,
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Let a principal do something with a key, beside what its policy says.
    CreateGrant(CreateGrantArguments),
    /// A key's grants: all pages, unless --limit or --marker asks for one.
    ListGrants(ListGrantsArguments),
    /// The grants that a principal of the account may retire.
    ListRetirableGrants(ListRetirableGrantsArguments),
    /// Take a grant away that you may retire. When this ends no call that it allowed makes a MAC.
    RetireGrant(RetireGrantArguments),
    /// Take a grant away. When this ends no call that it allowed makes a MAC.
    RevokeGrant(RevokeGrantArguments),
}

#[derive(Args, Debug)]
pub(super) struct CreateGrantArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    /// Who gets the rights: the ARN of a user, a role, a session or an account's root.
    #[arg(long, value_name = "ARN")]
    grantee_principal: String,
    /// Who may retire the grant besides.
    #[arg(long, value_name = "ARN")]
    retiring_principal: Option<String>,
    /// What it allows: CreateGrant, DescribeKey, GenerateMac, RetireGrant, VerifyMac.
    #[arg(long, num_args = 1.., required = true, value_name = "OPERATION")]
    operations: Vec<String>,
    /// On which condition: SourceArn=ARN, or JSON {"SourceArn":"ARN"}.
    #[arg(long, value_parser = constraints)]
    constraints: Option<Constraints>,
    /// Grant tokens.
    #[arg(long, num_args = 1.., value_name = "TOKEN")]
    grant_tokens: Vec<String>,
    /// For people. The same request with the same name makes no second grant.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Args, Debug)]
pub(super) struct ListGrantsArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    /// This grant only.
    #[arg(long, value_name = "ID")]
    grant_id: Option<String>,
    /// The grants of this principal only.
    #[arg(long, value_name = "ARN")]
    grantee_principal: Option<String>,
    #[command(flatten)]
    pages: Pages,
}

#[derive(Args, Debug)]
pub(super) struct ListRetirableGrantsArguments {
    /// A principal of your account.
    #[arg(long, value_name = "ARN")]
    retiring_principal: String,
    #[command(flatten)]
    pages: Pages,
}

#[derive(Args, Debug)]
pub(super) struct RetireGrantArguments {
    /// As create-grant printed it; or say --key-id and --grant-id.
    #[arg(long, value_name = "TOKEN")]
    grant_token: Option<String>,
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: Option<String>,
    /// The grant's ID.
    #[arg(long, value_name = "ID")]
    grant_id: Option<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Args, Debug)]
pub(super) struct RevokeGrantArguments {
    /// Key ID or key ARN.
    #[arg(long)]
    key_id: String,
    /// The grant's ID.
    #[arg(long, value_name = "ID")]
    grant_id: String,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Args, Debug)]
struct DryRun {
    /// Do everything but that: success is DryRunOperationException.
    #[arg(long, overrides_with = "no_dry_run")]
    dry_run: bool,
    /// The default.
    #[arg(long, action = ArgAction::SetTrue)]
    no_dry_run: bool,
}

/// KMS: GrantConstraints, as AWS writes them in JSON.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Constraints {
    encryption_context_subset: HashMap<String, String>,
    encryption_context_equals: HashMap<String, String>,
    source_arn: Option<String>,
}

/// Reads JSON, or the AWS CLI's shorthand of the constraint that HMAC keys can have.
fn constraints(text: &str) -> Result<Constraints, String> {
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|error| format!("they are no constraints in JSON: {error}"));
    }
    match text.strip_prefix("SourceArn=") {
        Some(arn) => Ok(Constraints {
            source_arn: Some(arn.to_owned()),
            ..Constraints::default()
        }),
        None => Err("write SourceArn=ARN, or JSON".into()),
    }
}

impl From<Constraints> for GrantConstraints {
    fn from(constraints: Constraints) -> Self {
        Self {
            encryption_context_subset: constraints.encryption_context_subset,
            encryption_context_equals: constraints.encryption_context_equals,
            source_arn: constraints.source_arn,
        }
    }
}

impl KmsClient {
    pub(super) async fn grant_verb(&self, verb: Verb) -> Result<output::CommandOutput, CliError> {
        match verb {
            Verb::CreateGrant(verb) => {
                let request = self.request(CreateGrantRequest {
                    key_id: verb.key_id,
                    grantee_principal: Some(verb.grantee_principal),
                    retiring_principal: verb.retiring_principal,
                    operations: verb.operations,
                    constraints: verb.constraints.map(Into::into),
                    grant_tokens: verb.grant_tokens,
                    name: verb.name,
                    dry_run: verb.dry_run.dry_run,
                });
                let reply = self.key_service().create_grant(request).await;
                let reply = self.answer("CreateGrant", reply)?;
                Ok(output::grants::create_grant(reply))
            }
            Verb::ListGrants(verb) => self.list_grants(verb).await,
            Verb::ListRetirableGrants(verb) => self.list_retirable_grants(verb).await,
            Verb::RetireGrant(verb) => {
                let request = self.request(RetireGrantRequest {
                    grant_token: verb.grant_token,
                    key_id: verb.key_id,
                    grant_id: verb.grant_id,
                    dry_run: verb.dry_run.dry_run,
                });
                let reply = self.key_service().retire_grant(request).await;
                self.done("RetireGrant", reply)
            }
            Verb::RevokeGrant(verb) => {
                let request = self.request(RevokeGrantRequest {
                    key_id: verb.key_id,
                    grant_id: verb.grant_id,
                    dry_run: verb.dry_run.dry_run,
                });
                let reply = self.key_service().revoke_grant(request).await;
                self.done("RevokeGrant", reply)
            }
        }
    }

    async fn list_grants(
        &self,
        verb: ListGrantsArguments,
    ) -> Result<output::CommandOutput, CliError> {
        let of = ListGrantsRequest {
            key_id: verb.key_id,
            grant_id: verb.grant_id,
            grantee_principal: verb.grantee_principal,
            ..ListGrantsRequest::default()
        };
        let listed = verb.pages.fetch(async |limit, marker| {
            let request = self.request(ListGrantsRequest {
                limit,
                marker,
                ..of.clone()
            });
            let page = self.key_service().list_grants(request).await;
            let page = self.answer("ListGrants", page)?;
            Ok(Page {
                entries: page.grants,
                next_marker: page.next_marker,
                truncated: page.truncated,
            })
        });
        Ok(output::grants::list_grants(listed.await?))
    }

    async fn list_retirable_grants(
        &self,
        verb: ListRetirableGrantsArguments,
    ) -> Result<output::CommandOutput, CliError> {
        let retiring = verb.retiring_principal;
        let listed = verb.pages.fetch(async |limit, marker| {
            let request = self.request(ListRetirableGrantsRequest {
                limit,
                marker,
                retiring_principal: Some(retiring.clone()),
            });
            let page = self.key_service().list_retirable_grants(request).await;
            let page = self.answer("ListRetirableGrants", page)?;
            Ok(Page {
                entries: page.grants,
                next_marker: page.next_marker,
                truncated: page.truncated,
            })
        });
        Ok(output::grants::list_grants(listed.await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_as_aws_users_type_them() {
        let arn = "arn:aws:s3::111122223333:bucket";
        for text in [
            format!("SourceArn={arn}"),
            format!(r#"{{"SourceArn":"{arn}"}}"#),
        ] {
            assert_eq!(constraints(&text).unwrap().source_arn.as_deref(), Some(arn));
        }
        let context = constraints(r#"{"EncryptionContextEquals":{"a":"b"}}"#).unwrap();
        assert_eq!(context.encryption_context_equals["a"], "b");
        for wrong in ["", "a=b", "{", r#"{"sourceArn":"a"}"#] {
            assert!(constraints(wrong).is_err(), "{wrong}");
        }
    }
}
