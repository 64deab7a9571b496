//! `hsmac dev`.

use std::{net::SocketAddr, path::PathBuf};

use super::Stop;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Where token, PIN and configuration are kept.
    #[arg(long, value_name = "DIR", default_value = "./hsmac-dev")]
    dir: PathBuf,
    /// Where to listen; loopback only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    grpc: SocketAddr,
}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Stop> {
    Err(Stop::Bug("dev comes in the next commit".into()))
}
