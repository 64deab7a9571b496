//! The log: its level and its format while hsmac runs, and the events that it consists of.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use crate::support::{Server, Token, signal, until};

/// The events that `docs/events.md` has.
fn known() -> BTreeSet<String> {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
    let table = fs::read_to_string(table).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let events: BTreeSet<String> = rows
        .filter_map(|row| Some(row.split_once('`')?.0.to_owned()))
        .collect();
    assert!(events.len() > 50, "{events:?}");
    events
}

/// The lines, each of which must be an object that is a known event, or below info.
fn read(log: &str) -> Vec<Value> {
    let known = known();
    let lines = log.lines().map(|line| {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let event = line["event"].as_str().unwrap_or("none");
        let is_low = matches!(line["level"].as_str(), Some("DEBUG" | "TRACE"));
        assert!(is_low || known.contains(event), "{line}");
        assert!(
            line["timestamp"].is_string() && line["target"].is_string(),
            "{line}"
        );
        line
    });
    lines.collect()
}

async fn until_event(server: &Server, event: &str) -> Value {
    until(event, || {
        let log = server.log();
        // The last line may still be in the writing.
        let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
        let mut lines = read(whole).into_iter();
        lines.find(|line| line["event"] == event)
    })
    .await
}

const JSON: [(&str, &str); 1] = [("HSMAC__LOG__FORMAT", "json")];

#[tokio::test]
async fn json_holds_from_the_first_line_to_the_last_and_each_line_is_an_event() {
    let token = Token::with_key();
    let mut server = token.spawn_with(&(token.config() + &token.store()), &JSON);
    let up = until_event(&server, "token_up").await;
    assert_eq!((&up["token"], &up["hosts"]), (&"primary".into(), &1.into()));
    assert!(up["after_s"].as_f64().unwrap() > 0.0, "{up}");
    until_event(&server, "listening").await;
    signal(server.child.id(), "TERM");
    assert!(server.ended().await.success());
    let lines = read(&server.log());
    let first = &lines[0];
    assert_eq!(first["event"], "starting");
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(first["process"], "front");
    assert_eq!(first["pid"], server.child.id());
    let file = token.path("hsmac.toml");
    assert_eq!(first["configuration"], file.to_str().unwrap());
    assert_eq!(lines.last().unwrap()["event"], "stopped");
}

#[tokio::test]
async fn a_start_that_fails_is_told_in_json_too_one_line_a_reason() {
    let token = Token::with_key();
    let config = token
        .config()
        .replace("reflection = true", "reflexion = true")
        .replace("hosts = 1", "hosts = \"many\"");
    let mut server = token.spawn_with(&config, &JSON);
    assert_eq!(server.ended().await.code(), Some(78));
    let lines = read(&server.log());
    assert_eq!(lines[0]["event"], "starting");
    let reasons: Vec<&str> = lines[1..]
        .iter()
        .map(|line| {
            assert_eq!(line["event"], "start_failed");
            assert_eq!(line["exit_code"], 78);
            line["reason"].as_str().unwrap()
        })
        .collect();
    assert!(
        reasons[0].contains("grpc.reflexion: no such setting"),
        "{reasons:?}"
    );
    assert!(
        reasons[1].contains("\"many\" is not a whole number"),
        "{reasons:?}"
    );

    // The file's own format counts, even where the rest of it is no TOML for hsmac.
    let output = Command::new(env!("CARGO_BIN_EXE_hsmac"))
        .args(["serve", "--config"])
        .arg(token.path("not-there.toml"))
        .args(["--set", "log.format=json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let lines = read(&String::from_utf8(output.stderr).unwrap());
    assert!(
        lines[1]["reason"]
            .as_str()
            .unwrap()
            .contains("No such file")
    );
}

#[tokio::test]
async fn level_and_format_change_with_a_reload() {
    let token = Token::with_key();
    let log = |lines: &str| token.config() + "[log]\n" + lines;
    // The environment would count more than the file.
    let mut command = Command::new(env!("CARGO_BIN_EXE_hsmac"));
    command.env_remove("HSMAC__LOG__FORMAT");
    command.env("HSMAC__LOG__FORMAT", "text");
    let mut server = token.spawn_command(command, &log("level = \"warn\"\n"));
    // Of the start nothing is seen at this level.
    until("a host", || (!server.hosts().is_empty()).then_some(())).await;
    fs::write(token.path("hsmac.toml"), log("level = \"debug\"\n")).unwrap();
    signal(server.child.id(), "HUP");
    server.until_log("reloaded what=").await;
    assert!(
        !server.log().contains("the token is up"),
        "{}",
        server.log()
    );
    let mut client = server.mac().await;
    client
        .generate_mac(crate::support::request(b"x"))
        .await
        .unwrap();
    server.until_log("a call was answered").await;
    let said = server.log();
    assert!(!said.contains("h2::") && !said.contains("hyper"), "{said}");
    // What is wrong is refused, and names what was meant.
    fs::write(token.path("hsmac.toml"), log("level = \"warning\"\n")).unwrap();
    signal(server.child.id(), "HUP");
    server.until_log("did you mean warn?").await;
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn the_level_is_another_one_for_a_time_and_ends_by_itself() {
    let token = Token::with_key();
    let config = token.config()
        + "[admin]\nsocket = \""
        + token.path("admin.sock").to_str().unwrap()
        + "\"\n";
    let mut server = token.serve(&config).await;
    let asked = |arguments: &[&str]| {
        let mut all = vec!["log-level"];
        all.extend(arguments);
        all.extend(["--config", "hsmac.toml"]);
        token.hsmac(&all)
    };
    assert_eq!(asked(&[]).stdout, "info, as configured\n");
    let set = asked(&["debug", "--for", "10m"]);
    assert!(set.stdout.starts_with("debug for 6"), "{set:?}");
    let mut client = server.mac().await;
    client
        .generate_mac(crate::support::request(b"x"))
        .await
        .unwrap();
    server.until_log("a call was answered").await;
    assert_eq!(asked(&["--end"]).stdout, "info, as configured\n");
    let set = asked(&["info,hsmac::token=debug", "--for", "1s"]);
    assert!(set.stdout.contains("then info again"), "{set:?}");
    until("the end of the second time", || {
        let ends = "the log has the configuration's level again";
        (server.log().matches(ends).count() == 2).then_some(())
    })
    .await;
    assert_eq!(asked(&[]).stdout, "info, as configured\n");
    for (wrong, said) in [
        (vec!["warning"], "did you mean warn?"),
        (vec!["hsmc=debug"], "did you mean hsmac?"),
        (vec!["debug", "--for", "soon"], "is no time"),
        (vec!["debug", "--for", "48h"], "from 1 to 86400"),
    ] {
        let refused = asked(&wrong);
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
    assert!(server.terminate().await.success());
    let gone = asked(&[]);
    assert_eq!(gone.status.code(), Some(69), "{gone:?}");
    assert!(gone.stderr.contains("is hsmac running"), "{gone:?}");
}

/// One ID leads from the client's answer through the log: outcome, time, token and host, and what the client
/// calls the request itself.
#[tokio::test]
async fn a_call_is_found_by_its_request_id_and_by_the_client_s_own() {
    let token = Token::with_key();
    let config = token.config() + "[log]\nlevel = \"debug\"\n";
    let mut server = token.spawn_with(&config, &JSON);
    until_event(&server, "token_up").await;
    until_event(&server, "listening").await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut request = tonic::Request::new(crate::support::request(b"x"));
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", "order-17".parse().unwrap());
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    metadata.insert("traceparent", parent.parse().unwrap());
    let answer = server.mac().await.generate_mac(request).await.unwrap();
    let id = answer.metadata().get("x-request-id").unwrap();
    let id = id.to_str().unwrap().to_owned();
    assert_ne!(id, "order-17", "hsmac's IDs are its own");
    signal(server.child.id(), "TERM");
    assert!(server.ended().await.success());
    let log = server.log();
    let lines = read(&log).into_iter();
    let of_call: Vec<Value> = lines.filter(|line| line["request_id"] == *id).collect();
    let said = |words: &str| {
        let mut lines = of_call.iter();
        let line = lines.find(|line| line["message"] == words);
        line.unwrap_or_else(|| panic!("no {words:?} of {id} in {log}"))
    };
    let answered = said("a call was answered");
    assert_eq!(answered["operation"], "GenerateMac");
    assert_eq!(answered["token"], "primary");
    assert!(answered["host"].as_u64().unwrap() > 0, "{answered}");
    assert!(answered["took_s"].as_f64().unwrap() > 0.0, "{answered}");
    // What happened inside of the call says whose it is too.
    for line in [answered, said("allowed")] {
        assert_eq!(line["client_request_id"], "order-17", "{line}");
        assert_eq!(line["trace_id"], trace, "{line}");
    }
}
