//! What an operator does with a catalogue: check it, back it up while it is in use, restore a backup.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::store::{
    Change, Expect, OpenFault, Prefix, Record, Restored, Revision, Settings, settings,
    sqlite::{
        connection, faults,
        files::{self, RESTORING, beside},
        lock::{self, LockedDatabase},
        rows, schema,
    },
};

/// What is in a catalogue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CatalogueReport {
    /// Its file.
    pub path: PathBuf,
    /// The version of its schema.
    pub version: usize,
    /// Its last revision.
    pub revision: Revision,
    /// How many records of each kind; a kind is the name's first part.
    pub kinds: Vec<(String, u64)>,
    /// Whether it was restored and not confirmed yet.
    pub restored: Option<Restored>,
    /// The process that has it open: its ID, or 0 if that is not known.
    pub used_by: Option<u32>,
}

/// Examines the catalogue page by page and record by record; writes nothing, and does not disturb
/// a process that uses it.
///
/// # Errors
/// [`OpenFault::Away`]: the disk refuses. [`OpenFault::Configuration`]: the catalogue is not there, damaged, something else, or of a newer version.
pub fn check(settings: &Settings) -> Result<CatalogueReport, OpenFault> {
    let database = existing(&settings.sqlite.path)?;
    let connection = connection::open_to_read(&database)?;
    // Every opening runs the quick check; this is the full one.
    let verdict: String = connection
        .query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))
        .map_err(|error| faults::sqlite(&database, &error))?;
    if verdict != "ok" {
        return Err(faults::damaged(&database.display().to_string(), &verdict));
    }
    examine(&connection, &database)
}

/// Every record, as they are at one moment, with the store's revision; writes nothing, and does not
/// disturb a process that uses the catalogue. None: there is no catalogue yet.
///
/// # Errors
/// [`OpenFault::Away`]: the disk refuses. [`OpenFault::Configuration`]: the catalogue is damaged, something else, or of a newer version.
pub(in crate::store) fn snapshot(
    settings: &settings::SqliteSettings,
) -> Result<Option<(Revision, Vec<Record>)>, OpenFault> {
    let database = files::real(&settings.path)?;
    if !files::is_there(&database)? {
        return Ok(None);
    }
    let connection = connection::open_to_read(&database)?;
    let sqlite = |error: rusqlite::Error| faults::sqlite(&database, &error);
    let moment = Transaction::new_unchecked(&connection, TransactionBehavior::Deferred);
    let moment = moment.map_err(sqlite)?;
    let revision = rows::revision(&moment).map_err(sqlite)?;
    let records = rows::list(&moment, &Prefix::all(), None, usize::MAX)
        .map_err(|fault| faults::damaged(&database.display().to_string(), &fault))?;
    Ok(Some((revision, records)))
}

/// Copies the catalogue, as it is at one moment, to a new file that its owner alone can read; a
/// process may use it meanwhile. The copy has been examined and synced when this returns.
///
/// # Errors
/// [`OpenFault::Configuration`] or [`OpenFault::Away`]: the catalogue cannot be read, `to` is there
/// already or cannot be written. Then no copy is left.
pub fn backup(settings: &Settings, to: &Path) -> Result<CatalogueReport, OpenFault> {
    let database = existing(&settings.sqlite.path)?;
    let connection = connection::open_to_read(&database)?;
    // The name is taken before the work, so that no other file is overwritten.
    files::private(to).map_err(|error| faults::disk(to, &error))?;
    let partial = beside(to, ".partial");
    let copied = copy_out(&connection, &partial)
        .and_then(|()| fs::rename(&partial, to).map_err(|error| faults::disk(to, &error)))
        .and_then(|()| files::sync_folder(to).map_err(|error| faults::disk(to, &error)))
        .and_then(|()| examine(&connection::open_to_read(to)?, to));
    if copied.is_err() {
        // The first fault is reported. A file that is left shows by its name, or by being empty, that it
        // is no backup.
        let _ = files::clear(&partial).and_then(|()| files::remove(to));
    }
    copied
}

/// Puts a backup in the catalogue's place, marked as restored; the catalogue that was there is kept
/// beside it, under the name that is returned.
///
/// # Errors
/// [`OpenFault::Configuration`]: a process has the catalogue open; `from` is no undamaged catalogue of this version
/// or an older one. [`OpenFault::Away`]: the disk refuses. Until the last step the old catalogue is there, and after a
/// crash between the last steps no hsmac opens either before the restore was repeated.
pub fn restore(
    settings: &Settings,
    from: &Path,
) -> Result<(CatalogueReport, Option<PathBuf>), OpenFault> {
    let locked = LockedDatabase::take(&settings.sqlite.path)?;
    let database = &locked.database;
    let old = (database.exists()).then(|| last_revision(database));

    let owner = files::Owner::of(database).map_err(|error| faults::disk(database, &error))?;
    let new = beside(database, ".restore-new");
    copy_in(from, &new)?;
    // Before anything is replaced: what the service could not open is refused now.
    let given = owner.map_or(Ok(()), |owner| owner.take(&new));
    given.map_err(|error| {
        // What is left of it is removed by the next restore in any case.
        let _ = files::clear(&new);
        faults::disk(database, &error)
    })?;
    let connection = connection::open(&new)?;
    let restored = Restored::now();
    // Revisions never go back, so that no revision of the old catalogue is one of this one.
    mark(&connection, restored, old.flatten().unwrap_or_default())
        .map_err(|error| faults::sqlite(&new, &error))?;
    let examination = CatalogueReport {
        path: database.clone(),
        ..examine(&connection, &new)?
    };
    let decided = beside(database, RESTORING);
    connection::put_in_place(connection, &new, &decided)?;

    // From here to the end no hsmac opens the catalogue.
    let kept = keep(database, restored).map_err(|error| faults::disk(database, &error))?;
    fs::rename(&decided, database).map_err(|error| faults::disk(database, &error))?;
    files::sync_folder(database).map_err(|error| faults::disk(database, &error))?;
    Ok((examination, kept))
}

/// Takes away the mark of a restore: keys serve again as the backup has them. None: there was no
/// mark.
///
/// # Errors
/// [`OpenFault::Configuration`] or [`OpenFault::Away`]: a process has the catalogue open, or it cannot
/// be opened.
pub fn confirm(settings: &Settings) -> Result<Option<Restored>, OpenFault> {
    let path = existing(&settings.sqlite.path)?;
    let locked = LockedDatabase::take(&path)?;
    let connection = locked.open()?;
    let mark = read_mark(&connection, &path)?;
    if mark.is_some() {
        let change = Change::new().delete(Restored::name(), Expect::Any);
        write(&connection, change, Revision::default())
            .map_err(|error| faults::sqlite(&path, &error))?;
    }
    connection
        .close()
        .map_err(|(_, error)| faults::sqlite(&path, &error))?;
    Ok(mark)
}

fn existing(path: &Path) -> Result<PathBuf, OpenFault> {
    let database = files::real(path)?;
    if !files::is_there(&database)? {
        return Err(OpenFault::Configuration(format!(
            "{}: there is no catalogue yet; hsmac serve makes it",
            database.display()
        )));
    }
    Ok(database)
}

fn examine(connection: &Connection, path: &Path) -> Result<CatalogueReport, OpenFault> {
    let sqlite = |error: rusqlite::Error| faults::sqlite(path, &error);
    let restored = read_mark(connection, path)?;
    let kinds = connection
        .prepare(
            "SELECT substr(name, 1, instr(name || '/', '/') - 1) AS kind, count(*) FROM record
             GROUP BY kind ORDER BY kind",
        )
        .and_then(|mut statement| {
            statement
                .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .map_err(sqlite)?;
    Ok(CatalogueReport {
        path: path.to_owned(),
        version: schema::found_version(connection).map_err(sqlite)?,
        revision: rows::revision(connection).map_err(sqlite)?,
        kinds,
        restored,
        used_by: lock::user_of(path),
    })
}

fn read_mark(connection: &Connection, path: &Path) -> Result<Option<Restored>, OpenFault> {
    let record = rows::read(connection, &Restored::name());
    match record {
        Ok(record) => Ok(record.as_ref().map(Restored::of)),
        Err(fault) => Err(faults::damaged(&path.display().to_string(), &fault)),
    }
}

/// One read transaction of SQLite's, whatever is written meanwhile.
fn copy_out(connection: &Connection, partial: &Path) -> Result<(), OpenFault> {
    files::private(partial).map_err(|error| faults::disk(partial, &error))?;
    let Some(name) = partial.to_str() else {
        return Err(OpenFault::Configuration(format!(
            "{} is no UTF-8",
            partial.display()
        )));
    };
    connection
        .execute("VACUUM INTO ?1", [name])
        .map_err(|error| faults::sqlite(partial, &error))?;
    files::sync(partial).map_err(|error| faults::disk(partial, &error))
}

/// Copies a backup beside the catalogue; also a plain copy of a catalogue's files, with its log.
fn copy_in(from: &Path, new: &Path) -> Result<(), OpenFault> {
    schema::check_header(from)?;
    files::clear(new).map_err(|error| faults::disk(new, &error))?;
    for suffix in ["", "-wal"] {
        let (from, new) = (beside(from, suffix), beside(new, suffix));
        if !suffix.is_empty() && !from.exists() {
            continue;
        }
        files::private(&new).map_err(|error| faults::disk(&new, &error))?;
        let copied = File::open(&from).and_then(|mut source| {
            let mut target = File::options().write(true).open(&new)?;
            io::copy(&mut source, &mut target)
        });
        copied.map_err(|error| faults::disk(&new, &error))?;
    }
    Ok(())
}

fn last_revision(database: &Path) -> Option<Revision> {
    let connection = connection::open_to_read(database).ok()?;
    let revision = rows::revision(&connection).ok()?;
    drop(connection);
    // It is undamaged: what is in its log goes into the file that is kept.
    if let Ok(connection) = connection::connect(database) {
        let _ = connection.close();
    }
    Some(revision)
}

fn mark(connection: &Connection, restored: Restored, old: Revision) -> rusqlite::Result<()> {
    let change = Change::new().put(Restored::name(), restored.value(), Expect::Any);
    write(connection, change, old)
}

/// Makes a change outside of a store, as a revision after `least`.
fn write(connection: &Connection, change: Change, least: Revision) -> rusqlite::Result<()> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let last = rows::revision(connection)?.max(least);
    // Nothing is expected of any record, so nothing can be stale.
    let _ = rows::apply(&transaction, change, last)?;
    transaction.commit()
}

/// Gives the catalogue that is there, and its log if it has one, another name.
fn keep(database: &Path, restored: Restored) -> io::Result<Option<PathBuf>> {
    let time: String = restored
        .to_string()
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .collect();
    let mut name = beside(database, &format!(".before-restore-{time}"));
    while name.exists() || beside(&name, "-wal").exists() {
        name = beside(&name, "-again");
    }
    files::remove(&beside(database, "-shm"))?;
    let mut kept = None;
    for suffix in ["", "-wal"] {
        let from = beside(database, suffix);
        if from.exists() {
            fs::rename(from, beside(&name, suffix))?;
            kept = Some(name.clone());
        }
    }
    Ok(kept)
}
