//! The schema of the file: two tables, the application ID, and the schema's version.

use std::{fs::File, io::Read as _, path::Path};

use rusqlite::{Connection, TransactionBehavior};

use crate::store::{
    OpenFault,
    sqlite::{faults, rows},
};

/// `application_id`: "hsma", which tells a catalogue from any other database.
const APPLICATION_ID: i32 = 0x6873_6d61;

/// The migration from each version of the schema to the next. Steps are added, never edited: existing
/// files have been through them.
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

/// Turns an empty file into a catalogue.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate(connection, STEPS)
}

/// Runs the migrations that a file has not been through, each in a transaction of its own.
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
pub(super) fn check_schema(connection: &Connection, path: &Path) -> Result<(), OpenFault> {
    let sqlite = |error: rusqlite::Error| faults::sqlite(path, &error);
    let application: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(sqlite)?;
    let found = found_version(connection).map_err(sqlite)?;
    if application != APPLICATION_ID || found == 0 {
        return Err(faults::another_program(path));
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
        return Err(faults::damaged(&path.display().to_string(), &verdict));
    }
    // SQLite does not see a bit that flipped within a value.
    rows::verify(connection).map_err(|fault| faults::damaged(&path.display().to_string(), &fault))
}

/// Checks the file's header before SQLite opens it: SQLite takes an empty file for an empty database,
/// and writes to any file that it opens for writing.
///
/// # Errors
/// [`OpenFault::Configuration`]: it is no database, or another program's.
pub(super) fn check_header(path: &Path) -> Result<(), OpenFault> {
    let mut header = [0; 100];
    match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        // The application_id is at byte 68, from the moment when the file is made.
        Ok(()) if header.starts_with(b"SQLite format 3\0") => {
            if header[68..72] == APPLICATION_ID.to_be_bytes() {
                Ok(())
            } else {
                Err(faults::another_program(path))
            }
        }
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Err(faults::disk(path, &error))
        }
        Ok(()) | Err(_) => Err(OpenFault::Configuration(format!(
            "{} is no hsmac catalogue, nor any database",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_run_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open(dir.path().join("catalogue.db")).unwrap();
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
