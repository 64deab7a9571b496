//! `hsmac kms`: a client whose verbs, flags and output are those of `aws kms`.
//!
//! Promises: what `aws kms` users type works; every blob is checked against its CRC32C on both
//! ways. Does not: retry, sign.

mod aliases;
mod blob;
mod grants;
mod keys;
mod mac;
mod output;
mod pages;
mod policies;
mod streams;
pub(super) mod tags;

use std::{convert::Infallible, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use prost_types::Timestamp;
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    CliError,
    client::{self, Alpn, CallFailure, Endpoint, Server, TlsFlags},
};
use crate::proto::v1::key_service_client::KeyServiceClient;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hsmac kms generate-mac --key-id alias/demo --message fileb://msg.bin \\
      --mac-algorithm HMAC_SHA_256
  mac=$(hsmac kms generate-mac --key-id alias/demo --message hello \\
      --mac-algorithm HMAC_SHA_256 --query Mac --output text)
  hsmac kms verify-mac --key-id alias/demo --message hello \\
      --mac-algorithm HMAC_SHA_256 --mac $mac
  echo -n hello | hsmac kms generate-mac --key-id alias/demo \\
      --message fileb:///dev/stdin --mac-algorithm HMAC_SHA_256 \\
      --endpoint unix:/run/hsmac/grpc.sock
  hsmac kms list-keys --endpoint https://hsmac.dc1.example:50051 \\
      --ca-bundle servers.pem --certificate billing.pem --key billing.key
  hsmac kms list-keys --query 'Keys[].KeyId' --output table
  hsmac kms generate-macs --key-id alias/demo --mac-algorithm HMAC_SHA_256 \\
      --format csv --column email --input people.csv --output pseudonyms.csv

  key=$(hsmac kms create-key --key-spec HMAC_256 \\
      --key-usage GENERATE_VERIFY_MAC --description 'webhooks of the shop' \\
      --tags TagKey=team,TagValue=shop --query KeyMetadata.KeyId --output text)
  hsmac kms create-alias --alias-name alias/webhooks --target-key-id $key
  hsmac kms disable-key --key-id $key
  hsmac kms schedule-key-deletion --key-id $key --pending-window-in-days 7
  hsmac kms create-grant --key-id $key --operations GenerateMac \\
        --grantee-principal arn:aws:iam::111122223333:user/billing
  hsmac kms cancel-key-deletion --key-id $key
  hsmac kms enable-key --key-id $key

What changes a key wants its key ID or key ARN, not an alias. What changes something and succeeds
prints nothing, as `aws` does, unless KMS has an answer for it.

Exit codes: 0 done; 252 usage; 254 the service says no; 255 not reachable, or a damaged answer.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// http://HOST:PORT, https://HOST:PORT or unix:/PATH. Default: $HSMAC_ENDPOINT, else
    /// http://127.0.0.1:50051.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        visible_alias = "endpoint-url"
    )]
    endpoint: Option<Endpoint>,
    #[command(flatten)]
    tls: TlsFlags,
    /// The profile of ~/.config/hsmac/profiles.toml (or $HSMAC_PROFILES) that names endpoint,
    /// ca_bundle, certificate and key. Default: $HSMAC_PROFILE, else default.
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// Taken, as `aws` takes it, and not used: the endpoint says where the server is.
    #[arg(long, global = true, value_name = "REGION")]
    region: Option<String>,
    /// What of the answer is printed: a JMESPath expression, as of `aws`.
    #[arg(long, global = true, value_name = "EXPRESSION")]
    query: Option<String>,
    /// Taken, as `aws` takes it: there is no pager.
    #[arg(long, global = true)]
    no_cli_pager: bool,
    /// Seconds until the call is given up; the server is told.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    /// How the answer looks: json (the default), text, table or yaml. For generate-macs and verify-macs
    /// the file that the answers go to; - is stdout (the default).
    #[arg(long, global = true, value_name = "FORMAT|FILE")]
    output: Option<OutputArgument>,
}

/// The value of `--output`: what is one for one verb is a format, and for another one a file.
#[derive(Clone, Debug)]
pub(super) struct OutputArgument(String);

impl OutputArgument {
    fn text(&self) -> &str {
        &self.0
    }
}

impl FromStr for OutputArgument {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// How the answer is to look.
fn output_format(argument: Option<&OutputArgument>) -> Result<OutputFormat, CliError> {
    let Some(argument) = argument else {
        return Ok(OutputFormat::Json);
    };
    OutputFormat::from_str(argument.text(), false).map_err(|_| {
        let text = argument.text();
        let fault = format!(
            "error: invalid value '{text}' for '--output <FORMAT|FILE>'\n  [possible values: json, text, table, yaml]"
        );
        CliError::Client(252, fault)
    })
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutputFormat {
    /// JSON with the member names of AWS; blobs in base64.
    Json,
    /// Values with tabs between them, in the order of their names.
    Text,
    /// Boxes, for people.
    Table,
    /// YAML with the member names of AWS; blobs in base64.
    Yaml,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Mac(mac::Verb),
    #[command(flatten)]
    Key(keys::Verb),
    #[command(flatten)]
    Alias(aliases::Verb),
    #[command(flatten)]
    Tag(tags::Verb),
    #[command(flatten)]
    Policy(policies::Verb),
    #[command(flatten)]
    Grant(grants::Verb),
}

pub(super) fn run(arguments: Arguments) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Client(255, format!("cannot start: {error}")))?;
    let query = arguments.query.as_deref();
    let query = query.map(output::Query::compile).transpose();
    let query = query.map_err(|fault| CliError::Client(252, fault))?;
    let file = arguments.output.as_ref();
    let format = match &arguments.verb {
        Verb::Mac(verb) if verb.has_file() => OutputFormat::Json,
        Verb::Mac(_)
        | Verb::Key(_)
        | Verb::Alias(_)
        | Verb::Tag(_)
        | Verb::Policy(_)
        | Verb::Grant(_) => output_format(file)?,
    };
    runtime.block_on(async {
        let (endpoint, profile) = (arguments.endpoint.as_ref(), arguments.profile.as_deref());
        let server = client::server(endpoint, &arguments.tls, profile, Alpn::Http2)
            .map_err(|fault| CliError::Client(252, fault))?;
        let timeout = Duration::from_secs(arguments.timeout.into());
        let channel = server
            .channel(timeout)
            .await
            .map_err(|fault| CliError::Client(255, fault))?;
        let call = KmsClient {
            server,
            timeout,
            channel,
        };
        let answer = match arguments.verb {
            Verb::Mac(verb) => call.mac_verb(verb, file).await,
            Verb::Key(verb) => call.key_verb(verb).await,
            Verb::Alias(verb) => call.alias_verb(verb).await,
            Verb::Tag(verb) => call.tag_verb(verb).await,
            Verb::Policy(verb) => call.policy_verb(verb).await,
            Verb::Grant(verb) => call.grant_verb(verb).await,
        }?;
        let answer = match &query {
            Some(query) => answer
                .queried(query)
                .map_err(|fault| CliError::Client(255, fault))?,
            None => answer,
        };
        super::print(answer.printed(format).as_bytes())
    })
}

struct KmsClient {
    server: Server,
    timeout: Duration,
    channel: Channel,
}

impl KmsClient {
    fn key_service(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel.clone())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    fn answer<T>(
        &self,
        operation: &str,
        reply: Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        reply
            .map(Response::into_inner)
            .map_err(|status| self.error(operation, &status))
    }

    /// An operation without an answer prints nothing, as `aws` does.
    fn done<T>(
        &self,
        operation: &str,
        reply: Result<Response<T>, Status>,
    ) -> Result<output::CommandOutput, CliError> {
        self.answer(operation, reply)
            .map(|_| output::CommandOutput::nothing())
    }

    /// Words a failed call like `aws`.
    fn error(&self, operation: &str, status: &Status) -> CliError {
        let (code, mut text) = match self.server.failure(status) {
            CallFailure::Service { exception, .. } => (
                254,
                format!(
                    "\nAn error occurred ({exception}) when calling the {operation} operation: {}",
                    status.message()
                ),
            ),
            CallFailure::TimedOut => (
                255,
                format!(
                    "Read timeout on endpoint URL: \"{}\"",
                    self.server.endpoint()
                ),
            ),
            CallFailure::Broken(cause) => (
                255,
                format!(
                    "Connection to endpoint URL \"{}\" was closed before a valid response: {cause}",
                    self.server.endpoint()
                ),
            ),
            CallFailure::NotHsmac => (
                255,
                format!(
                    "The endpoint \"{}\" did not answer as hsmac does: {:?}: {}",
                    self.server.endpoint(),
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
        CliError::Client(code, text)
    }
}

/// Seconds since 1970, as AWS CLI version 1 prints times.
fn seconds(date: Timestamp) -> f64 {
    date.seconds as f64 + f64::from(date.nanos) / 1e9
}
