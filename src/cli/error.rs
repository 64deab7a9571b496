//! Why a command ended without success, and the exit code that says so to scripts.

use std::{fmt, process::ExitCode};

use crate::config::ConfigFaults;

/// Why a command ends without success.
#[derive(Debug)]
pub enum CliError {
    /// The command line is wrong, or help was asked for. `hsmac kms` has a code of its own for it.
    Arguments(clap::Error, ExitCodes),
    /// The token or the store is not available: 69.
    Away(String),
    /// A bug of hsmac: 70.
    Bug(String),
    /// The end of `hsmac kms`, like that of `aws`: the exit code 252, 254 or 255, and the whole text.
    Client(u8, String),
    /// The configuration is wrong; one fault a line: 78.
    Config(String),
    /// The simulated request is denied; stdout has the answer: 1.
    Denied,
    /// `hsmac serve` has logged why it ends, with this exit code.
    Logged(u8),
    /// `hsmac status` found an hsmac that is not ready for callers; it has said why: 1.
    NotReady,
    /// The command line is wrong in a way that clap cannot see: 64.
    Usage(String),
}

/// Which exit codes a command line that is wrong ends with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExitCodes {
    /// The `aws` command's, under `hsmac kms`.
    Aws,
    /// Those of sysexits.h.
    Sysexits,
}

impl CliError {
    /// 1 denied (`policy simulate`) or not ready (`status`), 64 usage, 69 token or store away, 70 bug, 78 configuration;
    /// under `kms` 252 usage, 254 service error, 255 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(error, _) if !error.use_stderr() => 0, // --help, --version
            Self::Arguments(_, ExitCodes::Aws) => 252,
            Self::Arguments(_, ExitCodes::Sysexits) | Self::Usage(_) => 64,
            Self::Away(_) => 69,
            Self::Bug(_) => 70,
            Self::Client(code, _) => *code,
            Self::Config(_) => 78,
            Self::Denied | Self::NotReady => 1,
            Self::Logged(code) => *code,
        }
    }

    /// The same, with what to type next in a line of its own.
    pub(super) fn then(self, next: &str) -> Self {
        match self {
            Self::Config(text) => Self::Config(format!("{text}\nnext: {next}")),
            Self::Away(text) => Self::Away(format!("{text}\nnext: {next}")),
            other @ (Self::Arguments(..)
            | Self::Bug(_)
            | Self::Client(..)
            | Self::Denied
            | Self::Logged(_)
            | Self::NotReady
            | Self::Usage(_)) => other,
        }
    }

    /// The same end of `hsmac kms`, with more to say of it.
    pub(super) fn told(self, more: &str) -> Self {
        match self {
            Self::Client(code, text) => Self::Client(code, text + more),
            other @ (Self::Arguments(..)
            | Self::Away(_)
            | Self::Bug(_)
            | Self::Config(_)
            | Self::Denied
            | Self::Logged(_)
            | Self::NotReady
            | Self::Usage(_)) => other,
        }
    }

    /// Prints the error, and gives the exit code. The last thing that `main` does.
    pub fn report(&self) -> ExitCode {
        match self {
            // clap knows where help and errors go, and whether a terminal wants colours. An
            // error of the terminal is ignored.
            Self::Arguments(error, _) => drop(error.print()),
            Self::Denied | Self::Logged(_) | Self::NotReady => {}
            Self::Away(_) | Self::Bug(_) | Self::Client(..) | Self::Config(_) | Self::Usage(_) => {
                eprintln!("{self}");
            }
        }
        ExitCode::from(self.exit_code())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(error, _) => error.fmt(f),
            Self::Client(_, text) | Self::Config(text) => f.write_str(text),
            Self::Denied => f.write_str("denied"),
            Self::NotReady => f.write_str("not ready"),
            Self::Logged(_) => f.write_str("the log says why"),
            Self::Away(text) | Self::Bug(text) | Self::Usage(text) => write!(f, "hsmac: {text}"),
        }
    }
}

impl std::error::Error for CliError {}

impl From<ConfigFaults> for CliError {
    fn from(faults: ConfigFaults) -> Self {
        Self::Config(faults.to_string())
    }
}
