//! One host process: its socket, its in-flight table, how it starts and how it comes to its end.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    host_ipc::{InFlightTable, Inbox, write_frame},
    proto::host::{self, End, FromHost, ToHost, from_host, to_host},
    token::{
        host::{
            child::{self, ChildProcess, END},
            stream::HostStream,
        },
        key::TokenKey,
        metrics::HostEnd,
        settings::{HostEnvironment, Settings},
    },
};

/// The socket, the process and the in-flight table of one host.
pub(super) struct HostProcess {
    pub(super) generation: u32,
    pub(super) stream: HostStream,
    pub(super) inbox: Inbox,
    pub(super) out: BytesMut,
    child: ChildProcess,
    pub(super) in_flight: InFlightTable,
    pub(super) in_flight_entries: u32,
}

/// Why a host came to its end.
#[derive(Debug)]
pub(super) struct HostExit {
    /// For the log.
    pub(super) reason: String,
    pub(super) class: host::FaultClass,
    /// Whether it had made a proven MAC or another good answer.
    pub(super) proven: bool,
    /// Whether the library may have fallen over a job that it held: it crashed, hung or broke the
    /// standard. A host that says why it ends had no such accident.
    pub(super) accident: bool,
    /// It was the host's own decision: it is closing its sessions and ends by itself.
    pub(super) says_why: bool,
    /// It was a call that did not return.
    pub(super) stuck_call: Option<StuckCall>,
    /// The job after which the token answered nothing, by its sequence number: it may be why.
    pub(super) charged: Option<u64>,
    /// The token had no session left for it.
    pub(super) no_session: bool,
}

/// The call that hung: the successor must show that it does not.
#[derive(Clone, Debug)]
pub(super) struct StuckCall {
    /// The key of the call, if it had one.
    pub(super) key: Option<Arc<TokenKey>>,
}

impl HostExit {
    pub(super) fn new(class: host::FaultClass, reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            class,
            proven: false,
            accident: false,
            says_why: false,
            stuck_call: None,
            charged: None,
            no_session: false,
        }
    }

    pub(super) fn accident(class: host::FaultClass, reason: impl Into<String>) -> Self {
        Self {
            accident: true,
            ..Self::new(class, reason)
        }
    }

    /// A start that came to nothing.
    pub(super) fn of_start(failed: host::Failed) -> Self {
        Self {
            no_session: failed.no_session,
            ..Self::of(failed.fault)
        }
    }

    /// How it is counted.
    pub(super) fn counted_as(&self) -> HostEnd {
        if self.class == host::FaultClass::Unspecified {
            HostEnd::Planned
        } else if self.stuck_call.is_some() {
            HostEnd::Hang
        } else if self.class == host::FaultClass::Bug {
            HostEnd::Protocol
        } else if self.accident {
            HostEnd::Crash
        } else {
            HostEnd::Lost
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

impl HostProcess {
    pub(super) fn open(
        settings: &Settings,
        environment: &HostEnvironment,
        generation: u32,
        process: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        let in_flight_entries = settings.sessions + 1;
        let in_flight = InFlightTable::create(in_flight_entries)?;
        let (stream, running) = child::start(settings, &environment.host, generation, &in_flight)?;
        Ok(Self {
            generation,
            stream,
            inbox: Inbox::default(),
            out: BytesMut::new(),
            child: ChildProcess::new(running, process),
            in_flight,
            in_flight_entries,
        })
    }

    /// Says something and waits for the answer.
    pub(super) async fn within(
        &mut self,
        limit: Duration,
        frame: to_host::Frame,
    ) -> Result<from_host::Frame, HostExit> {
        self.queue_frame(frame);
        let out = std::mem::take(&mut self.out);
        if let Err(error) = self.stream.write_all(&out).await {
            return Err(HostExit::new(host::FaultClass::Retry, error.to_string()));
        }
        self.receive_within(limit).await
    }

    pub(super) async fn receive_within(
        &mut self,
        limit: Duration,
    ) -> Result<from_host::Frame, HostExit> {
        let until = Instant::now() + limit;
        let mut lost = None;
        loop {
            match self.inbox.take::<FromHost>() {
                Ok(Some(FromHost { frame: Some(frame) })) => {
                    self.child.ends_itself = matches!(frame, from_host::Frame::Failed(_));
                    return Ok(frame);
                }
                Ok(Some(FromHost { frame: None })) => {
                    return Err(HostExit::new(host::FaultClass::Bug, "an empty frame"));
                }
                Ok(None) => {}
                Err(fault) => return Err(HostExit::new(host::FaultClass::Bug, fault.to_string())),
            }
            // Security: the last word of a host comes before its end, even if both arrive together:
            // a refused PIN that is not heard would be tried again.
            if let Some(error) = lost {
                return Err(self.ended_early(&error).await);
            }
            match timeout_at(until, self.stream.readable()).await {
                Err(_) => {
                    self.kill();
                    return Err(HostExit::new(
                        host::FaultClass::TokenAway,
                        format!("the module did not start within {limit:?} (start_timeout)"),
                    ));
                }
                Ok(readable) => lost = readable.and_then(|()| self.receive()).err(),
            }
        }
    }

    async fn ended_early(&mut self, error: &io::Error) -> HostExit {
        let how = self.how_it_ended(error).await;
        HostExit::new(
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
    pub(super) async fn end_gracefully(&mut self) {
        self.queue_frame(to_host::Frame::End(End {}));
        let out = std::mem::take(&mut self.out);
        let said = self.stream.write_all(&out).await;
        if said.is_err() || timeout(END, self.child.wait()).await.is_err() {
            self.kill();
        }
    }

    /// Lets a host that ends by its own decision do so, for 2 s; nobody waits for it.
    pub(super) fn reap_in_background(mut self) {
        tokio::spawn(async move {
            if timeout(END, self.child.wait()).await.is_err() {
                self.kill();
            }
        });
    }

    /// Ends the host at once, and what its module may have started beside it.
    pub(super) fn kill(&mut self) {
        self.child.kill();
    }

    /// Appends a frame to what the next flush writes.
    pub(super) fn queue_frame(&mut self, frame: to_host::Frame) {
        write_frame(&ToHost { frame: Some(frame) }, &mut self.out);
    }

    /// The socket broke: what does the process say?
    pub(super) async fn how_it_ended(&mut self, error: &io::Error) -> String {
        match timeout(END, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(_)) | Err(_) => error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::net::UnixStream as StdUnixStream};

    use tokio::{net::UnixStream, process::Command, sync::Semaphore};

    use super::*;
    use crate::{
        host_ipc::BUILD_ID,
        proto::host::{Failed, FaultClass, Hello},
        token::host::child::Running,
    };

    #[tokio::test]
    async fn what_a_host_said_before_its_end_is_heard() {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut process = HostProcess {
            generation: 1,
            stream: HostStream::Socket(UnixStream::from_std(ours).unwrap()),
            inbox: Inbox::default(),
            out: BytesMut::new(),
            child: ChildProcess::new(
                Running::Process(Command::new("true").spawn().unwrap()),
                permit,
            ),
            in_flight: InFlightTable::create(1).unwrap(),
            in_flight_entries: 1,
        };
        let hello = from_host::Frame::Hello(Hello {
            build_id: BUILD_ID.into(),
        });
        let refused = from_host::Frame::Failed(Failed {
            fault: Some(host::Fault {
                class: FaultClass::Pin.into(),
                ..host::Fault::default()
            }),
            ..Failed::default()
        });
        let mut said = BytesMut::new();
        for frame in [&hello, &refused] {
            let frame = Some(frame.clone());
            write_frame(&FromHost { frame }, &mut said);
        }
        theirs.write_all(&said).unwrap();
        drop(theirs);

        let limit = Duration::from_secs(10);
        assert_eq!(process.receive_within(limit).await.unwrap(), hello);
        assert_eq!(process.receive_within(limit).await.unwrap(), refused);
        let exit = process.receive_within(limit).await.unwrap_err();
        assert_eq!(exit.class, FaultClass::Retry);
        assert!(exit.reason.contains("exit status: 0"), "{exit:?}");
    }
}
