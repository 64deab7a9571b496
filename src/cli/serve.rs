//! `hsmac serve`: serves until SIGTERM.

use tokio::runtime::Builder;
use tracing::warn;

use super::{CliError, Configuration};
use crate::{
    app::{self, App},
    config::Loaded,
    telemetry,
};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    serve(arguments.configuration.load()?, async |_| Ok(()))
}

/// Serves until SIGTERM; `announce` is called once, when everything is ready.
pub(super) fn serve(
    loaded: Loaded,
    announce: impl AsyncFnOnce(&App) -> Result<(), CliError>,
) -> Result<(), CliError> {
    telemetry::start(&loaded.settings.log);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Bug(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let app = match App::start(loaded).await {
            Err(app::AppError::Ended) => return Ok(()),
            started => started?,
        };
        if let Err(error) = announce(&app).await {
            // Hosts that are killed in a login may leave a token that nobody can read.
            app.end().await;
            return Err(error);
        }
        app.run().await;
        Ok(())
    })
}

impl From<app::AppError> for CliError {
    fn from(fault: app::AppError) -> Self {
        match fault {
            app::AppError::Configuration(text) => Self::Config(text),
            app::AppError::Away(text) => Self::Away(text),
            app::AppError::Internal(text) => Self::Bug(text),
            ended @ app::AppError::Ended => Self::Away(ended.to_string()),
        }
    }
}
