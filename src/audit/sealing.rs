//! What is still to be sealed. A token seals what is on disk, and asks for the leaves since its last seal; they are
//! kept here as the subtrees that they make, some dozens of hashes however many there are.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use tracing::info;

use super::{
    files::SEALED_CHECKPOINT,
    log::{Log, SealedUpTo},
    reader::{Frame, Segment, segments},
    seal::SealedCheckpoint,
};
use crate::model::{Checkpoint, Extension, Hash, Tree, leaf_hash};

/// What a token is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What is to be sealed.
    pub checkpoint: Checkpoint,
    /// The leaves of it since the last seal, as far as that is known.
    pub leaves: Extension,
}

/// The way of leaves to a seal.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    /// Since the newest checkpoint; none: they are only in the file.
    fresh: Option<Extension>,
    /// Up to a checkpoint that is being brought to disk.
    checked: Option<Extension>,
    /// Up to a checkpoint that is on disk, and that checkpoint.
    ready: Option<(Extension, Checkpoint)>,
    /// What a token was asked for.
    asked: Option<Extension>,
    waiting_since: Option<Instant>,
    /// How many leaves the newest seal is of.
    sealed: u64,
    trouble: Option<String>,
}

impl Sealing {
    pub(super) fn push(&mut self, leaf: Hash) {
        if let Some(fresh) = &mut self.fresh {
            fresh.push(leaf);
        }
    }

    /// A checkpoint of all leaves so far is appended.
    pub(super) fn checkpointed(&mut self, checkpoint: &Checkpoint) {
        let next = Extension::after(checkpoint.size);
        self.checked = self.fresh.replace(next);
    }

    /// The last checkpoint is on disk.
    pub(super) fn is_on_disk(&mut self, checkpoint: Checkpoint) {
        let ready = self.ready.take().map(|(leaves, _)| leaves);
        let leaves = joined(ready, self.checked.take(), checkpoint.size);
        self.ready = Some((leaves, checkpoint));
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// What was appended is dropped: the leaves up to the next checkpoint are only in the file.
    pub(super) fn lose_track(&mut self) {
        self.fresh = None;
        self.checked = None;
    }

    pub(super) fn snapshot(&self) -> SealedUpTo {
        SealedUpTo {
            size: self.sealed,
            waiting: self
                .waiting_since
                .map_or(Duration::ZERO, |since| since.elapsed()),
            trouble: self.trouble.clone(),
        }
    }

    fn wish(&mut self) -> Option<Wish> {
        let (leaves, checkpoint) = self.ready.take()?;
        // What comes meanwhile follows on what was asked for.
        self.asked = Some(leaves.clone());
        Some(Wish { checkpoint, leaves })
    }

    /// The wish is as it was, with what has come since.
    fn put_back(&mut self, wish: Checkpoint) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        let (leaves, newest) = match self.ready.take() {
            None => (asked, wish),
            Some((since, newest)) => (joined(Some(asked), Some(since), newest.size), newest),
        };
        self.ready = Some((leaves, newest));
    }
}

/// Leaves and those after them, up to the checkpoint of `size`. Where some between them are not known, nothing is: the
/// token is asked where it is, and they are read from the files.
fn joined(before: Option<Extension>, after: Option<Extension>, size: u64) -> Extension {
    let known = match (before, after) {
        (Some(mut before), Some(after)) if before.end() == after.begin() => {
            before.append(&after);
            Some(before)
        }
        (None, after) => after,
        (Some(_), _) => None,
    };
    known
        .filter(|leaves| leaves.end() == size)
        .unwrap_or_else(|| Extension::after(size))
}

impl Log {
    /// What there is to seal: all that is on disk. The answer is said with [`sealed`](Self::sealed),
    /// [`not_sealed`](Self::not_sealed) or [`sealed_elsewhere`](Self::sealed_elsewhere).
    pub fn wish(&self) -> Option<Wish> {
        self.state().sealing.as_mut()?.wish()
    }

    /// The newest seal that is kept beside the log; none: there is none yet.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn newest_seal(&self) -> Result<Option<SealedCheckpoint>, String> {
        newest_seal(&self.folder.path)
    }

    /// The check value of the key that has sealed the log, in hexadecimal; none: it is not known yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn seal_key(&self) -> Result<Option<String>, String> {
        let known = self.folder.seal_key();
        known.map_err(|error| format!("{}/seal-key: {error}", self.folder.path.display()))
    }

    /// Keeps the check value of the key that seals the log from now on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_seal_key(&self, check_value: &str) -> Result<(), String> {
        let kept = self.folder.keep_seal_key(check_value);
        kept.map_err(|error| format!("{}/seal-key: {error}", self.folder.path.display()))
    }

    /// A token has sealed it. Kept in the log, and beside it, within a second.
    pub fn sealed(&self, wish: Wish, seal: &[u8]) {
        let size = wish.checkpoint.size;
        let sealed = SealedCheckpoint {
            checkpoint: wish.checkpoint,
            seal: seal.to_vec(),
        };
        let mut state = self.state();
        state.seal_to_keep = Some(sealed.to_string());
        if let Some(sealing) = &mut state.sealing {
            sealing.asked = None;
            sealing.sealed = size;
            sealing.waiting_since = sealing.ready.is_some().then(Instant::now);
            if sealing.trouble.take().is_some() {
                info!(
                    event = "audit_seals_resumed",
                    size, "the audit log is sealed again"
                );
            }
        }
    }

    /// No token has sealed it; it is asked again. Whether that is new.
    pub fn not_sealed(&self, wish: Wish, reason: &str) -> bool {
        let mut state = self.state();
        let Some(sealing) = &mut state.sealing else {
            return false;
        };
        sealing.put_back(wish.checkpoint);
        sealing.trouble.replace(reason.to_owned()).is_none()
    }

    /// A token remembers that it has sealed `size` leaves with this root: what it must be asked for is read from the
    /// files.
    ///
    /// # Errors
    /// The log has not so many, or others, or cannot be read. Nothing was sealed; say so with
    /// [`not_sealed`](Self::not_sealed).
    pub fn sealed_elsewhere(&self, wish: Wish, size: u64, root: Hash) -> Result<(), String> {
        let known = wish.checkpoint.size;
        if size > known {
            return Err(format!(
                "the log has {known} records, and {size} of it were sealed before: records are missing at its end"
            ));
        }
        let (before, leaves) = self.read_leaves(size, known)?;
        // Security: before the token takes more leaves for the sequel of what it has sealed.
        if before.root() != root {
            return Err("the records are not those that were sealed before".to_owned());
        }
        if let Some(sealing) = &mut self.state().sealing {
            sealing.asked = Some(leaves);
            sealing.put_back(wish.checkpoint);
        }
        Ok(())
    }

    /// The tree of the leaves before `from`, and those from there on, before `to`.
    fn read_leaves(&self, from: u64, to: u64) -> Result<(Tree, Extension), String> {
        let unreadable = |error: io::Error| format!("{}: {error}", self.folder.path.display());
        let segments = segments(&self.folder.path).map_err(unreadable)?;
        let begins = |segment: &Segment| segment.first_index <= from;
        let first = segments.iter().rposition(begins);
        let first = first.ok_or_else(|| format!("record {from} is not in the log any more"))?;
        let (mut before, mut leaves) = (None, Extension::after(from));
        for segment in &segments[first..] {
            let mut reader = segment.open().map_err(|damage| damage.to_string())?;
            let tree = before.get_or_insert_with(|| reader.tree().unwrap_or_default());
            while leaves.end() < to {
                match reader.next().map_err(|damage| damage.to_string())? {
                    Some(Frame::Leaf(leaf)) if tree.size() < from => tree.push(leaf_hash(leaf)),
                    Some(Frame::Leaf(leaf)) => leaves.push(leaf_hash(leaf)),
                    Some(_) => {}
                    None => break,
                }
            }
        }
        match before {
            Some(before) if before.size() == from && leaves.end() == to => Ok((before, leaves)),
            _ => Err(format!(
                "record {} is not in the log any more",
                leaves.end()
            )),
        }
    }
}

/// The newest seal that is kept beside a log; none: there is none.
///
/// # Errors
/// It cannot be read, or is none.
pub fn newest_seal(directory: &Path) -> Result<Option<SealedCheckpoint>, String> {
    let path = directory.join(SEALED_CHECKPOINT);
    let shown = path.display();
    match fs::read_to_string(&path) {
        Ok(text) => text
            .parse()
            .map(Some)
            .map_err(|fault| format!("{shown}: {fault}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint {
            origin: "hsmac/audit/1".into(),
            size,
            root: [0; 32],
        }
    }

    fn grown(sealing: &mut Sealing, from: u8, to: u8) {
        (from..to).for_each(|leaf| sealing.push(leaf_hash(&[leaf])));
        sealing.checkpointed(&checkpoint(to.into()));
    }

    /// From where on, and how far, the token is asked to seal.
    fn asked(sealing: &mut Sealing) -> (u64, u64, u64) {
        let wish = sealing.wish().unwrap();
        (wish.leaves.begin(), wish.leaves.end(), wish.checkpoint.size)
    }

    #[test]
    fn a_token_is_asked_for_all_leaves_since_the_last_seal_or_for_none_and_never_for_some() {
        let mut sealing = Sealing::default();
        // Nobody knows yet what was sealed.
        grown(&mut sealing, 0, 4);
        sealing.is_on_disk(checkpoint(4));
        assert_eq!(asked(&mut sealing), (4, 4, 4));
        sealing.asked = None;
        grown(&mut sealing, 4, 6);
        sealing.is_on_disk(checkpoint(6));
        assert_eq!(asked(&mut sealing), (4, 6, 6));
        // It was not sealed, and more has come meanwhile.
        grown(&mut sealing, 6, 9);
        sealing.is_on_disk(checkpoint(9));
        sealing.put_back(checkpoint(6));
        assert_eq!(asked(&mut sealing), (4, 9, 9));
        sealing.asked = None;
        // A checkpoint did not come to disk: the next one is not asked for with a gap.
        grown(&mut sealing, 9, 11);
        grown(&mut sealing, 11, 13);
        sealing.is_on_disk(checkpoint(13));
        let (begin, end, size) = asked(&mut sealing);
        assert!(begin == 11 || begin == end, "{begin} {end}");
        assert_eq!((end, size), (13, 13));
        // What was appended is lost, and the log goes on.
        sealing.put_back(checkpoint(13));
        sealing.lose_track();
        grown(&mut sealing, 13, 15);
        sealing.is_on_disk(checkpoint(15));
        assert_eq!(asked(&mut sealing), (15, 15, 15));
    }
}
