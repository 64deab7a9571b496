//! The certificate on the other end of a connection.

use std::{fmt, sync::Arc, time::Duration};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::tls::{Tls, now};

/// A client certificate that a handshake has found good.
#[derive(Debug)]
pub(super) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    /// By which it was believed.
    by: Arc<Tls>,
    /// Its one URI (SPIFFE: never several).
    pub(super) uri: Option<String>,
    /// Its DNS names, in small letters.
    pub(super) dns: Vec<String>,
    ends: i64,
}

impl ClientCertificate {
    /// Reads what a certificate says of its holder. A certificate that is not for clients, or says
    /// something twice, says nothing.
    pub(super) fn read(chain: &[CertificateDer<'_>], by: &Arc<Tls>) -> Self {
        let said = chain.first().and_then(|leaf| says(leaf));
        let Said { uri, dns, ends } = said.unwrap_or_default();
        Self {
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            by: by.clone(),
            uri,
            dns,
            ends,
        }
    }

    /// Whether it is good still, to the files as they are now.
    pub(super) fn is_good(&self, tls: Option<&Arc<Tls>>) -> bool {
        tls.is_some_and(|tls| Arc::ptr_eq(tls, &self.by) || tls.believes(&self.chain))
            && !self.has_ended()
    }

    pub(super) fn has_ended(&self) -> bool {
        now() > self.ends
    }

    /// How long it is good yet.
    pub(super) fn remains(&self) -> Duration {
        let remains = self.ends.saturating_sub(now()) + 1;
        Duration::from_secs(remains.max(0).unsigned_abs())
    }
}

impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.uri, &self.dns[..]) {
            (Some(uri), _) => write!(f, "certificate of {}", uri.escape_debug()),
            (None, [name, ..]) => write!(f, "certificate of {}", name.escape_debug()),
            (None, []) => f.write_str("certificate without a name"),
        }
    }
}

/// What a certificate says of its holder.
#[derive(Default)]
struct Said {
    uri: Option<String>,
    dns: Vec<String>,
    ends: i64,
}

fn says(leaf: &CertificateDer<'_>) -> Option<Said> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    // Security: a certificate for servers, or for mail, is no client's.
    let for_clients = leaf.extended_key_usage().ok()??.value.client_auth;
    if !for_clients {
        return None;
    }
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    if let Some(names) = leaf.subject_alternative_name().ok()? {
        for name in &names.value.general_names {
            if let GeneralName::URI(uri) = name {
                uris.push((*uri).to_owned());
            } else if let GeneralName::DNSName(name) = name {
                dns.push(name.to_ascii_lowercase());
            }
        }
    }
    if uris.len() > 1 {
        return None;
    }
    Some(Said {
        uri: uris.pop(),
        dns,
        ends: leaf.validity().not_after.timestamp(),
    })
}
