//! Calls over gRPC, many at a time on a connection.

use bytes::Bytes;
use tonic::{Status, transport::Channel};

use super::{
    super::{
        CliError,
        client::{self, Alpn, CallFailure, Endpoint, Server, TlsFlags},
    },
    BenchConnection, CONNECT, FailedCall, LoadArguments,
};
use crate::proto::v1::{GenerateMacRequest, MacAlgorithm, mac_service_client::MacServiceClient};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  hsmac bench grpc --key-id alias/demo
  hsmac bench grpc --key-id alias/demo --connections 16 --duration 30s
  hsmac bench grpc --key-id alias/demo --rate 5000 --json
  hsmac bench grpc --key-id alias/payments \\
      --endpoint https://127.0.0.1:50051 --ca-bundle servers.pem \\
      --certificate billing.pem --key billing.key

Without --rate each of connections × streams lanes waits for its answer before it sends again: what
the server can do. With --rate calls are sent by the clock, and latency counts from the moment at
which a call was due: what users would see. Ctrl-C ends early and prints what was measured.
The client takes CPU time too; on a shared machine look at \"own CPU\".";

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// http://HOST:PORT, https://HOST:PORT or unix:/PATH. Default: $HSMAC_ENDPOINT, else
    /// http://127.0.0.1:50051.
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    #[command(flatten)]
    tls: TlsFlags,
    /// Connections.
    #[arg(long, value_name = "C", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Calls at a time on each connection.
    #[arg(long, value_name = "M", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    streams: u32,
    #[command(flatten)]
    load: LoadArguments,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let endpoint = arguments.endpoint.as_ref();
    let server =
        client::server(endpoint, &arguments.tls, None, Alpn::Http2).map_err(CliError::Usage)?;
    let load = &arguments.load;
    let request = GenerateMacRequest {
        key_id: load.key_id.clone(),
        message: Bytes::from(load.message()),
        // clap lets only names of the contract pass.
        mac_algorithm: MacAlgorithm::from_str_name(&load.mac_algorithm)
            .unwrap_or_default()
            .into(),
        ..Default::default()
    };
    let connect = async || {
        let channel = server.channel(CONNECT).await?;
        Ok(GrpcConnection {
            server: server.clone(),
            client: MacServiceClient::new(channel),
            request: request.clone(),
        })
    };
    super::run(
        load,
        &server.endpoint().to_string(),
        arguments.connections,
        Some(arguments.streams),
        connect,
    )
}

struct GrpcConnection {
    server: Server,
    client: MacServiceClient<Channel>,
    request: GenerateMacRequest,
}

impl BenchConnection for GrpcConnection {
    async fn call(&self) -> Result<(), FailedCall> {
        let request = self.request.clone();
        match self.client.clone().generate_mac(request).await {
            Ok(_) => Ok(()),
            Err(status) => Err(self.failed(&status)),
        }
    }
}

impl GrpcConnection {
    fn failed(&self, status: &Status) -> FailedCall {
        let code = || format!("gRPC {:?}", status.code());
        let (reason, said, away) = match self.server.failure(status) {
            CallFailure::Service { reason, .. } => (reason, status.message().to_owned(), false),
            CallFailure::Broken(cause) => (code(), cause, true),
            CallFailure::TimedOut | CallFailure::NotHsmac => {
                (code(), status.message().to_owned(), true)
            }
        };
        FailedCall { reason, said, away }
    }
}
