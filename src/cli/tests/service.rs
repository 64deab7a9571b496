//! The client's commands against a small service of our own that answers as told: well, damaged,
//! with an exception, or never.

use std::{
    collections::HashMap,
    future::pending,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_stream::Empty;
use tonic::{Code, Request, Response, Status, Streaming, codegen::tokio_stream};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;
use crate::proto::v1::{
    GenerateMacRequest, GenerateMacResponse, GenerateMacsRequest, GenerateMacsResponse,
    GenerateRandomRequest, GenerateRandomResponse, VerifyMacRequest, VerifyMacResponse,
    VerifyMacsRequest, VerifyMacsResponse,
    mac_service_server::{MacService, MacServiceServer},
};

/// Does what the key ID says.
struct Fake;

#[tonic::async_trait]
impl MacService for Fake {
    async fn generate_mac(
        self: Arc<Self>,
        request: Request<GenerateMacRequest>,
    ) -> Result<Response<GenerateMacResponse>, Status> {
        let request = request.into_inner();
        let mac = Bytes::from_static(b"hi");
        let mut reply = GenerateMacResponse {
            mac_algorithm: request.mac_algorithm,
            mac_crc32c: Some(crc32c::crc32c(&mac)),
            mac,
            key_id: "arn:good".into(),
            verified_message_crc32c: request.message_crc32c
                == Some(crc32c::crc32c(&request.message)),
        };
        match request.key_id.as_str() {
            "damaged" => reply.mac_crc32c = Some(0),
            "unverified" => reply.verified_message_crc32c = false,
            "silent" => pending().await,
            _ => {}
        }
        Ok(Response::new(reply))
    }

    async fn verify_mac(
        self: Arc<Self>,
        _: Request<VerifyMacRequest>,
    ) -> Result<Response<VerifyMacResponse>, Status> {
        let metadata = HashMap::from([("exception".into(), "KMSInvalidMacException".into())]);
        let details = ErrorDetails::with_error_info("KMS_INVALID_MAC", "hsmac", metadata);
        let mut status = Status::with_error_details(Code::InvalidArgument, "no match", details);
        status
            .metadata_mut()
            .insert("x-request-id", "r-1".parse().unwrap());
        Err(status)
    }

    async fn generate_random(
        self: Arc<Self>,
        _: Request<GenerateRandomRequest>,
    ) -> Result<Response<GenerateRandomResponse>, Status> {
        Err(Status::unimplemented("some other server"))
    }

    type GenerateMacsStream = Empty<Result<GenerateMacsResponse, Status>>;

    async fn generate_macs(
        self: Arc<Self>,
        _: Request<Streaming<GenerateMacsRequest>>,
    ) -> Result<Response<Self::GenerateMacsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    type VerifyMacsStream = Empty<Result<VerifyMacsResponse, Status>>;

    async fn verify_macs(
        self: Arc<Self>,
        _: Request<Streaming<VerifyMacsRequest>>,
    ) -> Result<Response<Self::VerifyMacsStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Serves on a thread of its own until the test ends; gives the endpoint.
fn serve() -> String {
    format!("http://{}", serve_over(Plain))
}

struct Plain;

impl Layer for Plain {
    type Stream = TcpStream;

    async fn accept(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// What is between TCP and HTTP.
pub(super) trait Layer: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn accept(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Serves HTTP/2 as [`Fake`]; gives the address.
pub(super) fn serve_over(layer: impl Layer) -> SocketAddr {
    let layer = Arc::new(layer);
    serve_connections(move |stream| {
        let layer = Arc::clone(&layer);
        async move {
            let stream = TokioIo::new(layer.accept(stream).await?);
            let service = TowerToHyperService::new(MacServiceServer::new(Fake));
            let served =
                http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service);
            served.await.map_err(io::Error::other)
        }
    })
}

/// Accepts connections on a thread of its own; gives the address.
pub(super) fn serve_connections<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream));
            }
        })
    });
    address
}

pub(super) fn command(line: &str) -> Result<(), CliError> {
    run(line.split(' ').map(OsString::from))
}

pub(super) const MAC: &str = "--message hello --mac-algorithm HMAC_SHA_256";

#[test]
fn an_answer_with_a_wrong_crc32c_is_an_error() {
    let at = serve();
    command(&format!(
        "hsmac kms generate-mac --key-id good {MAC} --endpoint {at}"
    ))
    .unwrap();
    for key_id in ["damaged", "unverified"] {
        let line = format!("hsmac kms generate-mac --key-id {key_id} {MAC} --endpoint {at}");
        let stop = command(&line).unwrap_err();
        assert_eq!(stop.exit_code(), 255);
        assert!(stop.to_string().starts_with("CRC32C mismatch"), "{stop}");
    }
}

#[test]
fn a_kms_exception_is_printed_like_aws() {
    let at = serve();
    let line = format!("hsmac kms verify-mac --key-id k {MAC} --mac aGk= --endpoint {at}");
    let stop = command(&line).unwrap_err();
    assert_eq!(stop.exit_code(), 254);
    assert_eq!(
        stop.to_string(),
        "\nAn error occurred (KMSInvalidMacException) when calling the VerifyMac operation: no match\
         \nrequest ID: r-1"
    );
}

#[test]
fn an_error_without_a_kms_exception_ends_with_255() {
    let at = serve();
    let stop = command(&format!(
        "hsmac kms generate-random --number-of-bytes 5 --endpoint {at}"
    ))
    .unwrap_err();
    assert_eq!(stop.exit_code(), 255);
    assert!(
        stop.to_string()
            .contains("did not answer as hsmac does: Unimplemented"),
        "{stop}"
    );
    let line = format!("hsmac kms generate-mac --key-id silent {MAC} --timeout 1 --endpoint {at}");
    let stop = command(&line).unwrap_err();
    assert_eq!(stop.exit_code(), 255);
    assert!(
        stop.to_string().starts_with("Read timeout on endpoint URL"),
        "{stop}"
    );
}

#[test]
fn the_bench_runs_closed_and_open_and_ends_in_time() {
    let at = serve();
    for rate in ["", " --rate 200"] {
        let start = Instant::now();
        command(&format!(
            "hsmac bench grpc --key-id good --connections 2 --streams 2 --warmup 50ms \
             --duration 300ms --json --endpoint {at}{rate}"
        ))
        .unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{:?}",
            start.elapsed()
        );
    }
    let gone = command("hsmac bench grpc --key-id good --endpoint unix:/nowhere/s").unwrap_err();
    assert_eq!(gone.exit_code(), 69);
}
