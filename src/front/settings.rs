//! `[grpc]`, `[aws]` and `[[principal]]`: what an operator sets of this room, and the checks of each
//! value by itself. What values must fulfil together is checked by `config`.

use std::{borrow::Borrow, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::model::{Caller, PrincipalAttributes};

/// `[grpc]`: the gRPC listener.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct GrpcSettings {
    /// `127.0.0.1:50051`, `[::1]:50051` or `unix:/run/hsmac/grpc.sock`. An address that other machines
    /// reach needs `[grpc.tls]` with a `client_ca`.
    pub listen: Listen,
    /// `[grpc.tls]`; without it connections are plain.
    pub tls: Option<TlsSettings>,
    /// Who a caller without proof is: a principal's ARN. Loopback or Unix socket only. Without it
    /// there must be principals with a `unix_uid`, or with a certificate.
    pub anonymous: Option<PrincipalArn>,
    /// Serve gRPC reflection (grpcurl without proto files). Default false.
    #[serde(default)]
    pub reflection: bool,
    /// The deadline of a caller that sends none: 1 ms to 1 h. Default 5 s.
    #[serde(default = "five_seconds", with = "humantime_serde")]
    pub default_deadline: Duration,
    /// Connections of known callers at a time, 1 to 65,536; one more waits in the kernel. Peers that
    /// have not proved who they are have a quarter as many besides, and 16 at least. Default 1,024.
    #[serde(default = "connections")]
    pub max_connections: u32,
    /// Calls at a time on one connection, 1 to 65,536. Default 256.
    #[serde(default = "streams")]
    pub max_streams: u32,
    /// Whether a request over a Unix socket counts as one over TLS (IAM: `aws:SecureTransport`): the
    /// kernel carries it, and nobody else can read it. Default true.
    #[serde(default = "yes")]
    pub secure_unix_socket: bool,
    /// Mode of the Unix socket, as in chmod: `"0600"`. Default 0600.
    pub mode: Option<SocketMode>,
}

/// `[aws]`: the listener of AWS's API, AWS JSON 1.1 over HTTP/1.1.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AwsSettings {
    /// `127.0.0.1:8460` or `[::1]:8460`. An address that other machines reach needs `[aws.tls]`.
    pub listen: Listen,
    /// `[aws.tls]`; without it connections are plain.
    pub tls: Option<TlsSettings>,
    /// Names by which clients may call this service, in their Host header, besides `localhost` and
    /// the address it listens on: `["kms.dc1.example"]`. Default none. Under TLS the names in the
    /// certificate count, and this is not looked at.
    #[serde(default)]
    pub host_names: Vec<String>,
    /// How far a request's date may be from the time here, both ways: 1 s to 15 min. Within it a
    /// captured request can be sent again. Default 5 min, as AWS has it.
    #[serde(default = "five_minutes", with = "humantime_serde")]
    pub clock_skew: Duration,
    /// When a call is answered at the latest; AWS's clients send no deadline. 1 ms to 1 h, default
    /// 5 s.
    #[serde(default = "five_seconds", with = "humantime_serde")]
    pub deadline: Duration,
    /// Connections of known callers at a time, 1 to 65,536; one more waits in the kernel. Peers that
    /// have not proved who they are have a quarter as many besides, and 16 at least. Default 1,024.
    #[serde(default = "connections")]
    pub max_connections: u32,
    /// Mode of the Unix socket, as in chmod: `"0600"`. Default 0600.
    pub mode: Option<SocketMode>,
}

/// `[grpc.tls]`, `[aws.tls]`: TLS 1.2 and 1.3. The files are read again when they change, and at
/// SIGHUP.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The server's certificate and those between it and its root, in this order; PEM.
    pub certificate: PathBuf,
    /// Its private key, not encrypted; PEM (PKCS#8, SEC1 or PKCS#1).
    pub key: PathBuf,
    /// The authorities whose certificates clients may show; PEM. Without it clients are not asked for
    /// one.
    pub client_ca: Option<PathBuf>,
    /// Their revocation lists (RFC 5280), one for each authority that signs certificates; PEM. A list
    /// whose next update is due is used on, and warned of.
    pub client_crl: Option<PathBuf>,
}

impl TlsSettings {
    /// Every file that is named.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let optional = [&self.client_ca, &self.client_crl];
        [&self.certificate, &self.key]
            .into_iter()
            .chain(optional.into_iter().flatten())
    }

    /// Every file that is named, to be made absolute.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let optional = [&mut self.client_ca, &mut self.client_crl];
        [&mut self.certificate, &mut self.key]
            .into_iter()
            .chain(optional.into_iter().flatten())
    }
}

/// `[[principal]]`: a caller, and what proves who it is. An ARN may be declared several times with
/// different proofs, for instance while access keys are rotated.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PrincipalSettings {
    /// The principal's ARN: `arn:aws:iam::111122223333:user/billing`.
    pub arn: PrincipalArn,
    /// The user of a process that connects to a Unix socket of gRPC. The overflow uid, which stands
    /// for users that this machine does not know, never matches.
    pub unix_uid: Option<u32>,
    /// The URI in the client certificate that proves this principal, such as a SPIFFE ID; its only
    /// URI, letter for letter.
    pub certificate_uri: Option<CertificateUri>,
    /// A DNS name in the client certificate that proves this principal; no wildcards.
    pub certificate_dns: Option<CertificateDns>,
    /// The access key that this principal's requests to the AWS listener are signed with: 1 to 128
    /// letters, digits and `_`. Not without its secret.
    pub access_key_id: Option<AccessKeyId>,
    /// A file with the secret access key: 40 characters and nothing else, but for a line's end.
    pub secret_access_key_file: Option<PathBuf>,
    /// A file with what this principal may do, an IAM JSON document of at most 32 KiB. Without it
    /// only key policies give it rights; an account's root needs none.
    pub policy_file: Option<PathBuf>,
    /// What policies ask of the principal besides its ARN.
    #[serde(default)]
    pub attributes: PrincipalAttributes,
}

#[cfg(test)]
impl PrincipalSettings {
    /// A principal without any proof.
    pub(super) fn new(caller: Caller) -> Self {
        Self {
            arn: PrincipalArn(caller),
            unix_uid: None,
            certificate_uri: None,
            certificate_dns: None,
            access_key_id: None,
            secret_access_key_file: None,
            policy_file: None,
            attributes: PrincipalAttributes::default(),
        }
    }
}

/// The public half of an access key.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct AccessKeyId(String);

impl AccessKeyId {
    /// The ID as requests name it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AccessKeyId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(format!(
                "{text:?} is no access key ID: it must be 1 to 128 letters, digits and _"
            ))
        }
    }
}

// Look-ups by the text in a request.
impl Borrow<str> for AccessKeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A URI as a subject alternative name.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct CertificateUri(String);

impl CertificateUri {
    /// The URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CertificateUri {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        let plain = text.bytes().all(|b| b.is_ascii_graphic());
        if scheme.is_empty() || rest.is_empty() || !plain || text.len() > 2048 {
            return Err(format!(
                "{text:?} is no URI; write spiffe://DOMAIN/NAME, in at most 2048 characters"
            ));
        }
        Ok(Self(text))
    }
}

/// A DNS name as a subject alternative name, in small letters.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct CertificateDns(String);

impl CertificateDns {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CertificateDns {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(plain);
        if text.len() > 253 || !text.split('.').all(is_label) {
            return Err(format!(
                "{text:?} is no DNS name; write billing.dc1.example, without wildcards"
            ));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// Where to listen.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(format!(
                    "{text:?} is not absolute; write unix:/run/hsmac/grpc.sock"
                ))
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("{text:?} is no address; write 127.0.0.1:50051 or unix:/run/hsmac/grpc.sock")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A principal's ARN in the configuration.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "String")]
pub struct PrincipalArn(pub Caller);

impl TryFrom<String> for PrincipalArn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Caller::parse(&text).map(Self)
    }
}

/// The permission bits of a Unix socket.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct SocketMode(pub u32);

impl TryFrom<String> for SocketMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no mode; write \"0660\""))
    }
}

fn five_minutes() -> Duration {
    Duration::from_mins(5)
}

fn yes() -> bool {
    true
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn connections() -> u32 {
    1024
}

fn streams() -> u32 {
    256
}
