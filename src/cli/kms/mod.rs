//! `hsmac kms`: a client whose verbs, flags and output are those of `aws kms`.
//!
//! Promises: what `aws kms` users type works; every blob is checked against its CRC32C on both
//! ways. Does not: retry, sign, speak TLS.

mod blob;
mod output;

use std::time::Duration;

use bytes::Bytes;
use clap::{ArgAction, Args, Subcommand, ValueEnum};
use tonic::{Request, Response, Status, transport::Channel};

use self::blob::{mac, message};
use super::{
    Stop,
    client::{Endpoint, Failure},
};
use crate::proto::v1::{
    DescribeKeyRequest, GenerateMacRequest, GenerateRandomRequest, KeyListEntry, ListKeysRequest,
    ListKeysResponse, MacAlgorithm, VerifyMacRequest, key_service_client::KeyServiceClient,
    mac_service_client::MacServiceClient,
};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hsmac kms generate-mac --key-id alias/demo --message fileb://msg.bin --mac-algorithm HMAC_SHA_256
  mac=$(hsmac kms generate-mac --key-id alias/demo --message hello --mac-algorithm HMAC_SHA_256 \\
        --output json | jq -r .Mac)
  hsmac kms verify-mac --key-id alias/demo --message hello --mac-algorithm HMAC_SHA_256 --mac $mac
  echo -n hello | hsmac kms generate-mac --key-id alias/demo --message fileb:///dev/stdin \\
        --mac-algorithm HMAC_SHA_256 --endpoint unix:/run/hsmac/grpc.sock

Exit codes: 0 done; 252 usage; 254 the service says no; 255 not reachable, or a damaged answer.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// http://HOST:PORT or unix:/PATH. Default: $HSMAC_ENDPOINT, else http://127.0.0.1:50051.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        visible_alias = "endpoint-url"
    )]
    endpoint: Option<Endpoint>,
    /// Seconds until the call is given up; the server is told.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    /// How the answer looks.
    #[arg(long, global = true, value_enum, default_value = "json")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// JSON with the member names of AWS; blobs in base64.
    Json,
    /// Values with tabs between them, in the order of their names.
    Text,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the MAC of a message.
    GenerateMac(GenerateMac),
    /// Check the MAC of a message; a wrong one is KMSInvalidMacException and exit code 254.
    VerifyMac(VerifyMac),
    /// What is known of a key.
    DescribeKey(DescribeKey),
    /// The account's keys: all pages, unless --limit or --marker asks for one.
    ListKeys(ListKeys),
    /// Random bytes from the token's generator.
    GenerateRandom(GenerateRandom),
}

#[derive(Args, Debug)]
struct Mac {
    /// Key ID, key ARN, alias name (alias/…) or alias ARN.
    #[arg(long)]
    key_id: String,
    /// 1 to 4,096 bytes: text as it is, or fileb://PATH, file://PATH.
    #[arg(long, value_parser = message)]
    message: Bytes,
    /// The one algorithm that the key's spec fits.
    #[arg(long, value_parser = ["HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"])]
    mac_algorithm: String,
    /// Grant tokens.
    #[arg(long, num_args = 1.., value_name = "TOKEN")]
    grant_tokens: Vec<String>,
    /// Do everything but answer: success is DryRunOperationException.
    #[arg(long, overrides_with = "no_dry_run")]
    dry_run: bool,
    /// The default.
    #[arg(long, action = ArgAction::SetTrue)]
    no_dry_run: bool,
}

#[derive(Args, Debug)]
struct GenerateMac {
    #[command(flatten)]
    mac: Mac,
}

#[derive(Args, Debug)]
struct VerifyMac {
    #[command(flatten)]
    of: Mac,
    /// The MAC to check: base64, as generate-mac prints it, or fileb://PATH with its bytes. (`aws`
    /// takes text here as raw bytes, which no MAC is.)
    #[arg(long, value_parser = mac)]
    mac: Bytes,
}

#[derive(Args, Debug)]
struct DescribeKey {
    /// Key ID, key ARN, alias name (alias/…) or alias ARN.
    #[arg(long)]
    key_id: String,
    /// Grant tokens.
    #[arg(long, num_args = 1.., value_name = "TOKEN")]
    grant_tokens: Vec<String>,
}

#[derive(Args, Debug)]
struct ListKeys {
    /// One page of at most so many keys, 1 to 1,000.
    #[arg(long)]
    limit: Option<i32>,
    /// One page, from the NextMarker of the page before.
    #[arg(long)]
    marker: Option<String>,
}

#[derive(Args, Debug)]
struct GenerateRandom {
    /// 1 to 1,024.
    #[arg(long)]
    number_of_bytes: i32,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::Client(255, format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let endpoint = Endpoint::chosen(arguments.endpoint.as_ref())
            .map_err(|fault| Stop::Client(252, fault))?;
        let timeout = Duration::from_secs(arguments.timeout.into());
        let channel = endpoint
            .connect(timeout)
            .await
            .map_err(|fault| Stop::Client(255, fault))?;
        let call = Call {
            endpoint,
            timeout,
            channel,
        };
        let answer = match arguments.verb {
            Verb::GenerateMac(verb) => call.generate_mac(verb).await,
            Verb::VerifyMac(verb) => call.verify_mac(verb).await,
            Verb::DescribeKey(verb) => call.describe_key(verb).await,
            Verb::ListKeys(verb) => call.list_keys(verb).await,
            Verb::GenerateRandom(verb) => call.generate_random(verb).await,
        }?;
        super::print(
            match arguments.output {
                Output::Json => answer.json,
                Output::Text => answer.text,
            }
            .as_bytes(),
        )
    })
}

struct Call {
    endpoint: Endpoint,
    timeout: Duration,
    channel: Channel,
}

impl Call {
    async fn generate_mac(&self, GenerateMac { mac }: GenerateMac) -> Result<output::Answer, Stop> {
        let request = GenerateMacRequest {
            mac_algorithm: mac.algorithm(),
            message_crc32c: Some(crc32c::crc32c(&mac.message)),
            key_id: mac.key_id,
            message: mac.message,
            grant_tokens: mac.grant_tokens,
            dry_run: mac.dry_run,
        };
        let reply = self.mac_service().generate_mac(self.request(request)).await;
        let reply = self.answer("GenerateMac", reply)?;
        let intact =
            reply.verified_message_crc32c && reply.mac_crc32c == Some(crc32c::crc32c(&reply.mac));
        self.intact(intact)?;
        Ok(output::generate_mac(&reply))
    }

    async fn verify_mac(&self, VerifyMac { of, mac }: VerifyMac) -> Result<output::Answer, Stop> {
        let request = VerifyMacRequest {
            mac_algorithm: of.algorithm(),
            message_crc32c: Some(crc32c::crc32c(&of.message)),
            mac_crc32c: Some(crc32c::crc32c(&mac)),
            key_id: of.key_id,
            message: of.message,
            mac,
            grant_tokens: of.grant_tokens,
            dry_run: of.dry_run,
        };
        let reply = self.mac_service().verify_mac(self.request(request)).await;
        let reply = self.answer("VerifyMac", reply)?;
        self.intact(reply.verified_message_crc32c && reply.verified_mac_crc32c)?;
        // The contract has no such answer; to read it as success would be the worst of errors.
        if !reply.mac_valid {
            return Err(Stop::Client(
                255,
                "the server answered without saying that the MAC is valid".into(),
            ));
        }
        Ok(output::verify_mac(&reply))
    }

    async fn describe_key(&self, verb: DescribeKey) -> Result<output::Answer, Stop> {
        let request = DescribeKeyRequest {
            key_id: verb.key_id,
            grant_tokens: verb.grant_tokens,
        };
        let reply = self.key_service().describe_key(self.request(request)).await;
        let reply = self.answer("DescribeKey", reply)?;
        let metadata = reply
            .key_metadata
            .ok_or_else(|| Stop::Client(255, "the server answered without KeyMetadata".into()))?;
        Ok(output::describe_key(&metadata))
    }

    async fn list_keys(&self, verb: ListKeys) -> Result<output::Answer, Stop> {
        if verb.limit.is_some() || verb.marker.is_some() {
            let page = self.page(verb.limit, verb.marker).await?;
            return Ok(output::list_keys(
                &page.keys,
                Some((page.next_marker.as_deref(), page.truncated)),
            ));
        }
        let mut keys: Vec<KeyListEntry> = Vec::new();
        let mut marker = None;
        loop {
            let page = self.page(None, marker.clone()).await?;
            keys.extend(page.keys);
            // A server that repeats its marker would keep us here for ever.
            if !page.truncated || page.next_marker.is_none() || page.next_marker == marker {
                return Ok(output::list_keys(&keys, None));
            }
            marker = page.next_marker;
        }
    }

    async fn page(
        &self,
        limit: Option<i32>,
        marker: Option<String>,
    ) -> Result<ListKeysResponse, Stop> {
        let request = self.request(ListKeysRequest { limit, marker });
        self.answer("ListKeys", self.key_service().list_keys(request).await)
    }

    async fn generate_random(&self, verb: GenerateRandom) -> Result<output::Answer, Stop> {
        let request = GenerateRandomRequest {
            number_of_bytes: Some(verb.number_of_bytes),
        };
        let reply = self
            .mac_service()
            .generate_random(self.request(request))
            .await;
        Ok(output::generate_random(
            &self.answer("GenerateRandom", reply)?,
        ))
    }

    fn mac_service(&self) -> MacServiceClient<Channel> {
        MacServiceClient::new(self.channel.clone())
    }

    fn key_service(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel.clone())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    fn answer<T>(&self, operation: &str, reply: Result<Response<T>, Status>) -> Result<T, Stop> {
        reply
            .map(Response::into_inner)
            .map_err(|status| self.stop(operation, &status))
    }

    /// Words a failed call as `aws` does.
    fn stop(&self, operation: &str, status: &Status) -> Stop {
        let (code, mut text) = match Failure::of(status) {
            Failure::Service { exception, .. } => (
                254,
                format!(
                    "\nAn error occurred ({exception}) when calling the {operation} operation: {}",
                    status.message()
                ),
            ),
            Failure::TimedOut => (
                255,
                format!("Read timeout on endpoint URL: \"{}\"", self.endpoint),
            ),
            Failure::Transport => (
                255,
                format!(
                    "The endpoint \"{}\" did not answer as hsmac does: {:?}: {}",
                    self.endpoint,
                    status.code(),
                    status.message()
                ),
            ),
        };
        if let Some(id) = status
            .metadata()
            .get("x-request-id")
            .and_then(|id| id.to_str().ok())
        {
            text.push_str(&format!("\nrequest ID: {id}"));
        }
        Stop::Client(code, text)
    }

    fn intact(&self, intact: bool) -> Result<(), Stop> {
        if intact {
            return Ok(());
        }
        Err(Stop::Client(
            255,
            format!(
                "CRC32C mismatch: message or MAC was damaged between here and \"{}\"; nothing of the answer can be trusted",
                self.endpoint
            ),
        ))
    }
}

impl Mac {
    fn algorithm(&self) -> i32 {
        // clap lets only names of the contract pass.
        MacAlgorithm::from_str_name(&self.mac_algorithm)
            .unwrap_or_default()
            .into()
    }
}
