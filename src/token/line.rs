//! One host process: its socket, its board, how it starts and how it comes to its end.

use std::{
    io,
    os::unix::net::UnixStream as StdUnixStream,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, Command},
    runtime::Handle,
    sync::OwnedSemaphorePermit,
    time::{timeout, timeout_at},
};
use tracing::info;

use super::{Key, Settings, Surroundings};
use crate::{
    proto::host::{self, End, FromHost, ToHost, from_host, to_host},
    wire::{Board, Inbox, put},
};

/// How long a host may take to end when it is asked to.
const END: Duration = Duration::from_secs(2);
/// Lines a second that a host may write into our log.
const LINES: u32 = 20;

/// The socket, the process and the board of one host.
pub(super) struct Line {
    pub(super) generation: u32,
    pub(super) stream: UnixStream,
    pub(super) inbox: Inbox,
    pub(super) out: BytesMut,
    child: Process,
    pub(super) board: Board,
    pub(super) board_entries: u32,
}

/// Why a host came to its end.
#[derive(Debug)]
pub(super) struct Death {
    /// For the log.
    pub(super) reason: String,
    pub(super) class: host::FaultClass,
    /// Whether it had made a proven MAC or another good answer.
    pub(super) proven: bool,
    /// Whether the library may have fallen over a job that it held: it crashed, hung or broke the
    /// standard. A host that says why it ends had no such accident.
    pub(super) accident: bool,
    /// It was a call that did not return.
    pub(super) hang: Option<Hang>,
}

/// What hung: the successor must show that it does not.
#[derive(Clone, Debug)]
pub(super) struct Hang {
    /// The key of the call, if it had one.
    pub(super) key: Option<Arc<Key>>,
}

impl Death {
    pub(super) fn new(class: host::FaultClass, reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            class,
            proven: false,
            accident: false,
            hang: None,
        }
    }

    pub(super) fn accident(class: host::FaultClass, reason: impl Into<String>) -> Self {
        Self {
            accident: true,
            ..Self::new(class, reason)
        }
    }

    pub(super) fn of(fault: Option<host::Fault>) -> Self {
        let fault = fault.unwrap_or_default();
        let call = format!("{} {}", fault.function, fault.code);
        let parts = [fault.reason.as_str(), call.trim()];
        let reason: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Self::new(fault.class(), reason.join(": "))
    }
}

impl Line {
    pub(super) fn open(
        settings: &Settings,
        surroundings: &Surroundings,
        generation: u32,
        process: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let board_entries = settings.sessions + 1;
        let board = Board::create(board_entries)?;
        let mut command = Command::new(&surroundings.host_binary);
        command
            .arg("token-host")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
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
        board.send(&ours)?;
        ours.set_nonblocking(true)?;
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(relay(stdout, settings.name.clone(), generation));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(relay(stderr, settings.name.clone(), generation));
        }
        Ok(Self {
            generation,
            stream: UnixStream::from_std(ours)?,
            inbox: Inbox::default(),
            out: BytesMut::new(),
            child: Process(Some((child, process))),
            board,
            board_entries,
        })
    }

    /// Says something and waits for the answer.
    pub(super) async fn within(
        &mut self,
        limit: Duration,
        frame: to_host::Frame,
    ) -> Result<from_host::Frame, Death> {
        self.put(frame);
        let out = std::mem::take(&mut self.out);
        if let Err(error) = self.stream.write_all(&out).await {
            return Err(Death::new(host::FaultClass::Retry, error.to_string()));
        }
        self.receive_within(limit).await
    }

    pub(super) async fn receive_within(
        &mut self,
        limit: Duration,
    ) -> Result<from_host::Frame, Death> {
        let until = tokio::time::Instant::now() + limit;
        let mut lost = None;
        loop {
            match self.inbox.take::<FromHost>() {
                Ok(Some(FromHost { frame: Some(frame) })) => return Ok(frame),
                Ok(Some(FromHost { frame: None })) => {
                    return Err(Death::new(host::FaultClass::Bug, "an empty frame"));
                }
                Ok(None) => {}
                Err(fault) => return Err(Death::new(host::FaultClass::Bug, fault.to_string())),
            }
            // Security: the last word of a host comes before its end, even if both arrive together:
            // a refused PIN that is not heard would be tried again.
            if let Some(error) = lost {
                return Err(self.ended_early(&error).await);
            }
            match timeout_at(until, self.stream.readable()).await {
                Err(_) => {
                    return Err(Death::new(
                        host::FaultClass::TokenAway,
                        format!("the module did not start within {limit:?} (start_timeout)"),
                    ));
                }
                Ok(readable) => lost = readable.and_then(|()| self.receive()).err(),
            }
        }
    }

    async fn ended_early(&mut self, error: &io::Error) -> Death {
        let how = self.how_it_ended(error).await;
        Death::new(
            host::FaultClass::Retry,
            format!("the host process ended while it started: {how}"),
        )
    }

    /// Reads what is there.
    pub(super) fn receive(&mut self) -> io::Result<()> {
        loop {
            match self.stream.try_read_buf(self.inbox.space()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what the socket takes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(written) => bytes::Buf::advance(&mut self.out, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A planned end, killed when it takes too long.
    pub(super) async fn dismiss(&mut self) {
        self.put(to_host::Frame::End(End {}));
        let out = std::mem::take(&mut self.out);
        let said = self.stream.write_all(&out).await;
        if said.is_err() || timeout(END, self.child.wait()).await.is_err() {
            self.kill();
        }
    }

    pub(super) fn kill(&mut self) {
        self.child.kill();
    }

    /// Appends a frame to what the next flush writes.
    pub(super) fn put(&mut self, frame: to_host::Frame) {
        put(&ToHost { frame: Some(frame) }, &mut self.out);
    }

    /// The socket broke: what does the process say?
    pub(super) async fn how_it_ended(&mut self, error: &io::Error) -> String {
        match timeout(END, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(_)) | Err(_) => error.to_string(),
        }
    }
}

/// A host's process. Its permit is given back when the process is reaped: one that is stuck in a
/// driver outlives even SIGKILL, and nobody waits for it.
struct Process(Option<(Child, OwnedSemaphorePermit)>);

impl Process {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.0 {
            Some((child, _)) => child.wait().await,
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn kill(&mut self) {
        if let Some((child, _)) = &mut self.0 {
            let _ = child.start_kill();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some((mut child, permit)) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                let _ = child.wait().await;
                drop(permit);
            });
        }
    }
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
                info!(token, host = generation, "module: {}", line.trim_end());
            } else if seen == LINES + 1 {
                info!(
                    token,
                    host = generation,
                    "the module prints more than {LINES} lines a second"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        proto::host::{Failed, FaultClass, Hello},
        wire::BUILD_ID,
    };

    #[tokio::test]
    async fn what_a_host_said_before_its_end_is_heard() {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut line = Line {
            generation: 1,
            stream: UnixStream::from_std(ours).unwrap(),
            inbox: Inbox::default(),
            out: BytesMut::new(),
            child: Process(Some((Command::new("true").spawn().unwrap(), permit))),
            board: Board::create(1).unwrap(),
            board_entries: 1,
        };
        let hello = from_host::Frame::Hello(Hello {
            build_id: BUILD_ID.into(),
        });
        let refused = from_host::Frame::Failed(Failed {
            fault: Some(host::Fault {
                class: FaultClass::Pin.into(),
                ..host::Fault::default()
            }),
        });
        let mut said = BytesMut::new();
        for frame in [&hello, &refused] {
            let frame = Some(frame.clone());
            put(&FromHost { frame }, &mut said);
        }
        theirs.write_all(&said).unwrap();
        drop(theirs);

        let limit = Duration::from_secs(10);
        assert_eq!(line.receive_within(limit).await.unwrap(), hello);
        assert_eq!(line.receive_within(limit).await.unwrap(), refused);
        let death = line.receive_within(limit).await.unwrap_err();
        assert_eq!(death.class, FaultClass::Retry);
        assert!(death.reason.contains("exit status: 0"), "{death:?}");
    }
}
