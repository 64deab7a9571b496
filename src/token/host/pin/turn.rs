//! One login, from the right to try it to what came of it.

use std::fs;

use bytes::Bytes;
use tracing::{info, warn};

use crate::{
    model::{decode_hex, encode_hex},
    proto::host::{LoginFailure, LoginVerdict, PinFlags, PinsRead},
    token::{
        host::pin::{
            BUDGET, LoginGovernor, NoLogin, cut,
            marker::{Marker, TriedPin},
        },
        locks::UNPOISONED,
    },
};

/// The right to log in, held by one host of one hsmac at a time.
pub(in crate::token::host) struct LoginTurn<'a> {
    pub(super) governor: &'a LoginGovernor,
    pub(super) flags: PinFlags,
    pub(super) serial: String,
    /// What the disk says under another salt than the memory's.
    pub(super) foreign: Option<Marker>,
    /// The fingerprint that is tried.
    pub(super) chosen: String,
    pub(super) _lock: fs::File,
}

impl LoginTurn<'_> {
    /// What the PINs are to be fingerprinted with.
    pub(in crate::token::host) fn salts(&self) -> Vec<Bytes> {
        let memory = self.governor.memory.lock().expect(UNPOISONED);
        let foreign = self.foreign.iter().map(|marker| &marker.salt);
        [&memory.marker.salt]
            .into_iter()
            .chain(foreign)
            .map(|salt| decode_hex(salt).unwrap_or_default().into())
            .collect()
    }

    /// Chooses the first PIN that nobody has refused.
    ///
    /// # Errors
    /// `Refused` if there is none, or the token must not be asked; `NoPin` if no file holds one.
    pub(in crate::token::host) fn choose(&mut self, pins: &PinsRead) -> Result<u32, NoLogin> {
        let mut memory = self.governor.memory.lock().expect(UNPOISONED);
        let name = &self.governor.token;
        let mut refusal = None;
        let mut fault = None;
        let mut chosen = None;
        for (index, pin) in (0..).zip(&pins.pins) {
            let [fingerprint, foreign @ ..] = &pin.fingerprints[..] else {
                fault = fault.or_else(|| Some(pin.fault.clone()));
                continue;
            };
            let fingerprint = encode_hex(fingerprint);
            if let (Some(marker), [foreign]) = (&self.foreign, foreign)
                && let Some(known) = marker.find(&encode_hex(foreign))
            {
                memory.marker.learn(TriedPin {
                    fingerprint: fingerprint.clone(),
                    ..known.clone()
                });
            }
            let Some(tried) = memory.marker.find(&fingerprint) else {
                chosen = chosen.or(Some((index, fingerprint)));
                continue;
            };
            let reason = if let Some(reason) = &tried.refused {
                Some(reason.clone())
            } else if tried.attempts >= BUDGET {
                let why = "two tries ended without a clear answer";
                Some(
                    self.governor
                        .unclear_reason(why, "the last one was cut off"),
                )
            } else if tried.attempts > 0 && self.flags.count_low && !tried.count_low {
                let why = "since it was tried the token counts a wrong PIN";
                Some(self.governor.unclear_reason(why, "CKF_USER_PIN_COUNT_LOW"))
            } else {
                None
            };
            match reason {
                Some(reason) => refusal = refusal.or(Some(reason)),
                None => chosen = chosen.or(Some((index, fingerprint))),
            }
        }
        let no_login = match chosen {
            None => match (refusal, fault) {
                (Some(reason), _) => NoLogin::Refused(reason),
                (None, fault) => {
                    return Err(NoLogin::NoPin(
                        fault.unwrap_or_else(|| "the host read no PIN file".into()),
                    ));
                }
            },
            Some(_) if self.flags.locked => NoLogin::Refused(
                "the token says that its user PIN is locked; its SO must set a new one".into(),
            ),
            Some(_) if self.flags.final_try && !memory.final_try_allowed => {
                NoLogin::Refused(format!(
                    "the token says that one more wrong PIN locks it; check the PIN, then run `hsmac token unlock {name}`"
                ))
            }
            Some((index, fingerprint)) => {
                self.chosen = fingerprint;
                return Ok(index);
            }
        };
        drop(memory);
        match no_login {
            NoLogin::Refused(reason) => Err(self.governor.block(reason)),
            NoLogin::Unwritable(_) | NoLogin::NoPin(_) => Err(no_login),
        }
    }

    /// Notes on disk that the chosen PIN is tried now.
    ///
    /// # Errors
    /// `Unwritable`: nobody may log in.
    pub(in crate::token::host) async fn begin(&self) -> Result<(), NoLogin> {
        let (marker, attempt) = {
            let mut memory = self.governor.memory.lock().expect(UNPOISONED);
            memory.final_try_allowed = false;
            self.governor.own.lock().expect(UNPOISONED).last = Some(self.chosen.clone());
            memory.marker.token_serial.clone_from(&self.serial);
            let tried = memory.marker.entry(&self.chosen);
            tried.attempts += 1;
            tried.count_low = self.flags.count_low;
            let attempt = tried.attempts;
            (memory.marker.clone(), attempt)
        };
        let path = self.governor.marker_file();
        match self.governor.write(marker).await {
            Ok(()) => {
                info!(
                    event = "login_tried", token = %self.governor.token, attempt, serial = %self.serial,
                    "C_Login is tried"
                );
                Ok(())
            }
            Err(error) => {
                self.take_back();
                Err(self.governor.unwritable(&path, &error))
            }
        }
    }

    /// The token took the PIN.
    pub(in crate::token::host) async fn succeeded(&self) {
        let marker = {
            let mut memory = self.governor.memory.lock().expect(UNPOISONED);
            let chosen = &self.chosen;
            memory
                .marker
                .tried
                .retain(|tried| tried.fingerprint != *chosen);
            memory.marker.clone()
        };
        self.settle(marker).await;
    }

    /// C_Login did not succeed, or its host ended before it could say so (`failure` is `None`). The
    /// reason if nobody tries the PIN again.
    pub(in crate::token::host) async fn failed(
        &self,
        answer: &str,
        failure: Option<&LoginFailure>,
    ) -> Option<String> {
        let verdict = failure.map_or(LoginVerdict::Unclear, LoginFailure::verdict);
        let after = failure
            .and_then(|failure| failure.pin_flags)
            .unwrap_or_default();
        let counted = (after.count_low && !self.flags.count_low)
            || (after.final_try && !self.flags.final_try)
            || (after.locked && !self.flags.locked);
        let refused = match verdict {
            LoginVerdict::NotJudged => {
                let marker = self.take_back();
                self.settle(marker).await;
                return None;
            }
            LoginVerdict::Refused => Some(self.governor.refused_reason(answer)),
            LoginVerdict::Unclear | LoginVerdict::Unspecified if counted => {
                let why = "the token counts it as a wrong one";
                Some(self.governor.unclear_reason(why, answer))
            }
            LoginVerdict::Unclear | LoginVerdict::Unspecified => None,
        };
        let reason = {
            let mut memory = self.governor.memory.lock().expect(UNPOISONED);
            let tried = memory.marker.entry(&self.chosen);
            let reason = refused.or_else(|| {
                let why = "two tries ended without a clear answer";
                (tried.attempts >= BUDGET).then(|| self.governor.unclear_reason(why, answer))
            });
            tried.refused = reason.as_deref().map(cut);
            reason
        };
        match &reason {
            Some(reason) => self.governor.note_refusal(reason.clone()).await,
            None => warn!(
                event = "login_unclear", token = %self.governor.token, reason = %answer,
                "C_Login did not say whether the PIN is right: it is tried once more at most"
            ),
        }
        reason
    }

    /// The attempt judged nothing.
    fn take_back(&self) -> Marker {
        let mut memory = self.governor.memory.lock().expect(UNPOISONED);
        let tried = memory.marker.entry(&self.chosen);
        tried.attempts = tried.attempts.saturating_sub(1);
        if tried.attempts == 0 && tried.refused.is_none() {
            let chosen = &self.chosen;
            memory
                .marker
                .tried
                .retain(|tried| tried.fingerprint != *chosen);
        }
        memory.marker.clone()
    }

    async fn settle(&self, marker: Marker) {
        if let Err(error) = self.governor.write(marker).await {
            warn!(
                event = "pin_note_unwritable", token = %self.governor.token,
                path = %self.governor.marker_file().display(), reason = %error,
                "the note of a login cannot be cleared: it counts as a try without a clear answer"
            );
        }
    }
}
