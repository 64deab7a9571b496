//! `hsmac serve` over TLS, and clients with whatever certificate a test wants them to show.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hsmac::proto::v1::{
    key_service_client::KeyServiceClient, mac_service_client::MacServiceClient,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion,
        client::Resumption,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};
use tonic::transport::{Channel, Endpoint};

use super::{
    Server, TOKEN, Token,
    pki::{Authority, Pair},
};

/// A token, and the two authorities: of the server's certificate and of its clients'.
pub struct Place {
    pub token: Token,
    pub servers: Authority,
    pub clients: Authority,
}

impl Place {
    /// Over a token; the server has its certificate, and believes the clients' authority.
    pub fn new(token: Token) -> Self {
        let place = Self {
            token,
            servers: Authority::new("servers"),
            clients: Authority::new("clients"),
        };
        place.write_server(&place.servers.server());
        place.write("clients.pem", &place.clients.pem());
        place
    }

    /// Puts the server's certificate and key in their places.
    pub fn write_server(&self, pair: &Pair) {
        self.write("server.pem", &pair.certificate);
        self.write("server.key", &pair.key);
    }

    /// Writes a file anew and renames it, as an operator's tools do; nobody else may read it.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.token.path(&format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.token.path(name)).unwrap();
    }

    /// A configuration with gRPC over TLS, with these lines in `[grpc.tls]` besides, and these
    /// principals, keys and whatever comes after them.
    pub fn config(&self, tls: &str, rest: &str) -> String {
        let module = self.token.module().display();
        let softhsm = self.token.path("softhsm2.conf");
        format!(
            r#"account = "111122223333"
region = "us-west-2"

[grpc]
listen = "127.0.0.1:0"
# For machines with much else to do.
default_deadline = "30s"

[grpc.tls]
certificate = "server.pem"
key = "server.key"
client_ca = "clients.pem"
{tls}

[token.primary]
uri = "pkcs11:token={TOKEN}?module-path={module}"
pin_file = "pin"
env = {{ SOFTHSM2_CONF = "{}" }}
hosts = 1
sessions = 2

{rest}"#,
            softhsm.display()
        )
    }

    /// Starts `hsmac serve` and waits until its token is up and its address is known.
    pub async fn serve(&self, config: &str) -> Running<'_> {
        let server = self.token.serve(config).await;
        let address = server.field("listening", "address").parse().unwrap();
        Running {
            place: self,
            server,
            address,
        }
    }
}

/// A server that is reached over TLS.
pub struct Running<'a> {
    place: &'a Place,
    pub server: Server,
    pub address: SocketAddr,
}

impl Running<'_> {
    /// A client that believes this server, and shows a certificate or none.
    pub fn client(&self, shown: Option<&Pair>) -> Client {
        self.client_of(shown, ALL_VERSIONS)
    }

    /// A client that speaks some versions of TLS alone.
    pub fn client_of(
        &self,
        shown: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Client {
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots(&self.place.servers));
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain(pair), key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Security: what a session of before allowed must not hide what a handshake would show.
        config.resumption = Resumption::disabled();
        Client {
            address: self.address,
            config: Arc::new(config),
            connections: Arc::default(),
        }
    }
}

/// Somebody with a certificate, or without.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    /// How often it has shaken hands, and its copies with it.
    pub connections: Arc<AtomicUsize>,
}

impl Client {
    /// Shakes hands. With TLS 1.3 that says nothing yet of what the server thinks of the client.
    pub async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = "localhost".try_into().unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, stream).await?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    /// What the server answers to the beginning of HTTP/2, after the handshake.
    ///
    /// # Errors
    /// What TLS says of it: of the server, or the server's alert.
    pub async fn greet(&self) -> Result<(), rustls::Error> {
        let told = |error: io::Error| match error.downcast::<rustls::Error>() {
            Ok(error) => error,
            Err(error) => panic!("no fault of TLS: {error}"),
        };
        let mut stream = self.connect().await.map_err(told)?;
        // It may have been refused already; that is read, not written.
        let _ = stream.write_all(PREFACE).await;
        let mut first = [0; 9];
        stream.read_exact(&mut first).await.map_err(told)?;
        assert_eq!(first[3], 4, "a frame with settings comes first");
        Ok(())
    }

    pub async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let client = self.clone();
        let connector = tower::service_fn(move |_| {
            let client = client.clone();
            async move { client.connect().await.map(TokioIo::new) }
        });
        Endpoint::from_static("https://localhost")
            .connect_with_connector(connector)
            .await
    }

    pub async fn mac(&self) -> MacServiceClient<Channel> {
        MacServiceClient::new(self.channel().await.unwrap())
    }

    pub async fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel().await.unwrap())
    }
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let pem = authority.pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    roots
}

/// The certificates of a pair, its own first.
pub fn chain(pair: &Pair) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .map(Result::unwrap)
        .collect()
}

/// A `[[principal]]` whose proof is this name in a certificate, with an identity policy if there is one.
pub fn principal(arn: &str, certificate_dns: &str, policy_file: Option<&str>) -> String {
    let policy = policy_file.map_or_else(String::new, |file| format!("policy_file = \"{file}\"\n"));
    format!("[[principal]]\narn = \"{arn}\"\ncertificate_dns = \"{certificate_dns}\"\n{policy}\n")
}

/// A client's first bytes of HTTP/2, with empty settings (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
