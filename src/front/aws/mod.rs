//! AWS's wire: AWS JSON 1.1 over HTTP/1.1, signed with SigV4, as boto3, the AWS CLI and AWS's SDKs
//! speak it.
//!
//! Hides: the envelope, the signature, how a fault travels. Promises: refusals come in AWS's order:
//! HTTP → JSON → operation → proof → members; nobody without a proof is asked for more than 256 KiB,
//! or kept for more than ten seconds; no bytes end the process. Does not: decide anything about keys
//! (that is `kms`).

mod access_key;
mod connection;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod operations;
mod sigv4;
mod wire;

pub use access_key::{AccessKeyId, AccessKeys, SecretAccessKey};

use std::{
    error::Error as StdError,
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

use self::{operations::Call, sigv4::Verifier, wire::Members};
use super::{AwsSettings, Gate, call::RequestId, gate::Stranger};
use crate::{
    error::{Error, Kind},
    kms::Kms,
    model::{Caller, Operation},
};

/// What this wire is called in a TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"http/1.1";

/// Everything that answers on AWS's listener.
pub struct Api {
    kms: Arc<Kms>,
    gate: watch::Sender<Arc<Gate>>,
    verifier: ArcSwap<Verifier>,
    region: String,
    clock_skew: Duration,
    host_names: Vec<String>,
    deadline: Duration,
}

impl Api {
    /// The operations for callers who have one of these access keys, or whose certificate the gate
    /// knows; `region` is the one that they must sign for.
    pub fn new(
        kms: Arc<Kms>,
        settings: &AwsSettings,
        region: &str,
        gate: Gate,
        access_keys: AccessKeys,
    ) -> Arc<Self> {
        let host_names = settings.host_names.iter();
        Arc::new(Self {
            kms,
            gate: watch::Sender::new(Arc::new(gate)),
            verifier: ArcSwap::from_pointee(Verifier::new(
                access_keys,
                region,
                settings.clock_skew,
            )),
            region: region.to_owned(),
            clock_skew: settings.clock_skew,
            host_names: host_names.map(|name| name.to_ascii_lowercase()).collect(),
            deadline: settings.deadline,
        })
    }

    /// From now on these may come in. Connections are judged again; none is dropped for it whose
    /// caller is still known.
    pub fn admit(&self, gate: Gate, access_keys: AccessKeys) {
        let verifier = Verifier::new(access_keys, &self.region, self.clock_skew);
        self.verifier.store(Arc::new(verifier));
        self.gate.send_replace(Arc::new(gate));
    }

    /// Answers one request, and says whether its caller has proved who it is.
    async fn answer<B>(
        &self,
        request: Request<B>,
        certified: Option<Certified>,
    ) -> (Response<Full<Bytes>>, Proof)
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let request_id = RequestId::next();
        let mut proof = Proof::None;
        let span = tracing::debug_span!("call", %request_id);
        let answered = self
            .attempt(request, certified, &mut proof)
            .instrument(span)
            .await;
        let mut response = match answered {
            Ok(body) => wire::response(StatusCode::OK, body),
            Err(Refusal::Fault(error)) => fault::response(&error, request_id),
            Err(Refusal::Http(status, xml)) => not_aws(status, xml),
        };
        response
            .headers_mut()
            .insert(REQUEST_ID, request_id.header());
        (response, proof)
    }

    async fn attempt<B>(
        &self,
        request: Request<B>,
        certified: Option<Certified>,
        proof: &mut Proof,
    ) -> Result<Bytes, Refusal>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let until = Instant::now() + self.deadline;
        let (head, body) = request.into_parts();
        require_envelope(&head)?;
        // Under TLS the certificate does this: no browser goes on under a name that is not in it.
        if self.gate.borrow().tls().is_none() {
            self.require_host(&head)?;
        }
        let body = read(body).await?;
        wire::require_json(&body)?;
        let operation = operation(&head)?;
        let caller = match certified {
            // A signature is of one request, a certificate of a connection: the closer proof counts.
            Some(certified) if !sigv4::is_signed(&head) => certified.map_err(Error::from)?,
            Some(_) | None => {
                let verifier = self.verifier.load();
                verifier.caller(&head, &body, SystemTime::now())?
            }
        };
        *proof = Proof::Given;
        let call = Call {
            kms: &self.kms,
            caller: &caller,
            asked: Members::parse(&body)?,
            until,
        };
        Ok(call.answer(operation).await?)
    }

    /// Security: a page in somebody's browser that was made to find this service under a name of its
    /// own (DNS rebinding) is turned away before anything else is looked at.
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

/// Whether a connection's caller is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Proof {
    None,
    Given,
}

/// Who a connection's certificate stands for.
type Certified = Result<Arc<Caller>, Stranger>;

/// Why a request is not answered with what it asks for.
enum Refusal {
    /// A fault of the API.
    Fault(Error),
    /// It is not of AWS's wire: AWS's servers answer in XML then, or not at all.
    Http(StatusCode, &'static str),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

/// `POST /` with JSON.
fn require_envelope(head: &Parts) -> Result<(), Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::Http(StatusCode::FORBIDDEN, NO_OPERATION));
    }
    let content_type = head.headers.get(header::CONTENT_TYPE);
    let essence = content_type
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim);
    let is_json = [wire::CONTENT_TYPE, "application/json"]
        .iter()
        .any(|json| essence.eq_ignore_ascii_case(json));
    if head.uri.path() != "/" || !is_json {
        return Err(Refusal::Http(
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

/// The whole body. One that is too long is read on for a while and thrown away: clients write all of
/// it before they look at the answer, and would see a broken connection instead.
async fn read<B>(mut body: B) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut whole = BytesMut::new();
    let mut length = 0;
    let arrival = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(Refusal::Http(StatusCode::BAD_REQUEST, ""));
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            length += data.len();
            if length <= BODY_LIMIT {
                whole.extend_from_slice(&data);
            } else if length > THROWN_AWAY {
                break;
            }
        }
        Ok(())
    };
    match timeout(BODY_TIMEOUT, arrival).await {
        Ok(Ok(())) if length <= BODY_LIMIT => Ok(whole.freeze()),
        Ok(Ok(())) => Err(Refusal::Fault(Error::new(
            Kind::Validation,
            format!("The request is too long: its body may have at most {BODY_LIMIT} bytes."),
        ))),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(Refusal::Http(StatusCode::REQUEST_TIMEOUT, "")),
    }
}

fn not_aws(status: StatusCode, xml: &'static str) -> Response<Full<Bytes>> {
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
const THROWN_AWAY: usize = 16 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const NO_OPERATION: &str = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::DeclaredPrincipal, *};
    use crate::kms::tests::without_tokens;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    /// A front with the catalogue of the operations' tests, and one access key.
    pub(super) fn api() -> Arc<Api> {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, SECRET).unwrap();
        let principal = DeclaredPrincipal {
            access_key_id: Some("AKIDEXAMPLE".to_owned().try_into().unwrap()),
            secret_access_key_file: Some(secret),
            ..DeclaredPrincipal::new(
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
        let keys = AccessKeys::load(&[principal], false).unwrap();
        Api::new(
            without_tokens(),
            &settings,
            "us-west-2",
            Gate::default(),
            keys,
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
        let (response, proof) = api().answer(request, None).await;
        assert_eq!(proof, Proof::None);
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
        for length in [BODY_LIMIT + 1, THROWN_AWAY + 1] {
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
}
