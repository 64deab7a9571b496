//! The front's view of tokens: who asks for a MAC here learns nothing of PKCS#11.
//!
//! Hides: host processes, the queue, credits, replacement, PIN care. Promises: every call is
//! answered by its deadline; a MAC was made with exactly the key that the caller holds; a host that
//! dies costs no call that still has time. Does not: know who may use a key (that is `kms`).

mod key;
mod settings;
mod uri;

pub use key::{CheckValue, Key, Locator};
pub use settings::Settings;
pub use uri::{ObjectUri, TokenUri};

use std::{path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::sync::watch;

/// Why a token did not do what it was asked. The text is for the log, never for a client.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The queue is full: shed at the door.
    #[error("the queue of the token is full")]
    Saturated,
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
    /// The token cannot do this at all.
    #[error("the token cannot do this: {0}")]
    Unsupported(String),
    /// A bug of ours or of the module.
    #[error("{0}")]
    Internal(String),
}

/// How a token is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// The first host has not logged in yet.
    Starting,
    /// At least one host serves.
    Up,
    /// No host can come up; the reason in words.
    Away(String),
    /// The PIN was refused: nothing is tried until the PIN file changes or a person unlocks.
    PinRefused(String),
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

/// What the token says of a key's object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyFacts {
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

/// What hosts need besides their settings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The binary whose `token-host` subcommand a host is.
    pub host_binary: PathBuf,
    /// Where the marker of a refused PIN is kept.
    pub state_dir: PathBuf,
}

/// One token and the hosts that serve it.
pub struct Token {
    settings: Settings,
    state: watch::Sender<State>,
}

impl Token {
    /// Starts the supervisor on the current runtime and returns at once, [`State::Starting`].
    pub fn start(_settings: Settings, _surroundings: Surroundings) -> Arc<Self> {
        unimplemented!("written in the next step")
    }

    /// The token's name in the configuration.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Makes the MAC of a message with a key, in the key's algorithm.
    ///
    /// # Errors
    /// Each [`Fault`]; by `until` at the latest.
    pub async fn mac(&self, _key: &Arc<Key>, _message: Bytes, _until: Instant) -> Result<Bytes, Fault> {
        unimplemented!("written in the next step")
    }

    /// Random bytes from the token's generator.
    ///
    /// # Errors
    /// As [`Token::mac`], but for those of a key.
    pub async fn random(&self, _number_of_bytes: usize, _until: Instant) -> Result<Bytes, Fault> {
        unimplemented!("written in the next step")
    }

    /// What the token says of a key's object.
    ///
    /// # Errors
    /// As [`Token::mac`].
    pub async fn describe(&self, _key: &Arc<Key>, _until: Instant) -> Result<KeyFacts, Fault> {
        unimplemented!("written in the next step")
    }

    /// What the token says of itself, once a host has found it.
    pub fn info(&self) -> Option<TokenInfo> {
        unimplemented!("written in the next step")
    }

    /// How the token is, now and at each change.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Ends all hosts: planned, and killed after two seconds. No job may come after it.
    pub async fn end(&self) {
        unimplemented!("written in the next step")
    }
}
