//! Opens a catalogue, as a helper in a process of its own, and does what its stdin says, line by line,
//! with one line on stdout for each: for tests that kill the process, fill its disk or watch its system
//! calls.
//!
//! ```text
//! open                 ok REVISION | configuration TEXT | away TEXT
//! put NAME VALUE       ok REVISION | fault TEXT
//! fill NAME COUNT      the same, with COUNT bytes of value
//! read NAME            ok VALUE | none | fault TEXT
//! remove FILE          ok
//! loop WRITERS         without end: a line `WRITER REVISION` for each change that was answered
//! close                ok
//! ```

use std::{
    ffi::OsString,
    io::{self, BufRead as _, Write as _},
};

use hsmac::store::{Change, Expect, Name, OpenFault, Settings, SqliteSettings, Store};

use crate::{Place, helper::ready, tool::Tool};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalogue_in_another_process() {
    if let Some(path) = ready() {
        serve(path).await;
        // libtest's own last words are no answer of the tool.
        std::process::exit(0);
    }
    let place = Place::new();
    let mut tool = Tool::start(&place.path("catalogue.db"));
    assert_eq!(tool.say("open"), "ok 0");
    assert_eq!(tool.say("put a 1"), "ok 1");
    assert_eq!(tool.say("close"), "ok");
    tool.end();
    let record = place.open().read(&crate::name("a")).await.unwrap();
    assert_eq!(record.unwrap().value, "1");
}

async fn serve(path: OsString) {
    let settings = Settings {
        sqlite: SqliteSettings { path: path.into() },
    };
    let mut store = None;
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let said = match words[..] {
            ["open"] => match Store::open(&settings) {
                Ok(opened) => {
                    let revision = opened.revision().await.unwrap();
                    store = Some(opened);
                    format!("ok {}", revision.0)
                }
                Err(OpenFault::Configuration(text)) => format!("configuration {text}"),
                Err(OpenFault::Away(text)) => format!("away {text}"),
            },
            ["put", name, value] => put(store.as_ref().unwrap(), name, value.into()).await,
            ["fill", name, count] => {
                let value = vec![b'x'; count.parse().unwrap()];
                put(store.as_ref().unwrap(), name, value).await
            }
            ["read", name] => {
                match store
                    .as_ref()
                    .unwrap()
                    .read(&Name::new(name).unwrap())
                    .await
                {
                    Ok(Some(record)) => {
                        format!("ok {}", String::from_utf8_lossy(&record.value))
                    }
                    Ok(None) => "none".into(),
                    Err(fault) => format!("fault {fault}"),
                }
            }
            ["remove", file] => {
                std::fs::remove_file(file).unwrap();
                "ok".into()
            }
            ["loop", writers] => {
                let store = store.clone().unwrap();
                let writers = (0..writers.parse().unwrap())
                    .map(|writer| tokio::spawn(write_on(store.clone(), writer)));
                for writer in writers.collect::<Vec<_>>() {
                    writer.await.unwrap();
                }
                return;
            }
            ["close"] => {
                store.take().unwrap().close().await;
                "ok".into()
            }
            _ => panic!("no such line: {line}"),
        };
        tell(&said);
    }
}

async fn put(store: &Store, name: &str, value: Vec<u8>) -> String {
    let change = Change::new().put(Name::new(name).unwrap(), value, Expect::Any);
    match store.commit(change).await {
        Ok(revision) => format!("ok {}", revision.0),
        Err(fault) => format!("fault {fault}"),
    }
}

/// Every change writes two records, which must never be seen apart, and one that says how far this
/// writer is.
async fn write_on(store: Store, writer: u32) {
    let name = |text: String| Name::new(&text).unwrap();
    for step in 0.. {
        let change = Change::new()
            .put(name(format!("left/{writer}/{step}")), "x", Expect::Absent)
            .put(name(format!("right/{writer}/{step}")), "x", Expect::Absent)
            .put(name(format!("at/{writer}")), step.to_string(), Expect::Any);
        let revision = store.commit(change).await.unwrap();
        tell(&format!("{writer} {}", revision.0));
    }
}

/// One line, in one write: a kill must not leave half of it.
fn tell(line: &str) {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}
