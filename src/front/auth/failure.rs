//! Why a caller is no principal.

use crate::{
    error::{Error, Kind},
    front::tls::date,
};

/// Why a caller is no principal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::front) enum AuthFailure {
    /// The caller has shown no proof.
    NoProof,
    /// The certificate stands for no principal, or no longer does.
    Unrecognized,
    /// The certificate has ended: when, in seconds since 1970.
    Expired(i64),
}

impl From<AuthFailure> for Error {
    fn from(failure: AuthFailure) -> Self {
        match failure {
            AuthFailure::NoProof => Self::new(
                Kind::MissingAuthenticationToken,
                "The request carries no proof of who the caller is, and the server admits nobody without.",
            ),
            AuthFailure::Unrecognized => Self::new(
                Kind::UnrecognizedClient,
                "The caller's certificate stands for no principal that the server knows.",
            ),
            AuthFailure::Expired(ended) => Self::new(
                Kind::UnrecognizedClient,
                format!("The caller's certificate ended at {}.", date(ended)),
            ),
        }
    }
}
