//! Logs: lines on stderr, for people or for collectors.
//!
//! Promises: one line a record, no colours unless a terminal reads them, `RUST_LOG` without effect;
//! libraries log nothing unless the operator names them. Does not: audit (that may not be filtered, sampled or dropped).

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
        .with_env_filter(filter(directives))
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

/// The operator's directives over those that silence [`LIBRARIES`]: `debug` is about hsmac alone, and
/// `h2=debug` is about h2.
fn filter(directives: &str) -> EnvFilter {
    // Of two directives for one target the later counts, and a target's own counts more than `debug`.
    let silenced = LIBRARIES.map(|library| format!("{library}=off,"));
    EnvFilter::builder().parse_lossy(silenced.concat() + directives)
}

/// Security: these libraries read what peers send, and some log a line for each frame or header that
/// they dislike. A peer without a proof must not be able to fill the log.
const LIBRARIES: [&str; 11] = [
    "h2",
    "hyper",
    "hyper_util",
    "rustls",
    "scratchstack_aws_signature",
    "tokio_rustls",
    "tonic",
    "tonic_health",
    "tonic_reflection",
    "tower",
    "webpki",
];

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
    fn libraries_are_silent_unless_the_operator_names_them() {
        use std::sync::{Arc, Mutex};

        use tracing_subscriber::fmt::MakeWriter;

        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        impl MakeWriter<'_> for Lines {
            type Writer = Self;
            fn make_writer(&self) -> Self {
                self.clone()
            }
        }
        for (level, wanted) in [
            ("info", "ours"),
            ("trace", "ours"),
            ("warn,hsmac=debug", "ours"),
            ("h2=warn,info", "pings ours"),
            ("h2::proto=warn", "pings"),
        ] {
            let lines = Lines::default();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(filter(level))
                .with_writer(lines.clone())
                .without_time()
                .with_level(false)
                .with_target(false)
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::warn!(target: "h2::proto::ping_pong", "pings");
                tracing::error!(target: "hyper::proto::h1", "a header");
                tracing::error!(target: "scratchstack_aws_signature", "a signature");
                tracing::warn!("ours");
            });
            let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            let said: Vec<_> = said.split_whitespace().collect();
            assert_eq!(said.join(" "), wanted, "{level}");
        }
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
