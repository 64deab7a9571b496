//! Errors of the file system and of SQLite, as [`OpenFault`]s: each names the file, and says by its
//! variant whether waiting may cure it.

use std::{fmt, io, path::Path};

use rusqlite::ErrorCode;
use rustix::io::Errno;

use crate::store::OpenFault;

/// A fault of the file system, by what cures it.
pub(super) fn disk(path: &Path, error: &io::Error) -> OpenFault {
    let text = format!("{}: {error}", path.display());
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(
            Errno::IO | Errno::NOSPC | Errno::DQUOT | Errno::NFILE | Errno::MFILE | Errno::NOMEM,
        ) => OpenFault::Away(text),
        Some(_) | None => OpenFault::Configuration(text),
    }
}

/// A fault of SQLite's, by what cures it.
pub(super) fn sqlite(path: &Path, error: &rusqlite::Error) -> OpenFault {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            OpenFault::Configuration(format!("{path} is no hsmac catalogue: {error}"))
        }
        // Without a code: a row that is missing, or not of the type that it must be.
        None | Some(ErrorCode::DatabaseCorrupt) => damaged(&path.to_string(), error),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            OpenFault::Configuration(format!("{path}: {error}"))
        }
        Some(_) => OpenFault::Away(format!("{path}: {error}")),
    }
}

/// The file is a database, but not a catalogue.
pub(super) fn another_program(path: &Path) -> OpenFault {
    OpenFault::Configuration(format!(
        "{} is no hsmac catalogue, but another program's database",
        path.display()
    ))
}

/// The file is a catalogue whose contents cannot be right.
pub(super) fn damaged(path: &str, verdict: &dyn fmt::Display) -> OpenFault {
    OpenFault::Configuration(format!(
        "{path} is damaged ({verdict}); keep it, and bring back the last backup: hsmac store restore"
    ))
}
