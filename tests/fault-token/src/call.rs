//! What every call goes through.

use std::{
    slice,
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::{
    CK_BYTE, CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG,
    CKA_LABEL, CKR_BUFFER_TOO_SMALL, CKR_DEVICE_REMOVED, CKR_GENERAL_ERROR,
    CKR_OBJECT_HANDLE_INVALID, CKR_TOKEN_NOT_PRESENT,
};

use crate::{
    codes,
    control::PAUSE,
    functions::Function,
    real::{attribute, token_label},
    rule::{Fault, Rules, What, WrongMac},
    token::FaultToken,
    world::World,
};

/// A delay longer than this ends early when its rule goes.
const NAP: Duration = Duration::from_millis(10);

/// A call that has got past the faults and may ask the real module.
pub(crate) struct Call<'a> {
    pub(crate) token: &'static FaultToken,
    pub(crate) real: &'static CK_FUNCTION_LIST,
    pub(crate) rules: &'a Rules,
    pub(crate) world: &'a World,
    /// Set if the caller will get another answer than this call's: nothing may reach his buffers.
    pub(crate) is_discarded: bool,
    session: CK_SESSION_HANDLE,
    message: &'a [u8],
}

/// A message that the caller passes: pointer and length.
pub(crate) type Message = (*mut CK_BYTE, CK_ULONG);

/// Lets the rules act, then asks the real module by `ask`, then writes the log.
pub(crate) fn call(
    function: Function,
    session: Option<CK_SESSION_HANDLE>,
    message: Option<Message>,
    ask: impl FnOnce(&Call<'_>) -> Result<CK_RV, CK_RV>,
) -> CK_RV {
    let Some(token) = FaultToken::loaded() else {
        return CKR_GENERAL_ERROR;
    };
    let message = match message {
        Some((bytes, length)) if !bytes.is_null() => {
            // SAFETY: the caller passes a message of this length (PKCS#11 v2.40 §5.11).
            unsafe { slice::from_raw_parts(bytes, length as usize) }
        }
        _ => &[],
    };
    let code = answer(token, function, session, message, ask).unwrap_or_else(|code| code);
    token
        .log
        .line(function.name(), || codes::name(code).into_owned());
    code
}

/// Lets the rules act on a call that must not keep others waiting, since it may last; what follows
/// is the caller's.
///
/// # Errors
/// The answer, if the real module is not to be asked.
pub(crate) fn before(token: &'static FaultToken, function: Function) -> Result<Arc<Rules>, CK_RV> {
    let (rules, wrong) = faults(token, function, &[]);
    match wrong {
        Some(code) => Err(code),
        None => Ok(rules),
    }
}

fn answer(
    token: &'static FaultToken,
    function: Function,
    session: Option<CK_SESSION_HANDLE>,
    message: &[u8],
    ask: impl FnOnce(&Call<'_>) -> Result<CK_RV, CK_RV>,
) -> Result<CK_RV, CK_RV> {
    let (rules, wrong) = faults(token, function, message);
    if let Some(code) = wrong
        && (rules.bad.is_some() || !function.ends_operation() || code == CKR_BUFFER_TOO_SMALL)
    {
        return Err(code);
    }
    let world = token.world.read().unwrap_or_else(PoisonError::into_inner);
    if !rules.hidden_tokens.is_empty() && session.is_some_and(|session| world.is_removed(session)) {
        return Err(wrong.unwrap_or(CKR_DEVICE_REMOVED));
    }
    let answer = ask(&Call {
        token,
        real: token.real,
        rules: &rules,
        world: &world,
        is_discarded: wrong.is_some(),
        session: session.unwrap_or(0),
        message,
    });
    match wrong {
        // A failed C_Sign has ended the operation (PKCS#11 v2.40 §5.11): so must this one.
        Some(code) => Err(code),
        None => answer,
    }
}

/// Does what the rules say about this call. Returns the rules that are in force afterwards, and the
/// code to answer if the call is to fail.
fn faults(
    token: &'static FaultToken,
    function: Function,
    message: &[u8],
) -> (Arc<Rules>, Option<CK_RV>) {
    let rules = token.control.rules(token);
    if rules.bad.is_some() {
        return (rules, Some(CKR_GENERAL_ERROR));
    }
    let mut has_waited = false;
    for fault in rules.faults.iter().filter(|fault| fault.is_about(function)) {
        if matches!(fault.what, What::Mac(_)) || !fault.when.acts(message) {
            continue;
        }
        match fault.what {
            What::Crash => {
                token.log.line(function.name(), || "crash".to_owned());
                crash();
            }
            What::Delay(time) => {
                delay(token, fault, time);
                has_waited = true;
            }
            What::Hang => {
                token.log.line(function.name(), || "hang".to_owned());
                while token.control.rules(token).have(fault) {
                    thread::sleep(PAUSE);
                }
                fault.when.over();
                has_waited = true;
            }
            What::Mac(_) => {}
            What::Return(code) => return (rules.clone(), Some(code)),
        }
    }
    if !has_waited {
        return (rules, None);
    }
    // Much may have changed meanwhile, but no call waits twice.
    let rules = token.control.rules(token);
    let wrong = rules.bad.is_some().then_some(CKR_GENERAL_ERROR);
    (rules, wrong)
}

fn delay(token: &'static FaultToken, fault: &Arc<Fault>, time: Duration) {
    let began = Instant::now();
    while let Some(left) = time.checked_sub(began.elapsed())
        && !left.is_zero()
    {
        thread::sleep(left.min(NAP));
        if left > NAP && !token.control.rules(token).have(fault) {
            return;
        }
    }
}

/// Ends the process as a bad pointer in a vendor's library does.
fn crash() -> ! {
    unsafe extern "C" {
        fn raise(signal: std::ffi::c_int) -> std::ffi::c_int;
    }
    const SIGSEGV: std::ffi::c_int = 11;
    loop {
        // More than once: a handler such as the Rust runtime's first puts the default action back.
        // SAFETY: `raise` is C's and takes any number.
        unsafe { raise(SIGSEGV) };
    }
}

impl Call<'_> {
    /// The real module's handle of the object that the caller means.
    ///
    /// # Errors
    /// CKR_OBJECT_HANDLE_INVALID if the number names nothing now, or a hidden key.
    pub(crate) fn object(&self, number: CK_OBJECT_HANDLE) -> Result<CK_OBJECT_HANDLE, CK_RV> {
        let object = self.world.object(self.real, self.session, number);
        object
            .filter(|object| !self.hides(*object))
            .ok_or(CKR_OBJECT_HANDLE_INVALID)
    }

    /// Writes the caller's number over the real module's handle, if the call went well.
    pub(crate) fn give(&self, code: CK_RV, object: *mut CK_OBJECT_HANDLE) {
        if code == cryptoki_sys::CKR_OK && !object.is_null() {
            // SAFETY: the real module has just written the handle here.
            unsafe { *object = self.number(*object) };
        }
    }

    pub(crate) fn number(&self, object: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        self.world.number(self.real, self.session, object)
    }

    /// Whether a rule hides this key.
    pub(crate) fn hides(&self, object: CK_OBJECT_HANDLE) -> bool {
        !self.rules.hidden_keys.is_empty()
            && attribute(self.real, self.session, object, CKA_LABEL).is_some_and(|label| {
                (self.rules.hidden_keys).contains(String::from_utf8_lossy(&label).as_ref())
            })
    }

    /// The real module's id of the slot that the caller means.
    pub(crate) fn slot(&self, number: CK_SLOT_ID) -> CK_SLOT_ID {
        number.wrapping_sub(self.world.slot_offset(self.rules))
    }

    /// The same of a slot whose token is needed.
    ///
    /// # Errors
    /// CKR_TOKEN_NOT_PRESENT if a rule hides it.
    pub(crate) fn slot_with_token(&self, number: CK_SLOT_ID) -> Result<CK_SLOT_ID, CK_RV> {
        let slot = self.slot(number);
        if self.hides_token(slot) {
            return Err(CKR_TOKEN_NOT_PRESENT);
        }
        Ok(slot)
    }

    pub(crate) fn slot_number(&self, slot: CK_SLOT_ID) -> CK_SLOT_ID {
        slot.wrapping_add(self.world.slot_offset(self.rules))
    }

    /// Whether a rule hides the token in this slot of the real module.
    pub(crate) fn hides_token(&self, slot: CK_SLOT_ID) -> bool {
        self.rules.hide_token(|| token_label(self.real, slot))
    }

    /// How the MAC of this call is to be wrong, if at all.
    pub(crate) fn wrong_mac(&self) -> Option<WrongMac> {
        self.rules.faults.iter().find_map(|fault| match fault.what {
            What::Mac(wrong) => fault.when.acts(self.message).then_some(wrong),
            What::Crash | What::Delay(_) | What::Hang | What::Return(_) => None,
        })
    }
}
