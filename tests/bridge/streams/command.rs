//! `hsmac kms generate-macs` and `verify-macs`.

use std::{fmt::Write as _, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::support::{KEY, Output, Token, Usage, hmac_sha256, signal, until};

/// The MAC of a message, as the command writes it.
fn mac(message: &str) -> String {
    STANDARD.encode(hmac_sha256(&KEY, message.as_bytes()))
}

/// Runs a verb with the usual key.
fn run(token: &Token, verb: &str, line: &str) -> Output {
    let usual = "--key-id alias/test --mac-algorithm HMAC_SHA_256";
    let line = format!("kms {verb} {usual} {line}");
    token.hsmac(&line.split_whitespace().collect::<Vec<_>>())
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn file(token: &Token, name: &str, text: &str) -> String {
    fs::write(token.path(name), text).unwrap();
    token.path(name).display().to_string()
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn each_line_of_a_file_has_its_mac_in_its_place_and_verifies() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let words: Vec<String> = (0..5000).map(|number| format!("word {number}")).collect();
    let input = file(&token, "words.txt", &(words.join("\n") + "\n"));
    let (macs, verified) = (token.path("macs.txt"), token.path("verified.txt"));
    let done = run(
        &token,
        "generate-macs",
        &format!("--input {input} --output {}", macs.display()),
    );
    assert_eq!(
        (code(&done), done.stdout.as_str()),
        (0, ""),
        "{}",
        done.stderr
    );
    assert_eq!(done.stderr, "5000 lines are done\n");
    let right: String = words.iter().map(|word| mac(word) + "\n").collect();
    assert_eq!(content(&macs), right);

    // Lines 3 and 5000 are changed.
    let both: Vec<String> = words
        .iter()
        .map(|word| format!("{} {word}", mac(word)))
        .collect();
    let both = both
        .join("\n")
        .replace(" word 2\n", " word two\n")
        .replace(" word 4999", " word");
    let both = file(&token, "both.txt", &both);
    let line = format!("--input {both} --output {}", verified.display());
    let done = run(&token, "verify-macs", &line);
    assert_eq!(code(&done), 254);
    assert_eq!(
        done.stderr,
        "line 3: KMSInvalidMacException: \nline 5000: KMSInvalidMacException: \n2 of 5000 lines failed\n"
    );
    let verdicts = content(&verified);
    let verdicts: Vec<&str> = verdicts.lines().collect();
    assert_eq!(
        verdicts
            .iter()
            .filter(|verdict| **verdict == "valid")
            .count(),
        4998
    );
    assert_eq!(
        (verdicts[2], verdicts[4999]),
        ("KMSInvalidMacException", "KMSInvalidMacException")
    );
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_column_of_a_table_is_replaced_and_lines_that_fail_are_told_by_number() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let table = "id,email\n1,a@example\n2,\n3,\"b\n@example\"\n4,c@example\n";
    let input = file(&token, "people.csv", table);
    let output = token.path("pseudonyms.csv");
    let line = format!(
        "--format csv --column email --input {input} --output {}",
        output.display()
    );
    let done = run(&token, "generate-macs", &line);
    assert_eq!(code(&done), 254, "{}", done.stderr);
    assert!(
        done.stderr
            .starts_with("line 3: ValidationException: 1 validation error"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.ends_with("\n1 of 4 lines failed\n"));
    let wanted = format!(
        "id,email\n1,{}\n2,\n3,{}\n4,{}\n",
        mac("a@example"),
        mac("b\n@example"),
        mac("c@example")
    );
    assert_eq!(content(&output), wanted);

    let json = format!(
        "{{\"message\":\"{}\",\"of\":1}}\n",
        STANDARD.encode("hello")
    );
    let input = file(&token, "one.ndjson", &json);
    let done = run(
        &token,
        "generate-macs",
        &format!("--format ndjson --input {input}"),
    );
    let wanted = json.replace("}\n", &format!(",\"mac\":\"{}\"}}\n", mac("hello")));
    assert_eq!((code(&done), &done.stdout), (0, &wanted));

    // What would fail for every line ends the run, and nothing is lost.
    let input = file(&token, "words.txt", "a\nb\n");
    let wrong = "kms generate-macs --key-id alias/none --mac-algorithm HMAC_SHA_256 --input";
    let wrong: Vec<&str> = wrong.split(' ').chain([input.as_str()]).collect();
    let done = token.hsmac(&wrong);
    assert_eq!((code(&done), done.stdout.as_str()), (254, ""));
    let words =
        "line 1: An error occurred (NotFoundException) when calling the GenerateMacs operation: ";
    assert!(done.stderr.starts_with(words), "{}", done.stderr);
    let done = run(
        &token,
        "generate-macs",
        &format!("--input {input} --output /dev/null"),
    );
    assert_eq!(code(&done), 0, "{}", done.stderr);
    for (line, words) in [
        ("--input /nowhere/words", "/nowhere/words: "),
        (
            "--format csv --column x --input /dev/null",
            "there is no column \"x\"",
        ),
        ("--resume", "--resume needs --output FILE"),
    ] {
        let done = run(&token, "generate-macs", line);
        assert!(
            [252, 255].contains(&code(&done)) && done.stderr.starts_with(words),
            "{}",
            done.stderr
        );
    }
    assert!(server.terminate().await.success());
}

/// A run that is killed goes on where its output ends.
#[tokio::test]
async fn a_run_that_was_cut_goes_on_and_its_memory_does_not_grow() {
    let token = Token::with_key();
    let server = token.serve(&token.config()).await;
    let lines = if crate::support::long() {
        1_000_000
    } else {
        60_000
    };
    let mut words = String::new();
    for number in 0..lines {
        writeln!(words, "word {number}").unwrap();
    }
    let input = file(&token, "words.txt", &words);
    let output = token.path("macs.txt");
    let line = format!(
        "kms generate-macs --key-id alias/test --mac-algorithm HMAC_SHA_256 --resume --input {input} --output {}",
        output.display()
    );
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hsmac"));
    command.args(line.split(' '));
    let endpoint = format!("unix:{}", token.path("grpc.sock").display());
    command.env("HSMAC_ENDPOINT", &endpoint);
    let mut child = command.spawn().unwrap();
    let mut most = 0;
    until("a part of the output", || {
        most = most.max(Usage::of(child.id()).kib);
        (content(&output).lines().count() > 20_000).then_some(())
    })
    .await;
    signal(child.id(), "KILL");
    assert!(!child.wait().unwrap().success());
    let cut = content(&output).len();
    let done = run(
        &token,
        "generate-macs",
        line.split_once("HMAC_SHA_256 ").unwrap().1,
    );
    assert_eq!(
        (code(&done), done.stderr),
        (0, format!("{lines} lines are done\n"))
    );
    let macs = content(&output);
    println!("cut at byte {cut} of {}, {most} KiB at most", macs.len());
    assert!(cut < macs.len() && most < 40 << 10, "{most} KiB");
    let mut right = words.lines();
    assert!(macs.lines().all(|line| line == mac(right.next().unwrap())));
    assert_eq!(right.next(), None);
    assert!(server.terminate().await.success());
}

/// What may pass is tried again: a rate that is used up, and an hsmac that is replaced.
#[tokio::test]
async fn throttling_and_a_restart_cost_time_and_no_line() {
    let token = Token::with_key();
    let limits = "[limits.default.rates]\ncryptographic_operations_symmetric = { rate = 1000, burst = 50 }\n";
    let config = token.config_with(
        "hosts = 1\nsessions = 2\n",
        &format!(
            "{limits}\n{}",
            crate::support::declare(crate::support::KEY_ID, "mac", "HMAC_256", "alias/test")
        ),
    );
    let server = token.serve(&config).await;
    let words: String = (0..3000).map(|number| format!("word {number}\n")).collect();
    let input = file(&token, "words.txt", &words);
    let output = token.path("macs.txt");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hsmac"));
    let line =
        "kms generate-macs --key-id alias/test --mac-algorithm HMAC_SHA_256 --timeout 60 --input";
    command
        .args(line.split(' '))
        .arg(&input)
        .arg("--output")
        .arg(&output);
    let endpoint = format!("unix:{}", token.path("grpc.sock").display());
    command.env("HSMAC_ENDPOINT", &endpoint);
    let mut child = command.spawn().unwrap();
    until("a part of the output", || {
        (content(&output).lines().count() > 500).then_some(())
    })
    .await;
    assert!(server.terminate().await.success());
    let server = token.serve(&config).await;
    let ended = until("the end of the run", || child.try_wait().unwrap()).await;
    assert!(ended.success());
    let right: String = words.lines().map(|word| mac(word) + "\n").collect();
    assert_eq!(content(&output), right);
    assert!(server.terminate().await.success());
}
