//! What all parts of one simulation share: its chance, its time, its trace, and what went wrong.

use std::{
    fmt::{Arguments, Write as _},
    sync::Mutex,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::token::{
    locks::UNPOISONED,
    simulated::{Random, mix},
};

/// One simulation.
pub(crate) struct World {
    began: Instant,
    random: Mutex<Random>,
    trace: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            began: Instant::now(),
            random: Mutex::new(Random::new(mix(seed))),
            trace: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    /// A number from `least` to `most`.
    pub(crate) fn between(&self, least: u64, most: u64) -> u64 {
        self.random.lock().expect(UNPOISONED).between(least, most)
    }

    /// True so many times of a thousand.
    pub(crate) fn happens(&self, permille: u64) -> bool {
        self.between(0, 999) < permille
    }

    pub(crate) fn index(&self, of: usize) -> usize {
        usize::try_from(self.between(0, of as u64 - 1)).expect("less than a usize")
    }

    /// A span of so many milliseconds.
    pub(crate) fn span(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    pub(crate) async fn pause(&self, least: u64, most: u64) {
        sleep(self.span(least, most)).await;
    }

    /// Writes a line of the trace: what happened, and when.
    pub(crate) fn note(&self, what: Arguments<'_>) {
        let mut line = format!("{:10.3} ", self.began.elapsed().as_secs_f64());
        let _ = line.write_fmt(what);
        self.trace.lock().expect(UNPOISONED).push(line);
    }

    /// Something was promised and not kept.
    pub(crate) fn violated(&self, what: Arguments<'_>) {
        self.note(format_args!("VIOLATION: {what}"));
        self.violations
            .lock()
            .expect(UNPOISONED)
            .push(what.to_string());
    }

    /// Notes what was promised and not kept, if so.
    pub(crate) fn promise(&self, kept: bool, what: Arguments<'_>) {
        if !kept {
            self.violated(what);
        }
    }

    /// How long it has been going on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The trace and what was not kept.
    pub(crate) fn report(&self) -> (Vec<String>, Vec<String>) {
        let trace = std::mem::take(&mut *self.trace.lock().expect(UNPOISONED));
        let violations = std::mem::take(&mut *self.violations.lock().expect(UNPOISONED));
        (trace, violations)
    }
}
