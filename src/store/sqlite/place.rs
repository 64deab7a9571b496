//! The file and what stands beside it: who may read it, who has it, and how it comes to be.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, flock};
use tracing::{info, warn};

use super::schema;
use crate::store::OpenFault;

/// How often a lock that is held is tried again, and the pause between: a process that only looks,
/// or that is just ending, is gone in a moment.
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A catalogue's file, held against other processes while this lives.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) database: PathBuf,
    _lock: File,
}

impl Place {
    /// Finds the file's real name and takes its lock.
    pub(super) fn take(path: &Path) -> Result<Self, OpenFault> {
        let database = real(path)?;
        let lock = lock(&database)?;
        Ok(Self {
            database,
            _lock: lock,
        })
    }

    /// Makes an empty catalogue where none is. It appears under its name whole and synced, so a file
    /// that is there but empty is never a catalogue that was begun: it is one that was lost.
    pub(super) fn create_if_missing(&self) -> Result<(), OpenFault> {
        let database = &self.database;
        if is_there(database)? {
            return Ok(());
        }
        let new = beside(database, ".new");
        clear(&new).map_err(|error| disk(&new, &error))?;
        private(&new).map_err(|error| disk(&new, &error))?;
        let connection = connect(&new)?;
        schema::create(&connection).map_err(|error| fault(&new, &error))?;
        put_in_place(connection, &new, database)?;
        info!(path = %database.display(), "a new catalogue was made");
        Ok(())
    }

    /// Opens the file for writing: checked, brought to this version's schema, private.
    pub(super) fn open(&self) -> Result<Connection, OpenFault> {
        self.make_private();
        open(&self.database)
    }

    /// Security: what is in the catalogue, nobody but its owner reads; SQLite gives the files beside
    /// it the same mode.
    fn make_private(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let file = beside(&self.database, suffix);
            let Ok(found) = fs::metadata(&file) else {
                continue;
            };
            let mode = found.permissions().mode() & 0o7777;
            if mode & 0o177 == 0 {
                continue;
            }
            let mended = fs::set_permissions(&file, fs::Permissions::from_mode(0o600));
            let outcome = match mended {
                Ok(()) => "it has 0600 now".to_owned(),
                Err(error) => error.to_string(),
            };
            warn!(file = %file.display(), mode = format!("{mode:04o}"), outcome,
                "others than its owner could read the catalogue");
        }
    }
}

/// What a file that will take the catalogue's place is called while it does.
pub(super) const RESTORING: &str = ".restoring";

/// Whether there is a catalogue; if not, there never was one.
pub(super) fn is_there(database: &Path) -> Result<bool, OpenFault> {
    if beside(database, RESTORING).exists() {
        return Err(OpenFault::Configuration(format!(
            "{}: a restore was cut off; run hsmac store restore again",
            database.display()
        )));
    }
    if database.exists() {
        return Ok(true);
    }
    let log = beside(database, "-wal");
    if log.exists() {
        return Err(OpenFault::Configuration(format!(
            "{} is missing, but {} is there: bring the catalogue back, or restore a backup",
            database.display(),
            log.display()
        )));
    }
    Ok(false)
}

/// The path without links: two names of one file have one lock.
pub(super) fn real(path: &Path) -> Result<PathBuf, OpenFault> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(OpenFault::Configuration(format!(
            "{} is not a file",
            path.display()
        ))),
        Ok(_) => fs::canonicalize(path).map_err(|error| disk(path, &error)),
        // A disk that is not mounted must not be taken for a first start.
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => {
            Err(OpenFault::Configuration(format!(
                "{} is a link to a file that is not there",
                path.display()
            )))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = folder(path);
            let Some(name) = path.file_name() else {
                return Err(OpenFault::Configuration(format!(
                    "{} is not a file",
                    path.display()
                )));
            };
            match fs::canonicalize(folder) {
                Ok(folder) => Ok(folder.join(name)),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Err(OpenFault::Configuration(format!(
                        "{}: there is no folder {}; make it, for the user that runs hsmac",
                        path.display(),
                        folder.display()
                    )))
                }
                Err(error) => Err(disk(folder, &error)),
            }
        }
        Err(error) => Err(disk(path, &error)),
    }
}

/// The name of a file that belongs to the catalogue.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The lock is on a file of its own: SQLite's locks on the database end as soon as *any* descriptor
/// of it is closed in this process. It is never removed: who would have the name locked then, and
/// who the file?
fn lock(database: &Path) -> Result<File, OpenFault> {
    let path = beside(database, ".lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| disk(&path, &error))?;
    for attempt in 1.. {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < LOCK_TRIES => {
                thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = match holder(&mut file) {
                    Some(process) => format!("process {process}"),
                    None => "another process".into(),
                };
                return Err(OpenFault::Configuration(format!(
                    "{}: {holder} has the catalogue open",
                    database.display()
                )));
            }
            Err(error) => return Err(disk(&path, &error.into())),
        }
    }
    // Only for the message above: without room on the disk the lock holds as well.
    let _ = file
        .set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

/// The process that has the catalogue open, if one has: its ID, or 0 if that is not known.
pub(super) fn user_of(database: &Path) -> Option<u32> {
    let mut file = File::open(beside(database, ".lock")).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Some(holder(&mut file).unwrap_or_default()),
        Ok(()) | Err(_) => None,
    }
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Opens a catalogue for writing: checked, and brought to this version's schema.
pub(super) fn open(database: &Path) -> Result<Connection, OpenFault> {
    schema::look(database)?;
    let connection = connect(database)?;
    schema::recognise(&connection, database)?;
    schema::migrate(&connection, schema::STEPS).map_err(|error| fault(database, &error))?;
    Ok(connection)
}

/// Opens a catalogue for reading only, checked; another process may be writing it.
pub(super) fn open_to_read(database: &Path) -> Result<Connection, OpenFault> {
    schema::look(database)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)
        .and_then(|connection| {
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update(None, "temp_store", "memory")?;
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            Ok(connection)
        })
        .map_err(|error| fault(database, &error))?;
    schema::recognise(&connection, database)?;
    Ok(connection)
}

/// Opens an existing file for reading and writing, as a catalogue is written: durable before it is
/// answered.
pub(super) fn connect(database: &Path) -> Result<Connection, OpenFault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let tuned = Connection::open_with_flags(database, flags).and_then(|connection| {
        // Somebody with SQLite's shell may hold its locks for a moment.
        connection.busy_timeout(Duration::from_secs(5))?;
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
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        Ok(connection)
    });
    tuned.map_err(|error| fault(database, &error))
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
        .map_err(|(_, error)| fault(new, &error))?;
    if beside(new, "-wal").exists() {
        return Err(OpenFault::Away(format!(
            "{}: its log could not be emptied",
            new.display()
        )));
    }
    let moved = sync(new).and_then(|()| fs::rename(new, database));
    moved.map_err(|error| disk(database, &error))?;
    sync_folder(database).map_err(|error| disk(database, &error))
}

/// An empty file that its owner alone can read, whatever the umask.
pub(super) fn private(path: &Path) -> io::Result<()> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A file's name is on the disk once its folder is.
pub(super) fn sync_folder(file: &Path) -> io::Result<()> {
    sync(folder(file))
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    }
}

/// Removes what a process that died has left of a file that had no name yet: above all the log,
/// which SQLite would read into the next file of that name.
pub(super) fn clear(file: &Path) -> io::Result<()> {
    ["-journal", "-wal", "-shm", ""]
        .iter()
        .try_for_each(|suffix| remove(&beside(file, suffix)))
}

/// Removes a file; one that is not there is removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A fault of the file system, by what cures it.
pub(super) fn disk(path: &Path, error: &io::Error) -> OpenFault {
    let text = format!("{}: {error}", path.display());
    match error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error)
    {
        Some(
            rustix::io::Errno::IO
            | rustix::io::Errno::NOSPC
            | rustix::io::Errno::DQUOT
            | rustix::io::Errno::NFILE
            | rustix::io::Errno::MFILE
            | rustix::io::Errno::NOMEM,
        ) => OpenFault::Away(text),
        Some(_) | None => OpenFault::Configuration(text),
    }
}

/// A fault of SQLite's, by what cures it.
pub(super) fn fault(path: &Path, error: &rusqlite::Error) -> OpenFault {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            OpenFault::Configuration(format!("{path} is no hsmac catalogue: {error}"))
        }
        // Without a code: a row that is missing, or not of the type that it must be.
        None | Some(ErrorCode::DatabaseCorrupt) => schema::damaged(&path.to_string(), error),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            OpenFault::Configuration(format!("{path}: {error}"))
        }
        Some(_) => OpenFault::Away(format!("{path}: {error}")),
    }
}
