//! The catalogue's file and those beside it: their names, who may read them, what is on the disk.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use crate::store::{OpenFault, sqlite::faults};

/// The suffix of the file that a restore puts in the catalogue's place.
pub(super) const RESTORING: &str = ".restoring";

/// Whether there is a catalogue. If there is none, there never was one.
///
/// # Errors
/// [`OpenFault::Configuration`]: a restore was cut off, or the catalogue is gone and its log is there.
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

/// The path without links, so that two names of one file have one lock.
pub(super) fn real(path: &Path) -> Result<PathBuf, OpenFault> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(OpenFault::Configuration(format!(
            "{} is not a file",
            path.display()
        ))),
        Ok(_) => fs::canonicalize(path).map_err(|error| faults::disk(path, &error)),
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
                Err(error) => Err(faults::disk(folder, &error)),
            }
        }
        Err(error) => Err(faults::disk(path, &error)),
    }
}

/// Which file it is, whatever it is called; none: there is none.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Whose the files of a catalogue are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// The owner of the catalogue. If there is none yet, for root the owner of the folder that it is to be
    /// in; others make files of their own.
    pub(super) fn of(database: &Path) -> io::Result<Option<Self>> {
        let found = match fs::metadata(database) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !rustix::process::geteuid().is_root() {
                    return Ok(None);
                }
                fs::metadata(folder(database))?
            }
            found => found?,
        };
        Ok(Some(Self {
            user: found.uid(),
            group: found.gid(),
        }))
    }

    /// Gives a file to this owner, so that root leaves nothing which the service cannot open.
    pub(super) fn take(self, path: &Path) -> io::Result<()> {
        let found = fs::metadata(path)?;
        let is_same = (found.uid(), found.gid()) == (self.user, self.group);
        // Who is not root may be in another group than the catalogue's: their own will do.
        if is_same || (found.uid() == self.user && !rustix::process::geteuid().is_root()) {
            return Ok(());
        }
        chown(path, Some(self.user), Some(self.group)).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "it would not be its owner's, uid {}: run this as root or as that user ({error})",
                    self.user
                ),
            )
        })
    }
}

/// The name of a file that belongs to the catalogue.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
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

/// Removes a file and the files beside it that an earlier process left unfinished: above all the log,
/// which SQLite would read into the next file of that name.
pub(super) fn clear(file: &Path) -> io::Result<()> {
    ["-journal", "-wal", "-shm", ""]
        .iter()
        .try_for_each(|suffix| remove(&beside(file, suffix)))
}

/// Removes a file; there need not be one.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
