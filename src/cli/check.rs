//! `hsmac check`.

use super::{Configuration, Stop};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Stop> {
    Err(Stop::Bug("check comes in the next commit".into()))
}
