//! The start of a host: its process, its handshake, and its login.

use std::io;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    host_ipc::BUILD_ID,
    proto::host::{self, LogIn, LoginFailure, PinsRead, ReadPins, TokenFound, from_host, to_host},
    token::{
        host::{
            process::{HostExit, HostProcess},
            session::HostSession,
        },
        settings::{HostEnvironment, Settings},
    },
};

/// A host that has found the token and waits to be let in.
pub(super) struct UnauthenticatedHost {
    process: HostProcess,
    /// What it found.
    pub(super) found: TokenFound,
}

/// Starts a host and brings it to the point where it would log in.
pub(super) async fn start(
    settings: &Settings,
    environment: &HostEnvironment,
    generation: u32,
    process: OwnedSemaphorePermit,
) -> Result<UnauthenticatedHost, HostExit> {
    let begun = |error: io::Error| {
        HostExit::new(
            host::FaultClass::TokenAway,
            format!("a host cannot be started: {error}"),
        )
    };
    let mut process =
        HostProcess::open(settings, environment, generation, process).map_err(begun)?;
    let begin = to_host::Frame::Settings(settings.for_host(generation, &environment.state_dir));
    let hello = process.within(settings.start_timeout, begin).await?;
    let same = |hello: &host::Hello| hello.build_id == BUILD_ID;
    if !matches!(&hello, from_host::Frame::Hello(hello) if same(hello)) {
        return Err(HostExit::new(
            host::FaultClass::Configuration,
            "the hsmac binary was replaced while hsmac runs: restart hsmac",
        ));
    }
    let heard = process.receive_within(settings.start_timeout).await?;
    if let from_host::Frame::TokenFound(found) = heard {
        Ok(UnauthenticatedHost { process, found })
    } else {
        Err(unexpected(heard, "what it found"))
    }
}

/// A login that did not succeed.
pub(super) struct FailedLogin {
    pub(super) exit: HostExit,
    /// What C_Login said of the PIN; `None`: the host ended, or was ended, before it could say so.
    pub(super) failure: Option<LoginFailure>,
    /// Whether C_Login may have been called.
    pub(super) tried: bool,
}

impl UnauthenticatedHost {
    pub(super) fn generation(&self) -> u32 {
        self.process.generation
    }

    /// Has the PIN files read and fingerprinted.
    pub(super) async fn read_pins(
        &mut self,
        settings: &Settings,
        salts: Vec<Bytes>,
    ) -> Result<PinsRead, HostExit> {
        let read_pins = to_host::Frame::ReadPins(ReadPins { salts });
        let heard = self.process.within(settings.start_timeout, read_pins).await;
        let heard = heard?;
        if let from_host::Frame::PinsRead(read) = heard {
            Ok(read)
        } else {
            Err(unexpected(heard, "what the PIN files hold"))
        }
    }

    /// Lets the host log in, once, and open so many sessions for MACs.
    pub(super) async fn log_in(
        &mut self,
        settings: &Settings,
        pin: u32,
        sessions: u32,
    ) -> Result<(), FailedLogin> {
        let log_in = to_host::Frame::LogIn(LogIn { pin, sessions });
        let heard = self.process.within(settings.start_timeout, log_in).await;
        let failed = |exit, failure, tried| FailedLogin {
            exit,
            failure,
            tried,
        };
        match heard {
            Ok(from_host::Frame::LoggedIn(_)) => Ok(()),
            // The host says of itself whether it came as far as C_Login.
            Ok(from_host::Frame::Failed(said)) => {
                let (login, tried) = (said.login, said.login.is_some());
                Err(failed(HostExit::of_start(said), login, tried))
            }
            Ok(other) => Err(failed(unexpected(other, "that it logged in"), None, true)),
            Err(exit) => Err(failed(exit, None, true)),
        }
    }

    /// Waits until the host that has logged in can serve.
    pub(super) async fn ready(mut self, settings: &Settings) -> Result<HostSession, HostExit> {
        let heard = self.process.receive_within(settings.start_timeout).await;
        let heard = heard?;
        if let from_host::Frame::Ready(ready) = heard {
            Ok(HostSession::new(self.process, ready, self.found))
        } else {
            Err(unexpected(heard, "that it is ready"))
        }
    }

    /// Ends the host without a login.
    pub(super) async fn end_gracefully(mut self) {
        self.process.end_gracefully().await;
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else a host says at its start is one fault"
)]
fn unexpected(frame: from_host::Frame, wanted: &str) -> HostExit {
    match frame {
        from_host::Frame::Failed(failed) => HostExit::of_start(failed),
        _ => HostExit::new(
            host::FaultClass::Bug,
            format!("the host did not say {wanted}"),
        ),
    }
}
