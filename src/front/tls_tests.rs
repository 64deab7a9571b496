//! Certificates, and who they stand for: with an authority of the tests' own.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncWriteExt as _, duplex},
    sync::watch,
    time::{Instant, timeout},
};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{
    CertificateDns, CertificateUri, DeclaredPrincipal, Gate, TlsSettings,
    certificate::ClientCertificate, gate::Stranger, guest::Guest, handshake, peer::Peer,
    strangers::Strangers, tls::Tls,
};
use crate::model::Caller;

/// An authority with a folder for what it has signed.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let authority = Self {
            folder: TempDir::new().unwrap(),
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        };
        authority.write("clients.pem", &authority.issuer.pem());
        let server = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let signed = params.signed_by(&server, &authority.issuer).unwrap();
        authority.write("server.pem", &signed.pem());
        authority.write("server.key", &server.serialize_pem());
        authority
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A client's certificate with these names; those with a colon are URIs.
    fn client(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| {
                let text = (*name).try_into().unwrap();
                if name.contains(':') {
                    SanType::URI(text)
                } else {
                    SanType::DnsName(text)
                }
            })
            .collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().clone()
    }

    /// What a listener has that believes this authority, but for certificates with these serials.
    fn tls(&self, revoked: &[u64]) -> Tls {
        let list = CertificateRevocationListParams {
            this_update: (SystemTime::now() - DAY).into(),
            next_update: (SystemTime::now() + DAY).into(),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(|serial| revoke(*serial)).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap().pem().unwrap();
        let settings = TlsSettings {
            certificate: self.folder.path().join("server.pem"),
            key: self.folder.path().join("server.key"),
            client_ca: Some(self.folder.path().join("clients.pem")),
            client_crl: Some(self.write("clients.crl", &list)),
        };
        Tls::load(&settings, b"h2").unwrap()
    }
}

fn revoke(serial: u64) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: serial.into(),
        revocation_time: (SystemTime::now() - DAY).into(),
        reason_code: None,
        invalidity_date: None,
    }
}

fn arn(name: &str) -> String {
    format!("arn:aws:iam::111122223333:user/{name}")
}

fn principals() -> [DeclaredPrincipal; 3] {
    let uri = |text: &str| Some(CertificateUri::try_from(text.to_owned()).unwrap());
    let dns = |text: &str| Some(CertificateDns::try_from(text.to_owned()).unwrap());
    let one = |name: &str| DeclaredPrincipal::new(Caller::parse(&arn(name)).unwrap());
    [
        DeclaredPrincipal {
            certificate_uri: uri("spiffe://dc1/billing"),
            certificate_dns: dns("Billing.dc1.example"),
            ..one("billing")
        },
        DeclaredPrincipal {
            certificate_dns: dns("shop.dc1.example"),
            ..one("shop")
        },
        one("elsewhere"),
    ]
}

fn shows(certificate: &CertificateDer<'_>, tls: &Arc<Tls>) -> Peer {
    let chain = [certificate.clone()];
    let certificate = ClientCertificate::read(&chain, tls);
    Peer::Tls(([127, 0, 0, 1], 9).into(), Some(certificate))
}

#[test]
fn a_certificate_stands_for_the_one_principal_that_it_names() {
    let authority = Authority::new();
    let gate = Gate::new(Some(authority.tls(&[])), &principals(), None);
    let tls = gate.tls().unwrap();
    for (names, holder) in [
        (&["spiffe://dc1/billing"][..], Some("billing")),
        (&["BILLING.dc1.EXAMPLE"], Some("billing")),
        (&["other.example", "shop.dc1.example"], Some("shop")),
        (
            &["spiffe://dc1/billing", "billing.dc1.example"],
            Some("billing"),
        ),
        (&["spiffe://dc1/unknown", "shop.dc1.example"], Some("shop")),
        // Two principals, two URIs, letters that differ, no more than a part, nothing.
        (&["spiffe://dc1/billing", "shop.dc1.example"], None),
        (&["spiffe://dc1/billing", "spiffe://dc1/other"], None),
        (&["spiffe://dc1/Billing"], None),
        (&["spiffe://dc1/billing/x"], None),
        (&["dc1.example"], None),
        (&["*.dc1.example"], None),
        (&[], None),
    ] {
        let peer = shows(&authority.client(names, |_| {}), tls);
        let found = gate.caller(&peer);
        let found = found.map(|caller| (caller.arn().to_owned(), caller.is_over_tls()));
        let wanted = holder
            .map(|name| (arn(name), true))
            .ok_or(Stranger::Unrecognized);
        assert_eq!(found, wanted, "{names:?}");
    }
    for usages in [
        vec![],
        vec![ExtendedKeyUsagePurpose::ServerAuth],
        vec![ExtendedKeyUsagePurpose::Any],
    ] {
        let said = format!("{usages:?}");
        let other = authority.client(&["spiffe://dc1/billing"], |params| {
            params.extended_key_usages = usages;
        });
        assert_eq!(
            gate.caller(&shows(&other, tls)).unwrap_err(),
            Stranger::Unrecognized,
            "{said}"
        );
    }
    let nothing = Peer::Tls(([127, 0, 0, 1], 9).into(), None);
    assert_eq!(gate.caller(&nothing).unwrap_err(), Stranger::NoProof);
}

#[test]
fn a_certificate_s_end_is_the_end() {
    let authority = Authority::new();
    let gate = Gate::new(Some(authority.tls(&[])), &principals(), None);
    let ended = authority.client(&["spiffe://dc1/billing"], |params| {
        params.not_after = (SystemTime::now() - Duration::from_secs(5)).into();
    });
    let peer = shows(&ended, gate.tls().unwrap());
    assert_eq!(gate.caller(&peer).unwrap_err(), Stranger::Unrecognized);
    assert_eq!(peer.certificate().unwrap().remains(), Duration::ZERO);
}

#[tokio::test]
async fn every_connection_is_judged_again_when_who_may_come_in_changes() {
    let authority = Authority::new();
    let gate = |revoked: &[u64], principals: &[DeclaredPrincipal]| {
        Arc::new(Gate::new(Some(authority.tls(revoked)), principals, None))
    };
    let gates = watch::Sender::new(gate(&[], &principals()));
    let certificate = authority.client(&["spiffe://dc1/billing"], |params| {
        params.serial_number = Some(SerialNumber::from(77));
    });
    let peer = || shows(&certificate, gates.borrow().tls().unwrap());
    let strangers = Strangers::at_most(4);
    let enter = || Guest::new(peer(), gates.subscribe(), strangers.admit());

    for (revoked, remaining) in [(&[77][..], &principals()[..]), (&[], &principals()[1..])] {
        let guest = enter();
        assert!(guest.stay.is_proven());
        gates.send_replace(gate(&[76], &principals()));
        assert_eq!(guest.caller().unwrap().arn(), arn("billing"));
        let falls = guest.falls();
        tokio::pin!(falls);
        assert!(
            timeout(Duration::from_millis(20), &mut falls)
                .await
                .is_err()
        );

        gates.send_replace(gate(revoked, remaining));
        assert_eq!(guest.caller().unwrap_err(), Stranger::Unrecognized);
        timeout(LIMIT, falls).await.unwrap();
        // It was shown at the beginning; another authority's files are enough to doubt it.
        gates.send_replace(Arc::new(Gate::new(
            Some(Authority::new().tls(&[])),
            &principals(),
            None,
        )));
        assert_eq!(guest.caller().unwrap_err(), Stranger::Unrecognized);
        gates.send_replace(gate(&[], &principals()));
        assert_eq!(guest.caller().unwrap().arn(), arn("billing"));
    }

    // A stranger can become known, too.
    gates.send_replace(gate(&[], &[]));
    let guest = enter();
    assert_eq!(guest.caller().unwrap_err(), Stranger::Unrecognized);
    assert!(!guest.stay.is_proven());
    gates.send_replace(gate(&[], &principals()));
    assert_eq!(guest.caller().unwrap().arn(), arn("billing"));
    assert!(guest.stay.is_proven());
    assert_eq!(strangers.count(), 0);
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let authority = Authority::new();
    let gates = watch::Sender::new(Arc::new(Gate::new(
        Some(authority.tls(&[])),
        &principals(),
        None,
    )));
    let certificate = authority.client(&["spiffe://dc1/billing"], |params| {
        params.not_after = (SystemTime::now() + Duration::from_secs(2)).into();
    });
    let peer = shows(&certificate, gates.borrow().tls().unwrap());
    let guest = Guest::new(peer, gates.subscribe(), Strangers::at_most(1).admit());
    assert!(guest.caller().is_ok());
    timeout(LIMIT, guest.falls()).await.unwrap();
    assert_eq!(guest.caller().unwrap_err(), Stranger::Unrecognized);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_go_on_ends_after_five_seconds() {
    let tls = Arc::new(Authority::new().tls(&[]));
    for says in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let (mut client, server) = duplex(1 << 16);
        client.write_all(says).await.unwrap();
        let began = Instant::now();
        let fault = handshake::shake(server, &tls).await.unwrap_err();
        assert_eq!(fault.to_string(), "not done in 5s");
        assert_eq!(began.elapsed().as_secs(), 5);
    }
    let (mut client, server) = duplex(1 << 16);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(handshake::shake(server, &tls).await.is_err());
}

#[test]
fn what_ends_soon_is_told_with_its_setting() {
    let authority = Authority::new();
    assert!(authority.tls(&[]).warnings().is_empty());
    let server = KeyPair::generate().unwrap();
    for (from, to, said) in [
        (-DAYS_90, 80, None),
        (-DAYS_90, 13, Some("certificate: the certificate ends at ")),
        (-1, 1, None),
        (-9, 1, Some("certificate: the certificate ends at ")),
        (-9, -1, Some("certificate: the certificate ended at ")),
        (1, 9, Some("certificate: the certificate is good from ")),
    ] {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.not_before = at(from).into();
        params.not_after = at(to).into();
        let signed = params.signed_by(&server, &authority.issuer).unwrap();
        authority.write("server.pem", &signed.pem());
        authority.write("server.key", &server.serialize_pem());
        let warnings = authority.tls(&[]).warnings();
        let told: Vec<_> = warnings
            .iter()
            .map(|(setting, text)| format!("{setting}: {text}"))
            .collect();
        assert_eq!(told.len(), usize::from(said.is_some()), "{told:?}");
        assert!(
            said.is_none_or(|said| told[0].starts_with(said)),
            "{told:?}"
        );
    }
}

/// So many days from now.
fn at(days: i64) -> SystemTime {
    let span = DAY * u32::try_from(days.unsigned_abs()).unwrap();
    if days < 0 {
        SystemTime::now() - span
    } else {
        SystemTime::now() + span
    }
}

const DAY: Duration = Duration::from_hours(24);
const DAYS_90: i64 = 90;
const LIMIT: Duration = Duration::from_secs(30);
