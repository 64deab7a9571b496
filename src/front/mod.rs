//! What the network sees: listeners, connections, and the two wires of the KMS API, gRPC and AWS's
//! own.
//!
//! Hides: sockets, TLS, HTTP, protobuf, JSON, signatures, how a fault travels. Promises: nobody is
//! taken for somebody without a proof that holds now; an answer by the deadline, each with its
//! request ID and, if it is an error, with its KMS name; no bytes from the network end the process; a
//! connection costs bounded memory. Does not: decide anything about keys (that is `kms`).
//!
//! A connection comes in by `listen`, agrees on TLS in `handshake`, and is a `guest` from then on:
//! judged by the listener's `gate`, again whenever that is replaced.

pub mod aws;
mod call;
mod certificate;
mod gate;
pub mod grpc;
mod guest;
mod handshake;
mod listen;
mod peer;
mod settings;
mod socket_file;
mod strangers;
mod tls;

pub use gate::Gate;
pub use guest::Guest;
pub use listen::{BindFault, Listener, Protocol, bind, serve};
pub use settings::{
    AwsSettings, CertificateDns, CertificateUri, DeclaredPrincipal, GrpcSettings, Listen,
    Principal, SocketMode, TlsSettings,
};
pub use tls::{Tls, TlsFault};

#[cfg(test)]
mod tls_tests;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use crate::{model::Operation, proto::v1::FILE_DESCRIPTOR_SET};

    /// AWS's wire answers each [`Operation`] in one match without a wildcard; what gRPC has is in its
    /// descriptors. Streams have no counterpart in KMS, and rotation is refused on AWS's wire alone.
    #[test]
    fn both_wires_have_the_same_operations() {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
        let services = files.iter().flat_map(|file| &file.service);
        let grpc: BTreeSet<_> = services
            .flat_map(|service| &service.method)
            .filter(|method| !method.client_streaming())
            .map(|method| method.name())
            .collect();
        let aws: BTreeSet<_> = Operation::ALL
            .into_iter()
            .filter(|operation| !matches!(operation, Operation::Foreign(_)))
            .map(Operation::name)
            .filter(|name| !name.contains("Rotat"))
            .collect();
        assert_eq!(grpc, aws);
        assert!(grpc.len() > 18);
    }
}
