//! What is in the file: two tables, the mark that it is ours, and its version.

use std::{fmt, fs::File, io::Read as _, path::Path};

use rusqlite::{Connection, TransactionBehavior};

use super::{place, rows};
use crate::store::OpenFault;

/// `application_id`: "hsma", so that `file` and we can tell a catalogue from any other database.
const APPLICATION_ID: i32 = 0x6873_6d61;

/// How each version of the schema comes out of the one before. Steps are added, never edited: files
/// in the field have been through them.
pub(super) const STEPS: &[&str] = &["
    CREATE TABLE record (
        name TEXT PRIMARY KEY NOT NULL,
        value BLOB NOT NULL,
        revision INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE store (
        row INTEGER PRIMARY KEY NOT NULL CHECK (row = 1),
        revision INTEGER NOT NULL
    ) STRICT;
    INSERT INTO store (row, revision) VALUES (1, 0);
"];

/// The version that this hsmac writes.
pub(super) fn version() -> usize {
    STEPS.len()
}

/// Makes an empty file a catalogue.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate(connection, STEPS)
}

/// Takes the steps that a file has not been through, each whole or not at all.
pub(super) fn migrate(connection: &Connection, steps: &[&str]) -> rusqlite::Result<()> {
    for (done, step) in steps.iter().enumerate().skip(found_version(connection)?) {
        let transaction =
            rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", done + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

pub(super) fn found_version(connection: &Connection) -> rusqlite::Result<usize> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes sure that an open file is a catalogue that this version can read, and undamaged.
///
/// # Errors
/// [`OpenFault::Configuration`]: it is something else, a newer version's, or damaged.
pub(super) fn recognise(connection: &Connection, path: &Path) -> Result<(), OpenFault> {
    let sqlite = |error: rusqlite::Error| place::fault(path, &error);
    let application: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(sqlite)?;
    let found = found_version(connection).map_err(sqlite)?;
    if application != APPLICATION_ID || found == 0 {
        return Err(foreign(path));
    }
    if found > version() {
        return Err(OpenFault::Configuration(format!(
            "{} was written by a newer hsmac: its schema is version {found}, this hsmac knows \
             version {} and older; run the newer hsmac",
            path.display(),
            version()
        )));
    }
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", (), |row| row.get(0))
        .map_err(sqlite)?;
    if verdict != "ok" {
        return Err(damaged(&path.display().to_string(), &verdict));
    }
    // SQLite does not see a bit that flipped within a value.
    rows::verify(connection).map_err(|fault| damaged(&path.display().to_string(), &fault))
}

/// Looks at the file's header before SQLite does, which takes an empty file for an empty database
/// and writes to whatever it is told to open for writing.
///
/// # Errors
/// [`OpenFault::Configuration`]: it is no database, or another program's.
pub(super) fn look(path: &Path) -> Result<(), OpenFault> {
    let mut header = [0; 100];
    match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        // From byte 68 on stands the application_id; it is there from the file's first moment.
        Ok(()) if header.starts_with(b"SQLite format 3\0") => {
            if header[68..72] == APPLICATION_ID.to_be_bytes() {
                Ok(())
            } else {
                Err(foreign(path))
            }
        }
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(place::disk(path, &error))
        }
        Ok(()) | Err(_) => Err(OpenFault::Configuration(format!(
            "{} is no hsmac catalogue, nor any database",
            path.display()
        ))),
    }
}

fn foreign(path: &Path) -> OpenFault {
    OpenFault::Configuration(format!(
        "{} is no hsmac catalogue, but another program's database",
        path.display()
    ))
}

pub(super) fn damaged(path: &str, verdict: &dyn fmt::Display) -> OpenFault {
    OpenFault::Configuration(format!(
        "{path} is damaged ({verdict}); keep it, and bring back the last backup: hsmac store restore"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue.db");
        place::private(&path).unwrap();
        let connection = place::connect(&path).unwrap();
        create(&connection).unwrap();
        connection
            .execute_batch("UPDATE store SET revision = 7")
            .unwrap();
        let grown = [
            STEPS[0],
            "ALTER TABLE store ADD COLUMN name TEXT NOT NULL DEFAULT 'x'",
            "this is no SQL",
        ];
        migrate(&connection, &grown[..2]).unwrap();
        migrate(&connection, &grown[..2]).unwrap();
        assert!(migrate(&connection, &grown).is_err());
        assert_eq!(found_version(&connection).unwrap(), 2);
        let row: (u64, String) = connection
            .query_row("SELECT revision, name FROM store", (), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(row, (7, "x".into()));
    }
}
