//! The hidden subcommands that load a PKCS#11 module.

use super::Stop;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {}

#[derive(clap::Args, Debug)]
pub(super) struct ProvisionArguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Stop> {
    Err(Stop::Bug("token-host comes in the next commit".into()))
}

pub(super) fn provision(_arguments: &ProvisionArguments) -> Result<(), Stop> {
    Err(Stop::Bug("token-provision comes in the next commit".into()))
}
