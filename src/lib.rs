//! hsmac makes message authentication codes inside an HSM, for programs that ask over the network.
//!
//! ```text
//!  clients ──gRPC──▶ ┌──────────────── hsmac serve (front) ────────────────┐ socketpair ┌─ hsmac token-host ─┐
//!  hsmac kms         │ listen → who is it → Kms (key, rights, state) → Token ├───────────▶│ PKCS#11 module .so │──▶ HSM
//!  operators ──CLI──▶│        (no PIN, no handle, no vendor code here)     │◀───────────┤ sessions, PIN      │
//!                    └─────────────────────────────────────────────────────┘            └─ × N for each token ┘
//! ```
//!
//! A client sends a message and a key ID; the front finds the key and its token; a host process, the
//! only one that loads the vendor's library, runs `CKM_SHA*_HMAC` inside the token. The contract is
//! that of AWS KMS's GenerateMac and what belongs to it.
//!
//! Five things to know before reading on:
//!
//! * A host is one *generation* of the module: it initialises once, logs in once, and is replaced,
//!   not healed ([`token`], [`token_host`]).
//! * A handle serves only while it makes its key's check value ([`model::key_check_message`]).
//! * The way of a MAC has no lock across an await, no search, and exactly two PKCS#11 calls.
//! * One fault list, KMS's, crosses the rooms ([`error::Kind`]); what a module said stays in the log.
//! * `unsafe` is in one file, `token_host/raw.rs`.
//!
//! Rooms, each of which may use those below it (`tests/arrows.rs` holds the arrows):
//!
//! | room | is |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`app`] | builds every part once; start and drain order |
//! | [`admin`] | what operators see: probes, metrics, state, a page |
//! | [`config`] | file < environment < `--set`; every fault at once, with its line |
//! | [`telemetry`] | logs |
//! | [`front`] | what the network sees: connections, TLS, authentication, gRPC and AWS's API |
//! | [`kms`] | the operations, in KMS's order of checks |
//! | [`token`] | hosts, queue, PIN care: the front's view of a token |
//! | [`audit`] | the log of calls that can be verified |
//! | [`store`] | the catalogue: named records with revisions |
//! | [`token_host`] | the child process; the only room that knows PKCS#11 |
//! | [`host_ipc`] | framing, and the table of calls in flight, shared by both ends of a host's socket |
//! | [`metrics`] | counters and histograms |
//! | [`model`], [`error`], [`proto`] | nouns and rules; faults; generated code |

pub mod admin;
pub mod app;
pub mod audit;
pub mod cli;
pub mod config;
pub mod error;
pub mod front;
pub mod host_ipc;
pub mod kms;
pub mod metrics;
pub mod model;
pub mod proto;
pub mod store;
pub mod telemetry;
pub mod token;
pub mod token_host;
