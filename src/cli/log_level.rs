//! `hsmac log-level`: what a running hsmac logs, and more or less of it for a time.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{CliError, Configuration, client::duration, environment, print};
use crate::{config::Settings, telemetry::Level};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// error, warn, info, debug or trace, or one for a part: info,hsmac::token=debug. Without it the
    /// level is shown.
    #[arg(value_parser = read_level)]
    level: Option<Level>,
    /// How long it counts, at most 24h: 10m, 90s.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = duration)]
    time: Duration,
    /// Go back to the configuration's level now.
    #[arg(long, conflicts_with = "level")]
    end: bool,
    /// The socket of the running hsmac, in place of the configuration's [admin] socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    configuration: Configuration,
}

/// The most that is read of an answer.
const LONGEST_ANSWER: u64 = 64 << 10;
/// How long an answer may take: operators are answered while everything else is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let socket = match &arguments.socket {
        Some(socket) => socket.clone(),
        None => configured(&arguments.configuration)?,
    };
    let (method, query) = match &arguments.level {
        _ if arguments.end => ("DELETE", String::new()),
        None => ("GET", String::new()),
        Some(level) => {
            let seconds = arguments.time.as_secs();
            let level = level.to_string();
            let level = utf8_percent_encode(&level, NON_ALPHANUMERIC);
            ("PUT", format!("?level={level}&seconds={seconds}"))
        }
    };
    let answer = ask(&socket, method, &format!("/log-level{query}"));
    let (status, body) = answer.map_err(|error| {
        CliError::Away(format!(
            "{}: {error}; is hsmac running, and may you open its socket? Look: systemctl status hsmac",
            socket.display()
        ))
    })?;
    if status != 200 {
        return Err(CliError::Usage(body.trim().to_owned()));
    }
    print(said(&body)?.as_bytes())
}

fn configured(configuration: &Configuration) -> Result<PathBuf, CliError> {
    let (file, sets) = (&configuration.config, &configuration.set);
    Settings::admin_socket(file, sets, environment())?.ok_or_else(|| {
        CliError::Config(format!(
            "{}: admin.socket is not set, so that a running hsmac takes no orders; a reload changes the \
             level too: set log.level, then systemctl reload hsmac",
            file.display()
        ))
    })
}

fn said(body: &str) -> Result<String, CliError> {
    let answer: serde_json::Value = serde_json::from_str(body)
        .map_err(|error| CliError::Bug(format!("the answer is no JSON: {error}")))?;
    let text = |name: &str| answer[name].as_str().unwrap_or_default();
    let (level, configured) = (text("level"), text("configured"));
    Ok(match answer["seconds_left"].as_u64() {
        None => format!("{level}, as configured\n"),
        Some(seconds) => format!("{level} for {seconds} s more, then {configured} again\n"),
    })
}

/// One request over HTTP/1.1; its status and its body.
fn ask(socket: &Path, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    status
        .zip(body)
        .ok_or_else(|| io::Error::other("it does not answer as hsmac does"))
}

fn read_level(text: &str) -> Result<Level, String> {
    Level::try_from(text.to_owned())
}
