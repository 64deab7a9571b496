//! What the models have seen of hsmac as a whole, and what it must never do there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, Weak},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    model_token::{ModelHsm, ModelToken},
    world::World,
};
use crate::token::{locks::UNPOISONED, simulated::KilledFlag};

/// A job and its hedge: so many hosts may have a message at once.
const AT_ONCE: usize = 2;
/// Processes of ended hosts that nobody waits for.
const UNREAPED: usize = 2;

/// Who wants to know what is destroyed, before it is: gets the object's label.
pub(super) type Witness = Box<dyn Fn(&str) + Send + Sync>;

/// One group's books.
pub(super) struct Ledger {
    world: Arc<World>,
    /// The most host processes of a token.
    most: usize,
    hsm: OnceLock<Weak<ModelHsm>>,
    /// A key that is to be closed in a moment when it matters, by its label.
    close_now: Mutex<Option<String>>,
    closing: Notify,
    witness: OnceLock<Witness>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    processes: u64,
    hosts: BTreeMap<u64, HostEntry>,
    sequences: BTreeSet<u64>,
    closed: BTreeSet<u64>,
    /// Changes that some host has or may have made, by their key's reference.
    changes: BTreeSet<u64>,
    /// Which hosts have a message, and how many died of it.
    messages: BTreeMap<Bytes, MessageEntry>,
}

struct HostEntry {
    token: String,
    killed: KilledFlag,
    handles: BTreeSet<u64>,
}

#[derive(Default)]
struct MessageEntry {
    with: Vec<u64>,
    deaths: usize,
}

impl Ledger {
    pub(super) fn new(world: &Arc<World>, hosts: u32, members: usize) -> Self {
        Self {
            world: Arc::clone(world),
            most: members * (hosts as usize + UNREAPED),
            hsm: OnceLock::new(),
            close_now: Mutex::default(),
            closing: Notify::new(),
            witness: OnceLock::new(),
            books: Mutex::default(),
        }
    }

    pub(super) fn begins(&self, hsm: &Arc<ModelHsm>) {
        let _ = self.hsm.set(Arc::downgrade(hsm));
    }

    pub(super) fn tokens(&self) -> Vec<Arc<ModelToken>> {
        let hsm = self.hsm.get().and_then(Weak::upgrade);
        hsm.map(|hsm| hsm.tokens.clone()).unwrap_or_default()
    }

    /// Shows somebody what is destroyed.
    pub(super) fn show_destructions(&self, witness: Witness) {
        assert!(self.witness.set(witness).is_ok(), "there is one witness");
    }

    /// An object is about to be destroyed.
    pub(super) fn destroys(&self, label: &str) {
        if let Some(witness) = self.witness.get() {
            witness(label);
        }
    }

    /// Somebody is to close a key now.
    pub(super) fn close_now(&self, label: &str) {
        *self.close_now.lock().expect(UNPOISONED) = Some(label.to_owned());
        self.closing.notify_one();
    }

    /// Waits for a key that is to be closed.
    pub(super) async fn to_close(&self) -> String {
        loop {
            if let Some(label) = self.close_now.lock().expect(UNPOISONED).take() {
                return label;
            }
            self.closing.notified().await;
        }
    }

    /// A host process is there; gives it a number of its own.
    pub(super) fn started(&self, token: &str, killed: KilledFlag) -> u64 {
        let (process, alive) = self.with(|books| {
            books.processes += 1;
            let entry = HostEntry {
                token: token.to_owned(),
                killed,
                handles: BTreeSet::new(),
            };
            books.hosts.insert(books.processes, entry);
            (books.processes, books.alive(token))
        });
        let most = self.most;
        self.world.promise(
            alive <= most,
            format_args!("{token} has {alive} host processes, and {most} is the most"),
        );
        process
    }

    /// A host does nothing more, and closes its sessions if it can.
    pub(super) fn stopped(&self, process: u64) {
        self.with(|books| {
            if let Some(host) = books.hosts.get_mut(&process) {
                host.handles.clear();
            }
            for message in books.messages.values_mut() {
                message.with.retain(|host| *host != process);
            }
        });
    }

    /// A host process is gone.
    pub(super) fn ended(&self, process: u64) {
        self.with(|books| books.hosts.remove(&process));
    }

    /// How many host processes a token has.
    pub(super) fn alive(&self, token: &str) -> usize {
        self.with(|books| books.alive(token))
    }

    /// hsmac is another process now, and counts anew.
    pub(super) fn front_killed(&self) {
        self.with(|books| {
            books.hosts.clear();
            books.sequences.clear();
            books.messages.clear();
        });
    }

    /// A host reads a job. One that dies with hsmac at this moment reads nothing that counts: its
    /// successors' hsmac counts anew.
    pub(super) fn job_read(&self, process: u64, sequence: u64, changes: Option<u64>) {
        let (is_new, may_change) = self.with(|books| {
            (
                !books.hosts.contains_key(&process) || books.sequences.insert(sequence),
                changes.is_none_or(|reference| books.changes.insert(reference)),
            )
        });
        let world = &self.world;
        world.promise(
            is_new,
            format_args!("the sequence number {sequence} is used again"),
        );
        world.promise(
            may_change,
            format_args!("a change of the token that may have been made is asked for again"),
        );
    }

    /// A host has said that it did not change anything.
    pub(super) fn unchanged(&self, reference: u64) {
        self.with(|books| books.changes.remove(&reference));
    }

    /// The library gets a message with a key.
    pub(super) fn mac_begins(&self, process: u64, reference: u64, message: &Bytes) {
        let (closed, with) = self.with(|books| {
            let entry = books.messages.entry(message.clone()).or_default();
            entry.with.push(process);
            let with = entry.with.len();
            (books.closed.contains(&reference), with)
        });
        let world = &self.world;
        world.promise(
            !closed,
            format_args!("a MAC is made with a key whose closing has returned"),
        );
        world.promise(
            with <= AT_ONCE,
            format_args!("{with} hosts have the same message at once"),
        );
    }

    pub(super) fn mac_ends(&self, process: u64, message: &Bytes) {
        self.with(|books| {
            if let Some(entry) = books.messages.get_mut(message)
                && let Some(at) = entry.with.iter().position(|host| *host == process)
            {
                entry.with.swap_remove(at);
                if entry.with.is_empty() && entry.deaths == 0 {
                    books.messages.remove(message);
                }
            }
        });
    }

    /// A host dies of a message.
    pub(super) fn died_of(&self, message: &Bytes) {
        self.with(|books| books.messages.entry(message.clone()).or_default().deaths += 1);
    }

    pub(super) fn deaths_of(&self, message: &Bytes) -> usize {
        self.with(|books| books.messages.get(message).map_or(0, |entry| entry.deaths))
    }

    /// A host has a handle of a key, or has none any more.
    pub(super) fn set_handle(&self, process: u64, reference: u64, has: bool) {
        self.with(|books| {
            let Some(host) = books.hosts.get_mut(&process) else {
                return;
            };
            if has {
                host.handles.insert(reference);
            } else {
                host.handles.remove(&reference);
            }
        });
    }

    /// The closing of a key has returned.
    pub(super) fn closed(&self, reference: u64) {
        let holds = self.with(|books| {
            books.closed.insert(reference);
            let holds = |host: &HostEntry| !host.killed.get() && host.handles.contains(&reference);
            books
                .hosts
                .values()
                .filter(|host| holds(host))
                .map(|host| host.token.clone())
                .next()
        });
        self.world.promise(
            holds.is_none(),
            format_args!("a host of {holds:?} has a handle of a key whose closing has returned"),
        );
    }

    fn with<T>(&self, look: impl FnOnce(&mut Books) -> T) -> T {
        look(&mut self.books.lock().expect(UNPOISONED))
    }
}

impl Books {
    fn alive(&self, token: &str) -> usize {
        let hosts = self.hosts.values();
        hosts.filter(|host| host.token == token).count()
    }
}
