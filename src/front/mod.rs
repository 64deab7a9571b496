//! What the network sees: listeners, connections, and the KMS API over gRPC and over AWS JSON.
//!
//! Hides: sockets, TLS, HTTP, protobuf, JSON, signatures, the form of errors. Promises: a caller is a
//! principal only by a proof that holds now; an answer by the deadline, each with its request ID and,
//! if it is an error, with its KMS name; no bytes from the network end the process; a connection costs
//! bounded memory. Does not: decide anything about keys (that is `kms`).
//!
//! A connection is accepted in `listener::accept`, makes its handshake in `listener::handshake`, and is
//! an `auth::connection` from then on: authenticated by what `auth::access` says, again whenever a
//! reload replaces that. Inner arrows: `grpc`, `aws` → `listener` → `auth` → `tls` → `settings`.

mod auth;
pub mod aws;
mod call;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod grpc;
mod limits;
mod listener;
mod log_limit;
mod metrics;
mod receive_budget;
mod recent;
mod recording;
mod settings;
mod tls;

pub use auth::{
    access::{Access, AccessWatch},
    access_key::{AccessKeys, SecretAccessKey},
    authenticator::Authenticator,
    connection::ClientConnection,
};
pub use limits::{
    DefaultLimits, LimitTable, Limits, LimitsSettings, LimitsSnapshot, OwnLimits, Quota, Rate,
    ThrottledPrincipal,
};
pub use listener::{
    accept::{Listener, Protocol, bind, serve},
    connections::Connections,
    socket::{AcceptBackoff, BindFault, Socket, Stream},
};
pub use metrics::{CallCount, CallsSnapshot, ConnectionsSnapshot};
pub use recent::{RecentFault, Refusal};
pub use settings::{
    AccessKeyId, AwsSettings, CertificateDns, CertificateUri, GrpcSettings, Listen, PrincipalArn,
    PrincipalSettings, SocketMode, TlsSettings,
};
pub use tls::{Tls, TlsFault};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use crate::{model::Operation, proto::v1::FILE_DESCRIPTOR_SET};

    /// AWS's API answers each [`Operation`] in one match without a wildcard; what gRPC has is in its
    /// descriptors. Streams have no counterpart in KMS, and AWS's API alone says that there are no custom
    /// key stores.
    #[test]
    fn grpc_and_aws_have_the_same_operations() {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
        let services = files.iter().flat_map(|file| &file.service);
        let grpc: BTreeSet<_> = services
            .flat_map(|service| &service.method)
            .filter(|method| !method.client_streaming())
            .map(|method| method.name())
            .collect();
        let aws: BTreeSet<_> = Operation::ALL
            .into_iter()
            .filter(|operation| !matches!(operation, Operation::Unsupported(_)))
            .map(Operation::name)
            .filter(|name| !name.contains("CustomKeyStores"))
            .collect();
        assert_eq!(grpc, aws);
        assert!(grpc.len() > 23);
    }
}
