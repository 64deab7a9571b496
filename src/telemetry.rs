//! Logs.

use serde::Deserialize;

/// `[log]`: what is logged, and how it looks. Logs go to stderr.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `text` for people, `json` for collectors. Default text.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, or tracing filter directives such as `info,hsmac=debug`.
    /// Default info.
    pub level: Option<String>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One line a record.
    #[default]
    Text,
    /// One JSON object a record.
    Json,
}
