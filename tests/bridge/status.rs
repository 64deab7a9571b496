//! `hsmac status`, the real one, beside a real server.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output, Stdio},
};

use hsmac::proto::v1::{CreateKeyRequest, KeySpec, KeyUsage, ScheduleKeyDeletionRequest};
use serde_json::Value;

use crate::{
    operator::{Operator, watched, with_faults},
    support::{KEY_ID, Token, request, until},
};

fn status(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hsmac"))
        .arg("status")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn of_config(token: &Token, more: &[&str]) -> Output {
    let config = token.path("hsmac.toml");
    status(&[&["--config", config.to_str().unwrap()], more].concat())
}

fn words(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test]
async fn a_server_that_is_well_is_shown_on_a_page_and_ends_it_with_0() {
    let token = Token::with_key();
    let config = watched(&token, &token.config()) + &token.store();
    let server = token.serve(&config).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    for _ in 0..3 {
        server.mac_with(KEY_ID, b"x").await.unwrap();
    }
    let mut keys = server.keys().await;
    let create = CreateKeyRequest {
        key_spec: KeySpec::Hmac256 as i32,
        key_usage: KeyUsage::GenerateVerifyMac as i32,
        description: "\u{1b}[2Jof last year".to_owned(),
        ..CreateKeyRequest::default()
    };
    let made = keys.create_key(create).await.unwrap().into_inner();
    let key_id = made.key_metadata.unwrap().key_id;
    let schedule = ScheduleKeyDeletionRequest {
        key_id: key_id.clone(),
        ..ScheduleKeyDeletionRequest::default()
    };
    keys.schedule_key_deletion(schedule).await.unwrap();
    let seen = of_config(&token, &[]);
    let (code, said, errors) = words(&seen);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{said}");
    for part in [
        "● All is well.\n",
        "  ● token: 1 of 1 tokens serve\n",
        "  ● primary  up for ",
        "1 of 1 hosts serve; 0 of 2 sessions busy",
        "  1 Enabled, 1 PendingDeletion\n",
        &format!("{key_id} \"\\u{{1b}}[2Jof last year\" is deleted\n"),
        " days: arn:aws:kms:us-west-2:111122223333:key/",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert!(
        !said.contains('\u{1b}'),
        "Security: no colours, and nothing that a key's owner wrote, in a pipe"
    );
    let calls = said
        .lines()
        .find(|line| line.starts_with("  GenerateMac"))
        .unwrap();
    assert!(calls.ends_with(" 3"), "{calls}");
    let json = of_config(&token, &["--output", "json"]);
    let (code, said, _) = words(&json);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &report["summary"]),
        (Some(0), &"All is well.".into())
    );
    assert_eq!(
        report["deletions"][0]["description"],
        "\u{1b}[2Jof last year"
    );
}

/// What `script` (util-linux) gives a program as its terminal.
fn on_a_terminal(token: &Token, environment: &str) -> String {
    let socket = token.path("admin.sock").display().to_string();
    let command = format!(
        "env {environment} {} status --socket {socket}",
        env!("CARGO_BIN_EXE_hsmac")
    );
    let seen = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(seen.status.success(), "{seen:?}");
    String::from_utf8(seen.stdout).unwrap()
}

#[tokio::test]
async fn colours_are_for_terminals_and_for_who_wants_them() {
    let token = Token::with_key();
    let server = token.serve(&watched(&token, &token.config())).await;
    Operator::new(&token, &server).await.until_ready(200).await;
    let green = "\u{1b}[32m●\u{1b}[0m";
    let seen = on_a_terminal(&token, "-u NO_COLOR TERM=xterm");
    assert!(seen.contains(green), "{seen}");
    let seen = on_a_terminal(&token, "NO_COLOR= TERM=xterm");
    assert!(
        seen.contains(green),
        "an empty NO_COLOR says nothing: {seen}"
    );
    for quiet in ["NO_COLOR=1 TERM=xterm", "-u NO_COLOR TERM=dumb"] {
        let seen = on_a_terminal(&token, quiet);
        assert!(
            seen.contains("● ") && !seen.contains('\u{1b}'),
            "{quiet}: {seen}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_ready_says_why_and_what_to_do_and_ends_it_with_1() {
    let token = Token::with_key();
    token.rules("hide token");
    let mut server = token.spawn(&with_faults(&token, "hosts = 1\nsessions = 1\n"));
    server.until_log("listening address=unix:").await;
    let operator = Operator::new(&token, &server).await;
    until("the token is away", || {
        let ready = operator.ask_tcp("/readyz");
        ready.body.contains("no token matches").then_some(())
    })
    .await;
    server
        .mac()
        .await
        .generate_mac(request(b"x"))
        .await
        .unwrap_err();
    let (code, said, errors) = words(&of_config(&token, &[]));
    assert_eq!((code, errors.as_str()), (Some(1), ""), "{said}");
    for part in [
        "✖ Not ready: 0 of 1 tokens serve; primary: ",
        "  Do: ",
        "  ✖ primary  ",
        "Last faults of ours",
        "GenerateMac (grpc) KeyUnavailableException",
        "Look at the token's state and at the key in trouble; clients retry.",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let (code, said, _) = words(&of_config(&token, &["--output", "json"]));
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &report["ready"]), (Some(1), &false.into()));
    token.rules("");
    operator.until_ready(200).await;
    assert_eq!(of_config(&token, &[]).status.code(), Some(0));
}

#[tokio::test]
async fn a_server_that_starts_is_not_ready_and_answers() {
    let token = Token::with_key();
    token.rules("hang C_Initialize");
    let settings = "hosts = 1\nsessions = 1\nstart_timeout = \"60s\"\n";
    let server = token.spawn(&with_faults(&token, settings));
    Operator::new(&token, &server).await;
    let (code, said, errors) = words(&of_config(&token, &[]));
    assert_eq!((code, said.as_str()), (Some(1), ""), "{errors}");
    assert!(
        errors.contains("not ready yet: [-] serving: hsmac starts")
            && errors.contains("journalctl -u hsmac"),
        "{errors}"
    );
    token.rules("");
}

/// Somebody looks because something is broken, and that may be the configuration.
#[tokio::test]
async fn a_configuration_that_is_broken_since_the_start_still_says_where_the_socket_is() {
    let token = Token::with_key();
    let config = watched(&token, &token.config());
    let server = token.serve(&config).await;
    Operator::new(&token, &server).await.until_ready(200).await;
    let broken = config.replace("hosts = 1", "hosts = \"many\"\nhots = 2");
    fs::write(token.path("hsmac.toml"), broken).unwrap();
    let (code, said, errors) = words(&of_config(&token, &[]));
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{said}");
    // A path that is not absolute begins beside the file, for the server and for who asks it.
    let socket = format!("{:?}", token.path("admin.sock"));
    assert!(config.contains(&socket), "{config}");
    let beside = config.replace(&socket, "\"admin.sock\"");
    fs::write(token.path("hsmac.toml"), beside).unwrap();
    let (code, said, errors) = words(&of_config(&token, &[]));
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{said}");
    // What is no TOML at all names no socket.
    fs::write(token.path("hsmac.toml"), "[admin\n").unwrap();
    let (code, _, errors) = words(&of_config(&token, &[]));
    assert_eq!(code, Some(78), "{errors}");
    assert!(
        errors.contains("hsmac.toml:1") && errors.contains("--socket PATH"),
        "{errors}"
    );
}

#[tokio::test]
async fn who_cannot_be_reached_is_69_and_the_error_says_what_to_type() {
    let token = Token::with_key();
    let mut server = token.serve(&watched(&token, &token.config())).await;
    Operator::new(&token, &server).await.until_ready(200).await;
    // Killed, it leaves its socket.
    server.child.kill().unwrap();
    server.ended().await;
    let (code, said, errors) = words(&of_config(&token, &[]));
    assert_eq!((code, said.as_str()), (Some(69), ""), "{errors}");
    assert!(
        errors.starts_with("hsmac: hsmac is not running: it has left ")
            && errors.contains("journalctl -u hsmac"),
        "{errors}"
    );
    fs::remove_file(token.path("admin.sock")).unwrap();
    let (code, _, errors) = words(&of_config(&token, &[]));
    assert_eq!(code, Some(69));
    assert!(errors.contains("systemctl status hsmac"), "{errors}");
    // Somebody else listens there.
    let foreign = UnixListener::bind(token.path("admin.sock")).unwrap();
    let answers = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for answer in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n",
            "220 mail\r\n",
        ] {
            let (mut stream, _) = foreign.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for part in ["does not seem to be the admin socket", "cannot be asked at"] {
        let (code, _, errors) = words(&of_config(&token, &[]));
        assert_eq!(code, Some(69), "{errors}");
        assert!(errors.contains(part), "{errors}");
    }
    answers.join().unwrap();
    // No socket is configured at all.
    fs::write(token.path("hsmac.toml"), token.config()).unwrap();
    let (code, _, errors) = words(&of_config(&token, &[]));
    assert_eq!(code, Some(78));
    assert!(
        errors.contains("admin.socket: is not set") && errors.contains("systemctl restart hsmac"),
        "{errors}"
    );
    let nowhere = Path::new("/nowhere/hsmac.toml");
    let (code, _, errors) = words(&status(&["--config", nowhere.to_str().unwrap()]));
    assert_eq!(code, Some(78), "{errors}");
    let both = ["--config", "a", "--socket", "b"];
    assert_eq!(status(&both).status.code(), Some(64));
}
