//! PEM files: certificates, revocation lists, private keys.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};
use zeroize::Zeroizing;

use super::TlsFault;

pub(super) fn certificates(
    setting: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    pem(setting, file, "certificate")
}

/// All PEM sections of a kind in a file; at least one.
pub(super) fn pem<T: PemObject>(
    setting: &'static str,
    file: &Path,
    what: &str,
) -> Result<Vec<T>, TlsFault> {
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

pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
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

pub(super) fn parsed<'a>(
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

pub(super) fn fault(setting: &'static str, text: String) -> TlsFault {
    TlsFault { setting, text }
}

/// A revocation list of a large authority has a few MiB.
const LARGEST: u64 = 16 << 20;
