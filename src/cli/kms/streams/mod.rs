//! `hsmac kms generate-macs` and `verify-macs`: a MAC for each line of a file, over one stream.
//!
//! Promises: answers in the order of the input; memory that does not grow with it; what fails for a reason
//! of its own line is reported by line, and the rest goes on; what would fail for every line ends the run,
//! and what is written by then is whole and can be gone on with. Does not: judge messages or keys.

mod output;
mod pace;
mod progress;
mod pump;
mod records;
mod verbs;

use clap::{Args, ValueEnum};

use self::{
    output::{Output, Written},
    progress::Progress,
    pump::Pump,
    records::{RecordReader, Records},
    verbs::{Generate, StreamVerb, Verify},
};
use super::{KmsClient, OutputArgument};
use crate::{cli::CliError, proto::v1::MacAlgorithm};

/// What both verbs take.
#[derive(Args, Debug)]
pub(super) struct StreamArguments {
    /// Key ID, key ARN, alias name (alias/…) or alias ARN.
    #[arg(long)]
    key_id: String,
    /// The one algorithm that the key's spec fits.
    #[arg(long, value_parser = ["HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"])]
    mac_algorithm: String,
    /// Grant tokens.
    #[arg(long, num_args = 1.., value_name = "TOKEN")]
    grant_tokens: Vec<String>,
    /// Where the messages are; - is stdin.
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: String,
    /// How input and output look.
    #[arg(long, value_enum, default_value = "lines")]
    format: Format,
    /// The column of a CSV file that has the messages.
    #[arg(long, value_name = "NAME", required_if_eq("format", "csv"))]
    column: Option<String>,
    /// The column of a CSV file for the MACs. generate-macs puts them there, and adds the column if there is
    /// none; without it they take the place of the messages. verify-macs reads them there.
    #[arg(long, value_name = "NAME")]
    mac_column: Option<String>,
    /// Go on where the output file ends; a last line that is not whole is made again.
    #[arg(long)]
    resume: bool,
    /// How many items may be unanswered at a time: fewer, if the principal has a limit of calls at a time.
    #[arg(long, value_name = "NUMBER", default_value = "256", value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,
    /// Neither progress nor a line about what was done; errors are told all the same.
    #[arg(long)]
    quiet: bool,
}

/// How input and output look.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// A message a line, as it is; MACs in base64, a line each. For verify-macs: MAC, space, message;
    /// "valid", or an exception's name.
    Lines,
    /// A JSON object a line with "message" in base64 (verify-macs: and "mac"); the same with "mac"
    /// ("mac_valid"), or with "error".
    Ndjson,
    /// A table with a line of names; see --column.
    Csv,
}

impl StreamArguments {
    fn algorithm(&self) -> i32 {
        // clap lets only names of the contract pass.
        MacAlgorithm::from_str_name(&self.mac_algorithm)
            .unwrap_or_default()
            .into()
    }
}

impl KmsClient {
    pub(super) async fn generate_macs(
        &self,
        asked: &StreamArguments,
        output: Option<&OutputArgument>,
    ) -> Result<(), CliError> {
        self.stream(&Generate(asked), asked, output).await
    }

    pub(super) async fn verify_macs(
        &self,
        asked: &StreamArguments,
        output: Option<&OutputArgument>,
    ) -> Result<(), CliError> {
        if asked.format == Format::Csv && asked.mac_column.is_none() {
            let say = "verify-macs reads the MACs of a CSV file in a column: --mac-column NAME";
            return Err(usage(say));
        }
        self.stream(&Verify(asked), asked, output).await
    }

    async fn stream<V: StreamVerb>(
        &self,
        verb: &V,
        asked: &StreamArguments,
        output: Option<&OutputArgument>,
    ) -> Result<(), CliError> {
        let path = output.map_or("-", OutputArgument::text);
        if asked.resume && path == "-" {
            return Err(usage("--resume needs --output FILE"));
        }
        if path != "-" && path == asked.input {
            return Err(usage("input and output are the same file"));
        }
        let (records, total) = RecordReader::open(verb, asked).map_err(broken)?;
        let output = Output::open(path, asked, records.header(), V::ADDED);
        let (output, written) = output.map_err(usage)?;
        let Written { records: done } = written;
        let progress = Progress::new(total, asked.quiet);
        let records = Records::begin(records, done);
        let mut pump = Pump::new(self, verb, asked, output, progress);
        let ended = pump.run(records).await;
        let tally = pump.finish();
        let failed = match ended {
            Ok(()) => tally?,
            Err(error) => {
                let done = done + tally?.written;
                let next = match path {
                    "-" => String::new(),
                    _ => "; the same command with --resume goes on there".to_owned(),
                };
                return Err(error.told(&format!("\n{done} lines are done{next}")));
            }
        };
        if failed.failed > 0 {
            let (failed, all) = (failed.failed, failed.written);
            let say = format!("{failed} of {all} lines failed");
            return Err(CliError::Client(254, say));
        }
        if !asked.quiet {
            eprintln!("{} lines are done", done + failed.written);
        }
        Ok(())
    }
}

fn usage(say: impl Into<String>) -> CliError {
    CliError::Client(252, say.into())
}

fn broken(say: String) -> CliError {
    CliError::Client(255, say)
}

/// A line may be so long, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

#[cfg(test)]
mod tests;
