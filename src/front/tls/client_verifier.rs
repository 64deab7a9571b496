//! Verifies client certificates, and remembers for the log which one a handshake has refused.

use std::{cell::RefCell, sync::Arc};

use tokio::task_local;
use tokio_rustls::rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::validity::date;

task_local! {
    /// The certificate that the handshake of this task has refused: its name and its dates. rustls tells
    /// why it refuses one, but not which.
    pub(in crate::front) static REFUSED_CERTIFICATE: RefCell<Option<String>>;
}

/// rustls's verifier, and what it refuses.
#[derive(Debug)]
pub(super) struct NamingVerifier(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for NamingVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0
            .verify_client_cert(leaf, intermediates, now)
            .inspect_err(|_| {
                // An error says that this is no handshake.
                let _ = REFUSED_CERTIFICATE.try_with(|refused| refused.replace(describe(leaf)));
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The name of a certificate, as short as a log line may have it, and its dates.
fn describe(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let names = leaf.subject_alternative_name().ok().flatten();
    let mut names = names.iter().flat_map(|names| &names.value.general_names);
    let name = names.find_map(|name| {
        if let GeneralName::URI(name) | GeneralName::DNSName(name) = name {
            Some((*name).to_owned())
        } else {
            None
        }
    });
    let name = name.unwrap_or_else(|| leaf.subject().to_string());
    let short: String = name.chars().take(LONGEST).collect();
    let validity = leaf.validity();
    Some(format!(
        "{}, valid from {} to {}",
        short.escape_debug(),
        date(validity.not_before.timestamp()),
        date(validity.not_after.timestamp())
    ))
}

const LONGEST: usize = 128;
