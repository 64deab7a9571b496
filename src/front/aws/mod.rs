//! AWS's API: AWS JSON 1.1 over HTTP/1.1, signed with SigV4, as boto3, the AWS CLI and AWS's SDKs
//! speak it.
//!
//! Hides: the envelope, the signature, how a fault travels. Promises: refusals come in AWS's order:
//! HTTP → JSON → operation → proof → members; nobody without a proof is asked for more than 256 KiB,
//! or kept for more than ten seconds; no bytes end the process. Does not: decide anything about keys
//! (that is `kms`).

mod connection;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod json;
mod operations;
mod sender;
mod sigv4;

use std::{
    error::Error as StdError,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts,
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body as HttpBody;
use tokio::{sync::watch, time::timeout};
use tracing::Instrument as _;

use self::{
    json::Members,
    operations::Call,
    sender::{RefusalBudget, Sender},
    sigv4::Verifier,
};
use super::{
    auth::access::{Access, AccessWatch},
    call::{AnsweredCall, ClientIds, RequestId},
    limits::{Limits, Quota},
    log_limit::LogLimit,
    metrics::{CallMetrics, CalledOperation, CallsSnapshot},
    recent::shown_cause,
    recording::{self, Ended, Recording},
    settings::AwsSettings,
};
use crate::{
    error::{Error, Kind},
    kms::Kms,
    model::{Caller, Operation},
    proto::audit::Wire,
    telemetry::{self, StageTimer, traces},
};

/// The ALPN name of HTTP/1.1 (RFC 7301).
pub const ALPN: &[u8] = b"http/1.1";

/// Everything that answers on AWS's listener.
pub struct Api {
    kms: Arc<Kms>,
    access: AccessWatch,
    verifier: ArcSwap<AccessVerifier>,
    region: String,
    clock_skew: Duration,
    host_names: Vec<String>,
    deadline: Duration,
    limits: Arc<Limits>,
    refused_signatures: LogLimit,
    calls: CallMetrics,
}

/// What verifies signatures by the access keys that an [`Access`] has.
struct AccessVerifier {
    access: Arc<Access>,
    verifier: Verifier,
}

impl AccessVerifier {
    fn new(access: Arc<Access>, region: &str, skew: Duration) -> Self {
        let verifier = Verifier::new(&access.access_keys, region, skew);
        Self { access, verifier }
    }
}

impl Api {
    /// The operations for callers who have one of these access keys, or whose certificate is known;
    /// `region` is the one that they must sign for.
    pub fn new(
        kms: Arc<Kms>,
        settings: &AwsSettings,
        region: &str,
        access: watch::Receiver<Arc<Access>>,
        limits: Arc<Limits>,
    ) -> Arc<Self> {
        let host_names = settings.host_names.iter();
        let access = AccessWatch::new(access, |access| &access.aws);
        let verifier = AccessVerifier::new(access.now(), region, settings.clock_skew);
        Arc::new(Self {
            kms,
            access,
            verifier: ArcSwap::from_pointee(verifier),
            region: region.to_owned(),
            clock_skew: settings.clock_skew,
            host_names: host_names.map(|name| name.to_ascii_lowercase()).collect(),
            deadline: settings.deadline,
            limits,
            refused_signatures: LogLimit::new(),
            calls: CallMetrics::new("aws"),
        })
    }

    /// The calls so far.
    pub fn calls(&self) -> CallsSnapshot {
        self.calls.snapshot()
    }

    /// What verifies signatures by the access keys that are said now.
    fn verifier(&self) -> Arc<AccessVerifier> {
        let (access, known) = (self.access.now(), self.verifier.load_full());
        if Arc::ptr_eq(&known.access, &access) {
            return known;
        }
        let new = Arc::new(AccessVerifier::new(access, &self.region, self.clock_skew));
        self.verifier.store(new.clone());
        new
    }

    /// Answers one request.
    async fn answer<B>(&self, request: Request<B>, sender: &Sender<'_>) -> Response<Full<Bytes>>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (request_id, began) = (RequestId::next(), Instant::now());
        let mut called = Called::default();
        let ids = ClientIds::of(request.headers());
        let span = tracing::debug_span!(
            "call", %request_id, client_request_id = ids.request_id(), trace_id = ids.trace_id()
        );
        let recording = Recording::of(&self.kms, Wire::Aws);
        let ((mut answered, notes), noted) = {
            // Pinned here: whoever takes a future by value copies it, and this one is large.
            let answered = pin!(self.dispatch(request, sender, &mut called));
            let noted = telemetry::noting(answered).instrument(span);
            recording::noting(recording.as_ref(), request_id, &ids, noted).await
        };
        let mut failed = match &answered {
            Err(RequestError::Fault(error)) => Some(error.kind()),
            // It is no call, and AWS's servers have no exception for it.
            Err(RequestError::Http(..)) => Some(Kind::UnknownOperation),
            Ok(_) => None,
        };
        if let Some(recording) = recording {
            let ended = Ended {
                operation: called.operation,
                caller: called.caller.as_deref(),
                source: sender.connection.peer.ip(),
                failed,
            };
            // Security: what is not in the audit log is not answered.
            if let Err(error) = recording.ended(ended, request_id, &ids, noted).await {
                failed = Some(error.kind());
                answered = Err(RequestError::Fault(error));
            }
        }
        let took = self.calls.answered(called.operation, failed, began);
        let cause = match &answered {
            Err(RequestError::Fault(error)) => shown_cause(error),
            Err(RequestError::Http(..)) | Ok(_) => None,
        };
        let traced = traces::is_on().then(|| format!("KMS/{}", called.operation.name()));
        AnsweredCall {
            request_id,
            ids: &ids,
            operation: called.operation.name(),
            failed,
            cause: cause.as_deref(),
            took,
            wire: "aws",
            span: traced.as_deref(),
            is_authenticated: called.caller.is_some(),
            began,
            notes,
        }
        .tell();
        if let Err(RequestError::Fault(error)) = &answered {
            let Called { operation, caller } = &called;
            let recent = &self.calls.recent;
            recent.failed(
                operation.name(),
                error.kind(),
                caller.as_deref(),
                cause,
                request_id,
            );
        }
        let may_ask_again = answered.is_ok() || sender.refused().await == RefusalBudget::Left;
        let mut response = match answered {
            Ok(body) => json::response(StatusCode::OK, body),
            Err(RequestError::Fault(error)) => fault::response(&error, request_id),
            Err(RequestError::Http(status, xml)) => xml_response(status, xml),
        };
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, request_id.header());
        if !may_ask_again {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn dispatch<B>(
        &self,
        request: Request<B>,
        sender: &Sender<'_>,
        called: &mut Called,
    ) -> Result<Bytes, RequestError>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let until = Instant::now() + self.deadline;
        let (head, body) = request.into_parts();
        require_envelope(&head)?;
        // Under TLS the certificate does this: no browser goes on under a name that is not in it.
        if self.access.tls().is_none() {
            self.require_host(&head)?;
        }
        let certificate_caller = sender.certificate_caller();
        if !sender.is_authenticated() && self.is_promising(&head) {
            sender.request_is_promising();
        }
        let length = body.size_hint().exact();
        let is_short = length.is_some_and(|length| length <= UNPROVEN_BODY);
        if !sender.is_authenticated() && !is_short {
            self.require_promising(&head, length, certificate_caller.is_some())?;
        }
        let body = read(body, sender).await?;
        json::require_json(&body)?;
        let operation = operation(&head)?;
        called.operation = operation.into();
        let stage = StageTimer::begin();
        let caller = self.calls.authenticating(|| match certificate_caller {
            // A signature is of one request, a certificate of a connection: the signature counts.
            Some(certificate_caller) if !sigv4::is_signed(&head) => {
                certificate_caller.map_err(Error::from)
            }
            Some(_) | None => {
                let known = self.verifier();
                known
                    .verifier
                    .caller(&head, &body, SystemTime::now())
                    .inspect_err(|error| self.log_refused(error, &head, sender))
            }
        });
        stage.end("authenticate");
        let caller = caller?;
        let caller = sender.locate(&caller, head.headers.get(header::USER_AGENT));
        sender.mark_authenticated(&caller);
        called.caller = Some(caller.clone());
        // Before anybody looks at what is asked for: calls that are denied count too.
        let _permit = self.limits.admit(&caller, Quota::of(operation))?;
        let call = Call {
            kms: &self.kms,
            caller: &caller,
            members: Members::parse(&body)?,
            until,
        };
        Ok(call.answer(operation).await?)
    }

    /// Security: a long body of a peer that is not known yet is read only if the head may prove who has
    /// sent it. A short one is read, so that refusals come in AWS's order.
    fn require_promising(
        &self,
        head: &Parts,
        length: Option<u64>,
        has_certificate: bool,
    ) -> Result<(), Error> {
        if length.is_some_and(|length| length > BODY_LIMIT as u64) {
            return Err(too_long());
        }
        if has_certificate && !sigv4::is_signed(head) {
            return Ok(());
        }
        self.verifier().verifier.check_head(head, SystemTime::now())
    }

    fn is_promising(&self, head: &Parts) -> bool {
        let known = self.verifier();
        known.verifier.is_promising(head, SystemTime::now())
    }

    /// Whose secret is wrong, or whose clock, is in the log once a minute.
    fn log_refused(&self, error: &Error, head: &Parts, sender: &Sender<'_>) {
        if error.kind() == Kind::MissingAuthenticationToken {
            return;
        }
        if let Some(count) = self.refused_signatures.pass() {
            let (exception, peer) = (error.kind().exception(), &sender.connection.peer);
            let access_key = sigv4::access_key_id(head);
            tracing::warn!(event = "signatures_refused", %peer, access_key_id = access_key, exception, count, "signatures were refused; this is the last of them");
        }
    }

    /// Security: a web page that reaches this service under a name of its own (DNS rebinding) is
    /// refused before anything else is looked at.
    fn require_host(&self, head: &Parts) -> Result<(), Error> {
        let mut hosts = head.headers.get_all(header::HOST).iter();
        let (first, second) = (hosts.next(), hosts.next());
        let name = match (first.map(HeaderValue::to_str), second) {
            (Some(Ok(host)), None) => host_name(host),
            _ => None,
        };
        let is_ours = |name: &str| {
            let address = name.trim_start_matches('[').trim_end_matches(']');
            name.eq_ignore_ascii_case("localhost")
                || address
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
                || self
                    .host_names
                    .iter()
                    .any(|ours| name.eq_ignore_ascii_case(ours))
        };
        if name.is_some_and(is_ours) {
            return Ok(());
        }
        Err(Error::new(
            Kind::AccessDenied,
            "The Host header does not name this service; its operator lists further names in aws.host_names.",
        ))
    }
}

/// What is known of a call while it is answered.
struct Called {
    operation: CalledOperation,
    caller: Option<Arc<Caller>>,
}

impl Default for Called {
    fn default() -> Self {
        Self {
            operation: CalledOperation::OTHER,
            caller: None,
        }
    }
}

/// Why a request fails.
enum RequestError {
    /// A fault of the API.
    Fault(Error),
    /// It is no request of AWS JSON: AWS's servers answer with XML or an empty body.
    Http(StatusCode, &'static str),
}

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

/// `POST /` with JSON.
fn require_envelope(head: &Parts) -> Result<(), RequestError> {
    if head.method != Method::POST {
        return Err(RequestError::Http(StatusCode::FORBIDDEN, NO_OPERATION));
    }
    let content_type = head.headers.get(header::CONTENT_TYPE);
    let essence = content_type
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim);
    let is_json = [json::CONTENT_TYPE, "application/json"]
        .iter()
        .any(|json| essence.eq_ignore_ascii_case(json));
    if head.uri.path() != "/" || !is_json {
        return Err(RequestError::Http(
            StatusCode::NOT_FOUND,
            "<UnknownOperationException/>\n",
        ));
    }
    Ok(())
}

/// The name in a Host header, without the port.
fn host_name(host: &str) -> Option<&str> {
    let authority: http::uri::Authority = host.parse().ok()?;
    let length = authority.host().len();
    // Only what is no user information: `a@b` is a host for nobody.
    host.get(..length).filter(|name| *name == authority.host())
}

/// `X-Amz-Target: TrentService.GenerateMac`
fn operation(head: &Parts) -> Result<Operation, Error> {
    let mut targets = head.headers.get_all(TARGET).iter();
    let (first, second) = (targets.next(), targets.next());
    first
        .filter(|_| second.is_none())
        .and_then(|target| target.to_str().ok())
        .and_then(|target| target.strip_prefix("TrentService."))
        .and_then(Operation::named)
        .ok_or_else(|| Error::new(Kind::UnknownOperation, ""))
}

/// The whole body. The rest of one that is too long is read and discarded, up to a limit: clients
/// write all of it before they read the answer, and would see a broken connection instead.
async fn read<B>(mut body: B, sender: &Sender<'_>) -> Result<Bytes, RequestError>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut whole = BytesMut::new();
    let mut length = 0;
    let discarded = if sender.is_authenticated() {
        DISCARDED
    } else {
        UNPROVEN_DISCARDED
    };
    let mut budget = sender.body_budget();
    let arrival = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(RequestError::Http(StatusCode::BAD_REQUEST, ""));
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            length += data.len();
            if length <= BODY_LIMIT {
                budget.add(data.len()).map_err(|error| {
                    error.map_or(
                        RequestError::Http(StatusCode::SERVICE_UNAVAILABLE, ""),
                        Into::into,
                    )
                })?;
                whole.extend_from_slice(&data);
            } else if length > discarded {
                break;
            }
        }
        Ok(())
    };
    let arrived = tokio::select! {
        // A body that is here counts, although the connection has to go.
        biased;
        arrived = timeout(BODY_TIMEOUT, arrival) => arrived,
        () = sender.evicted() => return Err(RequestError::Http(StatusCode::SERVICE_UNAVAILABLE, "")),
    };
    match arrived {
        Ok(Ok(())) if length <= BODY_LIMIT => Ok(whole.freeze()),
        Ok(Ok(())) => Err(RequestError::Fault(too_long())),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(RequestError::Http(StatusCode::REQUEST_TIMEOUT, "")),
    }
}

fn too_long() -> Error {
    Error::new(
        Kind::Validation,
        format!("The request is too long: its body may have at most {BODY_LIMIT} bytes."),
    )
}

fn xml_response(status: StatusCode, xml: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(xml));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/xml"),
    );
    response
}

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const BODY_LIMIT: usize = 256 << 10;
/// A caller's body that is too long is read so far.
const DISCARDED: usize = 16 << 20;
/// That of a peer that is not known.
const UNPROVEN_DISCARDED: usize = 1 << 20;
/// The body of a peer that is not known, and has shown nothing that might make it known.
const UNPROVEN_BODY: u64 = 4 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const NO_OPERATION: &str = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::{
            PrincipalSettings,
            auth::{
                access_key::AccessKeys, connection::ClientConnection, peer::Peer,
                pre_auth::PreAuthConnections,
            },
            listener::accept::Protocol as _,
        },
        *,
    };
    use crate::kms::testing::without_tokens;
    use crate::model::Caller;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    /// A front with the catalogue of the operations' tests, and one access key.
    pub(super) fn api() -> Arc<Api> {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, SECRET).unwrap();
        let principal = PrincipalSettings {
            access_key_id: Some("AKIDEXAMPLE".to_owned().try_into().unwrap()),
            secret_access_key_file: Some(secret),
            ..PrincipalSettings::new(
                Caller::parse("arn:aws:iam::111122223333:user/billing").unwrap(),
            )
        };
        let settings = AwsSettings {
            listen: super::super::Listen::Tcp(([127, 0, 0, 1], 0).into()),
            host_names: vec!["kms.dc1.example".into()],
            clock_skew: Duration::from_mins(5),
            deadline: Duration::from_secs(5),
            max_connections: 4,
            mode: None,
            tls: None,
        };
        let access = Access {
            access_keys: AccessKeys::load(&[principal]).unwrap(),
            ..Access::default()
        };
        let (_, access) = watch::channel(Arc::new(access));
        Api::new(
            without_tokens(),
            &settings,
            "us-west-2",
            access,
            Arc::default(),
        )
    }

    fn request(headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
        let mut request = Request::post("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::from(body.to_owned())).unwrap()
    }

    async fn answer(request: Request<Full<Bytes>>) -> (u16, String) {
        let api = api();
        let peer = Peer::Tcp(([127, 0, 0, 1], 9).into());
        let slot = PreAuthConnections::at_most("aws", 1).admit(&peer);
        let connection = ClientConnection::new(peer, api.access(), slot);
        let response = api.answer(request, &Sender::new(&connection)).await;
        assert!(!connection.slot.is_authenticated());
        assert!(response.headers().contains_key("x-amzn-requestid"));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    const JSON: (&str, &str) = ("content-type", "application/x-amz-json-1.1");
    const HOST: (&str, &str) = ("host", "localhost:8460");
    const LIST: (&str, &str) = ("x-amz-target", "TrentService.ListKeys");

    #[tokio::test]
    async fn refusals_come_in_aws_s_order() {
        let unknown = r#"{"__type":"UnknownOperationException"}"#;
        let unsigned = r#"{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}"#;
        for (headers, body, status, said) in [
            (&[HOST][..], "{}", 404, "<UnknownOperationException/>\n"),
            (
                &[HOST, ("content-type", "text/plain"), LIST],
                "{}",
                404,
                "<UnknownOperationException/>\n",
            ),
            (
                &[HOST, JSON, LIST],
                "{",
                400,
                r#"{"__type":"SerializationException"}"#,
            ),
            (&[HOST, JSON], "{}", 400, unknown),
            (
                &[HOST, JSON, ("x-amz-target", "TrentService.listKeys")],
                "{}",
                400,
                unknown,
            ),
            (
                &[HOST, JSON, ("x-amz-target", "DynamoDB_20120810.ListKeys")],
                "{}",
                400,
                unknown,
            ),
            (&[HOST, JSON, LIST, LIST], "{}", 400, unknown),
            (&[HOST, JSON, LIST], "{}", 400, unsigned),
            (
                &[
                    HOST,
                    ("content-type", "Application/JSON; charset=utf-8"),
                    LIST,
                ],
                "[]",
                400,
                unsigned,
            ),
        ] {
            assert_eq!(
                answer(request(headers, body)).await,
                (status, said.to_owned()),
                "{headers:?}"
            );
        }
        let mut get = request(&[HOST, JSON, LIST], "");
        *get.method_mut() = Method::GET;
        assert_eq!(answer(get).await, (403, NO_OPERATION.to_owned()));
        let mut elsewhere = request(&[HOST, JSON, LIST], "{}");
        *elsewhere.uri_mut() = "/kms".parse().unwrap();
        assert_eq!(answer(elsewhere).await.0, 404);
    }

    #[tokio::test]
    async fn a_service_of_another_name_is_nobody_s() {
        for (host, ours) in [
            ("localhost", true),
            ("LOCALHOST:8460", true),
            ("127.0.0.1:8460", true),
            ("127.8.9.1", true),
            ("[::1]:8460", true),
            ("KMS.dc1.example", true),
            ("kms.dc1.example:443", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("localhost@evil.example", false),
            ("evil@localhost", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            let (_, said) = answer(request(&[("host", host), JSON, LIST], "{}")).await;
            assert_eq!(
                said.contains("Missing Authentication"),
                ours,
                "{host}: {said}"
            );
        }
        let twice = request(&[HOST, HOST, JSON, LIST], "{}");
        assert!(answer(twice).await.1.contains("AccessDenied"));
        let none = request(&[JSON, LIST], "{}");
        assert!(answer(none).await.1.contains("AccessDenied"));
    }

    #[tokio::test]
    async fn a_body_of_256_kib_is_read_and_one_byte_more_is_refused() {
        let body = |length: usize| format!("\"{}\"", "a".repeat(length - 2));
        let asked = |length| request(&[HOST, JSON, LIST], &body(length));
        let (_, said) = answer(asked(BODY_LIMIT)).await;
        assert!(said.contains("Missing Authentication"), "{said}");
        for length in [BODY_LIMIT + 1, UNPROVEN_DISCARDED + 1] {
            let (status, said) = answer(asked(length)).await;
            assert_eq!(
                (status, said.as_str()),
                (
                    400,
                    r#"{"__type":"ValidationException","message":"The request is too long: its body may have at most 262144 bytes."}"#
                )
            );
        }
    }

    /// Who has signed a request is answered although strangers came in such numbers meanwhile that the
    /// connection has to go.
    #[tokio::test]
    async fn a_request_that_is_here_is_judged_although_its_connection_goes() {
        let api = api();
        let connections = PreAuthConnections::at_most("aws", 1);
        let peer = || Peer::Tcp(([127, 0, 0, 1], 9).into());
        let slot = connections.admit(&peer());
        let connection = ClientConnection::new(peer(), api.access(), slot);
        let _stranger = connections.admit(&peer());
        let response = api
            .answer(
                request(&[HOST, JSON, LIST], "{}"),
                &Sender::new(&connection),
            )
            .await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let said = str::from_utf8(&body).unwrap();
        assert!(said.contains("Missing Authentication Token"), "{said}");
    }

    /// A body of which nothing more comes.
    struct Stalled;

    impl HttpBody for Stalled {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_caller_s_message_has_ten_seconds_to_arrive() {
        let api = api();
        let peer = Peer::Tcp(([127, 0, 0, 1], 9).into());
        let slot = PreAuthConnections::at_most("aws", 1).admit(&peer);
        slot.mark_authenticated();
        let connection = ClientConnection::new(peer, api.access(), slot);
        let began = tokio::time::Instant::now();
        let asked = request(&[HOST, JSON, LIST], "").map(|_| Stalled);
        let response = api.answer(asked, &Sender::new(&connection)).await;
        assert_eq!(response.status(), 408);
        assert_eq!(began.elapsed().as_secs(), 10);
    }
}
