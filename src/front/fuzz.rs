//! Entry points for fuzzers: the bytes of peers that have not proved who they are, with what must hold
//! for any of them. Tests replay the corpora; the fuzzers themselves are in `tests/fuzz`.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split},
    runtime::{Builder, Runtime},
    sync::watch,
    time::timeout,
};

use super::{
    auth::{connection::ClientConnection, peer::Peer, pre_auth::PreAuthConnections},
    grpc,
    listener::{accept::Protocol as _, handshake::accept_tls},
    settings::{GrpcSettings, Listen},
    tls::Tls,
};
use crate::kms::{self, Kms};

/// What follows the preface of HTTP/2, on a connection without a proof. Whether there was an answer
/// with a message: nothing but health has one.
pub fn http2_before_authentication(data: &[u8]) -> bool {
    static API: OnceLock<Arc<grpc::Api>> = OnceLock::new();
    let runtime = runtime();
    let api = API.get_or_init(|| runtime.block_on(api()));
    let answer = runtime.block_on(async {
        let (client, server) = duplex(1 << 20);
        let peer = Peer::Tcp(([127, 0, 0, 1], 9).into());
        let slot = PreAuthConnections::at_most("grpc", 4).admit(&peer);
        let connection = ClientConnection::new(peer, api.access(), slot);
        let (_drain, draining) = watch::channel(false);
        let serving = api.clone().serve_connection(server, connection, draining);
        let said = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", data].concat();
        let (ended, answer) = tokio::join!(timeout(LIMIT, serving), talk(client, &said));
        assert!(ended.is_ok(), "the connection does not end");
        answer
    });
    let mut has_message = false;
    let mut rest = &answer[..];
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if head[3] == 0 && length > 0 {
            assert!(length <= LONGEST_SENTENCE, "an answer of {length} bytes");
            // Sentences for who does not speak gRPC are longer.
            has_message |= length <= LONGEST_HEALTH;
        }
        rest = after.get(length..).unwrap_or_default();
    }
    has_message
}

/// The first bytes of a TLS connection. Whether the server answers with a hello of its own.
pub fn client_hello(tls: &Arc<Tls>, data: &[u8]) -> bool {
    let answer = runtime().block_on(async {
        let (client, server) = duplex(1 << 20);
        let (ended, answer) =
            tokio::join!(timeout(LIMIT, accept_tls(server, tls)), talk(client, data));
        let done = ended.expect("the handshake does not end");
        assert!(done.is_err(), "a handshake without the server's part");
        answer
    });
    // A record of the handshake, and in it a server hello (RFC 8446, sections 4 and 5.1).
    answer.first() == Some(&22) && answer.get(5) == Some(&2)
}

/// Says it all, hears what the server has to say to it, and closes.
async fn talk(client: DuplexStream, said: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = split(client);
    let mut answer = Vec::new();
    let hear = async {
        // An end of ours would be the end of calls that are not answered yet.
        while let Ok(Ok(1..)) = timeout(QUIET, read.read_buf(&mut answer)).await {}
    };
    let (_, ()) = tokio::join!(write.write_all(said), hear);
    let _ = write.shutdown().await;
    let _ = read.read_to_end(&mut answer).await;
    answer
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made")
    })
}

async fn api() -> Arc<grpc::Api> {
    let settings = kms::Settings {
        account: "111122223333".parse().expect("it has 12 digits"),
        region: "us-west-2".into(),
        new_keys: None,
        keys: Vec::new(),
        rights: kms::DeclaredRights::default(),
    };
    let kms = Kms::new(settings, [].into()).expect("no keys contradict nothing");
    let settings = GrpcSettings {
        listen: Listen::Tcp(([127, 0, 0, 1], 0).into()),
        anonymous: None,
        reflection: true,
        default_deadline: LIMIT,
        max_connections: 4,
        max_streams: 16,
        secure_unix_socket: true,
        mode: None,
        tls: None,
    };
    let (_, access) = watch::channel(Arc::default());
    grpc::Api::new(kms, &settings, access, Arc::default())
        .await
        .0
}

const LIMIT: Duration = Duration::from_secs(5);
/// After so long a server has nothing more to say.
const QUIET: Duration = Duration::from_millis(20);
/// gRPC's five bytes, and a status.
const LONGEST_HEALTH: usize = 16;
const LONGEST_SENTENCE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{front::auth::tests::Authority, model::fuzz::tests::replay};

    #[test]
    fn the_corpus_of_http2_before_authentication() {
        replay("http2", http2_before_authentication);
    }

    #[test]
    fn the_corpus_of_client_hellos() {
        static TLS: OnceLock<Arc<Tls>> = OnceLock::new();
        TLS.get_or_init(|| Authority::new().tls(&[]));
        replay("client_hello", |data| {
            client_hello(TLS.get().unwrap(), data)
        });
    }
}
