//! Helpers of tests in processes of their own: the test binary runs itself again, with one of its
//! tests in the role of the helper. Cargo builds no other binary for `cargo test --test NAME`, so a
//! helper that was one would be missing when a single test is run from a clean clone.
//!
//! libtest writes to stdout before the helper can, so a helper begins with [`ready`] and whoever
//! started it reads from there on.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    env,
    ffi::{OsStr, OsString},
    io::Write as _,
    path::PathBuf,
};

/// What a helper works on. A test that finds it set is a helper.
const ARGUMENT: &str = "TEST_HELPER_ARGUMENT";
const READY: &str = "helper: ready";

/// How a helper is started: program, arguments, and the variable that its environment needs.
pub struct Helper {
    pub program: PathBuf,
    pub arguments: [&'static str; 4],
    pub variable: (&'static str, OsString),
}

/// The test of this path in this binary, as a helper that works on `argument`.
pub fn helper(test: &'static str, argument: impl AsRef<OsStr>) -> Helper {
    Helper {
        program: env::current_exe().unwrap(),
        arguments: ["--exact", test, "--nocapture", "--test-threads=1"],
        variable: (ARGUMENT, argument.as_ref().into()),
    }
}

/// What this process works on if it is a helper. Says that it is ready.
pub fn ready() -> Option<OsString> {
    let argument = env::var_os(ARGUMENT)?;
    // On a line of its own: libtest may have begun one.
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("\n{READY}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
    Some(argument)
}

/// Whether the helper itself speaks from the next line on.
pub fn is_ready(line: &str) -> bool {
    line == READY
}
