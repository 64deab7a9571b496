//! Reads a log while it is written.

use std::path::{Path, PathBuf};

use prost::Message as _;

use super::reader::{Damage, Frame, Names, Reader, Segment, TORN, segments};
use crate::proto::audit::Entry;

/// Gives the leaves of a log in their order, and later those that have come since.
pub struct Follower {
    directory: PathBuf,
    /// The leaf that is next.
    next: u64,
    current: Option<(Reader, Names)>,
}

impl Follower {
    /// From the beginning of the segment that leaf `from` is in, or of the next one that there is.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn new(directory: &Path, from: u64) -> Result<Self, Damage> {
        let segments = list(directory)?;
        let holds = segments.iter().rev().find(|one| one.first_index <= from);
        let first = holds.or_else(|| segments.first());
        Ok(Self {
            directory: directory.to_owned(),
            next: first.map_or(0, |first| first.first_index),
            current: None,
        })
    }

    /// The leaf that is next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Calls `seen` for each leaf that has come, with its index and bytes, until it gives false; gives how many those
    /// were. What is half written is left for the next time.
    ///
    /// # Errors
    /// [`Damage`] at the first frame that is wrong.
    pub fn read(
        &mut self,
        mut seen: impl FnMut(u64, &[u8], &Entry, &Names) -> bool,
    ) -> Result<u64, Damage> {
        let (mut count, mut was_at_end) = (0, false);
        loop {
            let Some((reader, names)) = self.open()? else {
                return Ok(count);
            };
            let (_, index) = reader.place();
            let torn = match reader.next() {
                Ok(Some(Frame::Leaf(bytes))) => {
                    was_at_end = false;
                    let entry = Entry::decode(bytes).unwrap_or_default();
                    names.push(&entry);
                    count += 1;
                    let goes_on = seen(index, bytes, &entry, names);
                    self.next = index + 1;
                    if !goes_on {
                        return Ok(count);
                    }
                    continue;
                }
                Ok(Some(Frame::End(_))) => {
                    self.current = None;
                    continue;
                }
                Ok(Some(Frame::Checkpoint(_) | Frame::Seal(_))) => continue,
                Ok(None) => None,
                Err(damage) if damage.what == TORN => Some(damage),
                Err(damage) => return Err(damage),
            };
            reader.rewind()?;
            let cut = torn.unwrap_or_else(|| reader.damage(NO_END));
            let segments = list(&self.directory)?;
            if segments.last().is_none_or(|last| last.path == cut.segment) {
                return Ok(count);
            }
            // It may have got its end between the two looks.
            if std::mem::replace(&mut was_at_end, true) {
                return Err(cut);
            }
        }
    }

    /// The segment that is read; none if the next one is not there yet.
    fn open(&mut self) -> Result<Option<(&mut Reader, &mut Names)>, Damage> {
        if self.current.is_none() {
            let segments = list(&self.directory)?;
            let Some(next) = segments.iter().find(|one| one.first_index >= self.next) else {
                return Ok(None);
            };
            match next.open() {
                Ok(reader) => self.current = Some((reader, Names::default())),
                // It is being begun.
                Err(damage) if damage.offset == 0 => return Ok(None),
                Err(damage) => return Err(damage),
            }
        }
        Ok(self.current.as_mut().map(|(reader, names)| (reader, names)))
    }
}

fn list(directory: &Path) -> Result<Vec<Segment>, Damage> {
    segments(directory).map_err(|error| Damage::at(directory, (0, 0), error.to_string()))
}

/// What a segment is that another one follows.
const NO_END: &str = "the segment has no end: it was cut";
