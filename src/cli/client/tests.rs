//! Endpoints, times and connections that do not come about.

use super::*;

#[test]
fn endpoints_are_http_https_or_unix() {
    for (good, host) in [
        ("http://127.0.0.1:50051", "127.0.0.1:50051"),
        ("http://[::1]:1", "[::1]:1"),
        ("https://hsmac.dc1.example", "hsmac.dc1.example"),
        ("unix:/run/hsmac/grpc.sock", "localhost"),
    ] {
        let endpoint: Endpoint = good.parse().unwrap();
        assert_eq!((&*endpoint.to_string(), endpoint.host()), (good, host));
    }
    for wrong in [
        "127.0.0.1:50051",
        "unix:grpc.sock",
        "http://",
        "https://",
        "ftp://host",
    ] {
        let fault = wrong.parse::<Endpoint>().unwrap_err();
        assert!(fault.contains("is no endpoint; write http://"), "{fault}");
    }
}

#[test]
fn times_have_units() {
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    assert!(duration("10").unwrap_err().contains("write 10s"));
}

fn server(endpoint: &str) -> Server {
    let endpoint = endpoint.parse().unwrap();
    Server::new(endpoint, &TlsFlags::default(), Alpn::Http2).unwrap()
}

#[tokio::test]
async fn an_endpoint_without_a_server_is_reported() {
    for endpoint in [
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "unix:/nowhere/grpc.sock",
    ] {
        let channel = server(endpoint).channel(Duration::from_secs(5)).await;
        let fault = channel.unwrap_err();
        assert!(
            fault.starts_with(&format!(
                "Could not connect to the endpoint URL: \"{endpoint}\" ("
            )),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn connecting_ends_at_its_time_limit() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", mute.local_addr().unwrap());
    // Whoever runs this test may have no authorities of the system.
    let folder = tempfile::tempdir().unwrap();
    let ca_bundle = folder.path().join("ca.pem");
    let authority = crate::cli::tests::pki::Authority::new("any");
    std::fs::write(&ca_bundle, authority.pem()).unwrap();
    let flags = TlsFlags {
        ca_bundle: Some(ca_bundle),
        ..TlsFlags::default()
    };
    let server = Server::new(endpoint.parse().unwrap(), &flags, Alpn::Http2).unwrap();
    let fault = server.channel(Duration::from_millis(50)).await.unwrap_err();
    assert!(fault.contains("(no connection within 50ms)"), "{fault}");
}
