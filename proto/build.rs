//! Compiles the protobuf contracts with `protox`, so that nobody needs a `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PUBLIC: [&str; 2] = ["proto/hsmac/v1/mac.proto", "proto/hsmac/v1/key.proto"];
const HOST: &str = "proto/hsmac/host/v1/host.proto";
const AUDIT: &str = "proto/hsmac/audit/v1/audit.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    let public = protox::compile(PUBLIC, ["proto"])?;
    fs::write(out.join("hsmac.v1.bin"), public.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".") // message bytes are slices of the receive buffer, not copies
        .use_arc_self(true)
        .codec_path("crate::proto::codec::Protobuf")
        .compile_fds(public)?;

    let host = protox::compile([HOST], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .skip_debug([".hsmac.host.v1.Import"]) // key material: src/proto.rs prints it without
        .compile_fds(host)?;

    let audit = protox::compile([AUDIT], ["proto"])?;
    tonic_prost_build::configure().compile_fds(audit)?;

    println!(
        "cargo:rustc-env=BUILD_ID_OF_HSMAC={}",
        build_id(&fs::read(HOST)?)
    );
    Ok(())
}

/// Names this build: a front and a host of different builds refuse each other.
fn build_id(host_proto: &[u8]) -> String {
    // FNV-1a over the wire contract: a stale binary on disk must not meet a newer front.
    let hash = host_proto
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    format!("{version}-{hash:016x}")
}
