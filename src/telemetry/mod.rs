//! Logs: lines on stderr, for people or for collectors. Traces: spans of calls, for a collector.
//!
//! Hides: how lines look, which targets are logged. Promises: one line a record, whatever a peer or a module
//! put into it; no colours unless a terminal reads them; `RUST_LOG` without effect; libraries log nothing
//! unless the operator names them; level and format may change while hsmac runs. Does not: audit (that may not
//! be filtered, sampled or dropped).

mod call_notes;
mod level;
mod lines;
mod panics;
pub mod traces;

use std::{
    io::{IsTerminal as _, stderr},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;
use tracing::{info, level_filters::LevelFilter};
use tracing_subscriber::{
    Registry, filter::Targets, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use self::lines::{Lines, SpanFields};
pub use self::{
    call_notes::{CallNotes, ServedBy, Stage, note_host, note_stage, noting},
    level::Level,
    lines::Format,
    panics::log_panics,
    traces::StageTimer,
};

/// `[log]`: what is logged, and how it looks. Logs go to stderr.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `text` for people, `json` for collectors. Default text. A reload changes it.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug` or `trace`; parts may have levels of their own, as in
    /// `info,hsmac::token=debug`. Default info. A reload changes it, and `hsmac log-level` for a time.
    pub level: Level,
}

/// The log of this process, once it has started.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    filter: reload::Handle<Targets, Registry>,
    lines: Lines,
    levels: Mutex<Levels>,
}

/// Which level counts.
struct Levels {
    /// The settings'.
    configured: Level,
    /// Another one, for a time.
    temporary: Option<Temporary>,
    /// How many temporary levels there have been.
    count: u64,
}

struct Temporary {
    level: Level,
    until: Instant,
    number: u64,
}

/// A level that was set for a time. Whoever set it ends it when the time is over ([`end`]).
#[derive(Clone, Copy, Debug)]
pub struct TemporaryLevel(u64);

/// What is logged now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LevelInForce {
    /// The level that counts.
    pub level: Level,
    /// The level of the settings.
    pub configured: Level,
    /// How long `level` still counts, if it is not that of the settings.
    pub left: Option<Duration>,
}

/// Starts logging for this process. A second start changes nothing: tests share a process.
pub fn start(settings: &Settings) {
    let lines = Lines::new(settings.format, stderr().is_terminal());
    let (filter, handle) = reload::Layer::new(settings.level.targets());
    let log = Log {
        filter: handle,
        lines: lines.clone(),
        levels: Mutex::new(Levels {
            configured: settings.level.clone(),
            temporary: None,
            count: 0,
        }),
    };
    let written = tracing_subscriber::fmt::layer()
        .with_writer(stderr)
        .fmt_fields(SpanFields)
        .event_format(lines);
    // The only way to fail is that logging runs already.
    if tracing_subscriber::registry()
        .with(filter)
        .with(written)
        .try_init()
        .is_ok()
    {
        drop(LOG.set(log));
        pass_on_log();
    }
}

/// Puts other settings in force. A level that was set for a time goes on until its time is over.
pub fn apply(settings: &Settings) {
    let Some(log) = LOG.get() else { return };
    log.lines.set_format(settings.format);
    let mut levels = log.levels();
    levels.configured = settings.level.clone();
    log.use_level(&levels);
}

/// Sets a level for a time, in the place of one that was set before.
pub fn set_for(level: Level, time: Duration) -> TemporaryLevel {
    let Some(log) = LOG.get() else {
        return TemporaryLevel(0);
    };
    let mut levels = log.levels();
    levels.count += 1;
    let number = levels.count;
    let seconds = time.as_secs();
    info!(
        event = "log_level_set", log_level = %level, seconds,
        "the log has another level for a time"
    );
    levels.temporary = Some(Temporary {
        level,
        until: Instant::now() + time,
        number,
    });
    log.use_level(&levels);
    TemporaryLevel(number)
}

/// Ends a level that was set for a time; nothing if another one has taken its place, or it has ended.
pub fn end(temporary: TemporaryLevel) {
    let Some(log) = LOG.get() else { return };
    let mut levels = log.levels();
    if levels
        .temporary
        .as_ref()
        .is_some_and(|one| one.number == temporary.0)
    {
        levels.temporary = None;
        log.use_level(&levels);
        info!(
            event = "log_level_restored", log_level = %levels.configured,
            "the log has the configuration's level again"
        );
    }
}

/// Ends whichever level was set for a time.
pub fn end_any() {
    let number = LOG
        .get()
        .and_then(|log| Some(log.levels().temporary.as_ref()?.number));
    if let Some(number) = number {
        end(TemporaryLevel(number));
    }
}

/// What is logged now; none if this process does not log.
pub fn in_force() -> Option<LevelInForce> {
    let levels = LOG.get()?.levels();
    let configured = levels.configured.clone();
    Some(match &levels.temporary {
        Some(one) => LevelInForce {
            level: one.level.clone(),
            configured,
            left: Some(one.until.saturating_duration_since(Instant::now())),
        },
        None => LevelInForce {
            level: configured.clone(),
            configured,
            left: None,
        },
    })
}

impl Log {
    fn levels(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn use_level(&self, levels: &Levels) {
        let temporary = levels.temporary.as_ref().map(|one| &one.level);
        let targets = temporary.unwrap_or(&levels.configured).targets();
        // It fails only if the subscriber is gone, and with it the log.
        let _ = self.filter.reload(targets);
        pass_on_log();
    }
}

/// Libraries that use the crate `log` are asked for what the filter may let through.
fn pass_on_log() {
    let most = match LevelFilter::current().into_level() {
        None => log::LevelFilter::Off,
        Some(tracing::Level::ERROR) => log::LevelFilter::Error,
        Some(tracing::Level::WARN) => log::LevelFilter::Warn,
        Some(tracing::Level::INFO) => log::LevelFilter::Info,
        Some(tracing::Level::DEBUG) => log::LevelFilter::Debug,
        Some(tracing::Level::TRACE) => log::LevelFilter::Trace,
    };
    log::set_max_level(most);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starting_twice_is_harmless_and_levels_for_a_time_end() {
        let level = |text: &str| Level::try_from(text.to_owned()).unwrap();
        let settings = Settings {
            level: level("error"),
            ..Settings::default()
        };
        start(&settings);
        start(&Settings {
            format: Format::Json,
            level: level("warn"),
        });
        // Another test of this process may have a subscriber of its own as the global one.
        let Some(before) = in_force() else { return };
        assert_eq!(before.left, None);
        let first = set_for(level("debug"), Duration::from_mins(10));
        let second = set_for(level("trace"), Duration::from_mins(5));
        end(first);
        let now = in_force().unwrap();
        assert_eq!(now.level, level("trace"));
        assert!(now.left.is_some_and(|left| left <= Duration::from_mins(5)));
        apply(&Settings {
            level: level("warn"),
            ..Settings::default()
        });
        assert_eq!(in_force().unwrap().level, level("trace"));
        end(second);
        assert_eq!(in_force().unwrap().level, level("warn"));
        end_any();
        // Another test may have started the log, with other settings.
        apply(&Settings {
            level: before.configured.clone(),
            ..Settings::default()
        });
        assert_eq!(in_force().unwrap(), before);
    }
}
