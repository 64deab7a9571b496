//! The loaded module, its token and its sessions: everything between C_Initialize and the first MAC.

use std::{path::PathBuf, thread, time::Duration};

use cryptoki::{
    context::{Function, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::ObjectHandle,
    session::{Session, SessionState, UserType},
    slot::Slot,
};
use cryptoki_sys::{CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS};
use secrecy::SecretString;

use super::{
    error::{Class, HostError, verdict_of_login},
    raw::{self, InfoCalls, MAX_MAC, TwoCalls},
    token_info::{TokenInfo, find_token},
};
use crate::{
    model::MacAlgorithm,
    proto::host::{LoginFailure, LoginMode, Settings, TokenFound},
};

/// How often, and after which pause, a token is asked again that says CKR_GENERAL_ERROR of itself.
const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// One initialised module and the one token of it that serves.
pub(super) struct Module {
    pkcs11: Pkcs11,
    info_calls: Option<InfoCalls>,
    path: PathBuf,
    slot: Slot,
    read_write: bool,
    login: LoginMode,
    login_required: bool,
    two_calls: Option<TwoCalls>,
    algorithms: Vec<MacAlgorithm>,
    #[cfg(feature = "drill-unbound-handles")]
    pin_file: String,
}

/// C_Login failed.
pub(super) struct LoginError {
    pub(super) error: HostError,
    /// What that says of the PIN, for the front.
    pub(super) failure: LoginFailure,
}

impl Module {
    /// Loads, initialises and finds the one token that matches.
    ///
    /// # Errors
    /// `Configuration` for what only an edit cures (no library, two tokens), else `Away`.
    pub(super) fn start(settings: &Settings) -> Result<(Self, TokenFound), HostError> {
        let path = PathBuf::from(&settings.module_path);
        let named = |error: HostError| error.about(&settings.module_path);
        let pkcs11 = Pkcs11::new(&path).map_err(|error| named(error.into()))?;
        raw::initialize(&pkcs11, &settings.init_reserved).map_err(|error| named(error.into()))?;

        let info_calls = InfoCalls::probe(&path);
        let (slot, info, mut warnings) = find_token(&pkcs11, info_calls.as_ref(), settings)?;
        if settings.slot_id.is_some()
            && settings.token_label.is_none()
            && settings.token_serial.is_none()
        {
            warnings.push(
                "the token is chosen by slot-id; slot ids move, name its label or serial".into(),
            );
        }
        let module = Self {
            pkcs11,
            info_calls,
            path,
            slot,
            read_write: settings.read_write,
            login: settings.login(),
            login_required: info.login_required(),
            two_calls: None,
            algorithms: Vec::new(),
            #[cfg(feature = "drill-unbound-handles")]
            pin_file: settings.pin_files.first().cloned().unwrap_or_default(),
        };
        Ok((module, info.found(settings, warnings)))
    }

    /// Calls C_Login once, if the settings want a login. The session must outlive every other one:
    /// closing the last one logs out.
    ///
    /// # Errors
    /// What C_Login returned, with what it says of the PIN and what the token says of itself now.
    pub(super) fn log_in(
        &self,
        session: &Session,
        pin: Option<&SecretString>,
    ) -> Result<(), LoginError> {
        let pin = match self.login {
            LoginMode::None | LoginMode::Unspecified => return Ok(()),
            LoginMode::ProtectedPath => None,
            LoginMode::Pin => pin,
        };
        match session.login(UserType::User, pin) {
            Ok(()) => Ok(()),
            // The login state belongs to the application, not to the session (PKCS#11 v3.1 §5.6):
            // somebody in this process was first, and that is success.
            Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, Function::Login)) => Ok(()),
            Err(error) => {
                let info = TokenInfo::of(&self.pkcs11, self.info_calls.as_ref(), self.slot);
                Err(LoginError {
                    failure: LoginFailure {
                        verdict: verdict_of_login(&error).into(),
                        pin_flags: info.ok().map(|info| info.pin_flags()),
                    },
                    error: error.into(),
                })
            }
        }
    }

    /// Looks at what the token can do, on a session that is logged in.
    ///
    /// # Errors
    /// What C_GetMechanismList returned.
    pub(super) fn examine(&mut self, login_session: &Session) -> Result<(), HostError> {
        self.two_calls = TwoCalls::probe(&self.path, login_session, self.slot);
        let listed = self.pkcs11.get_mechanism_list(self.slot)?;
        self.algorithms = MacAlgorithm::ALL
            .into_iter()
            .filter(|algorithm| listed.contains(&mechanism(*algorithm).mechanism_type()))
            .collect();
        Ok(())
    }

    /// What naive clients do when their sessions are gone, and what a drill must catch.
    #[cfg(feature = "drill-unbound-handles")]
    pub(super) fn log_in_again(&self) -> Result<Session, HostError> {
        let session = self.open_session()?;
        let pin = super::pin::read_pin(self.pin_file.as_ref())?;
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, Function::Login)) => {
                Ok(session)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One more session.
    ///
    /// # Errors
    /// `SessionLimit` when the token has no more of them.
    pub(super) fn open_session(&self) -> Result<Session, HostError> {
        let session = if self.read_write {
            self.pkcs11.open_rw_session(self.slot)
        } else {
            self.pkcs11.open_ro_session(self.slot)
        };
        Ok(session?)
    }

    /// A session that may make and destroy objects in the token, for one job.
    ///
    /// # Errors
    /// `Unsupported` for a token that is read-only.
    pub(super) fn open_rw_session(&self) -> Result<Session, HostError> {
        Ok(self.pkcs11.open_rw_session(self.slot)?)
    }

    /// Opens so many sessions, or as many as the token allows less one for others; at least one.
    ///
    /// # Errors
    /// The token gives none besides the login session.
    pub(super) fn open_sessions(&self, wanted: u32) -> Result<Vec<Session>, HostError> {
        let mut sessions = Vec::new();
        for _ in 0..wanted {
            match self.open_session() {
                Ok(session) => sessions.push(session),
                Err(error) if error.class == Class::SessionLimit && !sessions.is_empty() => {
                    sessions.truncate((sessions.len() - 1).max(1));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(sessions)
    }

    /// Makes a MAC: exactly C_SignInit and C_Sign where the module lets us.
    ///
    /// # Errors
    /// What the module returned; `Bug` if it says CKR_OK and the length is not the digest's.
    pub(super) fn sign(
        &self,
        session: &Session,
        algorithm: MacAlgorithm,
        key: ObjectHandle,
        message: &[u8],
        mac: &mut [u8; MAX_MAC],
    ) -> Result<usize, HostError> {
        let mechanism = mechanism(algorithm);
        let length = match &self.two_calls {
            Some(calls) => calls.sign(
                session,
                mechanism.mechanism_type().into(),
                key,
                message,
                mac,
            )?,
            None => {
                let made = session.sign(&mechanism, key, message)?;
                if let Some(room) = mac.get_mut(..made.len()) {
                    room.copy_from_slice(&made);
                }
                made.len()
            }
        };
        // Security: a MAC of another length is no MAC; NSS truncates with CKR_OK.
        if length != algorithm.mac_len() {
            return Err(HostError::new(
                Class::Bug,
                format!("C_Sign returned {length} bytes for {algorithm}"),
            ));
        }
        Ok(length)
    }

    /// Whether the token is there and the user is logged in: what must hold before "no such object"
    /// means that the object is gone.
    ///
    /// # Errors
    /// Why it is not so.
    pub(super) fn is_well(&self, session: &Session) -> Result<(), HostError> {
        self.token_answers()
            .map_err(|error| HostError::from(error).judged(Class::Away))?;
        if self.must_be_logged_in() && !self.is_logged_in(session)? {
            return Err(HostError::new(
                Class::Generation,
                "the user is no longer logged in",
            ));
        }
        Ok(())
    }

    fn must_be_logged_in(&self) -> bool {
        match self.login {
            LoginMode::None | LoginMode::Unspecified => false,
            LoginMode::Pin | LoginMode::ProtectedPath => self.login_required,
        }
    }

    fn is_logged_in(&self, session: &Session) -> Result<bool, HostError> {
        if let Some(calls) = &self.info_calls {
            let state = calls.session_state(session)?;
            return Ok(matches!(
                state,
                CKS_RO_USER_FUNCTIONS | CKS_RW_USER_FUNCTIONS
            ));
        }
        let state = session.get_session_info()?.session_state();
        Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
    }

    fn token_answers(&self) -> Result<(), Error> {
        let mut looks = LOOKS;
        loop {
            looks -= 1;
            match TokenInfo::of(&self.pkcs11, self.info_calls.as_ref(), self.slot) {
                Ok(_) => return Ok(()),
                // SoftHSM2 says so while another process logs in, which writes the token's file.
                Err(Error::Pkcs11(RvError::GeneralError, _)) if looks > 0 => {
                    thread::sleep(LOOK_AGAIN);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the hot path makes two calls (C_SignInit, C_Sign) and not three.
    pub(super) fn has_two_calls(&self) -> bool {
        self.two_calls.is_some()
    }

    /// The algorithms whose mechanism the token lists.
    pub(super) fn algorithms(&self) -> &[MacAlgorithm] {
        &self.algorithms
    }

    /// The library's own words about itself, with its path.
    pub(super) fn describe(&self) -> String {
        let path = self.path.display();
        match self.pkcs11.get_library_info() {
            Ok(info) => format!(
                "{} {} ({path})",
                info.library_description().trim(),
                info.library_version(),
            ),
            Err(_) => path.to_string(),
        }
    }

    /// C_Finalize. All sessions are closed by now.
    pub(super) fn finalize(self) {
        let _ = self.pkcs11.finalize();
    }
}

/// The mechanism of an algorithm, without a parameter.
pub(super) fn mechanism(algorithm: MacAlgorithm) -> Mechanism<'static> {
    match algorithm {
        MacAlgorithm::HmacSha224 => Mechanism::Sha224Hmac,
        MacAlgorithm::HmacSha256 => Mechanism::Sha256Hmac,
        MacAlgorithm::HmacSha384 => Mechanism::Sha384Hmac,
        MacAlgorithm::HmacSha512 => Mechanism::Sha512Hmac,
    }
}
