//! The note of login attempts on disk: which PINs were tried with a token, and what came of it.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Gid, Uid, fchown};
use serde::{Deserialize, Serialize};

use crate::{model::decode_hex, token::host::pin::BUDGET};

/// The marker's size on disk, in bytes. It is written over in place, so that a full disk does not keep
/// a refusal from being noted.
const MARKER: usize = 4096;
/// So many PINs are remembered.
const MOST_TRIED: usize = 6;

/// What was tried with one token, on disk.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Marker {
    pub(super) token_serial: String,
    /// Hex digits.
    pub(super) salt: String,
    pub(super) tried: VecDeque<TriedPin>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TriedPin {
    /// Hex digits.
    pub(super) fingerprint: String,
    /// Attempts without a clear answer, the one on its way included.
    pub(super) attempts: u32,
    /// Whether the token said CKF_USER_PIN_COUNT_LOW before the last attempt.
    pub(super) count_low: bool,
    /// Why nobody tries it again.
    pub(super) refused: Option<String>,
}

impl Marker {
    pub(super) fn find(&self, fingerprint: &str) -> Option<&TriedPin> {
        let mut tried = self.tried.iter();
        tried.find(|tried| tried.fingerprint == fingerprint)
    }

    /// The entry of a PIN; a new one if there is none, in the place of the oldest.
    pub(super) fn entry(&mut self, fingerprint: &str) -> &mut TriedPin {
        let at = self
            .tried
            .iter()
            .position(|tried| tried.fingerprint == fingerprint);
        let at = at.unwrap_or_else(|| {
            while self.tried.len() >= MOST_TRIED {
                self.tried.pop_front();
            }
            self.tried.push_back(TriedPin {
                fingerprint: fingerprint.to_owned(),
                attempts: 0,
                count_low: false,
                refused: None,
            });
            self.tried.len() - 1
        });
        &mut self.tried[at]
    }

    /// Takes over what is known elsewhere of a PIN: the worse of the two counts.
    pub(super) fn learn(&mut self, known: TriedPin) {
        let own = self.entry(&known.fingerprint);
        own.attempts = own.attempts.max(known.attempts);
        own.count_low |= known.count_low;
        own.refused = own.refused.take().or(known.refused);
    }

    /// Takes over what the disk says; gives it back if it is under another salt.
    pub(super) fn merge(&mut self, disk: Option<Self>) -> Option<Self> {
        let disk =
            disk.filter(|disk| decode_hex(&disk.salt).is_some_and(|salt| salt.len() >= 8))?;
        if self.tried.is_empty() {
            *self = disk;
        } else if self.salt == disk.salt {
            for tried in disk.tried {
                self.learn(tried);
            }
        } else if !disk.tried.is_empty() {
            return Some(disk);
        }
        None
    }

    pub(super) fn says_refused(&self) -> bool {
        let mut tried = self.tried.iter();
        tried.any(|tried| tried.refused.is_some() || tried.attempts >= BUDGET)
    }
}

/// Writes a marker over the one that is there, or anew, and syncs it: file, and folder if it is new.
pub(super) fn write_in_place(path: &Path, marker: &Marker) -> io::Result<()> {
    let mut text = serde_json::to_vec(marker)?;
    if text.len() >= MARKER {
        return Err(io::Error::other("the note is too long"));
    }
    text.resize(MARKER - 1, b' ');
    text.push(b'\n');
    if let Ok(file) = fs::File::options().write(true).open(path)
        && file.metadata()?.len() == MARKER as u64
    {
        file.write_all_at(&text, 0)?;
        return file.sync_all();
    }
    let new = PathBuf::from(format!("{}.new", path.display()));
    let file = create(&new, true)?;
    file.write_all_at(&text, 0)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::File::open(folder)?.sync_all()
}

/// A file of the state folder, for its owner alone: whoever runs `hsmac check` as root leaves nothing
/// that the service cannot read.
pub(super) fn create(path: &Path, anew: bool) -> io::Result<fs::File> {
    let file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(anew)
        .mode(0o600)
        .open(path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    if foreign_owner(folder).is_some() {
        let folder = fs::metadata(folder)?;
        let (uid, gid) = (Uid::from_raw(folder.uid()), Gid::from_raw(folder.gid()));
        fchown(&file, Some(uid), Some(gid))?;
    }
    Ok(file)
}

/// Who owns the state folder, if that is not root while this process is: what it writes there is given
/// to them.
pub fn foreign_owner(state_dir: &Path) -> Option<u32> {
    let owner = fs::metadata(state_dir).ok()?.uid();
    (owner != 0 && rustix::process::geteuid().is_root()).then_some(owner)
}
