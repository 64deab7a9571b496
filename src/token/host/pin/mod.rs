//! The login governor: a refused PIN is tried once, by nobody again, until a person acts.
//!
//! Before each C_Login a marker is written and synced: which PIN is tried (its fingerprint, by Argon2id
//! with a random salt), for the how-manieth time, at which token. A clean success clears it. Where it
//! cannot be written nobody logs in, since a restart would try a refused PIN again. A refusal is kept
//! in memory first and on disk then. An attempt of which nobody knows whether it judged the PIN (a
//! vendor's code, a crash, a hang, an hsmac that was killed meanwhile) spends a budget of two.
//!
//! A PIN is another one when the content of its file is; only hosts read it. `hsmac token unlock`
//! forgets refusals and allows one try, even one that the token calls the last.

mod here;
mod marker;
mod memory;
#[cfg(test)]
mod tests;
mod turn;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

pub use here::log_in_here;
pub use marker::foreign_owner;
pub use memory::Logins;
use rustix::fs::{FlockOperation, flock};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::error;

use crate::{
    model::encode_hex,
    proto::host::TokenFound,
    token::{
        host::pin::{
            marker::{Marker, create, write_in_place},
            memory::Memory,
            turn::LoginTurn,
        },
        locks::UNPOISONED,
        uri::TokenUri,
    },
};

/// So many attempts may end without a clear answer before the PIN counts as refused.
const BUDGET: u32 = 2;
/// The longest reason that is kept, in characters.
const LONGEST_REASON: usize = 300;
/// How often a lock is tried that another hsmac holds.
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// Decides who may log in to one token, and remembers what came of it.
#[derive(Debug)]
pub(super) struct LoginGovernor {
    token: String,
    state_dir: PathBuf,
    pin_files: Vec<PathBuf>,
    logins: Logins,
    memory: Arc<Mutex<Memory>>,
    own: Mutex<Own>,
}

/// What one governor knows beside what all of the token know.
#[derive(Debug, Default)]
struct Own {
    /// Why no host need be started, as long as the PIN files are these and nobody allows another try.
    blocked: Option<(String, Vec<Stamp>, u64)>,
    /// The PIN files when a host was started last.
    seen: Vec<Stamp>,
    /// The PIN that was tried last.
    last: Option<String>,
}

/// What changes when a file does; `None`: there is none.
type Stamp = Option<[i64; 4]>;

/// Why nobody logs in now.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum NoLogin {
    /// The PIN was refused, or would be the last one: a person must act.
    Refused(String),
    /// The attempt cannot be noted: it may be possible later.
    Unwritable(String),
    /// No PIN file holds a PIN.
    NoPin(String),
}

impl LoginGovernor {
    pub(super) fn new(state_dir: &Path, token: &str, pin_files: Vec<PathBuf>) -> Self {
        Self {
            token: token.to_owned(),
            state_dir: state_dir.to_owned(),
            pin_files,
            logins: Logins::default(),
            memory: Arc::default(),
            own: Mutex::default(),
        }
    }

    /// With what the others know that log in to the same token.
    pub(super) fn among(mut self, logins: &Logins, uri: &TokenUri) -> Self {
        self.memory = logins.memory_of(&self.token, uri);
        self.logins = logins.clone();
        self
    }

    /// Why no host need be started to log in, as far as is known without one.
    pub(super) fn refusal(&self) -> Option<String> {
        self.take_permission();
        let mut memory = self.memory.lock().expect(UNPOISONED);
        let mut own = self.own.lock().expect(UNPOISONED);
        let stamps = self.stamps();
        if let Some((reason, seen, permissions)) = &own.blocked
            && *seen == stamps
            && *permissions == memory.permissions
        {
            let reason = reason.clone();
            if memory.unwritten && write_in_place(&self.marker_file(), &memory.marker).is_ok() {
                memory.unwritten = false;
            }
            return Some(reason);
        }
        own.blocked = None;
        own.seen = stamps;
        None
    }

    /// Whether somebody wants the token to be asked now: by `hsmac token kick`, or with another PIN
    /// file.
    pub(super) fn is_called(&self) -> bool {
        fs::remove_file(self.file("token-kick")).is_ok()
            || self.own.lock().expect(UNPOISONED).seen != self.stamps()
    }

    /// Waits for the right to log in and reads what is on disk.
    pub(super) async fn turn(
        &self,
        found: &TokenFound,
        limit: Duration,
    ) -> Result<LoginTurn<'_>, NoLogin> {
        let lock = self.lock(limit).await?;
        let earlier = self.file("pin-refused");
        if earlier.exists() {
            return Err(self.block(format!(
                "an earlier hsmac left the marker {} of a refused PIN; check the PIN, then run `hsmac token unlock {}`",
                earlier.display(),
                self.token
            )));
        }
        self.take_permission();
        let disk = self.read().map_err(|reason| self.block(reason))?;
        let mut memory = self.memory.lock().expect(UNPOISONED);
        let serial = &found.serial;
        let is_other_token = |marker: &Marker| {
            !serial.is_empty() && !marker.token_serial.is_empty() && marker.token_serial != *serial
        };
        // Security: what another token refused says nothing of this one, and nothing is forgotten of
        // a token that does not say its serial number.
        if is_other_token(&memory.marker) {
            memory.marker = Marker::default();
        }
        let disk = disk.filter(|disk| !is_other_token(disk));
        let foreign = memory.marker.merge(disk);
        if memory.marker.salt.is_empty() {
            memory.marker.salt = encode_hex(uuid::Uuid::new_v4().as_bytes());
        }
        memory.marker.token_serial.clone_from(serial);
        Ok(LoginTurn {
            governor: self,
            flags: found.pin_flags.unwrap_or_default(),
            serial: serial.clone(),
            foreign,
            chosen: String::new(),
            _lock: lock,
        })
    }

    /// The token refused the PIN to a host that had logged in: it has expired or was locked since.
    pub(super) async fn refused_in_service(&self, answer: &str) -> String {
        let reason = self.refused_reason(answer);
        {
            let mut memory = self.memory.lock().expect(UNPOISONED);
            let own = self.own.lock().expect(UNPOISONED);
            if let Some(last) = own.last.clone() {
                memory.marker.entry(&last).refused = Some(cut(&reason));
            }
        }
        self.note_refusal(reason.clone()).await;
        reason
    }

    fn refused_reason(&self, answer: &str) -> String {
        let file = match &self.pin_files[..] {
            [] => "the PIN".into(),
            [file, ..] => file.display().to_string(),
        };
        format!(
            "the token refuses the PIN ({answer}); mend {file}, or run `hsmac token unlock {}` to try it once more",
            self.token
        )
    }

    fn unclear_reason(&self, why: &str, answer: &str) -> String {
        format!(
            "the PIN counts as refused: {why} ({answer}); check the PIN and the token, then run `hsmac token unlock {}`",
            self.token
        )
    }

    /// Remembers that no host need be started, and gives the reason back.
    fn block(&self, reason: String) -> NoLogin {
        let permissions = self.memory.lock().expect(UNPOISONED).permissions;
        let mut own = self.own.lock().expect(UNPOISONED);
        own.blocked = Some((reason.clone(), own.seen.clone(), permissions));
        NoLogin::Refused(reason)
    }

    /// Security: in memory first, so that this process tries nothing again whatever the disk does.
    async fn note_refusal(&self, reason: String) {
        let marker = {
            let mut memory = self.memory.lock().expect(UNPOISONED);
            let mut own = self.own.lock().expect(UNPOISONED);
            own.blocked = Some((reason, own.seen.clone(), memory.permissions));
            memory.unwritten = true;
            memory.marker.clone()
        };
        match self.write(marker).await {
            Ok(()) => self.memory.lock().expect(UNPOISONED).unwritten = false,
            Err(error) => error!(
                event = "pin_note_unwritable", token = %self.token,
                path = %self.marker_file().display(), reason = %error,
                "the refusal of the PIN cannot be kept on disk yet; it is kept in memory and tried again"
            ),
        }
    }

    /// A person allowed one more try: whatever was refused is forgotten, by all who log in to a token of this
    /// name.
    fn take_permission(&self) {
        // Security: used up by being seen; one that cannot be removed allows nothing.
        if fs::remove_file(self.file("pin-allowed")).is_ok() {
            // What an attempt that was on its way when the person allowed it has noted since.
            let _ = fs::remove_file(self.marker_file());
            let others = self.logins.all_of(&self.token);
            let others = others
                .iter()
                .filter(|other| !Arc::ptr_eq(other, &self.memory));
            for memory in others.chain([&self.memory]) {
                memory.lock().expect(UNPOISONED).allow();
            }
        }
    }

    async fn lock(&self, limit: Duration) -> Result<fs::File, NoLogin> {
        let path = PathBuf::from(format!("{}.lock", self.marker_file().display()));
        let file = create(&path, false).map_err(|error| self.unwritable(&path, &error))?;
        let until = Instant::now() + limit;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    sleep(LOCK_LOOK).await;
                }
                Err(error) => return Err(self.unwritable(&path, &error.into())),
            }
        }
    }

    fn read(&self) -> Result<Option<Marker>, String> {
        let path = self.marker_file();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Security: somebody tried a PIN, even if only somebody else can read which.
            Err(error) => return Err(format!("{}: {error}{}", path.display(), owner(&path))),
        };
        serde_json::from_slice(&text).map(Some).map_err(|_| {
            format!(
                "{} is damaged: nobody knows which PIN was refused; check the PIN, then run `hsmac token unlock {}`",
                path.display(),
                self.token
            )
        })
    }

    async fn write(&self, marker: Marker) -> io::Result<()> {
        let path = self.marker_file();
        // In the simulation a thread of its own would be done when chance will have it.
        #[cfg(test)]
        if crate::token::simulated::chance().is_some() {
            tokio::task::yield_now().await;
            return write_in_place(&path, &marker);
        }
        // Syncing may take long, and the runtime has callers to serve.
        spawn_blocking(move || write_in_place(&path, &marker))
            .await
            .map_err(io::Error::other)?
    }

    fn unwritable(&self, path: &Path, error: &io::Error) -> NoLogin {
        NoLogin::Unwritable(format!(
            "no login without a note of it on disk, since a refused PIN would be tried again: {}: {error}",
            path.display()
        ))
    }

    fn marker_file(&self) -> PathBuf {
        self.file("pin-attempt")
    }

    fn file(&self, what: &str) -> PathBuf {
        self.state_dir.join(format!("{what}.{}", self.token))
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |file: &PathBuf| {
            let found = fs::metadata(file).ok()?;
            let size = i64::try_from(found.size()).unwrap_or(i64::MAX);
            let inode = i64::from_ne_bytes(found.ino().to_ne_bytes());
            Some([inode, size, found.ctime(), found.ctime_nsec()])
        };
        self.pin_files.iter().map(stamp).collect()
    }
}

/// Whose a file is that cannot be read, in words.
fn owner(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(found) => format!(
            "; it belongs to uid {}, and hsmac runs as uid {}",
            found.uid(),
            rustix::process::geteuid().as_raw()
        ),
        Err(_) => String::new(),
    }
}

fn cut(reason: &str) -> String {
    reason.chars().take(LONGEST_REASON).collect()
}

/// `hsmac token unlock`: forgets refusals and allows one try. True if there was a refusal.
///
/// # Errors
/// The state folder cannot be written.
pub fn unlock(state_dir: &Path, token: &str) -> io::Result<bool> {
    let governor = LoginGovernor::new(state_dir, token, Vec::new());
    fs::create_dir_all(state_dir)?;
    let marker = governor.read();
    let was_refused = match &marker {
        Ok(Some(marker)) => marker.says_refused(),
        Ok(None) => false,
        Err(_) => true,
    };
    create(&governor.file("pin-allowed"), true)?;
    let mut was_there = false;
    for file in ["pin-refused", "pin-attempt"] {
        match fs::remove_file(governor.file(file)) {
            Ok(()) => was_there |= file == "pin-refused",
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(was_refused || was_there)
}

/// `hsmac token kick`: lets a serving hsmac ask a token now that is away.
///
/// # Errors
/// The state folder cannot be written.
pub fn kick(state_dir: &Path, token: &str) -> io::Result<()> {
    let governor = LoginGovernor::new(state_dir, token, Vec::new());
    create(&governor.file("token-kick"), true)?;
    Ok(())
}
