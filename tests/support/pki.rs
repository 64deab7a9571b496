//! Certificate authorities of the tests' own, and what they sign: for servers, for clients, and
//! wrong in each way that a certificate can be wrong.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each user of this file has its part"
)]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// An authority: a root, or one that a root has signed.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// What its certificates are sent with: nothing for a root.
    between: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(authority(name), key).unwrap(),
            between: String::new(),
        }
    }

    /// An authority below this one; what it signs comes with its own certificate.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(authority(name), key, &self.issuer).unwrap();
        let between = issuer.pem() + &self.between;
        Self { issuer, between }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate, for 127.0.0.1 and localhost.
    pub fn server(&self) -> Pair {
        let here = SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Wanted::new(ExtendedKeyUsagePurpose::ServerAuth)
            .name(here)
            .dns("localhost")
            .signed_by(self)
    }

    /// Its revocations: the certificates with these serial numbers. Good until 2100.
    pub fn crl(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A certificate, with what comes between it and its root, and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Pair {
    fn new(certificate: &Certificate, between: &str, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.pem() + between,
            key: key.serialize_pem(),
        }
    }
}

/// A client's certificate, to be signed.
pub fn client() -> Wanted {
    Wanted::new(ExtendedKeyUsagePurpose::ClientAuth)
}

/// What shall stand in a certificate.
pub struct Wanted(CertificateParams);

impl Wanted {
    fn new(usage: ExtendedKeyUsagePurpose) -> Self {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params.use_authority_key_identifier_extension = true;
        Self(params)
    }

    pub fn uri(self, uri: &str) -> Self {
        self.name(SanType::URI(uri.try_into().unwrap()))
    }

    pub fn dns(self, name: &str) -> Self {
        self.name(SanType::DnsName(name.try_into().unwrap()))
    }

    fn name(mut self, name: SanType) -> Self {
        self.0.subject_alt_names.push(name);
        self
    }

    /// Without a word on what it may be used for.
    pub fn for_anything(mut self) -> Self {
        self.0.extended_key_usages.clear();
        self
    }

    pub fn for_servers(mut self) -> Self {
        self.0.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self
    }

    /// Good from this year on.
    pub fn from(mut self, year: i32) -> Self {
        self.0.not_before = date_time_ymd(year, 1, 1);
        self
    }

    /// Good until this year.
    pub fn until(mut self, year: i32) -> Self {
        self.0.not_after = date_time_ymd(year, 1, 1);
        self
    }

    /// Good for so long from now; whole seconds count.
    pub fn lasting(mut self, time: Duration) -> Self {
        let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap();
        self.0.not_after = date_time_ymd(1970, 1, 1) + since_1970 + time;
        self
    }

    pub fn serial(mut self, serial: u64) -> Self {
        self.0.serial_number = Some(SerialNumber::from(serial));
        self
    }

    pub fn signed_by(self, authority: &Authority) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = self.0.signed_by(&key, &authority.issuer).unwrap();
        Pair::new(&certificate, &authority.between, &key)
    }

    pub fn self_signed(self) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair::new(&self.0.self_signed(&key).unwrap(), "", &key)
    }
}
