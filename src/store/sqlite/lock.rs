//! The lock that keeps a catalogue's file to one process, and the file under it: made if there is
//! none, opened for writing.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use tracing::{info, warn};

use crate::store::{
    OpenFault,
    sqlite::{connection, faults, files, schema},
};

/// How often a lock that is held is tried again, and the pause between: a process that only examines
/// the catalogue, or that is ending, frees it soon.
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A catalogue's file, locked against other processes until this is dropped.
#[derive(Debug)]
pub(super) struct LockedDatabase {
    pub(super) database: PathBuf,
    _lock: File,
}

impl LockedDatabase {
    /// Finds the file's real name and takes its lock.
    pub(super) fn take(path: &Path) -> Result<Self, OpenFault> {
        let database = files::real(path)?;
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
        if files::is_there(database)? {
            return Ok(());
        }
        let new = files::beside(database, ".new");
        files::clear(&new).map_err(|error| faults::disk(&new, &error))?;
        files::private(&new).map_err(|error| faults::disk(&new, &error))?;
        let connection = connection::connect(&new)?;
        schema::create(&connection).map_err(|error| faults::sqlite(&new, &error))?;
        connection::put_in_place(connection, &new, database)?;
        info!(event = "catalogue_made", path = %database.display(), "a new catalogue was made");
        Ok(())
    }

    /// Opens the file for writing: checked, brought to this version's schema, private.
    pub(super) fn open(&self) -> Result<Connection, OpenFault> {
        self.make_private();
        connection::open(&self.database)
    }

    /// Security: only its owner can read the catalogue. SQLite gives the files beside it the same mode.
    fn make_private(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let file = files::beside(&self.database, suffix);
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
            warn!(event = "catalogue_exposed", path = %file.display(), mode = format!("{mode:04o}"), outcome,
                "others than its owner could read the catalogue");
        }
    }
}

/// The lock is on a file of its own: SQLite's locks on the database end as soon as *any* descriptor
/// of it is closed in this process. It is never removed: two processes could then
/// each lock a file of that name.
fn lock(database: &Path) -> Result<File, OpenFault> {
    let path = files::beside(database, ".lock");
    let is_new = !path.exists();
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| faults::disk(&path, &error))?;
    if is_new && rustix::process::geteuid().is_root() {
        let owner = files::Owner::of(database);
        owner
            .and_then(|owner| owner.map_or(Ok(()), |owner| owner.take(&path)))
            .map_err(|error| faults::disk(&path, &error))?;
    }
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
            Err(error) => return Err(faults::disk(&path, &error.into())),
        }
    }
    // Only for the message above: on a full disk the lock holds as well.
    let _ = file
        .set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

/// The process that has the catalogue open, if one has: its ID, or 0 if that is not known.
pub(super) fn user_of(database: &Path) -> Option<u32> {
    let mut file = File::open(files::beside(database, ".lock")).ok()?;
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
