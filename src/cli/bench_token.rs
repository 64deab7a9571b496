//! `hsmac bench token`: how fast a token is without hsmac.

use std::time::Duration;

use tokio::runtime::Builder;

use super::{CliError, Configuration, print};
use crate::{
    app::prepare_state_dir,
    token,
    token_host::{Bench, Measurement},
};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// The key's ID or alias; may be left out when one key is declared.
    #[arg(long, value_name = "KEY")]
    key_id: Option<String>,
    /// How long.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::client::duration)]
    duration: Duration,
    /// Length of the message, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    message_bytes: u16,
    /// Use a session-object copy of the key, as the setting does.
    #[arg(long)]
    working_copies: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let settings = arguments.configuration.load()?.settings;
    let mut keys = settings.key.iter().filter(|key| {
        arguments
            .key_id
            .as_ref()
            .is_none_or(|wanted| key.key_id.as_str() == wanted || key.aliases.contains(wanted))
    });
    let (Some(declared), None) = (keys.next(), keys.next()) else {
        return Err(CliError::Usage(
            "name one declared key with --key-id".into(),
        ));
    };
    let name = declared
        .token
        .as_ref()
        .or_else(|| settings.token.keys().next());
    let Some(token) = name.and_then(|name| settings.token.get(name)) else {
        return Err(CliError::Config("the key names no token".into()));
    };
    prepare_state_dir(&settings)?;
    // A vendor library reads its environment when it is loaded, and `set_var` would be unsafe.
    if token
        .env
        .iter()
        .any(|(name, value)| std::env::var(name).as_ref() != Ok(value))
    {
        return measure_in_child(token, arguments);
    }
    let mut wanted = token.for_host(1, &settings.state_dir);
    wanted.working_copies = arguments.working_copies;
    let message = vec![b'm'; usize::from(arguments.message_bytes)];
    let mut bench = Bench::start(wanted).map_err(CliError::Away)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Bug(format!("no runtime: {error}")))?;
    // Security: under the governor that hosts have too, so that a PIN that was refused is not tried at
    // each run.
    let found = bench.found().clone();
    let logged_in = token::log_in_here(
        &settings.state_dir,
        token,
        &found,
        &mut bench,
        |bench, salts| bench.read_pins(salts),
        Bench::log_in,
    );
    runtime.block_on(logged_in).map_err(CliError::Away)?;
    let key = declared.token_key().definition();
    let measured = bench.measure(key, &message, arguments.duration);
    report(arguments, measured.map_err(CliError::Away)?)
}

/// Starts this very command again with the token's own environment.
fn measure_in_child(token: &token::Settings, _arguments: &Arguments) -> Result<(), CliError> {
    let own = std::env::current_exe().map_err(|error| CliError::Bug(error.to_string()))?;
    let status = std::process::Command::new(own)
        .args(std::env::args_os().skip(1))
        .envs(&token.env)
        .status()
        .map_err(|error| CliError::Bug(error.to_string()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(78) => Err(CliError::Config(
            "the measuring process found the configuration wrong".into(),
        )),
        Some(_) | None => Err(CliError::Away("the measuring process failed".into())),
    }
}

fn report(arguments: &Arguments, measurement: Measurement) -> Result<(), CliError> {
    let Measurement {
        macs,
        took,
        two_calls,
    } = measurement;
    let rate = macs as f64 / took.as_secs_f64();
    let page = if arguments.json {
        let json = serde_json::json!({
            "macs": macs,
            "seconds": took.as_secs_f64(),
            "macs_per_second": rate,
            "message_bytes": arguments.message_bytes,
            "working_copies": arguments.working_copies,
            "two_calls": two_calls,
        });
        format!("{json}\n")
    } else {
        let object = if arguments.working_copies {
            "a session-object copy"
        } else {
            "the token object"
        };
        let calls = if two_calls {
            "C_SignInit + C_Sign"
        } else {
            "C_SignInit + 2 × C_Sign"
        };
        format!(
            "{rate:.0} MACs/s: one process, one session, {object}, {calls}, {}-byte messages, {:.1} s\n",
            arguments.message_bytes,
            took.as_secs_f64(),
        )
    };
    print(page.as_bytes())
}
