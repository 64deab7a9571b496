//! The listeners of operators, asked with raw bytes.

use std::{
    fmt::Write as _, fs, io::Write as _, os::unix::fs::PermissionsExt as _,
    os::unix::net::UnixStream,
};

use hsmac::proto::v1::{DisableKeyRequest, ScheduleKeyDeletionRequest};
use serde_json::Value;

use crate::{
    operator::{Connection, Operator, heard, said, to_the_end, watched, with_faults},
    support::{
        CALLER, KEY, KEY_ARN, KEY_ID, PIN, TOKEN, Token, hmac_sha256, request, until,
        verify_request,
    },
};

#[tokio::test]
async fn each_listener_has_its_paths_and_no_others() {
    let token = Token::with_key();
    let server = token.serve(&watched(&token, &token.config())).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    let mode = fs::metadata(&operator.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (path, content_type, part) in [
        ("/livez", "text/plain", "alive\n"),
        ("/readyz", "text/plain", "[+] token: 1 of 1 tokens serve\n"),
        ("/readyz?verbose", "text/plain", "[+] serving: listening\n"),
        ("/metrics", "text/plain; version=0.0.4", "hsmac_ready 1.0\n"),
    ] {
        for seen in [operator.ask(path), operator.ask_tcp(path)] {
            assert_eq!(seen.status, 200, "{path}: {seen:?}");
            assert!(
                seen.head.contains(&format!("content-type: {content_type}")),
                "{seen:?}"
            );
            assert!(seen.body.contains(part), "{path}: {seen:?}");
        }
    }
    for (path, content_type, part) in [
        (
            "/status.json",
            "application/json",
            "\"summary\":\"All is well.\"",
        ),
        ("/", "text/html", "<!doctype html>"),
        ("/page.css", "text/css", ""),
        ("/page.js", "text/javascript", ""),
    ] {
        let seen = operator.ask(path);
        assert_eq!(seen.status, 200, "{path}: {seen:?}");
        assert!(
            seen.head.contains(&format!("content-type: {content_type}")),
            "{seen:?}"
        );
        assert!(
            seen.head
                .contains("content-security-policy: default-src 'none'"),
            "{seen:?}"
        );
        assert!(seen.body.contains(part), "{path}: {seen:?}");
        // Security: nobody proves who they are over TCP, so that nothing there names a key.
        let seen = operator.ask_tcp(path);
        assert_eq!(seen.status, 404, "{path}: {seen:?}");
        assert!(
            seen.body.contains("everything else is at the socket"),
            "{seen:?}"
        );
    }
    for path in [
        "/no",
        "/livez/",
        "//livez",
        "/LIVEZ",
        "/../status.json",
        "/status.json/x",
    ] {
        assert_eq!(operator.ask(path).status, 404, "{path}");
        assert_eq!(operator.ask_tcp(path).status, 404, "{path}");
    }
    let open = "Host: localhost\r\nAccept: application/openmetrics-text;version=1.0.0\r\n";
    let seen = said(operator.over_tcp(), "GET /metrics", open);
    assert!(
        seen.head
            .contains("application/openmetrics-text; version=1.0.0"),
        "{seen:?}"
    );
    assert!(seen.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn only_get_and_head_are_answered_and_head_has_no_body() {
    let token = Token::with_key();
    let server = token.serve(&watched(&token, &token.config())).await;
    let operator = Operator::new(&token, &server).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
        for connection in operator.both() {
            let seen = said(
                connection,
                &format!("{method} /livez"),
                "Host: localhost\r\n",
            );
            assert_eq!(seen.status, 405, "{method}: {seen:?}");
            assert!(seen.head.contains("allow: get, head"), "{seen:?}");
        }
    }
    for connection in operator.both() {
        let seen = said(connection, "HEAD /livez", "Host: localhost\r\n");
        assert_eq!((seen.status, seen.body.as_str()), (200, ""), "{seen:?}");
        assert!(seen.head.contains("content-length: 6"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_web_page_under_a_name_of_its_own_cannot_read_the_state() {
    let token = Token::with_key();
    let server = token.serve(&watched(&token, &token.config())).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    let status = |host: &str| {
        let header = format!("Host: {host}\r\n");
        said(operator.over_socket(), "GET /status.json", &header).status
    };
    for host in [
        "localhost",
        "LocalHost:8461",
        "127.0.0.1",
        "127.9.9.9:80",
        "[::1]:8461",
        "[::1]",
    ] {
        assert_eq!(status(host), 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "192.0.2.1",
        "[::2]",
        "0.0.0.0",
        "",
        "local host",
    ] {
        assert!(matches!(status(host), 400 | 403), "{host}");
    }
    let seen = said(operator.over_socket(), "GET /", "");
    assert_eq!(seen.status, 403, "no Host at all: {seen:?}");
    let absolute = "GET http://evil.example/status.json";
    let seen = said(operator.over_socket(), absolute, "Host: evil.example\r\n");
    assert_eq!(seen.status, 403, "{seen:?}");
    // Probes are asked by address and by any name.
    assert_eq!(operator.ask_tcp("/livez").status, 200);
}

#[tokio::test]
async fn bytes_that_are_no_request_end_their_connection_alone() {
    let token = Token::with_key();
    let server = token.serve(&watched(&token, &token.config())).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    let huge = format!(
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let mut many = "GET /livez HTTP/1.1\r\nHost: localhost\r\n".to_owned();
    for number in 0..500 {
        write!(many, "X-{number}: y\r\n").unwrap();
    }
    many.push_str("\r\n");
    let binary = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0xff, 0x00, b'\n', b'\n'];
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let bad: [&[u8]; 6] = [
        huge.as_bytes(),
        many.as_bytes(),
        &binary,
        preface.as_bytes(),
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 2\r\n\r\n",
        b"GET /livez\x00 HTTP/1.1\r\n\r\n",
    ];
    for bytes in bad {
        for mut connection in operator.both() {
            // The server may close before it has read everything.
            let _ = connection.write_all(bytes);
            let answer = to_the_end(connection);
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
                "{:?}: {answer}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
            );
        }
    }
    for connection in operator.both() {
        // Half a head, and no more to come.
        let mut connection = connection;
        connection
            .write_all(b"GET /livez HTTP/1.1\r\nHost: lo")
            .unwrap();
        connection.end();
        assert!(!to_the_end(connection).contains("200"));
    }
    assert_eq!(operator.ask("/livez").status, 200);
    assert_eq!(operator.ask_tcp("/livez").status, 200);
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn requests_in_one_piece_are_answered_in_order_on_the_socket_and_one_alone_over_tcp() {
    let token = Token::with_key();
    let server = token.serve(&watched(&token, &token.config())).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let pieces = [
        request("/livez").repeat(50),
        request("/no"),
        request("/readyz"),
    ]
    .concat();
    let answers = |mut connection: Box<dyn Connection>| {
        connection.write_all(pieces.as_bytes()).unwrap();
        connection.end();
        to_the_end(connection)
    };
    // It has said all that it asks, and often the server knows so before it answers the last.
    for _ in 0..100 {
        let [socket, _] = operator.both();
        let seen = answers(socket);
        assert_eq!(seen.matches("HTTP/1.1 200 OK").count(), 51, "{seen}");
        assert_eq!(seen.matches("HTTP/1.1 404").count(), 1, "{seen}");
        assert!(seen.ends_with("1 of 1 tokens serve\n"), "{seen}");
    }
    let [_, tcp] = operator.both();
    let seen = answers(tcp);
    assert_eq!(seen.matches("HTTP/1.1").count(), 1, "{seen}");
}

/// Over TCP a peer has ten seconds, whatever it does: 64 of them do not keep out a prober for longer.
#[tokio::test]
async fn slow_peers_are_closed_and_let_others_in() {
    let token = Token::with_key();
    let server = token.serve(&watched(&token, &token.config())).await;
    let operator = Operator::new(&token, &server).await;
    let mut slow = Vec::new();
    for number in 0..64 {
        let mut connection = operator.over_tcp();
        if number % 2 == 0 {
            connection
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: lo")
                .unwrap();
        }
        slow.push(connection);
    }
    // It waits until one of those is closed.
    assert_eq!(operator.ask_tcp("/livez").status, 200);
    // The socket has places of its own.
    assert_eq!(operator.ask("/livez").status, 200);
    for connection in slow {
        let left = to_the_end(connection);
        assert!(!left.contains("200"), "{left}");
    }
    assert_eq!(operator.ask_tcp("/livez").status, 200);
}

#[tokio::test]
async fn a_server_that_starts_is_alive_and_not_ready() {
    let token = Token::with_key();
    token.rules("hang C_Initialize");
    let server = token.spawn(&with_faults(
        &token,
        "hosts = 1\nsessions = 1\nstart_timeout = \"60s\"\n",
    ));
    let operator = Operator::new(&token, &server).await;
    for path in ["/readyz", "/metrics"] {
        for seen in [operator.ask(path), operator.ask_tcp(path)] {
            assert_eq!(
                (seen.status, seen.body.as_str()),
                (503, "[-] serving: hsmac starts\n")
            );
        }
    }
    assert_eq!(operator.ask("/status.json").status, 503);
    // Who has the page open while hsmac starts is told by the page.
    assert_eq!(operator.ask("/").status, 200);
    assert_eq!(operator.ask("/livez").status, 200);
    assert_eq!(operator.ask_tcp("/livez").status, 200);
    token.rules("");
    operator.until_ready(200).await;
}

#[tokio::test]
async fn a_hung_token_is_told_of_and_hsmac_is_alive_all_the_while() {
    let token = Token::with_key();
    let settings = "hosts = 1\nsessions = 2\ncall_timeout = \"1s\"\n";
    let server = token.serve(&with_faults(&token, settings)).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    // The key is found: a search may take longer than a MAC, and so may one that hangs.
    server
        .mac()
        .await
        .generate_mac(request(b"x"))
        .await
        .unwrap();
    token.rules("hang C_*");
    // More calls than there are workers, and than there are sessions.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let mut client = server.mac().await;
        calls.spawn(async move { client.generate_mac(request(b"x")).await });
    }
    operator
        .until_counted(
            "hsmac_host_ends_total{token=\"primary\",reason=\"hang\"}",
            1,
        )
        .await;
    assert_eq!(operator.ask_tcp("/livez").body, "alive\n");
    let said = operator.until_ready(503).await;
    assert!(
        said.contains("[-] token: 0 of 1 tokens serve; primary: "),
        "{said}"
    );
    assert!(said.contains("[+] serving: listening"), "{said}");
    let state = operator.status();
    assert_eq!(state["ready"], false);
    let summary = state["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("Not ready: 0 of 1 tokens serve; primary: "),
        "{summary}"
    );
    assert_eq!(operator.ask("/livez").body, "alive\n");
    token.rules("");
    operator.until_ready(200).await;
    drop(calls);
}

#[tokio::test]
async fn one_of_two_tokens_that_is_away_is_named_and_the_server_stays_ready() {
    let token = Token::with_key();
    let other = Token::with_key();
    other.rules("");
    let config = with_faults(&token, "hosts = 1\nsessions = 1\ngroup = \"twins\"\n");
    let (head, keys) = config.split_once("[[key]]").unwrap();
    let (_, section) = with_faults(&other, "hosts = 1\nsessions = 1\ngroup = \"twins\"\n")
        .split_once("[token.primary]")
        .map(|(head, rest)| (head.to_owned(), rest.to_owned()))
        .unwrap();
    let (section, _) = section.split_once("[[key]]").unwrap();
    let pin = other.path("pin").display().to_string();
    let section = section.replace("pin_file = \"pin\"", &format!("pin_file = \"{pin}\""));
    let config = format!("{head}[token.second]{section}[[key]]{keys}");
    let server = token.serve(&config).await;
    server.serving(2).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    // A token is asked for nothing, and not seen to be away, while nobody calls.
    let mut client = server.mac().await;
    let load = tokio::spawn(async move {
        loop {
            let made = client.generate_mac(request(b"x")).await.unwrap();
            assert_eq!(made.into_inner().mac, hmac_sha256(&KEY, b"x"));
        }
    });
    other.rules("hide token");
    let mut seen = Vec::new();
    until("the page says which token is away", || {
        let ready = operator.ask_tcp("/readyz");
        seen.push(ready.status);
        ready
            .body
            .contains("[+] token: 1 of 2 tokens serve; second: ")
            .then_some(())
    })
    .await;
    // Away and back, asked all the while.
    for rules in ["", "hide token"] {
        other.rules(rules);
        let state = if rules.is_empty() { "up" } else { "away" };
        until(state, || {
            seen.push(operator.ask_tcp("/readyz").status);
            let status = operator.status();
            let tokens = status["groups"][0]["tokens"].as_array().unwrap().clone();
            tokens
                .iter()
                .any(|token| token["name"] == "second" && token["state"] == state)
                .then_some(())
        })
        .await;
    }
    assert!(
        seen.iter().all(|status| *status == 200),
        "it flapped: {seen:?}"
    );
    assert!(!load.is_finished(), "{:?}", load.await);
    load.abort();
}

#[tokio::test]
async fn a_server_that_ends_is_not_ready_until_it_has_ended() {
    let token = Token::with_key();
    let mut server = token
        .serve(&with_faults(&token, "hosts = 1\nsessions = 1\n"))
        .await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    token.rules("hang C_Sign");
    let mut client = server.mac().await;
    let call = tokio::spawn(async move { client.generate_mac(request(b"x")).await });
    operator
        .until_metric("hsmac_sessions{token=\"primary\",state=\"busy\"}", "1.0")
        .await;
    crate::support::signal(server.child.id(), "TERM");
    let said = operator.until_ready(503).await;
    assert!(said.contains("[-] serving: hsmac is ending"), "{said}");
    assert_eq!(operator.ask("/livez").status, 200);
    token.rules("");
    assert!(server.ended().await.success());
    call.await.unwrap().unwrap();
    assert!(!operator.socket.exists());
}

#[tokio::test]
async fn counters_count_what_has_happened() {
    let token = Token::with_key();
    token.import("second", "02", &KEY);
    let config = with_faults(&token, "hosts = 1\nsessions = 1\n") + &token.store();
    let server = token.serve(&config).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    let grpc = |operation: &str, exception: &str| {
        let series = format!(
            "hsmac_calls_total{{wire=\"grpc\",operation=\"{operation}\",exception=\"{exception}\"}}"
        );
        operator.metric(&series)
    };
    assert_eq!(grpc("GenerateMac", "").as_deref(), Some("0"));
    for _ in 0..3 {
        server.mac_with(KEY_ID, b"x").await.unwrap();
    }
    let unknown = "99999999-9999-4999-8999-999999999999";
    server.mac_with(unknown, b"x").await.unwrap_err();
    let mut client = server.mac().await;
    client
        .verify_mac(verify_request(b"x", &[0; 32]))
        .await
        .unwrap_err();
    let made = server.create().await.unwrap();
    let mut keys = server.keys().await;
    let disable = DisableKeyRequest {
        key_id: made.clone(),
    };
    keys.disable_key(disable).await.unwrap();
    server.mac_with(&made, b"x").await.unwrap_err();
    let schedule = ScheduleKeyDeletionRequest {
        key_id: made.clone(),
        ..ScheduleKeyDeletionRequest::default()
    };
    keys.schedule_key_deletion(schedule).await.unwrap();
    server.mac_with(&made, b"x").await.unwrap_err();
    for (operation, exception, count) in [
        ("GenerateMac", "", "3"),
        ("GenerateMac", "NotFoundException", "1"),
        ("GenerateMac", "DisabledException", "1"),
        ("GenerateMac", "KMSInvalidStateException", "1"),
        ("VerifyMac", "KMSInvalidMacException", "1"),
        ("CreateKey", "", "1"),
        ("ScheduleKeyDeletion", "", "1"),
    ] {
        let seen = grpc(operation, exception);
        assert_eq!(seen.as_deref(), Some(count), "{operation} {exception}");
    }
    for (series, value) in [
        (
            "hsmac_call_duration_seconds_count{wire=\"grpc\",operation=\"GenerateMac\"}",
            "6",
        ),
        ("hsmac_mac_mismatches_total", "1"),
        ("hsmac_deletion_alarms", "0.0"),
        ("hsmac_store_faults_total{fault=\"away\"}", "0"),
        ("hsmac_pending_deletion_calls_total", "1"),
        ("hsmac_keys{state=\"Enabled\"}", "1.0"),
        ("hsmac_keys{state=\"PendingDeletion\"}", "1.0"),
        ("hsmac_token_state{token=\"primary\",state=\"up\"}", "1.0"),
        ("hsmac_hosts_configured{token=\"primary\"}", "1.0"),
        (
            "hsmac_token_call_duration_seconds_count{token=\"primary\",function=\"generate\"}",
            "1",
        ),
    ] {
        assert_eq!(operator.metric(series).as_deref(), Some(value), "{series}");
    }
    // CreateKey's intent and record, DisableKey, ScheduleKeyDeletion.
    operator
        .until_counted("hsmac_store_commit_seconds_count", 4)
        .await;
    for _ in 0..16 {
        server.mac_with(KEY_ID, b"x").await.unwrap();
    }
    for stage in ["authenticate", "authorize"] {
        let timed = format!("hsmac_stage_duration_seconds_count{{stage=\"{stage}\"}}");
        operator.until_counted(&timed, 1).await;
    }
    let status = operator.status();
    assert_eq!(status["deletions"].as_array().unwrap().len(), 1, "{status}");
    assert!(
        operator
            .metric("hsmac_next_deletion_timestamp_seconds")
            .is_some()
    );
}

#[tokio::test]
async fn ends_of_hosts_are_counted_by_their_cause() {
    let token = Token::with_key();
    let server = token
        .serve(&with_faults(&token, "hosts = 1\nsessions = 1\n"))
        .await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    server.mac_with(KEY_ID, b"x").await.unwrap();
    token.rules("crash C_Sign once b");
    let crashed = "hsmac_host_ends_total{token=\"primary\",reason=\"crash\"}";
    assert_eq!(operator.metric(crashed).as_deref(), Some("0"));
    server.mac_with(KEY_ID, b"x").await.unwrap();
    operator.until_metric(crashed, "1").await;
    let moved = "hsmac_jobs_moved_total{group=\"primary\",reason=\"host\"}";
    operator.until_metric(moved, "1").await;
    let status = operator.status();
    let seen = &status["groups"][0]["tokens"][0];
    assert_eq!(seen["host_ends"]["crash"], 1, "{seen}");
}

#[tokio::test]
async fn who_is_refused_is_told_on_both_apis_and_keeps_its_secrets() {
    let token = Token::with_key();
    let nothing = r#"{"Statement": {"Effect": "Deny", "Action": "kms:*", "Resource": "*"}}"#;
    fs::write(token.path("caller.json"), nothing).unwrap();
    let config = watched(&token, &token.config());
    let aws = token.path("aws.sock");
    let aws_section = format!("[aws]\nlisten = \"unix:{}\"\n\n[admin]", aws.display());
    token.write_pin_file("secret", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let config = config.replacen("[admin]", &aws_section, 1).replace(
        "policy_file",
        "access_key_id = \"AKIAIOSFODNN7EXAMPLE\"\nsecret_access_key_file = \"secret\"\npolicy_file",
    );
    let server = token.serve(&config).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    for _ in 0..3 {
        server.mac_with(KEY_ID, b"x").await.unwrap_err();
    }
    let unsigned = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\n\
        X-Amz-Target: TrentService.GenerateMac\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let seen = heard(UnixStream::connect(aws).unwrap(), unsigned.as_bytes());
    assert!(
        seen.body.contains("MissingAuthenticationTokenException"),
        "{seen:?}"
    );
    let aws = "hsmac_calls_total{wire=\"aws\",operation=\"GenerateMac\",exception=\"MissingAuthenticationTokenException\"}";
    for (series, value) in [
        (
            "hsmac_denied_total{wire=\"grpc\",operation=\"GenerateMac\"}",
            "3",
        ),
        (aws, "1"),
        (
            "hsmac_authentication_failures_total{wire=\"aws\",exception=\"MissingAuthenticationTokenException\"}",
            "1",
        ),
    ] {
        assert_eq!(operator.metric(series).as_deref(), Some(value), "{series}");
    }
    let status = operator.status();
    let refusals = status["refusals"].as_array().unwrap();
    assert_eq!(refusals.len(), 2, "{status}");
    let denied = refusals.iter().find(|one| one["wire"] == "grpc").unwrap();
    assert_eq!(
        (&denied["caller"], &denied["count"]),
        (&CALLER.into(), &3.into()),
        "{denied}"
    );
    let unknown = refusals.iter().find(|one| one["wire"] == "aws").unwrap();
    assert_eq!(
        (&unknown["caller"], &unknown["count"]),
        (&Value::Null, &1.into()),
        "{unknown}"
    );
    let request_id = unknown["request_id"].as_str().unwrap();
    assert!(seen.head.contains(request_id), "{seen:?} {request_id}");
}

/// 10,000 keys and 1,000 principals, each of whom has called: as many series as without them.
#[tokio::test]
async fn no_key_and_no_principal_is_in_a_label() {
    let token = Token::with_key();
    token.seed_many(10_000).await;
    let mut config = watched(&token, &token.config()) + &token.store();
    for number in 0..1_000 {
        write!(
            config,
            "[[principal]]\narn = \"arn:aws:iam::111122223333:user/p{number}\"\npolicy_file = \"caller.json\"\n"
        )
        .unwrap();
    }
    let server = token.serve(&config).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    server.mac_with(KEY_ID, b"x").await.unwrap();
    server.mac_with("alias/nobody", b"x").await.unwrap_err();
    let metrics = operator.ask_tcp("/metrics").body;
    assert!(
        metrics.contains("hsmac_keys{state=\"Unavailable\"}"),
        "{metrics}"
    );
    let series = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count();
    assert!((200..3_000).contains(&series), "{series} series");
    for secret in [
        "arn:", "user/", KEY_ID, KEY_ARN, "alias/", "cafe", PIN, TOKEN,
    ] {
        assert!(
            !metrics.contains(secret),
            "Security: {secret} is in the metrics"
        );
    }
    let status = operator.ask("/status.json").body;
    assert!(!status.contains(PIN));
    let status: Value = serde_json::from_str(&status).unwrap();
    assert!(
        status["troubled_keys"].as_array().unwrap().len() <= 20,
        "{status}"
    );
}

#[tokio::test]
async fn an_address_or_path_that_cannot_be_had_is_named() {
    let token = Token::with_key();
    let first = token.serve(&watched(&token, &token.config())).await;
    let operator = Operator::new(&token, &first).await;
    operator.until_ready(200).await;
    let other = Token::with_key();
    let config = watched(&other, &other.config());
    let taken = config.replace("127.0.0.1:0", &operator.tcp);
    let mut refused = other.spawn(&taken);
    assert_eq!(refused.ended().await.code(), Some(78));
    let said = format!(
        "admin.listen: {} is in use by another process",
        operator.tcp
    );
    assert!(refused.log().contains(&said), "{}", refused.log());
    let theirs = other.path("admin.sock").display().to_string();
    let taken = config.replace(&theirs, &operator.socket.display().to_string());
    let mut refused = other.spawn(&taken);
    assert_eq!(refused.ended().await.code(), Some(78));
    assert!(
        refused.log().contains("admin.socket: unix:"),
        "{}",
        refused.log()
    );
    // The first has lost nothing.
    assert_eq!(operator.ask("/livez").status, 200);
}
