//! A model of one host process: it speaks the host's protocol as `token_host` does, and its library is a
//! model of a token that has faults.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep};

use super::{
    ledger::Ledger,
    model_token::{LoggedIn, ModelToken, mac},
    plan::StartFault,
    world::World,
};
use crate::{
    host_ipc::{BUILD_ID, InFlightTable, Inbox, write_frame},
    proto::host::{
        self, Failed, FaultClass, FromHost, Hello, LoginFailure, LoginMode, LoginVerdict, Pin,
        PinsRead, Ready, ToHost, TokenFound, from_host, to_host,
    },
    token::simulated::{ModelProcess, PipeEnd, RunningModel, mix},
};

/// SIGSEGV, as `wait` has it.
pub(super) const SEGMENTATION_FAULT: i32 = 11;
const KILLED: i32 = 9;
const OK: i32 = 0;

/// The host and what it has been told.
pub(super) struct ModelHost {
    pub(super) world: Arc<World>,
    pub(super) token: Arc<ModelToken>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) process: u64,
    pub(super) generation: u32,
    pub(super) in_flight: InFlightTable,
    pub(super) settings: host::Settings,
    pub(super) keys: BTreeMap<u64, HostKey>,
    pub(super) jobs: super::model_jobs::Jobs,
    pub(super) pipe: PipeEnd,
    pub(super) inbox: Inbox,
    pub(super) out: BytesMut,
    fault: Option<StartFault>,
    pins: Vec<String>,
}

/// A key that the front has defined.
pub(super) struct HostKey {
    pub(super) definition: host::KeyDefinition,
    pub(super) handle: Option<Handle>,
}

/// What a handle means now.
#[derive(Clone, Copy)]
pub(super) struct Handle {
    pub(super) secret: u64,
    /// Nothing has happened since its check value was made that could have changed its meaning.
    pub(super) proved: bool,
}

/// How a host comes to its end: what `wait` says.
pub(super) struct Exit(pub(super) i32);

impl ModelHost {
    pub(super) fn spawn(
        token: &Arc<ModelToken>,
        generation: u32,
        in_flight: InFlightTable,
        pipe: PipeEnd,
        fault: Option<StartFault>,
    ) -> ModelProcess {
        let (process, running) = ModelProcess::new();
        let number = token.ledger.started(&token.name, running.killed_flag());
        token.world.note(format_args!(
            "{} {generation} starts: {fault:?}",
            token.name
        ));
        let host = Self {
            world: Arc::clone(&token.world),
            token: Arc::clone(token),
            ledger: Arc::clone(&token.ledger),
            process: number,
            generation,
            in_flight,
            settings: host::Settings::default(),
            keys: BTreeMap::new(),
            jobs: super::model_jobs::Jobs::default(),
            pipe,
            inbox: Inbox::default(),
            out: BytesMut::new(),
            fault,
            pins: Vec::new(),
        };
        tokio::spawn(host.run(running));
        process
    }

    async fn run(mut self, process: RunningModel) {
        let status = tokio::select! {
            biased;
            () = process.killed() => KILLED,
            Exit(status) = self.live() => status,
        };
        self.note(format_args!("has come to its end: {status}"));
        self.ledger.stopped(self.process);
        if status == KILLED
            && !self.token.is_calm()
            && self.world.happens(self.token.plan.unkillable)
        {
            // Stuck in a driver: it does nothing more, and is not gone.
            self.world.pause(100, 5000).await;
            self.note(format_args!("is gone at last"));
        }
        self.ledger.ended(self.process);
        process.set_status(status);
    }

    async fn live(&mut self) -> Exit {
        let Err(exit) = self.start().await;
        exit
    }

    /// The handshake, and then the work; it ends only with the host.
    async fn start(&mut self) -> Result<std::convert::Infallible, Exit> {
        let to_host::Frame::Settings(settings) = self.next().await? else {
            return Err(self.confused("settings"));
        };
        self.settings = settings;
        match self.fault {
            Some(StartFault::Crash) => return Err(Exit(SEGMENTATION_FAULT)),
            Some(StartFault::Hang) => return std::future::pending().await,
            Some(StartFault::Slow) => self.world.pause(500, 2500).await,
            _ => self.world.pause(1, 30).await,
        }
        let hello = Hello {
            build_id: BUILD_ID.into(),
        };
        self.say(from_host::Frame::Hello(hello)).await?;
        match self.fault {
            Some(StartFault::Refused) => {
                return self
                    .fail(FaultClass::TokenAway, "CKR_GENERAL_ERROR", None)
                    .await;
            }
            Some(StartFault::Configuration) => {
                return self
                    .fail(FaultClass::Configuration, "no such module", None)
                    .await;
            }
            _ if !self.token.is_present() => {
                return self
                    .fail(FaultClass::TokenAway, "no such token", None)
                    .await;
            }
            _ => {}
        }
        let found = TokenFound {
            label: self.token.name.clone(),
            serial: self.token.name.clone(),
            pin_flags: Some(self.token.flags()),
            login_required: self.token.plan.pin,
            ..TokenFound::default()
        };
        self.say(from_host::Frame::TokenFound(found)).await?;
        self.log_in().await?;
        self.world.pause(1, 10).await;
        if self.fault == Some(StartFault::CrashBeforeReady) {
            return Err(Exit(SEGMENTATION_FAULT));
        }
        let ready = Ready {
            sessions: self.settings.sessions,
            two_calls: true,
            digest_bits: vec![256],
            ..Ready::default()
        };
        self.say(from_host::Frame::Ready(ready)).await?;
        self.note(format_args!("is ready"));
        self.serve().await
    }

    async fn log_in(&mut self) -> Result<(), Exit> {
        let mut frame = self.next().await?;
        if let to_host::Frame::ReadPins(read) = frame {
            // Argon2id takes a while.
            self.world.pause(5, 30).await;
            let pin = std::fs::read_to_string(&self.token.pin_file).unwrap();
            self.pins = vec![pin.trim().to_owned()];
            let pins = self.pins.iter().map(|pin| Pin {
                fingerprints: read
                    .salts
                    .iter()
                    .map(|salt| fingerprint(pin, salt))
                    .collect(),
                fault: String::new(),
            });
            let pins = pins.collect();
            self.say(from_host::Frame::PinsRead(PinsRead { pins }))
                .await?;
            frame = self.next().await?;
        }
        let log_in = match frame {
            to_host::Frame::LogIn(log_in) => log_in,
            // No login is made.
            to_host::Frame::End(_) => return Err(Exit(OK)),
            _ => return Err(self.confused("LogIn")),
        };
        if self.token.is_calm() {
            self.fault = None;
        }
        if self.settings.login() == LoginMode::Pin {
            let pin = self.pins[log_in.pin as usize].clone();
            let said = self.token.log_in(&pin, self.fault).await;
            match self.fault {
                Some(StartFault::CrashInLogin | StartFault::CrashAfterLogin) => {
                    return Err(Exit(SEGMENTATION_FAULT));
                }
                Some(StartFault::LoginHangs) => return std::future::pending().await,
                _ => {}
            }
            self.token.told(&pin, &said);
            if let LoggedIn::No(verdict) = said {
                let class = match verdict {
                    LoginVerdict::Refused => FaultClass::Pin,
                    LoginVerdict::NotJudged | LoginVerdict::Unclear | LoginVerdict::Unspecified => {
                        FaultClass::TokenAway
                    }
                };
                let failure = LoginFailure {
                    verdict: verdict.into(),
                    pin_flags: Some(self.token.flags()),
                };
                self.fail(class, "C_Login", Some(failure)).await?;
            }
        }
        self.say(from_host::Frame::LoggedIn(host::LoggedIn {}))
            .await
    }

    /// Says why it does not start, and ends.
    async fn fail<T>(
        &mut self,
        class: FaultClass,
        reason: &str,
        login: Option<LoginFailure>,
    ) -> Result<T, Exit> {
        let fault = Some(fault(class, reason));
        self.say(from_host::Frame::Failed(Failed {
            fault,
            login,
            no_session: false,
        }))
        .await?;
        self.world.pause(0, 20).await;
        Err(Exit(1))
    }

    /// Says why this generation is over, closes its sessions, and ends.
    pub(super) async fn end(&mut self, class: FaultClass, reason: &str) -> Exit {
        let fault = Some(fault(class, reason));
        self.note(format_args!("ends: {reason}"));
        self.ledger.stopped(self.process);
        let said = self
            .say(from_host::Frame::Ending(host::Ending {
                fault,
                sequence: 0,
            }))
            .await;
        if said.is_ok() {
            self.world.pause(0, 500).await;
        }
        Exit(OK)
    }

    /// The next frame from the front; its end is this host's.
    pub(super) async fn next(&mut self) -> Result<to_host::Frame, Exit> {
        loop {
            match self.inbox.take::<ToHost>() {
                Ok(Some(ToHost { frame: Some(frame) })) => return Ok(frame),
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return Err(self.confused("a frame")),
            }
            receive(&self.pipe, &mut self.inbox).await?;
        }
    }

    pub(super) async fn say(&mut self, frame: from_host::Frame) -> Result<(), Exit> {
        write_frame(&FromHost { frame: Some(frame) }, &mut self.out);
        self.flush().await
    }

    pub(super) async fn flush(&mut self) -> Result<(), Exit> {
        let out = self.out.split();
        self.pipe.write_all(&out).await.map_err(|_| Exit(OK))
    }

    pub(super) fn confused(&self, wanted: &str) -> Exit {
        self.world.violated(format_args!(
            "{} {}: the front did not say what it had to: {wanted}",
            self.token.name, self.generation
        ));
        Exit(1)
    }

    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.world.note(format_args!(
            "{} {} {what}",
            self.token.name, self.generation
        ));
    }
}

/// Waits until something has arrived. Cancelled, it has read nothing.
pub(super) async fn receive(pipe: &PipeEnd, inbox: &mut Inbox) -> Result<(), Exit> {
    let _ = pipe.readable().await;
    match pipe.try_read_buf(inbox.space()) {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => Err(Exit(OK)),
    }
}

pub(super) fn fault(class: FaultClass, reason: &str) -> host::Fault {
    host::Fault {
        class: class.into(),
        reason: reason.to_owned(),
        ..host::Fault::default()
    }
}

fn fingerprint(pin: &str, salt: &[u8]) -> Bytes {
    let mut state = 0;
    for byte in pin.bytes().chain(salt.iter().copied()) {
        state = mix(state ^ u64::from(byte));
    }
    mac(state, salt)
}

/// Waits until an instant; for ever if there is none.
pub(super) async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => {
            sleep(instant.saturating_duration_since(Instant::now())).await;
        }
        None => std::future::pending().await,
    }
}
