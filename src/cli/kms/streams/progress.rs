//! How far a run is, for whoever sits in front of it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A line on a terminal's stderr; nothing elsewhere.
pub(super) struct Progress {
    bar: ProgressBar,
    failed: u64,
    /// Errors that were not shown.
    untold: u64,
}

impl Progress {
    /// Of an input of so many bytes, if that is known.
    pub(super) fn new(bytes: Option<u64>, quiet: bool) -> Self {
        let target = match quiet {
            true => ProgressDrawTarget::hidden(),
            // Nothing is drawn where stderr is no terminal.
            false => ProgressDrawTarget::stderr_with_hz(10),
        };
        let bar = ProgressBar::with_draw_target(bytes, target);
        let form = match bytes {
            Some(_) => "{bar:30} {percent:>3} %  {msg}  {elapsed}, {eta} left",
            None => "{spinner} {msg}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message("0 lines");
        Self {
            bar,
            failed: 0,
            untold: 0,
        }
    }

    /// So many lines are written, which end there.
    pub(super) fn written(&self, lines: u64, bytes: u64) {
        self.bar.set_position(bytes);
        if self.bar.is_hidden() || !lines.is_multiple_of(256) {
            return;
        }
        let rate = lines as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        self.bar
            .set_message(format!("{lines} lines{failed}  {rate:.0}/s"));
    }

    /// Tells of a line that failed, if not too many have.
    pub(super) fn failed(&mut self, line: u64, exception: Option<&str>, text: &str) {
        self.failed += 1;
        if self.failed > MOST_TOLD {
            self.untold += 1;
            return;
        }
        let exception = exception.map_or_else(String::new, |name| format!("{name}: "));
        self.bar
            .suspend(|| eprintln!("line {line}: {exception}{text}"));
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
        if self.untold > 0 {
            eprintln!("and {} more lines", self.untold);
        }
    }
}

/// So many errors are told one by one.
const MOST_TOLD: u64 = 100;
