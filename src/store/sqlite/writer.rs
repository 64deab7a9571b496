//! The thread that owns the connection: it serves requests in the order in which they come.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{
    mpsc::{Receiver, error::TryRecvError},
    oneshot, watch,
};
use tracing::{debug, info, warn};

use crate::store::{
    Change, CommitFault, Committed, Fault, Name, OpenFault, Prefix, Record, Revision,
    history::History,
    metrics::Metrics,
    sqlite::{faults, files, lock::LockedDatabase, outage::Outage, rows},
};

/// Changes that share a transaction, at most.
const TOGETHER: usize = 64;

/// A request to the thread.
#[derive(Debug)]
pub(super) enum Request {
    Close {
        reply: oneshot::Sender<()>,
    },
    Commit {
        change: Change,
        reply: oneshot::Sender<Result<Revision, CommitFault>>,
    },
    List {
        under: Prefix,
        after: Option<Name>,
        limit: usize,
        reply: oneshot::Sender<Result<Vec<Record>, Fault>>,
    },
    Read {
        name: Name,
        reply: oneshot::Sender<Result<Option<Record>, Fault>>,
    },
    Revision {
        reply: oneshot::Sender<Result<Revision, Fault>>,
    },
}

type PendingCommit = (Change, oneshot::Sender<Result<Revision, CommitFault>>);

pub(super) struct Writer {
    /// None after a fault that left the connection in doubt: the next request opens it anew.
    connection: Option<Connection>,
    /// Which file was opened. One that was removed can still be written, to nobody's use.
    identity: Option<(u64, u64)>,
    outage: Outage,
    /// The revision of the last change that was published.
    revision: Revision,
    history: History,
    metrics: Arc<Metrics>,
    /// Dropped last: until then no other process may open the file.
    locked: LockedDatabase,
}

impl Writer {
    pub(super) fn open(locked: LockedDatabase) -> Result<Self, OpenFault> {
        let connection = locked.open()?;
        let revision = rows::revision(&connection)
            .map_err(|error| faults::sqlite(&locked.database, &error))?;
        Ok(Self {
            connection: Some(connection),
            identity: files::identity(&locked.database),
            outage: Outage::none(),
            revision,
            history: History::after(revision),
            metrics: Arc::default(),
            locked,
        })
    }

    pub(super) fn history(&self) -> History {
        self.history.clone()
    }

    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.outage.watch()
    }

    pub(super) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Serves requests until one of them is to close, or all senders are gone.
    pub(super) fn serve(mut self, mut queue: Receiver<Request>) {
        let mut next = None;
        let last = loop {
            let Some(request) = next.take().or_else(|| queue.blocking_recv()) else {
                break None;
            };
            match request {
                Request::Close { reply } => break Some(reply),
                Request::Commit { change, reply } => {
                    let mut group = vec![(change, reply)];
                    while group.len() < TOGETHER && next.is_none() {
                        match queue.try_recv() {
                            Ok(Request::Commit { change, reply }) => group.push((change, reply)),
                            Ok(other) => next = Some(other),
                            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                        }
                    }
                    self.commit(group);
                }
                // The receiver of an answer may be gone; then the answer is not needed.
                Request::List {
                    under,
                    after,
                    limit,
                    reply,
                } => {
                    let list = |file: &_| rows::list(file, &under, after.as_ref(), limit);
                    let listed = self.ready().and_then(list);
                    drop(reply.send(self.counted(listed)));
                }
                Request::Read { name, reply } => {
                    let read = |file: &_| rows::read(file, &name);
                    let found = self.ready().and_then(read);
                    drop(reply.send(self.counted(found)));
                }
                Request::Revision { reply } => {
                    let revision = self.ready().map(|_| ());
                    drop(reply.send(self.counted(revision).map(|()| self.revision)));
                }
            }
        };
        self.close();
        if let Some(reply) = last {
            // The receiver may be gone; the store is closed all the same.
            let _ = reply.send(());
        }
    }

    /// An answer; if it is a fault, that is counted.
    fn counted<T>(&self, answer: Result<T, Fault>) -> Result<T, Fault> {
        answer.inspect_err(|fault| self.metrics.failed(fault))
    }

    fn close(self) {
        self.history.close();
        let Some(connection) = self.connection else {
            return;
        };
        if !is_in_place(&self.locked, self.identity) {
            // Closing it would remove its log, and the next start would take a catalogue that is gone for one
            // that never was.
            std::mem::forget(connection);
            return;
        }
        // The last connection that closes moves the log into the database and removes it.
        if let Err((_, error)) = connection.close() {
            warn!(event = "catalogue_not_closed", reason = %error, "the catalogue could not be closed in order; its log is read at the next start");
        }
    }

    /// The connection; opened anew if the last fault took it.
    fn ready(&mut self) -> Result<&Connection, Fault> {
        if !is_in_place(&self.locked, self.identity) {
            let reason = format!(
                "{} was removed or replaced while hsmac has it open; put that very file back, or stop hsmac \
                 and run hsmac store restore",
                self.locked.database.display()
            );
            self.outage.goes_on(&self.locked.database, &reason);
            return Err(Fault::Away(reason));
        }
        if self.connection.is_none() {
            let away = |fault: OpenFault| Fault::Away(fault.to_string());
            let connection = self.locked.open().map_err(away)?;
            let revision = settled(&connection).map_err(|error| rows::fault(&error))?;
            if revision != self.revision {
                warn!(
                    event = "change_made_after_all",
                    revision = revision.0,
                    "a change in doubt was made after all"
                );
                self.revision = revision;
                self.history.reset(revision);
            }
            info!(event = "catalogue_reopened", "the catalogue is open again");
            self.connection = Some(connection);
        }
        Ok(self
            .connection
            .as_ref()
            .expect("it was opened just now, if it was not open"))
    }

    /// Makes the changes in one transaction. If that fails, each by itself: one that is too big for
    /// the disk must not take the others with it.
    fn commit(&mut self, group: Vec<PendingCommit>) {
        match self.attempt(&group) {
            Ok(outcomes) => self.answer(group, outcomes),
            Err(GroupError::NotMade(_)) if group.len() > 1 => {
                for one in group {
                    self.commit(vec![one]);
                }
            }
            Err(GroupError::NotMade(fault) | GroupError::Disk(fault)) => {
                for (_, reply) in group {
                    self.metrics.failed(&fault);
                    let _ = reply.send(Err(fault.clone().into()));
                }
            }
        }
    }

    fn attempt(&mut self, group: &[PendingCommit]) -> Result<Vec<Outcome>, GroupError> {
        let before = self.revision;
        let connection = self.ready().map_err(GroupError::Disk)?;
        let began = Instant::now();
        match together(connection, group, before) {
            Ok(outcomes) => {
                self.outage.over(&self.locked.database);
                self.metrics.commits.observe(began.elapsed());
                Ok(outcomes)
            }
            Err(TransactionError::NotMade(error)) => {
                // A transaction that cannot even be rolled back ends with its connection.
                if !connection.is_autocommit() {
                    self.connection = None;
                }
                debug!(reason = %error, changes = group.len(), "changes could not be written");
                self.outage
                    .goes_on(&self.locked.database, &error.to_string());
                Err(GroupError::NotMade(self.at_path(rows::fault(&error))))
            }
            Err(TransactionError::InDoubt(error, outcomes)) => {
                debug!(reason = %error, changes = group.len(), "the disk failed while changes were made");
                self.outage
                    .goes_on(&self.locked.database, &error.to_string());
                match self.made(&outcomes) {
                    Some(true) => Ok(outcomes),
                    Some(false) => Err(GroupError::Disk(
                        self.at_path(Fault::Away(error.to_string())),
                    )),
                    None => Err(GroupError::Disk(
                        self.at_path(Fault::Unknown(error.to_string())),
                    )),
                }
            }
        }
    }

    /// The fault, with the file that it is about.
    fn at_path(&self, fault: Fault) -> Fault {
        let named = |text: String| format!("{}: {text}", self.locked.database.display());
        match fault {
            Fault::Away(text) => Fault::Away(named(text)),
            Fault::Unknown(text) => Fault::Unknown(named(text)),
            Fault::Damaged(text) => Fault::Damaged(named(text)),
            Fault::Closed => Fault::Closed,
        }
    }

    /// Opens the file anew, to see whether changes in doubt are in it; none: it does not open.
    fn made(&mut self, outcomes: &[Outcome]) -> Option<bool> {
        self.connection = None;
        let connection = self.locked.open().ok()?;
        let found = settled(&connection).ok()?;
        self.connection = Some(connection);
        let wanted = outcomes.iter().rev().find_map(|outcome| match outcome {
            Outcome::Made(committed) => Some(committed.revision),
            Outcome::Stale(_) => None,
        });
        Some(wanted.is_some_and(|wanted| wanted == found))
    }

    /// What was made is durable now: it is published to watchers first, then answered to callers.
    fn answer(&mut self, group: Vec<PendingCommit>, outcomes: Vec<Outcome>) {
        for ((_, reply), outcome) in group.into_iter().zip(outcomes) {
            let answer = match outcome {
                Outcome::Made(committed) => {
                    let revision = committed.revision;
                    self.revision = revision;
                    if !committed.is_empty() {
                        self.history.publish(committed);
                    }
                    Ok(revision)
                }
                Outcome::Stale(name) => Err(CommitFault::Stale { name }),
            };
            // The change stands, even if the caller no longer waits for the answer.
            let _ = reply.send(answer);
        }
    }
}

/// Whether the file that was opened is the one of that name.
fn is_in_place(locked: &LockedDatabase, identity: Option<(u64, u64)>) -> bool {
    files::identity(&locked.database) == identity
}

/// The outcome of a change within a transaction.
enum Outcome {
    Made(Committed),
    Stale(Name),
}

/// Why a group of changes is answered with a fault.
enum GroupError {
    /// The disk refuses every change: none of them is tried alone.
    Disk(Fault),
    /// One of them may be the reason: each is tried alone.
    NotMade(Fault),
}

/// Why a transaction was not made.
enum TransactionError {
    NotMade(rusqlite::Error),
    InDoubt(rusqlite::Error, Vec<Outcome>),
}

fn together(
    connection: &Connection,
    group: &[PendingCommit],
    before: Revision,
) -> Result<Vec<Outcome>, TransactionError> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
        .map_err(TransactionError::NotMade)?;
    let mut last = before;
    let mut outcomes = Vec::with_capacity(group.len());
    for (change, _) in group {
        // Dropped on an error, the transaction rolls back.
        let applied =
            rows::apply(&transaction, change.clone(), last).map_err(TransactionError::NotMade)?;
        outcomes.push(match applied {
            ControlFlow::Continue(committed) => {
                last = committed.revision;
                Outcome::Made(committed)
            }
            ControlFlow::Break(name) => Outcome::Stale(name),
        });
    }
    match transaction.commit() {
        Ok(()) => Ok(outcomes),
        // The log had no room for the record that ends a transaction, so that the transaction is not made.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            Err(TransactionError::NotMade(error))
        }
        // What was written may come to light when the log is read again.
        Err(error) => Err(TransactionError::InDoubt(error, outcomes)),
    }
}

/// After a failed sync the kernel may call pages clean that never reached the disk. So all that the
/// log has goes into the database, whose own sync counts, before anything is said about it.
fn settled(connection: &Connection) -> rusqlite::Result<Revision> {
    let busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))?;
    if busy {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
            Some("the log cannot be emptied: another process reads it".into()),
        ));
    }
    rows::revision(connection)
}
