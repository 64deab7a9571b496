//! Drives `tests/store_tool.rs`: a catalogue in another process.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// The system calls that change files. A test that kills at each of them takes them one by one:
/// strace counts each call for itself.
pub(crate) const CALLS: [&str; 8] = [
    "openat",
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "rename",
    "unlink",
    "fchmod",
];

pub(crate) struct Tool {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

pub(crate) fn binary() -> PathBuf {
    let tool = Path::new(env!("CARGO_BIN_EXE_hsmac")).with_file_name("examples/store-tool");
    assert!(tool.exists(), "{}: build the examples", tool.display());
    tool
}

impl Tool {
    pub(crate) fn start(catalogue: &Path) -> Self {
        Self::of(Command::new(binary()).arg(catalogue))
    }

    /// As the shell script says, whose `$1` is the tool and `$2` the catalogue.
    pub(crate) fn in_shell(script: &str, catalogue: &Path) -> Self {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script, "sh"])
            .arg(binary())
            .arg(catalogue);
        Self::of(&mut shell)
    }

    /// The same, with mounts of its own.
    pub(crate) fn in_namespace(script: &str, catalogue: &Path) -> Self {
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount");
        // In some containers root may not make a user namespace; elsewhere only root needs none.
        if !rustix::process::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        unshare
            .args(["sh", "-c", script, "sh"])
            .arg(binary())
            .arg(catalogue);
        Self::of(&mut unshare)
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            stdin: child.stdin.take(),
            stdout,
            child,
        }
    }

    /// Gives it a line and returns what it answers; none: it has ended.
    pub(crate) fn try_say(&mut self, line: &str) -> Option<String> {
        let stdin = self.stdin.as_mut().expect("it was not killed by us");
        // A tool that is gone does not read; its silence says so.
        let _ = stdin.write_all(format!("{line}\n").as_bytes());
        self.line()
    }

    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) -> String {
        let answer = self.try_say(line);
        answer.unwrap_or_else(|| panic!("the tool ended at: {line}"))
    }

    /// What it says next by itself.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.stdout.next().map(Result::unwrap)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (not what runs it: a tracer that dies lets it live), and returns what it had said by then.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.stdout.by_ref().map(Result::unwrap).collect()
    }

    /// Lets it come to its end.
    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
