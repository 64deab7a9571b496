//! The front's view of tokens: who asks for a MAC here learns nothing of PKCS#11.
//!
//! Hides: host processes, the queue, credits, replacement, PIN care. Promises: every call is
//! answered by its deadline; a MAC was made with exactly the key that the caller holds; a host that
//! dies costs no call that still has time. Does not: know who may use a key (that is `kms`).

mod host;
mod key;
mod line;
mod pin;
mod queue;
mod settings;
mod supervisor;
mod uri;

pub use key::{CheckValue, Key, Locator};
pub use pin::unlock;
pub use settings::Settings;
pub use uri::{ObjectUri, TokenUri};

use std::{fmt, path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::timeout_at,
};

use self::{
    queue::{Answer, Job, Work},
    supervisor::Supervisor,
};
use crate::model::MacAlgorithm;

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
    /// Only an edit of the configuration or of the machine cures it.
    Misconfigured(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Up => f.write_str("up"),
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
    supervisor: Arc<Supervisor>,
    end: watch::Sender<bool>,
    hosts: Mutex<Option<JoinHandle<()>>>,
}

impl Token {
    /// Starts the supervisor on the current runtime and returns at once, [`State::Starting`].
    pub fn start(settings: Settings, surroundings: Surroundings) -> Arc<Self> {
        let supervisor = Arc::new(Supervisor::new(settings, surroundings));
        let end = watch::Sender::new(false);
        let hosts = tokio::spawn(Arc::clone(&supervisor).keep_hosts(end.subscribe()));
        Arc::new(Self {
            supervisor,
            end,
            hosts: Mutex::new(Some(hosts)),
        })
    }

    /// The token's name in the configuration.
    pub fn name(&self) -> &str {
        &self.supervisor.settings.name
    }

    /// The longest message that the token takes, if the configuration says so, in bytes.
    pub fn max_message_bytes(&self) -> Option<usize> {
        self.supervisor
            .settings
            .max_message_bytes
            .map(|bytes| bytes as usize)
    }

    /// Makes the MAC of a message with a key, in the key's algorithm.
    ///
    /// # Errors
    /// Each [`Fault`]; by `until` at the latest.
    pub async fn mac(
        &self,
        key: &Arc<Key>,
        message: Bytes,
        until: Instant,
    ) -> Result<Bytes, Fault> {
        if let Some(trouble) = key.refusal() {
            return Err(Fault::Key(trouble));
        }
        self.bytes(
            Work::Mac {
                key: Arc::clone(key),
                message,
            },
            until,
        )
        .await
    }

    /// Random bytes from the token's generator.
    ///
    /// # Errors
    /// As [`Token::mac`], but for those of a key.
    pub async fn random(&self, number_of_bytes: usize, until: Instant) -> Result<Bytes, Fault> {
        let number_of_bytes = u32::try_from(number_of_bytes)
            .map_err(|_| Fault::Unsupported("so many random bytes".into()))?;
        self.bytes(Work::Random { number_of_bytes }, until).await
    }

    /// What the token says of a key's object.
    ///
    /// # Errors
    /// As [`Token::mac`].
    pub async fn describe(&self, key: &Arc<Key>, until: Instant) -> Result<KeyFacts, Fault> {
        if let Some(trouble) = key.refusal() {
            return Err(Fault::Key(trouble));
        }
        match self
            .ask(
                Work::Describe {
                    key: Arc::clone(key),
                },
                until,
            )
            .await?
        {
            Answer::Facts(facts) => Ok(facts),
            Answer::Bytes(_) => Err(Fault::Internal("bytes for a question about a key".into())),
        }
    }

    /// What a host found when it logged in; `None` before the first has.
    pub fn facts(&self) -> Option<Facts> {
        self.supervisor
            .facts
            .lock()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// How the token is, now and at each change.
    pub fn state(&self) -> watch::Receiver<State> {
        self.supervisor.state.subscribe()
    }

    /// Ends all hosts: planned, and killed after two seconds. No job may come after it.
    pub async fn end(&self) {
        self.end.send_replace(true);
        if let Some(hosts) = self.hosts.lock().await.take() {
            let _ = hosts.await;
        }
    }

    async fn bytes(&self, work: Work, until: Instant) -> Result<Bytes, Fault> {
        match self.ask(work, until).await? {
            Answer::Bytes(bytes) => Ok(bytes),
            Answer::Facts(_) => Err(Fault::Internal("facts for a question about bytes".into())),
        }
    }

    async fn ask(&self, work: Work, until: Instant) -> Result<Answer, Fault> {
        match &*self.supervisor.state.borrow() {
            State::Starting | State::Up => {}
            down @ (State::Away(_) | State::PinRefused(_) | State::Misconfigured(_)) => {
                return Err(Fault::Unavailable(down.to_string()));
            }
        }
        let (job, answer) = Job::new(work, until);
        self.supervisor.queue.push(job)?;
        match timeout_at(until.into(), answer).await {
            Ok(Ok(answer)) => answer,
            // The queue drops jobs that nobody waits for any more, sometimes sooner than the timer
            // here wakes up.
            Ok(Err(_)) if Instant::now() >= until => Err(Fault::Deadline("in the queue".into())),
            Ok(Err(_)) => Err(Fault::Internal(
                "a job was dropped without an answer".into(),
            )),
            Err(_) => Err(Fault::Deadline("in the queue or in the token".into())),
        }
    }
}
