//! What the network sees: listeners, connections, and the gRPC wire of the KMS API.
//!
//! Hides: sockets, HTTP/2, protobuf, how a fault travels. Promises: an answer by the deadline, each
//! with its request ID and, if it is an error, with an ErrorInfo; no bytes from the network end the
//! process; a connection costs bounded memory. Does not: decide anything about keys (that is `kms`).

pub mod aws;
mod call;
pub mod grpc;
mod listen;
mod peer;
mod settings;
mod socket_file;

pub use listen::{BindFault, Listener, bind, serve};
pub use peer::Peer;
pub use settings::{Listen, Principal, Settings, SocketMode};
