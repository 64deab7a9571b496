//! The errors that every part of the room answers with: KMS's texts, and what a fault of the token or
//! the store is to a client.
//!
//! Promises: a private cause (a C function, a CKR code, a fault of the store) stays in
//! [`Error::cause`], which only the log reads.

use std::{error::Error as StdError, time::Duration};

use crate::{
    error::{Error, Kind, Violation},
    model::{Caller, Operation, Origin, Refusal},
    token,
};

/// What a token's fault with a key is to a client.
pub(super) fn from_key(fault: token::Fault, arn: &str) -> Error {
    match fault {
        token::Fault::Key(_) => unavailable(arn).because(fault),
        token::Fault::Message(_) => Error::violations(vec![Violation::new(
            "message",
            "Member must be a message that the key's token accepts; this token accepts only shorter ones",
        )])
        .because(fault),
        token::Fault::Job(_) => Error::violations(vec![Violation::new(
            "message",
            "Member must be a message that the key's token can process; it fails with this one and answers others",
        )])
        .because(fault),
        token::Fault::Saturated(_)
        | token::Fault::Deadline(_)
        | token::Fault::Unavailable(_)
        | token::Fault::Unsupported(_)
        | token::Fault::Unknown(_)
        | token::Fault::Closed
        | token::Fault::Internal(_) => from_token(fault),
    }
}

/// Says in the log who was refused because too many calls wait: it may be who has sent them.
pub(super) fn asked_by(caller: &Caller, error: Error) -> Error {
    match error.cause() {
        Some(cause) if error.kind() == Kind::Throttling => {
            let cause = format!("{cause}; asked by {caller}");
            error.because(cause)
        }
        Some(_) | None => error,
    }
}

/// What a token's fault is to a client where no key is involved.
pub(super) fn from_token(fault: token::Fault) -> Error {
    let error = match &fault {
        token::Fault::Saturated(_) => Error::new(
            Kind::Throttling,
            "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
        )
        .retry_after(SATURATION_PAUSE),
        token::Fault::Deadline(_) | token::Fault::Unknown(_) => timed_out(),
        token::Fault::Unavailable(_) => Error::new(
            Kind::KeyUnavailable,
            "The request was rejected because the token was not available. You can retry the request.",
        ),
        token::Fault::Unsupported(_) => Error::new(
            Kind::UnsupportedOperation,
            "The request was rejected because the token does not support the operation.",
        ),
        token::Fault::Key(_)
        | token::Fault::Message(_)
        | token::Fault::Job(_)
        | token::Fault::Closed
        | token::Fault::Internal(_) => Error::new(Kind::Internal, INTERNAL),
    };
    error.because(fault)
}

/// The deadline passed before there was an answer.
pub(crate) fn timed_out() -> Error {
    Error::new(
        Kind::DependencyTimeout,
        "The system timed out while trying to fulfill the request. You can retry the request.",
    )
}

/// A fault of hsmac's own, or of the store.
pub(super) fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::new(Kind::Internal, INTERNAL).because(cause)
}

/// The key cannot be used, and waiting does not cure that.
pub(super) fn unavailable(arn: &str) -> Error {
    Error::new(Kind::InvalidState, format!("{arn} is unavailable."))
}

/// The key's state does not allow the operation.
pub(super) fn wrong_state(refusal: Refusal, arn: &str) -> Error {
    let kind = match refusal {
        Refusal::Disabled => Kind::Disabled,
        Refusal::Creating
        | Refusal::NotPendingDeletion
        | Refusal::PendingDeletion
        | Refusal::PendingImport
        | Refusal::Unavailable => Kind::InvalidState,
    };
    Error::new(kind, format!("{arn} {refusal}"))
}

/// The configuration alone can change what it declares.
pub(super) fn declared(arn: &str) -> Error {
    Error::new(
        Kind::UnsupportedOperation,
        format!("{arn} is declared in the configuration, which alone can change it."),
    )
}

/// There is no such grant on the key.
pub(super) fn no_grant(grant_id: &str) -> Error {
    Error::new(Kind::NotFound, format!("Grant ID {grant_id} not found"))
}

/// The key's material does not come from where the operation needs it to.
pub(super) fn wrong_origin(origin: Origin, arn: &str) -> Error {
    Error::new(
        Kind::UnsupportedOperation,
        format!(
            "{arn} origin is {} which is not valid for this operation.",
            origin.name()
        ),
    )
}

/// Security: one text whether a key of another account exists or not.
pub(super) fn no_such_resource(caller: &Caller, operation: Operation) -> Error {
    Error::new(
        Kind::AccessDenied,
        format!(
            "User: {caller} is not authorized to perform: {} on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access",
            operation.action()
        ),
    )
}

const INTERNAL: &str =
    "The request was rejected because an internal exception occurred. The request can be retried.";

/// A full queue of the default length is worked off in about this time.
const SATURATION_PAUSE: Duration = Duration::from_millis(100);
