//! The bare token's rate, in this process: what every figure of the bridge is compared with.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cryptoki::session::Session;

use super::{
    HostError, failed,
    keys::{Keys, WorkingCopies},
    module::Module,
    pin::Pins,
    raw::MAX_MAC,
};
use crate::proto::host::{Failed, KeyDefinition, PinsRead, Settings, TokenFound};

/// What `hsmac bench token` found.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// MACs made.
    pub macs: u64,
    /// In this time.
    pub took: Duration,
    /// Whether the loop made two PKCS#11 calls a MAC, or three.
    pub two_calls: bool,
}

/// A token that is to be measured. Who may log in to it is decided by whoever has it.
pub struct Bench {
    settings: Settings,
    module: Module,
    found: TokenFound,
    session: Session,
    pins: Pins,
}

impl Bench {
    /// Loads the module, finds the token and opens the one session that is used.
    ///
    /// # Errors
    /// The fault in words, with the C function and its return code.
    pub fn start(settings: Settings) -> Result<Self, String> {
        let words = |error: HostError| error.to_string();
        let (module, found) = Module::start(&settings).map_err(words)?;
        let session = module.open_session().map_err(words)?;
        Ok(Self {
            settings,
            module,
            found,
            session,
            pins: Pins::default(),
        })
    }

    /// What the token says of itself.
    pub fn found(&self) -> &TokenFound {
        &self.found
    }

    /// Reads the PIN files and fingerprints the PINs.
    pub fn read_pins(&mut self, salts: &[Bytes]) -> PinsRead {
        let (pins, told) = Pins::read(&self.settings, salts);
        self.pins = pins;
        told
    }

    /// Calls C_Login once, with one of the PINs that were read.
    ///
    /// # Errors
    /// What C_Login said, and what that says of the PIN.
    pub fn log_in(&mut self, pin: u32) -> Result<(), Failed> {
        let pins = std::mem::take(&mut self.pins);
        let logged_in = self.module.log_in(&self.session, pins.pin(pin));
        logged_in.map_err(|login| Failed {
            login: Some(login.failure),
            ..failed(login.error)
        })
    }

    /// Makes MACs with one key on one session for so long: C_SignInit and C_Sign, nothing else.
    ///
    /// # Errors
    /// The fault in words, with the C function and its return code.
    pub fn measure(
        mut self,
        key: KeyDefinition,
        message: &[u8],
        duration: Duration,
    ) -> Result<Measurement, String> {
        let words = |error: HostError| error.to_string();
        let (module, session) = (&mut self.module, &self.session);
        module.examine(session).map_err(words)?;
        let copies = if self.settings.working_copies {
            WorkingCopies::Reproved(Duration::from_secs(3600))
        } else {
            WorkingCopies::None
        };
        let keys = Keys::new(copies);
        let reference = key.reference;
        keys.define(key).map_err(words)?;
        let key = keys.key(reference).expect("the key was defined just now");
        let found = keys.find(module, session, &key).map_err(words)?;
        let open_key = keys.open(module, session, &key, found).map_err(words)?;
        let mut mac = [0; MAX_MAC];
        let mut macs = 0;
        let began = Instant::now();
        while began.elapsed() < duration {
            for _ in 0..64 {
                keys.mac(module, session, &key, &open_key, message, &mut mac)
                    .map_err(words)?;
            }
            macs += 64;
        }
        let took = began.elapsed();
        let two_calls = module.has_two_calls();
        drop(self.session);
        self.module.finalize();
        Ok(Measurement {
            macs,
            took,
            two_calls,
        })
    }
}
