//! Segments, read back: a segment is checked by itself (lengths, checksums, forms), and each fault says where.

use std::{
    fmt, fs,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use prost::Message as _;
use rustc_hash::FxHashMap;

use super::{
    frame::{Kind, MAGIC, PREFIX, Prefix},
    seal::SealedCheckpoint,
};
use crate::{
    model::{Checkpoint, Tree},
    proto::audit::{Entry, SegmentHeader, entry::Entry as Leaf},
};

/// A file of the log.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Segment {
    /// The index of its first leaf, which its name says.
    pub first_index: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// What is wrong with a log, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// The file.
    pub segment: PathBuf,
    /// The byte of the file at which the frame begins that is wrong.
    pub offset: u64,
    /// How many leaves came before.
    pub index: u64,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    /// At a byte of a file, and after so many leaves.
    pub(super) fn at(segment: &Path, (offset, index): (u64, u64), what: String) -> Self {
        Self {
            segment: segment.to_owned(),
            offset,
            index,
            what,
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            offset,
            index,
            what,
        } = self;
        write!(
            f,
            "{}, byte {offset}, record {index}: {what}",
            segment.display()
        )
    }
}

/// The name that a segment has.
pub(super) fn name(first_index: u64) -> String {
    format!("{first_index:020}{SUFFIX}")
}

/// The segments of a folder, the oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn segments(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let named = path.file_name().and_then(|name| name.to_str());
        let number = named.and_then(|name| name.strip_suffix(SUFFIX));
        let Some(number) = number.filter(|number| number.len() == 20) else {
            continue;
        };
        if let Ok(first_index) = number.parse() {
            segments.push(Segment { first_index, path });
        }
    }
    segments.sort();
    Ok(segments)
}

/// Which log a folder has: the first line of its checkpoints. None: there is no segment.
///
/// # Errors
/// The folder cannot be read, or its newest segment does not begin as one.
pub fn origin(directory: &Path) -> Result<Option<String>, Damage> {
    let unreadable = |error: io::Error| Damage::at(directory, (0, 0), error.to_string());
    let newest = segments(directory).map_err(unreadable)?.pop();
    newest
        .map(|segment| Ok(segment.open()?.origin().to_owned()))
        .transpose()
}

/// What a frame has, once its checksum was right.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    Leaf(&'a [u8]),
    Checkpoint(Checkpoint),
    /// The segment is complete.
    End(Checkpoint),
    /// Of a checkpoint before it.
    Seal(SealedCheckpoint),
}

/// A segment that is being read.
pub(super) struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    header: SegmentHeader,
    /// Where the next frame begins.
    offset: u64,
    /// How many leaves came before it.
    index: u64,
    bytes: Vec<u8>,
}

impl Segment {
    /// Opens it and reads its header.
    ///
    /// # Errors
    /// The file cannot be read, or does not begin as segments do.
    pub(super) fn open(&self) -> Result<Reader, Damage> {
        let unreadable = |error: io::Error| Damage {
            segment: self.path.clone(),
            offset: 0,
            index: self.first_index,
            what: error.to_string(),
        };
        let mut reader = Reader {
            file: BufReader::with_capacity(1 << 20, File::open(&self.path).map_err(unreadable)?),
            path: self.path.clone(),
            header: SegmentHeader::default(),
            offset: 0,
            index: self.first_index,
            bytes: Vec::new(),
        };
        let mut magic = [0; MAGIC.len()];
        if reader.file.read_exact(&mut magic).is_err() || magic != MAGIC {
            return Err(reader.damage("it does not begin as a segment of an audit log does"));
        }
        reader.offset = MAGIC.len() as u64;
        if reader.frame()? != Some(Kind::Header) {
            return Err(reader.damage("there is no header"));
        }
        let header = SegmentHeader::decode(&*reader.bytes);
        reader.header = header.map_err(|error| reader.damage(&format!("the header: {error}")))?;
        if reader.header.first_index != self.first_index {
            let says = reader.header.first_index;
            return Err(reader.damage(&format!(
                "the header is that of the segment that begins with record {says}"
            )));
        }
        reader
            .tree()
            .ok_or_else(|| reader.damage("the header's tree is none"))?;
        Ok(reader)
    }
}

impl Reader {
    pub(super) fn origin(&self) -> &str {
        &self.header.origin
    }

    /// The tree before this segment.
    pub(super) fn tree(&self) -> Option<Tree> {
        let subtrees = self.header.subtrees.iter();
        let subtrees: Option<Vec<_>> = subtrees
            .map(|hash| hash.as_slice().try_into().ok())
            .collect();
        Tree::of(self.header.first_index, subtrees?)
    }

    /// Where the next frame begins, and how many leaves came before it.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.offset, self.index)
    }

    /// The next frame; none at the end of the file.
    ///
    /// # Errors
    /// It is not as it was written.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, Damage> {
        let Some(kind) = self.frame()? else {
            return Ok(None);
        };
        let began = self.offset - (PREFIX + self.bytes.len()) as u64;
        Ok(Some(match kind {
            Kind::Header => {
                self.offset = began;
                return Err(self.damage("a second header"));
            }
            Kind::Leaf => {
                self.index += 1;
                Frame::Leaf(&self.bytes)
            }
            Kind::Checkpoint | Kind::End | Kind::Seal => match note(kind, &self.bytes) {
                Ok(frame) => frame,
                Err(fault) => {
                    self.offset = began;
                    return Err(self.damage(&fault));
                }
            },
        }))
    }

    /// Reads a frame into `bytes` and goes behind it. A damaged one is not gone behind.
    fn frame(&mut self) -> Result<Option<Kind>, Damage> {
        let ends = self.file.fill_buf().map(<[u8]>::is_empty);
        if ends.map_err(|error| self.damage(&error.to_string()))? {
            return Ok(None);
        }
        let mut prefix = [0; PREFIX];
        self.fill(&mut prefix)?;
        let prefix = Prefix::read(prefix).ok_or_else(|| self.damage("no frame begins here"))?;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(prefix.length, 0);
        self.fill(&mut bytes)?;
        self.bytes = bytes;
        if !prefix.fits(self.index, &self.bytes) {
            return Err(
                self.damage("the checksum is wrong: it was changed, or does not belong here")
            );
        }
        self.offset += (PREFIX + prefix.length) as u64;
        Ok(Some(prefix.kind))
    }

    /// Goes back to where the frame begins that could not be read whole.
    pub(super) fn rewind(&mut self) -> Result<(), Damage> {
        let back = self.file.seek(SeekFrom::Start(self.offset));
        back.map(drop)
            .map_err(|error| self.damage(&error.to_string()))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Damage> {
        self.file.read_exact(bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                self.damage(TORN)
            } else {
                self.damage(&error.to_string())
            }
        })
    }

    pub(super) fn damage(&self, what: &str) -> Damage {
        Damage::at(&self.path, self.place(), what.to_owned())
    }
}

/// A frame that is text.
fn note(kind: Kind, bytes: &[u8]) -> Result<Frame<'static>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    Ok(match kind {
        Kind::Seal => Frame::Seal(text.parse()?),
        Kind::End => Frame::End(text.parse()?),
        Kind::Header | Kind::Leaf | Kind::Checkpoint => Frame::Checkpoint(text.parse()?),
    })
}

/// What the bytes of a file are from `offset` on.
pub(super) fn rest(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    Ok(rest)
}

/// The names of a segment, to which its calls refer.
#[derive(Debug, Default)]
pub struct Names {
    /// How many leaves of the segment were taken.
    leaves: u64,
    by_place: FxHashMap<u64, Box<str>>,
}

impl Names {
    /// Takes the next leaf of the segment.
    pub(super) fn push(&mut self, entry: &Entry) {
        self.leaves += 1;
        if let Some(Leaf::Name(name)) = &entry.entry {
            self.by_place.insert(self.leaves, name.as_str().into());
        }
    }

    /// The name at a place; none for 0, and for what is no name's.
    pub fn name(&self, place: u64) -> Option<&str> {
        self.by_place.get(&place).map(|name| &**name)
    }
}

/// What damage is called that a write under way looks like too.
pub(super) const TORN: &str = "the file ends within a frame";
const SUFFIX: &str = ".audit";
