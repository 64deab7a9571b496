//! The command line over TLS, against the real server.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::support::{
    CALLER, KEY_ID, Output, Token,
    pki::{Authority, Pair, client},
    tls::{Place, Running, principal},
};

/// Only over TLS.
const SECURE: &str = r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*",
    "Condition":{"Bool":{"aws:SecureTransport":"true"}}}}"#;

fn config(place: &Place, more: &str) -> String {
    place.write("secure.json", SECURE);
    let key = "[[key]]\nkey_id = \"1234abcd-12ab-34cd-56ef-1234567890ab\"\nobject = \"pkcs11:object=mac\"\n\
               key_spec = \"HMAC_256\"\naliases = [\"alias/test\"]\n";
    let principals = principal(CALLER, "local", Some("secure.json"));
    place.config("client_crl = \"clients.crl\"\n", &(principals + key + more))
}

fn put(place: &Place, name: &str, pair: &Pair) {
    place.write(&format!("{name}.pem"), &pair.certificate);
    place.write(&format!("{name}.key"), &pair.key);
}

/// `hsmac` with the flags of TLS.
fn over_tls(running: &Running<'_>, place: &Place, shown: &str, words: &[&str]) -> Output {
    let endpoint = format!("https://{}", running.address);
    let (certificate, key) = (format!("{shown}.pem"), format!("{shown}.key"));
    let mut arguments = words.to_vec();
    arguments.extend(["--endpoint", &endpoint, "--ca-bundle", "servers.pem"]);
    if !shown.is_empty() {
        arguments.extend(["--certificate", &certificate, "--key", &key]);
    }
    place.token.hsmac(&arguments)
}

#[tokio::test]
async fn the_command_line_shows_its_certificate_and_is_told_what_is_wrong_with_it() {
    let place = Place::new(Token::with_key());
    place.write("servers.pem", &place.servers.pem());
    place.write("clients.crl", &place.clients.crl(&[7]));
    let local = || client().dns("local");
    put(&place, "good", &local().signed_by(&place.clients));
    put(
        &place,
        "nobody",
        &client().dns("nobody").signed_by(&place.clients),
    );
    put(
        &place,
        "revoked",
        &local().serial(7).signed_by(&place.clients),
    );
    put(
        &place,
        "expired",
        &local().until(2025).signed_by(&place.clients),
    );
    put(
        &place,
        "foreign",
        &local().signed_by(&Authority::new("foreign")),
    );
    let running = place.serve(&config(&place, "")).await;
    let kms = |shown: &str| {
        let words = ["kms", "describe-key", "--key-id", "alias/test"];
        over_tls(&running, &place, shown, &words)
    };

    let described = kms("good");
    assert!(described.status.success(), "{described:?}");
    assert!(described.stdout.contains(KEY_ID), "{described:?}");
    for (shown, code, says) in [
        ("", 254, "(MissingAuthenticationTokenException)"),
        ("nobody", 254, "(UnrecognizedClientException)"),
        (
            "revoked",
            255,
            "this client's certificate: CertificateRevoked",
        ),
        (
            "expired",
            255,
            "this client's certificate: CertificateExpired",
        ),
        ("foreign", 255, "this client's certificate: UnknownCA"),
    ] {
        let refused = kms(shown);
        assert_eq!(refused.status.code(), Some(code), "{shown}: {refused:?}");
        assert!(refused.stderr.contains(says), "{shown}: {refused:?}");
    }
    let plain = format!("http://{}", running.address);
    let refused = place
        .token
        .hsmac(&["kms", "list-keys", "--endpoint", &plain]);
    assert_eq!(refused.status.code(), Some(255), "{refused:?}");
    let says = "the server speaks TLS; write https:// for http://";
    assert!(refused.stderr.contains(says), "{refused:?}");

    let short = ["--warmup", "50ms", "--duration", "300ms", "--json"];
    let bench = |shown: &str| {
        let words = ["bench", "grpc", "--key-id", KEY_ID, "--connections", "2"];
        over_tls(&running, &place, shown, &[&words[..], &short].concat())
    };
    let measured = bench("good");
    assert!(measured.status.success(), "{measured:?}");
    let report: serde_json::Value = serde_json::from_str(&measured.stdout).unwrap();
    assert!(report["calls"].as_u64().unwrap() > 10, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}));
    let refused = bench("revoked");
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(refused.stderr.contains("CertificateRevoked"), "{refused:?}");
}

#[tokio::test]
async fn the_bench_of_aws_s_wire_signs_over_tls() {
    let place = Place::new(Token::with_key());
    place.write("servers.pem", &place.servers.pem());
    place.write("clients.crl", &place.clients.crl(&[]));
    let secret = place.token.path("secret");
    fs::write(&secret, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o400)).unwrap();
    let aws = format!(
        "[aws]\nlisten = \"127.0.0.1:0\"\n[aws.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\
         [[principal]]\narn = \"{CALLER}\"\naccess_key_id = \"AKIDEXAMPLE\"\n\
         secret_access_key_file = \"secret\"\n"
    );
    let mut running = place.serve(&config(&place, &aws)).await;
    let words = "listening for AWS's clients";
    running.server.until_log(words).await;
    let address = running.server.field(words, "address");
    let bench = |scheme: &str| {
        let endpoint = format!("{scheme}://{address}");
        let mut words = vec!["bench", "aws", "--key-id", KEY_ID, "--connections", "2"];
        words.extend(["--region", "us-west-2", "--access-key-id", "AKIDEXAMPLE"]);
        words.extend(["--secret-access-key-file", "secret", "--json"]);
        words.extend(["--warmup", "50ms", "--duration", "300ms"]);
        words.extend(["--endpoint", &endpoint]);
        if scheme == "https" {
            words.extend(["--ca-bundle", "servers.pem"]);
        }
        place.token.hsmac(&words)
    };
    // The caller's policy wants TLS for a signature too.
    let measured = bench("https");
    assert!(measured.status.success(), "{measured:?}");
    let report: serde_json::Value = serde_json::from_str(&measured.stdout).unwrap();
    assert!(report["calls"].as_u64().unwrap() > 10, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}));
    let refused = bench("http");
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(
        refused.stderr.contains("the server speaks TLS"),
        "{refused:?}"
    );
}
