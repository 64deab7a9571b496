//! Records as rows. Each has a checksum over name, revision and value: bytes that a disk gives back
//! changed are found, and never served.

use std::ops::ControlFlow;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use crate::store::{Change, Committed, Fault, Name, Prefix, Record, Revision};

const COLUMNS: &str = "name, value, revision, checksum";

pub(super) fn read(connection: &Connection, name: &Name) -> Result<Option<Record>, Fault> {
    let found = connection
        .query_row(
            &format!("SELECT {COLUMNS} FROM record WHERE name = ?1"),
            [name.as_str()],
            raw,
        )
        .optional();
    found
        .map_err(|error| fault(&error))?
        .map(record)
        .transpose()
}

pub(super) fn list(
    connection: &Connection,
    under: &Prefix,
    after: Option<&Name>,
    limit: usize,
) -> Result<Vec<Record>, Fault> {
    let query = format!(
        "SELECT {COLUMNS} FROM record WHERE name >= ?1 AND name > ?2 AND name < ?3
         ORDER BY name LIMIT ?4"
    );
    // A prefix ends with a slash. The next ASCII character is 0, so that this is the end of its range.
    let end = match under.as_str().strip_suffix('/') {
        Some(begins) => format!("{begins}0"),
        None => "\u{7f}".into(),
    };
    let bounds = params![
        under.as_str(),
        after.map(Name::as_str).unwrap_or_default(),
        end,
        i64::try_from(limit).unwrap_or(i64::MAX),
    ];
    let rows = connection.prepare(&query).and_then(|mut statement| {
        statement
            .query_map(bounds, raw)?
            .collect::<rusqlite::Result<Vec<_>>>()
    });
    rows.map_err(|error| fault(&error))?
        .into_iter()
        .map(record)
        .collect()
}

pub(super) fn revision(connection: &Connection) -> rusqlite::Result<Revision> {
    connection.query_row("SELECT revision FROM store", (), |row| {
        row.get(0).map(Revision)
    })
}

/// Makes a change within the open transaction, as the revision after `last`. If a record is not as
/// expected it breaks off with the name of that record, and writes nothing.
pub(super) fn apply(
    connection: &Connection,
    change: Change,
    last: Revision,
) -> rusqlite::Result<ControlFlow<Name, Committed>> {
    let mut find = connection.prepare("SELECT revision FROM record WHERE name = ?1")?;
    for (name, expect) in change.expectations() {
        let found = find
            .query_row([name.as_str()], |row| row.get(0).map(Revision))
            .optional()?;
        if !expect.holds(found) {
            return Ok(ControlFlow::Break(name.clone()));
        }
    }
    let mut put = connection.prepare(&format!(
        "INSERT OR REPLACE INTO record ({COLUMNS}) VALUES (?1, ?2, ?3, ?4)"
    ))?;
    let mut delete = connection.prepare("DELETE FROM record WHERE name = ?1")?;
    let mut committed = Committed {
        revision: last.next(),
        ..Committed::default()
    };
    for (name, value) in change.into_writes() {
        if let Some(value) = value {
            let record = Record {
                name,
                value,
                revision: committed.revision,
            };
            put.execute(params![
                record.name.as_str(),
                &record.value[..],
                record.revision.0,
                checksum(&record),
            ])?;
            committed.puts.push(record);
        } else if delete.execute([name.as_str()])? > 0 {
            committed.deletes.push(name);
        }
    }
    if committed.is_empty() {
        committed.revision = last;
    } else {
        set_revision(connection, committed.revision)?;
    }
    Ok(ControlFlow::Continue(committed))
}

pub(super) fn set_revision(connection: &Connection, revision: Revision) -> rusqlite::Result<()> {
    connection
        .execute("UPDATE store SET revision = ?1", [revision.0])
        .map(|_| ())
}

/// Reads every record, and compares it with its checksum.
pub(super) fn verify(connection: &Connection) -> Result<(), Fault> {
    // All of it at one moment: a process may write to the catalogue meanwhile, and a record that came
    // after the store's revision was read is no damage.
    let moment = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)
        .map_err(|error| fault(&error))?;
    let latest = revision(&moment).map_err(|error| fault(&error))?;
    let mut statement = moment
        .prepare(&format!("SELECT {COLUMNS} FROM record"))
        .map_err(|error| fault(&error))?;
    let rows = statement
        .query_map((), raw)
        .map_err(|error| fault(&error))?;
    for row in rows {
        let record = record(row.map_err(|error| fault(&error))?)?;
        if record.revision > latest {
            return Err(Fault::Damaged(format!(
                "{} is of revision {}, the store of {}",
                record.name, record.revision.0, latest.0
            )));
        }
    }
    Ok(())
}

/// A fault of SQLite's outside of a commit: nothing was changed.
pub(super) fn fault(error: &rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        // Without a code: a row that is missing, or not of the type that it must be.
        None | Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            Fault::Damaged(error.to_string())
        }
        Some(_) => Fault::Away(error.to_string()),
    }
}

type RawRow = (String, Vec<u8>, u64, u32);

fn raw(row: &Row<'_>) -> rusqlite::Result<RawRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn record((name, value, revision, stored): RawRow) -> Result<Record, Fault> {
    let record = Record {
        name: Name::new(&name).map_err(|error| Fault::Damaged(error.to_string()))?,
        value: Bytes::from(value),
        revision: Revision(revision),
    };
    if checksum(&record) != stored {
        return Err(Fault::Damaged(format!(
            "the record {name} differs from its checksum"
        )));
    }
    Ok(record)
}

fn checksum(record: &Record) -> u32 {
    let name = crc32c::crc32c(record.name.as_str().as_bytes());
    let revision = crc32c::crc32c_append(name, &record.revision.0.to_be_bytes());
    crc32c::crc32c_append(revision, &record.value)
}
