//! What every call goes through.

use std::{
    slice,
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::{
    CK_BYTE, CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG,
    CK_USER_TYPE, CKA_ID, CKA_LABEL, CKR_BUFFER_TOO_SMALL, CKR_DEVICE_REMOVED, CKR_GENERAL_ERROR,
    CKR_OBJECT_HANDLE_INVALID, CKR_OK, CKR_TOKEN_NOT_PRESENT, CKU_USER,
};

use crate::{
    codes,
    control::PAUSE,
    files,
    functions::Function,
    real::{attribute, token_label},
    rule::{Fault, Line, Rules, What, WrongMac},
    token::FaultToken,
    when::{KeyName, Subject},
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
    subject: &'a Subject<'a>,
    journal: &'a dyn Fn(&dyn Fn() -> String),
}

/// A message that the caller passes: pointer and length.
pub(crate) type Message = (*mut CK_BYTE, CK_ULONG);

/// What the caller passes, as far as rules can ask for it.
#[derive(Clone, Copy, Default)]
pub(crate) struct About {
    session: Option<CK_SESSION_HANDLE>,
    message: Option<Message>,
    object: Option<CK_OBJECT_HANDLE>,
    /// The length of the user's PIN.
    pin: Option<CK_ULONG>,
}

impl About {
    pub(crate) fn session(session: CK_SESSION_HANDLE) -> Self {
        Self {
            session: Some(session),
            ..Self::default()
        }
    }

    pub(crate) fn message(self, message: Message) -> Self {
        Self {
            message: Some(message),
            ..self
        }
    }

    pub(crate) fn object(self, object: CK_OBJECT_HANDLE) -> Self {
        Self {
            object: Some(object),
            ..self
        }
    }

    /// A login; only the user's is counted.
    pub(crate) fn login(self, user: CK_USER_TYPE, pin_length: CK_ULONG) -> Self {
        Self {
            pin: (user == CKU_USER).then_some(pin_length),
            ..self
        }
    }

    /// What rules ask of it.
    fn subject<'a>(
        self,
        token: &'static FaultToken,
        function: Function,
        message: &'a [u8],
        rules: &Rules,
    ) -> Result<Subject<'a>, CK_RV> {
        let mut subject = Subject {
            message,
            ..Subject::default()
        };
        if self.pin.is_some() {
            subject.attempt = Some(token.counted("logins", |attempts| attempts + 1)?);
        }
        // Few rules ask, and calls are many.
        if let Some(session) = self.session
            && (rules.number_sessions || rules.name_keys || rules.journal(function))
        {
            let world = token.world.read().unwrap_or_else(PoisonError::into_inner);
            subject.session = world.session_number(session);
            if rules.name_keys {
                subject.key = match self.object {
                    Some(number) => key_name(token, &world, session, number),
                    None if function.goes_on_with_operation() => world.key_of(session),
                    None => None,
                };
            }
        }
        Ok(subject)
    }
}

fn key_name(
    token: &'static FaultToken,
    world: &World,
    session: CK_SESSION_HANDLE,
    number: CK_OBJECT_HANDLE,
) -> Option<KeyName> {
    let object = world.object(token.real, session, number)?;
    let value = |kind| attribute(token.real, session, object, kind);
    Some(KeyName {
        label: value(CKA_LABEL)?,
        id: value(CKA_ID).unwrap_or_default(),
    })
}

/// Lets the rules act, then asks the real module by `ask`, then writes the log.
pub(crate) fn call(
    function: Function,
    about: About,
    ask: impl FnOnce(&Call<'_>) -> Result<CK_RV, CK_RV>,
) -> CK_RV {
    let Some(token) = FaultToken::loaded() else {
        return CKR_GENERAL_ERROR;
    };
    let message = match about.message {
        Some((bytes, length)) if !bytes.is_null() => {
            // SAFETY: the caller passes a message of this length (PKCS#11 v2.40 §5.11).
            unsafe { slice::from_raw_parts(bytes, length as usize) }
        }
        _ => &[],
    };
    let code = answer(token, function, about, message, ask).unwrap_or_else(|code| code);
    token.log_call(function, || codes::name(code));
    code
}

/// Lets the rules act on a call that must not keep others waiting, since it may last; what follows
/// is the caller's.
///
/// # Errors
/// The answer, if the real module is not to be asked.
pub(crate) fn before(token: &'static FaultToken, function: Function) -> Result<Arc<Rules>, CK_RV> {
    let rules = token.control.rules(token);
    let faults = Faults::of(&rules, function, &Subject::default());
    let (rules, wrong) = faults.act(token, function, rules, false);
    match wrong {
        Some(code) => Err(code),
        None => Ok(rules),
    }
}

fn answer(
    token: &'static FaultToken,
    function: Function,
    about: About,
    message: &[u8],
    ask: impl FnOnce(&Call<'_>) -> Result<CK_RV, CK_RV>,
) -> Result<CK_RV, CK_RV> {
    let rules = token.control.rules(token);
    let subject = about.subject(token, function, message, &rules)?;
    let journal = |what: &dyn Fn() -> String| {
        if rules.journal(function) {
            token.journal(|| line_of_journal(function, about, &subject, &what()));
        }
    };
    journal(&String::new);
    let faults = Faults::of(&rules, function, &subject);
    let (rules, wrong) = faults.act(token, function, rules.clone(), false);
    if let Some(code) = wrong
        && (rules.bad.is_some() || !function.ends_operation() || code == CKR_BUFFER_TOO_SMALL)
    {
        return Err(code);
    }
    let session = about.session;
    let answer = {
        let world = token.world.read().unwrap_or_else(PoisonError::into_inner);
        if session.is_some_and(|session| world.is_removed(session))
            && !rules.hidden_tokens.is_empty()
        {
            return Err(wrong.unwrap_or(CKR_DEVICE_REMOVED));
        }
        let answer = ask(&Call {
            token,
            real: token.real,
            rules: &rules,
            world: &world,
            is_discarded: wrong.is_some() || faults.will_fail(),
            session: session.unwrap_or(0),
            subject: &subject,
            journal: &journal,
        });
        if function.starts_operation()
            && rules.name_keys
            && answer == Ok(CKR_OK)
            && let Some(session) = session
        {
            world.works_with(session, subject.key.clone());
        }
        answer
    };
    let (_, late) = faults.act(token, function, rules, true);
    match wrong.or(late) {
        // A failed C_Sign has ended the operation (PKCS#11 v2.40 §5.11): so must this one.
        Some(code) => Err(code),
        None => answer,
    }
}

/// `TIME FUNCTION session=N attempt=N pin-length=N id=HEX label=LABEL WHAT`, as far as it is known.
fn line_of_journal(function: Function, about: About, subject: &Subject<'_>, what: &str) -> String {
    let mut line = format!("{} {function}", files::since_boot());
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.extend([" ", name, "=", &value]);
        }
    };
    add("session", subject.session.map(|number| number.to_string()));
    add("attempt", subject.attempt.map(|number| number.to_string()));
    // Security: of the PIN nothing but its length is written anywhere.
    add("pin-length", about.pin.map(|length| length.to_string()));
    if let Some(key) = &subject.key {
        let id = key.id.iter().map(|byte| format!("{byte:02x}")).collect();
        add("id", Some(id));
        add("label", Some(String::from_utf8_lossy(&key.label).into()));
    }
    if !what.is_empty() {
        line.extend([" ", what]);
    }
    line
}

/// The rules that act on one call, in the file's order.
struct Faults(Vec<Arc<Fault>>);

impl Faults {
    /// The first `return` wins; what stands after it does not count as having acted.
    fn of(rules: &Rules, function: Function, subject: &Subject<'_>) -> Self {
        let mut acting = Self(Vec::new());
        for fault in rules.faults.iter().filter(|fault| fault.is_about(function)) {
            if matches!(fault.what, What::Mac(_))
                || (fault.is_after && acting.will_fail())
                || !fault.when.acts(subject)
            {
                continue;
            }
            acting.0.push(fault.clone());
            if matches!(fault.what, What::Return(_)) && !fault.is_after {
                break;
            }
        }
        acting
    }

    /// Whether the caller will get another answer than the real module's.
    fn will_fail(&self) -> bool {
        let mut faults = self.0.iter();
        faults.any(|fault| fault.is_after && matches!(fault.what, What::Return(_)))
    }

    /// Does what the rules say, before the call or after it. Returns the rules that are in force then,
    /// and the code to answer if the call is to fail.
    fn act(
        &self,
        token: &'static FaultToken,
        function: Function,
        rules: Arc<Rules>,
        is_after: bool,
    ) -> (Arc<Rules>, Option<CK_RV>) {
        if rules.bad.is_some() {
            return (rules, Some(CKR_GENERAL_ERROR));
        }
        let mut has_waited = false;
        for fault in self.0.iter().filter(|fault| fault.is_after == is_after) {
            token.applied(&fault.line);
            match fault.what {
                What::Crash => {
                    token.log_call(function, || "crash");
                    crash();
                }
                What::Delay(time) => {
                    delay(token, fault, time);
                    has_waited = true;
                }
                What::Hang => {
                    token.log_call(function, || "hang");
                    while token.control.rules(token).have(fault) {
                        thread::sleep(PAUSE);
                    }
                    has_waited = true;
                }
                What::Mac(_) => {}
                What::Return(code) => return (rules, Some(code)),
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
}

impl Drop for Faults {
    fn drop(&mut self) {
        for fault in &self.0 {
            fault.when.over();
        }
    }
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
        if code == CKR_OK && !object.is_null() {
            // SAFETY: the real module has just written the handle here.
            let object = unsafe { &mut *object };
            if self.rules.objects_at_initialize.is_some() {
                self.world.made(self.real, self.session, *object);
            }
            *object = self.number(*object);
        }
    }

    pub(crate) fn number(&self, object: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        self.world.number(self.real, self.session, object)
    }

    /// Whether a rule hides this key.
    pub(crate) fn hides(&self, object: CK_OBJECT_HANDLE) -> bool {
        if self.rules.hidden_keys.is_empty() {
            return false;
        }
        let label = attribute(self.real, self.session, object, CKA_LABEL).unwrap_or_default();
        let line = (self.rules.hidden_keys).get(String::from_utf8_lossy(&label).as_ref());
        self.counted(line)
    }

    /// Whether another process made this object after this one had looked, and a rule hides such.
    pub(crate) fn has_not_seen(&self, object: CK_OBJECT_HANDLE) -> bool {
        let Some(line) = &self.rules.objects_at_initialize else {
            return false;
        };
        let is_new = self.world.has_not_seen(self.real, self.session, object);
        self.counted(is_new.then_some(line))
    }

    /// Counts a rule that has acted; false if there is none.
    fn counted(&self, line: Option<&Line>) -> bool {
        if let Some(line) = line {
            self.token.applied(line);
        }
        line.is_some()
    }

    /// Writes another line about this call into the journal, if that wants its function.
    pub(crate) fn journal(&self, what: impl Fn() -> String) {
        (self.journal)(&what);
    }

    /// The real module's id of the slot that the caller means.
    pub(crate) fn slot(&self, number: CK_SLOT_ID) -> CK_SLOT_ID {
        number.wrapping_sub(self.world.slot_offset(self.rules))
    }

    /// A call about a slot whose token is needed.
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
        let line = self.rules.hide_token(|| token_label(self.real, slot));
        self.counted(line)
    }

    /// How the MAC of this call is to be wrong, if at all.
    pub(crate) fn wrong_mac(&self) -> Option<WrongMac> {
        self.rules.faults.iter().find_map(|fault| match fault.what {
            What::Mac(wrong) => {
                let acts = fault.when.acts(self.subject);
                self.counted(acts.then_some(&fault.line)).then_some(wrong)
            }
            What::Crash | What::Delay(_) | What::Hang | What::Return(_) => None,
        })
    }
}
