//! PIN care: a refused PIN is tried once, by nobody again, until a person acts.
//!
//! After a refusal a marker stays on disk: the token's serial number and the PIN file's inode, size
//! and time of change (no hash of the PIN). While the file is the one that was refused, no host logs
//! in, not even after a restart. `hsmac token unlock` removes the marker and allows one try, even
//! one that the token calls the last.

use std::{
    env, fs, io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What identifies the PIN file that was tried.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

#[derive(Debug, Deserialize, Serialize)]
struct Marker {
    token_serial: String,
    pin_file: Stamp,
    reason: String,
}

/// The markers of one token.
#[derive(Debug)]
pub(super) struct PinGuard {
    pin_file: Option<PathBuf>,
    refused: PathBuf,
    allowed: PathBuf,
}

impl PinGuard {
    pub(super) fn new(state_dir: &Path, token: &str, pin_file: Option<PathBuf>) -> Self {
        Self {
            pin_file,
            refused: state_dir.join(format!("pin-refused.{token}")),
            allowed: state_dir.join(format!("pin-allowed.{token}")),
        }
    }

    /// Why nobody may try now, if so.
    pub(super) fn refusal(&self) -> Option<String> {
        let marker = match fs::read(&self.refused) {
            Ok(marker) => marker,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            // Somebody was refused, even if only somebody else can read why.
            Err(error) => return Some(format!("{}: {error}", self.refused.display())),
        };
        // A marker that cannot be read still says that a PIN was refused.
        let Ok(marker) = serde_json::from_slice::<Marker>(&marker) else {
            return Some(format!("{} is damaged", self.refused.display()));
        };
        if marker.pin_file != self.stamp() {
            return None;
        }
        Some(marker.reason)
    }

    /// Keeps the refusal on disk before anybody can try again.
    ///
    /// # Errors
    /// The state folder cannot be written; then only this process remembers.
    pub(super) fn refused(&self, token_serial: &str, reason: &str) -> io::Result<()> {
        let marker = Marker {
            token_serial: token_serial.to_owned(),
            pin_file: self.stamp(),
            reason: reason.to_owned(),
        };
        let new = self.refused.with_extension("new");
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        serde_json::to_writer(&mut file, &marker)?;
        file.sync_all()?;
        fs::rename(new, &self.refused)
    }

    /// Forgets the refusal: the PIN was taken.
    pub(super) fn accepted(&self) {
        let _ = fs::remove_file(&self.refused);
        let _ = fs::remove_file(&self.allowed);
    }

    /// Whether a person allowed one try; it is used up by asking.
    pub(super) fn take_permission(&self) -> bool {
        fs::remove_file(&self.allowed).is_ok()
    }

    fn stamp(&self) -> Stamp {
        let Some(path) = &self.pin_file else {
            return Stamp::default();
        };
        let Ok(metadata) = fs::metadata(path) else {
            return Stamp::default();
        };
        let size = metadata.size();
        // systemd copies a credential anew at each start: only its size tells one from another, and
        // a new PIN of the same length needs `hsmac token unlock`.
        let credentials = env::var_os("CREDENTIALS_DIRECTORY");
        if credentials.is_some_and(|folder| path.starts_with(folder)) {
            return Stamp {
                size,
                ..Stamp::default()
            };
        }
        Stamp {
            inode: metadata.ino(),
            size,
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// `hsmac token unlock`: forgets a refusal and allows one try. True if there was a refusal.
///
/// # Errors
/// The state folder cannot be written.
pub fn unlock(state_dir: &Path, token: &str) -> io::Result<bool> {
    let guard = PinGuard::new(state_dir, token, None);
    fs::create_dir_all(state_dir)?;
    fs::write(&guard.allowed, b"")?;
    match fs::remove_file(&guard.refused) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_until_the_pin_file_changes_or_a_person_unlocks() {
        let dir = tempfile::tempdir().unwrap();
        let pin = dir.path().join("pin");
        fs::write(&pin, "1234").unwrap();
        let guard = PinGuard::new(dir.path(), "primary", Some(pin.clone()));
        assert_eq!(guard.refusal(), None);
        guard.refused("serial", "CKR_PIN_INCORRECT").unwrap();
        let again = PinGuard::new(dir.path(), "primary", Some(pin.clone()));
        assert_eq!(again.refusal().as_deref(), Some("CKR_PIN_INCORRECT"));
        let marker = fs::read_to_string(dir.path().join("pin-refused.primary")).unwrap();
        assert!(
            !marker.contains("1234"),
            "Security: no trace of the PIN on disk"
        );

        fs::write(&pin, "12345").unwrap();
        assert_eq!(again.refusal(), None, "another PIN file may be tried");

        guard.refused("serial", "CKR_PIN_INCORRECT").unwrap();
        assert!(unlock(dir.path(), "primary").unwrap());
        assert_eq!(again.refusal(), None);
        assert!(again.take_permission());
        assert!(!again.take_permission(), "one try");
    }

    #[test]
    fn a_damaged_marker_still_refuses() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pin-refused.primary"), "{").unwrap();
        let guard = PinGuard::new(dir.path(), "primary", None);
        assert!(guard.refusal().unwrap().contains("damaged"));
    }
}
