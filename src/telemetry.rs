//! Logs: lines on stderr, for people or for collectors.
//!
//! Promises: one line a record, no colours unless a terminal reads them, `RUST_LOG` without effect.
//! Does not: audit (that may not be filtered, sampled or dropped).

use std::io::{IsTerminal as _, stderr};

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// `[log]`: what is logged, and how it looks. Logs go to stderr.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `text` for people, `json` for collectors. Default text.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, or tracing filter directives such as `info,hsmac=debug`.
    /// Default info.
    pub level: Option<Level>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub enum Format {
    /// One line a record.
    #[default]
    Text,
    /// One JSON object a record.
    Json,
}

impl TryFrom<String> for Format {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no format; there are text and json")),
        }
    }
}

/// Filter directives that tracing understands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Level(String);

impl TryFrom<String> for Level {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match EnvFilter::builder().parse(&text) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(format!(
                "{text:?} is no level; write info, or info,hsmac=debug"
            )),
        }
    }
}

/// Starts logging for this process. A second start changes nothing: tests share a process.
pub fn start(settings: &Settings) {
    let directives = settings
        .level
        .as_ref()
        .map_or("info", |level| level.0.as_str());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse_lossy(directives))
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false);
    // The only way to fail is that logging runs already.
    let _ = match settings.format {
        Format::Text => lines.try_init(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_target(true)
            .try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_level_or_directives() {
        for good in ["info", "debug", "info,hsmac=debug", "hsmac::token=trace"] {
            assert!(Level::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for wrong in ["hsmac=loud", "info;debug=="] {
            assert!(Level::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert!(
            Format::try_from("xml".to_owned())
                .unwrap_err()
                .contains("text and json")
        );
    }

    #[test]
    fn starting_twice_is_harmless() {
        start(&Settings::default());
        start(&Settings {
            format: Format::Json,
            level: Level::try_from("warn".to_owned()).ok(),
        });
    }
}
