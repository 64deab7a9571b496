//! A PKCS#11 module that wraps a real one and misbehaves as a control file says.
//!
//! Every one of the 68 functions of PKCS#11 v2.40 goes through `call`: it looks at the rules
//! (`control`), does what they say beforehand (delay, hang, crash, another return code), asks the real
//! module, and writes the log. The rules themselves are read by `rule` and `when`; what this module must
//! remember between calls is in `world` (sessions, slots) and `objects` (other handle numbers).
//!
//! It promises that without rules the caller sees the real module and nothing else, whose handles and
//! slot ids it gets unchanged. It does not know the interfaces of PKCS#11 v3: a caller that asks for
//! C_GetInterface finds none and takes the function list.
//!
//! README.md has the rules.

mod call;
mod codes;
mod control;
mod files;
mod functions;
mod objects;
mod real;
mod rule;
mod token;
mod when;
mod world;

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_ARGUMENTS_BAD, CKR_GENERAL_ERROR, CKR_OK};

pub use crate::codes::names as names_of_codes;
use crate::token::FaultToken;

/// PKCS#11's way in: writes where the function list is.
///
/// # Errors
/// CKR_GENERAL_ERROR if the real module cannot be loaded; stderr says why.
///
/// # Safety
/// `list` is NULL or has room for one pointer, as PKCS#11 wants it.
#[allow(non_snake_case, reason = "PKCS#11's name")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    if FaultToken::loaded().is_none() {
        return CKR_GENERAL_ERROR;
    }
    // SAFETY: the caller gives room for a pointer; nobody may write through it (PKCS#11 v2.40 §5.4).
    unsafe { *list = (&raw const functions::LIST).cast_mut() };
    CKR_OK
}
