//! Maps proofs to principals: user IDs of Unix sockets, and names in client certificates. Signatures of
//! requests are checked by `aws::sigv4`.

use std::{collections::HashMap, fs, sync::Arc};

use crate::{
    front::{
        auth::{certificate::ClientCertificate, failure::AuthFailure, peer::Peer},
        settings::PrincipalSettings,
        tls::Tls,
    },
    model::Caller,
};

/// Who callers are, by their connection. Immutable: a reload replaces it, and every connection is
/// authenticated again.
#[derive(Debug, Default)]
pub struct Authenticator {
    tls: Option<Arc<Tls>>,
    by_uid: HashMap<u32, Arc<Caller>>,
    by_uri: HashMap<String, Arc<Caller>>,
    by_dns: HashMap<String, Arc<Caller>>,
    /// The principal of callers that have no proof.
    anonymous: Option<Arc<Caller>>,
}

impl Authenticator {
    /// Knows principals by user ID and by certificate; `anonymous` is the principal of everybody
    /// else.
    pub fn new(
        tls: Option<Arc<Tls>>,
        principals: &[PrincipalSettings],
        anonymous: Option<&Caller>,
    ) -> Self {
        let overflow = overflow_uid();
        let by_uid = principals
            .iter()
            .filter_map(|principal| Some((principal.unix_uid?, principal)))
            // Security: the kernel shows the overflow uid for every user that has no uid here, such
            // as those of another user namespace.
            .filter(|(uid, _)| *uid != overflow)
            .map(|(uid, principal)| (uid, Arc::new(with_transport(&principal.arn.0, false))))
            .collect();
        Self {
            by_uid,
            anonymous: anonymous.map(|caller| Arc::new(with_transport(caller, tls.is_some()))),
            ..Self::by_certificate(tls, principals)
        }
    }

    /// For a Unix socket that counts as a secure transport.
    #[must_use]
    pub fn over_secure_socket(mut self) -> Self {
        let known = self.by_uid.values_mut().chain(&mut self.anonymous);
        for caller in known {
            *caller = Arc::new(with_transport(caller, true));
        }
        self
    }

    /// Knows principals by certificate only.
    pub fn by_certificate(tls: Option<Arc<Tls>>, principals: &[PrincipalSettings]) -> Self {
        let (mut by_uri, mut by_dns) = (HashMap::new(), HashMap::new());
        for principal in principals {
            let caller = Arc::new(with_transport(&principal.arn.0, true));
            if let Some(uri) = &principal.certificate_uri {
                by_uri.insert(uri.as_str().to_owned(), caller.clone());
            }
            if let Some(name) = &principal.certificate_dns {
                by_dns.insert(name.as_str().to_owned(), caller);
            }
        }
        Self {
            tls,
            by_uri,
            by_dns,
            ..Self::default()
        }
    }

    /// The TLS of the listener; none if its connections are plain.
    pub(in crate::front) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// The principal on the other end of a connection.
    ///
    /// # Errors
    /// There is no proof, or none that stands for a principal.
    pub(in crate::front) fn caller(&self, peer: &Peer) -> Result<Arc<Caller>, AuthFailure> {
        let known = match peer {
            Peer::Unix { uid: Some(uid), .. } => self.by_uid.get(uid),
            Peer::Tls(_, Some(certificate)) => self.principal_of(certificate),
            Peer::Unix { uid: None, .. } | Peer::Tcp(_) | Peer::Tls(_, None) => None,
        };
        if let Some(known) = known {
            return Ok(known.clone());
        }
        match peer.certificate() {
            // Security: a certificate that is unknown or withdrawn is never the anonymous principal's.
            Some(certificate) if certificate.has_expired() => Err(certificate.expired()),
            Some(_) => Err(AuthFailure::Unrecognized),
            None => self.anonymous.clone().ok_or(AuthFailure::NoProof),
        }
    }

    /// The one principal that a certificate stands for; none if its names stand for several.
    fn principal_of(&self, certificate: &ClientCertificate) -> Option<&Arc<Caller>> {
        if !certificate.is_valid(self.tls.as_ref()) {
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

/// The caller with what policy conditions ask of the transport (`aws:SecureTransport`).
fn with_transport(caller: &Caller, over_tls: bool) -> Caller {
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

    fn principal(name: &str, unix_uid: Option<u32>) -> PrincipalSettings {
        let arn = format!("arn:aws:iam::111122223333:user/{name}");
        PrincipalSettings {
            unix_uid,
            ..PrincipalSettings::new(Caller::parse(&arn).unwrap())
        }
    }

    #[test]
    fn a_unix_uid_authenticates_its_principal_and_the_overflow_uid_does_not() {
        let principals = [
            principal("billing", Some(1000)),
            principal("root", Some(0)),
            principal("lost", Some(overflow_uid())),
            principal("elsewhere", None),
        ];
        let anonymous = Caller::parse("arn:aws:iam::111122223333:user/anybody").unwrap();
        let strict = Authenticator::new(None, &principals, None);
        let lax = Authenticator::new(None, &principals, Some(&anonymous));
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
            let found = |authenticator: &Authenticator| {
                authenticator
                    .caller(&peer)
                    .map(|caller| caller.arn().to_owned())
            };
            let known = name.map(arn).ok_or(AuthFailure::NoProof);
            assert_eq!(found(&strict), known, "{peer}");
            assert_eq!(found(&lax), Ok(arn(name.unwrap_or("anybody"))), "{peer}");
        }
    }
}
