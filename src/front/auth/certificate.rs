//! The client certificate of a connection: its names, its end, and whether it is still trusted.

use std::{fmt, sync::Arc, time::Duration};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::failure::AuthFailure;
use crate::front::tls::{Tls, now};

/// A client certificate that a handshake has verified.
#[derive(Debug)]
pub(in crate::front) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    /// The configuration that verified it.
    verified_by: Arc<Tls>,
    /// Its only URI; a SPIFFE certificate never has several.
    pub(in crate::front) uri: Option<String>,
    /// Its DNS names, in lower case.
    pub(in crate::front) dns: Vec<String>,
    /// `notBefore` and `notAfter`, in seconds since 1970.
    begins: i64,
    ends: i64,
}

impl ClientCertificate {
    /// Reads the names of the leaf. A certificate whose extended key usage is not for clients, or that
    /// has several URIs, has no names.
    pub(in crate::front) fn read(chain: &[CertificateDer<'_>], by: &Arc<Tls>) -> Self {
        let names = chain.first().and_then(|leaf| read_names(leaf));
        let CertificateNames {
            uri,
            dns,
            begins,
            ends,
        } = names.unwrap_or_default();
        Self {
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            verified_by: by.clone(),
            uri,
            dns,
            begins,
            ends,
        }
    }

    /// Since when it is valid, in seconds since 1970.
    pub(in crate::front) fn begins(&self) -> i64 {
        self.begins
    }

    /// Whether it has not expired, and the current files still verify it.
    pub(in crate::front) fn is_valid(&self, tls: Option<&Arc<Tls>>) -> bool {
        tls.is_some_and(|tls| {
            Arc::ptr_eq(tls, &self.verified_by) || tls.verifies_chain(&self.chain)
        }) && !self.has_expired()
    }

    pub(in crate::front) fn has_expired(&self) -> bool {
        now() > self.ends
    }

    /// What a caller is told whose certificate has expired.
    pub(in crate::front) fn expired(&self) -> AuthFailure {
        AuthFailure::Expired(self.ends)
    }

    /// The time until it expires.
    pub(in crate::front) fn time_left(&self) -> Duration {
        let time_left = self.ends.saturating_sub(now()) + 1;
        Duration::from_secs(time_left.max(0).unsigned_abs())
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

/// The names in a certificate, and its end.
#[derive(Default)]
struct CertificateNames {
    uri: Option<String>,
    dns: Vec<String>,
    begins: i64,
    ends: i64,
}

fn read_names(leaf: &CertificateDer<'_>) -> Option<CertificateNames> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let begins = leaf.validity().not_before.timestamp();
    let ends = leaf.validity().not_after.timestamp();
    let (uri, dns) = client_names(&leaf).unwrap_or_default();
    Some(CertificateNames {
        uri,
        dns,
        begins,
        ends,
    })
}

/// The URI and the DNS names; none if the certificate authenticates no client.
fn client_names(leaf: &X509Certificate<'_>) -> Option<(Option<String>, Vec<String>)> {
    // Security: a certificate for servers or for mail authenticates no client.
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
    // Security: several URIs are ambiguous; SPIFFE forbids them.
    (uris.len() <= 1).then(|| (uris.pop(), dns))
}
