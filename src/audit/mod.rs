//! The audit log: who did what with which key, in an order that cannot be changed afterwards without showing.
//!
//! Hides: files, frames, the tree, who writes for whom, what a full disk does. Promises: a call that was answered
//! is in the log, also after `kill -9` (`durability = "synced"`: after a power cut too), unless the operator chose
//! `on_failure = "answer"`, and then a [`Gap`](crate::proto::audit::Gap) says how many are missing; an attempt of
//! a change is on disk before the change is made. Never in the log: a message, a MAC, a grant token, a PIN, key
//! material. Does not: decide who may do what; know a wire.
//!
//! | file | is |
//! |---|---|
//! | `log` | [`Log`]: appends, commits for all who wait |
//! | `state` | what is appended and not yet written |
//! | `upkeep` | the log's thread: syncs, checkpoints, what a failure needs |
//! | `files` | the log's folder: recovery, segments' beginning and end |
//! | `sealing`, `seal` | what a token is asked to seal; the seal as text |
//! | `call` | what is known of a call while it runs, and its record |
//! | `strangers` | calls of peers who proved nothing, counted |
//! | `reader` | segments, read back; each fault with its place |
//! | `follow` | a log that is read while it is written |
//! | `export`, `sink` | records as JSON; to a SIEM's socket |
//! | `verify` | the whole log, and whether the tree is as its checkpoints say |
//! | `frame` | bytes on disk |

mod call;
mod export;
mod files;
mod follow;
mod frame;
mod log;
mod reader;
mod seal;
mod sealing;
mod settings;
mod sink;
mod state;
mod strangers;
mod upkeep;
mod verify;

#[cfg(test)]
mod tests;

pub use call::{
    CallRecord, Noted, admit, attempt, note_algorithm, note_alias, note_grant, note_key, noting,
};
pub use export::{cloudtrail, record};
pub use files::{Look, look};
pub use follow::Follower;
pub use log::{Log, OpenFault, SealedUpTo, Snapshot};
pub use reader::{Damage, Names, Segment, origin, segments};
pub use seal::SealedCheckpoint;
pub use sealing::{Wish, newest_seal};
pub use settings::{Durability, OnFailure, Settings};
pub use sink::JsonLines;
pub use verify::{Verified, prove, verify};

pub use crate::proto::audit::Phase;
