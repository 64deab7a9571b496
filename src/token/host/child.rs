//! What runs a host: the process that the operating system has of it, how it is started and ended.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::UnixStream,
    process::{Child, Command},
    runtime::Handle,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tracing::info;

#[cfg(test)]
use crate::token::simulated::ModelProcess;
use crate::{
    host_ipc::InFlightTable,
    token::{
        host::stream::HostStream,
        settings::{HostProgram, Settings},
    },
};

/// How long a host may take to end when it is asked to.
pub(super) const END: Duration = Duration::from_secs(2);
/// Lines a second that a host may write into our log.
const LINES: u32 = 20;

/// Starts a host; gives the front's end of its socket, and the process.
pub(super) fn start(
    settings: &Settings,
    program: &HostProgram,
    generation: u32,
    in_flight: &InFlightTable,
) -> io::Result<(HostStream, Running)> {
    match program {
        HostProgram::Binary(path) => spawn(settings, path, generation, in_flight),
        #[cfg(test)]
        HostProgram::Model(hosts) => {
            let (socket, theirs) = StdUnixStream::pair()?;
            in_flight.send(&socket)?;
            let in_flight = InFlightTable::receive(&theirs)?;
            let (stream, process) = hosts.start(&settings.name, generation, in_flight)?;
            Ok((HostStream::Pipe(stream), Running::Model(process)))
        }
    }
}

fn spawn(
    settings: &Settings,
    program: &Path,
    generation: u32,
    in_flight: &InFlightTable,
) -> io::Result<(HostStream, Running)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    let mut command = Command::new(program);
    command
        // The path is /proc/self/exe, which tells who looks at processes nothing.
        .arg0("hsmac")
        .args(["token-host", &settings.name, &generation.to_string()])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // Security: a vendor library gets neither our settings nor anybody's credentials.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "NOTIFY_SOCKET"
            || ["HSMAC", "AWS_", "LISTEN_"]
                .iter()
                .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command.envs(&settings.env);
    let mut child = command.spawn()?;
    in_flight.send(&ours)?;
    ours.set_nonblocking(true)?;
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(relay(stdout, settings.name.clone(), generation));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(relay(stderr, settings.name.clone(), generation));
    }
    let stream = HostStream::Socket(UnixStream::from_std(ours)?);
    Ok((stream, Running::Process(child)))
}

/// A host's process. Its permit is given back when the process is reaped: one that is stuck in a
/// driver outlives even SIGKILL, and nobody waits for it.
pub(super) struct ChildProcess {
    running: Option<(Running, OwnedSemaphorePermit)>,
    /// It has said why it cannot start, and is ending what it had begun.
    pub(super) ends_itself: bool,
}

impl ChildProcess {
    pub(super) fn new(child: Running, permit: OwnedSemaphorePermit) -> Self {
        Self {
            running: Some((child, permit)),
            ends_itself: false,
        }
    }

    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.running {
            Some((child, _)) => child.wait().await,
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn kill(&mut self) {
        if let Some((child, _)) = &mut self.running {
            child.kill();
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.ends_itself {
            self.kill();
        }
        let Some((mut child, permit)) = self.running.take() else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        // The child itself is handed on, and not this guard: a task that a runtime drops at its end
        // must not start another one. What is left then is killed as it is dropped.
        runtime.spawn(async move {
            if timeout(END, child.wait()).await.is_err() {
                child.kill();
            }
            let _ = child.wait().await;
            drop(permit);
        });
    }
}

/// What runs: a process; in the simulation a task.
pub(super) enum Running {
    Process(Child),
    #[cfg(test)]
    Model(ModelProcess),
}

impl Running {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Process(child) => child.wait().await,
            #[cfg(test)]
            Self::Model(process) => Ok(process.wait().await),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Process(child) => kill_group(child),
            #[cfg(test)]
            Self::Model(process) => process.kill(),
        }
    }
}

/// Ends a host and the whole process group that it leads. A child that was reaped has no ID, so that
/// nobody else's group is hit.
fn kill_group(child: &mut Child) {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.start_kill();
}

/// Vendor libraries print: into our log, so many lines a second.
async fn relay(mut pipe: impl AsyncRead + Unpin, token: String, generation: u32) {
    let mut chunk = [0; 4096];
    let mut second = Instant::now();
    let mut seen = 0;
    while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
        for line in chunk[..length]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            if second.elapsed() > Duration::from_secs(1) {
                second = Instant::now();
                seen = 0;
            }
            seen += 1;
            if seen <= LINES {
                let line = String::from_utf8_lossy(line);
                info!(
                    event = "module_output",
                    token,
                    host = generation,
                    "module: {}",
                    line.trim_end()
                );
            } else if seen == LINES + 1 {
                info!(
                    event = "module_output",
                    token,
                    host = generation,
                    "the module prints more than {LINES} lines a second"
                );
            }
        }
    }
}
