//! Start, end and the command line: what is wrong is said once, clearly, with its exit status; what
//! can heal heals by itself.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hsmac::proto::v1::{GenerateMacRequest, GenerateMacResponse};
use http::uri::PathAndQuery;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tonic::{Code, Request, codegen::tokio_stream::Stream};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_prost::ProstCodec;

use crate::support::{
    KEY, KEY_ARN, KEY_ID, LIMIT, Output, PIN, Server, TOKEN, Token, assert_status, calls, declare,
    hex, hmac_sha256, request, signal, until,
};

const WRONG_PIN: &str = "50617283";

/// Starts a server that ends by itself: its exit status and what it said.
async fn refused(token: &Token, config: &str) -> (i32, String) {
    refused_with(token, config, &[]).await
}

async fn refused_with(token: &Token, config: &str, environment: &[(&str, &str)]) -> (i32, String) {
    let mut server = token.spawn_with(config, environment);
    let status = server.ended().await;
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_no_pin(token);
    (status.code().expect("it ends by itself"), log)
}

/// `hsmac.toml:LINE`, where LINE is the first line of the configuration with these words.
fn at(config: &str, words: &str) -> String {
    let line = config.lines().position(|line| line.contains(words));
    format!("hsmac.toml:{}", line.expect("the words are there") + 1)
}

/// Security: neither the right PIN nor a wrong one is in a log or in the state folder.
fn assert_no_pin(token: &Token) {
    let mut files = vec![token.path("log")];
    files_under(&token.path("state"), &mut files);
    for file in files {
        let Ok(bytes) = fs::read(&file) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        for pin in [PIN, WRONG_PIN] {
            for form in [pin.to_owned(), hex(pin.as_bytes()), STANDARD.encode(pin)] {
                assert!(!text.contains(&form), "a PIN is in {}", file.display());
            }
        }
    }
}

/// Whether the note of login attempts says that a PIN was refused.
fn notes_a_refusal(token: &Token) -> bool {
    let Ok(note) = fs::read(token.path("state/pin-attempt.primary")) else {
        return false;
    };
    let note: Value = serde_json::from_slice(&note).unwrap();
    let mut tried = note["tried"].as_array().unwrap().iter();
    tried.any(|tried| !tried["refused"].is_null())
}

fn files_under(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files_under(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

/// Waits until health says this of a service.
async fn until_health(server: &Server, service: &str, status: ServingStatus) {
    let mut health = HealthClient::new(server.channel().await);
    let began = Instant::now();
    loop {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let now = health.check(request).await.unwrap().into_inner().status();
        if now == status {
            return;
        }
        assert!(
            began.elapsed() < LIMIT,
            "{service:?} is {now:?} for too long"
        );
        tokio::task::yield_now().await;
    }
}

/// The token cannot serve: health says so, and calls are refused at once.
async fn assert_unavailable(server: &Server) {
    for service in ["", "hsmac.v1.MacService", "hsmac.token.primary"] {
        until_health(server, service, ServingStatus::NotServing).await;
    }
    let status = server.mac().await.generate_mac(request(b"x")).await;
    assert_status(
        &status.unwrap_err(),
        Code::Unavailable,
        "KEY_UNAVAILABLE",
        "The request was rejected because the token was not available. You can retry the request.",
    );
}

async fn assert_serves(server: &Server) {
    for service in ["", "hsmac.v1.MacService", "hsmac.token.primary"] {
        until_health(server, service, ServingStatus::Serving).await;
    }
    let made = server.mac().await.generate_mac(request(b"x")).await;
    assert_eq!(made.unwrap().into_inner().mac, hmac_sha256(&KEY, b"x"));
}

#[tokio::test]
async fn an_unknown_setting_is_named_with_its_line_and_the_right_name() {
    let token = Token::new();
    let config = token
        .config()
        .replace("reflection = true", "max_conections = 5");
    let (status, said) = refused(&token, &config).await;
    assert_eq!(status, 78, "{said}");
    let place = at(&config, "max_conections");
    assert!(
        said.contains(&format!(
            "{place}: grpc.max_conections: no such setting; did you mean max_connections?"
        )),
        "{said}"
    );
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_named_with_its_line() {
    let token = Token::new();
    for (line, text) in [
        (
            "hosts = \"many\"",
            "token.primary.hosts: \"many\" is not a whole number",
        ),
        (
            "working_copies = \"perhaps\"",
            "token.primary.working_copies: \"perhaps\" is not true or false",
        ),
        (
            "call_timeout = \"soon\"",
            "token.primary.call_timeout: \"soon\" is no time; write \"10s\" or \"250ms\"",
        ),
        (
            "hosts = 17",
            "token.primary.hosts: 17 is out of range; it must be 1 to 16",
        ),
    ] {
        let config = token.config_with(&format!("{line}\n"), "");
        let (status, said) = refused(&token, &config).await;
        assert_eq!(status, 78, "{said}");
        let wanted = format!("{}: {text}", at(&config, line));
        assert!(said.contains(&wanted), "{said}");
        // After the first line, which names version and file, and before what to type next.
        assert_eq!(said.lines().count(), 3, "{said}");
        assert!(
            said.ends_with(&format!(
                "next: hsmac check --config {}\n",
                token.path("hsmac.toml").display()
            )),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_misspelt_variable_of_the_environment_is_refused_by_its_name() {
    let token = Token::new();
    for (name, text) in [
        (
            "HSMAC__GRPC__MAX_CONECTIONS",
            "no such setting; did you mean max_connections?",
        ),
        (
            "HSMAC__TOKEN__PRIMARY__SESSIONS",
            "\"5 of them\" is not a whole number",
        ),
    ] {
        let (status, said) = refused_with(&token, &token.config(), &[(name, "5 of them")]).await;
        assert_eq!(status, 78, "{said}");
        assert!(
            said.contains(&format!("environment {name}: {text}")),
            "{said}"
        );
    }
}

#[tokio::test]
async fn all_faults_are_told_in_one_run() {
    let token = Token::new();
    let config = token
        .config()
        .replace("reflection = true", "reflexion = true")
        .replace("hosts = 1", "hosts = \"many\"")
        .replace("pin_file = \"pin\"", "pin_file = \"pen\"");
    let environment = [("HSMAC__LOG__LEVEL", "hsmac=loud")];
    let (status, said) = refused_with(&token, &config, &environment).await;
    assert_eq!(status, 78, "{said}");
    for text in [
        format!(
            "{}: grpc.reflexion: no such setting",
            at(&config, "reflexion")
        ),
        format!(
            "{}: token.primary.hosts: \"many\" is not",
            at(&config, "many")
        ),
        format!("{}: token.primary.pin_file: ", at(&config, "pin_file")),
        "environment HSMAC__LOG__LEVEL: \"loud\" is no level".to_owned(),
    ] {
        assert!(said.contains(&text), "no {text:?} in:\n{said}");
    }
    // And the first line, which names version and file, and the last, which says what to type.
    assert_eq!(said.lines().count(), 6, "{said}");
}

#[tokio::test]
async fn a_configuration_that_is_none_is_refused() {
    let token = Token::new();
    let (status, said) = refused(&token, "account = \"111122223333\"\nregion = \n").await;
    assert_eq!(status, 78, "{said}");
    assert!(said.contains("hsmac.toml:2:"), "{said}");
    fs::remove_file(token.path("hsmac.toml")).unwrap();
    let output = token.hsmac(&["serve", "--config", "hsmac.toml"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(output.stderr.contains("hsmac.toml: "), "{output:?}");
    // Without a name it is the usual one, which no machine that tests has.
    let usual = token.hsmac(&["serve"]);
    assert_eq!(usual.status.code(), Some(78), "{usual:?}");
    assert!(
        usual.stderr.contains("/etc/hsmac/hsmac.toml: "),
        "{usual:?}"
    );
    assert!(
        usual
            .stderr
            .contains("next: name another file with --config FILE"),
        "{usual:?}"
    );
}

#[tokio::test]
async fn an_address_in_use_is_named_before_a_pin_is_tried() {
    let token = Token::with_key();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let unix = format!("unix:{}", token.path("grpc.sock").display());
    let (tcp_config, spied) = token.spied(&token.config().replace(&unix, &address.to_string()));
    let (status, said) = refused(&token, &tcp_config).await;
    assert_eq!(status, 78, "{said}");
    let text = format!(
        "grpc.listen: {address} is in use by another process; stop that one or set another address"
    );
    assert!(said.contains(&text), "{said}");
    assert!(!spied.exists(), "the module was loaded all the same");

    let first = token.serve(&token.config()).await;
    let mut second = token.spawn(&token.config());
    assert_eq!(second.ended().await.code(), Some(78));
    let text = format!("grpc.listen: {unix} is in use by another process");
    assert!(second.log().contains(&text), "{}", second.log());
    // The first has lost nothing, its socket's file included.
    assert_serves(&first).await;
}

#[tokio::test]
async fn a_missing_pin_file_and_a_missing_module_are_named() {
    let token = Token::new();
    fs::remove_file(token.path("pin")).unwrap();
    let (status, said) = refused(&token, &token.config()).await;
    assert_eq!(status, 78, "{said}");
    let text = format!(
        "{}: token.primary.pin_file: {}: no such file",
        at(&token.config(), "pin_file"),
        token.path("pin").display()
    );
    assert!(said.contains(&text), "{said}");

    token.write_pin(PIN);
    let module = token.module().display().to_string();
    let config = token.config().replace(&module, "/nowhere/pkcs11.so");
    let (status, said) = refused(&token, &config).await;
    assert_eq!(status, 78, "{said}");
    let place = at(&config, "/nowhere");
    let text = format!("{place}: token.primary.uri: the module /nowhere/pkcs11.so: no such file");
    assert!(said.contains(&text), "{said}");
}

#[tokio::test]
async fn a_pin_file_that_others_can_read_is_refused_and_serves_with_a_warning_if_that_is_allowed() {
    let token = Token::with_key();
    let pin = token.path("pin");
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!(
        "{} has mode 0644: others than its owner can read or write the PIN; run chmod 0400 {}",
        pin.display(),
        pin.display()
    );
    let (status, said) = refused(&token, &token.config()).await;
    assert_eq!(status, 78, "{said}");
    assert!(said.contains(&text), "{said}");

    let config = format!("allow_readable_secrets = true\n{}", token.config());
    let server = token.serve(&config).await;
    assert_serves(&server).await;
    let log = server.log();
    assert_eq!(log.matches(&text).count(), 1, "{log}");
    assert!(
        log.lines()
            .any(|line| line.contains("WARN") && line.contains(&text)),
        "{log}"
    );
    assert_no_pin(&token);
}

#[tokio::test]
async fn a_file_that_is_no_pkcs11_library_is_refused() {
    let token = Token::new();
    let text = token.path("text.so");
    fs::write(&text, "this is no library").unwrap();
    let module = token.module().display().to_string();
    let libraries = [
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/aarch64-linux-gnu/libc.so.6",
        "/usr/lib64/libc.so.6",
    ];
    let library = libraries.iter().find(|path| Path::new(path).exists());
    let library = library.expect("a C library is installed");
    for (file, why) in [
        (text.to_str().unwrap(), "the module cannot be loaded: "),
        (
            library,
            "the file is no PKCS#11 library: it has no C_GetFunctionList",
        ),
    ] {
        let config = token.config().replace(&module, file);
        let (status, said) = refused(&token, &config).await;
        assert_eq!(status, 78, "{file}: {said}");
        let text = format!("token.primary: {file}: {why}");
        assert!(said.contains(&text), "{said}");
        let output = token.check(&config);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert!(output.stdout.contains(why), "{output:?}");
        assert!(output.stderr.contains("token.primary"), "{output:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_there_is_waited_for() {
    let token = Token::empty();
    let mut server = token.spawn(&token.config());
    server.until_log("listening").await;
    assert_unavailable(&server).await;
    let log = server.log();
    assert!(log.contains("no token matches the uri"), "{log}");

    // It comes while the server runs, with its key.
    token.script(&format!(
        "init {TOKEN} {PIN}\nlogin {TOKEN} {PIN}\ngeneric mac 01 {}\n",
        hex(&KEY)
    ));
    let began = Instant::now();
    server.until_log("the token is up").await;
    println!("the token served {:?} after it came", began.elapsed());
    assert_serves(&server).await;
    assert_no_pin(&token);
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_token_whose_user_has_no_pin_yet_is_waited_for_and_no_pin_counts_as_refused() {
    let token = Token::empty();
    token.script(&format!("blank {TOKEN} {PIN}\n"));
    let mut server = token.spawn(&token.config());
    server.until_log("listening").await;
    assert_unavailable(&server).await;
    let log = server.log();
    assert!(log.contains("CKR_USER_PIN_NOT_INITIALIZED"), "{log}");
    assert!(!notes_a_refusal(&token));
    token.script(&format!(
        "user-pin {TOKEN} {PIN}\nlogin {TOKEN} {PIN}\ngeneric mac 01 {}\n",
        hex(&KEY)
    ));
    server.until_log("the token is up").await;
    assert_serves(&server).await;
    assert_no_pin(&token);
}

#[tokio::test]
async fn two_tokens_that_match_are_refused_by_their_serials() {
    let token = Token::new();
    token.script(&format!("init {TOKEN} {PIN}\n"));
    let (status, said) = refused(&token, &token.config()).await;
    assert_eq!(status, 78, "{said}");
    assert!(said.contains("several tokens match the uri: "), "{said}");
    assert!(said.contains("add ;serial=… to it"), "{said}");
    let mut serials: Vec<&str> = said
        .split(" with serial ")
        .skip(1)
        .map(|rest| rest.split([',', ';']).next().unwrap())
        .collect();
    serials.sort_unstable();
    serials.dedup();
    assert_eq!(serials.len(), 2, "{said}");
    // The way out that it names.
    for serial in serials {
        let config = token.config().replace(
            &format!("token={TOKEN}?"),
            &format!("token={TOKEN};serial={serial}?"),
        );
        let server = token.serve(&config).await;
        assert!(server.terminate().await.success());
    }
}

#[tokio::test]
async fn who_cannot_prove_anything_must_be_on_this_machine() {
    let token = Token::new();
    let unix = format!("unix:{}", token.path("grpc.sock").display());
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051"] {
        let config = token.config().replace(&unix, address);
        let (status, said) = refused(&token, &config).await;
        assert_eq!(status, 78, "{said}");
        let place = at(&config, "listen");
        assert!(
            said.contains(&format!("{place}: grpc.listen: other machines reach this address: set [grpc.tls] with certificate, key and client_ca, or listen on loopback or a Unix socket")),
            "{said}"
        );
        assert!(
            said.contains("grpc.anonymous: callers without proof"),
            "{said}"
        );
    }
    let config: String = token
        .config()
        .lines()
        .filter(|line| !line.starts_with("anonymous"))
        .map(|line| format!("{line}\n"))
        .collect();
    let (status, said) = refused(&token, &config).await;
    assert_eq!(status, 78, "{said}");
    assert!(
        said.contains("grpc.anonymous: required, but not set: without it nobody could call"),
        "{said}"
    );
}

#[tokio::test]
async fn check_explains_a_good_configuration_and_what_is_wrong_with_another() {
    let token = Token::with_key();
    let good = token.check(&token.config());
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let check_value = hex(&hmac_sha256(
        &KEY,
        format!("\0hsmac-reserved\0key check v1\0{KEY_ID}").as_bytes(),
    ));
    let line = format!("check_value = \"{check_value}\"");
    for text in ["hsmac.toml: good", "token primary: up", "unpinned", &line] {
        assert!(good.stdout.contains(text), "no {text:?} in {}", good.stdout);
    }
    // What it prints can be pasted.
    let pinned = token.check(&format!("{}{line}\n", token.config()));
    assert_eq!(pinned.status.code(), Some(0), "{pinned:?}");
    assert!(
        pinned.stdout.contains("check value pinned"),
        "{}",
        pinned.stdout
    );
    let other = line.replace(&check_value, &hex(&[7; 32]));
    let other = token.check(&format!("{}{other}\n", token.config()));
    assert_eq!(other.status.code(), Some(78), "{other:?}");
    assert!(
        other.stdout.contains("its check value differs"),
        "{}",
        other.stdout
    );

    let fault = token.check(&token.config().replace("hosts = 1", "hots = 1"));
    assert_eq!(fault.status.code(), Some(78), "{fault:?}");
    assert!(fault.stderr.contains("did you mean hosts?"), "{fault:?}");

    token.write_pin(WRONG_PIN);
    let (config, spied) = token.spied(&token.config());
    for _ in 0..2 {
        let wrong = token.check(&config);
        assert_eq!(wrong.status.code(), Some(69), "{wrong:?}");
        assert!(
            wrong.stdout.contains("the token refuses the PIN"),
            "{}",
            wrong.stdout
        );
        for pin in [PIN, WRONG_PIN] {
            assert!(!format!("{wrong:?}").contains(pin));
        }
    }
    assert_eq!(
        calls(&spied)["C_Login"],
        1,
        "the second check tries nothing"
    );
    assert_no_pin(&token);
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_by_four_hosts_and_after_a_restart_until_its_file_changes() {
    let token = Token::with_key();
    token.write_pin(WRONG_PIN);
    let (config, spied) = token.spied(&token.config_with(
        "hosts = 4\nsessions = 1\n",
        &declare(KEY_ID, "mac", "HMAC_256", "alias/test"),
    ));
    for run in 1..=2 {
        let mut server = token.spawn(&config);
        server.until_log("the token is unavailable").await;
        server.until_log("listening").await;
        assert_unavailable(&server).await;
        assert_eq!(calls(&spied)["C_Login"], 1, "in run {run}");
        let log = server.log();
        assert!(log.contains("the token refuses the PIN"), "{log}");
        assert!(log.contains("hsmac token unlock primary"), "{log}");
        if run == 1 {
            assert!(server.terminate().await.success());
            continue;
        }
        // The right PIN in the file is enough: no restart, no unlock.
        token.write_pin(PIN);
        server.until_log("the token is up").await;
        assert_serves(&server).await;
        until("four hosts that have logged in", || {
            (calls(&spied)["C_Login"] == 5).then_some(())
        })
        .await;
        // It remembers the wrong one, which may come back.
        assert!(notes_a_refusal(&token));
        assert!(server.terminate().await.success());
    }
    assert_no_pin(&token);
}

#[tokio::test]
async fn unlock_allows_one_more_try_of_a_pin_file_that_did_not_change() {
    let token = Token::with_key();
    // The file is right, and the token's own PIN is another one for a while.
    token.inside(&format!("pin {PIN} {WRONG_PIN}\n"));
    let (config, spied) = token.spied(&token.config());
    let mut server = token.spawn(&config);
    server.until_log("listening").await;
    assert_unavailable(&server).await;
    let unlock = |name: &str| token.hsmac(&["token", "unlock", name, "--config", "hsmac.toml"]);

    // Unlocked without a cure: one more try, and no other.
    let output = unlock("primary");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        output
            .stdout
            .contains("The refused PIN of primary is forgotten"),
        "{output:?}"
    );
    until("the second refusal", || {
        (notes_a_refusal(&token) && calls(&spied)["C_Login"] == 2).then_some(())
    })
    .await;
    assert_unavailable(&server).await;

    token.script(&format!(
        "login {TOKEN} {WRONG_PIN}\npin {WRONG_PIN} {PIN}\n"
    ));
    assert_unavailable(&server).await;
    assert_eq!(calls(&spied)["C_Login"], 2, "nobody tries by himself");
    assert!(unlock("primary").status.success());
    server.until_log("the token is up").await;
    assert_serves(&server).await;
    assert_eq!(calls(&spied)["C_Login"], 3);

    let output = unlock("primary");
    assert!(
        output.stdout.contains("No PIN of primary was refused"),
        "{output:?}"
    );
    let output = unlock("secondary");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(
        output.stderr.contains("there is no token \"secondary\""),
        "{output:?}"
    );
    assert_no_pin(&token);
}

/// One item, when it is sent.
struct Later<T>(Option<oneshot::Receiver<T>>);

impl<T> Stream for Later<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(item) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let item = std::task::ready!(Pin::new(item).poll(context));
        self.0 = None;
        Poll::Ready(item.ok())
    }
}

#[tokio::test]
async fn a_call_in_flight_is_answered_before_the_end() {
    let token = Token::with_key();
    for name in ["TERM", "INT"] {
        let mut server = token.serve(&token.config()).await;
        let channel = server.channel().await;
        let (send, message) = oneshot::channel();
        let in_flight = {
            let channel = channel.clone();
            tokio::spawn(async move {
                let mut client = tonic::client::Grpc::new(channel);
                client.ready().await.unwrap();
                client
                    .client_streaming(
                        Request::new(Later(Some(message))),
                        PathAndQuery::from_static("/hsmac.v1.MacService/GenerateMac"),
                        ProstCodec::<GenerateMacRequest, GenerateMacResponse>::default(),
                    )
                    .await
            })
        };
        tokio::task::yield_now().await;
        // Streams are opened in order: when this call is answered, the other one is in flight.
        let mut client = hsmac::proto::v1::mac_service_client::MacServiceClient::new(channel);
        client.generate_mac(request(b"x")).await.unwrap();

        signal(server.child.id(), name);
        server.until_log("calls in flight are answered").await;
        let socket = token.path("grpc.sock");
        until("that nobody new is let in", || {
            (!socket.exists()).then_some(())
        })
        .await;
        send.send(request(b"in flight")).unwrap();
        let made = in_flight.await.unwrap().unwrap().into_inner();
        assert_eq!(made.mac, hmac_sha256(&KEY, b"in flight"));
        drop(client);
        let status = server.ended().await;
        assert!(status.success(), "{status}: {}", server.log());
        assert!(!server.log().contains("calls were dropped"));
    }
    assert_no_pin(&token);
}

#[tokio::test]
async fn a_hangup_ends_nothing() {
    let token = Token::with_key();
    let mut server = token.serve(&token.config()).await;
    let hosts = server.hosts();
    signal(server.child.id(), "HUP");
    server.until_log("reloaded what=SIGHUP").await;
    // A terminal that closes sends it to every process.
    for host in &hosts {
        for name in ["HUP", "INT", "TERM"] {
            signal(*host, name);
        }
    }
    assert_serves(&server).await;
    assert_eq!(server.hosts(), hosts);
    assert!(server.terminate().await.success());
}

/// `hsmac kms …` as JSON.
fn kms(token: &Token, arguments: &[&str]) -> Value {
    let output = token.hsmac(&[&["kms"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stderr, "");
    serde_json::from_str(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_kms_command_speaks_as_aws_does() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let mac = STANDARD.encode(hmac_sha256(&KEY, b"Hello World"));
    let of = [
        "--key-id",
        "alias/test",
        "--message",
        "Hello World",
        "--mac-algorithm",
        "HMAC_SHA_256",
    ];
    let run = |verb: &str, more: &[&str]| -> Output {
        token.hsmac(&[&["kms", verb], &of[..], more].concat())
    };

    let made = kms(&token, &[&["generate-mac"], &of[..]].concat());
    let wanted = json!({ "Mac": mac, "MacAlgorithm": "HMAC_SHA_256", "KeyId": KEY_ARN });
    assert_eq!(made, wanted);
    let text = run("generate-mac", &["--output", "text"]);
    assert_eq!(text.stdout, format!("{KEY_ARN}\t{mac}\tHMAC_SHA_256\n"));
    let verified = kms(&token, &[&["verify-mac", "--mac", &mac], &of[..]].concat());
    let wanted = json!({ "KeyId": KEY_ARN, "MacValid": true, "MacAlgorithm": "HMAC_SHA_256" });
    assert_eq!(verified, wanted);

    // From files, bytes as they are.
    let bytes = b"\0\xff\n";
    fs::write(token.path("message"), bytes).unwrap();
    let from_file = ["--message", "fileb://message"];
    let made = kms(
        &token,
        &[&["generate-mac"], &of[..2], &from_file, &of[4..]].concat(),
    );
    assert_eq!(made["Mac"], STANDARD.encode(hmac_sha256(&KEY, bytes)));

    let described = kms(&token, &["describe-key", "--key-id", KEY_ID]);
    let key = &described["KeyMetadata"];
    assert_eq!(key["AWSAccountId"], "111122223333");
    assert_eq!(key["Arn"], KEY_ARN);
    assert_eq!(key["KeyState"], "Enabled");
    assert_eq!(key["KeySpec"], "HMAC_256");
    assert_eq!(key["KeyUsage"], "GENERATE_VERIFY_MAC");
    assert_eq!(key["MacAlgorithms"], json!(["HMAC_SHA_256"]));
    assert_eq!(key["Token"]["Label"], TOKEN);
    let listed = kms(&token, &["list-keys"]);
    let wanted = json!({ "Keys": [{ "KeyId": KEY_ID, "KeyArn": KEY_ARN }] });
    assert_eq!(listed, wanted);
    let random = || {
        let answer = kms(&token, &["generate-random", "--number-of-bytes", "24"]);
        STANDARD
            .decode(answer["Plaintext"].as_str().unwrap())
            .unwrap()
    };
    let (one, other) = (random(), random());
    assert_eq!((one.len(), other.len()), (24, 24));
    assert_ne!(one, other);

    // 254: the service says no.
    let wrong = STANDARD.encode([0; 32]);
    for (output, exception, operation, text) in [
        (
            run("verify-mac", &["--mac", &wrong]),
            "KMSInvalidMacException",
            "VerifyMac",
            "",
        ),
        (
            run("generate-mac", &["--dry-run"]),
            "DryRunOperationException",
            "GenerateMac",
            "The request would have succeeded, but the DryRun option is set.",
        ),
        (
            run("generate-mac", &["--grant-tokens", "t"]),
            "InvalidGrantTokenException",
            "GenerateMac",
            "",
        ),
        (
            token.hsmac(&["kms", "describe-key", "--key-id", "key_id"]),
            "NotFoundException",
            "DescribeKey",
            "Invalid keyId 'key_id'",
        ),
        (
            token.hsmac(&["kms", "generate-random", "--number-of-bytes", "1025"]),
            "ValidationException",
            "GenerateRandom",
            "1 validation error detected: Value '1025' at 'numberOfBytes'",
        ),
        (
            token.hsmac(&["kms", "list-keys", "--marker", "none"]),
            "InvalidMarkerException",
            "ListKeys",
            "",
        ),
    ] {
        assert_eq!(output.status.code(), Some(254), "{output:?}");
        assert_eq!(output.stdout, "", "{output:?}");
        let said = format!(
            "\nAn error occurred ({exception}) when calling the {operation} operation: {text}"
        );
        assert!(output.stderr.starts_with(&said), "{output:?}");
        assert!(output.stderr.contains("\nrequest ID: "), "{output:?}");
    }
    // 252: usage.
    for output in [
        token.hsmac(&["kms", "generate-mac", "--key-id", "alias/test"]),
        token.hsmac(&["kms", "sign"]),
        run("generate-mac", &["--endpoint", "127.0.0.1:50051"]),
        run("generate-mac", &["--mac-algorithm", "HMAC_SHA_1"]),
        run("verify-mac", &["--mac", "no base64!"]),
    ] {
        assert_eq!(output.status.code(), Some(252), "{output:?}");
        assert!(!output.stderr.is_empty());
    }
    // 255: nobody there.
    let output = run("generate-mac", &["--endpoint", "unix:/nowhere/grpc.sock"]);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(
        output
            .stderr
            .contains("Could not connect to the endpoint URL: \"unix:/nowhere/grpc.sock\""),
        "{output:?}"
    );
    assert!(server.terminate().await.success());
    assert_eq!(run("generate-mac", &[]).status.code(), Some(255));
}

#[tokio::test]
async fn the_kms_command_finds_a_server_on_loopback() {
    let token = Token::with_key();
    let unix = format!("unix:{}", token.path("grpc.sock").display());
    let mut server = token.spawn(&token.config().replace(&unix, "127.0.0.1:0"));
    server.until_log("listening").await;
    let log = server.log();
    let address = log.split("address=").nth(1).unwrap();
    let address = address.split_whitespace().next().unwrap();
    let endpoint = format!("http://{address}");
    let listed = kms(&token, &["list-keys", "--endpoint", &endpoint]);
    assert_eq!(listed["Keys"][0]["KeyArn"], KEY_ARN);
}

/// What stands in the way is told before a start meets it, for people and for programs.
#[tokio::test]
async fn check_looks_at_addresses_the_store_and_the_serials_of_tokens() {
    let token = Token::with_key();
    let config = token.config() + &token.store();
    let json = |config: &str| {
        fs::write(token.path("hsmac.toml"), config).unwrap();
        let output = token.hsmac(&["check", "--config", "hsmac.toml", "--output", "json"]);
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(
            report["exit_code"],
            output.status.code().unwrap(),
            "{output:?}"
        );
        assert!(output.stderr.is_empty(), "{output:?}");
        report
    };
    let good = json(&config);
    assert_eq!(
        (&good["exit_code"], &good["wrong"]),
        (&0.into(), &serde_json::json!([]))
    );
    assert_eq!(good["tokens"][0]["state"], "up");
    assert_eq!(good["tokens"][0]["keys"][0]["key_id"], KEY_ID);
    assert_eq!(good["store"]["revision"], Value::Null);
    assert!(!token.path("catalogue.db").exists(), "check makes none");
    let serial = good["tokens"][0]["facts"]["serial"].as_str().unwrap();

    // An address of another machine.
    let elsewhere = config.replace(
        "[token.primary]",
        "[admin]\nlisten = \"192.0.2.7:9100\"\n[token.primary]",
    );
    let wrong = json(&elsewhere);
    assert_eq!(wrong["exit_code"], 78);
    assert_eq!(wrong["wrong"], serde_json::json!(["admin.listen"]));
    // What a running hsmac has is nobody's fault.
    let server = token.serve(&config).await;
    let beside = json(&config);
    assert_eq!(beside["exit_code"], 0, "{beside}");
    assert_eq!(beside["addresses"][0]["is_in_use"], true);
    assert_eq!(beside["store"]["used_by"], server.child.id());
    assert!(server.terminate().await.success());

    // A catalogue that is none.
    let database = token.path("catalogue.db");
    let saved = fs::read(&database).unwrap();
    fs::write(&database, "nonsense").unwrap();
    let damaged = json(&config);
    assert_eq!(damaged["exit_code"], 78);
    assert!(
        damaged["wrong"][0]
            .as_str()
            .unwrap()
            .contains("catalogue.db"),
        "{damaged}"
    );
    fs::write(&database, saved).unwrap();

    // The serials of what is there, beside what is wanted.
    let other = config.replace(
        &format!("token={TOKEN}?"),
        &format!("token={TOKEN};serial=0815?"),
    );
    let away = json(&other);
    assert_eq!(away["exit_code"], 69);
    let reason = away["tokens"][0]["reason"].as_str().unwrap();
    for words in [
        "serial \"0815\"",
        &format!("{TOKEN:?} with serial {serial}"),
    ] {
        assert!(reason.contains(words), "no {words} in {reason}");
    }
    // And what cannot be read at all.
    let broken = json("account = 5\n");
    assert_eq!(broken["exit_code"], 78);
    assert_eq!(broken["is_readable"], false);
    assert!(broken["wrong"].as_array().unwrap().len() > 1, "{broken}");
}
