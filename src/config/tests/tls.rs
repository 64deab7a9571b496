//! `[grpc.tls]`, `[aws.tls]`, and principals with certificates.

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A good configuration whose gRPC listener has TLS, with its files.
fn with_tls(lines: &str) -> Place {
    let text = GOOD.replace(
        "\n[token",
        &format!(
            "\n[grpc.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n{lines}\n[token"
        ),
    );
    let place = place(&text);
    place.certify("server");
    place.certify("clients");
    place
}

impl Place {
    /// Writes a certificate that signs itself, and its key.
    fn certify(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["kms.dc1.example".into()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }
}

#[test]
fn files_of_tls_are_looked_at() {
    let place = with_tls("client_ca = \"clients.pem\"\n");
    assert!(place.load(&[], &[]).is_ok(), "{:?}", place.faults(&[], &[]));

    let only = |place: &Place| {
        let found = place.faults(&[], &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    let key = fs::read_to_string(place.folder.path().join("server.key")).unwrap();
    let chain = fs::read_to_string(place.folder.path().join("server.pem")).unwrap();
    for (name, text, said) in [
        (
            "server.pem",
            "",
            "hsmac.toml:9: grpc.tls.certificate: server.pem holds no certificate in PEM",
        ),
        (
            "server.pem",
            &*key,
            "grpc.tls.certificate: server.pem holds no certificate in PEM",
        ),
        (
            "server.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "grpc.tls.certificate: server.pem holds something that is no X.509 certificate",
        ),
        (
            "server.pem",
            "-----BEGIN CERTIFICATE-----\n",
            "grpc.tls.certificate: server.pem is no PEM",
        ),
        (
            "server.key",
            "",
            "hsmac.toml:10: grpc.tls.key: server.key holds no private key in PEM that is not encrypted",
        ),
        (
            "server.key",
            &chain,
            "grpc.tls.key: server.key holds no private key in PEM that is not encrypted",
        ),
        (
            "clients.pem",
            &key,
            "hsmac.toml:11: grpc.tls.client_ca: clients.pem holds no certificate in PEM",
        ),
        (
            "clients.pem",
            &" ".repeat((16 << 20) + 1),
            "grpc.tls.client_ca: clients.pem has more than 16777216 bytes",
        ),
    ] {
        let path = place.folder.path().join(name);
        let good = fs::read_to_string(&path).unwrap();
        place.remove(name);
        place.write(name, text);
        let found = only(&place);
        assert!(found.contains(said), "{found}");
        place.remove(name);
        assert!(only(&place).contains("o such file"));
        place.write(name, &good);
    }

    place.remove("server.key");
    place.certify("other");
    fs::rename(
        place.folder.path().join("other.key"),
        place.folder.path().join("server.key"),
    )
    .unwrap();
    let found = only(&place);
    assert!(
        found.contains("grpc.tls.key: server.key does not fit server.pem"),
        "{found}"
    );
    place.remove("server.key");
    fs::create_dir(place.folder.path().join("server.key")).unwrap();
    assert!(only(&place).ends_with("server.key is not a regular file"));
}

#[test]
fn a_revocation_list_is_of_an_authority() {
    let place = with_tls("client_crl = \"clients.crl\"\n");
    place.write("clients.crl", "");
    let found = place.faults(&[], &[]);
    assert_eq!(
        found,
        [
            "hsmac.toml:8: grpc.tls.client_ca: required, but not set: client_crl is of no use without it"
        ]
    );
    let place = with_tls("client_ca = \"clients.pem\"\nclient_crl = \"clients.crl\"\n");
    for (text, said) in [
        ("", "clients.crl holds no revocation list in PEM"),
        (
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "clients.crl holds something that is no revocation list",
        ),
    ] {
        place.write("clients.crl", text);
        let found = place.faults(&[], &[]);
        assert!(found[0].ends_with(said), "{found:?}");
        place.remove("clients.crl");
    }
}

#[test]
fn others_reach_a_listener_by_tls_only() {
    let exposed = |place: &Place, sets: &[&str]| {
        let mut all = vec!["grpc.listen=0.0.0.0:50051"];
        all.extend(sets);
        place.faults(&all, &[])
    };
    let place = with_tls("");
    let found = exposed(&place, &[]);
    assert!(
        found[0].contains("grpc.anonymous: callers without proof are allowed on loopback"),
        "{found:?}"
    );
    assert!(
        found[1]
            .starts_with("--set grpc.listen: other machines reach this address: set [grpc.tls]"),
        "{found:?}"
    );

    let text = fs::read_to_string(&place.file).unwrap();
    let text = text.replace("anonymous = \"arn:aws:iam::111122223333:user/local\"\n", "")
        + "[[principal]]\narn = \"arn:aws:iam::111122223333:user/a\"\ncertificate_dns = \"a.example\"\n";
    fs::write(&place.file, &text).unwrap();
    let (settings, _) = place
        .load(
            &[
                "grpc.listen=0.0.0.0:50051",
                "grpc.tls.client_ca=clients.pem",
            ],
            &[],
        )
        .unwrap();
    assert_eq!(settings.listeners().len(), 1);
    let line = settings.listeners().remove(0);
    assert!(
        line.starts_with("grpc  0.0.0.0:50051, TLS as kms.dc1.example until 4096-01-01T00:00:00Z, client certificates of ")
            && line.ends_with("clients.pem"),
        "{line}"
    );
    // A certificate proves nothing where nobody asks for it.
    let found = place.faults(&[], &[]);
    assert!(
        found[0].contains("grpc.anonymous: required, but not set"),
        "{found:?}"
    );

    let found = place.faults(
        &[
            "grpc.listen=unix:/run/hsmac/grpc.sock",
            "grpc.tls.client_ca=clients.pem",
        ],
        &[],
    );
    assert!(
        found
            .iter()
            .any(|fault| fault.contains("grpc.tls: a Unix socket has no TLS")),
        "{found:?}"
    );

    let aws = GOOD.to_owned() + "[aws]\nlisten = \"0.0.0.0:8460\"\n" + BILLING;
    let found = faults(&aws);
    assert!(
        found[0].starts_with(
            "hsmac.toml:18: aws.listen: other machines reach this address: set [aws.tls]"
        ),
        "{found:?}"
    );
}

#[test]
fn a_certificate_is_of_one_principal_and_its_names_are_names() {
    let one = |name: &str, proof: &str| {
        format!("[[principal]]\narn = \"arn:aws:iam::111122223333:user/{name}\"\n{proof}\n")
    };
    for (proof, said) in [
        (
            "certificate_uri = \"spiffe://dc1/a\"",
            "certificate_uri: spiffe://dc1/a is of principal[0] already",
        ),
        (
            "certificate_dns = \"A.example\"",
            "certificate_dns: a.example is of principal[0] already",
        ),
    ] {
        let found = faults(&(GOOD.to_owned() + &one("a", proof) + &one("b", proof)));
        assert!(found[0].ends_with(said), "{found:?}");
        let (_, warnings) = place(&(GOOD.to_owned() + &one("a", proof)))
            .load(&[], &[])
            .unwrap();
        let warned = warnings
            .iter()
            .any(|it| it.to_string().contains("no listener asks for certificates"));
        assert!(warned, "{warnings:?}");
    }
    for (proof, said) in [
        ("certificate_uri = \"billing\"", "is no URI"),
        ("certificate_uri = \"spiffe:\"", "is no URI"),
        ("certificate_uri = \"spiffe://dc1/a b\"", "is no URI"),
        ("certificate_dns = \"*.example\"", "is no DNS name"),
        ("certificate_dns = \"a..example\"", "is no DNS name"),
        ("certificate_dns = \"\"", "is no DNS name"),
    ] {
        let found = faults(&(GOOD.to_owned() + &one("a", proof)));
        assert!(found[0].contains(said), "{proof}: {found:?}");
    }
}

#[test]
fn what_is_read_again_is_told_from_what_waits_for_a_start() {
    let place = with_tls("");
    let (serving, _) = place.load(&[], &[]).unwrap();
    let files = serving.reloadable_files();
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    assert_eq!(names, ["hsmac.toml", "server.pem", "server.key"]);

    let text = fs::read_to_string(&place.file).unwrap();
    let reloadable =
        text.clone() + "[[principal]]\narn = \"arn:aws:iam::111122223333:user/a\"\nunix_uid = 1\n";
    fs::write(&place.file, &reloadable).unwrap();
    let (new, _) = serving.again().unwrap();
    assert_eq!(new.principal.len(), 1);
    assert_eq!(new.later_than(&serving), [""; 0]);

    fs::write(
        &place.file,
        text.replace("us-west-2", "eu-west-1")
            .replace("payments\"]", "p\"]"),
    )
    .unwrap();
    let (new, _) = serving.again().unwrap();
    assert_eq!(new.later_than(&serving), ["region", "key"]);

    fs::write(&place.file, GOOD).unwrap();
    let faults = serving.again().unwrap_err().to_string();
    assert!(
        faults.contains("grpc.tls: a running listener neither begins nor ends to speak TLS"),
        "{faults}"
    );
}

/// Security: what loopback may have does not come to a listener that others reach, because the file
/// says by now that it is on loopback; and no listener is left behind with principals of before.
#[test]
fn a_running_listener_neither_moves_nor_is_forgotten() {
    let aws = "[aws]\nlisten = \"127.0.0.1:8460\"\n[[principal]]\n\
               arn = \"arn:aws:iam::111122223333:user/a\"\naccess_key_id = \"A\"\n\
               secret_access_key_file = \"secret\"\n";
    let place = place(&(GOOD.to_owned() + aws));
    place.write("secret", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let (serving, _) = place.load(&[], &[]).unwrap();
    let text = fs::read_to_string(&place.file).unwrap();
    for (from, to, said) in [
        (
            "127.0.0.1:50051",
            "127.0.0.1:50052",
            "grpc.listen: a running listener does not move",
        ),
        (
            "127.0.0.1:8460",
            "127.0.0.1:8461",
            "aws.listen: a running listener does not move",
        ),
        (aws, "", "aws: this listener runs"),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&place.file, text.replace(from, to)).unwrap();
        let faults = serving.again().unwrap_err().to_string();
        assert!(faults.contains(said), "{faults}");
    }
    fs::write(&place.file, text).unwrap();
    serving.again().unwrap();
}
