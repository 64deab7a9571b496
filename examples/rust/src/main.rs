//! Signs webhooks, and checks them, with a key that never leaves its HSM.
//!
//! ```text
//! webhook-signer sign < body              prints the header to send
//! webhook-signer check HEADER < body      ends with 0 if the header is the body's, with 1 if not
//! ```
//!
//! `HSMAC_ENDPOINT` says where hsmac is (default http://127.0.0.1:50051), `KEY_ID` which key
//! (default alias/demo).

use std::{
    env,
    error::Error,
    io::{Read as _, stdin},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest as _, Sha256};
use tonic::{Request, transport::Channel};
use tonic_types::StatusExt as _;

use hsmac::{
    GenerateMacRequest, MacAlgorithm, VerifyMacRequest, mac_service_client::MacServiceClient,
};

/// What build.rs made of proto/hsmac/v1/mac.proto.
mod hsmac {
    tonic::include_proto!("hsmac.v1");
}

/// A webhook that is older may be somebody's recording.
const TOLERANCE: Duration = Duration::from_secs(300);
/// hsmac gives up by then too: gRPC tells it the deadline.
const DEADLINE: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut signer = Signer::connect().await?;
    match arguments[..] {
        ["sign"] => {
            let header = signer.sign(&body()?).await?;
            println!("Webhook-Signature: {header}");
            Ok(ExitCode::SUCCESS)
        }
        ["check", header] => match signer.check(&body()?, header).await? {
            Verdict::Genuine => {
                println!("genuine");
                Ok(ExitCode::SUCCESS)
            }
            Verdict::Refused(why) => {
                println!("refused: {why}");
                Ok(ExitCode::FAILURE)
            }
        },
        _ => {
            eprintln!("usage: webhook-signer sign < body | webhook-signer check HEADER < body");
            Ok(ExitCode::from(64))
        }
    }
}

struct Signer {
    macs: MacServiceClient<Channel>,
    key_id: String,
}

enum Verdict {
    Genuine,
    Refused(&'static str),
}

impl Signer {
    async fn connect() -> Result<Self, Box<dyn Error>> {
        let endpoint = env::var("HSMAC_ENDPOINT").unwrap_or("http://127.0.0.1:50051".into());
        let channel = Channel::from_shared(endpoint)?.connect().await?;
        Ok(Self {
            macs: MacServiceClient::new(channel),
            key_id: env::var("KEY_ID").unwrap_or("alias/demo".into()),
        })
    }

    /// The value of the header that goes with a body.
    async fn sign(&mut self, body: &[u8]) -> Result<String, Box<dyn Error>> {
        let time = now();
        let mut request = Request::new(GenerateMacRequest {
            key_id: self.key_id.clone(),
            message: message(time, body),
            mac_algorithm: MacAlgorithm::HmacSha256.into(),
            ..GenerateMacRequest::default()
        });
        request.set_timeout(DEADLINE);
        let made = self.macs.generate_mac(request).await?.into_inner();
        Ok(format!("t={time},mac={}", hex(&made.mac)))
    }

    /// Whether a header is the body's. An error is something else: hsmac could not be asked.
    async fn check(&mut self, body: &[u8], header: &str) -> Result<Verdict, Box<dyn Error>> {
        let Some((time, mac)) = parse(header) else {
            return Ok(Verdict::Refused("the header has another form"));
        };
        if now().abs_diff(time) > TOLERANCE.as_secs() {
            return Ok(Verdict::Refused("it is too old"));
        }
        let mut request = Request::new(VerifyMacRequest {
            key_id: self.key_id.clone(),
            message: message(time, body),
            mac_algorithm: MacAlgorithm::HmacSha256.into(),
            mac,
            ..VerifyMacRequest::default()
        });
        request.set_timeout(DEADLINE);
        match self.macs.verify_mac(request).await {
            // There is no answer with mac_valid = false: a wrong MAC is an error.
            Ok(_) => Ok(Verdict::Genuine),
            Err(status) => match status.get_details_error_info() {
                Some(info) if info.reason == "KMS_INVALID_MAC" => {
                    Ok(Verdict::Refused("the MAC is not this body's"))
                }
                _ => Err(status.into()),
            },
        }
    }
}

/// What is signed: the time too, so that nobody can give an old webhook a new one; and the body's
/// hash, since a message has at most 4,096 bytes.
fn message(time: u64, body: &[u8]) -> Vec<u8> {
    format!("webhook v1\n{time}\n{}", hex(&Sha256::digest(body))).into_bytes()
}

/// `t=SECONDS,mac=HEX`
fn parse(header: &str) -> Option<(u64, Vec<u8>)> {
    let (time, mac) = header.strip_prefix("t=")?.split_once(",mac=")?;
    if mac.len() != 64 || !mac.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bytes = (0..32)
        .map(|at| u8::from_str_radix(&mac[2 * at..2 * at + 2], 16))
        .collect::<Result<_, _>>();
    Some((time.parse().ok()?, bytes.ok()?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut body = Vec::new();
    stdin().read_to_end(&mut body)?;
    Ok(body)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
