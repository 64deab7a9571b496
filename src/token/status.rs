//! What is known of a token, of a key's object in it, and of what went wrong.

use std::fmt;

use bytes::Bytes;

use crate::{
    model::{Hash, MacAlgorithm},
    proto::host::TokenFound,
    token::key::CheckValue,
};

/// Why a token did not do what it was asked. The text is for the log, never for a client.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The queue is full, or the token is busy: the call is refused at once.
    #[error("{0}")]
    Saturated(String),
    /// The deadline passed in the queue or in the token.
    #[error("the deadline passed: {0}")]
    Deadline(String),
    /// The token is away, refuses the PIN or keeps failing.
    #[error("the token is unavailable: {0}")]
    Unavailable(String),
    /// This key cannot serve, and waiting does not cure it.
    #[error("the key cannot serve: {0}")]
    Key(String),
    /// The token refuses this message (too long for it).
    #[error("the token refuses the message: {0}")]
    Message(String),
    /// The token fails with this very job, on fresh sessions too, and answers others.
    #[error("the job is at fault: {0}")]
    Job(String),
    /// The token cannot do this at all.
    #[error("the token cannot do this: {0}")]
    Unsupported(String),
    /// A host died, or did not answer, with a call that changes the token. It may have been made.
    #[error("what came of it is not known: {0}")]
    Unknown(String),
    /// The key was forgotten: whoever holds it must look at its record again.
    #[error("the key was closed meanwhile")]
    Closed,
    /// A bug of ours or of the module.
    #[error("{0}")]
    Internal(String),
}

impl Fault {
    /// Whether it is sure that nothing in the token was changed.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Saturated(_)
            | Self::Deadline(_)
            | Self::Key(_)
            | Self::Message(_)
            | Self::Job(_)
            | Self::Unsupported(_)
            | Self::Closed => true,
            Self::Unavailable(_) | Self::Unknown(_) | Self::Internal(_) => false,
        }
    }
}

/// How a token is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// The first host has not logged in yet.
    Starting,
    /// All hosts serve, or are being replaced.
    Up,
    /// Some hosts serve, and others cannot come up; the reason in words.
    Degraded(String),
    /// No host can come up; the reason in words.
    Away(String),
    /// The PIN was refused: nothing is tried until the PIN file changes or a person unlocks.
    PinRefused(String),
    /// Only an edit of the configuration or of the machine cures it.
    Misconfigured(String),
}

impl State {
    /// The names of all states.
    pub const NAMES: [&'static str; 6] = [
        "starting",
        "up",
        "degraded",
        "away",
        "pin_refused",
        "misconfigured",
    ];

    /// Its name, without the reason.
    pub const fn name(&self) -> &'static str {
        Self::NAMES[match self {
            Self::Starting => 0,
            Self::Up => 1,
            Self::Degraded(_) => 2,
            Self::Away(_) => 3,
            Self::PinRefused(_) => 4,
            Self::Misconfigured(_) => 5,
        }]
    }

    /// Whether the token can be asked.
    pub fn is_serving(&self) -> bool {
        match self {
            Self::Up | Self::Degraded(_) => true,
            Self::Starting | Self::Away(_) | Self::PinRefused(_) | Self::Misconfigured(_) => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Up => f.write_str("up"),
            Self::Degraded(reason) => write!(f, "degraded: {reason}"),
            Self::Away(reason) | Self::PinRefused(reason) | Self::Misconfigured(reason) => {
                f.write_str(reason)
            }
        }
    }
}

/// What the token says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenInfo {
    /// CK_TOKEN_INFO.label
    pub label: String,
    /// CK_TOKEN_INFO.manufacturerID
    pub manufacturer: String,
    /// CK_TOKEN_INFO.model
    pub model: String,
    /// CK_TOKEN_INFO.serialNumber
    pub serial: String,
}

impl From<TokenFound> for TokenInfo {
    fn from(found: TokenFound) -> Self {
        Self {
            label: found.label,
            manufacturer: found.manufacturer,
            model: found.model,
            serial: found.serial,
        }
    }
}

/// What a host found when it logged in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// The token's own words.
    pub info: TokenInfo,
    /// The module's own words, with its path.
    pub module: String,
    /// Sessions that each host has for MACs.
    pub sessions: u32,
    /// Whether a MAC takes two PKCS#11 calls, or three.
    pub two_calls: bool,
    /// The algorithms whose mechanism the token lists.
    pub algorithms: Vec<MacAlgorithm>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// What came of the wish for a seal of the audit log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// How many leaves the host has sealed.
    pub size: u64,
    /// The root of these leaves.
    pub root: Hash,
    /// HMAC-SHA-256 of their checkpoint; none: nothing was sealed now, since the leaves begin elsewhere.
    pub seal: Option<Bytes>,
}

/// What a token says of a key's object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyFacts {
    /// The token's name in the configuration.
    pub token: String,
    /// The token's own words about itself.
    pub info: TokenInfo,
    /// CKA_SENSITIVE
    pub sensitive: bool,
    /// CKA_EXTRACTABLE
    pub extractable: bool,
    /// CKA_NEVER_EXTRACTABLE
    pub never_extractable: bool,
    /// CKA_LOCAL
    pub local: bool,
    /// The key check value.
    pub check_value: CheckValue,
}

/// What a destruction found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Destroyed {
    /// The object, which is gone now.
    Now,
    /// No object, although the token is well.
    WasGone,
}
