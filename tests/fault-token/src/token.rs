//! The one instance in a process: the real module, the rules, and what has happened so far.

use std::{
    env,
    fmt::Display,
    io,
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
};

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_GENERAL_ERROR};

use crate::{
    control::Control,
    files::{self, Log},
    functions::Function,
    real,
    world::World,
};

pub(crate) struct FaultToken {
    pub(crate) real: &'static CK_FUNCTION_LIST,
    pub(crate) control: Control,
    /// What FAULT_TOKEN_LOG names: a line per call.
    log: Log,
    /// A line for each time that a rule has acted.
    applied: OnceLock<Log>,
    /// What `journal` rules ask for.
    journal: OnceLock<Log>,
    /// Read by every call for as long as it is with the real module, written by what happens to all
    /// sessions or objects at once: nothing of that kind happens beneath a call.
    pub(crate) world: RwLock<World>,
}

impl FaultToken {
    /// The instance, made at the first look; `None` if that failed, for good.
    pub(crate) fn loaded() -> Option<&'static Self> {
        static TOKEN: OnceLock<Option<FaultToken>> = OnceLock::new();
        TOKEN
            .get_or_init(|| match Self::load() {
                Ok(token) => Some(token),
                Err(why) => {
                    eprintln!("fault-token: {why}");
                    None
                }
            })
            .as_ref()
    }

    fn load() -> Result<Self, String> {
        let token = Self {
            real: real::load()?,
            control: Control::new(env::var_os("FAULT_TOKEN_CONTROL").map(Into::into)),
            log: Log::open(env::var_os("FAULT_TOKEN_LOG").as_deref())?,
            applied: OnceLock::new(),
            journal: OnceLock::new(),
            world: RwLock::default(),
        };
        token.control.look(&token);
        Ok(token)
    }

    /// Writes the line of a call into the log.
    pub(crate) fn log_call<T: Display>(&self, function: Function, what: impl FnOnce() -> T) {
        self.log.line(|| format!("{function} {}", what()));
    }

    /// The number in a file next to the control file, after a change.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR if the file cannot be written; stderr says why.
    pub(crate) fn counted(
        &self,
        name: &str,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<u64, CK_RV> {
        let Some(control) = self.control.path() else {
            return Ok(0);
        };
        let path = files::beside(control, name);
        files::count(&path, change).map_err(|error| failed(&path, &error))
    }

    /// Counts that a rule has acted.
    pub(crate) fn applied(&self, line: &str) {
        let log = self.applied.get_or_init(|| self.log_beside("applied"));
        log.line(|| line.to_owned());
    }

    /// Writes a line into the journal.
    pub(crate) fn journal(&self, line: impl FnOnce() -> String) {
        let log = self.journal.get_or_init(|| self.log_beside("journal"));
        log.line(line);
    }

    fn log_beside(&self, name: &str) -> Log {
        let path = self.control.path();
        let path = path.map(|control| files::beside(control, name));
        Log::open(path.as_deref().map(Path::as_os_str)).unwrap_or_else(|why| {
            eprintln!("fault-token: {why}");
            Log::default()
        })
    }
}

/// What a call answers that cannot use its files.
pub(crate) fn failed(path: &Path, error: &io::Error) -> CK_RV {
    eprintln!("fault-token: {}: {error}", path.display());
    CKR_GENERAL_ERROR
}

/// Locks. A panic elsewhere is no reason to fail here: it has ended the process by now.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
