//! Why hsmac does not run.

use crate::{kms, store};

/// Why hsmac does not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration, or something that it names, must be changed.
    #[error("{0}")]
    Configuration(String),
    /// Something that hsmac cannot start without is not available; a later start may succeed.
    #[error("{0}")]
    Away(String),
    /// A bug, or a system without resources.
    #[error("{0}")]
    Internal(String),
    /// SIGTERM or SIGINT came before hsmac served; not a fault.
    #[error("ended before it served")]
    Ended,
}

impl From<store::OpenFault> for AppError {
    fn from(fault: store::OpenFault) -> Self {
        match fault {
            store::OpenFault::Configuration(text) => Self::Configuration(text),
            store::OpenFault::Away(text) => Self::Away(text),
        }
    }
}

impl From<kms::OpenFault> for AppError {
    fn from(fault: kms::OpenFault) -> Self {
        match fault {
            kms::OpenFault::Contradiction(text) => Self::Configuration(text),
            kms::OpenFault::Store(store::Fault::Damaged(text)) => Self::Configuration(text),
            kms::OpenFault::Store(fault) => Self::Away(fault.to_string()),
        }
    }
}
