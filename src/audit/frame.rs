//! Bytes on disk. A segment is a line that names the format, a frame with its header, and then frames of leaves and
//! checkpoints:
//!
//! ```text
//! length (u32, little-endian) | CRC32C (u32, little-endian) | kind (u8) | length bytes
//! ```
//!
//! The CRC is over the number of leaves before the frame (u64, little-endian), the kind and the bytes: a frame that is
//! moved, dropped or repeated is found where it stands, without a number in each.

/// The first line of a segment.
pub(super) const MAGIC: &[u8] = b"hsmac audit 1\n";
/// Before a frame's bytes.
pub(super) const PREFIX: usize = 9;
/// The most bytes that a frame has; longer ones are damage.
pub(super) const LONGEST: usize = 64 << 10;

/// What a frame has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A [`SegmentHeader`](crate::proto::audit::SegmentHeader).
    Header = 0,
    /// A leaf: an [`Entry`](crate::proto::audit::Entry).
    Leaf = 1,
    /// A [`Checkpoint`](crate::model::Checkpoint) of all leaves before it.
    Checkpoint = 2,
    /// The same, and the segment ends with it.
    End = 3,
    /// A [`SealedCheckpoint`](super::SealedCheckpoint): one that stands before it, with its seal.
    Seal = 4,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::Header,
            Self::Leaf,
            Self::Checkpoint,
            Self::End,
            Self::Seal,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Appends a frame.
pub(super) fn write(to: &mut Vec<u8>, kind: Kind, leaves_before: u64, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("callers keep to LONGEST");
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(&checksum(kind, leaves_before, bytes).to_le_bytes());
    to.push(kind as u8);
    to.extend_from_slice(bytes);
}

/// What stands before a frame's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub(super) kind: Kind,
    pub(super) length: usize,
    checksum: u32,
}

impl Prefix {
    /// None: it is none that was ever written.
    pub(super) fn read(bytes: [u8; PREFIX]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, kind] = bytes;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let kind = Kind::of(kind)?;
        let checksum = u32::from_le_bytes([e, f, g, h]);
        (length <= LONGEST).then_some(Self {
            kind,
            length,
            checksum,
        })
    }

    pub(super) fn fits(&self, leaves_before: u64, bytes: &[u8]) -> bool {
        checksum(self.kind, leaves_before, bytes) == self.checksum
    }
}

fn checksum(kind: Kind, leaves_before: u64, bytes: &[u8]) -> u32 {
    let [a, b, c, d, e, f, g, h] = leaves_before.to_le_bytes();
    let place = crc32c::crc32c(&[a, b, c, d, e, f, g, h, kind as u8]);
    crc32c::crc32c_append(place, bytes)
}
