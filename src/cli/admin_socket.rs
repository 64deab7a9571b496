//! The client of `[admin] socket`, for `hsmac status` and `hsmac top`.
//!
//! Hides: where the socket is, and HTTP. Promises: an answer or an error within ten seconds; an error ends
//! with the next command to type; nothing in a report can steer a terminal. Does not: ask a token, or change
//! anything.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::{CliError, environment};
use crate::{
    admin::{STATUS_VERSION, StatusReport},
    config::Settings,
};

/// When a server that does not answer is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than a report of an hour, 100 faults and hundreds of tokens takes.
const MOST_BYTES: usize = 16 << 20;

/// Which hsmac.
#[derive(clap::Args, Debug)]
pub(super) struct AdminSocket {
    /// The configuration of the hsmac to look at: its `[admin] socket` is asked.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/hsmac/hsmac.toml",
        conflicts_with = "socket"
    )]
    config: PathBuf,
    /// Override a setting, as hsmac was started with.
    #[arg(long, value_name = "SECTION.KEY=VALUE", conflicts_with = "socket")]
    set: Vec<String>,
    /// The socket itself; no configuration is read.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// What hsmac says of itself.
#[derive(Debug)]
pub(super) enum Heard {
    /// It starts: there is nothing to see yet. A sentence.
    Starting(String),
    /// Its state.
    Status(Box<Status>),
}

/// The state of hsmac.
#[derive(Debug)]
pub(super) struct Status {
    /// As it came.
    pub(super) json: String,
    /// Security: control characters in it, which a key's description may have, are written as escapes.
    pub(super) report: StatusReport,
}

/// Asks one hsmac, again and again if need be.
pub(super) struct AdminClient {
    socket: PathBuf,
    runtime: Runtime,
}

impl AdminClient {
    /// # Errors
    /// [`CliError::Config`]: the configuration cannot be read, or names no socket. [`CliError::Bug`]: there is
    /// no runtime.
    pub(super) fn new(which: &AdminSocket) -> Result<Self, CliError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            socket: which.path()?,
            runtime: runtime.map_err(|error| CliError::Bug(format!("no runtime: {error}")))?,
        })
    }

    /// # Errors
    /// [`CliError::Away`]: nobody answers, or somebody else does.
    pub(super) fn ask(&self) -> Result<Heard, CliError> {
        let asked = async { timeout(PATIENCE, status_json(&self.socket)).await };
        let answer = self.runtime.block_on(asked).unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            let silent = format!("no answer within {seconds} s");
            Err(io::Error::new(ErrorKind::TimedOut, silent))
        });
        let (status, body) = answer.map_err(|error| self.away(&error))?;
        let body = String::from_utf8_lossy(&body);
        match status {
            StatusCode::OK => self.status(&body),
            StatusCode::SERVICE_UNAVAILABLE => Ok(Heard::Starting(escaped(body.trim()))),
            other => Err(self.foreign(&format!("it answers {other}: {}", escaped(body.trim())))),
        }
    }

    fn status(&self, body: &str) -> Result<Heard, CliError> {
        let mut value: Value = serde_json::from_str(body)
            .map_err(|error| self.foreign(&format!("its answer is no JSON: {error}")))?;
        escape_strings(&mut value);
        let report: StatusReport = serde_json::from_value(value)
            .map_err(|error| self.foreign(&format!("its answer is no status: {error}")))?;
        if report.version > STATUS_VERSION {
            return Err(CliError::Away(format!(
                "the hsmac at {} is newer ({}) than this command; use the one that is installed there, or --output json",
                self.socket.display(),
                report.hsmac
            )));
        }
        let json = body.to_owned();
        Ok(Heard::Status(Box::new(Status { json, report })))
    }

    fn foreign(&self, what: &str) -> CliError {
        let socket = self.socket.display();
        CliError::Away(format!(
            "{socket} does not seem to be the admin socket of hsmac: {what}"
        ))
    }

    /// Nobody answers: why, and what to type next.
    fn away(&self, error: &io::Error) -> CliError {
        let socket = self.socket.display();
        let log = "hsmac's log says more: journalctl -u hsmac -n 50";
        #[expect(clippy::wildcard_enum_match_arm, reason = "the system has many more")]
        let text = match error.kind() {
            ErrorKind::NotFound => format!(
                "hsmac is not running, or listens elsewhere: there is no {socket}\n\
                 Look with: systemctl status hsmac"
            ),
            ErrorKind::ConnectionRefused => format!(
                "hsmac is not running: it has left {socket} behind, as a process that was killed does\n{log}"
            ),
            ErrorKind::PermissionDenied => format!(
                "this user may not open {socket} (admin.mode); as hsmac's own user:\n  \
                 sudo -u hsmac hsmac status --socket {socket}"
            ),
            ErrorKind::TimedOut => format!(
                "hsmac does not answer at {socket}: {error}\n\
                 Is it stopped, or has the machine no processor to spare? Look with: systemctl status hsmac; uptime"
            ),
            _ => format!("hsmac cannot be asked at {socket}: {error}\n{log}"),
        };
        CliError::Away(text)
    }
}

impl AdminSocket {
    fn path(&self) -> Result<PathBuf, CliError> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let config = self.config.display();
        let found = Settings::admin_socket(&self.config, &self.set, environment());
        let found = found.map_err(|faults| {
            CliError::Config(format!(
                "{faults}\nThe socket can be named without it: --socket PATH"
            ))
        })?;
        found.ok_or_else(|| {
            CliError::Config(format!(
                "{config}: admin.socket: is not set, so that nobody can look at this hsmac; add\n  \
                 [admin]\n  socket = \"/run/hsmac/admin.sock\"\nand restart it: systemctl restart hsmac"
            ))
        })
    }
}

async fn status_json(socket: &Path) -> io::Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // It ends with the answer; what breaks it breaks the answer too.
    tokio::spawn(connection);
    let request = Request::get("/status.json")
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MOST_BYTES).collect();
    Ok((status, body.await.map_err(io::Error::other)?.to_bytes()))
}

fn escape_strings(value: &mut Value) {
    match value {
        Value::String(text) => *text = escaped(text),
        Value::Array(values) => values.iter_mut().for_each(escape_strings),
        Value::Object(members) => members.values_mut().for_each(escape_strings),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Security: no text of a client's can move the cursor, change colours, end a line, or turn the direction of
/// what stands beside it.
fn escaped(text: &str) -> String {
    let steers = |character: char| {
        character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if steers(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_report_steers_a_terminal() {
        let mut value = serde_json::json!({
            "description": "\u{1b}[31mred\u{9b}2J\r\n\u{202e}txt", "of": ["é – 鍵", "\u{7f}"]
        });
        escape_strings(&mut value);
        assert_eq!(
            value,
            serde_json::json!({
                "description": r"\u{1b}[31mred\u{9b}2J\r\n\u{202e}txt", "of": ["é – 鍵", r"\u{7f}"]
            })
        );
    }

    #[test]
    fn what_cannot_be_reached_is_told_with_the_next_command() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let asked = || {
            let which = AdminSocket {
                config: PathBuf::new(),
                set: Vec::new(),
                socket: Some(socket.clone()),
            };
            let fault = AdminClient::new(&which).unwrap().ask().unwrap_err();
            assert_eq!(fault.exit_code(), 69, "{fault}");
            fault.to_string()
        };
        let said = asked();
        assert!(
            said.contains("is not running, or listens elsewhere")
                && said.contains("systemctl status hsmac"),
            "{said}"
        );
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let said = asked();
        assert!(
            said.contains("has left") && said.contains("journalctl -u hsmac"),
            "{said}"
        );
    }
}
