//! The hidden subcommands that load a PKCS#11 module.

use std::io;

use super::Stop;
use crate::token_host::{self, Provision};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {}

#[derive(clap::Args, Debug)]
pub(super) struct ProvisionArguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Stop> {
    token_host::run().map_err(|error| Stop::Bug(format!("token-host: {error}")))
}

pub(super) fn provision(_arguments: &ProvisionArguments) -> Result<(), Stop> {
    // On stdin, since it holds the PIN: arguments and environment are for everybody to read.
    let wanted: Provision = serde_json::from_reader(io::stdin().lock())
        .map_err(|error| Stop::Usage(format!("stdin: {error}; `hsmac dev` calls this command")))?;
    token_host::provision(&wanted).map_err(Stop::Away)
}
