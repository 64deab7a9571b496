//! What takes too long for a test over a real connection.

use tokio::time::Instant;
use tonic::{Code, transport::Endpoint};

use super::*;
use crate::{
    front::{
        auth::{
            access::Access, authenticator::Authenticator, peer::Peer, pre_auth::PreAuthConnections,
        },
        grpc::Api,
        listener::accept::Protocol as _,
        settings::{GrpcSettings, Listen, PrincipalArn},
    },
    kms::testing::without_tokens,
    proto::v1::{GenerateMacsRequest, mac_service_client::MacServiceClient},
};

/// A client over a connection in memory, of which nothing ends for a reason of its own.
async fn client() -> MacServiceClient<tonic::transport::Channel> {
    let anonymous = Caller::parse("arn:aws:iam::111122223333:user/billing").unwrap();
    let settings = GrpcSettings {
        listen: Listen::Tcp(([127, 0, 0, 1], 0).into()),
        anonymous: Some(PrincipalArn(anonymous.clone())),
        reflection: false,
        default_deadline: Duration::from_secs(5),
        max_connections: 2,
        max_streams: 16,
        secure_unix_socket: true,
        mode: None,
        tls: None,
    };
    let access = Access {
        grpc: Authenticator::new(None, &[], Some(&anonymous)),
        ..Access::default()
    };
    let (sender, access) = watch::channel(Arc::new(access));
    let (api, _) = Api::new(without_tokens(), &settings, access, Arc::default()).await;
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let peer = Peer::Tcp(([127, 0, 0, 1], 9).into());
        let slot = PreAuthConnections::at_most("grpc", 4).admit(&peer);
        let connection = ClientConnection::new(peer, api.access(), slot);
        let (_drain, draining) = watch::channel(false);
        let served = api.serve_connection(theirs, connection, draining).await;
        drop(sender);
        served.is_ok()
    });
    let mut ours = Some(hyper_util::rt::TokioIo::new(ours));
    let endpoint = Endpoint::from_static("http://localhost");
    let connected = endpoint.connect_with_connector(tower::service_fn(move |_| {
        let ours = ours.take().ok_or(std::io::ErrorKind::ConnectionRefused);
        async move { ours.map_err(std::io::Error::from) }
    }));
    MacServiceClient::new(connected.await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_which_nothing_moves_for_a_quarter_of_an_hour_ends() {
    let mut client = client().await;
    let began = Instant::now();
    let items = OneItem(Some(GenerateMacsRequest::default()));
    let mut answers = client.generate_macs(items).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(answer.outcome.is_some());
    let status = answers.message().await.unwrap_err();
    let idle = began.elapsed();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(status.message(), "The stream was idle for 15 minutes.");
    assert!(
        idle >= IDLE && idle < IDLE + Duration::from_secs(60),
        "{idle:?}"
    );
}

/// One item, and no end.
struct OneItem(Option<GenerateMacsRequest>);

impl Stream for OneItem {
    type Item = GenerateMacsRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<GenerateMacsRequest>> {
        self.0
            .take()
            .map_or(Poll::Pending, |item| Poll::Ready(Some(item)))
    }
}
