//! TLS: a listener's certificate, and which client certificates it trusts.
//!
//! Promises: certificate and key match before they are used; a client certificate that
//! is trusted is well-formed, within its validity period, issued by a configured authority and in none
//! of its revocation lists (RFC 5280, section 6). Does not: know which principal a certificate stands
//! for (`auth::authenticator` does).

mod client_verifier;
mod pem;
mod validity;

pub(in crate::front) use self::{
    client_verifier::REFUSED_CERTIFICATE,
    validity::{date, now},
};

use std::{fmt, path::Path, sync::Arc};

use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _,
    revocation_list::CertificateRevocationList,
};

use self::{
    client_verifier::NamingVerifier,
    pem::{certificates, fault, parsed, pem, private_key},
    validity::ValidityPeriod,
};
use crate::front::settings::TlsSettings;

/// What a listener needs for TLS, read from its files at one time. Immutable: a reload replaces it.
pub struct Tls {
    pub(in crate::front) config: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    parts: Parts,
}

/// What is read from files, each of which may be broken while the others are not.
#[derive(Clone)]
struct Parts {
    identity: Arc<Identity>,
    authorities: Option<Arc<Authorities>>,
    lists: Option<Arc<RevocationLists>>,
}

/// A setting with what is wrong with the file that it names.
#[derive(Debug)]
pub struct TlsFault {
    /// `certificate`, `key`, `client_ca` or `client_crl`.
    pub setting: &'static str,
    /// A sentence that names the file.
    pub text: String,
}

impl Tls {
    /// Reads the files. `protocol` is what is spoken inside, as ALPN names it (RFC 7301).
    ///
    /// # Errors
    /// The first setting whose file is not what it should be.
    pub fn load(settings: &TlsSettings, protocol: &[u8]) -> Result<Self, TlsFault> {
        let parts = Parts {
            identity: Arc::new(Identity::read(settings)?),
            authorities: Authorities::read_if_any(settings)?.map(Arc::new),
            lists: RevocationLists::read_if_any(settings)?.map(Arc::new),
        };
        Self::of(parts, settings, protocol)
    }

    /// Reads the files again. What is broken stays as it was in `last`: a revocation list takes effect
    /// although the server's own certificate cannot be read, and the other way round.
    pub fn reload(settings: &TlsSettings, protocol: &[u8], last: &Self) -> (Self, Vec<TlsFault>) {
        let (mut parts, mut faults) = (last.parts.clone(), Vec::new());
        match Identity::read(settings) {
            Ok(identity) => parts.identity = Arc::new(identity),
            Err(fault) => faults.push(fault),
        }
        let (tls, more) = Self::reload_trust(settings, protocol, last, parts);
        faults.extend(more);
        (tls, faults)
    }

    /// Reads again whom to trust, and keeps the server's own certificate as it was in `last`.
    pub fn reload_clients(
        settings: &TlsSettings,
        protocol: &[u8],
        last: &Self,
    ) -> (Self, Vec<TlsFault>) {
        Self::reload_trust(settings, protocol, last, last.parts.clone())
    }

    fn reload_trust(
        settings: &TlsSettings,
        protocol: &[u8],
        last: &Self,
        mut parts: Parts,
    ) -> (Self, Vec<TlsFault>) {
        let mut faults = Vec::new();
        match Authorities::read_if_any(settings) {
            Ok(authorities) => parts.authorities = authorities.map(Arc::new),
            Err(fault) => faults.push(fault),
        }
        match RevocationLists::read_if_any(settings) {
            Ok(lists) => parts.lists = lists.map(Arc::new),
            Err(fault) => faults.push(fault),
        }
        match Self::of(parts.clone(), settings, protocol) {
            Ok(tls) => (tls, faults),
            Err(fault) => {
                faults.push(fault);
                // Whom to trust is decided by two files together.
                parts.authorities.clone_from(&last.parts.authorities);
                parts.lists.clone_from(&last.parts.lists);
                let kept = Self::of(parts, settings, protocol);
                (kept.expect("these parts have served together"), faults)
            }
        }
    }

    fn of(parts: Parts, settings: &TlsSettings, protocol: &[u8]) -> Result<Self, TlsFault> {
        let clients = match &parts.authorities {
            Some(authorities) => Some(authorities.verifier(parts.lists.as_deref(), settings)?),
            None => None,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let builder = match &clients {
            // A client without a certificate is refused by the API, which can say more than an alert.
            Some(clients) => {
                builder.with_client_cert_verifier(Arc::new(NamingVerifier(clients.clone())))
            }
            None => builder.with_no_client_auth(),
        };
        let pair = SingleCertAndKey::from(parts.identity.pair.clone());
        let mut config = builder.with_cert_resolver(Arc::new(pair));
        config.alpn_protocols = vec![protocol.to_vec()];
        if clients.is_some() {
            // Security: a resumed session would be trusted without being verified again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self {
            config: Arc::new(config),
            clients,
            parts,
        })
    }

    /// Whether a certificate chain is trusted now; the leaf is its first.
    pub(in crate::front) fn verifies_chain(&self, chain: &[CertificateDer<'_>]) -> bool {
        let (Some(clients), Some((leaf, rest))) = (&self.clients, chain.split_first()) else {
            return false;
        };
        clients
            .verify_client_cert(leaf, rest, UnixTime::now())
            .is_ok()
    }

    /// Certificates and lists that have expired, expire soon or are not valid yet, each with its
    /// setting. Soon is a fifth of the validity period, and 14 days at most.
    pub fn warnings(&self) -> Vec<(&'static str, String)> {
        let now = now();
        self.validity_periods()
            .filter_map(|period| Some((period.setting, period.warning(now)?)))
            .collect()
    }

    /// Each certificate and revocation list: its setting, and when it ends, in seconds since 1970.
    pub fn all_ends(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.validity_periods()
            .map(|period| (period.setting, period.ends))
    }

    fn validity_periods(&self) -> impl Iterator<Item = &ValidityPeriod> {
        let Parts {
            identity,
            authorities,
            lists,
        } = &self.parts;
        let authorities = authorities.iter().flat_map(|it| &it.periods);
        let lists = lists.iter().flat_map(|it| &it.periods);
        [&identity.period]
            .into_iter()
            .chain(authorities)
            .chain(lists)
    }

    /// The names that the server's certificate is for.
    pub fn names(&self) -> &[String] {
        &self.parts.identity.names
    }

    /// When the server's certificate ends.
    pub fn ends(&self) -> String {
        date(self.parts.identity.period.ends)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("names", &self.names())
            .field(
                "validity_periods",
                &self.validity_periods().collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

/// The server's certificate and its key.
struct Identity {
    pair: CertifiedKey,
    period: ValidityPeriod,
    names: Vec<String>,
}

impl Identity {
    fn read(settings: &TlsSettings) -> Result<Self, TlsFault> {
        let chain = certificates("certificate", &settings.certificate)?;
        let key = private_key(&settings.key)?;
        let leaf = parsed("certificate", &settings.certificate, &chain[0])?;
        let period = ValidityPeriod::of("certificate", "the certificate".into(), leaf.validity());
        let names = names(&leaf);
        let provider = aws_lc_rs::default_provider();
        let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            let key = settings.key.display();
            let certificate = settings.certificate.display();
            fault("key", format!("{key} does not fit {certificate}: {error}"))
        })?;
        Ok(Self {
            pair,
            period,
            names,
        })
    }
}

/// The authorities whose certificates clients may show.
struct Authorities {
    roots: Arc<RootCertStore>,
    periods: Vec<ValidityPeriod>,
}

impl Authorities {
    fn read_if_any(settings: &TlsSettings) -> Result<Option<Self>, TlsFault> {
        settings.client_ca.as_deref().map(Self::read).transpose()
    }

    fn read(file: &Path) -> Result<Self, TlsFault> {
        let (mut roots, mut periods) = (RootCertStore::empty(), Vec::new());
        for certificate in certificates("client_ca", file)? {
            let authority = parsed("client_ca", file, &certificate)?;
            let what = format!(
                "the authority {}",
                authority.subject().to_string().escape_debug()
            );
            periods.push(ValidityPeriod::of("client_ca", what, authority.validity()));
            roots
                .add(certificate.clone())
                .map_err(|error| fault("client_ca", format!("{}: {error}", file.display())))?;
        }
        Ok(Self {
            roots: Arc::new(roots),
            periods,
        })
    }

    fn verifier(
        &self,
        lists: Option<&RevocationLists>,
        settings: &TlsSettings,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider)
            .allow_unauthenticated();
        if let Some(lists) = lists {
            // Each authority in a chain must have a list: an unknown revocation status is refused.
            builder = builder.with_crls(lists.lists.iter().cloned());
        }
        builder.build().map_err(|error| {
            let files = match (&settings.client_crl, &settings.client_ca) {
                (Some(file), _) => ("client_crl", file.display().to_string()),
                (None, Some(file)) => ("client_ca", file.display().to_string()),
                (None, None) => ("client_ca", "client_ca".to_owned()),
            };
            fault(files.0, format!("{}: {error}", files.1))
        })
    }
}

/// The certificates that authorities have withdrawn.
struct RevocationLists {
    lists: Vec<CertificateRevocationListDer<'static>>,
    periods: Vec<ValidityPeriod>,
}

impl RevocationLists {
    fn read_if_any(settings: &TlsSettings) -> Result<Option<Self>, TlsFault> {
        let file = settings.client_crl.as_deref();
        // Without authorities there is nobody to withdraw from.
        file.filter(|_| settings.client_ca.is_some())
            .map(Self::read)
            .transpose()
    }

    fn read(file: &Path) -> Result<Self, TlsFault> {
        let lists: Vec<CertificateRevocationListDer<'static>> =
            pem("client_crl", file, "revocation list")?;
        let mut periods = Vec::new();
        for list in &lists {
            let (_, list) = CertificateRevocationList::from_der(list).map_err(|_| {
                fault(
                    "client_crl",
                    format!(
                        "{} holds something that is no revocation list",
                        file.display()
                    ),
                )
            })?;
            // A list past its next update stays in use, with a warning: to refuse everybody would
            // be worse.
            if let Some(next) = list.next_update() {
                periods.push(ValidityPeriod {
                    setting: "client_crl",
                    what: format!(
                        "the revocation list of {}",
                        list.issuer().to_string().escape_debug()
                    ),
                    begins: list.last_update().timestamp(),
                    ends: next.timestamp(),
                });
            }
        }
        Ok(Self { lists, periods })
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| {
            if let GeneralName::DNSName(name) = name {
                Some(name.escape_debug().to_string())
            } else if let GeneralName::IPAddress(bytes) = name {
                address(bytes).map(|address| address.to_string())
            } else {
                None
            }
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(Into::into),
        16 => <[u8; 16]>::try_from(bytes).ok().map(Into::into),
        _ => None,
    }
}
