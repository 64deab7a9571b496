//! A panic is a line of the log, as everything else that goes wrong.

use std::panic;

use tracing::error;

/// From now on a panic is logged, in the log's format, instead of being printed.
pub fn log_panics() {
    panic::set_hook(Box::new(|panicked| {
        let location = panicked.location().map(ToString::to_string);
        let reason = panicked.payload_as_str().unwrap_or("of no known kind");
        let thread = std::thread::current();
        error!(
            event = "panicked",
            location,
            thread = thread.name().unwrap_or("unnamed"),
            reason,
            "a bug of hsmac: it panicked; please report this line"
        );
    }));
}
