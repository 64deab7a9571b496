//! The store: one suite over every engine, and what only a file can suffer.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot arrange its scene has failed"
)]

#[path = "../support/helper.rs"]
mod helper;

mod disk;
mod kill;
mod power;
mod property;
mod store_tool;
mod suite;
mod tool;
mod upkeep;

use hsmac::store::{Change, Expect, Name, Record, Settings, SqliteSettings, Store};
use tempfile::TempDir;

/// A catalogue's file in a folder of its own.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn settings(&self) -> Settings {
        Settings {
            sqlite: SqliteSettings {
                path: self.path("catalogue.db"),
            },
        }
    }

    fn open(&self) -> Store {
        Store::open(&self.settings()).unwrap()
    }

    /// Why it does not open.
    fn refusal(&self) -> String {
        Store::open(&self.settings()).unwrap_err().to_string()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn put(text: &str, value: &str, expect: Expect) -> Change {
    Change::new().put(name(text), value.to_owned(), expect)
}

fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.name.as_str()).collect()
}
