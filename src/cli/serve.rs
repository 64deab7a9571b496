//! `hsmac serve`: serves until SIGTERM.

use std::path::{Path, absolute};

use tokio::runtime::Builder;
use tracing::{error, info, warn};

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
    let configuration = &arguments.configuration;
    let log = configuration.log();
    begin_log(&log, &configuration.config);
    let loaded = configuration.load();
    let served = loaded.and_then(|loaded| serve(loaded, async |_| Ok(())));
    let config = configuration.config.display();
    match log.format {
        telemetry::Format::Text if configuration.config.exists() => {
            served.map_err(|fault| fault.then(&format!("hsmac check --config {config}")))
        }
        telemetry::Format::Text => served,
        telemetry::Format::Json => served.map_err(log_end),
    }
}

/// The first line of the log, before anything can go wrong.
pub(super) fn begin_log(log: &telemetry::Settings, configuration: &Path) {
    telemetry::start(log);
    // A test that fails is printed as tests are.
    if cfg!(not(test)) {
        telemetry::log_panics();
    }
    info!(
        event = "starting",
        version = env!("CARGO_PKG_VERSION"),
        configuration = %absolute(configuration).unwrap_or_else(|_| configuration.into()).display(),
        process = "front",
        pid = std::process::id(),
        "hsmac starts"
    );
}

/// For collectors, which take one object a line and nothing else.
fn log_end(fault: CliError) -> CliError {
    let exit_code = fault.exit_code();
    for reason in fault.to_string().lines() {
        error!(
            event = "start_failed",
            reason, exit_code, "hsmac ends without having served"
        );
    }
    CliError::Logged(exit_code)
}

/// Serves until SIGTERM; `announce` is called once, when everything is ready.
pub(super) fn serve(
    loaded: Loaded,
    announce: impl AsyncFnOnce(&App) -> Result<(), CliError>,
) -> Result<(), CliError> {
    for warning in &loaded.warnings {
        warn!(event = "configuration_warning", "{warning}");
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
