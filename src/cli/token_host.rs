//! The hidden subcommands that load a PKCS#11 module.

use std::io;

use super::CliError;
use crate::token_host::{self, Provision};

/// What a host is told comes over its socket; its arguments are for who looks at processes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The token's name in the configuration.
    #[allow(dead_code, reason = "shown by ps")]
    token: Option<String>,
    /// The host's number.
    #[allow(dead_code, reason = "shown by ps")]
    generation: Option<u32>,
}

#[derive(clap::Args, Debug)]
pub(super) struct ProvisionArguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), CliError> {
    token_host::run().map_err(|error| CliError::Bug(format!("token-host: {error}")))
}

pub(super) fn provision(_arguments: &ProvisionArguments) -> Result<(), CliError> {
    // On stdin, since it holds the PIN: arguments and environment are for everybody to read.
    let wanted: Provision = serde_json::from_reader(io::stdin().lock()).map_err(|error| {
        CliError::Usage(format!("stdin: {error}; `hsmac dev` calls this command"))
    })?;
    token_host::provision(&wanted).map_err(CliError::Away)
}
