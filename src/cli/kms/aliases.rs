//! The verbs about aliases.

use clap::{Args, Subcommand};

use super::{
    KmsClient, output,
    pages::{Page, Pages},
};
use crate::{
    cli::CliError,
    proto::v1::{CreateAliasRequest, DeleteAliasRequest, ListAliasesRequest, UpdateAliasRequest},
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Give a key another name, which MACs can be asked for by.
    CreateAlias(AliasAndKey),
    /// Move an alias to another key: from then on it finds that one.
    UpdateAlias(AliasAndKey),
    /// Take an alias away; its key stays.
    DeleteAlias(OnlyAlias),
    /// The account's aliases, or those of one key: all pages, unless one is asked for.
    ListAliases(ListAliasesArguments),
}

#[derive(Args, Debug)]
pub(super) struct AliasAndKey {
    /// alias/ and letters, digits, /, _ or -; at most 256 characters.
    #[arg(long)]
    alias_name: String,
    /// Key ID or key ARN.
    #[arg(long)]
    target_key_id: String,
}

#[derive(Args, Debug)]
pub(super) struct OnlyAlias {
    /// The alias's name, with its alias/.
    #[arg(long)]
    alias_name: String,
}

#[derive(Args, Debug)]
pub(super) struct ListAliasesArguments {
    /// Key ID or key ARN: the aliases of this key only.
    #[arg(long)]
    key_id: Option<String>,
    #[command(flatten)]
    pages: Pages,
}

impl KmsClient {
    pub(super) async fn alias_verb(&self, verb: Verb) -> Result<output::CommandOutput, CliError> {
        match verb {
            Verb::CreateAlias(verb) => {
                let request = self.request(CreateAliasRequest {
                    alias_name: verb.alias_name,
                    target_key_id: verb.target_key_id,
                });
                let reply = self.key_service().create_alias(request).await;
                self.done("CreateAlias", reply)
            }
            Verb::UpdateAlias(verb) => {
                let request = self.request(UpdateAliasRequest {
                    alias_name: verb.alias_name,
                    target_key_id: verb.target_key_id,
                });
                let reply = self.key_service().update_alias(request).await;
                self.done("UpdateAlias", reply)
            }
            Verb::DeleteAlias(OnlyAlias { alias_name }) => {
                let request = self.request(DeleteAliasRequest { alias_name });
                let reply = self.key_service().delete_alias(request).await;
                self.done("DeleteAlias", reply)
            }
            Verb::ListAliases(verb) => self.list_aliases(verb).await,
        }
    }

    async fn list_aliases(
        &self,
        verb: ListAliasesArguments,
    ) -> Result<output::CommandOutput, CliError> {
        let key_id = verb.key_id;
        let listed = verb.pages.fetch(async |limit, marker| {
            let request = self.request(ListAliasesRequest {
                key_id: key_id.clone(),
                limit,
                marker,
            });
            let page = self.key_service().list_aliases(request).await;
            let page = self.answer("ListAliases", page)?;
            Ok(Page {
                entries: page.aliases,
                next_marker: page.next_marker,
                truncated: page.truncated,
            })
        });
        Ok(output::keys::list_aliases(listed.await?))
    }
}
