//! `hsmac store …`: checks, backs up and restores the catalogue.

use std::{fmt::Write as _, path::PathBuf};

use super::{CliError, Configuration, print};
use crate::store::{self, CatalogueReport, OpenFault, Settings};

#[derive(clap::Args, Debug)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(clap::Args, Debug)]
pub(super) struct BackupArguments {
    /// The new file.
    file: PathBuf,
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(clap::Args, Debug)]
pub(super) struct RestoreArguments {
    /// A file that `hsmac store backup` made.
    file: PathBuf,
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(clap::Args, Debug)]
pub(super) struct ConfirmArguments {
    #[command(flatten)]
    configuration: Configuration,
}

pub(super) fn check(arguments: &CheckArguments) -> Result<(), CliError> {
    let found = store::check(&settings(&arguments.configuration)?)?;
    let mut page = format!("catalogue  {}: good\n", found.path.display());
    let _ = writeln!(page, "  schema    version {}", found.version);
    let _ = writeln!(page, "  revision  {}", found.revision.0);
    let _ = writeln!(page, "  records   {}", records(&found));
    match found.used_by {
        None => {}
        Some(0) => page.push_str("  in use    by another process\n"),
        Some(process) => {
            let _ = writeln!(page, "  in use    by process {process}");
        }
    }
    if let Some(restored) = found.restored {
        let _ = writeln!(
            page,
            "  restored  at {restored}, not confirmed: every key is disabled and due deletions wait;\n\
             \x20           hsmac store confirm --config {} ends that",
            arguments.configuration.config.display()
        );
    }
    print(page.as_bytes())
}

pub(super) fn backup(arguments: &BackupArguments) -> Result<(), CliError> {
    let settings = settings(&arguments.configuration)?;
    let file = arguments.file.display();
    if arguments.file.symlink_metadata().is_ok() {
        return Err(CliError::Usage(format!(
            "{file} is there already; a backup is written to a new file"
        )));
    }
    let copy = store::backup(&settings, &arguments.file)?;
    let page = format!(
        "{file} has revision {} of {}: {}.\n",
        copy.revision.0,
        settings.sqlite.path.display(),
        records(&copy)
    );
    print(page.as_bytes())
}

pub(super) fn restore(arguments: &RestoreArguments) -> Result<(), CliError> {
    let settings = settings(&arguments.configuration)?;
    let (restored, kept) = store::restore(&settings, &arguments.file)?;
    let path = restored.path.display();
    let mut page = format!(
        "{path} is what {} had: {}.\n",
        arguments.file.display(),
        records(&restored)
    );
    if let Some(kept) = kept {
        let _ = writeln!(page, "The catalogue that was there is {}.", kept.display());
    }
    let _ = write!(
        page,
        "Every key is disabled and due deletions wait until you have looked at the keys and run\n  \
         hsmac store confirm --config {}\n",
        arguments.configuration.config.display()
    );
    print(page.as_bytes())
}

pub(super) fn confirm(arguments: &ConfirmArguments) -> Result<(), CliError> {
    let said = match store::confirm(&settings(&arguments.configuration)?)? {
        Some(restored) => format!(
            "The restore of {restored} is confirmed: from the next start on, keys serve as the \
             catalogue has them.\n"
        ),
        None => "There is no restore that waits to be confirmed.\n".into(),
    };
    print(said.as_bytes())
}

fn settings(configuration: &Configuration) -> Result<Settings, CliError> {
    let settings = configuration.load()?.settings;
    settings.store.ok_or_else(|| {
        CliError::Config(format!(
            "{}: store: there is no catalogue without it; add [store.sqlite] with its path",
            configuration.config.display()
        ))
    })
}

fn records(found: &CatalogueReport) -> String {
    if found.kinds.is_empty() {
        return "no records".into();
    }
    let kinds = found.kinds.iter();
    let kinds: Vec<String> = kinds
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    kinds.join(", ")
}

impl From<OpenFault> for CliError {
    fn from(fault: OpenFault) -> Self {
        match fault {
            OpenFault::Configuration(text) => Self::Config(format!("hsmac: {text}")),
            OpenFault::Away(text) => Self::Away(text),
        }
    }
}
