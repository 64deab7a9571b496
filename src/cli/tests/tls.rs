//! The client's commands over TLS, against a server with certificates of our own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};

use super::{
    pki::{Authority, Pair, client},
    service::{Layer, MAC, command, serve_connections, serve_over},
    *,
};

/// Two authorities, and a folder for what they sign.
struct CertificateFolder {
    folder: TempDir,
    servers: Authority,
    clients: Authority,
}

impl CertificateFolder {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            servers: Authority::new("servers"),
            clients: Authority::new("clients"),
        };
        place.write("servers.pem", &place.servers.pem());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn write_pair(&self, name: &str, pair: &Pair) {
        self.write(&format!("{name}.pem"), &pair.certificate);
        self.write(&format!("{name}.key"), &pair.key);
    }

    /// A server that admits clients of this place's authority alone.
    fn strict(&self, server: &Pair) -> TlsAcceptor {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let authority = self.clients.pem();
        roots
            .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
            .unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .unwrap();
        acceptor(server, Some(verifier), b"h2")
    }

    /// `hsmac kms generate-mac` with these flags; `FOLDER` in them is this place's.
    fn mac(&self, endpoint: &str, flags: &str) -> Result<(), CliError> {
        let flags = flags.replace("FOLDER", self.folder.path().to_str().unwrap());
        let line =
            format!("hsmac kms generate-mac --key-id good {MAC} --endpoint {endpoint} {flags}");
        command(line.trim_end())
    }
}

fn acceptor(
    server: &Pair,
    verifier: Option<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>>,
    protocol: &[u8],
) -> TlsAcceptor {
    let builder = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let chain = CertificateDer::pem_slice_iter(server.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    let mut config = builder
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn lax(server: &Pair) -> TlsAcceptor {
    acceptor(server, None, b"h2")
}

impl Layer for TlsAcceptor {
    type Stream = TlsStream<TcpStream>;

    async fn accept(&self, stream: TcpStream) -> io::Result<Self::Stream> {
        Self::accept(self, stream).await
    }
}

fn https(layer: impl Layer) -> String {
    format!("https://{}", serve_over(layer))
}

#[test]
fn client_and_server_authenticate_each_other_over_tls() {
    let place = CertificateFolder::new();
    place.write_pair(
        "billing",
        &client().dns("billing").signed_by(&place.clients),
    );
    let between = place.clients.below("clients of this year");
    place.write_pair("deep", &client().dns("billing").signed_by(&between));
    let at = https(place.strict(&place.servers.server()));
    for name in ["billing", "deep"] {
        let flags = format!(
            "--ca-bundle FOLDER/servers.pem --certificate FOLDER/{name}.pem --key FOLDER/{name}.key"
        );
        place.mac(&at, &flags).unwrap();
        let bench = format!(
            "hsmac bench grpc --key-id good --connections 2 --streams 2 --warmup 10ms \
             --duration 50ms --json --endpoint {at} {flags}"
        );
        command(&bench.replace("FOLDER", place.folder.path().to_str().unwrap())).unwrap();
    }
    // By name too.
    let at = at.replace("127.0.0.1", "localhost");
    place
        .mac(
            &at,
            "--ca-bundle FOLDER/servers.pem --certificate FOLDER/billing.pem --key FOLDER/billing.key",
        )
        .unwrap();
}

/// What the files and flags say of themselves, before anybody is asked.
#[test]
fn wrong_tls_flags_are_refused_with_a_sentence() {
    let place = CertificateFolder::new();
    let pair = client().dns("billing").signed_by(&place.clients);
    place.write_pair("billing", &pair);
    place.write_pair("other", &client().dns("other").signed_by(&place.clients));
    place.write("empty.pem", "nothing\n");
    let damaged = pair.certificate.replacen("MII", "AAAA", 1);
    place.write("damaged.pem", &damaged);
    let cut = pair.certificate.replace("-----END CERTIFICATE-----", "");
    place.write("cut.pem", &cut);
    let encrypted = pair.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    place.write("encrypted.key", &encrypted);
    let ours = "--certificate FOLDER/billing.pem --key";
    for (endpoint, flags, said) in [
        (
            "https://x",
            "--ca-bundle FOLDER/gone.pem",
            "gone.pem: No such file",
        ),
        ("https://x", "--ca-bundle FOLDER", ": Is a directory"),
        (
            "https://x",
            "--ca-bundle FOLDER/empty.pem",
            "empty.pem: there is no certificate in it",
        ),
        (
            "https://x",
            "--ca-bundle FOLDER/damaged.pem",
            "damaged.pem: ",
        ),
        ("https://x", "--ca-bundle FOLDER/cut.pem", "cut.pem: "),
        (
            "https://x",
            "--certificate FOLDER/billing.pem",
            "--certificate wants its --key too",
        ),
        (
            "https://x",
            "--key FOLDER/billing.key",
            "--key wants its --certificate too",
        ),
        (
            "https://x",
            &format!("{ours} FOLDER/other.key"),
            "other.key is not the key of the certificate in",
        ),
        (
            "https://x",
            &format!("{ours} FOLDER/billing.pem"),
            "billing.pem: there is no private key in it",
        ),
        (
            "https://x",
            &format!("{ours} FOLDER/encrypted.key"),
            "encrypted.key: there is no private key in it that is PEM and not encrypted",
        ),
        (
            "https://x",
            &format!("{ours} FOLDER/gone.key"),
            "gone.key: No such file",
        ),
        (
            "https://a..b",
            "",
            "\"a..b\" is no name that a certificate could have",
        ),
        (
            "http://127.0.0.1:1",
            "--ca-bundle FOLDER/servers.pem",
            "and http://127.0.0.1:1 is no https:// endpoint",
        ),
        (
            "unix:/x",
            "--certificate FOLDER/billing.pem --key FOLDER/billing.key",
            "and unix:/x is no https:// endpoint",
        ),
    ] {
        let authority = if flags.contains("--ca-bundle") || endpoint.starts_with("unix") {
            ""
        } else {
            " --ca-bundle FOLDER/servers.pem"
        };
        let stop = place.mac(endpoint, format!("{flags}{authority}").trim());
        let stop = stop.unwrap_err();
        assert!(stop.to_string().contains(said), "{flags}: {stop}");
        assert_eq!(stop.exit_code(), 252, "{stop}");
    }
}

/// What only the handshake shows, and which flag helps.
#[test]
fn an_untrusted_server_is_refused_with_a_sentence() {
    let place = CertificateFolder::new();
    let strangers = Authority::new("strangers");
    place.write("strangers.pem", &strangers.pem());
    let good = https(lax(&place.servers.server()));
    let expired = client().for_servers().dns("localhost").until(2025);
    let expired = https(lax(&expired.signed_by(&place.servers)));
    let elsewhere = client().for_servers().dns("hsmac.example");
    let elsewhere = https(lax(&elsewhere.signed_by(&place.servers)));
    let for_clients = https(lax(&client().dns("localhost").signed_by(&place.servers)));
    let aws = https(acceptor(&place.servers.server(), None, b"http/1.1"));
    let plain = https(Plainly);
    let tls = good.replace("https", "http");
    let by_name = |endpoint: &str| endpoint.replace("127.0.0.1", "localhost");
    for (endpoint, bundle, said) in [
        (
            &good,
            "strangers",
            "no authority that this client knows; --ca-bundle FILE names",
        ),
        (
            &by_name(&expired),
            "servers",
            "is not good: certificate expired",
        ),
        (
            &elsewhere,
            "servers",
            "for another name than \"127.0.0.1\": ",
        ),
        (&elsewhere, "servers", "hsmac.example"),
        (&by_name(&for_clients), "servers", "is not good: "),
        (
            &aws,
            "servers",
            "the server speaks another protocol over TLS",
        ),
        (
            &plain,
            "servers",
            "the server does not speak TLS; write http:// for https://",
        ),
        (
            &tls,
            "",
            "the server speaks TLS; write https:// for http://",
        ),
    ] {
        let flags = match bundle {
            "" => String::new(),
            bundle => format!("--ca-bundle FOLDER/{bundle}.pem"),
        };
        let stop = place.mac(endpoint, &flags).unwrap_err();
        assert!(stop.to_string().contains(said), "{said}: {stop}");
        assert!(stop.to_string().contains(endpoint), "{stop}");
        assert_eq!(stop.exit_code(), 255, "{stop}");
    }
    let bench = format!("hsmac bench grpc --key-id good --endpoint {tls}");
    let stop = command(&bench).unwrap_err();
    assert!(stop.to_string().contains("the server speaks TLS"), "{stop}");
}

/// Answers at once, as some servers do, in plain HTTP.
struct Plainly;

impl Layer for Plainly {
    type Stream = TcpStream;

    async fn accept(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// Agrees on TLS, and ends the connection in order.
struct HangsUp(TlsAcceptor);

impl Layer for HangsUp {
    type Stream = TlsStream<TcpStream>;

    async fn accept(&self, stream: TcpStream) -> io::Result<Self::Stream> {
        let mut stream = TlsAcceptor::accept(&self.0, stream).await?;
        stream.shutdown().await?;
        Ok(stream)
    }
}

#[test]
fn a_closed_connection_is_not_reported_as_a_timeout() {
    let place = CertificateFolder::new();
    let at = https(HangsUp(lax(&place.servers.server())));
    let stop = place
        .mac(&at, "--ca-bundle FOLDER/servers.pem")
        .unwrap_err();
    assert_eq!(stop.exit_code(), 255);
    let says = format!("Connection to endpoint URL \"{at}\" was closed before a valid response: ");
    assert!(stop.to_string().starts_with(&says), "{stop}");
}

#[test]
fn a_client_certificate_that_the_server_refuses_is_reported() {
    let place = CertificateFolder::new();
    let strangers = Authority::new("strangers");
    place.write_pair("stranger", &client().dns("x").signed_by(&strangers));
    let expired = client().dns("billing").until(2025);
    place.write_pair("expired", &expired.signed_by(&place.clients));
    let at = https(place.strict(&place.servers.server()));
    for (name, said) in [
        (
            "",
            "the server wants a certificate of this client; --certificate FILE and",
        ),
        (
            "stranger",
            "the server does not accept this client's certificate: UnknownCA",
        ),
        (
            "expired",
            "the server does not accept this client's certificate: CertificateExpired",
        ),
    ] {
        let flags = match name {
            "" => "--ca-bundle FOLDER/servers.pem".into(),
            name => format!(
                "--ca-bundle FOLDER/servers.pem --certificate FOLDER/{name}.pem --key FOLDER/{name}.key"
            ),
        };
        let stop = place.mac(&at, &flags).unwrap_err();
        assert!(stop.to_string().contains(said), "{stop}");
        assert_eq!(stop.exit_code(), 255, "{stop}");
    }
}

#[test]
fn the_bench_of_aws_s_wire_speaks_tls() {
    let place = CertificateFolder::new();
    let acceptor = acceptor(&place.servers.server(), None, b"http/1.1");
    let address = serve_aws(acceptor);
    let bench = |endpoint: &str, bundle: &Path| {
        command(&format!(
            "hsmac bench aws --key-id good --connections 2 --warmup 10ms --duration 50ms --json \
             --endpoint {endpoint} --ca-bundle {}",
            bundle.display()
        ))
    };
    bench(&format!("https://{address}"), &place.path("servers.pem")).unwrap();
    place.write("strangers.pem", &Authority::new("strangers").pem());
    let stop = bench(&format!("https://{address}"), &place.path("strangers.pem")).unwrap_err();
    assert_eq!(stop.exit_code(), 69);
    assert!(
        stop.to_string()
            .contains("no authority that this client knows"),
        "{stop}"
    );
    let stop = bench(&format!("http://{address}"), &place.path("servers.pem")).unwrap_err();
    assert_eq!(stop.exit_code(), 64, "{stop}");
}

/// Answers every request over HTTP/1.1 with `{}`.
fn serve_aws(acceptor: TlsAcceptor) -> std::net::SocketAddr {
    serve_connections(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = TokioIo::new(acceptor.accept(stream).await?);
            let answer = service_fn(async |_| {
                io::Result::Ok(Response::new(Full::new(Bytes::from_static(b"{}"))))
            });
            let served = http1::Builder::new().serve_connection(stream, answer);
            served.await.map_err(io::Error::other)
        }
    })
}
