//! `hsmac audit …`: verifies the log of calls, prints it, and proves single records. Needs no configuration and no running
//! hsmac, unless the token is asked about seals: an auditor may have a copy of the folder alone.

mod filter;
mod line;
mod tail;

use std::{
    fmt::{Display, Write as _},
    fs,
    io::{self, BufWriter, Write as _, stdout},
    path::{Path, PathBuf},
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::runtime::Builder;

use self::filter::Filter;
pub(super) use self::tail::{TailArguments, tail};
use super::{
    CliError, Configuration,
    paint::{Colour, Paint},
    print,
};
use crate::{
    app::{self, SealExamination},
    audit::{self, Damage, Follower, Verified},
    model::{Checkpoint, encode_hex, leaf_hash},
};

#[derive(clap::Args, Debug)]
pub(super) struct VerifyArguments {
    /// The folder of the log, or of a copy of it.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// A checkpoint that was kept elsewhere, which the log must agree with; may be given again.
    #[arg(long, value_name = "FILE")]
    since: Vec<PathBuf>,
    /// Ask the token whether the newest seal is genuine, and how much of the log was sealed. Logs in once, as `hsmac
    /// check` does, with the configuration's PIN.
    #[arg(long)]
    seals: bool,
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(clap::Args, Debug)]
pub(super) struct ProveArguments {
    /// The folder of the log.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The record's number, from 0: `additionalEventData.hsmac.index` of an export.
    index: u64,
}

#[derive(clap::Args, Debug)]
pub(super) struct ExportArguments {
    /// The folder of the log.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// What each line is: an event as AWS CloudTrail has it, or the record itself.
    #[arg(long, value_enum, default_value_t = Format::Cloudtrail)]
    format: Format,
    /// From this record on.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// AWS CloudTrail's form, with the record's place in the tree.
    Cloudtrail,
    /// Every record, those that are no calls too.
    Json,
}

pub(super) fn verify(arguments: &VerifyArguments) -> Result<(), CliError> {
    let (directory, paint) = (&arguments.directory, Paint::for_stdout());
    let mut kept = Vec::new();
    for file in &arguments.since {
        let shown = file.display();
        let usage = |fault: &dyn Display| CliError::Usage(format!("{shown}: {fault}"));
        let text = fs::read_to_string(file).map_err(|error| usage(&error))?;
        let one: Checkpoint = text.parse().map_err(|fault: String| usage(&fault))?;
        kept.push((shown.to_string(), one));
    }
    // Before the log is read: what is sealed by now must be in it then, also while hsmac writes.
    let seals = match arguments.seals {
        true => Some(examine_seals(
            directory,
            &arguments.configuration,
            &mut kept,
        )?),
        false => None,
    };
    let segments = audit::segments(directory).map_err(|error| unreadable(directory, &error))?;
    let files = segments.iter().filter_map(|it| it.path.metadata().ok());
    let bar = ProgressBar::new(files.map(|file| file.len()).sum());
    if let Ok(style) = ProgressStyle::with_template(
        "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {eta} left",
    ) {
        bar.set_style(style);
    }
    let began = Instant::now();
    let found = audit::verify(directory, &kept, |read| bar.set_position(read));
    bar.finish_and_clear();
    let found = found.map_err(|error| unreadable(directory, &error))?;
    let (mut page, mut is_good) = report(&found, began.elapsed().as_secs_f64(), paint);
    if let Some(seals) = seals {
        is_good &= seals.is_ok();
        let (colour, word, said) = match seals {
            Ok(said) => (Colour::Good, "genuine", said),
            Err(said) => (Colour::Wrong, "WRONG", said),
        };
        let _ = writeln!(page, "\nseals      {}: {said}", paint.paint(colour, word));
    }
    print(page.as_bytes())?;
    if is_good {
        Ok(())
    } else {
        Err(CliError::Denied)
    }
}

/// What the token says of the log's seals, or what is wrong with them; and what the log must agree with therefore.
fn examine_seals(
    directory: &Path,
    configuration: &Configuration,
    kept: &mut Vec<(String, Checkpoint)>,
) -> Result<Result<String, String>, CliError> {
    let origin = audit::origin(directory).map_err(damaged)?;
    let origin = origin
        .ok_or_else(|| CliError::Usage(format!("{}: there is no log", directory.display())))?;
    let newest = audit::newest_seal(directory).map_err(CliError::Usage)?;
    let settings = configuration.load()?.settings;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Bug(format!("no runtime: {error}")))?;
    let asked = app::examine_seals(settings, &origin, newest.clone());
    let SealExamination {
        is_genuine,
        remembered,
    } = runtime.block_on(asked)?;
    let sealed = newest.map(|seal| seal.checkpoint);
    let size = sealed.as_ref().map_or(0, |sealed| sealed.size);
    let own = remembered.size;
    kept.extend(sealed.map(|sealed| ("the newest seal".to_owned(), sealed)));
    if own > 0 {
        kept.push(("what this machine has sealed".to_owned(), remembered));
    }
    Ok(match (is_genuine, own) {
        (Some(false), _) => Err(format!(
            "the seal of {size} records was not made by the token's key"
        )),
        (None, 0) => Err("nothing was sealed".to_owned()),
        (None, _) => Err(format!(
            "this machine has sealed {own} records, and the log has no seal beside it"
        )),
        (Some(true), _) => Ok(format!(
            "of {size} records by the token's key; this machine has sealed {own}"
        )),
    })
}

fn report(found: &Verified, seconds: f64, paint: Paint) -> (String, bool) {
    let mut page = String::new();
    let Verified {
        checkpoint,
        first_index,
        records,
        segments,
        seals,
        damages,
    } = found;
    let rate = *records as f64 / seconds.max(1e-6);
    let (word, colour) = match damages.len() {
        0 => ("good", Colour::Good),
        _ => ("DAMAGED", Colour::Wrong),
    };
    let _ = writeln!(
        page,
        "audit log  {}: {records} records and {seals} seals in {segments} files, {seconds:.1} s, {rate:.0} a second",
        paint.paint(colour, word)
    );
    if *first_index > 0 {
        let _ = writeln!(
            page,
            "  begins   with record {first_index}: older segments are not here"
        );
    }
    for damage in damages {
        let _ = writeln!(page, "  {}  {damage}", paint.paint(Colour::Wrong, "wrong "));
    }
    if let Some(checkpoint) = checkpoint.as_ref().filter(|_| damages.is_empty()) {
        page.push_str(
            "\nThis is the log now. Keep it where hsmac cannot write, and give it to --since the next time:\n\n",
        );
        let _ = write!(page, "{checkpoint}");
    }
    (page, damages.is_empty())
}

pub(super) fn prove(arguments: &ProveArguments) -> Result<(), CliError> {
    let (proof, checkpoint, record) =
        audit::prove(&arguments.directory, arguments.index).map_err(CliError::Usage)?;
    let hash = leaf_hash(&record);
    if proof.root(hash) != Some(checkpoint.root) {
        return Err(CliError::Bug(
            "the proof does not give the log's root".into(),
        ));
    }
    let path: Vec<String> = proof
        .path
        .iter()
        .map(|hash| STANDARD.encode(hash))
        .collect();
    let proof = json!({
        "index": proof.index,
        "size": proof.size,
        "record": STANDARD.encode(&record),
        "leafHash": encode_hex(&hash),
        "path": path,
        "checkpoint": checkpoint.to_string(),
    });
    print(format!("{proof:#}\n").as_bytes())
}

pub(super) fn export(arguments: &ExportArguments) -> Result<(), CliError> {
    let mut log = Follower::new(&arguments.directory, arguments.from).map_err(damaged)?;
    let mut out = BufWriter::new(stdout().lock());
    let mut failed = None;
    let read = log.read(|index, bytes, entry, names| {
        if index < arguments.from || !arguments.filter.wants(entry, names) {
            return true;
        }
        let line = match arguments.format {
            Format::Cloudtrail => audit::cloudtrail(index, bytes, entry, names),
            Format::Json => Some(audit::record(index, bytes, entry, names)),
        };
        let written = line.map_or(Ok(()), |line| writeln!(out, "{line}"));
        failed = written.err();
        failed.is_none()
    });
    let flushed = out.flush();
    match failed.map_or(flushed, Err) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(CliError::Away(format!("stdout: {error}"))),
        Ok(()) => read.map(drop).map_err(damaged),
    }
}

fn damaged(damage: Damage) -> CliError {
    CliError::Usage(format!("{damage}; hsmac audit verify says more"))
}

fn unreadable(directory: &Path, error: &io::Error) -> CliError {
    CliError::Usage(format!("{}: {error}", directory.display()))
}
