//! The verbs of MacService.

use bytes::Bytes;
use clap::{ArgAction, Args, Subcommand};
use tonic::transport::Channel;

use super::{
    KmsClient, OutputArgument,
    blob::{mac, message},
    output,
    streams::StreamArguments,
};
use crate::{
    cli::CliError,
    proto::v1::{
        GenerateMacRequest, GenerateRandomRequest, MacAlgorithm, VerifyMacRequest,
        mac_service_client::MacServiceClient,
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make the MAC of a message.
    GenerateMac(GenerateMacArguments),
    /// Check the MAC of a message; a wrong one is KMSInvalidMacException and exit code 254.
    VerifyMac(VerifyMacArguments),
    /// Make the MAC of each line of a file, over one stream.
    #[command(after_help = GENERATE_MACS_HELP)]
    GenerateMacs(StreamArguments),
    /// Check the MAC of each line of a file, over one stream.
    #[command(after_help = VERIFY_MACS_HELP)]
    VerifyMacs(StreamArguments),
    /// Random bytes from the token's generator.
    GenerateRandom(GenerateRandomArguments),
}

const GENERATE_MACS_HELP: &str = "\
Examples:
  hsmac kms generate-macs --key-id alias/demo --mac-algorithm HMAC_SHA_256 \\
      --input messages.txt --output macs.txt
  hsmac kms generate-macs --key-id alias/demo --mac-algorithm HMAC_SHA_256 \\
      --format csv --column email --input people.csv --output pseudonyms.csv
  hsmac kms generate-macs --key-id alias/demo --mac-algorithm HMAC_SHA_256 \\
      --format csv --column email --input people.csv --output pseudonyms.csv \\
      --resume
  jq -c '{id, message: (.email | @base64)}' people.json |
      hsmac kms generate-macs --key-id alias/demo \\
          --mac-algorithm HMAC_SHA_256 --format ndjson

A line that the service refuses for what is in it has an empty MAC (NDJSON: \"error\"), is told with
its number, and the rest goes on. What would fail for every line ends the run. What may pass, such as
throttling or a token that is away, is tried again until nothing has gone well for --timeout.

Exit codes: 0 done; 252 usage; 254 the service says no to a line, or to all; 255 not reachable, a damaged
answer, or a file that cannot be read or written.";

const VERIFY_MACS_HELP: &str = "\
Examples:
  paste -d ' ' macs.txt messages.txt |
      hsmac kms verify-macs --key-id alias/demo --mac-algorithm HMAC_SHA_256
  hsmac kms verify-macs --key-id alias/demo --mac-algorithm HMAC_SHA_256 \\
      --format csv --column email --mac-column mac \\
      --input people.csv --output verified.csv

A MAC that does not match fails its line: the output says KMSInvalidMacException (NDJSON: \"error\"; CSV:
false in the column mac_valid), stderr has the line's number, and the exit code is 254.";

#[derive(Args, Debug)]
pub(super) struct Mac {
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
pub(super) struct GenerateMacArguments {
    #[command(flatten)]
    mac: Mac,
}

#[derive(Args, Debug)]
pub(super) struct VerifyMacArguments {
    #[command(flatten)]
    of: Mac,
    /// The MAC to check: base64, as generate-mac prints it, or fileb://PATH with its bytes. (`aws`
    /// takes text here as raw bytes, which no MAC is.)
    #[arg(long, value_parser = mac)]
    mac: Bytes,
}

#[derive(Args, Debug)]
pub(super) struct GenerateRandomArguments {
    /// 1 to 1,024.
    #[arg(long)]
    number_of_bytes: i32,
}

impl KmsClient {
    pub(super) async fn mac_verb(
        &self,
        verb: Verb,
        file: Option<&OutputArgument>,
    ) -> Result<output::CommandOutput, CliError> {
        match verb {
            Verb::GenerateMacs(asked) => {
                self.generate_macs(&asked, file).await?;
                Ok(output::CommandOutput::nothing())
            }
            Verb::VerifyMacs(asked) => {
                self.verify_macs(&asked, file).await?;
                Ok(output::CommandOutput::nothing())
            }
            Verb::GenerateMac(verb) => self.generate_mac(verb).await,
            Verb::VerifyMac(verb) => self.verify_mac(verb).await,
            Verb::GenerateRandom(verb) => self.generate_random(verb).await,
        }
    }

    async fn generate_mac(
        &self,
        GenerateMacArguments { mac }: GenerateMacArguments,
    ) -> Result<output::CommandOutput, CliError> {
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

    async fn verify_mac(
        &self,
        VerifyMacArguments { of, mac }: VerifyMacArguments,
    ) -> Result<output::CommandOutput, CliError> {
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
            return Err(CliError::Client(
                255,
                "the server answered without saying that the MAC is valid".into(),
            ));
        }
        Ok(output::verify_mac(&reply))
    }

    async fn generate_random(
        &self,
        verb: GenerateRandomArguments,
    ) -> Result<output::CommandOutput, CliError> {
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

    pub(super) fn mac_service(&self) -> MacServiceClient<Channel> {
        MacServiceClient::new(self.channel.clone())
    }

    pub(super) fn intact(&self, intact: bool) -> Result<(), CliError> {
        if intact {
            return Ok(());
        }
        Err(CliError::Client(
            255,
            format!(
                "CRC32C mismatch: message or MAC was damaged between here and \"{}\"; nothing of the answer can be trusted",
                self.server.endpoint()
            ),
        ))
    }
}

impl Verb {
    /// Whether `--output` is a file.
    pub(super) fn has_file(&self) -> bool {
        matches!(self, Self::GenerateMacs(_) | Self::VerifyMacs(_))
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
