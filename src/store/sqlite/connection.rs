//! Connections to a catalogue: how SQLite is set up, and what is checked before anything is read.

use std::{fs, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

use crate::store::{
    OpenFault,
    sqlite::{faults, files, schema},
};

/// Opens a catalogue for writing: checked, and brought to this version's schema.
pub(super) fn open(database: &Path) -> Result<Connection, OpenFault> {
    schema::check_header(database)?;
    let connection = connect(database)?;
    schema::check_schema(&connection, database)?;
    schema::migrate(&connection, schema::STEPS)
        .map_err(|error| faults::sqlite(database, &error))?;
    Ok(connection)
}

/// Opens a catalogue for reading only, checked; another process may be writing it.
pub(super) fn open_to_read(database: &Path) -> Result<Connection, OpenFault> {
    schema::check_header(database)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)
        .and_then(|connection| {
            set_common_pragmas(&connection)?;
            Ok(connection)
        })
        .map_err(|error| faults::sqlite(database, &error))?;
    schema::check_schema(&connection, database)?;
    Ok(connection)
}

/// Opens an existing file for reading and writing, as a catalogue is written: durable before it is
/// answered.
pub(super) fn connect(database: &Path) -> Result<Connection, OpenFault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let tuned = Connection::open_with_flags(database, flags).and_then(|connection| {
        set_common_pragmas(&connection)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            let text = format!("no write-ahead log here, but {mode}: is it a local disk?");
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
                Some(text),
            ));
        }
        // WAL's usual NORMAL may lose the last changes when the power fails.
        connection.pragma_update(None, "synchronous", "full")?;
        // Of macOS: its fsync leaves bytes in the drive's cache. Nothing elsewhere.
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
        Ok(connection)
    });
    tuned.map_err(|error| faults::sqlite(database, &error))
}

/// Closes a finished file, so that nothing of it is in its log any more, syncs it and gives it its
/// name; then syncs the folder.
pub(super) fn put_in_place(
    connection: Connection,
    new: &Path,
    database: &Path,
) -> Result<(), OpenFault> {
    connection
        .close()
        .map_err(|(_, error)| faults::sqlite(new, &error))?;
    if files::beside(new, "-wal").exists() {
        return Err(OpenFault::Away(format!(
            "{}: its log could not be emptied",
            new.display()
        )));
    }
    let moved = files::sync(new).and_then(|()| fs::rename(new, database));
    moved.map_err(|error| faults::disk(database, &error))?;
    files::sync_folder(database).map_err(|error| faults::disk(database, &error))
}

/// What holds for reading and for writing.
fn set_common_pragmas(connection: &Connection) -> rusqlite::Result<()> {
    // Somebody with SQLite's shell may hold its locks for a moment.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)
}
