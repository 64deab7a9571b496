//! What is appended and not yet written, and the segment that is written.

use std::{
    fs::File,
    io,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use prost::Message as _;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};

use super::{
    call::CallRecord,
    files::Folder,
    frame::{self, Kind},
    sealing::Sealing,
    strangers::Counted,
};
use crate::{
    model::{Checkpoint, Tree, leaf_hash},
    proto::audit::{Call, Entry, Gap, Phase, Started, entry::Entry as Leaf},
};

pub(super) struct State {
    /// With all that was appended.
    pub(super) tree: Tree,
    /// As far as it is written.
    pub(super) written: Tree,
    /// Frames that are not written yet.
    pub(super) buffer: Vec<u8>,
    /// Empty, and grown: the next buffer.
    spare: Vec<u8>,
    scratch: Vec<u8>,
    pub(super) batch: Arc<Batch>,
    /// What is being written.
    in_flight: Option<Arc<Batch>>,
    /// Somebody will write the buffer.
    pub(super) has_leader: bool,
    pub(super) writing_since: Option<Instant>,
    pub(super) segment: Segment,
    /// Segments that were ended and are not on disk yet.
    pub(super) unsynced: Vec<Arc<File>>,
    /// How many leaves the newest checkpoint is of.
    pub(super) checked: u64,
    pub(super) trouble: Option<String>,
    pub(super) missing: Missing,
    pub(super) sync_waiters: Vec<oneshot::Sender<bool>>,
    pub(super) strangers: Counted,
    /// None: the log is not to be sealed.
    pub(super) sealing: Option<Sealing>,
    /// A seal that is to be written, as text.
    pub(super) seal_to_keep: Option<String>,
    pub(super) ends: bool,
}

impl State {
    pub(super) fn new(segment: Segment, tree: Tree, sealing: Option<Sealing>) -> Self {
        Self {
            written: tree.clone(),
            tree,
            buffer: Vec::new(),
            spare: Vec::new(),
            scratch: Vec::new(),
            batch: Arc::default(),
            in_flight: None,
            has_leader: false,
            writing_since: None,
            segment,
            unsynced: Vec::new(),
            checked: 0,
            trouble: None,
            missing: Missing::default(),
            sync_waiters: Vec::new(),
            strangers: Counted::default(),
            sealing,
            seal_to_keep: None,
            ends: false,
        }
    }

    pub(super) fn append_call(&mut self, record: &CallRecord<'_>, phase: Phase) {
        let call = Call {
            time: now(),
            phase: phase.into(),
            wire: record.wire.into(),
            operation_ref: self.place(Some(record.operation)),
            principal_ref: self.place(record.principal),
            source_ref: record.source.map_or(0, |source| self.place_of(source)),
            key_ref: self.place(record.key()),
            exception_ref: self.place(record.exception),
            request_id: record.request_id.map_or_else(Vec::new, Into::into),
            trace_id: record.trace_id.map_or_else(Vec::new, Into::into),
            mac_algorithm_ref: self.place(record.algorithm()),
            alias: record.alias().to_owned(),
            grant_id: record.grant_id().to_owned(),
        };
        self.append(Leaf::Call(call));
    }

    /// Where a name stands; it is put there if it does not stand anywhere in this segment.
    fn place(&mut self, name: Option<&str>) -> u64 {
        let Some(name) = name else {
            return 0;
        };
        if let Some(place) = self.segment.names.get(name) {
            return *place;
        }
        self.append(Leaf::Name(name.to_owned()));
        let place = self.tree.size() - self.segment.first_index;
        self.segment.names.insert(name.into(), place);
        place
    }

    /// Where the name of an address stands.
    fn place_of(&mut self, source: IpAddr) -> u64 {
        if let Some(place) = self.segment.sources.get(&source) {
            return *place;
        }
        let place = self.place(Some(&source.to_string()));
        self.segment.sources.insert(source, place);
        place
    }

    pub(super) fn append(&mut self, leaf: Leaf) {
        self.scratch.clear();
        let entry = Entry { entry: Some(leaf) };
        entry.encode(&mut self.scratch).expect("a Vec grows");
        frame::write(
            &mut self.buffer,
            Kind::Leaf,
            self.tree.size(),
            &self.scratch,
        );
        let hash = leaf_hash(&self.scratch);
        self.tree.push(hash);
        if let Some(sealing) = &mut self.sealing {
            sealing.push(hash);
        }
    }

    /// Appends what is no leaf.
    pub(super) fn append_note(&mut self, kind: Kind, text: &str) {
        frame::write(&mut self.buffer, kind, self.tree.size(), text.as_bytes());
    }

    pub(super) fn take_batch(&mut self) -> (Vec<u8>, Arc<Batch>) {
        let spare = std::mem::take(&mut self.spare);
        let bytes = std::mem::replace(&mut self.buffer, spare);
        let batch = std::mem::take(&mut self.batch);
        self.in_flight = Some(Arc::clone(&batch));
        (bytes, batch)
    }

    /// Tells all who wait that it takes too long; what they appended may be written all the same.
    pub(super) fn give_up_waiting(&mut self) {
        let batches = [self.in_flight.take(), Some(std::mem::take(&mut self.batch))];
        for batch in batches.into_iter().flatten() {
            batch.finish(false);
        }
    }

    /// The memory of frames that were written is used again, unless there was an unusual lot of them.
    pub(super) fn reuse(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= LARGEST_SPARE {
            bytes.clear();
            self.spare = bytes;
        }
    }

    /// Drops what is not written, and tells all who wait.
    pub(super) fn give_up(&mut self, reason: &str) {
        self.tree = self.written.clone();
        self.buffer.clear();
        self.checked = 0;
        self.segment.names.clear();
        self.segment.sources.clear();
        self.trouble = Some(reason.to_owned());
        if let Some(sealing) = &mut self.sealing {
            sealing.lose_track();
        }
        std::mem::take(&mut self.batch).finish(false);
        for waiter in self.sync_waiters.drain(..) {
            // Who waits no longer has given up.
            let _ = waiter.send(false);
        }
    }

    /// Goes on in another segment after a failure.
    pub(super) fn go_on_in(&mut self, segment: Segment, tree: Tree) {
        self.segment = segment;
        self.written = tree.clone();
        self.tree = tree;
        self.trouble = None;
    }
}

/// The file that is written.
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    began: Instant,
    first_index: u64,
    /// What of it is written whole.
    pub(super) bytes: u64,
    /// The places of names, from 1.
    names: FxHashMap<Box<str>, u64>,
    /// The same of addresses, which need not be written out to be looked up.
    sources: FxHashMap<IpAddr, u64>,
}

impl Segment {
    /// Whether another one should be begun.
    pub(super) fn is_over(&self) -> bool {
        self.bytes > LARGEST || self.names.len() > MOST_NAMES || self.is_old()
    }

    /// A segment of nothing but its beginning is never old.
    pub(super) fn is_old(&self) -> bool {
        self.began.elapsed() > OLDEST && !self.names.is_empty()
    }

    pub(super) fn forget_names(&mut self, first_index: u64) {
        self.names.clear();
        self.sources.clear();
        self.first_index = first_index;
        self.began = Instant::now();
    }
}

/// A segment with its first record, and the tree with it. Not brought to disk yet.
pub(super) fn begin(
    folder: &Folder,
    origin: &str,
    before: &Tree,
    first: Leaf,
) -> io::Result<(Segment, Tree)> {
    let leaf = Entry { entry: Some(first) }.encode_to_vec();
    let (mut frames, mut tree) = (Vec::new(), before.clone());
    frame::write(&mut frames, Kind::Leaf, before.size(), &leaf);
    tree.push(leaf_hash(&leaf));
    let (file, bytes) = folder.begin(origin, before, &frames)?;
    let segment = Segment {
        file: Arc::new(file),
        began: Instant::now(),
        first_index: before.size(),
        bytes,
        names: FxHashMap::default(),
        sources: FxHashMap::default(),
    };
    Ok((segment, tree))
}

/// Records that are written together.
#[derive(Default)]
pub(super) struct Batch {
    done: OnceLock<bool>,
    notify: Notify,
}

impl Batch {
    pub(super) fn finish(&self, written: bool) {
        // It is finished once, by whoever took it out of the state.
        let _ = self.done.set(written);
        self.notify.notify_waiters();
    }

    /// Whether it is written; none while that is not known.
    pub(super) fn outcome(&self) -> Option<bool> {
        self.done.get().copied()
    }

    pub(super) async fn wait(&self) -> bool {
        let finished = self.notify.notified();
        match self.outcome() {
            Some(written) => written,
            None => {
                finished.await;
                self.outcome().unwrap_or(false)
            }
        }
    }
}

/// Calls that are not recorded, until a record says so.
#[derive(Debug, Default)]
pub(super) struct Missing {
    refused: u64,
    answered: u64,
    reason: String,
}

impl Missing {
    pub(super) fn count(&mut self, is_answered: bool, reason: &str) {
        if is_answered {
            self.answered += 1;
        } else {
            self.refused += 1;
        }
        if self.reason != reason {
            reason.clone_into(&mut self.reason);
        }
    }

    /// The record that says how many; none if none are missing.
    pub(super) fn gap(&self) -> Option<Leaf> {
        (self.refused + self.answered > 0).then(|| self.gap_since(&self.reason))
    }

    /// The record, also of none: something was lost that nobody called for.
    pub(super) fn gap_since(&self, reason: &str) -> Leaf {
        Leaf::Gap(Gap {
            time: now(),
            refused: self.refused,
            answered: self.answered,
            reason: reason.to_owned(),
        })
    }

    /// Forgets what a record has told, and keeps what was counted since.
    pub(super) fn told(&mut self, leaf: &Leaf) {
        if let Leaf::Gap(gap) = leaf {
            self.refused = self.refused.saturating_sub(gap.refused);
            self.answered = self.answered.saturating_sub(gap.answered);
        }
    }
}

pub(super) fn started() -> Leaf {
    Leaf::Started(Started {
        time: now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

pub(super) fn checkpoint(origin: &str, tree: &Tree) -> Checkpoint {
    Checkpoint {
        origin: origin.to_owned(),
        size: tree.size(),
        root: tree.root(),
    }
}

/// Microseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// The size at which a segment is full.
const LARGEST: u64 = 64 << 20;
/// The number of names at which it is.
const MOST_NAMES: usize = 1 << 16;
/// The age at which another one is begun.
const OLDEST: Duration = Duration::from_hours(1);
/// Larger buffers are given back.
const LARGEST_SPARE: usize = 256 << 10;
