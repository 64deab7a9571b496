//! TLS of the client: which authorities it trusts, and the certificate that it shows.

use std::{
    error::Error as StdError,
    fs,
    io::{
        self,
        ErrorKind::{ConnectionReset, UnexpectedEof},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};
use zeroize::Zeroizing;

/// The flags of an `https://` endpoint.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::cli) struct TlsFlags {
    /// The authorities that the server's certificate may come from (PEM). Default: $HSMAC_CA_BUNDLE, the
    /// profile's, else the system's.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca_bundle: Option<PathBuf>,
    /// The certificate that says who calls, then those that lead to its authority (PEM). Default:
    /// $HSMAC_CERTIFICATE, else the profile's.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) certificate: Option<PathBuf>,
    /// The certificate's private key (PEM, not encrypted). Default: $HSMAC_KEY, else the profile's.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
}

impl TlsFlags {
    pub(super) fn is_empty(&self) -> bool {
        self.ca_bundle.is_none() && self.certificate.is_none() && self.key.is_none()
    }
}

/// The protocol that is asked for in the handshake.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum Alpn {
    Http1,
    Http2,
}

/// TLS to one server.
#[derive(Clone, Debug)]
pub(super) struct ClientTls {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(super) fn new(host: &str, flags: &TlsFlags, alpn: Alpn) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is no name that a certificate could have"))?;
        let roots = match &flags.ca_bundle {
            Some(file) => bundle(file)?,
            None => system_roots()?,
        };
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("the provider has what TLS 1.2 and 1.3 need")
            .with_root_certificates(roots);
        let mut config = match (&flags.certificate, &flags.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(certificate), Some(key)) => config
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|error| {
                    let (certificate, key) = (certificate.display(), key.display());
                    if matches!(error, Error::InconsistentKeys(_)) {
                        format!("{key} is not the key of the certificate in {certificate}")
                    } else {
                        format!("{certificate} with {key}: {error}")
                    }
                })?,
            (Some(_), None) => return Err("--certificate wants its --key too".into()),
            (None, Some(_)) => return Err("--key wants its --certificate too".into()),
        };
        config.alpn_protocols = vec![match alpn {
            Alpn::Http1 => b"http/1.1".to_vec(),
            Alpn::Http2 => b"h2".to_vec(),
        }];
        Ok(Self {
            name,
            config: config.into(),
        })
    }

    pub(super) async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector
            .connect(self.name.clone(), stream)
            .await
            .map_err(|error| {
                if !matches!(error.kind(), UnexpectedEof | ConnectionReset) {
                    return error;
                }
                io::Error::other(
                    "the server ended the handshake without a word; if it does not speak TLS, write \
                     http:// for https://",
                )
            })
    }

    /// What an error means, if it is one of TLS.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what has no sentence of ours is told in the library's words"
    )]
    pub(super) fn because(&self, error: &(dyn StdError + 'static)) -> Option<String> {
        let fault = error.downcast_ref::<Error>().or_else(|| {
            // An io::Error does not count what it wraps as its source.
            let wrapped = error.downcast_ref::<io::Error>()?.get_ref()?;
            wrapped.downcast_ref()
        })?;
        Some(match fault {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "the server's certificate comes from no authority that this client knows; --ca-bundle \
                 FILE names others"
                    .into()
            }
            Error::InvalidCertificate(
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. },
            ) => {
                let host = self.name.to_str();
                format!("the server's certificate is for another name than {host:?}: {fault}")
            }
            Error::InvalidCertificate(fault) => {
                format!("the server's certificate is not good: {fault}")
            }
            Error::AlertReceived(AlertDescription::CertificateRequired) => {
                "the server wants a certificate of this client; --certificate FILE and --key FILE \
                 name it"
                    .into()
            }
            Error::AlertReceived(alert) if is_about_certificate(*alert) => {
                format!("the server does not accept this client's certificate: {alert:?}")
            }
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                "the server speaks another protocol over TLS; is it the port of the other listener?"
                    .into()
            }
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                "the server does not speak TLS; write http:// for https://".into()
            }
            fault => format!("TLS: {fault}"),
        })
    }
}

fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

fn bundle(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // An authority that cannot be read may not be needed; without any no server can be trusted.
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let mut said =
            "this system names no certificate authorities; name some with --ca-bundle FILE"
                .to_owned();
        if let Some(error) = found.errors.first() {
            said.push_str(&format!(" ({error})"));
        }
        return Err(said);
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{}: {error}", file.display()))?;
    if certificates.is_empty() {
        return Err(format!(
            "{}: there is no certificate in it; a line of it should be -----BEGIN CERTIFICATE-----",
            file.display()
        ));
    }
    Ok(certificates)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = fs::read(file)
        .map(Zeroizing::new)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        format!(
            "{}: there is no private key in it that is PEM and not encrypted",
            file.display()
        )
    })
}
