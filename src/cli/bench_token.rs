//! `hsmac bench token`.

use super::Stop;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Stop> {
    Err(Stop::Bug("bench token comes in the next commit".into()))
}
