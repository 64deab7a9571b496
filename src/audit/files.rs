//! The log's folder: who may write it, how it is found at a start, and its segments as they begin and end.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use prost::Message as _;

use super::{
    frame::{self, Kind, MAGIC},
    log::OpenFault,
    reader::{self, Frame, Segment, segments},
    state::checkpoint,
};
use crate::{
    model::{Checkpoint, Tree, leaf_hash, new_uuid},
    proto::audit::SegmentHeader,
};

/// The log as a start finds it.
pub(super) struct Found {
    pub(super) origin: String,
    pub(super) tree: Tree,
    /// What was cut from the end, since it was not written whole: bytes, and the file that has them now.
    pub(super) cut: Option<(usize, PathBuf)>,
}

/// The folder, which no other process writes to.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, OpenFault> {
        let fault = |error: io::Error| OpenFault::Unusable(format!("{}: {error}", path.display()));
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fault(error)),
        }
        let metadata = fs::metadata(path).map_err(fault)?;
        if let Some(fault) = open_to_others(path, &metadata) {
            return Err(OpenFault::Unusable(fault));
        }
        let lock = options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"));
        let lock = lock.map_err(fault)?;
        lock.try_lock().map_err(|_| {
            OpenFault::Unusable(format!(
                "{}: another process writes this audit log",
                path.display()
            ))
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Reads the end of the log. What was not written whole is put aside; a segment without an end gets one.
    pub(super) fn recover(&self) -> Result<Found, OpenFault> {
        let fault =
            |error: io::Error| OpenFault::Unusable(format!("{}: {error}", self.path.display()));
        let known = match fs::read_to_string(self.path.join(CHECKPOINT)) {
            Ok(text) => Some(text.parse::<Checkpoint>().map_err(|what| {
                OpenFault::Damaged(format!("{}: {what}", self.path.join(CHECKPOINT).display()))
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fault(error)),
        };
        let known_size = known.as_ref().map_or(0, |known| known.size);
        let mut cut = None;
        for segment in segments(&self.path).map_err(fault)?.into_iter().rev() {
            let mut reader = match segment.open() {
                Ok(reader) => reader,
                // A crash while it was begun: nothing was answered that is in it alone.
                Err(_) if segment.first_index >= known_size => {
                    cut = Some(put_aside(&segment.path, 0).map_err(fault)?);
                    fs::remove_file(&segment.path).map_err(fault)?;
                    continue;
                }
                Err(damage) => return Err(OpenFault::Damaged(damage.to_string())),
            };
            let damaged =
                |what: &str| OpenFault::Damaged(format!("{}: {what}", segment.path.display()));
            let mut tree = reader
                .tree()
                .ok_or_else(|| damaged("the header's tree is none"))?;
            let origin = reader.origin().to_owned();
            let (mut ended, mut agrees) = (false, true);
            let torn = loop {
                if let Some(known) = known.as_ref().filter(|known| known.size == tree.size()) {
                    agrees = known.root == tree.root() && known.origin == origin;
                }
                match reader.next() {
                    Ok(Some(Frame::Leaf(leaf))) => tree.push(leaf_hash(leaf)),
                    Ok(Some(Frame::Seal(_))) => {}
                    Ok(Some(Frame::Checkpoint(one))) => agrees &= one.root == tree.root(),
                    Ok(Some(Frame::End(one))) => {
                        agrees &= one.root == tree.root();
                        ended = true;
                    }
                    Ok(None) => break None,
                    Err(damage) => break Some(damage),
                }
            };
            if !agrees {
                return Err(damaged(
                    "the records are not those that its checkpoints are of",
                ));
            }
            // Security: what a checkpoint has told of was on disk; if it is gone, no crash has done that.
            if tree.size() < known_size {
                let why = torn.map_or_else(|| "it ends there".to_owned(), |damage| damage.what);
                return Err(damaged(&format!(
                    "it has {} good records, and {CHECKPOINT} says that there were {known_size}: {why}",
                    tree.size()
                )));
            }
            let (good, _) = reader.place();
            if torn.is_some() {
                cut = Some(put_aside(&segment.path, good).map_err(fault)?);
            }
            if !ended {
                let file = options().append(true).open(&segment.path).map_err(fault)?;
                file.set_len(good).map_err(fault)?;
                end(&file, &origin, &tree).map_err(fault)?;
                file.sync_data().map_err(fault)?;
            }
            return Ok(Found { origin, tree, cut });
        }
        if known_size > 0 {
            return Err(OpenFault::Damaged(format!(
                "{}: {CHECKPOINT} says that there were {known_size} records, and there is no segment",
                self.path.display()
            )));
        }
        let origin = known.map_or_else(
            || format!("hsmac/audit/{}", new_uuid()),
            |known| known.origin,
        );
        Ok(Found {
            origin,
            tree: Tree::default(),
            cut,
        })
    }

    /// Begins a segment with these frames, which follow on its header. It is not brought to disk yet.
    pub(super) fn begin(
        &self,
        origin: &str,
        tree: &Tree,
        frames: &[u8],
    ) -> io::Result<(File, u64)> {
        let path = self.path.join(reader::name(tree.size()));
        let header = SegmentHeader {
            origin: origin.to_owned(),
            first_index: tree.size(),
            subtrees: tree.subtrees().iter().map(|hash| hash.to_vec()).collect(),
        };
        let mut bytes = MAGIC.to_vec();
        frame::write(
            &mut bytes,
            Kind::Header,
            tree.size(),
            &header.encode_to_vec(),
        );
        bytes.extend_from_slice(frames);
        let segment = Segment {
            first_index: tree.size(),
            path: path.clone(),
        };
        let is_there = path.symlink_metadata().is_ok();
        // One that has no record yet, since the disk was full before the first.
        if is_there && !has_records(&segment) {
            fs::remove_file(&path)?;
        }
        let file = options().append(true).create_new(true).open(&path)?;
        if let Err(error) = (&file).write_all(&bytes) {
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok((file, bytes.len() as u64))
    }

    /// The bytes that are free on its disk.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.path).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Brings to disk that a segment was begun.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Puts the checkpoint beside the log. What it is of is on disk.
    pub(super) fn keep(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.replace(CHECKPOINT, &checkpoint.to_string())
    }

    /// Puts the newest seal beside the log.
    pub(super) fn keep_seal(&self, sealed: &str) -> io::Result<()> {
        self.replace(SEALED_CHECKPOINT, sealed)
    }

    /// The check value of the key that seals the log, in hexadecimal; none: it is not known yet.
    pub(super) fn seal_key(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.path.join(SEAL_KEY)) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn keep_seal_key(&self, check_value: &str) -> io::Result<()> {
        self.replace(SEAL_KEY, &format!("{check_value}\n"))
    }
    fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        replace(&self.path, name, text)
    }
}

/// Puts a file in the place of another one, on disk before it is seen.
pub(super) fn replace(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    let mut file = options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(new, folder.join(name))
}

/// What a start would find in a log's folder; nothing is changed by looking.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Look {
    /// There is no folder; the first start makes it.
    NotThere,
    /// There is a log.
    There {
        /// How many records the newest checkpoint is of.
        size: u64,
        /// Whether a process writes it now.
        is_in_use: bool,
    },
}

/// Looks at a log's folder, without reading the log.
///
/// # Errors
/// A sentence: a start could not use the folder.
pub fn look(directory: &Path) -> Result<Look, String> {
    let shown = directory.display();
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = directory.parent().is_none_or(Path::is_dir);
            return above.then_some(Look::NotThere).ok_or_else(|| {
                format!("{shown}: the folder that it would be made in does not exist")
            });
        }
        Err(error) => return Err(format!("{shown}: {error}")),
    };
    if let Some(fault) = open_to_others(directory, &metadata) {
        return Err(fault);
    }
    let lock = File::open(directory.join("lock"));
    let is_in_use = lock.is_ok_and(|lock| lock.try_lock_shared().is_err());
    let size = match fs::read_to_string(directory.join(CHECKPOINT)) {
        Ok(text) => text.parse().map(|checkpoint: Checkpoint| checkpoint.size),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.to_string()),
    };
    let size = size.map_err(|fault| format!("{shown}/{CHECKPOINT}: {fault}"))?;
    Ok(Look::There { size, is_in_use })
}

/// Security: who else may enter could read who does what, and who may write could add to it.
fn open_to_others(directory: &Path, metadata: &fs::Metadata) -> Option<String> {
    let (mode, shown) = (metadata.mode(), directory.display());
    (mode & 0o077 != 0).then(|| {
        let mode = mode & 0o777;
        format!("{shown}: others than its owner may enter (mode {mode:o}); chmod 700 it")
    })
}

/// Ends a segment. It is not brought to disk yet.
pub(super) fn end(file: &File, origin: &str, tree: &Tree) -> io::Result<()> {
    let mut bytes = Vec::new();
    let checkpoint = checkpoint(origin, tree).to_string();
    frame::write(&mut bytes, Kind::End, tree.size(), checkpoint.as_bytes());
    let mut file = file;
    file.write_all(&bytes)
}

fn has_records(segment: &Segment) -> bool {
    let Ok(mut reader) = segment.open() else {
        return false;
    };
    matches!(reader.next(), Ok(Some(Frame::Leaf(_))))
}

/// Copies what a file has from `offset` on into one beside it.
fn put_aside(path: &Path, offset: u64) -> io::Result<(usize, PathBuf)> {
    let rest = reader::rest(path, offset)?;
    let aside = path.with_extension(format!("cut-at-{offset}"));
    let mut file = options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&aside)?;
    file.write_all(&rest)?;
    file.sync_data()?;
    Ok((rest.len(), aside))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// The file with the newest checkpoint.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The file with the newest checkpoint that is sealed.
pub(super) const SEALED_CHECKPOINT: &str = "sealed-checkpoint";
/// The file with the check value of the key that seals.
const SEAL_KEY: &str = "seal-key";
