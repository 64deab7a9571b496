//! What both ends of a host's socket share: framing, the board, and the clock of deadlines.
//!
//! A frame is a length-delimited protobuf message of at most 64 KiB; both ends read and write them
//! in batches. The board is a small shared file on which each session writes what it is about to
//! ask of the vendor library: when a host hangs or dies, the front reads there which jobs the
//! library had in its hands, and since when.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The longest frame, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// Room that is worth a read, in bytes.
const READ: usize = 4 * 1024;

/// Names this build on the handshake: a front and a host of different builds refuse each other.
pub const BUILD_ID: &str = env!("BUILD_ID_OF_HSMAC");

/// The other end does not keep to the wire.
#[derive(Debug, thiserror::Error)]
pub enum WireFault {
    /// A frame is longer than [`MAX_FRAME`] or its length is no varint.
    #[error("a frame's length is out of bounds")]
    Length,
    /// A frame is not the message that it should be.
    #[error("a frame cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// Received bytes that are not decoded yet.
#[derive(Default)]
pub struct Inbox {
    buffer: BytesMut,
}

impl Inbox {
    /// Where the next read appends.
    pub fn space(&mut self) -> &mut BytesMut {
        // Decoded frames still point into the buffer, so that growing it means a new one: in steps
        // that many frames fit in, and only when there is no more room worth a read.
        if self.buffer.capacity() - self.buffer.len() < READ {
            self.buffer.reserve(4 * READ);
        }
        &mut self.buffer
    }

    /// The next whole frame; `None` if it has not arrived yet.
    ///
    /// # Errors
    /// [`WireFault`]: the connection is of no more use.
    pub fn take<M: Message + Default>(&mut self) -> Result<Option<M>, WireFault> {
        let Some((prefix, len)) = self.head()? else {
            return Ok(None);
        };
        if self.buffer.len() < prefix + len {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        Ok(Some(M::decode(self.buffer.split_to(len).freeze())?))
    }

    /// Whether a whole frame is there.
    pub fn has_frame(&self) -> bool {
        matches!(self.head(), Ok(Some((prefix, len))) if self.buffer.len() >= prefix + len)
    }

    /// The lengths of the next frame's prefix and body.
    fn head(&self) -> Result<Option<(usize, usize)>, WireFault> {
        let mut len = 0_usize;
        for (index, byte) in self.buffer.iter().take(3).enumerate() {
            len |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return if len <= MAX_FRAME {
                    Ok(Some((index + 1, len)))
                } else {
                    Err(WireFault::Length)
                };
            }
        }
        if self.buffer.len() >= 3 {
            Err(WireFault::Length)
        } else {
            Ok(None)
        }
    }
}

/// Appends a frame.
pub fn put<M: Message>(frame: &M, out: &mut BytesMut) {
    frame
        .encode_length_delimited(out)
        .expect("a BytesMut grows as far as memory goes");
}

/// CLOCK_MONOTONIC in nanoseconds: the one clock that both processes read alike.
pub fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// An [`Instant`] on that clock.
pub fn on_wire(instant: Instant) -> u64 {
    let ahead = instant.saturating_duration_since(Instant::now());
    monotonic().saturating_add(nanoseconds(ahead))
}

/// A span on that clock; more than 584 years do not fit and are cut.
pub fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What one session has asked of the library last. It is not wiped after the call: a job that was
/// answered is nobody's concern any more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Entry {
    /// The job's sequence number; 0: none.
    pub sequence: u64,
    /// When the call counts as stuck ([`monotonic`]).
    pub stuck_at: u64,
}

/// A shared file with one [`Entry`] per session; the management session's is number 0.
#[derive(Debug)]
pub struct Board(File);

impl Board {
    const ENTRY: u64 = 16;

    /// An empty board for so many sessions, the management session included.
    ///
    /// # Errors
    /// The kernel gives no memory file.
    pub fn create(sessions: u32) -> io::Result<Self> {
        let file = memory_file()?;
        file.set_len(Self::ENTRY * u64::from(sessions))?;
        Ok(Self(file))
    }

    /// Gives the board to the process at the other end, with one byte.
    ///
    /// # Errors
    /// The socket is closed or refuses.
    pub fn send(&self, socket: &UnixStream) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let board = [self.0.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&board)) {
            return Err(io::Error::other("no room for one descriptor"));
        }
        sendmsg(
            socket,
            &[IoSlice::new(b"B")],
            &mut control,
            SendFlags::empty(),
        )?;
        Ok(())
    }

    /// Takes the board that the front sends as its first byte.
    ///
    /// # Errors
    /// The front sent something else.
    pub fn receive(socket: &UnixStream) -> io::Result<Self> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let board = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        });
        let board: OwnedFd = board.ok_or_else(|| io::Error::other("the front sent no board"))?;
        Ok(Self(board.into()))
    }

    /// Writes what a session asks of the library `now`, and when that counts as stuck.
    pub fn begin(&self, session: u32, sequence: u64, now: u64, limit: Duration) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&sequence.to_ne_bytes());
        bytes[8..].copy_from_slice(&now.saturating_add(nanoseconds(limit)).to_ne_bytes());
        // A board that cannot be written costs charging and hang detection, not a MAC.
        let _ = self
            .0
            .write_all_at(&bytes, Self::ENTRY * u64::from(session));
    }

    /// What so many sessions are at.
    pub fn entries(&self, sessions: u32) -> Vec<Entry> {
        let mut bytes = vec![0; 16 * sessions as usize];
        if self.0.read_exact_at(&mut bytes, 0).is_err() {
            return Vec::new();
        }
        let mut bytes = Bytes::from(bytes);
        (0..sessions)
            .map(|_| Entry {
                sequence: bytes.get_u64_ne(),
                stuck_at: bytes.get_u64_ne(),
            })
            .collect()
    }
}

#[cfg(target_os = "linux")]
fn memory_file() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("hsmac-board", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn memory_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("hsmac-board-{}", uuid::Uuid::new_v4()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::host::{FromHost, Hello, from_host::Frame};

    #[test]
    fn frames_arrive_whole_and_in_order() {
        let frame = |id: &str| FromHost {
            frame: Some(Frame::Hello(Hello {
                build_id: id.into(),
            })),
        };
        let mut bytes = BytesMut::new();
        put(&frame("one"), &mut bytes);
        put(&frame(&"x".repeat(300)), &mut bytes);
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        for byte in bytes {
            inbox.space().extend_from_slice(&[byte]);
            while let Some(frame) = inbox.take::<FromHost>().unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, [frame("one"), frame(&"x".repeat(300))]);
    }

    #[test]
    fn a_frame_over_64_kib_is_refused_before_it_is_read() {
        let mut inbox = Inbox::default();
        inbox.space().extend_from_slice(&[0x81, 0x80, 0x04]);
        assert!(matches!(inbox.take::<FromHost>(), Err(WireFault::Length)));
        let mut inbox = Inbox::default();
        inbox.space().extend_from_slice(&[0xff, 0xff, 0xff]);
        assert!(matches!(inbox.take::<FromHost>(), Err(WireFault::Length)));
    }

    #[test]
    fn the_board_crosses_a_socket_and_shows_what_is_asked() {
        let (front, host) = UnixStream::pair().unwrap();
        let board = Board::create(3).unwrap();
        board.send(&front).unwrap();
        let theirs = Board::receive(&host).unwrap();
        theirs.begin(1, 42, monotonic(), Duration::from_secs(1));
        let entries = board.entries(3);
        assert_eq!(entries[1].sequence, 42);
        assert!(entries[1].stuck_at > monotonic());
        assert_eq!(board.entries(3)[2], Entry::default());
    }
}
