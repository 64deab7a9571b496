//! Whether a whole log is what was written: each segment, that they follow on each other, and that the tree is as
//! every checkpoint says, in the log, beside it, and the one that somebody kept.

use std::{collections::VecDeque, fs, io, path::Path};

use prost::Message as _;

use super::{
    files::CHECKPOINT,
    reader::{Damage, Frame, Names, Segment, TORN, segments},
    seal::SealedCheckpoint,
};
use crate::{
    model::{Checkpoint, Hash, InclusionProof, Prover, Tree, leaf_hash},
    proto::audit::{Call, Entry, entry::Entry as Leaf},
};

/// What a log is found to be.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The log at its end, as far as it could be read; none if there is nothing of it.
    pub checkpoint: Option<Checkpoint>,
    /// The first record that is there: older segments were taken away.
    pub first_index: u64,
    /// How many records were read.
    pub records: u64,
    /// How many segments there are.
    pub segments: usize,
    /// How many seals there are.
    pub seals: u64,
    /// What is wrong, in the order of the log; empty: nothing.
    pub damages: Vec<Damage>,
}

/// Reads all of a log. `kept` are checkpoints from elsewhere that it must agree with, each with a name; `progress` is told the bytes
/// that were read, now and then.
///
/// # Errors
/// The folder cannot be read.
pub fn verify(
    directory: &Path,
    kept: &[(String, Checkpoint)],
    progress: impl FnMut(u64),
) -> io::Result<Verified> {
    let mut pass = Pass::new(directory, kept.to_vec(), progress)?;
    pass.run(|_| ());
    Ok(pass.verified)
}

/// The proof that record `index` is in a log, with the log's checkpoint and the record's bytes.
///
/// # Errors
/// A sentence: the log is damaged, has no such record, or no longer has the records before it.
pub fn prove(
    directory: &Path,
    index: u64,
) -> Result<(InclusionProof, Checkpoint, Vec<u8>), String> {
    let unreadable = |error: io::Error| format!("{}: {error}", directory.display());
    let mut pass = Pass::new(directory, Vec::new(), |_| ()).map_err(unreadable)?;
    // Without the log growing meanwhile: how large it is, then the proof for this size.
    let mut hashes = 0;
    pass.run(|_| hashes += 1);
    let Verified {
        checkpoint,
        first_index,
        damages,
        ..
    } = pass.verified;
    if let Some(damage) = damages.first() {
        return Err(format!("the log is damaged: {damage}"));
    }
    if first_index > 0 {
        return Err(format!(
            "the log begins with record {first_index}: a proof needs all of it"
        ));
    }
    let checkpoint = checkpoint.ok_or("the log is empty")?;
    let mut prover = Prover::new(index, checkpoint.size).ok_or_else(|| {
        format!(
            "the log has {} records, the last is {}",
            checkpoint.size,
            checkpoint.size - 1
        )
    })?;
    let mut record = Vec::new();
    let mut again = Pass::new(directory, Vec::new(), |_| ()).map_err(unreadable)?;
    let mut next = 0;
    again.run(|leaf| {
        prover.push(leaf_hash(leaf));
        if next == index {
            record = leaf.to_vec();
        }
        next += 1;
    });
    let proof = prover.proof().ok_or("the log was changed meanwhile")?;
    Ok((proof, checkpoint, record))
}

struct Pass<P> {
    segments: Vec<Segment>,
    kept: Vec<(String, Checkpoint)>,
    tree: Option<Tree>,
    /// The checkpoints that were met last: seals are of them.
    recent: VecDeque<Checkpoint>,
    origin: Option<String>,
    progress: P,
    read: u64,
    verified: Verified,
    directory: std::path::PathBuf,
}

impl<P: FnMut(u64)> Pass<P> {
    fn new(directory: &Path, mut kept: Vec<(String, Checkpoint)>, progress: P) -> io::Result<Self> {
        // Read before the segments: the log may grow meanwhile.
        let path = directory.join(CHECKPOINT);
        let mut damages = Vec::new();
        match fs::read_to_string(&path) {
            Ok(text) => match text.parse() {
                Ok(one) => kept.push((path.display().to_string(), one)),
                Err(what) => damages.push(Damage {
                    segment: path,
                    offset: 0,
                    index: 0,
                    what,
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        kept.sort_by_key(|(_, one)| one.size);
        let segments = segments(directory)?;
        Ok(Self {
            verified: Verified {
                checkpoint: None,
                first_index: segments.first().map_or(0, |first| first.first_index),
                records: 0,
                segments: segments.len(),
                seals: 0,
                damages,
            },
            segments,
            kept,
            tree: None,
            recent: VecDeque::new(),
            origin: None,
            progress,
            read: 0,
            directory: directory.to_owned(),
        })
    }

    fn run(&mut self, mut leaf: impl FnMut(&[u8])) {
        let segments = std::mem::take(&mut self.segments);
        for (place, segment) in segments.iter().enumerate() {
            let is_last = place + 1 == segments.len();
            if let Err(damage) = self.segment(segment, is_last, &mut leaf) {
                self.verified.damages.push(damage);
            }
        }
        let size = self.tree.as_ref().map_or(0, Tree::size);
        for (from, one) in std::mem::take(&mut self.kept) {
            // Smaller ones were compared on the way, unless what they are about is gone.
            let what = if one.size > size {
                format!(
                    "the log has {size} records, and {from} says that it had {}: its end is missing",
                    one.size
                )
            } else if self
                .origin
                .as_ref()
                .is_some_and(|origin| *origin != one.origin)
            {
                format!("this is another log than that of {from}")
            } else {
                continue;
            };
            let segment = segments
                .last()
                .map_or_else(|| self.directory.clone(), |last| last.path.clone());
            self.verified.damages.push(Damage {
                segment,
                offset: 0,
                index: size,
                what,
            });
        }
        if let (Some(tree), Some(origin)) = (&self.tree, &self.origin) {
            self.verified.checkpoint = Some(Checkpoint {
                origin: origin.clone(),
                size: tree.size(),
                root: tree.root(),
            });
        }
    }

    fn segment(
        &mut self,
        segment: &Segment,
        is_last: bool,
        leaf: &mut impl FnMut(&[u8]),
    ) -> Result<(), Damage> {
        let mut reader = segment.open()?;
        let mut tree = reader
            .tree()
            .ok_or_else(|| reader.damage("the header's tree is none"))?;
        let follows = self.tree.replace(tree.clone());
        if let Some(before) = follows
            && before != tree
        {
            let (is, should) = (tree.size(), before.size());
            let what = if is == should {
                "the tree that the header says is not that of the records before".to_owned()
            } else {
                format!(
                    "the segment begins with record {is}, and the one before it ends before record {should}: records are missing"
                )
            };
            self.verified.damages.push(reader.damage(&what));
        }
        match &self.origin {
            None => self.origin = Some(reader.origin().to_owned()),
            Some(origin) if origin == reader.origin() => {}
            Some(_) => return Err(reader.damage("the segment is of another log")),
        }
        self.compare_kept(&tree, &segment.path, reader.place());
        let mut names = Names::default();
        let mut ended = false;
        let (mut at, _) = reader.place();
        let result = loop {
            let place = reader.place();
            let wrong = |what: String| Damage::at(&segment.path, place, what);
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                // What is half written now.
                Err(damage) if is_last && damage.what == TORN && is_written(&self.directory) => {
                    break Ok(());
                }
                Err(damage) => break Err(damage),
            };
            if ended {
                break Err(wrong("something follows the end of the segment".to_owned()));
            }
            match frame {
                Frame::Leaf(bytes) => {
                    let entry = match Entry::decode(bytes) {
                        Ok(entry) => entry,
                        Err(error) => break Err(wrong(format!("no record: {error}"))),
                    };
                    names.push(&entry);
                    if let Some(Leaf::Call(call)) = &entry.entry
                        && let Some(fault) = unnamed(call, &names)
                    {
                        break Err(wrong(fault));
                    }
                    leaf(bytes);
                    tree.push(leaf_hash(bytes));
                    self.verified.records += 1;
                    if self
                        .kept
                        .first()
                        .is_some_and(|(_, one)| one.size <= tree.size())
                    {
                        self.compare_kept(&tree, &segment.path, place);
                    }
                }
                Frame::Checkpoint(one) => {
                    if let Some(fault) = differs(&one, &tree) {
                        break Err(wrong(fault));
                    }
                    self.remember(one);
                }
                Frame::End(one) => {
                    if let Some(fault) = differs(&one, &tree) {
                        break Err(wrong(fault));
                    }
                    self.remember(one);
                    ended = true;
                }
                Frame::Seal(sealed) => {
                    if let Some(fault) = self.judge(&sealed) {
                        break Err(wrong(fault));
                    }
                }
            }
            let (now, _) = reader.place();
            if now - at >= PROGRESS {
                self.read += now - at;
                at = now;
                (self.progress)(self.read);
            }
        };
        let (now, _) = reader.place();
        self.read += now - at;
        (self.progress)(self.read);
        self.tree = Some(tree);
        result?;
        // hsmac ends a segment when it begins the next, and when it ends; after a crash the next start cuts what was
        // not written whole, and ends it.
        if !ended && !is_last {
            return Err(reader.damage("the segment has no end: it was cut"));
        }
        Ok(())
    }

    fn remember(&mut self, checkpoint: Checkpoint) {
        if self.recent.len() == MOST_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(checkpoint);
    }

    /// What is wrong with a seal's place: it is of one of the checkpoints before it.
    fn judge(&mut self, sealed: &SealedCheckpoint) -> Option<String> {
        let is_known = self.recent.contains(&sealed.checkpoint);
        // What it is of is in a segment that was taken away.
        let is_older = sealed.checkpoint.size <= self.verified.first_index;
        self.verified.seals += u64::from(is_known);
        (!is_known && !is_older)
            .then(|| "a seal is of records that are not those before it".to_owned())
    }

    /// Compares the checkpoints that are of this size; forgets those that are smaller, which were compared, or are
    /// about records that are no longer there.
    fn compare_kept(&mut self, tree: &Tree, segment: &Path, place: (u64, u64)) {
        while let Some((from, one)) = self.kept.first() {
            if one.size > tree.size() {
                return;
            }
            if one.size == tree.size() && one.root != tree.root() {
                let what = format!("the records up to here are not those that {from} is of");
                self.verified.damages.push(Damage::at(segment, place, what));
            }
            self.kept.remove(0);
        }
    }
}

/// Whether an hsmac writes the log now.
fn is_written(directory: &Path) -> bool {
    let lock = fs::File::open(directory.join("lock"));
    lock.is_ok_and(|lock| lock.try_lock_shared().is_err())
}

fn differs(one: &Checkpoint, tree: &Tree) -> Option<String> {
    if one.size != tree.size() {
        return Some(format!(
            "a checkpoint of {} records stands after {}",
            one.size,
            tree.size()
        ));
    }
    let root: Hash = tree.root();
    (one.root != root)
        .then(|| "the records before are not those that the checkpoint is of".to_owned())
}

fn unnamed(call: &Call, names: &Names) -> Option<String> {
    let places = [
        call.operation_ref,
        call.principal_ref,
        call.source_ref,
        call.key_ref,
        call.exception_ref,
        call.mac_algorithm_ref,
    ];
    let missing = places
        .into_iter()
        .find(|place| *place != 0 && names.name(*place).is_none());
    missing.map(|place| format!("the record refers to the name at {place}, and there is none"))
}

/// Progress is told each time so many bytes were read.
const PROGRESS: u64 = 4 << 20;
/// A seal comes so many checkpoints after its own at most: seconds in which a token was slow.
const MOST_RECENT: usize = 1024;
