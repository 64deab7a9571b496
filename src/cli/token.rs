//! `hsmac token …`.

use super::{Configuration, Stop, print};
use crate::token;

#[derive(clap::Args, Debug)]
pub(super) struct UnlockArguments {
    /// The token's name in the configuration.
    name: String,
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn unlock(arguments: &UnlockArguments) -> Result<(), Stop> {
    let (settings, _warnings) = arguments.configuration.load()?;
    let name = &arguments.name;
    if !settings.token.contains_key(name) {
        let known: Vec<&str> = settings.token.keys().map(String::as_str).collect();
        return Err(Stop::Usage(format!(
            "there is no token {name:?} in {}; there is {}",
            arguments.configuration.config.display(),
            known.join(", ")
        )));
    }
    let refused = token::unlock(&settings.state_dir, name).map_err(|error| {
        Stop::Config(format!(
            "state_dir: {}: {error}",
            settings.state_dir.display()
        ))
    })?;
    let said = if refused {
        format!("The refused PIN of {name} is forgotten; hsmac tries the PIN file once more.\n")
    } else {
        format!(
            "No PIN of {name} was refused. One try is allowed even if the token calls it the last.\n"
        )
    };
    print(said.as_bytes())
}
