//! The files besides the control file: what must be remembered across processes, and the log.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

/// The file `CONTROL.NAME` that stands next to the control file.
pub(crate) fn beside(control: &Path, name: &str) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".");
    path.push(name);
    path.into()
}

/// Whether this process is the first to make a marker file.
pub(crate) fn claim(marker: &Path) -> bool {
    File::create_new(marker).is_ok()
}

/// Changes the number in a file, alone among all processes, and returns the new one. A file that is
/// missing or holds no number counts as 0.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn count(path: &Path, change: impl FnOnce(u64) -> u64) -> io::Result<u64> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let was = text.trim().parse().unwrap_or(0);
    let is = change(was);
    if is != was || text.is_empty() {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{is}\n").as_bytes())?;
    }
    Ok(is)
}

/// What FAULT_TOKEN_LOG names: a line per call, from every process.
pub(crate) struct Log(Option<File>);

impl Log {
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(path: Option<&OsStr>) -> Result<Self, String> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file = OpenOptions::new().append(true).create(true).open(path);
        match file {
            Ok(file) => Ok(Self(Some(file))),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// One line in one write: with O_APPEND, lines of several processes do not mix.
    pub(crate) fn line(&self, function: &str, what: impl FnOnce() -> String) {
        if let Some(mut file) = self.0.as_ref() {
            let line = format!("{} {function} {}\n", std::process::id(), what());
            let _ = file.write_all(line.as_bytes());
        }
    }
}
