//! gRPC: the services, and what every call gets besides: a request ID, a deadline, errors with details.
//!
//! Hides: HTTP/2, protobuf, tonic. Promises: an answer by the deadline; errors of the library look like
//! errors of the API. Does not: decide anything about keys (that is `kms`).

mod arriving_body;
mod call_context;
mod connection;
mod flood;
mod frames;
mod health;
mod key;
mod late_streams;
mod mac;
mod status;
mod streams;

pub use health::{Condition, Health};

use std::{
    convert::Infallible,
    error::Error as StdError,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode, header};
use hyper::body::Body as HttpBody;
use tokio::sync::watch;
use tonic::{body::Body, server::NamedService, service::Routes};
use tower::Service as _;
use tracing::Instrument as _;

use arriving_body::{ARRIVAL, ArrivingBody};
use call_context::{CallContext, SizeLimit};
use streams::{OpenStreams, Streams};

use super::{
    auth::{
        access::{Access, AccessWatch},
        failure::AuthFailure,
    },
    call::{AnsweredCall, ClientIds, RequestId},
    limits::Limits,
    log_limit::LogLimit,
    metrics::{CallMetrics, CalledOperation, CallsSnapshot},
    recording::{self, Ended, Recording},
    settings::GrpcSettings,
};
use crate::{
    kms::{self, Kms},
    model::Caller,
    proto::audit::Wire,
    proto::v1::{
        FILE_DESCRIPTOR_SET, key_service_server::KeyServiceServer,
        mac_service_server::MacServiceServer,
    },
    telemetry::{self, traces},
};

/// The ALPN name of HTTP/2 (RFC 7301).
pub const ALPN: &[u8] = b"h2";

/// Everything that answers on the gRPC listener.
pub struct Api {
    /// Apart from the routes: most calls are for it and need no router.
    mac: MacServiceServer<mac::MacApi>,
    kms: Arc<Kms>,
    rest: Routes,
    default_deadline: Duration,
    access: AccessWatch,
    max_streams: u32,
    limits: Arc<Limits>,
    /// Connections that were closed for what peers sent.
    floods: LogLimit,
    calls: Arc<CallMetrics>,
}

impl Api {
    /// MacService, KeyService, health and, if the settings say so, reflection. Health is
    /// NOT_SERVING until [`Health::follow`] runs.
    pub async fn new(
        kms: Arc<Kms>,
        settings: &GrpcSettings,
        access: watch::Receiver<Arc<Access>>,
        limits: Arc<Limits>,
    ) -> (Arc<Self>, Health) {
        let (health, health_server) = Health::new({
            let kms = Arc::clone(&kms);
            move || (kms.token_changes(), kms.serving())
        })
        .await;
        let mut rest = Routes::builder();
        rest.add_service(
            KeyServiceServer::new(key::KeyApi { kms: kms.clone() })
                .max_decoding_message_size(KEY_LIMIT.bytes),
        )
        .add_service(health_server.max_decoding_message_size(OTHER_LIMIT.bytes));
        if settings.reflection {
            let reflection = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                    // The details of errors are in these messages, so that tools can show them.
                    .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            };
            let sound = "the descriptor sets come from the compiler";
            let v1 = reflection().build_v1().expect(sound);
            let v1alpha = reflection().build_v1alpha().expect(sound);
            rest.add_service(v1.max_decoding_message_size(OTHER_LIMIT.bytes))
                .add_service(v1alpha.max_decoding_message_size(OTHER_LIMIT.bytes));
        }
        let calls = Arc::new(CallMetrics::new("grpc"));
        let streams = Streams {
            limits: limits.clone(),
            calls: calls.clone(),
            default_deadline: settings.default_deadline,
            open: OpenStreams::default(),
        };
        let api = Self {
            kms: Arc::clone(&kms),
            mac: MacServiceServer::new(mac::MacApi { kms, streams })
                .max_decoding_message_size(MAC_LIMIT.bytes),
            rest: rest.routes().prepare(),
            default_deadline: settings.default_deadline,
            access: AccessWatch::new(access, |access| &access.grpc),
            max_streams: settings.max_streams,
            limits,
            floods: LogLimit::new(),
            calls,
        };
        (Arc::new(api), health)
    }

    /// The calls so far.
    pub fn calls(&self) -> CallsSnapshot {
        self.calls.snapshot()
    }

    /// Answers one call, by its deadline and with its request ID.
    async fn answer<B>(
        &self,
        request: Request<B>,
        caller: Result<Arc<Caller>, AuthFailure>,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
    {
        let (request_id, began) = (RequestId::next(), Instant::now());
        let operation = operation(request.uri().path());
        let ids = ClientIds::of(request.headers());
        let span = tracing::debug_span!(
            "call", %request_id, path = request.uri().path(), client_request_id = ids.request_id(),
            trace_id = ids.trace_id()
        );
        let known = caller.as_ref().ok().cloned();
        let traced = traces::is_on().then(|| request.uri().clone());
        // Pinned here: whoever takes a future by value copies it, and this one is large.
        let source = request
            .extensions()
            .get::<StrangerAddress>()
            .map(|from| from.0);
        let recording = Recording::of(&self.kms, Wire::Grpc);
        let answered = pin!(self.answer_by_deadline(request, caller, operation, request_id));
        let noted = telemetry::noting(answered).instrument(span);
        let ((mut response, notes), noted) =
            recording::noting(recording.as_ref(), request_id, &ids, noted).await;
        let mut failed = status::kind_of(response.headers());
        if operation.is_stream() && failed.is_none() {
            // It has begun; its items are recorded and told of one by one.
            tracing::debug!(%request_id, operation = operation.name(), "a stream begins");
            response
                .headers_mut()
                .insert(REQUEST_ID, request_id.header());
            return response;
        }
        if let Some(recording) = recording {
            let caller = known.as_deref();
            let ended = Ended {
                operation,
                caller,
                source,
                failed,
            };
            // Security: what is not in the audit log is not answered.
            if let Err(error) = recording.ended(ended, request_id, &ids, noted).await {
                response = status::status(&error, request_id).into_http();
                failed = Some(error.kind());
            }
        }
        let took = self.calls.answered(operation, failed, began);
        let cause = failed.and_then(|_| status::cause_of(response.extensions()));
        AnsweredCall {
            request_id,
            ids: &ids,
            operation: operation.name(),
            failed,
            cause: cause.as_deref(),
            took,
            wire: "grpc",
            span: traced.as_ref().map(|uri| span_name(operation, uri.path())),
            is_authenticated: known.is_some(),
            began,
            notes,
        }
        .tell();
        if let Some(kind) = failed {
            let recent = &self.calls.recent;
            recent.failed(operation.name(), kind, known.as_deref(), cause, request_id);
        }
        response
            .headers_mut()
            .insert(REQUEST_ID, request_id.header());
        response
    }

    async fn answer_by_deadline<B>(
        &self,
        mut request: Request<B>,
        caller: Result<Arc<Caller>, AuthFailure>,
        operation: CalledOperation,
        request_id: RequestId,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
    {
        if let Some(refusal) = not_grpc(&request) {
            return refusal;
        }
        // Security: a caller without a proof is answered before its body is read, and before anybody
        // looks for what it asks for.
        let path = request.uri().path();
        let known = match &caller {
            Ok(caller) => Some(caller.clone()),
            Err(_) if path == HEALTH_CHECK => None,
            Err(failure) => return status::status(&(*failure).into(), request_id).into_http(),
        };
        // Before anybody looks at what is asked for: calls that are denied count too.
        let admitted = match &known {
            // Health is no call.
            Some(caller) if !path.starts_with(HEALTH) => {
                self.limits.admit(caller, operation.quota()).map(Some)
            }
            Some(_) | None => Ok(None),
        };
        let _permit = match admitted {
            Ok(permit) => permit,
            Err(error) => return status::status(&error, request_id).into_http(),
        };
        let arrives_until = (!is_stream(path)).then(|| tokio::time::Instant::now() + ARRIVAL);
        let own_deadline = match call_context::own_deadline(request.headers()) {
            Ok(own_deadline) => own_deadline,
            Err(error) => return status::status(&error, request_id).into_http(),
        };
        let until = own_deadline.unwrap_or_else(|| Instant::now() + self.default_deadline);
        request.extensions_mut().insert(CallContext {
            caller,
            until,
            own_deadline,
            request_id,
        });
        let limit = limit(request.uri().path());
        // Tokens answer by the deadline themselves, and say why. This limit is for a request whose
        // message does not arrive.
        let answered = pin!(async {
            match known {
                Some(caller) => {
                    let arriving =
                        |body| ArrivingBody::new(body, caller, request_id, arrives_until);
                    self.route(request.map(arriving)).await
                }
                None => self.route(request).await,
            }
        });
        match tokio::time::timeout_at((until + SLACK).into(), answered).await {
            Ok(response) => {
                match call_context::describe_library_error(response.headers(), limit, request_id) {
                    None => response,
                    Some(status) => status.into_http(),
                }
            }
            Err(_) => status::status(&kms::timed_out(), request_id).into_http(),
        }
    }

    async fn route<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
    {
        let answered: Result<_, Infallible> =
            if service(request.uri().path()) == MacServiceServer::<mac::MacApi>::NAME {
                self.mac.clone().call(request).await
            } else {
                self.rest.clone().call(request).await
            };
        match answered {
            Ok(response) => response,
        }
    }
}

/// Where a call comes from that nobody is known to have sent: an extension of its request.
#[derive(Clone, Copy)]
struct StrangerAddress(IpAddr);

/// The plain HTTP answer to a request that is not gRPC, as the gRPC specification asks.
fn not_grpc<B>(request: &Request<B>) -> Option<Response<Body>> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], |v| v.as_bytes());
    let (code, say) = if request.method() != Method::POST {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            "hsmac speaks gRPC here: POST only\n",
        )
    } else if !matches!(
        content_type,
        b"application/grpc" | b"application/grpc+proto"
    ) {
        (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "hsmac speaks gRPC here: content-type must be application/grpc\n",
        )
    } else {
        return None;
    };
    let mut response = Response::new(Body::new(say.to_owned()));
    *response.status_mut() = code;
    Some(response)
}

fn limit(path: &str) -> SizeLimit {
    match service(path) {
        <MacServiceServer<mac::MacApi> as NamedService>::NAME => MAC_LIMIT,
        <KeyServiceServer<key::KeyApi> as NamedService>::NAME => KEY_LIMIT,
        _ => OTHER_LIMIT,
    }
}

/// Whether a call's messages may come one after another, as long as both sides like.
fn is_stream(path: &str) -> bool {
    path == HEALTH_WATCH
        || path == GENERATE_MACS
        || path == VERIFY_MACS
        || path.starts_with(REFLECTION)
}

/// What a path of our own services calls.
fn operation(path: &str) -> CalledOperation {
    let method = path
        .strip_prefix("/hsmac.v1.")
        .and_then(|path| path.split_once('/'));
    method.map_or(CalledOperation::OTHER, |(_, method)| {
        CalledOperation::named(method)
    })
}

/// A call's name in traces. Only what hsmac serves has one of its own: paths are a peer's words.
fn span_name(operation: CalledOperation, path: &str) -> &str {
    if operation == CalledOperation::OTHER {
        "other"
    } else {
        path.trim_start_matches('/')
    }
}

/// `/package.Service/Method`
fn service(path: &str) -> &str {
    path.strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .map_or("", |(service, _)| service)
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAC_LIMIT: SizeLimit = SizeLimit {
    service: "MacService",
    bytes: 128 << 10,
};
const KEY_LIMIT: SizeLimit = SizeLimit {
    service: "KeyService",
    bytes: 256 << 10,
};
const OTHER_LIMIT: SizeLimit = SizeLimit {
    service: "the service",
    bytes: 64 << 10,
};
const SLACK: Duration = Duration::from_millis(50);
/// Load balancers ask for it, and have no proof.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const HEALTH: &str = "/grpc.health.v1.Health/";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const GENERATE_MACS: &str = "/hsmac.v1.MacService/GenerateMacs";
const VERIFY_MACS: &str = "/hsmac.v1.MacService/VerifyMacs";
const REFLECTION: &str = "/grpc.reflection.";

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{self, Poll},
    };

    use hyper::body::Frame;
    use prost::Message as _;
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{kms::testing::without_tokens, proto::v1};

    async fn api(anonymous: bool) -> Arc<Api> {
        let caller = Caller::parse("arn:aws:iam::111122223333:user/billing").unwrap();
        let settings = GrpcSettings {
            listen: super::super::Listen::Tcp(([127, 0, 0, 1], 0).into()),
            anonymous: anonymous.then_some(super::super::PrincipalArn(caller)),
            reflection: true,
            default_deadline: Duration::from_millis(200),
            max_connections: 1,
            max_streams: 1,
            secure_unix_socket: true,
            mode: None,
            tls: None,
        };
        let anonymous = settings.anonymous.as_ref().map(|one| &one.0);
        let access = Access {
            grpc: super::super::Authenticator::new(None, &[], anonymous),
            ..Access::default()
        };
        let (_, access) = watch::channel(Arc::new(access));
        Api::new(without_tokens(), &settings, access, Arc::default())
            .await
            .0
    }

    fn request(path: &str, body: Body) -> Request<Body> {
        Request::post(path)
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap()
    }

    fn framed(message: &[u8]) -> Body {
        let length = u32::try_from(message.len()).unwrap();
        let framed = [&[0], &length.to_be_bytes()[..], message].concat();
        Body::new(Once(Some(framed.into())))
    }

    struct Once(Option<Bytes>);

    impl HttpBody for Once {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    /// A body that never comes.
    struct Stalled;

    impl HttpBody for Stalled {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    async fn refusal(api: &Api, request: Request<Body>) -> (Code, String, Status) {
        let peer = super::super::auth::peer::Peer::Tcp(([127, 0, 0, 1], 9).into());
        let caller = api.access.clone().caller(&peer);
        let response = api.answer(request, caller).await;
        assert!(response.headers().contains_key("x-request-id"));
        let status = Status::from_header_map(response.headers()).unwrap();
        let info = status.get_error_details().error_info().cloned().unwrap();
        assert_eq!(info.domain, "hsmac");
        (status.code(), info.reason, status)
    }

    #[tokio::test]
    async fn errors_of_the_grpc_library_get_an_error_info() {
        let api = api(true).await;
        let generate = "/hsmac.v1.MacService/GenerateMac";
        let mut long = vec![0, 0, 2, 0, 1];
        long.resize(64, 0);
        for (path, body, code, reason, said) in [
            (
                generate,
                framed(b"\xff\xff"),
                Code::InvalidArgument,
                "SERIALIZATION",
                "decoded",
            ),
            (
                generate,
                framed(b"\x0a\x02\xff\xfe"),
                Code::InvalidArgument,
                "SERIALIZATION",
                "",
            ),
            (
                generate,
                Body::empty(),
                Code::InvalidArgument,
                "SERIALIZATION",
                "decoded",
            ),
            (
                generate,
                Body::new(Once(Some(long.into()))),
                Code::InvalidArgument,
                "VALIDATION",
                "131072",
            ),
            (
                "/hsmac.v1.KeyService/DescribeKey",
                framed(&vec![0; (256 << 10) + 1]),
                Code::InvalidArgument,
                "VALIDATION",
                "262144",
            ),
            (
                "/hsmac.v1.MacService/Sign",
                framed(b""),
                Code::Unimplemented,
                "UNKNOWN_OPERATION",
                "no such operation",
            ),
            (
                "/hsmac.v1.KeyService/Sign",
                framed(b""),
                Code::Unimplemented,
                "UNKNOWN_OPERATION",
                "",
            ),
            (
                "/x.Y/Z",
                framed(b""),
                Code::Unimplemented,
                "UNKNOWN_OPERATION",
                "",
            ),
            (
                "/",
                framed(b""),
                Code::Unimplemented,
                "UNKNOWN_OPERATION",
                "",
            ),
            (
                "/grpc.health.v1.Health/Check",
                framed(b"\x0a\x01x"),
                Code::NotFound,
                "NOT_FOUND",
                "",
            ),
        ] {
            let (got, got_reason, status) = refusal(&api, request(path, body)).await;
            assert_eq!(
                (got, got_reason.as_str()),
                (code, reason),
                "{path}: {status:?}"
            );
            assert!(status.message().contains(said), "{path}: {status:?}");
        }
    }

    #[tokio::test]
    async fn faults_of_the_operations_keep_their_own_details() {
        let api = api(true).await;
        let message = v1::GenerateMacRequest {
            key_id: "key_id".into(),
            ..Default::default()
        };
        let asked = request(
            "/hsmac.v1.MacService/GenerateMac",
            framed(&message.encode_to_vec()),
        );
        let (code, reason, status) = refusal(&api, asked).await;
        assert_eq!(
            (code, reason.as_str()),
            (Code::InvalidArgument, "VALIDATION")
        );
        let details = status.get_error_details();
        let fields: Vec<_> = details
            .bad_request()
            .unwrap()
            .field_violations
            .iter()
            .map(|v| &v.field)
            .collect();
        assert_eq!(fields, ["message", "mac_algorithm"]);
    }

    #[tokio::test]
    async fn a_caller_without_proof_is_unauthenticated_unless_the_listener_is_anonymous() {
        let api = api(false).await;
        let asked = request("/hsmac.v1.KeyService/ListKeys", framed(b""));
        let (code, reason, _) = refusal(&api, asked).await;
        assert_eq!(
            (code, reason.as_str()),
            (Code::Unauthenticated, "MISSING_AUTHENTICATION_TOKEN")
        );
    }

    #[tokio::test]
    async fn a_request_whose_message_does_not_arrive_ends_with_its_deadline() {
        let api = api(true).await;
        let began = Instant::now();
        let mut asked = request("/hsmac.v1.MacService/GenerateMac", Body::new(Stalled));
        asked
            .headers_mut()
            .insert("grpc-timeout", "10m".parse().unwrap());
        let (code, reason, _) = refusal(&api, asked).await;
        assert_eq!(
            (code, reason.as_str()),
            (Code::DeadlineExceeded, "DEPENDENCY_TIMEOUT")
        );
        assert!(began.elapsed() < Duration::from_secs(10));

        let mut asked = request("/hsmac.v1.MacService/GenerateMac", framed(b""));
        asked
            .headers_mut()
            .insert("grpc-timeout", "soon".parse().unwrap());
        let (code, reason, _) = refusal(&api, asked).await;
        assert_eq!(
            (code, reason.as_str()),
            (Code::InvalidArgument, "VALIDATION")
        );
    }

    /// Whatever deadline its caller gives it: it costs us memory until it is here.
    #[tokio::test(start_paused = true)]
    async fn a_message_has_ten_seconds_to_arrive() {
        let api = api(true).await;
        let began = tokio::time::Instant::now();
        let mut asked = request("/hsmac.v1.MacService/GenerateMac", Body::new(Stalled));
        asked
            .headers_mut()
            .insert("grpc-timeout", "1H".parse().unwrap());
        let (code, reason, status) = refusal(&api, asked).await;
        assert_eq!(
            (code, reason.as_str()),
            (Code::DeadlineExceeded, "DEPENDENCY_TIMEOUT")
        );
        assert!(status.message().contains("within 10s"), "{status:?}");
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn what_is_not_grpc_gets_plain_http() {
        let api = api(true).await;
        let mut asked = request("/hsmac.v1.MacService/GenerateMac", framed(b""));
        asked
            .headers_mut()
            .insert("content-type", "application/json".parse().unwrap());
        assert_eq!(
            api.answer(asked, Err(AuthFailure::NoProof)).await.status(),
            415
        );
        let mut asked = request("/", Body::empty());
        *asked.method_mut() = Method::GET;
        assert_eq!(
            api.answer(asked, Err(AuthFailure::NoProof)).await.status(),
            405
        );
    }
}
