//! The operations of the KMS API: what a front decodes, this room decides.
//!
//! Hides: how a key ID finds its key, who may do what, in which state a key serves, which token
//! has it. Promises: every operation checks in KMS's order, once: constraints → key → rights →
//! state → algorithm → token → dry run; no fault names what only the log may read; nothing is
//! looked up outside memory before the token is asked; a change is answered once the store has it
//! and memory shows it. Does not: know a wire; each front translates plain requests, answers and
//! [`Error`](crate::error::Error)s to its own.
//!
//! Inside, from the top down; each may use those below it (`tests/arrows.rs`):
//!
//! | room | is |
//! |---|---|
//! | `tools` | seeds, the simulation of policies, warnings of stored ones |
//! | `operations` | a file for each chapter of the API |
//! | `overview` | keys and tokens at one moment, for operators |
//! | `key_watch` | declared keys, looked at before a caller does |
//! | `service` | [`Kms`]: what the operations share |
//! | `lifecycle` | changes, creations, deletions: what takes time |
//! | `authorization` | who may do what; what each operation needs |
//! | `catalogue` | the keys in memory, and the form of their records in the store |
//! | `groups` | the groups of tokens that there are |
//! | `metrics`, `settings`, `principals`, `policy_documents`, `serving`, `grant_token`, `errors` | what is counted; what the configuration says; identity policies; policy texts; health; tokens of grants; KMS's texts of errors |

mod authorization;
mod catalogue;
mod errors;
mod grant_token;
mod groups;
mod key_watch;
mod lifecycle;
mod metrics;
mod operations;
mod overview;
mod policy_documents;
mod principals;
mod service;
mod serving;
mod settings;
mod tools;

#[cfg(test)]
pub(crate) mod testing;

pub(crate) use errors::timed_out;
pub use groups::{TokenChanges, TokenGroups};
pub use operations::*;
pub use overview::{Overview, ScheduledDeletion, TroubledKey};
pub use policy_documents::read_policy;
pub use principals::PrincipalPolicies;
pub use service::{Kms, OpenFault};
pub use serving::Serving;
pub use settings::{DeclaredKey, DeclaredPolicy, DeclaredRights, Settings};
pub use tools::*;
