//! `hsmac token unlock`: lets hsmac try a refused PIN again.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{CliError, Configuration, print};
use crate::token;

#[derive(clap::Args, Debug)]
pub(super) struct UnlockArguments {
    /// The token's name in the configuration.
    name: String,
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(clap::Args, Debug)]
pub(super) struct KickArguments {
    /// The token's name in the configuration.
    name: String,
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn kick(arguments: &KickArguments) -> Result<(), CliError> {
    let name = &arguments.name;
    let state_dir = state_dir(name, &arguments.configuration)?;
    token::kick(&state_dir, name).map_err(|error| unwritable(&state_dir, &error))?;
    print(format!("hsmac asks {name} now, if it is away.\n").as_bytes())
}

/// The folder in which a serving hsmac looks for orders, if it has the token.
fn state_dir(name: &str, configuration: &Configuration) -> Result<PathBuf, CliError> {
    let settings = configuration.load()?.settings;
    if !settings.token.contains_key(name) {
        let known: Vec<&str> = settings.token.keys().map(String::as_str).collect();
        return Err(CliError::Usage(format!(
            "there is no token {name:?} in {}; there is {}",
            configuration.config.display(),
            known.join(", ")
        )));
    }
    Ok(settings.state_dir)
}

fn unwritable(state_dir: &Path, error: &io::Error) -> CliError {
    CliError::Config(format!("state_dir: {}: {error}", state_dir.display()))
}

pub(super) fn unlock(arguments: &UnlockArguments) -> Result<(), CliError> {
    let name = &arguments.name;
    let state_dir = state_dir(name, &arguments.configuration)?;
    let refused =
        token::unlock(&state_dir, name).map_err(|error| unwritable(&state_dir, &error))?;
    let said = if refused {
        format!("The refused PIN of {name} is forgotten; hsmac tries the PIN file once more.\n")
    } else {
        format!(
            "No PIN of {name} was refused. One try is allowed even if the token calls it the last.\n"
        )
    };
    print(said.as_bytes())
}
