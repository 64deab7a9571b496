//! Why a command ended without success, and the exit code that says so to scripts.

use std::{fmt, process::ExitCode};

use crate::config::Faults;

/// The end of a command that did not succeed.
#[derive(Debug)]
pub enum Stop {
    /// The command line is wrong, or help was asked for. `hsmac kms` has a code of its own for it.
    Arguments(clap::Error, Verbs),
    /// The token or the store is away: 69.
    Away(String),
    /// A bug of ours: 70.
    Bug(String),
    /// As the `aws` command ends: the whole text and 252, 254 or 255.
    Client(u8, String),
    /// The configuration is wrong; one fault a line: 78.
    Config(String),
    /// What was asked was answered, on stdout, and the answer is no: 1.
    Denied,
    /// The command line is wrong in a way that clap cannot see: 64.
    Usage(String),
}

/// Whose exit codes count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verbs {
    /// The `aws` command's, under `hsmac kms`.
    Aws,
    /// Those of sysexits.h.
    Own,
}

impl Stop {
    /// 1 denied (`policy simulate` alone), 64 usage, 69 token or store away, 70 bug, 78 configuration;
    /// under `kms` 252 usage, 254
    /// service error, 255 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(error, _) if !error.use_stderr() => 0, // --help, --version
            Self::Arguments(_, Verbs::Aws) => 252,
            Self::Arguments(_, Verbs::Own) | Self::Usage(_) => 64,
            Self::Away(_) => 69,
            Self::Bug(_) => 70,
            Self::Client(code, _) => *code,
            Self::Config(_) => 78,
            Self::Denied => 1,
        }
    }

    /// Tells the person, and gives the exit code. The last thing that `main` does.
    pub fn tell(&self) -> ExitCode {
        match self {
            // clap knows where help and errors go, and whether a terminal wants colours. When
            // nobody reads, nothing is lost.
            Self::Arguments(error, _) => drop(error.print()),
            Self::Denied => {}
            Self::Away(_) | Self::Bug(_) | Self::Client(..) | Self::Config(_) | Self::Usage(_) => {
                eprintln!("{self}");
            }
        }
        ExitCode::from(self.exit_code())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(error, _) => error.fmt(f),
            Self::Client(_, text) | Self::Config(text) => f.write_str(text),
            Self::Denied => f.write_str("denied"),
            Self::Away(text) | Self::Bug(text) | Self::Usage(text) => write!(f, "hsmac: {text}"),
        }
    }
}

impl std::error::Error for Stop {}

impl From<Faults> for Stop {
    fn from(faults: Faults) -> Self {
        Self::Config(faults.to_string())
    }
}
