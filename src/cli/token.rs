//! `hsmac token …`.

use std::path::PathBuf;

use super::Stop;

#[derive(clap::Args, Debug)]
pub(super) struct UnlockArguments {
    /// The token's name in the configuration.
    name: String,
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn unlock(_arguments: &UnlockArguments) -> Result<(), Stop> {
    Err(Stop::Bug("token unlock comes in the next commit".into()))
}
