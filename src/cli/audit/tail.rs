//! `hsmac audit tail`: the newest calls, one a line, and those that come.

use std::{
    collections::VecDeque,
    io::{self, Write as _, stdout},
    path::PathBuf,
    time::Duration,
};

use super::{
    super::{CliError, paint::Paint},
    damaged,
    filter::Filter,
    line::line,
    unreadable,
};
use crate::audit::{self, Follower};

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct TailArguments {
    /// The folder of the log.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// How many of the newest to begin with, of the last two files at most.
    #[arg(short, long, value_name = "COUNT", default_value_t = 10)]
    lines: usize,
    /// End after those, instead of waiting for more.
    #[arg(long)]
    no_follow: bool,
    #[command(flatten)]
    filter: Filter,
}

pub(in crate::cli) fn tail(arguments: &TailArguments) -> Result<(), CliError> {
    let directory = &arguments.directory;
    let paint = Paint::for_stdout();
    let segments = audit::segments(directory).map_err(|error| unreadable(directory, &error))?;
    let from = segments.iter().rev().nth(1).or_else(|| segments.last());
    let from = from.map_or(0, |segment| segment.first_index);
    let mut log = Follower::new(directory, from).map_err(damaged)?;
    let mut newest = VecDeque::new();
    log.read(|index, _, entry, names| {
        if arguments.filter.wants(entry, names)
            && let Some(line) = line(index, entry, names, paint)
        {
            if newest.len() >= arguments.lines {
                newest.pop_front();
            }
            newest.push_back(line);
        }
        true
    })
    .map_err(damaged)?;
    newest.truncate(arguments.lines);
    let mut lines: Vec<String> = newest.into();
    loop {
        match show(&lines) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(CliError::Away(format!("stdout: {error}"))),
            Ok(()) if arguments.no_follow => return Ok(()),
            Ok(()) => {}
        }
        lines.clear();
        std::thread::sleep(LOOK_AGAIN);
        log.read(|index, _, entry, names| {
            if arguments.filter.wants(entry, names) {
                lines.extend(line(index, entry, names, paint));
            }
            lines.len() < AT_ONCE
        })
        .map_err(damaged)?;
    }
}

fn show(lines: &[String]) -> io::Result<()> {
    let mut out = stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// So many lines are kept in memory before they are shown.
const AT_ONCE: usize = 10_000;
