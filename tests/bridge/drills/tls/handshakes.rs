use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::rustls::{
    self, AlertDescription,
    version::{TLS12, TLS13},
};
use tonic::Code;

use super::*;
use crate::support::{assert_status, pki::Authority};

/// Security: what is wrong with a certificate itself ends the handshake, and the alert says what.
#[tokio::test]
async fn a_bad_certificate_ends_the_handshake_with_an_alert() {
    let place = place();
    let deep = place.clients.below("clients of this year");
    let unlisted = place.clients.below("clients of last year");
    let other = Authority::new("clients");
    let billing = || client().dns("billing");
    let revoked = billing().serial(7).signed_by(&place.clients);
    let revoked_below = billing().serial(8).signed_by(&deep);
    place.write(
        "clients.crl",
        &(place.clients.crl(&[6, 7]) + &deep.crl(&[8])),
    );
    let config = config(&place, "client_crl = \"clients.crl\"\n");
    let running = place.serve(&config).await;
    let steady = Steady::start(&place, &running).await;

    let good = [
        shown(&place, "billing"),
        billing().signed_by(&deep),
        billing().serial(9).signed_by(&place.clients),
    ];
    let bad = [
        (
            "expired",
            billing().until(2025).signed_by(&place.clients),
            AlertDescription::CertificateExpired,
        ),
        (
            "not yet valid",
            billing().from(2099).signed_by(&place.clients),
            AlertDescription::CertificateExpired,
        ),
        ("revoked", revoked, AlertDescription::CertificateRevoked),
        (
            "revoked below",
            revoked_below,
            AlertDescription::CertificateRevoked,
        ),
        (
            "of an authority without a revocation list",
            billing().signed_by(&unlisted),
            AlertDescription::UnknownCA,
        ),
        (
            "of another authority of the same name",
            billing().signed_by(&other),
            AlertDescription::DecryptError,
        ),
        (
            "of another authority",
            billing().signed_by(&Authority::new("other")),
            AlertDescription::UnknownCA,
        ),
        (
            "self-signed",
            billing().self_signed(),
            AlertDescription::UnknownCA,
        ),
        (
            "for servers",
            billing().for_servers().signed_by(&place.clients),
            AlertDescription::UnsupportedCertificate,
        ),
    ];
    for version in [&TLS12, &TLS13] {
        for pair in &good {
            let client = running.client_of(Some(pair), &[version]);
            client.greet().await.unwrap();
            client
                .mac()
                .await
                .generate_mac(request(b"x"))
                .await
                .unwrap();
        }
        for (what, pair, alert) in &bad {
            let client = running.client_of(Some(pair), &[version]);
            let told = client.greet().await.unwrap_err();
            println!("{:?}: {what}: {told:?}", version.version);
            assert_eq!(told, rustls::Error::AlertReceived(*alert), "{what}");
        }
    }
    // Nobody fills the log with it.
    assert_eq!(logged(&running, "TLS handshakes failed"), 1);
    steady.end("bad client certificates", &[], &running).await;
}

/// Security: who shows nothing, or what is nobody's, is told so by each call.
#[tokio::test]
async fn who_is_nobody_s_certificate_may_connect_and_do_nothing() {
    let place = place();
    let by_uri = |name: &str, uri: &str| {
        format!(
            "[[principal]]\narn = \"arn:aws:iam::111122223333:user/{name}\"\n\
             certificate_uri = \"{uri}\"\npolicy_file = \"caller.json\"\n"
        )
    };
    let principals = principal(BILLING, "billing.dc1.example", Some("caller.json"))
        + &by_uri("ledger", "spiffe://dc1/ledger")
        + &by_uri("shop", "spiffe://dc1/shop");
    let running = place.serve(&config_with(&place, "", &principals)).await;
    let steady = Steady::start(&place, &running).await;
    let ask = async |shown: Option<&Pair>| {
        let mut macs = running.client(shown).mac().await;
        macs.generate_mac(request(b"x")).await
    };

    for (what, good) in [
        ("a DNS name", client().dns("billing.dc1.example")),
        ("in capitals", client().dns("Billing.DC1.example")),
        (
            "one of several",
            client().dns("x.example").dns("billing.dc1.example"),
        ),
        ("a URI", client().uri("spiffe://dc1/ledger")),
        (
            "a URI and a name of nobody",
            client().uri("spiffe://dc1/ledger").dns("x.example"),
        ),
    ] {
        let answer = ask(Some(&good.signed_by(&place.clients))).await;
        answer.unwrap_or_else(|status| panic!("{what}: {status:?}"));
    }
    for (what, nobody) in [
        ("no name", client()),
        ("another name", client().dns("dc1.example")),
        ("a name below", client().dns("x.billing.dc1.example")),
        ("a wildcard", client().dns("*.dc1.example")),
        ("a URI's capitals", client().uri("spiffe://DC1/ledger")),
        ("a longer URI", client().uri("spiffe://dc1/ledger/x")),
        ("a name as URI", client().uri("billing.dc1.example")),
        (
            "several URIs",
            client().uri("spiffe://dc1/ledger").uri("spiffe://dc1/x"),
        ),
        (
            "the same URI twice",
            client()
                .uri("spiffe://dc1/ledger")
                .uri("spiffe://dc1/ledger"),
        ),
        (
            "names of two principals",
            client()
                .uri("spiffe://dc1/ledger")
                .dns("billing.dc1.example"),
        ),
        (
            "no word on its use",
            client().dns("billing.dc1.example").for_anything(),
        ),
    ] {
        let status = ask(Some(&nobody.signed_by(&place.clients)))
            .await
            .unwrap_err();
        println!("{what}: {}", said(&status));
        let says = "stands for no principal";
        assert_status(&status, Code::Unauthenticated, "UNRECOGNIZED_CLIENT", says);
    }
    let status = ask(None).await.unwrap_err();
    let reason = "MISSING_AUTHENTICATION_TOKEN";
    assert_status(
        &status,
        Code::Unauthenticated,
        reason,
        "no proof of who the caller is",
    );
    steady.end("certificates of nobody", &[], &running).await;
}

/// Security: versions before TLS 1.2 are refused, by the alert that says so.
#[tokio::test]
async fn older_versions_of_tls_are_refused() {
    let place = place();
    let running = place.serve(&config(&place, "")).await;
    for (what, version, extensions, alert) in [
        ("TLS 1.1", 2, &ALGORITHMS[..], PROTOCOL_VERSION),
        ("TLS 1.0", 1, &ALGORITHMS[..], PROTOCOL_VERSION),
        ("SSL 3", 0, &ALGORITHMS[..], PROTOCOL_VERSION),
        // Nor could it name an algorithm of a signature that the server would make.
        ("TLS 1.1 without extensions", 2, &[], HANDSHAKE_FAILURE),
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&hello(version, extensions)).await.unwrap();
        let mut answer = Vec::new();
        timeout(LIMIT, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        println!("{what}: {answer:?}");
        // One record and the connection's end: an alert, fatal.
        assert_eq!((answer[0], answer.len()), (21, 7), "{what}: {answer:?}");
        assert_eq!(answer[5..], [2, alert], "{what}");
    }
    running.client(None).greet().await.unwrap();
}

/// The first message of a client whose newest version is 3.`minor` (RFC 4346, section 7.4.1.2).
fn hello(minor: u8, extensions: &[u8]) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([0x5a; 32]);
    hello.push(0);
    // ECDHE_ECDSA with AES-128 in GCM, and in CBC for versions that know no other; RSA with that.
    hello.extend([0, 6, 0xc0, 0x2b, 0xc0, 0x09, 0, 0x2f]);
    hello.extend([1, 0]);
    if !extensions.is_empty() {
        hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
        hello.extend(extensions);
    }
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let mut message = vec![1, 0, 0, length(&hello)];
    message.extend(hello);
    let mut record = vec![22, 3, minor.min(1), 0, length(&message)];
    record.extend(message);
    record
}

/// Groups secp256r1, points uncompressed, signatures ECDSA and RSA with SHA-256.
const ALGORITHMS: [u8; 24] = [
    0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 6, 0, 4, 4, 3, 4, 1,
];
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

/// Handshakes that stall are gone after five seconds; nobody else is delayed.
#[tokio::test]
async fn a_handshake_that_stalls_is_ended_and_delays_nobody() {
    let place = place();
    let running = place.serve(&config(&place, "")).await;
    let steady = Steady::start(&place, &running).await;
    // Not a word, half a message, and a whole one without what must follow.
    let whole = hello(3, &ALGORITHMS);
    let began = Instant::now();
    let mut stalled = JoinSet::new();
    for bytes in [&[][..], &whole[..20], &whole[..]] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stalled.spawn(async move {
                let began = Instant::now();
                let mut answer = Vec::new();
                // A reset is an end too.
                let ended = timeout(LIMIT, stream.read_to_end(&mut answer)).await;
                drop(ended.expect("it is not ended"));
                began.elapsed()
            });
        }
    }
    let (mut slowest, mut served) = (Duration::ZERO, 0);
    let mut ends = Vec::new();
    let billing = running.client(Some(&shown(&place, "billing")));
    while began.elapsed() < Duration::from_secs(4) {
        let began = Instant::now();
        let mut macs = billing.mac().await;
        macs.generate_mac(request(b"x")).await.unwrap();
        slowest = slowest.max(began.elapsed());
        match stalled.try_join_next() {
            Some(end) => ends.push(end.unwrap()),
            None => served += 1,
        }
    }
    assert!(served > 0, "nobody was served while 60 handshakes stalled");
    while let Some(end) = stalled.join_next().await {
        ends.push(end.unwrap());
    }
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    println!(
        "60 handshakes that stall end after {first:.1?} to {last:.1?}; meanwhile a new caller's handshake \
         and MAC took {slowest:.0?} at most"
    );
    assert!(*first > Duration::from_secs(4), "{first:?}");
    steady.end("handshakes that stall", &[], &running).await;
}

/// A thousand connections that never say a word take no caller's place.
#[tokio::test]
async fn a_thousand_idle_connections_do_not_keep_a_caller_out() {
    let place = place();
    let running = place.serve(&config(&place, "")).await;
    let steady = Steady::start(&place, &running).await;
    let before = Usage::of(running.server.child.id());
    let mut idle = Vec::new();
    let mut slowest = Duration::ZERO;
    let billing = running.client(Some(&shown(&place, "billing")));
    for number in 0..1000 {
        idle.push(TcpStream::connect(running.address).await.unwrap());
        if number % 100 == 99 {
            let began = Instant::now();
            let mut macs = billing.mac().await;
            macs.generate_mac(request(b"x")).await.unwrap();
            slowest = slowest.max(began.elapsed());
        }
    }
    let during = Usage::of(running.server.child.id());
    let began = Instant::now();
    for mut stream in idle {
        let mut answer = Vec::new();
        let ended = timeout(LIMIT, stream.read_to_end(&mut answer)).await;
        drop(ended.expect("it is not ended"));
    }
    println!(
        "1,000 idle connections: a new caller's handshake and MAC took {slowest:.0?} at most; they took \
         {} KiB and {} descriptors, and were gone {:.1?} after the last came",
        during.kib.saturating_sub(before.kib),
        during.descriptors - before.descriptors,
        began.elapsed()
    );
    // A quarter of max_connections, and what the load has.
    assert!(during.descriptors < 256 + 64, "{during:?}");
    steady.end("1,000 idle connections", &[], &running).await;
}
