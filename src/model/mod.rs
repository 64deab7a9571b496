//! Pure nouns and rules of the KMS API: ARNs, key specs and states, aliases, tags, callers, the key
//! check message.
//!
//! Promises: no I/O, no clock, no lock; a value that was parsed is valid. It knows nothing of gRPC,
//! of PKCS#11 or of the configuration file.

mod alias;
mod arn;
mod caller;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod key;
pub mod policy;
mod reserved;
mod state;
mod tag;
mod text;

pub use alias::{AliasFault, AliasName};
pub use arn::{AccountId, KeyId, KeyReference, Place, ReferenceFault, alias_arn, key_arn};
pub use caller::Caller;
pub use key::{KeySpec, KeyUsage, MacAlgorithm, Origin};
pub use reserved::{RESERVED_PREFIX, is_reserved, key_check_message};
pub use state::{Foreign, KeyState, NamesKey, Operation, Refusal};
pub use tag::{Tag, TagFault, Tags, TagsFault};
pub use text::{Date, Description};
