//! Who sends too fast or reads too slowly costs bounded memory and nobody else's time.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use bytes::{Buf, BufMut, Bytes};
use hsmac::proto::v1::{DisableKeyRequest, GenerateMacsRequest, GenerateMacsResponse};
use http::uri::PathAndQuery;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::tokio_stream,
};

use super::{MacStream, outcome, soon};
use crate::{
    operator::with_faults,
    support::{KEY, LIMIT, Server, Token, Usage, hmac_sha256, request},
};

const OWN_ID: &str = "a234abcd-12ab-34cd-56ef-1234567890ab";

/// Sends items as they are, and reads to the end.
pub(super) async fn raw(
    server: &Server,
    items: Vec<Bytes>,
) -> (Vec<GenerateMacsResponse>, Result<(), Status>) {
    let mut client = Grpc::new(server.channel().await);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/hsmac.v1.MacService/GenerateMacs");
    let request = Request::new(tokio_stream::iter(items));
    let answers = soon(client.streaming(request, path, Raw)).await;
    let mut answers = match answers {
        Ok(answers) => answers.into_inner(),
        Err(status) => return (Vec::new(), Err(status)),
    };
    let mut read = Vec::new();
    loop {
        match soon(answers.message()).await {
            Ok(Some(answer)) => read.push(answer),
            Ok(None) => return (read, Ok(())),
            Err(status) => return (read, Err(status)),
        }
    }
}

/// Requests as bytes, answers as messages.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = GenerateMacsResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = GenerateMacsResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        prost::Message::decode(bytes)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// Security: and what its items hold, a key that is to be disabled above all, does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_holds_little_memory_and_no_key() {
    let token = Token::with_key();
    token.import("own", "a1", &KEY);
    token.seed(OWN_ID, "a1", "Enabled").await;
    let server = token.serve(&(token.config() + &token.store())).await;
    let mut mac = server.mac().await;
    mac.generate_mac(request(b"x")).await.unwrap();
    let before = Usage::of(server.child.id()).kib;

    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    // A message each is 4 KiB: half a gigabyte in all.
    const ITEMS: u64 = 100_000;
    let items = (0..ITEMS).map(move |id| {
        counted.store(id + 1, Ordering::Relaxed);
        let mut request = request(&[7; 4096]);
        request.key_id = OWN_ID.into();
        let request = Some(request);
        GenerateMacsRequest { id, request }
    });
    let mut reader = server.mac().await;
    let answers = reader.generate_macs(tokio_stream::iter(items));
    let mut answers = soon(answers).await.unwrap().into_inner();
    // Until the stream stands still.
    let (mut seen, mut since) = (0, Instant::now());
    while since.elapsed().as_millis() < 500 {
        let now = sent.load(Ordering::Relaxed);
        if now > seen {
            (seen, since) = (now, Instant::now());
        }
        tokio::task::yield_now().await;
    }
    let grown = Usage::of(server.child.id()).kib.saturating_sub(before);
    println!("{seen} of {ITEMS} items were sent, and the front has grown by {grown} KiB");
    assert!(seen < ITEMS / 4 && grown < 8 << 10, "{seen}, {grown} KiB");

    // Others are served, and the key that the items use can be disabled.
    mac.generate_mac(request(b"x")).await.unwrap();
    let key_id = OWN_ID.to_owned();
    let mut keys = server.keys().await;
    soon(keys.disable_key(DisableKeyRequest { key_id }))
        .await
        .unwrap();
    // Who reads on gets all of it: MACs first, and what the key says now after that.
    let right = Ok(hmac_sha256(&KEY, &[7; 4096]));
    let (mut made, mut disabled) = (0, 0);
    while let Some(answer) = soon(answers.message()).await.unwrap() {
        match outcome(answer.outcome) {
            Err(error) if error.reason == "DISABLED" => disabled += 1,
            mac => {
                assert_eq!(mac, right);
                made += 1;
            }
        }
    }
    println!("{made} MACs were made before the key was disabled");
    assert!(made > 0 && made <= seen && made + disabled == ITEMS);
}

/// A stream of the same principal that is always full takes turns with its calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saturating_stream_starves_no_call_of_its_own_principal() {
    let token = Token::with_key();
    let config = with_faults(&token, "hosts = 1\nsessions = 1\n");
    let server = token.serve(&config).await;
    let mut mac = server.mac().await;
    mac.generate_mac(request(b"x")).await.unwrap();
    token.rules("delay C_Sign 2ms");
    let mut streams = tokio::task::JoinSet::new();
    let answered = Arc::new(AtomicU64::new(0));
    // Twice as many items as the queue holds: none is refused for that.
    for _ in 0..8 {
        let (mut mac, answered) = (server.mac().await, answered.clone());
        streams.spawn(async move {
            let items = (0..).map(|id| GenerateMacsRequest {
                id,
                request: Some(request(b"item")),
            });
            let answers = mac.generate_macs(tokio_stream::iter(items)).await;
            let mut answers = answers.unwrap().into_inner();
            while let Some(answer) = answers.message().await.unwrap() {
                assert_eq!(outcome(answer.outcome), Ok(hmac_sha256(&KEY, b"item")));
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let began = Instant::now();
    while answered.load(Ordering::Relaxed) < 100 {
        assert!(began.elapsed() < LIMIT);
        tokio::task::yield_now().await;
    }
    // Two thousand items wait; a call that waited for its turn behind them would see so many answered.
    let before = answered.load(Ordering::Relaxed);
    const CALLS: u64 = 20;
    for _ in 0..CALLS {
        soon(mac.generate_mac(request(b"call"))).await.unwrap();
    }
    let each = (answered.load(Ordering::Relaxed) - before) / CALLS;
    println!("{each} items are served for each call");
    assert!(each < 64, "{each}");
    // One that has failed has ended.
    assert!(streams.try_join_next().is_none());
    streams.abort_all();
}

/// Items of a client that leaves are not made for nobody, and the next stream is served.
#[tokio::test]
async fn a_client_that_leaves_takes_its_items_with_it() {
    let token = Token::with_key();
    let config = with_faults(&token, "hosts = 1\nsessions = 1\n");
    let server = token.serve(&config).await;
    token.rules("delay C_Sign 50ms");
    for _ in 0..20 {
        let stream = MacStream::open(server.mac().await).await;
        for id in 0..100 {
            stream.send(id, b"x").await;
        }
        // 2,000 items of 50 ms, if they were made.
        drop(stream);
    }
    let mut stream = MacStream::open(server.mac().await).await;
    stream.send(1, b"x").await;
    assert!(stream.answer().await.1.is_ok());
}
