#![no_main]

use std::{
    fs,
    sync::{Arc, LazyLock},
};

use hsmac::front::{Tls, TlsSettings};

static TLS: LazyLock<Arc<Tls>> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("hsmac-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    fs::write(&certificate, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let settings = TlsSettings {
        // Clients are asked for certificates.
        client_ca: Some(certificate.clone()),
        certificate,
        key,
        client_crl: None,
    };
    let tls = Tls::load(&settings, b"h2").unwrap();
    fs::remove_dir_all(folder).unwrap();
    Arc::new(tls)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hsmac::front::fuzz::client_hello(&TLS, data);
});
