//! The loaded module, its token and its sessions: everything between C_Initialize and the first MAC.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use cryptoki::{
    context::{Function, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::ObjectHandle,
    session::{Session, SessionState, UserType},
    slot::{Limit, Slot, TokenInfo},
};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{
    faults::{Class, Trouble},
    raw::{self, MAX_MAC, TwoCalls},
};
use crate::{
    model::MacAlgorithm,
    proto::host::{Settings, TokenFound},
};

/// Sessions that are left to other programs when the token has a limit.
const RESERVE: u64 = 1;

/// The longest PIN file, in bytes.
const MAX_PIN: usize = 1024;

/// How often, and after which pause, a token is asked again that says CKR_GENERAL_ERROR of itself.
const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// One initialised module and the one token of it that serves.
pub(super) struct Module {
    pkcs11: Pkcs11,
    path: PathBuf,
    slot: Slot,
    read_write: bool,
    most_sessions: Option<u64>,
    login_required: bool,
    two_calls: Option<TwoCalls>,
    algorithms: Vec<MacAlgorithm>,
    #[cfg(feature = "drill-unbound-handles")]
    pin_file: String,
}

impl Module {
    /// Loads, initialises and finds the one token that matches.
    ///
    /// # Errors
    /// `Configuration` for what only an edit cures (no library, two tokens), else `Away`.
    pub(super) fn start(settings: &Settings) -> Result<(Self, TokenFound), Trouble> {
        let path = PathBuf::from(&settings.module_path);
        let named = |trouble: Trouble| trouble.about(&settings.module_path);
        let pkcs11 = Pkcs11::new(&path).map_err(|error| named(error.into()))?;
        raw::initialize(&pkcs11, &settings.init_reserved).map_err(|error| named(error.into()))?;

        let (slot, info, mut warnings) = find(&pkcs11, settings)?;
        if settings.slot_id.is_some()
            && settings.token_label.is_none()
            && settings.token_serial.is_none()
        {
            warnings.push(
                "the token is chosen by slot-id; slot ids move, name its label or serial".into(),
            );
        }
        let found = TokenFound {
            label: text(info.as_ref().map(TokenInfo::label)),
            manufacturer: text(info.as_ref().map(TokenInfo::manufacturer_id)),
            model: text(info.as_ref().map(TokenInfo::model)),
            serial: text(info.as_ref().map(TokenInfo::serial_number)),
            user_pin_final_try: info.as_ref().is_some_and(TokenInfo::user_pin_final_try),
            user_pin_locked: info.as_ref().is_some_and(TokenInfo::user_pin_locked),
            login_required: info.as_ref().is_none_or(TokenInfo::login_required),
            warnings,
        };
        let module = Self {
            pkcs11,
            path,
            slot,
            read_write: settings.read_write,
            most_sessions: info
                .as_ref()
                .and_then(|info| match info.max_session_count() {
                    Limit::Max(most) => Some(most),
                    Limit::Unavailable | Limit::Infinite => None,
                }),
            login_required: found.login_required,
            two_calls: None,
            algorithms: Vec::new(),
            #[cfg(feature = "drill-unbound-handles")]
            pin_file: settings.pin_file.clone(),
        };
        Ok((module, found))
    }

    /// Opens the keeper session, logs in once on it, and looks at what the token can do. The
    /// keeper must outlive every other session: closing the last one logs out.
    ///
    /// # Errors
    /// `Pin` if the token refuses the PIN: nobody may try again by himself.
    pub(super) fn log_in(&mut self, pin_file: &str) -> Result<Session, Trouble> {
        let keeper = self.open_session()?;
        if !pin_file.is_empty() {
            let pin = read_pin(Path::new(pin_file))?;
            match keeper.login(UserType::User, Some(&pin)) {
                Ok(()) => {}
                // The login state belongs to the application, not to the session (PKCS#11 v3.1
                // §5.6): somebody in this process was first, and that is success.
                Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, Function::Login)) => {}
                Err(error) => return Err(error.into()),
            }
        } else if self.login_required {
            return Err(Trouble::new(
                Class::Configuration,
                "the token wants a PIN (CKF_LOGIN_REQUIRED): set pin_file",
            ));
        }
        self.two_calls = TwoCalls::probe(&self.path, &keeper, self.slot);
        let listed = self.pkcs11.get_mechanism_list(self.slot)?;
        self.algorithms = MacAlgorithm::ALL
            .into_iter()
            .filter(|algorithm| listed.contains(&mechanism(*algorithm).mechanism_type()))
            .collect();
        Ok(keeper)
    }

    /// What naive clients do when their sessions are gone, and what a drill must catch.
    #[cfg(feature = "drill-unbound-handles")]
    pub(super) fn log_in_again(&self) -> Result<Session, Trouble> {
        let session = self.open_session()?;
        let pin = read_pin(Path::new(&self.pin_file))?;
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
    pub(super) fn open_session(&self) -> Result<Session, Trouble> {
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
    pub(super) fn open_rw_session(&self) -> Result<Session, Trouble> {
        Ok(self.pkcs11.open_rw_session(self.slot)?)
    }

    /// Opens as many sessions as the setting and the token allow; at least one.
    ///
    /// # Errors
    /// The token gives none besides the keeper.
    pub(super) fn open_sessions(&self, wanted: u32) -> Result<Vec<Session>, Trouble> {
        let wanted = u64::from(wanted);
        let allowed = match self.most_sessions {
            Some(most) => most.saturating_sub(1 + RESERVE).clamp(1, wanted),
            None => wanted,
        };
        let mut sessions = Vec::new();
        for _ in 0..allowed {
            match self.open_session() {
                Ok(session) => sessions.push(session),
                Err(trouble) if trouble.class == Class::SessionLimit && !sessions.is_empty() => {
                    break;
                }
                Err(trouble) => return Err(trouble),
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
    ) -> Result<usize, Trouble> {
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
            return Err(Trouble::new(
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
    pub(super) fn is_well(&self, session: &Session) -> Result<(), Trouble> {
        self.token_answers()
            .map_err(|error| Trouble::from(error).judged(Class::Away))?;
        let state = session.get_session_info()?.session_state();
        let logged_in = matches!(state, SessionState::RoUser | SessionState::RwUser);
        if self.login_required && !logged_in {
            return Err(Trouble::new(
                Class::Generation,
                "the user is no longer logged in",
            ));
        }
        Ok(())
    }

    fn token_answers(&self) -> Result<(), Error> {
        let mut looks = LOOKS;
        loop {
            looks -= 1;
            match self.pkcs11.get_token_info(self.slot) {
                // A token info that cannot be parsed (openCryptoki's clock) is an answer.
                Ok(_) | Err(Error::ParseInt(_) | Error::Utf8(_) | Error::TryFromInt(_)) => {
                    return Ok(());
                }
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

fn find(
    pkcs11: &Pkcs11,
    settings: &Settings,
) -> Result<(Slot, Option<TokenInfo>, Vec<String>), Trouble> {
    let mut warnings = Vec::new();
    let mut matching: Vec<(Slot, Option<TokenInfo>)> = Vec::new();
    let mut seen = Vec::new();
    for slot in pkcs11.get_slots_with_token()? {
        if settings.slot_id.is_some_and(|id| id != slot.id()) {
            continue;
        }
        match pkcs11.get_token_info(slot) {
            Ok(info) => {
                if info.token_initialized() {
                    seen.push(format!("{:?}", info.label()));
                }
                if matches(&info, settings) {
                    matching.push((slot, Some(info)));
                }
            }
            // A bare slot id works even where the token info cannot be read (openCryptoki).
            Err(Error::ParseInt(_) | Error::Utf8(_) | Error::TryFromInt(_))
                if settings.slot_id.is_some() =>
            {
                matching.push((slot, None));
            }
            Err(error) => {
                warnings.push(format!("slot {} is left out: {error}", slot.id()));
            }
        }
    }
    match matching.len() {
        1 => {
            let (slot, info) = matching.swap_remove(0);
            Ok((slot, info, warnings))
        }
        0 => {
            let seen = if seen.is_empty() {
                "none".to_owned()
            } else {
                seen.join(", ")
            };
            let left_out = warnings.join("; ");
            Err(Trouble::new(
                Class::Away,
                format!("no token matches the uri; the module shows {seen}. {left_out}").trim(),
            ))
        }
        _ => {
            let names: Vec<String> = matching
                .iter()
                .map(|(slot, info)| {
                    let serial = info
                        .as_ref()
                        .map_or("?", |info| info.serial_number().trim());
                    format!("slot {} with serial {serial}", slot.id())
                })
                .collect();
            Err(Trouble::new(
                Class::Configuration,
                format!(
                    "several tokens match the uri: {}; add ;serial=… to it",
                    names.join(", ")
                ),
            ))
        }
    }
}

fn matches(info: &TokenInfo, settings: &Settings) -> bool {
    // cryptoki trims blanks; some modules pad with NUL.
    let same = |wanted: &Option<String>, is: &str| {
        wanted
            .as_ref()
            .is_none_or(|wanted| wanted == is.trim_end_matches(['\0', ' ']))
    };
    info.token_initialized()
        && same(&settings.token_label, info.label())
        && same(&settings.token_serial, info.serial_number())
        && same(&settings.token_manufacturer, info.manufacturer_id())
        && same(&settings.token_model, info.model())
}

/// Reads the PIN, less one trailing newline, through a buffer that is wiped.
fn read_pin(path: &Path) -> Result<SecretString, Trouble> {
    // Security: no copy of the PIN outlives this function but the one that wipes itself; a buffer
    // that never grows leaves none behind.
    let fault =
        |what: &str| Trouble::new(Class::Configuration, format!("{}: {what}", path.display()));
    let mut buffer = Zeroizing::new([0_u8; MAX_PIN + 1]);
    let mut file = File::open(path).map_err(|error| fault(&error.to_string()))?;
    let mut length = 0;
    loop {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) => return Err(fault(&error.to_string())),
        }
    }
    if length > MAX_PIN {
        return Err(fault("the PIN file is longer than 1,024 bytes"));
    }
    let pin = str::from_utf8(&buffer[..length]).map_err(|_| fault("the PIN is not UTF-8"))?;
    let pin = pin.strip_suffix('\n').unwrap_or(pin);
    let pin = pin.strip_suffix('\r').unwrap_or(pin);
    if pin.is_empty() {
        return Err(fault("the PIN file is empty"));
    }
    Ok(SecretString::from(pin))
}

fn text(words: Option<&str>) -> String {
    words
        .unwrap_or_default()
        .trim_end_matches(['\0', ' '])
        .to_owned()
}
