//! Drives `store_tool.rs`: a catalogue in another process.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::helper::{Helper, helper, is_ready};

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
    /// Whether the next line is the tool's own.
    ready: bool,
}

impl Tool {
    pub(crate) fn start(catalogue: &Path) -> Self {
        let tool = tool(catalogue);
        Self::of(&tool, Command::new(&tool.program).args(tool.arguments))
    }

    /// As the shell script says, whose `$@` is the tool and `$0` the catalogue.
    pub(crate) fn in_shell(script: &str, catalogue: &Path) -> Self {
        Self::within(Command::new("sh").args(["-c", script]), catalogue)
    }

    /// As the shell script says, with mounts of its own.
    pub(crate) fn in_namespace(script: &str, catalogue: &Path) -> Self {
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount");
        // In some containers root may not make a user namespace; elsewhere only root needs none.
        if !rustix::process::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        Self::within(unshare.args(["sh", "-c", script]), catalogue)
    }

    fn within(shell: &mut Command, catalogue: &Path) -> Self {
        let tool = tool(catalogue);
        shell.arg(catalogue).arg(&tool.program).args(tool.arguments);
        Self::of(&tool, shell)
    }

    fn of(tool: &Helper, command: &mut Command) -> Self {
        let (name, value) = &tool.variable;
        let mut child = command
            .env(name, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            stdin: child.stdin.take(),
            stdout,
            ready: false,
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
        while !self.ready {
            self.ready = is_ready(&self.stdout.next()?.unwrap());
        }
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

fn tool(catalogue: &Path) -> Helper {
    helper("store_tool::a_catalogue_in_another_process", catalogue)
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
