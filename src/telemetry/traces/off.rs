//! A build without the feature `otlp`.

use super::{Settings, TraceCounts, TracedCall};

/// Whether calls are traced.
pub const fn is_on() -> bool {
    false
}

/// Nothing is to be started: settings with an endpoint are refused before.
pub fn start(_: &Settings) -> Result<(), String> {
    Ok(())
}

/// Nothing is left to be exported.
pub async fn stop() {}

/// Gives the call's trace ID, if it is traced: it is not.
pub const fn record(_: &TracedCall<'_>) -> Option<String> {
    None
}

/// No spans.
pub const fn counts() -> Option<TraceCounts> {
    None
}
