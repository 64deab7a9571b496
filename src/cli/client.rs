//! The client's connection to a server: TCP or Unix socket. Shared by `kms` and `bench`.

use std::{env, error::Error, fmt, str::FromStr, time::Duration};

use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;

/// Where a server listens: `http://127.0.0.1:50051` or `unix:/run/hsmac/grpc.sock`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Endpoint(String);

impl Endpoint {
    /// What was typed, else `HSMAC_ENDPOINT`, else the port of `hsmac dev`.
    ///
    /// # Errors
    /// A sentence, if `HSMAC_ENDPOINT` is no endpoint.
    pub(super) fn chosen(typed: Option<&Self>) -> Result<Self, String> {
        match (typed, env::var("HSMAC_ENDPOINT")) {
            (Some(typed), _) => Ok(typed.clone()),
            (None, Ok(text)) => text
                .parse()
                .map_err(|fault| format!("HSMAC_ENDPOINT: {fault}")),
            (None, Err(_)) => Ok(Self("http://127.0.0.1:50051".into())),
        }
    }

    /// Connects, once.
    ///
    /// # Errors
    /// A sentence that names the endpoint and the reason.
    pub(super) async fn connect(&self, within: Duration) -> Result<Channel, String> {
        tonic::transport::Endpoint::from_shared(self.0.clone())
            .and_then(|endpoint| endpoint.user_agent(concat!("hsmac/", env!("CARGO_PKG_VERSION"))))
            .map_err(|error| format!("{self}: {error}"))?
            .connect_timeout(within)
            .connect()
            .await
            .map_err(|error| {
                let mut cause: &dyn Error = &error;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                format!("Could not connect to the endpoint URL: \"{self}\" ({cause})")
            })
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let absolute = text
            .strip_prefix("unix:")
            .is_some_and(|path| path.starts_with('/'));
        let host = text
            .strip_prefix("http://")
            .is_some_and(|host| !host.is_empty());
        if absolute || (host && text.parse::<http::Uri>().is_ok()) {
            Ok(Self(text.to_owned()))
        } else if text.starts_with("https://") {
            Err("this version of hsmac does not speak TLS yet; write http://127.0.0.1:50051".into())
        } else {
            Err(format!(
                "{text:?} is no endpoint; write http://127.0.0.1:50051 or unix:/run/hsmac/grpc.sock"
            ))
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The service says so: a KMS exception.
    Service {
        /// `KMSInvalidMacException`
        exception: String,
        /// `KMS_INVALID_MAC`
        reason: String,
    },
    /// No answer before the deadline.
    TimedOut,
    /// Whatever answered, or did not, it was not hsmac.
    Transport,
}

impl Failure {
    /// Reads a status of the gRPC library.
    pub(super) fn of(status: &Status) -> Self {
        match status.get_details_error_info() {
            Some(info) => Self::Service {
                exception: info
                    .metadata
                    .get("exception")
                    .unwrap_or(&info.reason)
                    .clone(),
                reason: info.reason,
            },
            // tonic's client gives up at the deadline by itself, and calls that "cancelled".
            None if matches!(
                status.code(),
                tonic::Code::Cancelled | tonic::Code::DeadlineExceeded
            ) =>
            {
                Self::TimedOut
            }
            None => Self::Transport,
        }
    }
}

/// `10s` or `250ms`.
///
/// # Errors
/// A sentence.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text_of = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    humantime_serde::deserialize(text_of)
        .map_err(|_| format!("{text:?} is no time; write 10s or 250ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_http_or_unix() {
        for good in [
            "http://127.0.0.1:50051",
            "http://[::1]:1",
            "unix:/run/hsmac/grpc.sock",
        ] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        for (wrong, said) in [
            ("127.0.0.1:50051", "is no endpoint"),
            ("unix:grpc.sock", "is no endpoint"),
            ("http://", "is no endpoint"),
            ("https://x:1", "does not speak TLS yet"),
        ] {
            assert!(
                wrong.parse::<Endpoint>().unwrap_err().contains(said),
                "{wrong}"
            );
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("10").unwrap_err().contains("write 10s"));
    }

    #[tokio::test]
    async fn nobody_there_is_said_so() {
        for endpoint in ["http://127.0.0.1:1", "unix:/nowhere/grpc.sock"] {
            let fault = endpoint
                .parse::<Endpoint>()
                .unwrap()
                .connect(Duration::from_secs(5))
                .await
                .unwrap_err();
            assert!(
                fault.starts_with(&format!(
                    "Could not connect to the endpoint URL: \"{endpoint}\" ("
                )),
                "{fault}"
            );
        }
    }
}
