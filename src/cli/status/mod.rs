//! `hsmac status`: how a running hsmac is, on one screen.

mod page;
pub(super) mod words;

use std::{
    env,
    io::{self, IsTerminal as _},
};

use super::{
    CliError,
    admin_socket::{AdminClient, AdminSocket, Heard},
    print,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  hsmac status
  hsmac status --config /etc/hsmac/hsmac.toml
  sudo -u hsmac hsmac status --socket /run/hsmac/admin.sock
  hsmac status --output json | jq .troubled_keys

Exit codes: 0 hsmac is ready for callers, though something else may need somebody; 1 it is not ready; 69 it
cannot be reached, and the error says what to type next; 64 usage; 78 configuration.
Colours are for terminals alone, and never where NO_COLOR is set.";

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    socket: AdminSocket,
    /// How the answer looks.
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum OutputFormat {
    /// For people.
    Text,
    /// /status.json as hsmac sends it.
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let client = AdminClient::new(&arguments.socket)?;
    let status = match client.ask()? {
        Heard::Status(status) => status,
        Heard::Starting(said) => {
            eprintln!(
                "hsmac: not ready yet: {said}\n\
                 If this lasts, its log says why: journalctl -u hsmac -n 50"
            );
            return Err(CliError::NotReady);
        }
    };
    match arguments.output {
        OutputFormat::Text => {
            print(page::page(&status.report, Paint::of_stdout()).as_bytes())?;
        }
        OutputFormat::Json => print(format!("{}\n", status.json).as_bytes())?,
    }
    if status.report.ready {
        Ok(())
    } else {
        Err(CliError::NotReady)
    }
}

/// How good something is, and its colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tone {
    Good,
    Warn,
    Bad,
    Soft,
}

impl Tone {
    /// The sign that says it without a colour.
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Good | Self::Soft => "●",
            Self::Warn => "▲",
            Self::Bad => "✖",
        }
    }

    /// Of a token's state.
    pub(super) fn of_state(state: &str) -> Self {
        match state {
            "up" => Self::Good,
            "starting" | "degraded" => Self::Warn,
            _ => Self::Bad,
        }
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
struct Paint {
    colours: bool,
}

impl Paint {
    /// Colours on a terminal that knows them, unless the user wants none (no-color.org).
    fn of_stdout() -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colours = io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        Self { colours }
    }

    fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => 32,
            Tone::Warn => 33,
            Tone::Bad => 31,
            Tone::Soft => 2,
        };
        self.escape(code, text)
    }

    fn bold(self, text: &str) -> String {
        self.escape(1, text)
    }

    fn escape(self, code: u8, text: &str) -> String {
        if self.colours && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
