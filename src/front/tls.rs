//! TLS: a listener's certificate, and which client certificates it believes.
//!
//! Promises: certificate and key fit together before anybody meets them; a client certificate that
//! is believed is whole, in its time, of a configured authority and in none of its revocation lists
//! (RFC 5280, section 6). Does not: know who a certificate stands for (`gate` does).

use std::{
    fmt,
    fs::{self, File},
    io::Read as _,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use chrono::DateTime;
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject,
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{
    certificate::{Validity, X509Certificate},
    extensions::GeneralName,
    prelude::FromDer as _,
    revocation_list::CertificateRevocationList,
};
use zeroize::Zeroizing;

use super::TlsSettings;

/// What a listener needs to speak TLS, read from its files at one time. Never changes: a reload puts
/// another in its place.
pub struct Tls {
    pub(super) config: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    papers: Vec<Paper>,
    names: Vec<String>,
}

/// A setting with what is wrong with the file that it names.
#[derive(Debug)]
pub struct TlsFault {
    /// `certificate`, `key`, `client_ca` or `client_crl`.
    pub setting: &'static str,
    /// A sentence that names the file.
    pub text: String,
}

/// Something with an end.
#[derive(Debug)]
struct Paper {
    setting: &'static str,
    what: String,
    /// In seconds since 1970.
    begins: i64,
    ends: i64,
}

impl Tls {
    /// Reads the files. `protocol` is what is spoken inside, as ALPN names it (RFC 7301).
    ///
    /// # Errors
    /// The first setting whose file is not what it should be.
    pub fn load(settings: &TlsSettings, protocol: &[u8]) -> Result<Self, TlsFault> {
        let mut papers = Vec::new();
        let chain = certificates("certificate", &settings.certificate)?;
        let key = private_key(&settings.key)?;
        let names = {
            let leaf = parsed("certificate", &settings.certificate, &chain[0])?;
            papers.push(Paper::of(
                "certificate",
                "the certificate".into(),
                leaf.validity(),
            ));
            names(&leaf)
        };
        let clients = match &settings.client_ca {
            Some(file) => {
                let crl = settings.client_crl.as_deref();
                Some(client_verifier(file, crl, &mut papers)?)
            }
            None => None,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let builder = match &clients {
            // Who proves nothing is told so by the API, which can say more than an alert.
            Some(clients) => builder.with_client_cert_verifier(clients.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let key = settings.key.display();
            let certificate = settings.certificate.display();
            fault("key", format!("{key} does not fit {certificate}: {error}"))
        })?;
        config.alpn_protocols = vec![protocol.to_vec()];
        if clients.is_some() {
            // Security: a resumed session would be believed by what was true when it began.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self {
            config: Arc::new(config),
            clients,
            papers,
            names,
        })
    }

    /// Whether a chain is believed now; the leaf is its first.
    pub(super) fn believes(&self, chain: &[CertificateDer<'_>]) -> bool {
        let (Some(clients), Some((leaf, rest))) = (&self.clients, chain.split_first()) else {
            return false;
        };
        clients
            .verify_client_cert(leaf, rest, UnixTime::now())
            .is_ok()
    }

    /// What has ended, ends soon or has not begun yet: each with its setting. Soon is a fifth of the
    /// time that it is good for, and 14 days at most.
    pub fn warnings(&self) -> Vec<(&'static str, String)> {
        let now = now();
        self.papers
            .iter()
            .filter_map(|paper| Some((paper.setting, paper.warning(now)?)))
            .collect()
    }

    /// The names that the server's certificate is for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When the server's certificate ends.
    pub fn ends(&self) -> String {
        date(self.papers[0].ends)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("names", &self.names)
            .field("papers", &self.papers)
            .finish_non_exhaustive()
    }
}

impl Paper {
    fn of(setting: &'static str, what: String, validity: &Validity) -> Self {
        Self {
            setting,
            what,
            begins: validity.not_before.timestamp(),
            ends: validity.not_after.timestamp(),
        }
    }

    fn warning(&self, now: i64) -> Option<String> {
        let Self {
            what, begins, ends, ..
        } = self;
        let soon = (ends.saturating_sub(*begins) / 5).min(FORTNIGHT);
        if now > *ends {
            Some(format!("{what} ended at {}", date(*ends)))
        } else if now < *begins {
            Some(format!("{what} is good from {} on only", date(*begins)))
        } else if ends.saturating_sub(now) < soon {
            Some(format!("{what} ends at {}", date(*ends)))
        } else {
            None
        }
    }
}

fn client_verifier(
    ca: &Path,
    crl: Option<&Path>,
    papers: &mut Vec<Paper>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", ca)? {
        let authority = parsed("client_ca", ca, &certificate)?;
        let what = format!(
            "the authority {}",
            authority.subject().to_string().escape_debug()
        );
        papers.push(Paper::of("client_ca", what, authority.validity()));
        roots
            .add(certificate.clone())
            .map_err(|error| fault("client_ca", format!("{}: {error}", ca.display())))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated();
    if let Some(crl) = crl {
        let lists = revocation_lists(crl, papers)?;
        // Of each authority in a chain there must be a list: what is unknown is not believed.
        builder = builder.with_crls(lists);
    }
    builder.build().map_err(|error| {
        let (setting, file) = crl.map_or(("client_ca", ca), |crl| ("client_crl", crl));
        fault(setting, format!("{}: {error}", file.display()))
    })
}

fn revocation_lists(
    file: &Path,
    papers: &mut Vec<Paper>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFault> {
    let lists: Vec<CertificateRevocationListDer<'static>> =
        pem("client_crl", file, "revocation list")?;
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
        // An old list is used on: to refuse everybody would be worse. But somebody must know.
        if let Some(next) = list.next_update() {
            papers.push(Paper {
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
    Ok(lists)
}

fn certificates(
    setting: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    pem(setting, file, "certificate")
}

/// All PEM sections of a kind in a file; at least one.
fn pem<T: PemObject>(setting: &'static str, file: &Path, what: &str) -> Result<Vec<T>, TlsFault> {
    let shown = file.display();
    let text = read(setting, file)?;
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(fault(setting, format!("{shown} holds no {what} in PEM")))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(fault(setting, format!("{shown} is no PEM: {error}"))),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let text = read("key", file)?;
    // Security: nothing of what is in it is told.
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let shown = file.display();
        fault(
            "key",
            format!("{shown} holds no private key in PEM that is not encrypted"),
        )
    })
}

fn parsed<'a>(
    setting: &'static str,
    file: &Path,
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, TlsFault> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err(fault(
            setting,
            format!(
                "{} holds something that is no X.509 certificate",
                file.display()
            ),
        )),
    }
}

fn read(setting: &'static str, file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsFault> {
    let shown = file.display();
    let unreadable = |error| fault(setting, format!("{shown}: {error}"));
    // Its metadata first: to open a FIFO would wait for a writer.
    let found = fs::metadata(file).map_err(unreadable)?;
    if !found.is_file() {
        return Err(fault(setting, format!("{shown} is not a regular file")));
    }
    // Room for all at once: a buffer that grows leaves its bytes behind.
    let room = usize::try_from(found.len().min(LARGEST)).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    File::open(file)
        .and_then(|open| open.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(fault(
            setting,
            format!("{shown} has more than {LARGEST} bytes"),
        ));
    }
    Ok(bytes)
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

fn fault(setting: &'static str, text: String) -> TlsFault {
    TlsFault { setting, text }
}

fn date(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0).map_or_else(
        || format!("{seconds} s since 1970"),
        |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// In seconds.
const FORTNIGHT: i64 = 14 * 24 * 3600;
/// A revocation list of a large authority has a few MiB.
const LARGEST: u64 = 16 << 20;
