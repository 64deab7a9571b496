//! The files besides the control file: what must be remembered across processes, and the logs.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
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

/// The file `CONTROL.process-PID-TIME` of a process that has called C_Initialize, with the number of its
/// sessions in it. It is locked while the process lives and goes with C_Finalize: one that nobody has
/// locked was left by a process that ended without.
pub(crate) struct ProcessFile {
    path: PathBuf,
    file: File,
}

const PROCESS: &str = "process-";

impl ProcessFile {
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn create(control: &Path) -> io::Result<Self> {
        let name = format!("{}-{}", std::process::id(), since_boot());
        let path = beside(control, &format!("{PROCESS}{name}"));
        // Nobody may see it without its lock.
        let new = beside(control, &format!("new-{name}"));
        let file = File::create_new(&new)?;
        file.lock()?;
        let process = Self { path, file };
        process.set_sessions(0);
        fs::rename(new, &process.path)?;
        Ok(process)
    }

    /// Keeps how many sessions the process has, in ten digits: who reads meanwhile sees one number or
    /// the other.
    pub(crate) fn set_sessions(&self, sessions: usize) {
        let _ = (self.file).write_all_at(format!("{sessions:010}").as_bytes(), 0);
    }

    pub(crate) fn remove(self) {
        let _ = fs::remove_file(self.path);
    }
}

/// How many sessions all processes have together; those that ended without C_Finalize count as well if
/// `leaking`.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn sessions_of_all(control: &Path, leaking: bool) -> io::Result<u64> {
    let name = control.file_name().unwrap_or_default().to_string_lossy();
    let beginning = format!("{name}.{PROCESS}");
    let mut sessions = 0;
    let folder = control.parent().filter(|folder| *folder != Path::new(""));
    for entry in fs::read_dir(folder.unwrap_or_else(|| Path::new(".")))? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(&beginning) {
            continue;
        }
        // Its process may end properly meanwhile.
        let Ok(mut file) = File::open(entry.path()) else {
            continue;
        };
        if leaking || file.try_lock_shared().is_err() {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            sessions += text.trim().parse().unwrap_or(0);
        }
    }
    Ok(sessions)
}

/// Holds all other processes up at the same place until it is dropped.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn alone(control: &Path, name: &str) -> io::Result<File> {
    let path = beside(control, name);
    let file = File::options().append(true).create(true).open(path)?;
    file.lock()?;
    Ok(file)
}

/// A file of lines that every process appends to.
#[derive(Default)]
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
    pub(crate) fn line(&self, line: impl FnOnce() -> String) {
        if let Some(mut file) = self.0.as_ref() {
            let line = format!("{} {}\n", std::process::id(), line());
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// Nanoseconds since the machine started, asleep or not: the same clock in all processes.
pub(crate) fn since_boot() -> u64 {
    #[repr(C)]
    struct Time {
        seconds: std::ffi::c_long,
        nanoseconds: std::ffi::c_long,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: std::ffi::c_int, time: *mut Time) -> std::ffi::c_int;
    }
    /// CLOCK_BOOTTIME; CLOCK_MONOTONIC where there is none.
    const CLOCK: std::ffi::c_int = if cfg!(target_os = "linux") { 7 } else { 6 };
    let mut time = Time {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: C's function, with room for the time that it writes.
    unsafe { clock_gettime(CLOCK, &mut time) };
    (time.seconds as u64) * 1_000_000_000 + time.nanoseconds as u64
}
