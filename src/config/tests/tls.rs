//! `[grpc.tls]`, `[aws.tls]`, and principals with certificates.

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::model::Caller;

/// A good configuration whose gRPC listener has TLS, with its files.
fn with_tls(lines: &str) -> ConfigFolder {
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

impl ConfigFolder {
    /// Writes a certificate that signs itself, and its key.
    fn certify(&self, name: &str) {
        self.certify_as(name, "kms.dc1.example");
    }

    fn certify_as(&self, name: &str, host: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.into()]).unwrap();
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
fn tls_files_are_checked() {
    let place = with_tls("client_ca = \"clients.pem\"\n");
    assert!(place.load(&[], &[]).is_ok(), "{:?}", place.faults(&[], &[]));

    let only = |place: &ConfigFolder| {
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
fn a_listener_that_other_machines_reach_needs_tls() {
    let exposed = |place: &ConfigFolder, sets: &[&str]| {
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
    let mut lines = settings.listeners(&settings.read_files().files);
    assert_eq!(lines.len(), 1);
    let line = lines.remove(0);
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

fn again(serving: &Settings) -> Reloaded {
    serving.reload(serving, &LoadedFiles::default())
}

/// What is broken; the settings of before stay.
fn faults_again(serving: &Settings) -> String {
    let reloaded = again(serving);
    assert_eq!(reloaded.settings.grpc, serving.grpc);
    let faults: Vec<_> = reloaded.faults.iter().map(ToString::to_string).collect();
    faults.join("; ")
}

#[test]
fn reload_tells_which_settings_need_a_restart() {
    let place = with_tls("");
    let (serving, _) = place.load(&[], &[]).unwrap();
    let files = serving.reloadable_files();
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    assert_eq!(names, ["hsmac.toml", "server.pem", "server.key"]);

    let text = fs::read_to_string(&place.file).unwrap();
    let reloadable =
        text.clone() + "[[principal]]\narn = \"arn:aws:iam::111122223333:user/a\"\nunix_uid = 1\n";
    fs::write(&place.file, &reloadable).unwrap();
    let reloaded = again(&serving);
    assert_eq!(reloaded.faults, []);
    let new = reloaded.settings;
    assert_eq!(new.principal.len(), 1);
    assert_eq!(new.needing_restart(&serving), [""; 0]);

    fs::write(
        &place.file,
        text.replace("us-west-2", "eu-west-1")
            .replace("payments\"]", "p\"]"),
    )
    .unwrap();
    let reloaded = again(&serving);
    assert_eq!(reloaded.faults, []);
    let new = reloaded.settings;
    assert_eq!(new.needing_restart(&serving), ["region"]);
    assert_eq!(new.key[0].aliases, ["alias/p"]);

    fs::write(&place.file, GOOD).unwrap();
    let faults = faults_again(&serving);
    assert!(
        faults.contains("grpc.tls: a running listener neither begins nor ends to speak TLS"),
        "{faults}"
    );
}

#[test]
fn what_needs_a_restart_is_named_setting_by_setting() {
    let place = place(GOOD);
    let (serving, _) = place.load(&[], &[]).unwrap();
    let text = fs::read_to_string(&place.file).unwrap();
    let pending = |edit: &dyn Fn(&str) -> String| {
        fs::write(&place.file, edit(&text)).unwrap();
        let reloaded = again(&serving);
        assert_eq!(reloaded.faults, []);
        reloaded.settings.needing_restart(&serving)
    };
    let inside = |table: &str, line: &str| {
        let (table, line) = (table.to_owned(), line.to_owned());
        move |text: &str| text.replace(&table, &format!("{table}\n{line}"))
    };
    let top = |text: &str| "drain_timeout = \"7s\"\n".to_owned() + text;
    assert_eq!(
        pending(&|text| top(text) + "[store.sqlite]\npath = \"c.db\"\n"),
        ["drain_timeout", "store"]
    );
    let grpc = inside("[grpc]", "max_connections = 77\nreflection = true");
    assert_eq!(pending(&grpc), ["grpc.max_connections", "grpc.reflection"]);
    // What is written out and is the default is no change; what a reload takes over neither.
    let grpc = inside("[grpc]", "max_streams = 256");
    let usual = serving.grpc.max_streams;
    let written = move |text: &str| grpc(text).replace("256", &usual.to_string());
    assert_eq!(
        pending(&|text| written(text) + "[log]\nlevel = \"debug\"\n"),
        [""; 0]
    );
    // Tokens come, change and go.
    let primary = inside("[token.primary]", "hosts = 3\nsessions = 7");
    let second = |text: &str| primary(text).replace("[token.primary]", "[token.second]");
    assert_eq!(pending(&primary), [""; 0]);
    assert_eq!(pending(&second), [""; 0]);
}

/// Security: what loopback may have does not come to a listener that others reach, because the file
/// says by now that it is on loopback; and no listener is left behind with principals of before.
#[test]
fn reload_refuses_to_move_or_remove_a_listener() {
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
        let faults = faults_again(&serving);
        assert!(faults.contains(said), "{faults}");
    }
    fs::write(&place.file, text).unwrap();
    assert_eq!(again(&serving).faults, []);
}

#[test]
fn a_key_that_others_can_read_by_now_stays_as_it_was() {
    let place = with_tls("");
    let loaded = Settings::load(&place.file, &[], std::iter::empty()).unwrap();
    place.remove("server.pem");
    place.remove("server.key");
    place.certify_as("server", "other.example");
    for name in ["server.key", "pin"] {
        let path = place.folder.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let reloaded = loaded.settings.reload(&loaded.settings, &loaded.files);
    let faults: Vec<_> = reloaded.faults.iter().map(ToString::to_string).collect();
    let [pin, key] = &faults[..] else {
        panic!("{faults:?}");
    };
    assert!(pin.contains("pin_file: "), "{pin}");
    assert!(
        key.contains("can read or write the private key; run chmod 0400"),
        "{key}"
    );
    let tls = reloaded.files.grpc_tls.unwrap();
    assert_eq!(tls.names(), ["kms.dc1.example"]);
}

/// What is broken stays, and keeps nothing else from taking effect.
#[test]
fn each_file_takes_effect_by_itself() {
    let allow = r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#;
    let deny = r#"{"Statement":{"Effect":"Deny","Action":"kms:*","Resource":"*"}}"#;
    let one = |name: &str| {
        format!(
            "[[principal]]\narn = \"arn:aws:iam::111122223333:user/{name}\"\n\
             unix_uid = 1{}\npolicy_file = \"{name}.json\"\n",
            name.len()
        )
    };
    let place = with_tls("");
    let text = fs::read_to_string(&place.file).unwrap();
    fs::write(
        &place.file,
        text.clone() + &one("a") + &one("bb") + &one("ccc"),
    )
    .unwrap();
    for name in ["a.json", "bb.json", "ccc.json"] {
        place.write(name, allow);
    }
    let sources =
        |place: &ConfigFolder| Settings::load(&place.file, &[], std::iter::empty()).unwrap();
    let loaded = sources(&place);
    let serving = loaded.settings;

    // A tighter policy, beside another that is broken, a certificate that is, and a PIN that is away.
    place.write("a.json", deny);
    place.write("bb.json", "{");
    place.write("server.pem", "");
    let _ = fs::remove_file(place.file.with_file_name("pin"));
    fs::write(&place.file, text + &one("a") + &one("bb")).unwrap();
    let reloaded = serving.reload(&serving, &loaded.files);
    let faults: Vec<_> = reloaded.faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults.iter().any(|it| it.contains("server.pem")),
        "{faults:?}"
    );
    assert!(faults.iter().any(|it| it.contains("bb.json")), "{faults:?}");
    assert_eq!(reloaded.settings.principal.len(), 2);
    let caller =
        |name: &str| Caller::parse(&format!("arn:aws:iam::111122223333:user/{name}")).unwrap();
    let of = |name: &str, files: &LoadedFiles| {
        let file = place.file.with_file_name(format!("{name}.json"));
        let found = files.rights.policies_of(&caller(name), &file);
        found.map(|found| format!("{:?}", found.policies))
    };
    let (old, new) = (&loaded.files, &reloaded.files);
    assert_ne!(of("a", new).unwrap(), of("a", old).unwrap());
    assert_eq!(of("bb", new).unwrap(), of("bb", old).unwrap());
    assert_eq!(of("ccc", new), None);
    assert!(new.grpc_tls.is_some());

    // The configuration itself: the files that it named are read all the same.
    place.write("a.json", allow);
    fs::write(&place.file, "account = 7\n").unwrap();
    let again = serving.reload(&reloaded.settings, new);
    assert!(again.faults.len() > 1, "{:?}", again.faults);
    assert_eq!(again.settings.principal.len(), 2);
    assert_eq!(of("a", &again.files), of("a", old));
}
