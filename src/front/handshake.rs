//! The beginning of a TLS connection.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{certificate::ClientCertificate, peer::Peer, tls::Tls};

/// Agrees on TLS with a client, within [`LIMIT`].
///
/// # Errors
/// What was wrong with the client, or its certificate; it has been told by an alert.
pub(super) async fn shake<S>(
    stream: S,
    tls: &Arc<Tls>,
) -> io::Result<(TlsStream<S>, Option<ClientCertificate>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accept = TlsAcceptor::from(tls.config.clone()).accept(stream);
    let stream = timeout(LIMIT, accept)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("not done in {LIMIT:?}")))??;
    let chain = stream.get_ref().1.peer_certificates();
    let certificate = chain.map(|chain| ClientCertificate::read(chain, tls));
    Ok((stream, certificate))
}

/// Handshakes that failed. Each is in the log at `debug`; at `warn` there is one a minute, so that
/// strangers cannot fill it.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Told>);

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    since: u64,
}

impl Refusals {
    pub(super) fn note(&self, peer: &Peer, fault: &io::Error) {
        tracing::debug!(%peer, %fault, "the TLS handshake failed");
        // Somebody who only looks whether the port is open.
        if fault.kind() == io::ErrorKind::UnexpectedEof {
            return;
        }
        let count = {
            let mut told = self.0.lock().expect("nobody panics with this lock held");
            told.since += 1;
            if told.last.is_some_and(|last| last.elapsed() < PAUSE) {
                return;
            }
            told.last = Some(Instant::now());
            std::mem::take(&mut told.since)
        };
        tracing::warn!(%peer, %fault, count, "TLS handshakes failed; this is the last of them");
    }
}

/// How long a client may take for its handshake.
const LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_mins(1);
