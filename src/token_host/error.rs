//! One table: what a return code of a C function means for the job, the session and the host.
//!
//! One fault has a different code in every module (link cut: CKR_DEVICE_ERROR on p11-kit,
//! CKR_GENERAL_ERROR on tpm2, nothing on openCryptoki), so a code says what to *try*; what it was is
//! found by trying. No code makes a tag: whatever is not CKR_OK with the right length is dropped.

use std::fmt;

use cryptoki::{
    context::Function,
    error::{Error, RvError},
};

use crate::proto::host::{Fault, FaultClass, LoginVerdict};

/// What to do about a fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// The message does not fit this token; the caller is told.
    Caller,
    /// The key cannot do this, and waiting does not cure it.
    Key,
    /// The object makes another check value than the key must have.
    OtherKey,
    /// The object handle means nothing any more: find the object again.
    Handle,
    /// Try once on a fresh session; a second time it ends the generation.
    Session,
    /// No more sessions: live with fewer.
    SessionLimit,
    /// The token fails with this message on fresh sessions too; the key makes its check value.
    MessageFails,
    /// The token fails with this key on fresh sessions too, and answers others.
    KeyFails,
    /// The token has more to do than it can: later, and with fewer calls at once.
    Busy,
    /// This generation of the module is over; a fresh one may do better.
    Generation,
    /// The token is out; a fresh generation looks for it.
    Away,
    /// The PIN was refused: nobody tries again without a person's word.
    Pin,
    /// The token does not make an object from this template: another one may do.
    Template,
    /// The token cannot do this at all.
    Unsupported,
    /// The module cannot be used as it is configured.
    Configuration,
    /// hsmac or the module broke the standard.
    Bug,
}

/// A fault with its class and the words for the log.
#[derive(Clone, Debug)]
pub(super) struct HostError {
    pub(super) class: Class,
    function: String,
    code: String,
    reason: String,
    unanswered: bool,
}

impl HostError {
    /// A fault that no C function returned.
    pub(super) fn new(class: Class, reason: impl Into<String>) -> Self {
        Self {
            class,
            function: String::new(),
            code: String::new(),
            reason: reason.into(),
            unanswered: false,
        }
    }

    /// Says what the fault was about.
    pub(super) fn about(mut self, what: &str) -> Self {
        self.reason = if self.reason.is_empty() {
            what.into()
        } else {
            format!("{what}: {}", self.reason)
        };
        self
    }

    /// Gives the fault another class, by somebody who knows more.
    pub(super) fn judged(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The token failed twice with the job, and answered no other question after it.
    pub(super) fn unanswered(mut self) -> Self {
        self.unanswered = true;
        self
    }

    /// Whether the end of the generation is to be charged to the job.
    pub(super) fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Whether busy tokens say this (facts: CloudHSM, network HSMs at their limit of sessions).
    pub(super) fn may_be_load(&self) -> bool {
        let codes = [
            "CKR_FUNCTION_FAILED",
            "CKR_OPERATION_ACTIVE",
            "CKR_SESSION_COUNT",
        ];
        codes.contains(&self.code.as_str()) || self.code.starts_with("CKR_VENDOR_DEFINED")
    }

    /// For the wire.
    pub(super) fn fault(&self) -> Fault {
        let class = match self.class {
            Class::Caller => FaultClass::Caller,
            Class::Key => FaultClass::Key,
            Class::OtherKey => FaultClass::KeyDiffers,
            Class::Handle | Class::Session | Class::SessionLimit | Class::Generation => {
                FaultClass::Retry
            }
            Class::MessageFails => FaultClass::MessageFails,
            Class::KeyFails => FaultClass::KeyFails,
            Class::Busy => FaultClass::Busy,
            Class::Away => FaultClass::TokenAway,
            Class::Pin => FaultClass::Pin,
            Class::Template | Class::Unsupported => FaultClass::Unsupported,
            Class::Configuration => FaultClass::Configuration,
            Class::Bug => FaultClass::Bug,
        };
        Fault {
            class: class.into(),
            function: self.function.clone(),
            code: self.code.clone(),
            reason: self.reason.clone(),
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = [&self.function, &self.code].map(String::as_str).join(" ");
        let parts = [self.reason.as_str(), call.trim()];
        f.write_str(
            &parts
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(": "),
        )
    }
}

impl From<Error> for HostError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "cryptoki adds variants in minor releases; each is an answer that makes no sense"
    )]
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(code, function) => Self {
                class: class(function, code),
                function: format!("C_{function:?}"),
                code: name(code),
                reason: String::new(),
                unanswered: false,
            },
            Error::LibraryLoading(cause) => Self::new(
                Class::Configuration,
                format!("the module cannot be loaded: {cause}"),
            ),
            Error::MissingSymbol(symbol) => Self::new(
                Class::Configuration,
                format!("the file is no PKCS#11 library: it has no {symbol}"),
            ),
            Error::NullFunctionPointer | Error::NotSupported => {
                Self::new(Class::Unsupported, "the module lacks the function")
            }
            // Conversions of what the module answered: no code says it, the answer makes no sense.
            other => Self::new(
                Class::Session,
                format!("the module's answer makes no sense: {other}"),
            ),
        }
    }
}

/// The table: `facts` of six modules and ten vendors, row by row in the order of the standard.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "vendors' own codes are open-ended: they are tried on a fresh session"
)]
fn class(function: Function, code: RvError) -> Class {
    use RvError as Ckr;
    let starting = matches!(
        function,
        Function::Initialize
            | Function::GetSlotList
            | Function::GetSlotInfo
            | Function::GetTokenInfo
    );
    let signing = matches!(function, Function::SignInit | Function::Sign);
    // What every token can do: a token that says otherwise does not mean it.
    let searching = matches!(
        function,
        Function::FindObjectsInit
            | Function::FindObjects
            | Function::FindObjectsFinal
            | Function::GetAttributeValue
            | Function::OpenSession
            | Function::GetSessionInfo
    );
    let creating = matches!(function, Function::GenerateKey | Function::CreateObject);
    match code {
        // The template: modules disagree about what of it they take, and about the code that says
        // so (facts: tpm2 says CKR_FUNCTION_NOT_SUPPORTED, openCryptoki CKR_KEY_SIZE_RANGE).
        Ckr::TemplateIncomplete
        | Ckr::TemplateInconsistent
        | Ckr::AttributeReadOnly
        | Ckr::AttributeTypeInvalid
        | Ckr::AttributeValueInvalid
        | Ckr::MechanismInvalid
        | Ckr::MechanismParamInvalid
        | Ckr::KeySizeRange
        | Ckr::KeyTypeInconsistent
        | Ckr::KeyFunctionNotPermitted
        | Ckr::FunctionNotSupported
        | Ckr::FunctionRejected
        | Ckr::ActionProhibited
        | Ckr::ArgumentsBad
            if creating =>
        {
            Class::Template
        }

        // The message.
        Ckr::DataInvalid | Ckr::DataLenRange if signing => Class::Caller,
        // We always give 64 bytes: tpm2-pkcs11 says this of a message that is too long.
        Ckr::BufferTooSmall if signing => Class::Caller,

        // The key.
        Ckr::KeySizeRange
        | Ckr::KeyTypeInconsistent
        | Ckr::KeyFunctionNotPermitted
        | Ckr::FunctionRejected
        | Ckr::ActionProhibited
            if !searching =>
        {
            Class::Key
        }
        // On a key that was proved: the handle has changed its meaning, or the key never could.
        Ckr::MechanismInvalid | Ckr::FunctionNotSupported if signing => Class::Key,
        Ckr::MechanismInvalid | Ckr::FunctionNotSupported | Ckr::RandomNoRng
            if !signing && !searching =>
        {
            Class::Unsupported
        }
        // The token, or the session that it gave us, is read-only.
        Ckr::TokenWriteProtected | Ckr::SessionReadOnly
            if creating || matches!(function, Function::DestroyObject | Function::OpenSession) =>
        {
            Class::Unsupported
        }
        Ckr::ObjectHandleInvalid | Ckr::KeyHandleInvalid | Ckr::KeyChanged | Ckr::KeyNeeded => {
            Class::Handle
        }

        // The session.
        Ckr::OperationActive
        | Ckr::OperationNotInitialized
        | Ckr::FunctionCanceled
        | Ckr::Cancel
        | Ckr::FunctionFailed
        | Ckr::DeviceMemory => Class::Session,
        Ckr::SessionCount => Class::SessionLimit,
        // NSS, kryoptic, tpm2 and link losses hide behind these two: a fresh session first.
        Ckr::GeneralError | Ckr::DeviceError if !starting => Class::Session,

        // The generation.
        Ckr::SessionHandleInvalid
        | Ckr::SessionClosed
        | Ckr::UserNotLoggedIn
        | Ckr::CryptokiNotInitialized => Class::Generation,

        // The token.
        Ckr::DeviceRemoved
        | Ckr::TokenNotPresent
        | Ckr::TokenNotRecognized
        | Ckr::SlotIdInvalid
        | Ckr::HostMemory
        | Ckr::GeneralError
        | Ckr::DeviceError => Class::Away,
        // A token that its SO is still preparing: there is no PIN that could be wrong or be locked.
        Ckr::UserPinNotInitialized => Class::Away,

        // The PIN: a retry may lock the token.
        Ckr::PinIncorrect
        | Ckr::PinInvalid
        | Ckr::PinLenRange
        | Ckr::PinExpired
        | Ckr::PinLocked => Class::Pin,

        // What only another setting cures; later than at the start they make no sense.
        Ckr::CantLock
        | Ckr::NeedToCreateThreads
        | Ckr::LibraryLoadFailed
        | Ckr::CryptokiAlreadyInitialized
            if starting =>
        {
            Class::Configuration
        }
        Ckr::FipsSelfTestFailed => Class::Generation,

        Ckr::ArgumentsBad
        | Ckr::MechanismParamInvalid
        | Ckr::UserAnotherAlreadyLoggedIn
        | Ckr::UserTooManyTypes
        | Ckr::UserTypeInvalid
        | Ckr::SessionReadWriteSoExists
        | Ckr::AttributeReadOnly
        | Ckr::AttributeSensitive
        | Ckr::AttributeTypeInvalid
        | Ckr::AttributeValueInvalid
        | Ckr::TemplateIncomplete
        | Ckr::TemplateInconsistent => Class::Bug,

        // Vendors' own codes and what the standard does not foresee here.
        _ => Class::Session,
    }
}

/// What C_Login's return code says of the PIN.
///
/// Security: real modules say CKR_GENERAL_ERROR, CKR_ARGUMENTS_BAD or CKR_DATA_LEN_RANGE of a wrong PIN.
/// So only what cannot have judged one is listed as that, and whatever is in neither list is unclear.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "vendors' own codes are open-ended, and each may have judged a PIN"
)]
fn login_verdict(code: RvError) -> LoginVerdict {
    use RvError as Ckr;
    match code {
        Ckr::PinIncorrect
        | Ckr::PinInvalid
        | Ckr::PinLenRange
        | Ckr::PinExpired
        | Ckr::PinLocked => LoginVerdict::Refused,
        Ckr::TokenNotPresent
        | Ckr::DeviceRemoved
        | Ckr::SessionClosed
        | Ckr::SessionCount
        | Ckr::SessionExists
        | Ckr::SessionHandleInvalid
        | Ckr::SessionReadOnly
        | Ckr::SessionReadOnlyExists
        | Ckr::UserPinNotInitialized => LoginVerdict::NotJudged,
        _ => LoginVerdict::Unclear,
    }
}

/// What an error of C_Login says of the PIN.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer that makes no sense may be one about the PIN"
)]
pub(super) fn verdict_of_login(error: &Error) -> LoginVerdict {
    match error {
        Error::Pkcs11(code, _) => login_verdict(*code),
        _ => LoginVerdict::Unclear,
    }
}

/// `CKR_…` as the standard spells it.
fn name(code: RvError) -> String {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all others are the standard's"
    )]
    let debug = match code {
        RvError::VendorDefined(number) => return format!("CKR_VENDOR_DEFINED {number:#x}"),
        RvError::UnknownErrorCode(number) => return format!("CKR {number:#x}"),
        known => format!("{known:?}"),
    };
    let mut name = String::from("CKR");
    for letter in debug.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_standard_s_names() {
        assert_eq!(
            name(RvError::SessionHandleInvalid),
            "CKR_SESSION_HANDLE_INVALID"
        );
        assert_eq!(
            name(RvError::CryptokiNotInitialized),
            "CKR_CRYPTOKI_NOT_INITIALIZED"
        );
        assert_eq!(
            name(RvError::VendorDefined(0x8000_0001)),
            "CKR_VENDOR_DEFINED 0x80000001"
        );
        let error = HostError::from(Error::Pkcs11(RvError::PinIncorrect, Function::Login));
        assert_eq!(error.fault().function, "C_Login");
        assert_eq!(error.fault().code, "CKR_PIN_INCORRECT");
    }

    #[test]
    fn a_pin_fault_is_never_a_reason_to_try_again() {
        for code in [
            RvError::PinIncorrect,
            RvError::PinInvalid,
            RvError::PinLenRange,
            RvError::PinExpired,
            RvError::PinLocked,
        ] {
            assert_eq!(class(Function::Login, code), Class::Pin);
        }
        let unset = RvError::UserPinNotInitialized;
        assert_eq!(class(Function::Login, unset), Class::Away);
    }

    #[test]
    fn a_code_of_c_login_that_may_have_judged_the_pin_is_never_called_harmless() {
        for code in [
            RvError::GeneralError,
            RvError::ArgumentsBad,
            RvError::DataLenRange,
            RvError::DeviceError,
            RvError::FunctionFailed,
            RvError::HostMemory,
            RvError::OperationActive,
            RvError::SessionParallelNotSupported,
            RvError::SessionReadWriteSoExists,
            RvError::UserAnotherAlreadyLoggedIn,
            RvError::VendorDefined(0x8000_0001),
            RvError::UnknownErrorCode(0x7fff_fff0),
        ] {
            assert_eq!(login_verdict(code), LoginVerdict::Unclear, "{code:?}");
        }
        for code in [
            RvError::TokenNotPresent,
            RvError::DeviceRemoved,
            RvError::SessionHandleInvalid,
            RvError::UserPinNotInitialized,
        ] {
            assert_eq!(login_verdict(code), LoginVerdict::NotJudged, "{code:?}");
        }
        for code in [RvError::PinIncorrect, RvError::PinLocked] {
            assert_eq!(login_verdict(code), LoginVerdict::Refused, "{code:?}");
        }
    }

    #[test]
    fn the_same_code_means_another_thing_at_start() {
        assert_eq!(class(Function::Sign, RvError::GeneralError), Class::Session);
        assert_eq!(
            class(Function::GetTokenInfo, RvError::GeneralError),
            Class::Away
        );
        assert_eq!(
            class(Function::SignInit, RvError::MechanismInvalid),
            Class::Key
        );
        assert_eq!(
            class(Function::GenerateRandom, RvError::MechanismInvalid),
            Class::Unsupported
        );
    }

    #[test]
    fn a_refused_template_is_no_end_of_a_creation_and_a_lost_device_is() {
        for function in [Function::GenerateKey, Function::CreateObject] {
            for code in [
                RvError::TemplateIncomplete,
                RvError::TemplateInconsistent,
                RvError::AttributeReadOnly,
                RvError::AttributeTypeInvalid,
                RvError::AttributeValueInvalid,
                RvError::MechanismInvalid,
                RvError::MechanismParamInvalid,
                RvError::KeySizeRange,
                RvError::KeyTypeInconsistent,
                RvError::KeyFunctionNotPermitted,
                RvError::FunctionNotSupported,
                RvError::FunctionRejected,
                RvError::ActionProhibited,
                RvError::ArgumentsBad,
            ] {
                assert_eq!(class(function, code), Class::Template, "{code:?}");
            }
            for (code, wanted) in [
                (RvError::DeviceError, Class::Session),
                (RvError::GeneralError, Class::Session),
                (RvError::DeviceMemory, Class::Session),
                (RvError::FunctionFailed, Class::Session),
                (RvError::SessionHandleInvalid, Class::Generation),
                (RvError::UserNotLoggedIn, Class::Generation),
                (RvError::TokenNotPresent, Class::Away),
                (RvError::SessionReadOnly, Class::Unsupported),
                (RvError::TokenWriteProtected, Class::Unsupported),
            ] {
                assert_eq!(class(function, code), wanted, "{code:?}");
            }
        }
        // These codes of a destruction mean the object, not a template.
        for (code, wanted) in [
            (RvError::ActionProhibited, Class::Key),
            (RvError::ObjectHandleInvalid, Class::Handle),
            (RvError::TokenWriteProtected, Class::Unsupported),
        ] {
            assert_eq!(class(Function::DestroyObject, code), wanted, "{code:?}");
        }
    }
}
