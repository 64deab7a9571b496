//! Input and output without a service.

use std::{fs, path::Path};

use clap::Parser;
use tempfile::TempDir;

use super::{records::Record, verbs::Outcome, *};

/// A command line of its own, as clap reads it.
#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    asked: StreamArguments,
}

fn arguments(line: &str) -> StreamArguments {
    let usual = "x --key-id k --mac-algorithm HMAC_SHA_256 ";
    let line = format!("{usual}{line}");
    Command::try_parse_from(line.split_whitespace())
        .unwrap()
        .asked
}

/// A folder with an input of this text, and the arguments for it.
fn input(text: &[u8], line: &str) -> (TempDir, StreamArguments) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("input");
    fs::write(&path, text).unwrap();
    let asked = arguments(&format!("--input {} {line}", path.display()));
    (folder, asked)
}

async fn read(asked: &StreamArguments, verify: bool, left_out: u64) -> Vec<Result<Record, String>> {
    let opened = match verify {
        true => RecordReader::open(&Verify(asked), asked),
        false => RecordReader::open(&Generate(asked), asked),
    };
    let (reader, _) = opened.unwrap();
    let (mut records, mut all) = (Records::begin(reader, left_out), Vec::new());
    while let Some(record) = records.next().await {
        all.push(record);
    }
    all
}

/// Line number, message and MAC, or what is wrong with the line.
fn seen(records: &[Result<Record, String>]) -> Vec<String> {
    let tell = |record: &Result<Record, String>| match record {
        Err(text) => format!("ends: {text}"),
        Ok(record) => match &record.asked {
            Err(text) => format!("{}: {text}", record.line),
            Ok(asked) => format!("{}: {:?} {:?}", record.line, asked.message, asked.mac),
        },
    };
    records.iter().map(tell).collect()
}

#[tokio::test]
async fn a_line_is_a_message_without_its_end() {
    let (_folder, asked) = input(b"one\n\ntwo words\r\n\xff\nlast", "");
    let records = read(&asked, false, 0).await;
    let all = [
        r#"1: b"one" b"""#,
        r#"2: b"" b"""#,
        r#"3: b"two words" b"""#,
        r#"4: b"\xff" b"""#,
        r#"5: b"last" b"""#,
    ];
    assert_eq!(seen(&records), all);
    assert_eq!(records.last().unwrap().as_ref().unwrap().end, 22);
    assert_eq!(seen(&read(&asked, false, 3).await), all[3..]);
    let more = seen(&read(&asked, false, 6).await);
    assert!(more[0].starts_with("ends: the output has 6 lines, and the input 5"));

    let (_folder, asked) = input(b"aGk= a message\naGk=\n?? x\n", "");
    assert_eq!(
        seen(&read(&asked, true, 0).await),
        [
            r#"1: b"a message" b"hi""#,
            "2: it is no MAC in base64, a space, and the message",
            "3: the MAC is no base64",
        ]
    );
}

#[tokio::test]
async fn an_input_without_lines_ends_when_it_is_too_long_for_one() {
    let long = vec![b'a'; 3 << 20];
    let (_folder, asked) = input(&long, "");
    let ended = seen(&read(&asked, false, 0).await);
    assert!(
        ended == ["ends: line 1 is longer than 1 MiB"],
        "{}",
        ended.len()
    );
    let quoted = [b"name\n\"", &long[..]].concat();
    let (_folder, asked) = input(&quoted, "--format csv --column name");
    let ended = seen(&read(&asked, false, 0).await);
    assert!(
        ended[0].contains("a record is longer than 1 MiB"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn json_has_its_message_in_base64_and_whatever_else_it_likes() {
    let text = br#"{"id":7,"message":"aGk=","mac":"aGk="}
{"message":"?"}
{"message":1}
nothing
{"message":"aGk="}
"#;
    let (_folder, asked) = input(text, "--format ndjson");
    assert_eq!(
        seen(&read(&asked, true, 0).await),
        [
            r#"1: b"hi" b"hi""#,
            "2: \"message\" is no base64",
            "3: it has no \"message\" in base64, or no \"mac\" that is one",
            "4: it is no JSON object",
            "5: it has no \"mac\"",
        ]
    );
}

#[tokio::test]
async fn a_table_s_messages_are_in_a_column_by_its_name() {
    let table = b"id,email\n1,a@b\n2,\"two\nlines\"\n3\n";
    let (_folder, asked) = input(table, "--format csv --column email");
    let told = seen(&read(&asked, false, 0).await);
    assert_eq!(told[..2], [r#"2: b"a@b" b"""#, r#"3: b"two\nlines" b"""#]);
    assert!(told[2].starts_with("ends: line "), "{told:?}");
    let (_folder, asked) = input(table, "--format csv --column phone");
    let fault = RecordReader::open(&Generate(&asked), &asked).err().unwrap();
    assert_eq!(fault, "there is no column \"phone\"");
}

/// What is written for each outcome.
async fn written(text: &[u8], line: &str, verify: bool, outcomes: &[Outcome]) -> String {
    let (folder, asked) = input(text, line);
    let path = folder.path().join("output");
    write(&path, &asked, verify, outcomes).await.unwrap();
    fs::read_to_string(&path).unwrap()
}

/// Writes what follows after what is there, as a run does that goes on; gives how much that was.
async fn write(
    path: &Path,
    asked: &StreamArguments,
    verify: bool,
    outcomes: &[Outcome],
) -> Result<u64, String> {
    let added = if verify {
        Verify::ADDED
    } else {
        Generate::ADDED
    };
    let (reader, _) = match verify {
        true => RecordReader::open(&Verify(asked), asked),
        false => RecordReader::open(&Generate(asked), asked),
    }?;
    let path = path.display().to_string();
    let (mut output, written) = Output::open(&path, asked, reader.header(), added)?;
    let records = read(asked, verify, written.records).await;
    for (record, outcome) in records.iter().zip(outcomes) {
        output.write(record.as_ref().unwrap(), outcome).unwrap();
    }
    output.flush().unwrap();
    Ok(written.records)
}

fn made() -> Outcome {
    Outcome::Mac("hi".into())
}

fn failed() -> Outcome {
    Outcome::Failed(Some("ValidationException".into()), "no \"good\"".into())
}

#[tokio::test]
async fn each_line_has_its_line_in_the_output() {
    let lines = written(b"a\nb\n", "", false, &[made(), failed()]).await;
    assert_eq!(lines, "aGk=\n\n");
    let lines = written(b"aGk= a\naGk= b\n", "", true, &[Outcome::Valid, failed()]).await;
    assert_eq!(lines, "valid\nValidationException\n");

    let json = b"{\"z\":1, \"message\":\"aGk=\" } \n{\"message\":\"aGk=\",\"mac\":0}\nno\n{\"message\":\"\"}\n";
    let outcomes = [made(), made(), failed(), failed()];
    let lines = written(json, "--format ndjson", false, &outcomes).await;
    let error = r#""error":{"exception":"ValidationException","message":"no \"good\""}"#;
    assert_eq!(
        lines,
        format!(
            "{{\"z\":1, \"message\":\"aGk=\",\"mac\":\"aGk=\"}}\n{{\"mac\":\"aGk=\",\"message\":\"aGk=\"}}\n{{{error}}}\n{{\"message\":\"\",{error}}}\n"
        )
    );

    let table = b"id,email,mac\n1,a@b,aGk=\n2,\"x,y\",aGk=\n";
    let outcomes = [made(), failed()];
    let replaced = "--format csv --column email";
    let lines = written(table, replaced, false, &outcomes).await;
    assert_eq!(lines, "id,email,mac\n1,aGk=,aGk=\n2,,aGk=\n");
    let added = format!("{replaced} --mac-column code");
    let lines = written(table, &added, false, &outcomes).await;
    assert_eq!(
        lines,
        "id,email,mac,code\n1,a@b,aGk=,aGk=\n2,\"x,y\",aGk=,\n"
    );
    let verified = format!("{replaced} --mac-column mac");
    let outcomes = [Outcome::Valid, failed()];
    let lines = written(table, &verified, true, &outcomes).await;
    assert_eq!(
        lines,
        "id,email,mac,mac_valid\n1,a@b,aGk=,true\n2,\"x,y\",aGk=,false\n"
    );
}

#[tokio::test]
async fn an_output_is_gone_on_with_wherever_it_was_cut() {
    let outcomes = || vec![made(); 4];
    for (text, line) in [
        (&b"a\nb\nc\nd\n"[..], ""),
        (
            b"{\"message\":\"\"}\n{\"message\":\"\"}\n{\"message\":\"\"}\n{\"message\":\"\"}\n",
            "--format ndjson",
        ),
        (
            b"x,m\n1,a\n2,\"b\n\"\"\"\n\"3\n\",c\n4,d\n",
            "--format csv --column m --mac-column new",
        ),
    ] {
        let (folder, asked) = input(text, line);
        let path = folder.path().join("output");
        assert_eq!(write(&path, &asked, false, &outcomes()).await, Ok(0));
        let whole = fs::read(&path).unwrap();
        let told = write(&path, &asked, false, &outcomes()).await.unwrap_err();
        assert!(told.ends_with("is there already: --resume goes on with it, or remove it"));
        assert_eq!(fs::read(&path).unwrap(), whole);
        let asked = StreamArguments {
            resume: true,
            ..asked
        };
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let done = write(&path, &asked, false, &outcomes()).await.unwrap();
            assert!(done <= 4);
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }
}
