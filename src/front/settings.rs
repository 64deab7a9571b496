use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::aws::AccessKeyId;
use crate::model::Caller;

/// `[grpc]`: the gRPC listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcSettings {
    /// `127.0.0.1:50051`, `[::1]:50051` or `unix:/run/hsmac/grpc.sock`. Until there is TLS, only
    /// loopback addresses and Unix sockets are accepted.
    pub listen: Listen,
    /// Who a caller without proof is: a principal's ARN. Loopback or Unix socket only. Without it
    /// there must be principals with a `unix_uid`.
    pub anonymous: Option<Principal>,
    /// Serve gRPC reflection (grpcurl without proto files). Default false.
    #[serde(default)]
    pub reflection: bool,
    /// The deadline of a caller that sends none. Default 5 s.
    #[serde(default = "five_seconds", with = "humantime_serde")]
    pub default_deadline: Duration,
    /// Connections at a time, 1 to 65,536; one more waits in the kernel. Default 1,024.
    #[serde(default = "connections")]
    pub max_connections: u32,
    /// Calls at a time on one connection, 1 to 65,536. Default 256.
    #[serde(default = "streams")]
    pub max_streams: u32,
    /// Mode of the Unix socket, as in chmod: `"0600"`. Default 0600.
    pub mode: Option<SocketMode>,
}

/// `[aws]`: the listener of AWS's wire, AWS JSON 1.1 over HTTP/1.1.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsSettings {
    /// `127.0.0.1:8460` or `[::1]:8460`. Until this listener has TLS, only loopback addresses and
    /// Unix sockets are accepted.
    pub listen: Listen,
    /// Names by which clients may call this service, in their Host header, besides `localhost` and
    /// the address it listens on: `["kms.dc1.example"]`. Default none.
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
    /// Connections at a time, 1 to 65,536; one more waits in the kernel. At most a quarter of them
    /// are of callers who have not proved yet who they are: a newcomer takes the place of the one that
    /// has been silent for longest. Default 1,024.
    #[serde(default = "connections")]
    pub max_connections: u32,
    /// Mode of the Unix socket, as in chmod: `"0600"`. Default 0600.
    pub mode: Option<SocketMode>,
}

/// `[[principal]]`: somebody who may call, and what proves that it is him. An ARN may stand several
/// times, with other proofs: while one access key takes the place of another, say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredPrincipal {
    /// The principal's ARN: `arn:aws:iam::111122223333:user/billing`.
    pub arn: Principal,
    /// The user of a process that connects to a Unix socket of gRPC. The overflow uid, which stands
    /// for users that this machine does not know, never matches.
    pub unix_uid: Option<u32>,
    /// The access key that this principal's requests to the AWS listener are signed with: 1 to 128
    /// letters, digits and `_`. Not without its secret.
    pub access_key_id: Option<AccessKeyId>,
    /// A file with the secret access key: 40 characters and nothing else, but for a line's end.
    pub secret_access_key_file: Option<PathBuf>,
    /// A file with what this principal may do, an IAM JSON document of at most 32 KiB. Without it
    /// only key policies give it rights; an account's root needs none.
    pub policy_file: Option<PathBuf>,
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

/// A principal's ARN in the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Principal(pub Caller);

impl TryFrom<String> for Principal {
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

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn connections() -> u32 {
    1024
}

fn streams() -> u32 {
    256
}
