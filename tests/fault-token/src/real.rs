//! The real module.

use std::{env, ffi::OsString, path::Path, ptr};

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_SESSION_HANDLE,
    CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CKF_SERIAL_SESSION, CKR_OK, Pkcs11,
};

const USUAL: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// Calls a function of the real module: CKR_FUNCTION_NOT_SUPPORTED where it has none.
macro_rules! ask {
    ($real:expr, $name:ident($($argument:expr),* $(,)?)) => {
        match $real.$name {
            // SAFETY: the arguments are the caller's own, as PKCS#11 wants them, or this module's with
            // room for what the function writes; the list points into a library that stays loaded.
            Some(function) => unsafe { function($($argument),*) },
            None => cryptoki_sys::CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}
pub(crate) use ask;

/// Loads the module that FAULT_TOKEN_MODULE names, or SoftHSM2 where it usually is.
///
/// # Errors
/// Why it cannot be loaded, in words.
pub(crate) fn load() -> Result<&'static CK_FUNCTION_LIST, String> {
    let path = env::var_os("FAULT_TOKEN_MODULE")
        .or_else(|| {
            let usual = USUAL.iter().find(|path| Path::new(path).exists())?;
            Some(OsString::from(usual))
        })
        .ok_or("FAULT_TOKEN_MODULE names no module, and SoftHSM2 is not where it usually is")?;
    let named = |why: String| format!("{}: {why}", path.display());
    // SAFETY: loading runs the library's initialisers; who names a module trusts its code.
    let library = unsafe { Pkcs11::new(&path) }.map_err(|error| named(error.to_string()))?;
    let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
    let function_list = library
        .C_GetFunctionList
        .as_ref()
        .map_err(|error| named(error.to_string()))?;
    // SAFETY: `list` has room for the one pointer that C_GetFunctionList writes.
    let code = unsafe { function_list(&mut list) };
    if code != CKR_OK || list.is_null() {
        return Err(named(format!("C_GetFunctionList returned {code:#x}")));
    }
    // Many modules do not survive being unloaded; this one keeps the real one for good.
    std::mem::forget(library);
    // SAFETY: the list belongs to a library that is never unloaded.
    Ok(unsafe { &*list })
}

/// A session of this module's own, closed when it is dropped.
pub(crate) struct OwnSession {
    real: &'static CK_FUNCTION_LIST,
    pub(crate) handle: CK_SESSION_HANDLE,
}

impl OwnSession {
    pub(crate) fn open(real: &'static CK_FUNCTION_LIST, slot: CK_SLOT_ID) -> Option<Self> {
        let mut handle = 0;
        let (none, flags) = (ptr::null_mut(), CKF_SERIAL_SESSION);
        let code = ask!(real, C_OpenSession(slot, flags, none, None, &mut handle));
        (code == CKR_OK).then_some(Self { real, handle })
    }

    /// Every object that the application can see now.
    pub(crate) fn objects(&self) -> Vec<CK_OBJECT_HANDLE> {
        let mut all = Vec::new();
        if ask!(
            self.real,
            C_FindObjectsInit(self.handle, ptr::null_mut(), 0)
        ) != CKR_OK
        {
            return all;
        }
        let mut some = [0; 64];
        let mut count = 0;
        while ask!(
            self.real,
            C_FindObjects(self.handle, some.as_mut_ptr(), 64, &mut count)
        ) == CKR_OK
            && count > 0
        {
            all.extend_from_slice(
                &some[..usize::try_from(count).map_or(64, |count| count.min(64))],
            );
        }
        ask!(self.real, C_FindObjectsFinal(self.handle));
        all
    }
}

impl Drop for OwnSession {
    fn drop(&mut self) {
        ask!(self.real, C_CloseSession(self.handle));
    }
}

/// One attribute, if the object has it and shows it.
pub(crate) fn attribute(
    real: &CK_FUNCTION_LIST,
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    kind: CK_ATTRIBUTE_TYPE,
) -> Option<Vec<u8>> {
    let mut wanted = CK_ATTRIBUTE {
        type_: kind,
        pValue: ptr::null_mut(),
        ulValueLen: 0,
    };
    let code = ask!(real, C_GetAttributeValue(session, object, &mut wanted, 1));
    if code != CKR_OK || wanted.ulValueLen == CK_ULONG::MAX {
        return None;
    }
    let mut value = vec![0; usize::try_from(wanted.ulValueLen).ok()?];
    wanted.pValue = value.as_mut_ptr().cast();
    let code = ask!(real, C_GetAttributeValue(session, object, &mut wanted, 1));
    (code == CKR_OK).then_some(value)
}

/// The label of the token in a slot, without its padding.
pub(crate) fn token_label(real: &CK_FUNCTION_LIST, slot: CK_SLOT_ID) -> Option<String> {
    let mut info = CK_TOKEN_INFO::default();
    if ask!(real, C_GetTokenInfo(slot, &mut info)) != CKR_OK {
        return None;
    }
    let label = String::from_utf8_lossy(&info.label);
    Some(label.trim_end_matches(['\0', ' ']).to_owned())
}
