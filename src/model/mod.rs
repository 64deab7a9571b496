//! Pure nouns and rules of the KMS API: ARNs, key specs and states, aliases, tags, grants, callers, the
//! tree of the audit log, the messages that hsmac signs for itself.
//!
//! Promises: no I/O, no lock, no clock but [`Date::now`], which alone reads the time of day; a value
//! that was parsed is valid. It knows nothing of gRPC, of PKCS#11 or of the configuration file.

mod alias;
mod arn;
mod caller;
mod checkpoint;
mod flow;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod grant;
mod hex;
mod key;
mod merkle;
mod operation;
pub mod policy;
mod principal;
mod random;
mod reserved;
#[cfg(test)]
pub(crate) mod simulated;
mod state;
mod tag;
mod text;

pub use alias::{AliasFault, AliasName};
pub use arn::{
    AccountId, Arn, ArnScope, KeyId, KeyReference, ReferenceFault, alias_arn, alias_in, key_arn,
};
pub use caller::{Caller, RequestOrigin};
pub use checkpoint::Checkpoint;
pub use flow::{Flow, Lane};
pub use grant::{Bearer, Grant, GrantId, GrantOperations, GrantPrincipal, GrantedTo};
pub use hex::{decode_hex, encode_hex};
pub use key::{KeySpec, KeyUsage, MacAlgorithm, Origin};
pub use merkle::{Extension, ExtensionFault, Hash, InclusionProof, Prover, Tree, leaf_hash};
pub use operation::{NamesKey, Operation, UnsupportedOperation};
pub use principal::{Organization, Principal, PrincipalAttributes, PrincipalId};
pub use random::new_uuid;
pub use reserved::{RESERVED_PREFIX, audit_seal_message, is_reserved, key_check_message};
pub use state::{KeyState, Refusal};
pub use tag::{Tag, TagFault, Tags, TagsFault};
pub use text::{Date, Description, echo, seconds};
