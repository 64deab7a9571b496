//! How the client connects to a server: over TCP, TLS or a Unix socket. Shared by `kms` and `bench`.

mod profile;
#[cfg(test)]
mod tests;
mod tls;
mod watched;

use std::{error::Error as StdError, fmt, io, iter, path::PathBuf, str::FromStr, time::Duration};

use http::uri::{Authority, Uri};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tonic::{
    Code, Status,
    transport::{Channel, channel},
};
use tonic_types::StatusExt as _;

pub(super) use self::{
    profile::server,
    tls::{Alpn, TlsFlags},
};
use self::{
    tls::ClientTls,
    watched::{LastError, WatchedStream},
};

/// Where a server listens: `http://127.0.0.1:50051`, `https://hsmac.dc1.example:50051` or
/// `unix:/run/hsmac/grpc.sock`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Endpoint {
    text: String,
    address: Address,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Address {
    Tcp(Authority),
    Tls(Authority),
    Unix(PathBuf),
}

impl Endpoint {
    /// The port of `hsmac dev`.
    fn usual() -> Self {
        let usual = "http://127.0.0.1:50051".parse();
        usual.expect("it is an endpoint")
    }

    fn is_tls(&self) -> bool {
        matches!(self.address, Address::Tls(_))
    }

    /// The server's name in HTTP.
    pub(super) fn host(&self) -> &str {
        match &self.address {
            Address::Tcp(authority) | Address::Tls(authority) => authority.as_str(),
            Address::Unix(_) => "localhost",
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri = || text.parse::<Uri>().ok()?.into_parts().authority;
        let address = if let Some(path) = text.strip_prefix("unix:") {
            let absolute = path.starts_with('/');
            absolute.then(|| Address::Unix(path.into()))
        } else if text.starts_with("http://") {
            uri().map(Address::Tcp)
        } else if text.starts_with("https://") {
            uri().map(Address::Tls)
        } else {
            None
        };
        let address = address.ok_or_else(|| {
            format!(
                "{text:?} is no endpoint; write http://127.0.0.1:50051, https://hsmac.example:50051 \
                 or unix:/run/hsmac/grpc.sock"
            )
        })?;
        Ok(Self {
            text: text.to_owned(),
            address,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A server, with what the client needs to verify it and to authenticate itself.
#[derive(Clone, Debug)]
pub(super) struct Server {
    endpoint: Endpoint,
    tls: Option<ClientTls>,
    last_error: LastError,
}

impl Server {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    /// A sentence: a file is not what it should be, or the endpoint has no use for it.
    pub(super) fn new(endpoint: Endpoint, flags: &TlsFlags, alpn: Alpn) -> Result<Self, String> {
        let tls = match &endpoint.address {
            Address::Tls(authority) => Some(ClientTls::new(host(authority), flags, alpn)?),
            Address::Tcp(_) | Address::Unix(_) if flags.is_empty() => None,
            Address::Tcp(_) | Address::Unix(_) => {
                return Err(format!(
                    "--ca-bundle, --certificate and --key are for TLS, and {endpoint} is no https:// \
                     endpoint"
                ));
            }
        };
        Ok(Self {
            endpoint,
            tls,
            last_error: LastError::default(),
        })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Connects for gRPC, once.
    ///
    /// # Errors
    /// A sentence that names the endpoint and the reason.
    pub(super) async fn channel(&self, within: Duration) -> Result<Channel, String> {
        let uri = match &self.endpoint.address {
            Address::Tcp(_) | Address::Tls(_) => self.endpoint.text.clone(),
            // HTTP wants a host; a socket has none.
            Address::Unix(_) => "http://localhost".into(),
        };
        let server = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let server = server.clone();
            async move { server.open(within).await.map(TokioIo::new) }
        });
        channel::Endpoint::from_shared(uri)
            .and_then(|endpoint| endpoint.user_agent(concat!("hsmac/", env!("CARGO_PKG_VERSION"))))
            .map_err(|error| format!("{}: {error}", self.endpoint))?
            .connect_with_connector(connector)
            .await
            .map_err(|error| self.unreachable(&error))
    }

    /// One connection, over which HTTP can be spoken.
    ///
    /// # Errors
    /// The system's error, or one of TLS.
    pub(super) async fn open(&self, within: Duration) -> io::Result<Stream> {
        timeout(within, self.open_now()).await.unwrap_or_else(|_| {
            let late = format!("no connection within {within:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, late))
        })
    }

    async fn open_now(&self) -> io::Result<Stream> {
        let (authority, usual_port) = match &self.endpoint.address {
            Address::Tcp(authority) => (authority, 80),
            Address::Tls(authority) => (authority, 443),
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        };
        let port = authority.port_u16().unwrap_or(usual_port);
        let stream = TcpStream::connect((host(authority), port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(WatchedStream::new(stream, &self.last_error)),
            Some(tls) => Box::new(WatchedStream::new(
                tls.handshake(stream).await?,
                &self.last_error,
            )),
        })
    }

    /// Words a connection that could not be made, like `aws`.
    pub(super) fn unreachable(&self, error: &(dyn StdError + 'static)) -> String {
        format!(
            "Could not connect to the endpoint URL: \"{}\" ({})",
            self.endpoint,
            self.because(error)
        )
    }

    /// How a call failed, by the status that the gRPC library made of it.
    pub(super) fn failure(&self, status: &Status) -> CallFailure {
        if let Some(info) = status.get_details_error_info() {
            return CallFailure::Service {
                exception: info
                    .metadata
                    .get("exception")
                    .unwrap_or(&info.reason)
                    .clone(),
                reason: info.reason,
            };
        }
        if let Some(error) = self.last_error.error() {
            return CallFailure::Broken(self.because(&*error));
        }
        let mut causes = iter::successors(status.source(), |cause| (*cause).source());
        if causes.any(|cause| cause.is::<hyper::Error>()) {
            return CallFailure::Broken(self.because(status));
        }
        // tonic's client gives up at the deadline by itself, and calls that "cancelled".
        if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) {
            return CallFailure::TimedOut;
        }
        match status.source() {
            Some(_) => CallFailure::Broken(self.because(status)),
            None => CallFailure::NotHsmac,
        }
    }

    /// Words an error of HTTP/1.1, which does not always hold the connection's error.
    pub(super) fn broken(&self, error: &hyper::Error) -> String {
        match self.last_error.error() {
            Some(last_error) => self.because(&*last_error),
            None => self.because(error),
        }
    }

    /// The innermost reason of an error of the libraries; a reason of TLS in hsmac's words.
    fn because(&self, error: &(dyn StdError + 'static)) -> String {
        let mut cause = error;
        loop {
            if let Some(said) = self.tls.as_ref().and_then(|tls| tls.because(cause)) {
                return said;
            }
            match cause.source() {
                Some(deeper) => cause = deeper,
                None => return cause.to_string(),
            }
        }
    }
}

/// Bytes both ways.
pub(super) type Stream = Box<dyn Io>;

/// What a [`Stream`] can do.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A name or an address; in a URL, an IPv6 address stands in brackets.
fn host(authority: &Authority) -> &str {
    let host = authority.host();
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// How a call failed.
#[derive(Debug)]
pub(super) enum CallFailure {
    /// The service says so: a KMS exception.
    Service {
        /// `KMSInvalidMacException`
        exception: String,
        /// `KMS_INVALID_MAC`
        reason: String,
    },
    /// No answer before the deadline.
    TimedOut,
    /// The connection did not last; why.
    Broken(String),
    /// The server that answered is not hsmac.
    NotHsmac,
}

/// `10s` or `250ms`.
///
/// # Errors
/// A sentence that quotes the text.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text_of = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    humantime_serde::deserialize(text_of)
        .map_err(|_| format!("{text:?} is no time; write 10s or 250ms"))
}
