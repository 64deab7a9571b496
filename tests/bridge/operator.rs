//! Where operators look, for tests: the listeners of `[admin]`, asked with raw bytes.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use serde_json::Value;

use crate::support::{KEY_ID, LIMIT, Server, Token, declare, fault_module, until};

/// The usual configuration, with both listeners of operators.
pub(super) fn watched(token: &Token, config: &str) -> String {
    let socket = token.path("admin.sock");
    let admin = format!(
        "[admin]\nsocket = \"{}\"\nlisten = \"127.0.0.1:0\"\n",
        socket.display()
    );
    config.replacen("[grpc]", &format!("{admin}\n[grpc]"), 1)
}

/// The usual configuration over the fault token.
pub(super) fn with_faults(token: &Token, settings: &str) -> String {
    let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let environment: Vec<String> = token
        .fault_environment()
        .iter()
        .map(|(name, value)| format!("{name} = \"{}\"", value.display()))
        .collect();
    let config = token.config_with(settings, &key).replace(
        &format!("module-path={}", token.module().display()),
        &format!("module-path={}", fault_module().display()),
    );
    let config = config.replacen(
        "env = {",
        &format!("env = {{ {},", environment.join(", ")),
        1,
    );
    watched(token, &config)
}

/// Where operators look.
pub(super) struct Operator {
    pub(super) socket: PathBuf,
    pub(super) tcp: String,
}

pub(super) trait Connection: Read + Write {
    fn end(&self);
}

impl Connection for Box<dyn Connection> {
    fn end(&self) {
        (**self).end();
    }
}

impl Connection for UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Connection for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Operator {
    /// Waits until both listeners are there.
    pub(super) async fn new(token: &Token, server: &Server) -> Self {
        let words = "listening for operators address=127.0.0.1:";
        let port = until("both listeners", || {
            let log = server.log();
            let (_, rest) = log.split_once(words)?;
            rest.split_once(char::is_whitespace)
                .map(|(port, _)| port.to_owned())
        });
        Self {
            socket: token.path("admin.sock"),
            tcp: format!("127.0.0.1:{}", port.await),
        }
    }

    pub(super) fn over_socket(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    pub(super) fn over_tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.tcp).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    pub(super) fn both(&self) -> [Box<dyn Connection>; 2] {
        [Box::new(self.over_socket()), Box::new(self.over_tcp())]
    }

    /// GET over the socket.
    pub(super) fn ask(&self, path: &str) -> Answer {
        said(
            self.over_socket(),
            &format!("GET {path}"),
            "Host: localhost\r\n",
        )
    }

    pub(super) fn ask_tcp(&self, path: &str) -> Answer {
        said(
            self.over_tcp(),
            &format!("GET {path}"),
            "Host: hsmac.example\r\n",
        )
    }

    pub(super) fn status(&self) -> Value {
        serde_json::from_str(&self.ask("/status.json").body).unwrap()
    }

    /// The value of a series, as it is written.
    pub(super) fn metric(&self, series: &str) -> Option<String> {
        let metrics = self.ask_tcp("/metrics").body;
        let mut lines = metrics.lines();
        let found = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.map(str::to_owned)
    }

    pub(super) async fn until_metric(&self, series: &str, value: &str) {
        until(&format!("{series} {value}"), || {
            (self.metric(series).as_deref() == Some(value)).then_some(())
        })
        .await;
    }

    /// Waits for a counter that may have counted on before it is read.
    pub(super) async fn until_counted(&self, series: &str, least: u64) {
        until(&format!("{series} {least} or more"), || {
            let counted = self.metric(series)?.parse::<u64>().unwrap();
            (counted >= least).then_some(())
        })
        .await;
    }

    pub(super) async fn until_ready(&self, status: u16) -> String {
        until(&format!("/readyz says {status}"), || {
            let seen = self.ask_tcp("/readyz");
            (seen.status == status).then_some(seen.body)
        })
        .await
    }
}

/// What the server says to a request, on a connection that it closes afterwards.
pub(super) fn said(connection: impl Connection, start: &str, headers: &str) -> Answer {
    let request = format!("{start} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    heard(connection, request.as_bytes())
}

pub(super) fn heard(mut connection: impl Connection, bytes: &[u8]) -> Answer {
    connection.write_all(bytes).unwrap();
    let text = to_the_end(connection);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Answer {
        status: head.get(9..12).map_or(0, |code| code.parse().unwrap()),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// All that comes until the server closes the connection.
pub(super) fn to_the_end(mut connection: impl Read) -> String {
    let mut bytes = Vec::new();
    match connection.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
    }
    String::from_utf8(bytes).unwrap()
}
