//! The front's view of tokens: who asks for a MAC here learns nothing of PKCS#11.
//!
//! Hides: host processes, the queue, credits, replacement, second members, PIN care. Promises: every
//! call is answered by its deadline; a MAC was made with exactly the key that the caller holds; a
//! host, or a token whose group has another one, that dies or hangs costs no call that still has time.
//! Does not: know who may use a key (that is `kms`).
//!
//! A *group* is one or more tokens that hold the same keys, and a token alone is a group of one. All
//! hosts of a group take from one queue as they have room; what one cannot finish goes back to it.

mod dispatch;
mod host;
mod key;
mod level;
mod locks;
mod metrics;
mod roster;
mod settings;
#[cfg(test)]
mod simulated;
#[cfg(test)]
pub(crate) mod simulation;
mod status;
mod uri;

pub use host::pin::{Logins, foreign_owner, kick, log_in_here, unlock};
pub use key::{CheckValue, GrantFence, ObjectLocator, TokenKey};
pub use metrics::{FaultCount, GroupSnapshot, HostSnapshot, LastFault, TokenSnapshot};
pub use settings::{HostEnvironment, HostProgram, Login, ReplicatedBy, Settings};
pub use status::{Destroyed, Facts, Fault, KeyFacts, Sealed, State, TokenInfo};
pub use uri::{ObjectUri, TokenUri};

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::{
    model::{Checkpoint, Extension, Flow},
    token::{
        dispatch::{
            Dispatcher, TokenTable,
            job::{Job, Work},
            queue::Queue,
        },
        host::member::{ENDS, LEAVES},
        key::Closing,
        roster::Roster,
    },
};

/// One or more tokens that hold the same keys.
pub struct Group {
    dispatcher: Dispatcher,
    roster: Arc<Roster>,
}

impl Group {
    /// Starts the hosts of each token on the current runtime and returns at once. `logins` are those of the
    /// whole process.
    pub fn start(
        name: &str,
        tokens: Vec<Settings>,
        environment: &HostEnvironment,
        logins: &Logins,
    ) -> Arc<Self> {
        let queue = Arc::new(Queue::new(0));
        let table = Arc::<TokenTable>::default();
        let roster = Roster::new(&queue, &table, environment, logins);
        roster.set(tokens);
        Arc::new(Self {
            dispatcher: Dispatcher {
                group: name.to_owned(),
                queue,
                tokens: table,
            },
            roster,
        })
    }

    /// Has the group be of these tokens, at least one, and returns at once. Hosts of a token with other
    /// settings take the place of those that serve when the first has come up; those of a token that is
    /// gone end. No call is lost by it, if its token serves at all.
    pub fn change(&self, tokens: Vec<Settings>) {
        self.roster.set(tokens);
    }

    /// Grows when the tokens are others, or one is served with other settings.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.roster.changes()
    }

    /// Takes no call any more, since the configuration no longer has the group, and closes these keys of it
    /// for good: their calls, those that wait too, get [`Fault::Closed`]. The hosts forget them when the
    /// group [ends](Self::end).
    pub fn close_all(&self, keys: &[Arc<TokenKey>]) {
        for key in keys {
            key.close(Closing::Object);
        }
        self.dispatcher.close();
    }

    /// The group's name in the configuration, or that of its only token.
    pub fn name(&self) -> &str {
        &self.dispatcher.group
    }

    /// The longest message that each of its tokens takes, if the configuration says so, in bytes.
    pub fn max_message_bytes(&self) -> Option<usize> {
        let tokens = self.dispatcher.tokens.load();
        tokens
            .iter()
            .filter_map(|token| token.settings.max_message_bytes)
            .min()
            .map(|bytes| bytes as usize)
    }

    /// Makes the MAC of a message with a key, in the key's algorithm; in its turn among the flows.
    ///
    /// # Errors
    /// Each [`Fault`]; by `until` at the latest.
    pub async fn mac(
        &self,
        key: &Arc<TokenKey>,
        message: Bytes,
        flow: Flow,
        until: Instant,
    ) -> Result<Bytes, Fault> {
        if let Some(fault) = self.dispatcher.queue.poison.refusal(key, &message) {
            return Err(fault);
        }
        let work = Work::Mac {
            key: Arc::clone(key),
            message,
        };
        self.dispatcher
            .ask_about(key, work, flow, until.into())
            .await?
            .mac()
    }

    /// Random bytes from a token's generator, in their turn among the flows.
    ///
    /// # Errors
    /// As [`Group::mac`], but for those of a key.
    pub async fn random(
        &self,
        number_of_bytes: usize,
        flow: Flow,
        until: Instant,
    ) -> Result<Bytes, Fault> {
        let number_of_bytes = u32::try_from(number_of_bytes)
            .map_err(|_| Fault::Unsupported("so many random bytes".into()))?;
        self.dispatcher
            .ask(Work::Random { number_of_bytes }, flow, until.into())
            .await?
            .random()
    }

    /// What a token says of a key's object.
    ///
    /// # Errors
    /// As [`Group::mac`].
    pub async fn describe(&self, key: &Arc<TokenKey>, until: Instant) -> Result<KeyFacts, Fault> {
        let work = Work::Describe {
            key: Arc::clone(key),
        };
        self.dispatcher
            .ask_about(key, work, Flow::OWN, until.into())
            .await?
            .facts()
    }

    /// Seals the audit log `origin` as it is with some leaves more: the HMAC-SHA-256 of its checkpoint. The host
    /// remembers what it has sealed, and seals only what follows on it.
    ///
    /// # Errors
    /// As [`Group::mac`]; [`Fault::Unsupported`] if the host cannot remember it.
    pub async fn seal(
        &self,
        key: &Arc<TokenKey>,
        origin: &str,
        leaves: Extension,
        until: Instant,
    ) -> Result<Sealed, Fault> {
        let work = Work::Seal {
            key: Arc::clone(key),
            origin: origin.to_owned(),
            leaves,
        };
        self.dispatcher
            .ask_about(key, work, Flow::OWN, until.into())
            .await?
            .sealed()
    }

    /// Whether a seal of a checkpoint was made with the key.
    ///
    /// # Errors
    /// As [`Group::mac`].
    pub async fn check_seal(
        &self,
        key: &Arc<TokenKey>,
        checkpoint: Checkpoint,
        seal: Bytes,
        until: Instant,
    ) -> Result<bool, Fault> {
        let work = Work::CheckSeal {
            key: Arc::clone(key),
            checkpoint,
            seal,
        };
        self.dispatcher
            .ask_about(key, work, Flow::OWN, until.into())
            .await?
            .seal_checked()
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
    pub async fn generate(&self, key: &Arc<TokenKey>, until: Instant) -> Result<KeyFacts, Fault> {
        let key = Arc::clone(key);
        self.dispatcher
            .create(Work::Generate { key: key.clone() }, &key, until.into())
            .await
    }

    /// Makes a new key inside a token from given material; otherwise as [`Group::generate`].
    ///
    /// # Errors
    /// As [`Group::generate`].
    pub async fn import(
        &self,
        key: &Arc<TokenKey>,
        material: Zeroizing<Vec<u8>>,
        until: Instant,
    ) -> Result<KeyFacts, Fault> {
        let work = Work::Import {
            key: Arc::clone(key),
            material,
        };
        self.dispatcher.create(work, key, until.into()).await
    }

    /// Destroys a key's object, if it makes the key's check value; in a group, waits until it is
    /// gone from all members. `done` has the names of the tokens that it is gone from already, and
    /// gets those that it is gone from now.
    ///
    /// # Errors
    /// [`Fault::Key`]: the object is another one, or one of several; nothing was destroyed.
    /// [`Fault::Unavailable`]: a member is away, and so no other one was asked.
    pub async fn destroy(
        &self,
        key: &Arc<TokenKey>,
        done: &mut BTreeSet<String>,
        until: Instant,
    ) -> Result<Destroyed, Fault> {
        // Security: without a check value nothing tells the key from another one.
        if key.check_value().is_none() {
            return Err(Fault::Key("its check value is not known".into()));
        }
        self.dispatcher
            .destroy(key, false, done, until.into())
            .await
    }

    /// Destroys what a creation left that nobody was told of: it goes by its locator's CKA_ID of 16
    /// random bytes and its label, both.
    ///
    /// # Errors
    /// As [`Group::destroy`].
    pub async fn destroy_orphan(
        &self,
        key: &Arc<TokenKey>,
        done: &mut BTreeSet<String>,
        until: Instant,
    ) -> Result<Destroyed, Fault> {
        self.dispatcher.destroy(key, true, done, until.into()).await
    }

    /// How many hosts have come to serve, now and at each change. Some modules see what others made at
    /// C_Initialize alone: whoever misses something looks again when this has grown.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.dispatcher.queue.hosts_started()
    }

    /// Whether a host serves or may come to.
    ///
    /// # Errors
    /// [`Fault::Unavailable`], with the reason.
    pub fn available(&self) -> Result<(), Fault> {
        self.dispatcher.available()
    }

    /// Closes a key for good. When it returns, no call that used it is on its way, no later one can
    /// begin, and no host has a handle of it or a copy: a host that still has after two seconds is
    /// ended.
    pub async fn forget(&self, key: &Arc<TokenKey>) {
        self.close(key, Closing::Object).await;
    }

    /// Ends the calls that were admitted with this very `TokenKey`, since another policy decides now. When
    /// it returns none of them is on its way, and no later one can begin. Hosts keep the handle for those
    /// who have the key [anew](TokenKey::admitted_anew); one with a call that does not end in two seconds is
    /// ended.
    pub async fn end_admission(&self, key: &Arc<TokenKey>) {
        self.close(key, Closing::Admission).await;
    }

    /// Ends the calls that were admitted by the grant which this `TokenKey` is [under](TokenKey::under_grant),
    /// as [`Group::end_admission`] does; others go on.
    pub async fn end_grant(&self, key: &Arc<TokenKey>) {
        self.close(key, Closing::Grant).await;
    }

    async fn close(&self, key: &Arc<TokenKey>, closing: Closing) {
        key.close(closing);
        let is_about = |job: &Job| job.key().is_some_and(|other| key.closes(other, closing));
        self.dispatcher.queue.refuse(is_about, &Fault::Closed);
        self.dispatcher.queue.close(key, closing).await;
        key.until_unused(closing).await;
    }

    /// The tokens: name and state, now and at each change.
    pub fn states(&self) -> Vec<(String, watch::Receiver<State>)> {
        let tokens = self.dispatcher.tokens.load();
        let named = tokens.iter();
        named
            .map(|token| (token.settings.name.clone(), token.state.subscribe()))
            .collect()
    }

    /// The queue and the tokens at this moment.
    pub fn snapshot(&self) -> GroupSnapshot {
        let mut group = self.dispatcher.queue.snapshot(self.name());
        group.tokens = self.roster.snapshots();
        group
    }

    /// What a host of the first token that has one found when it logged in.
    pub fn facts(&self) -> Option<Facts> {
        self.roster.facts()
    }

    /// Ends the hosts at once, as when hsmac itself is killed.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        self.roster.kill();
    }

    /// Ends all hosts: planned, and killed after two seconds. What a host is at and has not ended by
    /// `until` (a search that hangs) is given up with it. No job may come after it.
    pub async fn end(&self, until: Instant) {
        self.end_as(ENDS, until).await;
    }

    /// As [`end`](Self::end), while hsmac goes on: a host that is starting comes to the end of that first.
    pub async fn leave(&self, until: Instant) {
        self.end_as(LEAVES, until).await;
    }

    async fn end_as(&self, how: usize, until: Instant) {
        self.roster.end(self.name(), how, until.into()).await;
        let ending = match self.dispatcher.is_closed() {
            true => Fault::Closed,
            false => Fault::Unavailable("hsmac is ending".into()),
        };
        self.dispatcher.queue.refuse(|_| true, &ending);
    }
}
