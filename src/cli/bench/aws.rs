//! Calls on AWS's wire: HTTP/1.1, one at a time on a connection, each signed when it is sent.

use std::{env, fs, path::PathBuf, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{
    super::{
        CliError,
        client::{Alpn, Endpoint, Server, TlsFlags},
        dev,
    },
    BenchConnection, CONNECT, FailedCall, LoadArguments,
    signer::Signer,
};
use crate::model::Date;

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  hsmac bench aws --key-id alias/demo
  hsmac bench aws --key-id alias/demo --connections 64 --duration 30s
  hsmac bench aws --key-id alias/demo --access-key-id AKIDEXAMPLE \\
      --secret-access-key-file billing.secret

Signs with the access key that is given, else with $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, else
with the one of `hsmac dev`. Each request is signed anew; that is about 2 of the 15 µs that a call costs
this client, so that little would be gained by signatures made before.
Without --rate each connection waits for its answer before it sends again: what the server can do. With
--rate calls are sent by the clock, and latency counts from the moment at which a call was due. The
client takes CPU time too; on a shared machine look at \"own CPU\".";

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// http://HOST:PORT, https://HOST:PORT or unix:/PATH.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8460")]
    endpoint: Endpoint,
    #[command(flatten)]
    tls: TlsFlags,
    /// Connections, each with one call at a time.
    #[arg(long, value_name = "C", default_value = "32", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// The region to sign for.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// The access key to sign with.
    #[arg(long, value_name = "ID", requires = "secret_access_key_file")]
    access_key_id: Option<String>,
    /// A file with its secret.
    #[arg(long, value_name = "FILE", requires = "access_key_id")]
    secret_access_key_file: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArguments,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let load = &arguments.load;
    let body = json!({
        "KeyId": load.key_id,
        "Message": BASE64_STANDARD.encode(load.message()),
        "MacAlgorithm": load.mac_algorithm,
    });
    let endpoint = arguments.endpoint.clone();
    let target = Arc::new(Target {
        server: Server::new(endpoint, &arguments.tls, Alpn::Http1).map_err(CliError::Usage)?,
        signer: arguments.signer()?,
        body: body.to_string().into(),
    });
    let connect = async || {
        let sender = Mutex::new(Some(target.connect().await?));
        let target = Arc::clone(&target);
        Ok(AwsConnection { target, sender })
    };
    let endpoint = arguments.endpoint.to_string();
    super::run(load, &endpoint, arguments.connections, None, connect)
}

impl Arguments {
    fn signer(&self) -> Result<Signer, CliError> {
        let (id, secret) = match (&self.access_key_id, &self.secret_access_key_file) {
            (Some(id), Some(file)) => {
                let secret = fs::read_to_string(file)
                    .map(Zeroizing::new)
                    .map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))?;
                (id.clone(), Zeroizing::new(secret.trim_end().to_owned()))
            }
            _ => match (
                env::var("AWS_ACCESS_KEY_ID"),
                env::var("AWS_SECRET_ACCESS_KEY"),
            ) {
                (Ok(id), Ok(secret)) => (id, Zeroizing::new(secret)),
                _ => (
                    dev::ACCESS_KEY_ID.to_owned(),
                    Zeroizing::new(dev::SECRET_ACCESS_KEY.to_owned()),
                ),
            },
        };
        for (what, text) in [("an access key ID", &id), ("a region", &self.region)] {
            if HeaderValue::from_str(text).is_err() {
                return Err(CliError::Usage(format!("{text:?} is not {what}")));
            }
        }
        Ok(Signer::new(id, secret, self.region.clone()))
    }
}

/// What all connections share.
struct Target {
    server: Server,
    signer: Signer,
    body: Bytes,
}

impl Target {
    async fn connect(&self) -> Result<Sender, String> {
        let stream = self.server.open(CONNECT).await;
        let stream = stream.map_err(|error| self.server.unreachable(&error))?;
        let (sender, conversation) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.server.broken(&error))?;
        // Its end shows in the sender.
        tokio::spawn(conversation);
        Ok(sender)
    }
}

type Sender = SendRequest<Full<Bytes>>;

struct AwsConnection {
    target: Arc<Target>,
    /// One lane uses it, so that there is no contention. None: the last call broke it.
    sender: Mutex<Option<Sender>>,
}

impl BenchConnection for AwsConnection {
    async fn call(&self) -> Result<(), FailedCall> {
        let mut sender = self.sender.lock().await;
        let mut open = match sender.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.target.connect().await.map_err(away)?,
        };
        let answer = self.ask(&mut open).await;
        let (status, body) = answer.map_err(|error| away(self.target.server.broken(&error)))?;
        *sender = Some(open);
        if status == StatusCode::OK {
            return Ok(());
        }
        let reply = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let member = |name: &str| reply[name].as_str().map(str::to_owned);
        Err(FailedCall {
            reason: member("__type").unwrap_or_else(|| format!("HTTP {status}")),
            said: member("message")
                .or_else(|| member("Message"))
                .unwrap_or_default(),
            away: false,
        })
    }
}

impl AwsConnection {
    async fn ask(&self, open: &mut Sender) -> Result<(StatusCode, Bytes), hyper::Error> {
        let Target {
            server,
            signer,
            body,
        } = &*self.target;
        let request = signer.request(server.endpoint().host(), body.clone(), Date::now());
        open.ready().await?;
        let answer = open.send_request(request.map(Full::new)).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}

fn away(said: String) -> FailedCall {
    FailedCall {
        reason: "no answer".into(),
        said,
        away: true,
    }
}
