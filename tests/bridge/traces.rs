//! Traces, as a collector gets them. Builds with the feature `otlp`.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use hsmac::proto::v1::GenerateMacRequest;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::{
    operator::{Operator, watched, with_faults},
    support::{CALLER, Token, request, signal, until},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            assert_eq!(text(&attributes, "service.name"), "hsmac");
            let spans = resource.scope_spans.into_iter();
            self.0
                .lock()
                .unwrap()
                .extend(spans.flat_map(|scope| scope.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on an address that it gives.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let collector = Self::default();
        tokio::spawn(serve(collector.clone(), listener));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }

    /// The spans of a call, by its request ID: itself, and what is below it.
    async fn call(&self, request_id: &str) -> (Span, Vec<Span>) {
        until("the spans of the call", || {
            let spans = self.spans();
            let mut roots = spans.iter();
            let root =
                roots.find(|span| text(&span.attributes, "hsmac.request_id") == request_id)?;
            let below = spans
                .iter()
                .filter(|span| span.parent_span_id == root.span_id);
            Some((root.clone(), below.cloned().collect()))
        })
        .await
    }
}

/// tonic's own server is not among our features: hyper serves one connection after the other.
async fn serve(collector: Collector, listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(TraceServiceServer::new(
            collector.clone(),
        ));
        let serving =
            hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
        tokio::spawn(async move { drop(serving.await) });
    }
}

/// The text of an attribute; empty if there is none.
fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|one| one.key == key);
    match found.and_then(|one| one.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn traces(endpoint: &str, more: &str) -> String {
    format!("[traces]\nendpoint = \"http://{endpoint}\"\n{more}")
}

#[tokio::test]
async fn a_call_and_its_parts_are_spans_of_the_trace_that_its_caller_names() {
    let (collector, address) = Collector::start().await;
    let token = Token::with_key();
    let config = token.config() + &traces(&address, "one_in = 0\n") + "[log]\nlevel = \"debug\"\n";
    let server = token.serve(&config).await;
    let answer = server.mac().await.generate_mac(of_trace()).await.unwrap();
    let request_id = answer
        .metadata()
        .get("x-request-id")
        .unwrap()
        .to_str()
        .unwrap();
    // One that nobody asked for, and with which nothing is wrong.
    let other = server
        .mac()
        .await
        .generate_mac(request(b"y"))
        .await
        .unwrap();
    let other = other
        .metadata()
        .get("x-request-id")
        .unwrap()
        .to_str()
        .unwrap();

    let (root, below) = collector.call(request_id).await;
    assert_eq!(root.name, "hsmac.v1.MacService/GenerateMac");
    assert_eq!(
        (hex(&root.trace_id), hex(&root.parent_span_id)),
        (TRACE.to_owned(), "00f067aa0ba902b7".to_owned())
    );
    assert_eq!(text(&root.attributes, "rpc.system"), "grpc");
    assert_eq!(text(&root.attributes, "rpc.method"), "GenerateMac");
    let names: Vec<&str> = below.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["authorize", "queue", "C_Sign"]);
    assert_eq!(text(&below[2].attributes, "hsmac.token"), "primary");
    assert!(!text(&below[2].attributes, "hsmac.host").is_empty());
    for part in &below {
        assert_eq!(part.trace_id, root.trace_id);
        assert!(
            root.start_time_unix_nano <= part.start_time_unix_nano,
            "{part:?} {root:?}"
        );
        assert!(
            part.start_time_unix_nano <= part.end_time_unix_nano,
            "{part:?}"
        );
        assert!(
            part.end_time_unix_nano <= root.end_time_unix_nano,
            "{part:?} {root:?}"
        );
    }
    assert!(
        server.log().contains(&format!("trace_id={TRACE}")),
        "{}",
        server.log()
    );
    let spans = collector.spans();
    assert!(
        !spans
            .iter()
            .any(|span| text(&span.attributes, "hsmac.request_id") == other)
    );
}

/// What failed by our fault is traced in any case, also what waits for the collector when hsmac ends.
#[tokio::test]
async fn a_call_that_fails_by_our_fault_is_traced_although_hsmac_ends_then() {
    let (collector, address) = Collector::start().await;
    let token = Token::with_key();
    let settings = "hosts = 1\nsessions = 1\n";
    let config = with_faults(&token, settings) + &traces(&address, "one_in = 0\n");
    let mut server = token.serve(&config).await;
    token.rules("hide token");
    let mut client = server.mac().await;
    let failed = loop {
        if let Err(failed) = client.generate_mac(request(b"x")).await {
            break failed;
        }
    };
    assert_eq!(failed.code(), tonic::Code::Unavailable, "{failed:?}");
    let request_id = failed.metadata().get("x-request-id").unwrap();
    let request_id = request_id.to_str().unwrap().to_owned();
    signal(server.child.id(), "TERM");
    assert!(server.ended().await.success());
    let (root, _) = collector.call(&request_id).await;
    assert_eq!(
        text(&root.attributes, "error.type"),
        "KeyUnavailableException"
    );
    assert_eq!(root.status.unwrap().code, StatusCode::Error as i32);
}

#[tokio::test]
async fn a_collector_that_is_gone_costs_no_call_and_is_told_of_once() {
    let token = Token::with_key();
    // Nobody listens there any more.
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let config = watched(&token, &(token.config() + &traces(&gone, "one_in = 1\n")));
    let mut server = token.serve(&config).await;
    let operator = Operator::new(&token, &server).await;
    let mut client = server.mac().await;
    for _ in 0..100 {
        client.generate_mac(request(b"x")).await.unwrap();
    }
    operator
        .until_counted("hsmac_trace_spans_total{outcome=\"failed\"}", 400)
        .await;
    assert_eq!(
        server.log().matches("event=traces_lost").count(),
        1,
        "{}",
        server.log()
    );
    signal(server.child.id(), "TERM");
    assert!(server.ended().await.success());
}

/// Who has not proved who they are puts nothing into a trace of others.
#[tokio::test]
async fn the_traceparent_of_a_peer_without_a_proof_is_not_believed() {
    let (collector, address) = Collector::start().await;
    let token = Token::with_key();
    let mut config = token.config() + &traces(&address, "one_in = 1\n");
    // Another user of the machine is let in, this one is not.
    config = config.replace(&format!("anonymous = \"{CALLER}\"\n"), "");
    config = config.replace("[[principal]]\n", "[[principal]]\nunix_uid = 54321\n");
    let server = token.serve(&config).await;
    let refused = server.mac().await.generate_mac(of_trace()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused:?}");
    let request_id = refused.metadata().get("x-request-id").unwrap();
    let (root, _) = collector.call(request_id.to_str().unwrap()).await;
    assert_ne!(hex(&root.trace_id), TRACE);
    assert!(root.parent_span_id.is_empty(), "{root:?}");
}

/// Callers may ask for 200 traces a second; what else they ask for is answered, and not traced.
#[tokio::test]
async fn callers_get_no_more_traces_than_200_a_second() {
    let (collector, address) = Collector::start().await;
    let token = Token::with_key();
    let server = token
        .serve(&(token.config() + &traces(&address, "one_in = 0\nslow = \"60s\"\n")))
        .await;
    let (mut client, began) = (server.mac().await, Instant::now());
    for _ in 0..1000 {
        client.generate_mac(of_trace()).await.unwrap();
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    // The end hands over what waits.
    assert!(server.terminate().await.success());
    let spans = collector.spans();
    let calls = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Server as i32);
    let calls = calls.count();
    // One second more may have begun than have passed.
    assert!(
        (200..=200 * (seconds + 1)).contains(&calls),
        "{calls} in {seconds} s"
    );
}

/// A request that says that it is part of a trace.
fn of_trace() -> Request<GenerateMacRequest> {
    let mut asked = Request::new(request(b"x"));
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    asked
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    asked
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
