//! The 68 functions of PKCS#11 v2.40 and their list.

#![allow(non_snake_case, non_camel_case_types, reason = "PKCS#11's names")]

use std::{ffi::c_void, fmt, ptr, slice};

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM,
    CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_SESSION_INFO, CK_SLOT_ID, CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CK_VERSION,
    CKF_TOKEN_PRESENT, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED,
    CKR_BUFFER_TOO_SMALL, CKR_GENERAL_ERROR, CKR_OK, CKR_PIN_EXPIRED, CKR_PIN_INCORRECT,
    CKR_PIN_INVALID, CKR_PIN_LEN_RANGE, CKR_PIN_LOCKED, CKR_SESSION_COUNT, CKU_USER,
};

use crate::{
    call::{About, Call, before, call},
    codes,
    real::ask,
    rule::WrongMac,
    token::FaultToken,
};

type Bytes = *mut CK_BYTE;
type Length = *mut CK_ULONG;
type Mechanism = *mut CK_MECHANISM;
type Template = *mut CK_ATTRIBUTE;

/// Room for the longest signature whose bytes nobody gets to see.
const DISCARDED: usize = 4096;

macro_rules! functions {
    ($($name:ident)*) => {
        /// A function of PKCS#11.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[allow(clippy::enum_variant_names, reason = "PKCS#11's names")]
        pub(crate) enum Function { $($name),* }

        impl Function {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }

        /// What C_GetFunctionList gives out.
        pub(crate) static LIST: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
            version: CK_VERSION { major: 2, minor: 40 },
            C_GetFunctionList: Some(crate::C_GetFunctionList),
            $($name: Some($name)),*
        };
    };
}

functions! {
    C_Initialize C_Finalize C_GetInfo C_GetSlotList C_GetSlotInfo C_GetTokenInfo
    C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession
    C_CloseSession C_CloseAllSessions C_GetSessionInfo C_GetOperationState C_SetOperationState
    C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject C_GetObjectSize
    C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit C_FindObjects C_FindObjectsFinal
    C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal C_DecryptInit C_Decrypt
    C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest C_DigestUpdate C_DigestKey
    C_DigestFinal C_SignInit C_Sign C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover
    C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover
    C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate
    C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey C_SeedRandom
    C_GenerateRandom C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent
}

impl Function {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|function| function.name() == name)
    }

    pub(crate) fn beginning_with(beginning: &str) -> Vec<Self> {
        Self::ALL
            .iter()
            .copied()
            .filter(|function| function.name().starts_with(beginning))
            .collect()
    }

    /// Whether a rule can ask which key or other object it is about: one that the caller passes, or
    /// that of the session's operation.
    pub(crate) const fn has_an_object(self) -> bool {
        self.starts_operation()
            || self.goes_on_with_operation()
            || matches!(
                self,
                Self::C_CopyObject
                    | Self::C_DeriveKey
                    | Self::C_DestroyObject
                    | Self::C_GetAttributeValue
                    | Self::C_GetObjectSize
                    | Self::C_SetAttributeValue
                    | Self::C_UnwrapKey
                    | Self::C_WrapKey
            )
    }

    /// Whether the key that the caller passes is that of the session's next calls.
    pub(crate) const fn starts_operation(self) -> bool {
        matches!(
            self,
            Self::C_DecryptInit | Self::C_EncryptInit | Self::C_SignInit | Self::C_VerifyInit
        )
    }

    /// Whether it works with the key that another call has passed.
    pub(crate) const fn goes_on_with_operation(self) -> bool {
        matches!(
            self,
            Self::C_Decrypt
                | Self::C_DecryptFinal
                | Self::C_DecryptUpdate
                | Self::C_Encrypt
                | Self::C_EncryptFinal
                | Self::C_EncryptUpdate
                | Self::C_Sign
                | Self::C_SignFinal
                | Self::C_SignUpdate
                | Self::C_Verify
                | Self::C_VerifyFinal
                | Self::C_VerifyUpdate
        )
    }

    /// Whether a rule can ask what is in the message.
    pub(crate) const fn takes_a_message(self) -> bool {
        matches!(
            self,
            Self::C_Decrypt
                | Self::C_DecryptUpdate
                | Self::C_Digest
                | Self::C_DigestUpdate
                | Self::C_Encrypt
                | Self::C_EncryptUpdate
                | Self::C_Sign
                | Self::C_SignUpdate
                | Self::C_Verify
                | Self::C_VerifyUpdate
        )
    }

    /// Whether the function ends the session's operation even when it fails, and can be asked to
    /// without anything of it reaching the caller.
    pub(crate) const fn ends_operation(self) -> bool {
        matches!(
            self,
            Self::C_FindObjectsFinal
                | Self::C_Sign
                | Self::C_SignFinal
                | Self::C_Verify
                | Self::C_VerifyFinal
        )
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Functions on a session whose arguments go through as they are.
macro_rules! through {
    ($($name:ident($session:ident $(, $argument:ident: $type:ty)*) $(of $message:tt)?;)*) => {
        $(unsafe extern "C" fn $name($session: CK_SESSION_HANDLE, $($argument: $type),*) -> CK_RV {
            let about = About::session($session)$(.message($message))?;
            call(Function::$name, about, |call| {
                Ok(ask!(call.real, $name($session, $($argument),*)))
            })
        })*
    };
}

/// Functions on a session that use or make objects:
/// `|call| [arguments for the real module] about OBJECT gives …`.
macro_rules! objects {
    ($($name:ident($session:ident $(, $argument:ident: $type:ty)*)
        |$call:ident| [$($real:expr),*] $(about $object:ident)? $(gives $given:ident)*;)*) => {
        $(unsafe extern "C" fn $name($session: CK_SESSION_HANDLE, $($argument: $type),*) -> CK_RV {
            let about = About::session($session)$(.object($object))?;
            call(Function::$name, about, |$call| {
                let code = ask!($call.real, $name($session, $($real),*));
                $($call.give(code, $given);)*
                Ok(code)
            })
        })*
    };
}

through! {
    C_GetOperationState(session, state: Bytes, length: Length);
    C_Logout(session);
    C_InitPIN(session, pin: Bytes, length: CK_ULONG);
    C_SetPIN(session, old: Bytes, old_length: CK_ULONG, new: Bytes, new_length: CK_ULONG);
    C_FindObjectsInit(session, template: Template, count: CK_ULONG);
    C_FindObjectsFinal(session);
    C_Encrypt(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length) of (data, length);
    C_EncryptUpdate(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length) of (data, length);
    C_EncryptFinal(session, out: Bytes, out_length: Length);
    C_Decrypt(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length) of (data, length);
    C_DecryptUpdate(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length) of (data, length);
    C_DecryptFinal(session, out: Bytes, out_length: Length);
    C_DigestInit(session, mechanism: Mechanism);
    C_Digest(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length) of (data, length);
    C_DigestUpdate(session, data: Bytes, length: CK_ULONG) of (data, length);
    C_DigestFinal(session, out: Bytes, out_length: Length);
    C_SignUpdate(session, data: Bytes, length: CK_ULONG) of (data, length);
    C_SignRecover(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length);
    C_Verify(session, data: Bytes, length: CK_ULONG, mac: Bytes, mac_length: CK_ULONG) of (data, length);
    C_VerifyUpdate(session, data: Bytes, length: CK_ULONG) of (data, length);
    C_VerifyFinal(session, mac: Bytes, mac_length: CK_ULONG);
    C_VerifyRecover(session, mac: Bytes, mac_length: CK_ULONG, out: Bytes, out_length: Length);
    C_DigestEncryptUpdate(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length);
    C_DecryptDigestUpdate(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length);
    C_SignEncryptUpdate(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length);
    C_DecryptVerifyUpdate(session, data: Bytes, length: CK_ULONG, out: Bytes, out_length: Length);
    C_SeedRandom(session, seed: Bytes, length: CK_ULONG);
    C_GenerateRandom(session, random: Bytes, length: CK_ULONG);
    C_GetFunctionStatus(session);
    C_CancelFunction(session);
}

objects! {
    C_SetOperationState(
        session, state: Bytes, length: CK_ULONG, encryption: CK_OBJECT_HANDLE, signing: CK_OBJECT_HANDLE
    ) |call| [state, length, key_or_none(call, encryption)?, key_or_none(call, signing)?];
    C_CreateObject(session, template: Template, count: CK_ULONG, made: *mut CK_OBJECT_HANDLE)
        |call| [template, count, made] gives made;
    C_CopyObject(
        session, object: CK_OBJECT_HANDLE, template: Template, count: CK_ULONG, made: *mut CK_OBJECT_HANDLE
    ) |call| [call.object(object)?, template, count, made] about object gives made;
    C_DestroyObject(session, object: CK_OBJECT_HANDLE) |call| [call.object(object)?] about object;
    C_GetObjectSize(session, object: CK_OBJECT_HANDLE, size: Length)
        |call| [call.object(object)?, size] about object;
    C_GetAttributeValue(session, object: CK_OBJECT_HANDLE, template: Template, count: CK_ULONG)
        |call| [call.object(object)?, template, count] about object;
    C_SetAttributeValue(session, object: CK_OBJECT_HANDLE, template: Template, count: CK_ULONG)
        |call| [call.object(object)?, template, count] about object;
    C_EncryptInit(session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
        |call| [mechanism, call.object(key)?] about key;
    C_DecryptInit(session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
        |call| [mechanism, call.object(key)?] about key;
    C_DigestKey(session, key: CK_OBJECT_HANDLE) |call| [call.object(key)?] about key;
    C_SignInit(session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
        |call| [mechanism, call.object(key)?] about key;
    C_SignRecoverInit(session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
        |call| [mechanism, call.object(key)?] about key;
    C_VerifyInit(session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
        |call| [mechanism, call.object(key)?] about key;
    C_VerifyRecoverInit(session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
        |call| [mechanism, call.object(key)?] about key;
    C_GenerateKey(
        session, mechanism: Mechanism, template: Template, count: CK_ULONG, made: *mut CK_OBJECT_HANDLE
    ) |call| [mechanism, template, count, made] gives made;
    C_GenerateKeyPair(
        session, mechanism: Mechanism, public_template: Template, public_count: CK_ULONG,
        private_template: Template, private_count: CK_ULONG,
        public: *mut CK_OBJECT_HANDLE, private: *mut CK_OBJECT_HANDLE
    ) |call| [
        mechanism, public_template, public_count, private_template, private_count, public, private
    ] gives public gives private;
    C_WrapKey(
        session, mechanism: Mechanism, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE,
        wrapped: Bytes, length: Length
    ) |call| [mechanism, call.object(wrapping)?, call.object(key)?, wrapped, length] about key;
    C_UnwrapKey(
        session, mechanism: Mechanism, unwrapping: CK_OBJECT_HANDLE, wrapped: Bytes, length: CK_ULONG,
        template: Template, count: CK_ULONG, made: *mut CK_OBJECT_HANDLE
    ) |call| [
        mechanism, call.object(unwrapping)?, wrapped, length, template, count, made
    ] about unwrapping gives made;
    C_DeriveKey(
        session, mechanism: Mechanism, base: CK_OBJECT_HANDLE, template: Template, count: CK_ULONG,
        made: *mut CK_OBJECT_HANDLE
    ) |call| [mechanism, call.object(base)?, template, count, made] about base gives made;
}

fn key_or_none(call: &Call<'_>, key: CK_OBJECT_HANDLE) -> Result<CK_OBJECT_HANDLE, CK_RV> {
    if key == 0 { Ok(0) } else { call.object(key) }
}

unsafe extern "C" fn C_Initialize(arguments: *mut c_void) -> CK_RV {
    call(Function::C_Initialize, About::default(), |call| {
        let code = ask!(call.real, C_Initialize(arguments));
        if code == CKR_OK {
            let turn = match &call.rules.renumber_at_initialize {
                Some(line) => {
                    call.token.applied(line);
                    Some(call.token.counted("initialized", |turn| turn + 1)?)
                }
                None => None,
            };
            call.world.initialized(call.token, turn, call.rules)?;
        }
        Ok(code)
    })
}

unsafe extern "C" fn C_Finalize(reserved: *mut c_void) -> CK_RV {
    call(Function::C_Finalize, About::default(), |call| {
        let code = ask!(call.real, C_Finalize(reserved));
        if code == CKR_OK {
            call.world.finalized();
        }
        Ok(code)
    })
}

unsafe extern "C" fn C_GetInfo(info: *mut CK_INFO) -> CK_RV {
    call(Function::C_GetInfo, About::default(), |call| {
        Ok(ask!(call.real, C_GetInfo(info)))
    })
}

unsafe extern "C" fn C_GetSlotList(
    token_present: CK_BBOOL,
    list: *mut CK_SLOT_ID,
    count: Length,
) -> CK_RV {
    call(Function::C_GetSlotList, About::default(), |call| {
        if let Some((_, line)) = &call.rules.slot_offset {
            call.token.applied(line);
        }
        if token_present == 0 || call.rules.hidden_tokens.is_empty() || count.is_null() {
            let code = ask!(call.real, C_GetSlotList(token_present, list, count));
            if code == CKR_OK && !list.is_null() {
                // SAFETY: the real module has written `count` slot ids to `list`.
                for slot in unsafe { slice::from_raw_parts_mut(list, *count as usize) } {
                    *slot = call.slot_number(*slot);
                }
            }
            return Ok(code);
        }
        let mut slots = all_slots(call, token_present)?;
        slots.retain(|slot| !call.hides_token(*slot));
        // SAFETY: the caller says with `count` how much room `list` has, and wants it written.
        let room = unsafe { std::mem::replace(&mut *count, slots.len() as CK_ULONG) };
        if list.is_null() {
            return Ok(CKR_OK);
        }
        if (room as usize) < slots.len() {
            return Ok(CKR_BUFFER_TOO_SMALL);
        }
        for (place, slot) in slots.into_iter().enumerate() {
            // SAFETY: `list` has room for `room` ids, and there are no more than that.
            unsafe { *list.add(place) = call.slot_number(slot) };
        }
        Ok(CKR_OK)
    })
}

fn all_slots(call: &Call<'_>, token_present: CK_BBOOL) -> Result<Vec<CK_SLOT_ID>, CK_RV> {
    let mut count = 0;
    let code = ask!(
        call.real,
        C_GetSlotList(token_present, ptr::null_mut(), &mut count)
    );
    if code != CKR_OK {
        return Err(code);
    }
    let mut slots = vec![0; count as usize];
    let code = ask!(
        call.real,
        C_GetSlotList(token_present, slots.as_mut_ptr(), &mut count)
    );
    if code != CKR_OK {
        return Err(code);
    }
    slots.truncate(count as usize);
    Ok(slots)
}

unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    call(Function::C_GetSlotInfo, About::default(), |call| {
        let slot = call.slot(slot);
        let code = ask!(call.real, C_GetSlotInfo(slot, info));
        if code == CKR_OK && !info.is_null() && call.hides_token(slot) {
            // SAFETY: the real module has just written the info here.
            unsafe { (*info).flags &= !CKF_TOKEN_PRESENT };
        }
        Ok(code)
    })
}

unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    call(Function::C_GetTokenInfo, About::default(), |call| {
        let code = ask!(call.real, C_GetTokenInfo(call.slot_with_token(slot)?, info));
        if let Some(limit) = &call.rules.session_limit
            && limit.is_reported
            && code == CKR_OK
            && !info.is_null()
        {
            // SAFETY: the real module has just written the info here.
            let info = unsafe { &mut *info };
            info.ulMaxSessionCount = limit.most as CK_ULONG;
            info.ulMaxRwSessionCount = limit.most as CK_ULONG;
        }
        if let Some(lock) = &call.rules.pin_lock
            && code == CKR_OK
            && !info.is_null()
        {
            let tries = call.token.counted(WRONG_PINS, |tries| tries)?;
            // SAFETY: the real module has just written the info here.
            let flags = unsafe { &mut (*info).flags };
            *flags &= !(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED);
            if !lock.has_flags {
                return Ok(code);
            }
            if tries >= lock.tries {
                *flags |= CKF_USER_PIN_LOCKED;
            } else if tries > 0 {
                *flags |= CKF_USER_PIN_COUNT_LOW;
                if tries + 1 == lock.tries {
                    *flags |= CKF_USER_PIN_FINAL_TRY;
                }
            }
        }
        Ok(code)
    })
}

unsafe extern "C" fn C_GetMechanismList(
    slot: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    count: Length,
) -> CK_RV {
    call(Function::C_GetMechanismList, About::default(), |call| {
        let slot = call.slot_with_token(slot)?;
        Ok(ask!(call.real, C_GetMechanismList(slot, list, count)))
    })
}

unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    kind: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    call(Function::C_GetMechanismInfo, About::default(), |call| {
        let slot = call.slot_with_token(slot)?;
        Ok(ask!(call.real, C_GetMechanismInfo(slot, kind, info)))
    })
}

unsafe extern "C" fn C_InitToken(
    slot: CK_SLOT_ID,
    pin: Bytes,
    length: CK_ULONG,
    label: Bytes,
) -> CK_RV {
    call(Function::C_InitToken, About::default(), |call| {
        let slot = call.slot_with_token(slot)?;
        Ok(ask!(call.real, C_InitToken(slot, pin, length, label)))
    })
}

unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    call(Function::C_OpenSession, About::default(), |call| {
        let slot = call.slot_with_token(slot)?;
        let mut code = CKR_SESSION_COUNT;
        let limit = call.rules.session_limit.as_ref();
        let opened = call.world.open(call.token, slot, limit, || {
            code = ask!(
                call.real,
                C_OpenSession(slot, flags, application, notify, session)
            );
            // SAFETY: with CKR_OK the real module has written the handle.
            (code == CKR_OK).then(|| unsafe { *session })
        })?;
        if !opened && let Some(limit) = limit {
            call.token.applied(&limit.line);
        }
        Ok(code)
    })
}

unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    call(Function::C_CloseSession, About::session(session), |call| {
        let code = ask!(call.real, C_CloseSession(session));
        if code == CKR_OK {
            call.world.closed(session);
        }
        Ok(code)
    })
}

unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    call(Function::C_CloseAllSessions, About::default(), |call| {
        let slot = call.slot_with_token(slot)?;
        let code = ask!(call.real, C_CloseAllSessions(slot));
        if code == CKR_OK {
            call.world.all_closed(slot);
        }
        Ok(code)
    })
}

unsafe extern "C" fn C_GetSessionInfo(
    session: CK_SESSION_HANDLE,
    info: *mut CK_SESSION_INFO,
) -> CK_RV {
    call(
        Function::C_GetSessionInfo,
        About::session(session),
        |call| {
            let code = ask!(call.real, C_GetSessionInfo(session, info));
            if code == CKR_OK && !info.is_null() {
                // SAFETY: the real module has just written the info here.
                unsafe { (*info).slotID = call.slot_number((*info).slotID) };
            }
            Ok(code)
        },
    )
}

unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: Bytes,
    length: CK_ULONG,
) -> CK_RV {
    let about = About::session(session).login(user, length);
    call(Function::C_Login, about, |call| {
        let is_user = user == CKU_USER;
        let lock = call.rules.pin_lock.as_ref().filter(|_| is_user);
        if let Some(lock) = lock
            && call.token.counted(WRONG_PINS, |tries| tries)? >= lock.tries
        {
            call.token.applied(&lock.line);
            return Ok(CKR_PIN_LOCKED);
        }
        let code = ask!(call.real, C_Login(session, user, pin, length));
        if is_user && has_judged(code) && call.token.control.path().is_some() {
            call.token.counted("judged", |judged| judged + 1)?;
            call.journal(|| format!("judged {}", codes::name(code)));
        }
        if lock.is_some() {
            match code {
                CKR_OK => call.token.counted(WRONG_PINS, |_| 0)?,
                CKR_PIN_INCORRECT => call.token.counted(WRONG_PINS, |tries| tries + 1)?,
                _ => 0,
            };
        }
        if code == CKR_OK && is_user && call.rules.objects_at_initialize.is_some() {
            call.world.look_at_objects(call.real, session);
        }
        Ok(code)
    })
}

/// Next to the control file: how many wrong PINs there were since the last right one.
const WRONG_PINS: &str = "wrong-pins";

/// Whether the real module has looked at the PIN before it gave this answer.
const fn has_judged(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_OK | CKR_PIN_EXPIRED | CKR_PIN_INCORRECT | CKR_PIN_INVALID | CKR_PIN_LEN_RANGE
    )
}

unsafe extern "C" fn C_FindObjects(
    session: CK_SESSION_HANDLE,
    list: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: Length,
) -> CK_RV {
    call(Function::C_FindObjects, About::session(session), |call| {
        loop {
            let code = ask!(call.real, C_FindObjects(session, list, most, count));
            if code != CKR_OK || list.is_null() || count.is_null() {
                return Ok(code);
            }
            // SAFETY: the real module has written `count` handles to `list`.
            let found = unsafe { slice::from_raw_parts_mut(list, *count as usize) };
            let mut kept = 0;
            for place in 0..found.len() {
                if !call.hides(found[place]) && !call.has_not_seen(found[place]) {
                    found[kept] = call.number(found[place]);
                    kept += 1;
                }
            }
            // None would mean that the search is at its end.
            if kept > 0 || found.is_empty() {
                // SAFETY: `count` is the caller's, and not NULL.
                unsafe { *count = kept as CK_ULONG };
                return Ok(code);
            }
        }
    })
}

unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: Bytes,
    length: CK_ULONG,
    mac: Bytes,
    mac_length: Length,
) -> CK_RV {
    let about = About::session(session).message((data, length));
    call(Function::C_Sign, about, |call| {
        Ok(perhaps_wrong(call, mac, mac_length, |mac, mac_length| {
            ask!(call.real, C_Sign(session, data, length, mac, mac_length))
        }))
    })
}

unsafe extern "C" fn C_SignFinal(
    session: CK_SESSION_HANDLE,
    mac: Bytes,
    mac_length: Length,
) -> CK_RV {
    call(Function::C_SignFinal, About::session(session), |call| {
        Ok(perhaps_wrong(call, mac, mac_length, |mac, mac_length| {
            ask!(call.real, C_SignFinal(session, mac, mac_length))
        }))
    })
}

/// Signs into the caller's buffer, unless he is to get something else than the MAC.
fn perhaps_wrong(
    call: &Call<'_>,
    mac: Bytes,
    mac_length: Length,
    sign: impl Fn(Bytes, Length) -> CK_RV,
) -> CK_RV {
    if call.is_discarded {
        let mut made = DISCARDED as CK_ULONG;
        return sign([0; DISCARDED].as_mut_ptr(), &mut made);
    }
    if mac.is_null() || mac_length.is_null() {
        return sign(mac, mac_length);
    }
    let Some(wrong) = call.wrong_mac() else {
        return sign(mac, mac_length);
    };
    // SAFETY: `mac_length` is the caller's, and not NULL.
    let mac_length = unsafe { &mut *mac_length };
    let mut buffer = [0; DISCARDED];
    let mut made = (*mac_length).min(DISCARDED as CK_ULONG);
    let code = sign(buffer.as_mut_ptr(), &mut made);
    if code != CKR_OK {
        *mac_length = made;
        return code;
    }
    let length = made as usize;
    let (written, said) = match wrong {
        WrongMac::FlippedBit => {
            buffer[0] ^= 1;
            (length, length)
        }
        WrongMac::Truncated => (length / 2, length / 2),
        WrongMac::WrongLength => (length, length.saturating_sub(1)),
    };
    *mac_length = said as CK_ULONG;
    // SAFETY: the real module was told of no more room than the caller's buffer has.
    unsafe { ptr::copy_nonoverlapping(buffer.as_ptr(), mac, written) };
    code
}

/// Not through [`call`]: this may wait for ever, and must not keep others from the real module.
unsafe extern "C" fn C_WaitForSlotEvent(
    flags: CK_FLAGS,
    slot: *mut CK_SLOT_ID,
    reserved: *mut c_void,
) -> CK_RV {
    let Some(token) = FaultToken::loaded() else {
        return CKR_GENERAL_ERROR;
    };
    let function = Function::C_WaitForSlotEvent;
    let code = match before(token, function) {
        Err(code) => code,
        Ok(rules) => {
            let code = ask!(token.real, C_WaitForSlotEvent(flags, slot, reserved));
            if code == CKR_OK && !slot.is_null() {
                let world = token.world.read();
                let world = world.unwrap_or_else(std::sync::PoisonError::into_inner);
                // SAFETY: the real module has just written the slot id here.
                unsafe { *slot = (*slot).wrapping_add(world.slot_offset(&rules)) };
            }
            code
        }
    };
    token.log_call(function, || codes::name(code));
    code
}
