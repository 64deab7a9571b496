//! `hsmac serve`.

use tokio::runtime::Builder;
use tracing::warn;

use super::{Configuration, Stop};
use crate::{
    app::{self, App},
    config::{Settings, Warning},
    telemetry,
};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Stop> {
    let (settings, warnings) = arguments.configuration.load()?;
    serve(settings, &warnings, async |_| Ok(()))
}

/// Serves until SIGTERM; `announce` is called once, when everything is ready.
pub(super) fn serve(
    settings: Settings,
    warnings: &[Warning],
    announce: impl AsyncFnOnce(&App) -> Result<(), Stop>,
) -> Result<(), Stop> {
    telemetry::start(&settings.log);
    for warning in warnings {
        warn!("{warning}");
    }
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::Bug(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let app = match App::start(settings).await {
            Err(app::Fault::Ended) => return Ok(()),
            started => started?,
        };
        announce(&app).await?;
        Ok(app.run().await?)
    })
}

impl From<app::Fault> for Stop {
    fn from(fault: app::Fault) -> Self {
        match fault {
            app::Fault::Configuration(text) => Self::Config(text),
            app::Fault::Away(text) => Self::Away(text),
            app::Fault::Internal(text) => Self::Bug(text),
            ended @ app::Fault::Ended => Self::Away(ended.to_string()),
        }
    }
}
