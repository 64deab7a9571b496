//! The only `unsafe` of hsmac: the hot path's two PKCS#11 calls, C_Initialize's reserved string, and
//! info calls whose answers cryptoki cannot parse.
//!
//! cryptoki 0.12.1's `Session::sign` makes three calls: it asks for the length first, which is one
//! round trip more on a network HSM. Until a release has the two-call form, this file calls
//! C_SignInit and C_Sign itself, through handles that cryptoki owns.

#![allow(
    unsafe_code,
    reason = "foreign function calls; each block says why it is sound"
)]

use std::{
    ffi::{CString, c_void},
    path::Path,
    ptr::{self, NonNull},
};

use cryptoki::context::Function;
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, Rv},
    object::ObjectHandle,
    session::Session,
    slot::Slot,
};
use cryptoki_sys::{
    CK_FALSE, CK_FUNCTION_LIST, CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RV,
    CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID, CK_STATE, CK_TOKEN_INFO, CK_ULONG, CKR_OK,
};

/// The longest MAC; every C_Sign gets a buffer of this size, because NSS truncates silently and
/// openCryptoki overruns when the buffer is short.
pub(super) const MAX_MAC: usize = 64;

type SignInit =
    unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV;
type Sign =
    unsafe extern "C" fn(CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV;

/// C_SignInit and C_Sign of the module that cryptoki has loaded.
pub(super) struct TwoCalls {
    sign_init: SignInit,
    sign: Sign,
    // The functions live as long as the library is loaded.
    _library: cryptoki_sys::Pkcs11,
}

impl TwoCalls {
    /// Loads the module a second time, which on most modules is the same instance, and asks it for
    /// a session that cryptoki opened. `None` where the second load is another instance that knows
    /// nothing of that session (p11-kit's client), or lacks a function.
    pub(super) fn probe(module: &Path, session: &Session, slot: Slot) -> Option<Self> {
        // SAFETY: loading runs the library's initialisers, as cryptoki's own load did just before;
        // whoever configures a module path trusts that code.
        let library = unsafe { cryptoki_sys::Pkcs11::new(module) }.ok()?;
        let function_list = *library.C_GetFunctionList.as_ref().ok()?;
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: C_GetFunctionList writes one pointer (PKCS#11 v3.1 §5.4), for which `list` has room.
        let code = unsafe { function_list(&mut list) };
        if code != CKR_OK || list.is_null() {
            return None;
        }
        // SAFETY: the pointer came from C_GetFunctionList with CKR_OK and points into the library,
        // which `library` keeps loaded.
        let list = unsafe { &*list };
        let session_info = list.C_GetSessionInfo?;
        let mut info = CK_SESSION_INFO::default();
        // SAFETY: a live session's handle, and room for one CK_SESSION_INFO.
        let code = unsafe { session_info(session.handle(), &mut info) };
        (code == CKR_OK && info.slotID == slot.id() as CK_ULONG).then_some(())?;
        Some(Self {
            sign_init: list.C_SignInit?,
            sign: list.C_Sign?,
            _library: library,
        })
    }

    /// C_SignInit and C_Sign; returns the length that the module says it wrote.
    ///
    /// # Errors
    /// What the module returned, with the function that returned it.
    pub(super) fn sign(
        &self,
        session: &Session,
        mechanism: CK_MECHANISM_TYPE,
        key: ObjectHandle,
        message: &[u8],
        mac: &mut [u8; MAX_MAC],
    ) -> Result<usize, Error> {
        // An HMAC has no parameter: NULL and 0, since TPM2 refuses a pointer even with length 0.
        let mut mechanism = CK_MECHANISM {
            mechanism,
            pParameter: ptr::null_mut(),
            ulParameterLen: 0,
        };
        // SAFETY: `session` is open (cryptoki closes it on drop only) and used by this thread alone
        // (Session is not Sync); `mechanism` outlives the call, which only reads it.
        let code = unsafe { (self.sign_init)(session.handle(), &mut mechanism, key.handle()) };
        refused(code, Function::SignInit)?;
        let mut length = MAX_MAC as CK_ULONG;
        // SAFETY: the message pointer is never NULL, not even for an empty slice, and the module
        // only reads it; `mac` has room for `length` bytes.
        let code = unsafe {
            (self.sign)(
                session.handle(),
                message.as_ptr().cast_mut(),
                message.len() as CK_ULONG,
                mac.as_mut_ptr(),
                &mut length,
            )
        };
        refused(code, Function::Sign)?;
        Ok(length as usize)
    }
}

type GetTokenInfo = unsafe extern "C" fn(CK_SLOT_ID, *mut CK_TOKEN_INFO) -> CK_RV;
type GetSessionInfo = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_SESSION_INFO) -> CK_RV;

/// C_GetTokenInfo and C_GetSessionInfo of the module that cryptoki has initialised. cryptoki parses
/// each field, and one that a module fills with nonsense costs it the whole answer.
pub(super) struct InfoCalls {
    token_info: GetTokenInfo,
    session_info: GetSessionInfo,
    // The functions live as long as the library is loaded.
    _library: cryptoki_sys::Pkcs11,
}

impl InfoCalls {
    /// Loads the module a second time; `None` where that is another instance, which nobody has
    /// initialised (p11-kit's client), or lacks a function.
    pub(super) fn probe(module: &Path) -> Option<Self> {
        // SAFETY: as in `TwoCalls::probe`.
        let library = unsafe { cryptoki_sys::Pkcs11::new(module) }.ok()?;
        let function_list = *library.C_GetFunctionList.as_ref().ok()?;
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: C_GetFunctionList writes one pointer (PKCS#11 v3.1 §5.4), for which `list` has room.
        let code = unsafe { function_list(&mut list) };
        if code != CKR_OK || list.is_null() {
            return None;
        }
        // SAFETY: the pointer came from C_GetFunctionList with CKR_OK and points into the library,
        // which `library` keeps loaded.
        let list = unsafe { &*list };
        let slot_list = list.C_GetSlotList?;
        let mut count = 0;
        // SAFETY: without a buffer the module writes the number of slots alone.
        let code = unsafe { slot_list(CK_FALSE, ptr::null_mut(), &mut count) };
        (code == CKR_OK).then_some(())?;
        Some(Self {
            token_info: list.C_GetTokenInfo?,
            session_info: list.C_GetSessionInfo?,
            _library: library,
        })
    }

    /// CK_TOKEN_INFO as the module fills it.
    ///
    /// # Errors
    /// What C_GetTokenInfo returned.
    pub(super) fn token_info(&self, slot: Slot) -> Result<CK_TOKEN_INFO, Error> {
        let mut info = CK_TOKEN_INFO::default();
        // SAFETY: `info` has room for one CK_TOKEN_INFO, which is all that the module writes.
        let code = unsafe { (self.token_info)(slot.id() as CK_SLOT_ID, &mut info) };
        refused(code, Function::GetTokenInfo)?;
        Ok(info)
    }

    /// CK_SESSION_INFO.state as the module says it.
    ///
    /// # Errors
    /// What C_GetSessionInfo returned.
    pub(super) fn session_state(&self, session: &Session) -> Result<CK_STATE, Error> {
        let mut info = CK_SESSION_INFO::default();
        // SAFETY: a live session's handle, and room for one CK_SESSION_INFO.
        let code = unsafe { (self.session_info)(session.handle(), &mut info) };
        refused(code, Function::GetSessionInfo)?;
        Ok(info.state)
    }
}

/// C_Initialize with OS locking, always: SoftHSM2 segfaults under threads without it. `reserved` is
/// the string that some modules (NSS) want in pReserved.
pub(super) fn initialize(module: &Pkcs11, reserved: &str) -> Result<(), Error> {
    if reserved.is_empty() {
        return module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    }
    let reserved = CString::new(reserved).map_err(Error::NulError)?;
    // Some modules keep the pointer: the string is never freed. One per process.
    let pointer = NonNull::from(Box::leak(reserved.into_boxed_c_str())).cast::<c_void>();
    // SAFETY: a NUL-terminated string that lives for ever is what modules with this convention read.
    let args =
        unsafe { CInitializeArgs::new_with_reserved(CInitializeFlags::OS_LOCKING_OK, pointer) };
    module.initialize(args)
}

fn refused(code: CK_RV, function: Function) -> Result<(), Error> {
    match Rv::from(code) {
        Rv::Ok => Ok(()),
        Rv::Error(code) => Err(Error::Pkcs11(code, function)),
    }
}
