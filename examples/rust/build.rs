//! Makes the gRPC stubs from hsmac's contract.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../../proto/hsmac/v1");
    let contract = protox::compile(["hsmac/v1/mac.proto"], ["../../proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(contract)?;
    Ok(())
}
