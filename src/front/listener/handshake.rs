//! The TLS handshake, within a time limit, and a log of those that fail.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, CertificateError},
    server::TlsStream,
};

use crate::front::{
    auth::{certificate::ClientCertificate, peer::Peer},
    log_limit::LogLimit,
    tls::{REFUSED_CERTIFICATE, Tls},
};

/// Makes a TLS handshake with a client, within [`LIMIT`].
///
/// # Errors
/// What was wrong with the client or its certificate; a TLS alert has told the client.
pub(in crate::front) async fn accept_tls<S>(
    stream: S,
    tls: &Arc<Tls>,
) -> Result<(TlsStream<S>, Option<ClientCertificate>), HandshakeFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accept = TlsAcceptor::from(tls.config.clone()).accept(stream);
    let handshake = async {
        let accepted = timeout(LIMIT, accept)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("not done in {LIMIT:?}")));
        accepted.flatten().map_err(|error| HandshakeFault {
            error,
            certificate: REFUSED_CERTIFICATE.with(RefCell::take),
        })
    };
    let stream = REFUSED_CERTIFICATE
        .scope(RefCell::default(), handshake)
        .await?;
    let chain = stream.get_ref().1.peer_certificates();
    let certificate = chain.map(|chain| ClientCertificate::read(chain, tls));
    Ok((stream, certificate))
}

/// Why a handshake failed.
#[derive(Debug)]
pub(in crate::front) struct HandshakeFault {
    pub(in crate::front) error: io::Error,
    /// The certificate that was refused: its name and its dates.
    certificate: Option<String>,
}

impl HandshakeFault {
    /// By what such faults are counted.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls adds variants in minor releases; each is a cause of its own only if operators can act on it"
    )]
    fn cause(&self) -> &'static str {
        if self.error.kind() == io::ErrorKind::TimedOut {
            return "timed out";
        }
        let tls = self.error.get_ref().and_then(|error| error.downcast_ref());
        let Some(fault) = tls else {
            return "connection lost";
        };
        match fault {
            rustls::Error::InvalidCertificate(fault) => match fault {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "certificate expired"
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "certificate not valid yet"
                }
                CertificateError::Revoked => "certificate revoked",
                CertificateError::UnknownIssuer => "certificate of an unknown authority",
                CertificateError::UnknownRevocationStatus => {
                    "certificate of an authority without a revocation list"
                }
                _ => "certificate not acceptable",
            },
            rustls::Error::AlertReceived(_) => "the client refused",
            rustls::Error::InvalidMessage(_) => "no TLS",
            rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => {
                "nothing in common"
            }
            _ => "other",
        }
    }
}

/// How often handshakes failed for one cause.
#[derive(Default)]
struct CauseCount {
    total: u64,
    /// Of those, the ones that the log has been told of.
    told: u64,
}

/// Failed handshakes. Each is logged at `debug`; at `warn` there is one line a minute, with a count of
/// each cause, so that peers cannot fill the log.
pub(in crate::front) struct HandshakeFailures {
    listener: &'static str,
    causes: Mutex<BTreeMap<&'static str, CauseCount>>,
    log: LogLimit,
}

impl HandshakeFailures {
    pub(in crate::front) fn new(listener: &'static str) -> Self {
        Self {
            listener,
            causes: Mutex::default(),
            log: LogLimit::new(),
        }
    }

    /// How many there were so far, by cause.
    pub(in crate::front) fn totals(&self) -> BTreeMap<&'static str, u64> {
        let causes = self.causes.lock().expect(UNPOISONED);
        let totals = causes.iter().map(|(cause, count)| (*cause, count.total));
        totals.collect()
    }

    pub(in crate::front) fn note(&self, peer: &Peer, fault: &HandshakeFault) {
        let HandshakeFault { error, certificate } = fault;
        let certificate = certificate.as_deref();
        tracing::debug!(%peer, reason = %error, certificate, "the TLS handshake failed");
        // A port scan or a TCP health check: connected, and closed without a byte.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return;
        }
        let mut causes = self.causes.lock().expect(UNPOISONED);
        causes.entry(fault.cause()).or_default().total += 1;
        if let Some(count) = self.log.pass() {
            let new = causes
                .iter_mut()
                .filter(|(_, count)| count.total > count.told);
            let causes: Vec<_> = new
                .map(|(cause, count)| {
                    let told = std::mem::replace(&mut count.told, count.total);
                    format!("{cause}: {}", count.total - told)
                })
                .collect();
            let (listener, causes) = (self.listener, causes.join(", "));
            tracing::warn!(event = "handshakes_failed", %peer, reason = %error, certificate, count, causes, listener, "TLS handshakes failed; this is the last of them");
        }
    }
}

const UNPOISONED: &str = "nobody panics with this lock held";
/// The time that a client has for its handshake.
const LIMIT: Duration = Duration::from_secs(5);
