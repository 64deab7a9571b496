//! GenerateMacs and VerifyMacs: many items on one stream.

mod command;
mod ends;
mod items;
mod pressure;

use std::collections::BTreeMap;

use hsmac::proto::v1::{
    GenerateMacRequest, GenerateMacsRequest, GenerateMacsResponse, ItemError,
    generate_macs_response::Outcome, mac_service_client::MacServiceClient,
};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Request, Status, Streaming, codegen::tokio_stream, transport::Channel};

use crate::support::{KEY_ID, LIMIT, request, signal, until};

/// One stream of GenerateMacs.
struct MacStream {
    /// None: nothing more comes.
    items: Option<mpsc::Sender<GenerateMacsRequest>>,
    answers: Streaming<GenerateMacsResponse>,
}

impl MacStream {
    async fn open(mac: MacServiceClient<Channel>) -> Self {
        Self::try_open(mac, None).await.unwrap()
    }

    async fn try_open(
        mut mac: MacServiceClient<Channel>,
        deadline: Option<std::time::Duration>,
    ) -> Result<Self, Status> {
        let (items, incoming) = mpsc::channel(1);
        let mut request = Request::new(Incoming(incoming));
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        let answers = soon(mac.generate_macs(request)).await?.into_inner();
        let items = Some(items);
        Ok(Self { items, answers })
    }

    async fn send(&self, id: u64, message: &[u8]) {
        self.send_request(id, request(message)).await;
    }

    async fn send_request(&self, id: u64, request: GenerateMacRequest) {
        let request = Some(request);
        let items = self.items.as_ref().unwrap();
        soon(items.send(GenerateMacsRequest { id, request }))
            .await
            .unwrap();
    }

    /// The client's half close.
    fn close(&mut self) {
        self.items = None;
    }

    /// The next answer, or how the stream has ended.
    async fn next(&mut self) -> Result<Option<(u64, Result<Vec<u8>, Box<ItemError>>)>, Status> {
        let answer = soon(self.answers.message()).await?;
        Ok(answer.map(|answer| (answer.id, outcome(answer.outcome))))
    }

    /// The next answer, which is there.
    async fn answer(&mut self) -> (u64, Result<Vec<u8>, Box<ItemError>>) {
        self.next().await.unwrap().expect("one more answer")
    }

    /// All answers until the end, and the end.
    async fn rest(
        &mut self,
    ) -> (
        BTreeMap<u64, Result<Vec<u8>, Box<ItemError>>>,
        Result<(), Status>,
    ) {
        let mut answers = BTreeMap::new();
        loop {
            match self.next().await {
                Ok(Some((id, outcome))) => {
                    assert!(answers.insert(id, outcome).is_none(), "{id} twice");
                }
                Ok(None) => return (answers, Ok(())),
                Err(status) => return (answers, Err(status)),
            }
        }
    }
}

fn outcome(outcome: Option<Outcome>) -> Result<Vec<u8>, Box<ItemError>> {
    match outcome.expect("an answer has an outcome") {
        Outcome::Response(response) => {
            assert!(response.key_id.ends_with(KEY_ID) || response.key_id.contains(":key/"));
            assert_eq!(response.mac_crc32c, Some(crc32c::crc32c(&response.mac)));
            Ok(response.mac.to_vec())
        }
        Outcome::Error(error) => Err(Box::new(error)),
    }
}

/// What comes over a channel, as a client's stream.
struct Incoming<T>(mpsc::Receiver<T>);

impl<T> tokio_stream::Stream for Incoming<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}

/// Has a host stand still; what it has begun it may end until it does.
async fn stop(host: u32) {
    signal(host, "STOP");
    until("the host stands still", || {
        let stat = std::fs::read_to_string(format!("/proc/{host}/stat")).unwrap();
        let (_, state) = stat.rsplit_once(") ").unwrap();
        state.starts_with('T').then_some(())
    })
    .await;
}

/// Ends a hang.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(LIMIT, future).await.expect("it hangs")
}
