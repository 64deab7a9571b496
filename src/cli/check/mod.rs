//! `hsmac check`: examines configuration, listeners, store, tokens and keys.

mod report;
mod text;

use clap::ValueEnum;
use tokio::runtime::Builder;

use self::report::Report;
use super::{CliError, Configuration, paint::Paint, print};
use crate::{app, config::Loaded, store, token};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// For people, or for programs: one JSON object, with the exit code in it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How it is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let mut report = Report::new(&arguments.configuration.config);
    let examined = match arguments.configuration.load() {
        Ok(loaded) => examine(loaded, &mut report),
        Err(fault) => Err(fault),
    };
    if let (Err(fault), Output::Json) = (&examined, arguments.output) {
        report.ended_early(fault);
    }
    report.settle();
    match arguments.output {
        Output::Json => print(report.json()?.as_bytes())?,
        Output::Text => print(text::render(&report, Paint::for_stdout()).as_bytes())?,
    }
    match (examined, arguments.output) {
        (Err(fault), Output::Text) => Err(fault),
        (Err(fault), Output::Json) => Err(CliError::Logged(fault.exit_code())),
        (Ok(()), Output::Json) if report.exit_code != 0 => Err(CliError::Logged(report.exit_code)),
        (Ok(()), _) => report.into_result(),
    }
}

/// No log: what is found is told.
fn examine(loaded: Loaded, report: &mut Report) -> Result<(), CliError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Bug(format!("no runtime: {error}")))?;
    report.is_readable = true;
    let warnings = loaded.warnings.iter().map(ToString::to_string);
    report.warnings.extend(warnings);
    report.listeners = loaded.settings.listeners(&loaded.files);
    for certificate in app::examine_certificates(&loaded.files) {
        report.add_certificate(certificate);
    }
    let addresses = runtime.block_on(async { app::examine_listeners(&loaded.settings) });
    for address in addresses {
        report.add_address(address);
    }
    let simulator = app::simulator(&loaded.settings, loaded.files.rights.clone());
    let simulator = runtime.block_on(simulator)?;
    if let Some(settings) = &loaded.settings.store {
        let found = simulator.revision().map(|_| store::check(settings));
        report.add_store(settings, &simulator, found.transpose()?.as_ref());
    }
    if let Some(settings) = &loaded.settings.audit {
        let key = loaded.settings.seal_key().ok().flatten();
        report.add_audit(settings, key.map(|key| key.token));
    }
    let state_dir = loaded.settings.state_dir.clone();
    let was_there = state_dir.is_dir();
    let examinations = runtime.block_on(app::examine(loaded.settings))?;
    report.state_dir = match token::foreign_owner(&state_dir) {
        Some(owner) => Some(format!(
            "{}: of uid {owner}, who gets what is noted of logins",
            state_dir.display()
        )),
        None if !was_there && rustix::process::geteuid().is_root() => Some(format!(
            "{}: made now, and root's; if hsmac serves as another user, give it to them (chown -R)",
            state_dir.display()
        )),
        None => None,
    };
    for examination in &examinations {
        report.add_token(examination);
    }
    report.add_groups(&examinations);
    Ok(())
}
