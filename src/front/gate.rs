//! Who may come in by a listener: what proves who a caller is, but for signatures.

use std::{collections::HashMap, fs, sync::Arc};

use super::{DeclaredPrincipal, certificate::ClientCertificate, peer::Peer, tls::Tls};
use crate::{
    error::{Error, Kind},
    model::Caller,
};

/// Who callers are, by their connection. Never changes: a reload puts another in its place, and every
/// connection is judged again.
#[derive(Debug, Default)]
pub struct Gate {
    tls: Option<Arc<Tls>>,
    by_uid: HashMap<u32, Arc<Caller>>,
    by_uri: HashMap<String, Arc<Caller>>,
    by_dns: HashMap<String, Arc<Caller>>,
    /// Everybody else.
    anonymous: Option<Arc<Caller>>,
}

/// Why nobody knows who a caller is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stranger {
    /// It has shown nothing.
    NoProof,
    /// What it has shown is nobody's, or nobody's any more.
    Unrecognized,
}

impl Gate {
    /// For a listener whose callers are these principals, by whatever proof each has.
    pub fn new(
        tls: Option<Tls>,
        principals: &[DeclaredPrincipal],
        anonymous: Option<&Caller>,
    ) -> Self {
        let overflow = overflow_uid();
        let by_uid = principals
            .iter()
            .filter_map(|principal| Some((principal.unix_uid?, principal)))
            // Security: the kernel shows this one for every user that it cannot name here, such as
            // those of another user namespace.
            .filter(|(uid, _)| *uid != overflow)
            .map(|(uid, principal)| (uid, Arc::new(seen(&principal.arn.0, false))))
            .collect();
        Self {
            by_uid,
            anonymous: anonymous.map(|caller| Arc::new(seen(caller, tls.is_some()))),
            ..Self::by_certificate(tls, principals)
        }
    }

    /// The same by certificates alone.
    pub fn by_certificate(tls: Option<Tls>, principals: &[DeclaredPrincipal]) -> Self {
        let (mut by_uri, mut by_dns) = (HashMap::new(), HashMap::new());
        for principal in principals {
            let caller = Arc::new(seen(&principal.arn.0, true));
            if let Some(uri) = &principal.certificate_uri {
                by_uri.insert(uri.as_str().to_owned(), caller.clone());
            }
            if let Some(name) = &principal.certificate_dns {
                by_dns.insert(name.as_str().to_owned(), caller);
            }
        }
        Self {
            tls: tls.map(Arc::new),
            by_uri,
            by_dns,
            ..Self::default()
        }
    }

    /// With what handshakes are made; none: connections are plain.
    pub(super) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Who sends a connection's requests.
    pub(super) fn caller(&self, peer: &Peer) -> Result<Arc<Caller>, Stranger> {
        let known = match peer {
            Peer::Unix { uid: Some(uid), .. } => self.by_uid.get(uid),
            Peer::Tls(_, Some(certificate)) => self.holder(certificate),
            Peer::Unix { uid: None, .. } | Peer::Tcp(_) | Peer::Tls(_, None) => None,
        };
        let stranger = match peer.certificate() {
            Some(_) => Stranger::Unrecognized,
            None => Stranger::NoProof,
        };
        known.or(self.anonymous.as_ref()).cloned().ok_or(stranger)
    }

    /// The one principal that a certificate stands for; none if its names stand for several.
    fn holder(&self, certificate: &ClientCertificate) -> Option<&Arc<Caller>> {
        if !certificate.is_good(self.tls.as_ref()) {
            return None;
        }
        let by_uri = certificate
            .uri
            .iter()
            .filter_map(|uri| self.by_uri.get(uri));
        let by_dns = certificate
            .dns
            .iter()
            .filter_map(|name| self.by_dns.get(name));
        let mut holders = by_uri.chain(by_dns);
        let first = holders.next()?;
        holders.all(|other| other == first).then_some(first)
    }
}

impl From<Stranger> for Error {
    fn from(stranger: Stranger) -> Self {
        match stranger {
            Stranger::NoProof => Self::new(
                Kind::MissingAuthenticationToken,
                "The request carries no proof of who the caller is, and the server admits nobody without.",
            ),
            Stranger::Unrecognized => Self::new(
                Kind::UnrecognizedClient,
                "The caller's certificate stands for no principal that the server knows.",
            ),
        }
    }
}

/// A caller as conditions see it.
fn seen(caller: &Caller, over_tls: bool) -> Caller {
    if over_tls {
        caller.clone().over_tls()
    } else {
        caller.clone()
    }
}

fn overflow_uid() -> u32 {
    fs::read_to_string("/proc/sys/kernel/overflowuid")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65_534)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(name: &str, unix_uid: Option<u32>) -> DeclaredPrincipal {
        let arn = format!("arn:aws:iam::111122223333:user/{name}");
        DeclaredPrincipal {
            unix_uid,
            ..DeclaredPrincipal::new(Caller::parse(&arn).unwrap())
        }
    }

    #[test]
    fn a_uid_proves_who_it_is_and_the_overflow_uid_proves_nothing() {
        let principals = [
            principal("billing", Some(1000)),
            principal("root", Some(0)),
            principal("lost", Some(overflow_uid())),
            principal("elsewhere", None),
        ];
        let anonymous = Caller::parse("arn:aws:iam::111122223333:user/anybody").unwrap();
        let strict = Gate::new(None, &principals, None);
        let lax = Gate::new(None, &principals, Some(&anonymous));
        let unix = |uid| Peer::Unix { uid, pid: Some(1) };
        for (peer, name) in [
            (unix(Some(1000)), Some("billing")),
            (unix(Some(0)), Some("root")),
            (unix(Some(1001)), None),
            (unix(Some(overflow_uid())), None),
            (unix(None), None),
            (Peer::Tcp(([127, 0, 0, 1], 1000).into()), None),
        ] {
            let arn = |name: &str| format!("arn:aws:iam::111122223333:user/{name}");
            let found = |gate: &Gate| gate.caller(&peer).map(|caller| caller.arn().to_owned());
            let known = name.map(arn).ok_or(Stranger::NoProof);
            assert_eq!(found(&strict), known, "{peer}");
            assert_eq!(found(&lax), Ok(arn(name.unwrap_or("anybody"))), "{peer}");
        }
    }
}
