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
    access::{Access, AccessWatch},
    authenticator::Authenticator,
    certificate::ClientCertificate,
    connection::ClientConnection,
    failure::AuthFailure,
    peer::Peer,
    pre_auth::PreAuthConnections,
};
use crate::{
    error::{Error, Kind},
    front::{
        listener::handshake,
        settings::{CertificateDns, CertificateUri, PrincipalSettings, TlsSettings},
        tls::Tls,
    },
    model::Caller,
};

/// An authority with a folder for what it has signed.
pub(in crate::front) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(in crate::front) fn new() -> Self {
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
    pub(in crate::front) fn tls(&self, revoked: &[u64]) -> Arc<Tls> {
        let list = CertificateRevocationListParams {
            this_update: (SystemTime::now() - DAY).into(),
            next_update: (SystemTime::now() + DAY).into(),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(|serial| revoke(*serial)).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap().pem().unwrap();
        self.write("clients.crl", &list);
        let settings = self.settings();
        Arc::new(Tls::load(&settings, b"h2").unwrap())
    }
}

impl Authority {
    fn settings(&self) -> TlsSettings {
        let path = |name: &str| self.folder.path().join(name);
        TlsSettings {
            certificate: path("server.pem"),
            key: path("server.key"),
            client_ca: Some(path("clients.pem")),
            client_crl: Some(path("clients.crl")),
        }
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

fn principals() -> [PrincipalSettings; 3] {
    let uri = |text: &str| Some(CertificateUri::try_from(text.to_owned()).unwrap());
    let dns = |text: &str| Some(CertificateDns::try_from(text.to_owned()).unwrap());
    let one = |name: &str| PrincipalSettings::new(Caller::parse(&arn(name)).unwrap());
    [
        PrincipalSettings {
            certificate_uri: uri("spiffe://dc1/billing"),
            certificate_dns: dns("Billing.dc1.example"),
            ..one("billing")
        },
        PrincipalSettings {
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
    let authenticator = Authenticator::new(Some(authority.tls(&[])), &principals(), None);
    let tls = authenticator.tls().unwrap();
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
        let found = authenticator.caller(&peer);
        let found = found.map(|caller| (caller.arn().to_owned(), caller.origin().is_secure));
        let wanted = holder
            .map(|name| (arn(name), true))
            .ok_or(AuthFailure::Unrecognized);
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
            authenticator.caller(&shows(&other, tls)).unwrap_err(),
            AuthFailure::Unrecognized,
            "{said}"
        );
    }
    let nothing = Peer::Tls(([127, 0, 0, 1], 9).into(), None);
    assert_eq!(
        authenticator.caller(&nothing).unwrap_err(),
        AuthFailure::NoProof
    );
}

#[test]
fn a_certificate_s_end_is_the_end() {
    let authority = Authority::new();
    let authenticator = Authenticator::new(Some(authority.tls(&[])), &principals(), None);
    let ended = authority.client(&["spiffe://dc1/billing"], |params| {
        params.not_after = (SystemTime::now() - Duration::from_secs(5)).into();
    });
    let peer = shows(&ended, authenticator.tls().unwrap());
    let failure = authenticator.caller(&peer).unwrap_err();
    assert!(matches!(failure, AuthFailure::Expired(_)));
    let told = Error::from(failure);
    assert_eq!(told.kind(), Kind::UnrecognizedClient);
    assert!(
        told.say()
            .starts_with("The caller's certificate ended at 20")
    );
    assert_eq!(peer.certificate().unwrap().time_left(), Duration::ZERO);
}

fn of_grpc(grpc: Authenticator) -> Arc<Access> {
    Arc::new(Access {
        grpc,
        ..Access::default()
    })
}

fn watched(access: &watch::Sender<Arc<Access>>) -> AccessWatch {
    AccessWatch::new(access.subscribe(), |access| &access.grpc)
}

#[tokio::test]
async fn every_connection_is_judged_again_when_who_may_come_in_changes() {
    let authority = Authority::new();
    let authenticator = |revoked: &[u64], principals: &[PrincipalSettings]| {
        of_grpc(Authenticator::new(
            Some(authority.tls(revoked)),
            principals,
            None,
        ))
    };
    let authenticators = watch::Sender::new(authenticator(&[], &principals()));
    let certificate = authority.client(&["spiffe://dc1/billing"], |params| {
        params.serial_number = Some(SerialNumber::from(77));
    });
    let peer = || shows(&certificate, authenticators.borrow().grpc.tls().unwrap());
    let pre_auth = PreAuthConnections::at_most("grpc", 4);
    let enter = || {
        let peer = peer();
        let slot = pre_auth.admit(&peer);
        ClientConnection::new(peer, watched(&authenticators), slot)
    };

    for (revoked, remaining) in [(&[77][..], &principals()[..]), (&[], &principals()[1..])] {
        let connection = enter();
        assert!(connection.slot.is_authenticated());
        authenticators.send_replace(authenticator(&[76], &principals()));
        assert_eq!(connection.caller().unwrap().arn(), arn("billing"));
        let identity_revoked = connection.identity_revoked();
        tokio::pin!(identity_revoked);
        assert!(
            timeout(Duration::from_millis(20), &mut identity_revoked)
                .await
                .is_err()
        );

        authenticators.send_replace(authenticator(revoked, remaining));
        assert_eq!(connection.caller().unwrap_err(), AuthFailure::Unrecognized);
        timeout(LIMIT, identity_revoked).await.unwrap();
        // It was shown at the beginning; another authority's files are enough to doubt it.
        authenticators.send_replace(of_grpc(Authenticator::new(
            Some(Authority::new().tls(&[])),
            &principals(),
            None,
        )));
        assert_eq!(connection.caller().unwrap_err(), AuthFailure::Unrecognized);
        authenticators.send_replace(authenticator(&[], &principals()));
        assert_eq!(connection.caller().unwrap().arn(), arn("billing"));
    }

    // An unknown caller can become known, too.
    authenticators.send_replace(authenticator(&[], &[]));
    let connection = enter();
    assert_eq!(connection.caller().unwrap_err(), AuthFailure::Unrecognized);
    assert!(!connection.slot.is_authenticated());
    authenticators.send_replace(authenticator(&[], &principals()));
    assert_eq!(connection.caller().unwrap().arn(), arn("billing"));
    assert!(connection.slot.is_authenticated());
    assert_eq!(pre_auth.count(), 0);

    // Who became known at one reload and falls at the next is closed.
    authenticators.send_replace(authenticator(&[], &[]));
    let connection = enter();
    let identity_revoked = connection.identity_revoked();
    tokio::pin!(identity_revoked);
    let moment = Duration::from_millis(20);
    assert!(timeout(moment, &mut identity_revoked).await.is_err());
    authenticators.send_replace(authenticator(&[], &principals()));
    assert!(timeout(moment, &mut identity_revoked).await.is_err());
    authenticators.send_replace(authenticator(&[], &[]));
    timeout(LIMIT, identity_revoked).await.unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let authority = Authority::new();
    let authenticators = watch::Sender::new(of_grpc(Authenticator::new(
        Some(authority.tls(&[])),
        &principals(),
        None,
    )));
    let certificate = authority.client(&["spiffe://dc1/billing"], |params| {
        params.not_after = (SystemTime::now() + Duration::from_secs(2)).into();
    });
    let peer = shows(&certificate, authenticators.borrow().grpc.tls().unwrap());
    let slot = PreAuthConnections::at_most("grpc", 1).admit(&peer);
    let connection = ClientConnection::new(peer, watched(&authenticators), slot);
    assert!(connection.caller().is_ok());
    timeout(LIMIT, connection.identity_revoked()).await.unwrap();
    let failure = connection.caller().unwrap_err();
    assert!(matches!(failure, AuthFailure::Expired(_)));
}

#[test]
fn a_certificate_that_is_unknown_or_withdrawn_is_never_the_anonymous_principal() {
    let authority = Authority::new();
    let anonymous = Caller::parse(&arn("anonymous")).unwrap();
    let authenticator = |revoked: &[u64]| {
        Authenticator::new(
            Some(authority.tls(revoked)),
            &principals(),
            Some(&anonymous),
        )
    };
    let billing = authority.client(&["spiffe://dc1/billing"], |params| {
        params.serial_number = Some(SerialNumber::from(77));
    });
    let nobody = authority.client(&["spiffe://dc1/nobody"], |_| {});
    let first = authenticator(&[]);
    let tls = first.tls().unwrap();
    let nothing = Peer::Tls(([127, 0, 0, 1], 9).into(), None);
    assert_eq!(first.caller(&nothing).unwrap().arn(), anonymous.arn());
    assert_eq!(
        first.caller(&shows(&billing, tls)).unwrap().arn(),
        arn("billing")
    );
    let unknown = first.caller(&shows(&nobody, tls)).unwrap_err();
    assert_eq!(unknown, AuthFailure::Unrecognized);
    let withdrawn = authenticator(&[77])
        .caller(&shows(&billing, tls))
        .unwrap_err();
    assert_eq!(withdrawn, AuthFailure::Unrecognized);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_go_on_ends_after_five_seconds() {
    let tls = Authority::new().tls(&[]);
    for says in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let (mut client, server) = duplex(1 << 16);
        client.write_all(says).await.unwrap();
        let began = Instant::now();
        let fault = handshake::accept_tls(server, &tls).await.unwrap_err();
        assert_eq!(fault.error.to_string(), "not done in 5s");
        assert_eq!(began.elapsed().as_secs(), 5);
    }
    let (mut client, server) = duplex(1 << 16);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(handshake::accept_tls(server, &tls).await.is_err());
}

#[test]
fn a_revocation_takes_effect_although_another_file_is_broken() {
    let authority = Authority::new();
    let first = authority.tls(&[]);
    let billing = authority.client(&["spiffe://dc1/billing"], |params| {
        params.serial_number = Some(SerialNumber::from(77));
    });
    let chain = [billing.clone()];
    assert!(first.verifies_chain(&chain));
    // Writes a list with the certificate in it.
    authority.tls(&[77]);
    let settings = authority.settings();
    let (good, good_list) = ("server.pem", "clients.crl");
    let pem = fs::read_to_string(authority.folder.path().join(good)).unwrap();
    for (name, text, setting) in [
        ("server.pem", "", "certificate"),
        ("server.key", "no key", "key"),
        ("clients.pem", "no authority", "client_ca"),
    ] {
        let kept = fs::read_to_string(authority.folder.path().join(name)).unwrap();
        authority.write(name, text);
        let (tls, faults) = Tls::reload(&settings, b"h2", &first);
        let broken: Vec<_> = faults.iter().map(|fault| fault.setting).collect();
        assert_eq!(broken, [setting]);
        assert!(!tls.verifies_chain(&chain), "{name}");
        assert_eq!(tls.names(), first.names());
        authority.write(name, &kept);
    }
    // A list that is broken stays, and another certificate is used.
    let (second, _) = Tls::reload(&settings, b"h2", &first);
    authority.write(good_list, "no list");
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["other".into()]).unwrap();
    let signed = params.signed_by(&key, &authority.issuer).unwrap();
    authority.write("server.pem", &signed.pem());
    authority.write("server.key", &key.serialize_pem());
    let (third, faults) = Tls::reload(&settings, b"h2", &second);
    assert_eq!(faults.len(), 1);
    assert_eq!(third.names(), ["other"]);
    assert!(!third.verifies_chain(&chain));
    // Its key that others can read is not: whom to trust is read all the same.
    authority.write(good, &pem);
    let (fourth, _) = Tls::reload_clients(&settings, b"h2", &third);
    assert_eq!(fourth.names(), ["other"]);
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
