//! The front's view of tokens: who asks for a MAC here learns nothing of PKCS#11.
//!
//! Hides: host processes, the queue, credits, replacement, second members, PIN care. Promises: every
//! call is answered by its deadline; a MAC was made with exactly the key that the caller holds; a
//! host, or a token with a twin in its group, that dies or hangs costs no call that still has time.
//! Does not: know who may use a key (that is `kms`).
//!
//! A *group* is one or more tokens that hold the same keys, and a token alone is a group of one. All
//! hosts of a group take from one queue as they have room; what one cannot finish goes back to it.

mod change;
mod host;
mod job;
mod key;
mod line;
mod member;
mod pin;
mod queue;
mod settings;
mod uri;

pub use key::{CheckValue, Key, Locator};
pub use pin::unlock;
pub use settings::{ReplicatedBy, Settings};
pub use uri::{ObjectUri, TokenUri};

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::timeout_at,
};
use zeroize::Zeroizing;

use self::{
    job::{Answer, Job, Work},
    member::Member,
    queue::Queue,
};
use crate::{model::MacAlgorithm, proto::host::TokenFound};

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
            Self::Saturated
            | Self::Deadline(_)
            | Self::Key(_)
            | Self::Message(_)
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

/// What hosts need besides their settings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The binary whose `token-host` subcommand a host is.
    pub host_binary: PathBuf,
    /// Where the marker of a refused PIN is kept.
    pub state_dir: PathBuf,
}

/// One or more tokens that hold the same keys.
pub struct Group {
    name: String,
    members: Vec<Arc<Member>>,
    queue: Arc<Queue>,
    end: watch::Sender<bool>,
    hosts: Mutex<JoinSet<()>>,
}

impl Group {
    /// Starts the hosts of each token on the current runtime and returns at once.
    pub fn start(name: &str, tokens: Vec<Settings>, surroundings: &Surroundings) -> Arc<Self> {
        let capacity = tokens.iter().map(|token| token.queue as usize).sum();
        let queue = Arc::new(Queue::new(capacity, tokens.len()));
        let members: Vec<_> = tokens
            .into_iter()
            .enumerate()
            .map(|(index, token)| {
                let (surroundings, queue) = (surroundings.clone(), Arc::clone(&queue));
                Arc::new(Member::new(token, surroundings, queue, index))
            })
            .collect();
        let end = watch::Sender::new(false);
        let mut hosts = JoinSet::new();
        for member in &members {
            hosts.spawn(Arc::clone(member).keep_hosts(end.subscribe()));
        }
        Arc::new(Self {
            name: name.to_owned(),
            members,
            queue,
            end,
            hosts: Mutex::new(hosts),
        })
    }

    /// The group's name in the configuration, or that of its only token.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The longest message that each of its tokens takes, if the configuration says so, in bytes.
    pub fn max_message_bytes(&self) -> Option<usize> {
        let limits = self.members.iter();
        limits
            .filter_map(|member| member.settings.max_message_bytes)
            .min()
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
        let work = Work::Mac {
            key: Arc::clone(key),
            message,
        };
        bytes(self.ask_about(key, work, until).await?)
    }

    /// Random bytes from a token's generator.
    ///
    /// # Errors
    /// As [`Group::mac`], but for those of a key.
    pub async fn random(&self, number_of_bytes: usize, until: Instant) -> Result<Bytes, Fault> {
        let number_of_bytes = u32::try_from(number_of_bytes)
            .map_err(|_| Fault::Unsupported("so many random bytes".into()))?;
        bytes(self.ask(Work::Random { number_of_bytes }, until).await?)
    }

    /// What a token says of a key's object.
    ///
    /// # Errors
    /// As [`Group::mac`].
    pub async fn describe(&self, key: &Arc<Key>, until: Instant) -> Result<KeyFacts, Fault> {
        let work = Work::Describe {
            key: Arc::clone(key),
        };
        match self.ask_about(key, work, until).await? {
            Answer::Facts(facts) => Ok(facts),
            Answer::Bytes(_) | Answer::Destroyed(_) => Err(another_question()),
        }
    }

    /// Makes a new key inside a token, under its locator's CKA_ID, which no object may have. The key
    /// is proved, sensitive and never to be extracted. In a group that the vendor keeps alike it is
    /// also with all other members when this returns.
    ///
    /// The call begins by `until`; it is waited for until `slow_timeout` has passed too, so that what
    /// came of it is known, if it can be.
    ///
    /// # Errors
    /// [`Fault::is_settled`] says whether the object may be there all the same.
    pub async fn generate(&self, key: &Arc<Key>, until: Instant) -> Result<KeyFacts, Fault> {
        let key = Arc::clone(key);
        self.create(Work::Generate { key: key.clone() }, &key, until)
            .await
    }

    /// The same from given material.
    ///
    /// # Errors
    /// As [`Group::generate`].
    pub async fn import(
        &self,
        key: &Arc<Key>,
        material: Zeroizing<Vec<u8>>,
        until: Instant,
    ) -> Result<KeyFacts, Fault> {
        let work = Work::Import {
            key: Arc::clone(key),
            material,
        };
        self.create(work, key, until).await
    }

    /// Destroys a key's object, if it makes the key's check value; in a group, waits until it is
    /// gone from all members.
    ///
    /// # Errors
    /// [`Fault::Key`]: the object is another one, or one of several; nothing was destroyed.
    pub async fn destroy(&self, key: &Arc<Key>, until: Instant) -> Result<Destroyed, Fault> {
        // Security: without a check value nothing tells the key from another one.
        if key.check_value().is_none() {
            return Err(Fault::Key("its check value is not known".into()));
        }
        self.destroy_with(key, false, until).await
    }

    /// Destroys what a creation left that nobody was told of: it goes by its locator's CKA_ID of 16
    /// random bytes and its label, both.
    ///
    /// # Errors
    /// As [`Group::destroy`].
    pub async fn destroy_orphan(&self, key: &Arc<Key>, until: Instant) -> Result<Destroyed, Fault> {
        self.destroy_with(key, true, until).await
    }

    /// How many hosts have come to serve, now and at each change. Some modules see what others made at C_Initialize
    /// alone: whoever misses something looks again when this has grown.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.queue.seated()
    }

    /// Whether a host serves or may come to.
    ///
    /// # Errors
    /// [`Fault::Unavailable`], with the reason.
    pub fn available(&self) -> Result<(), Fault> {
        if self.may_serve() {
            Ok(())
        } else {
            Err(self.unavailable())
        }
    }

    /// Closes a key for good. When it returns, no call that used it is on its way, no later one can
    /// begin, and no host has a handle of it or a copy: a host that still has after two seconds is
    /// ended.
    pub async fn forget(&self, key: &Arc<Key>) {
        key.close();
        let is_about = |job: &Job| job.key().is_some_and(|other| Arc::ptr_eq(other, key));
        self.queue.refuse(is_about, &Fault::Closed);
        self.queue.forget(key).await;
        key.until_unused().await;
    }

    /// The tokens: name and state, now and at each change.
    pub fn states(&self) -> impl Iterator<Item = (&str, watch::Receiver<State>)> {
        self.members
            .iter()
            .map(|member| (member.settings.name.as_str(), member.state.subscribe()))
    }

    /// What a host of the first token that has one found when it logged in.
    pub fn facts(&self) -> Option<Facts> {
        self.members.iter().find_map(|member| {
            let facts = member.facts.lock();
            facts.expect("no holder of this lock panics").clone()
        })
    }

    /// Ends all hosts: planned, and killed after two seconds. No job may come after it.
    pub async fn end(&self) {
        self.end.send_replace(true);
        while self.hosts.lock().await.join_next().await.is_some() {}
        let ending = Fault::Unavailable("hsmac is ending".into());
        self.queue.refuse(|_| true, &ending);
    }

    async fn ask_about(&self, key: &Key, work: Work, until: Instant) -> Result<Answer, Fault> {
        let _using = key.begin_use().ok_or(Fault::Closed)?;
        if let Some(trouble) = key.refusal() {
            return Err(Fault::Key(trouble));
        }
        self.ask(work, until).await
    }

    async fn ask(&self, work: Work, until: Instant) -> Result<Answer, Fault> {
        self.available()?;
        let (job, answer) = Job::new(work, until);
        if job.is_picky() && !self.queue.has_hope(&job) {
            return Err(Fault::Unavailable(
                "no token of the group that can be asked has the key".into(),
            ));
        }
        self.queue.push(job)?;
        match timeout_at(until.into(), answer).await {
            Ok(Ok(answer)) => answer,
            // The queue drops jobs that nobody waits for any more, sometimes sooner than the timer
            // here wakes up.
            Ok(Err(_)) if Instant::now() < until => Err(Fault::Internal(
                "a job was dropped without an answer".into(),
            )),
            Ok(Err(_)) | Err(_) if !self.may_serve() => Err(self.unavailable()),
            Ok(Err(_)) | Err(_) => Err(Fault::Deadline("in the queue or in the token".into())),
        }
    }

    /// Whether a host serves or may come to.
    fn may_serve(&self) -> bool {
        self.members.iter().any(|member| {
            let state = member.state.borrow();
            state.is_serving() || *state == State::Starting
        })
    }

    fn unavailable(&self) -> Fault {
        let reasons: Vec<String> = self
            .states()
            .map(|(name, state)| match self.members.len() {
                1 => state.borrow().to_string(),
                _ => format!("{name}: {}", *state.borrow()),
            })
            .collect();
        Fault::Unavailable(reasons.join("; "))
    }
}

fn bytes(answer: Answer) -> Result<Bytes, Fault> {
    match answer {
        Answer::Bytes(bytes) => Ok(bytes),
        Answer::Facts(_) | Answer::Destroyed(_) => Err(another_question()),
    }
}

fn another_question() -> Fault {
    Fault::Internal("the answer to another question".into())
}

/// Up to a quarter more or less, so that many bridges do not come at the same time.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() % 1000;
    let share = u32::try_from(random).expect("less than a thousand");
    pause * (750 + share / 2) / 1000
}
