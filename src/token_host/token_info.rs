//! What the token says of itself, and the search for the one that the settings mean.
//!
//! Token info is read field by field: a field that makes no sense (openCryptoki's clock) is left out,
//! and the rest counts.

use cryptoki::{
    context::Pkcs11,
    error::Error,
    slot::{Limit, Slot},
};
use cryptoki_sys::{
    CK_FLAGS, CK_TOKEN_INFO, CKF_LOGIN_REQUIRED, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW,
    CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED,
};

use super::{
    error::{Class, HostError},
    raw::InfoCalls,
};
use crate::proto::host::{PinFlags, Settings, TokenFound};

/// CK_TOKEN_INFO, as far as it is used here.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenInfo {
    label: String,
    manufacturer: String,
    model: String,
    serial: String,
    flags: CK_FLAGS,
    /// The most sessions that the token allows, and of them the most that are read-write; `None`: it does
    /// not say, or has no limit.
    most_sessions: Option<u64>,
    most_rw_sessions: Option<u64>,
}

impl TokenInfo {
    /// Asks a slot's token.
    ///
    /// # Errors
    /// What C_GetTokenInfo returned.
    pub(super) fn of(
        module: &Pkcs11,
        calls: Option<&InfoCalls>,
        slot: Slot,
    ) -> Result<Self, Error> {
        if let Some(calls) = calls {
            return calls.token_info(slot).map(|info| Self::from(&info));
        }
        // A module whose functions cannot be called directly (p11-kit's client).
        match module.get_token_info(slot) {
            Ok(info) => Ok(Self::from(info)),
            // An answer, even though the wrapper cannot make sense of one of its fields.
            Err(Error::ParseInt(_) | Error::Utf8(_) | Error::TryFromInt(_)) => Ok(Self {
                flags: CKF_TOKEN_INITIALIZED | CKF_LOGIN_REQUIRED,
                ..Self::default()
            }),
            Err(error) => Err(error),
        }
    }

    fn has(&self, flag: CK_FLAGS) -> bool {
        self.flags & flag != 0
    }

    /// Whether the user must log in to see private objects.
    pub(super) fn login_required(&self) -> bool {
        self.has(CKF_LOGIN_REQUIRED)
    }

    /// What it says of the user PIN.
    pub(super) fn pin_flags(&self) -> PinFlags {
        PinFlags {
            count_low: self.has(CKF_USER_PIN_COUNT_LOW),
            final_try: self.has(CKF_USER_PIN_FINAL_TRY),
            locked: self.has(CKF_USER_PIN_LOCKED),
        }
    }

    /// For the front.
    pub(super) fn found(&self, settings: &Settings, warnings: Vec<String>) -> TokenFound {
        let of_the_kind = self.most_rw_sessions.filter(|_| settings.read_write);
        let most_sessions = self.most_sessions.into_iter().chain(of_the_kind).min();
        TokenFound {
            most_sessions: most_sessions.unwrap_or_default(),
            label: self.label.clone(),
            manufacturer: self.manufacturer.clone(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            pin_flags: Some(self.pin_flags()),
            login_required: self.login_required(),
            warnings,
        }
    }

    fn matches(&self, settings: &Settings) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|it| it == is);
        self.has(CKF_TOKEN_INITIALIZED)
            && same(&settings.token_label, &self.label)
            && same(&settings.token_serial, &self.serial)
            && same(&settings.token_manufacturer, &self.manufacturer)
            && same(&settings.token_model, &self.model)
    }
}

impl From<&CK_TOKEN_INFO> for TokenInfo {
    fn from(info: &CK_TOKEN_INFO) -> Self {
        #[allow(
            clippy::unnecessary_cast,
            reason = "CK_ULONG is shorter on other machines"
        )]
        let [most_sessions, most_rw_sessions] = [info.ulMaxSessionCount, info.ulMaxRwSessionCount]
            .map(|most| match most as u64 {
                // CK_EFFECTIVELY_INFINITE, CK_UNAVAILABLE_INFORMATION, and openCryptoki's -2.
                0 => None,
                most if most >= u64::from(u32::MAX) => None,
                most => Some(most),
            });
        Self {
            label: text(&info.label),
            manufacturer: text(&info.manufacturerID),
            model: text(&info.model),
            serial: text(&info.serialNumber),
            flags: info.flags,
            most_sessions,
            most_rw_sessions,
        }
    }
}

impl From<cryptoki::slot::TokenInfo> for TokenInfo {
    fn from(info: cryptoki::slot::TokenInfo) -> Self {
        let flags = [
            (info.token_initialized(), CKF_TOKEN_INITIALIZED),
            (info.login_required(), CKF_LOGIN_REQUIRED),
            (info.user_pin_count_low(), CKF_USER_PIN_COUNT_LOW),
            (info.user_pin_final_try(), CKF_USER_PIN_FINAL_TRY),
            (info.user_pin_locked(), CKF_USER_PIN_LOCKED),
        ];
        let flags = flags.iter().filter(|(set, _)| *set);
        Self {
            label: text(info.label().as_bytes()),
            manufacturer: text(info.manufacturer_id().as_bytes()),
            model: text(info.model().as_bytes()),
            serial: text(info.serial_number().as_bytes()),
            flags: flags.fold(0, |all, (_, flag)| all | flag),
            most_sessions: most(info.max_session_count()),
            most_rw_sessions: most(info.max_rw_session_count()),
        }
    }
}

fn most(limit: Limit) -> Option<u64> {
    match limit {
        Limit::Max(most) => Some(most),
        Limit::Unavailable | Limit::Infinite => None,
    }
}

/// A field of fixed length: padded with blanks, on some modules with NUL.
fn text(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    text.trim_end_matches(['\0', ' ']).to_owned()
}

/// The one token that matches the settings, with its info and what an operator should know.
///
/// # Errors
/// `Away` if none matches, `Configuration` if several do.
pub(super) fn find_token(
    module: &Pkcs11,
    calls: Option<&InfoCalls>,
    settings: &Settings,
) -> Result<(Slot, TokenInfo, Vec<String>), HostError> {
    let mut warnings = Vec::new();
    let mut matching: Vec<(Slot, TokenInfo)> = Vec::new();
    let mut seen = Vec::new();
    for slot in module.get_slots_with_token()? {
        if settings.slot_id.is_some_and(|id| id != slot.id()) {
            continue;
        }
        match TokenInfo::of(module, calls, slot) {
            Ok(info) => {
                if info.has(CKF_TOKEN_INITIALIZED) {
                    seen.push(format!("{:?} with serial {}", info.label, info.serial));
                }
                if info.matches(settings) {
                    matching.push((slot, info));
                }
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
            Err(HostError::new(
                Class::Away,
                format!(
                    "no token matches the uri, which wants {}; the module shows {seen}. {left_out}",
                    wanted(settings)
                )
                .trim(),
            ))
        }
        _ => {
            let names: Vec<String> = matching
                .iter()
                .map(|(slot, info)| format!("slot {} with serial {}", slot.id(), info.serial))
                .collect();
            Err(HostError::new(
                Class::Configuration,
                format!(
                    "several tokens match the uri: {}; add ;serial=… to it",
                    names.join(", ")
                ),
            ))
        }
    }
}

/// What the settings want a token to be.
fn wanted(settings: &Settings) -> String {
    let named = [
        ("label", &settings.token_label),
        ("serial", &settings.token_serial),
        ("manufacturer", &settings.token_manufacturer),
        ("model", &settings.token_model),
    ];
    let named = named.into_iter();
    let mut wanted: Vec<String> = named
        .filter_map(|(name, value)| Some(format!("{name} {:?}", value.as_ref()?)))
        .collect();
    wanted.extend(settings.slot_id.map(|id| format!("slot {id}")));
    if wanted.is_empty() {
        wanted.push("any".to_owned());
    }
    wanted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// openCryptoki sets CKF_CLOCK_ON_TOKEN and writes no digits into utcTime.
    #[test]
    fn a_field_of_token_info_that_makes_no_sense_is_left_out() {
        let mut raw = CK_TOKEN_INFO {
            label: [b' '; 32],
            manufacturerID: [0xff; 32],
            utcTime: [b'?'; 16],
            flags: u64::MAX as CK_FLAGS,
            ulMaxSessionCount: (u64::MAX - 1) as _,
            ..CK_TOKEN_INFO::default()
        };
        raw.label[..4].copy_from_slice(b"soft");
        let info = TokenInfo::from(&raw);
        assert_eq!((info.label.as_str(), info.serial.as_str()), ("soft", ""));
        assert_eq!(info.most_sessions, None);
        assert!(info.pin_flags().locked && info.login_required());
        let settings = Settings {
            token_label: Some("soft".into()),
            ..Settings::default()
        };
        assert!(info.matches(&settings));
    }

    #[test]
    fn read_write_sessions_have_a_limit_of_their_own() {
        let info = TokenInfo::from(&CK_TOKEN_INFO {
            ulMaxSessionCount: 100,
            ulMaxRwSessionCount: 10,
            ..CK_TOKEN_INFO::default()
        });
        for (read_write, most) in [(false, 100), (true, 10)] {
            let settings = Settings {
                read_write,
                ..Settings::default()
            };
            assert_eq!(info.found(&settings, Vec::new()).most_sessions, most);
        }
    }
}
