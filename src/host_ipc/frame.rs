//! Frames: length-delimited protobuf messages of at most 64 KiB, read and written in batches.

use bytes::{Buf, BytesMut};
use prost::Message;

/// The longest frame, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// Room that is worth a read, in bytes.
const READ: usize = 4 * 1024;

/// The other end does not keep to the wire.
#[derive(Debug, thiserror::Error)]
pub enum FrameFault {
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
    /// [`FrameFault`]: the connection is of no more use.
    pub fn take<M: Message + Default>(&mut self) -> Result<Option<M>, FrameFault> {
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
    fn head(&self) -> Result<Option<(usize, usize)>, FrameFault> {
        let mut len = 0_usize;
        for (index, byte) in self.buffer.iter().take(3).enumerate() {
            len |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return if len <= MAX_FRAME {
                    Ok(Some((index + 1, len)))
                } else {
                    Err(FrameFault::Length)
                };
            }
        }
        if self.buffer.len() >= 3 {
            Err(FrameFault::Length)
        } else {
            Ok(None)
        }
    }
}

/// Appends a frame.
pub fn write_frame<M: Message>(frame: &M, out: &mut BytesMut) {
    frame
        .encode_length_delimited(out)
        .expect("a BytesMut grows as far as memory goes");
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
        write_frame(&frame("one"), &mut bytes);
        write_frame(&frame(&"x".repeat(300)), &mut bytes);
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
        assert!(matches!(inbox.take::<FromHost>(), Err(FrameFault::Length)));
        let mut inbox = Inbox::default();
        inbox.space().extend_from_slice(&[0xff, 0xff, 0xff]);
        assert!(matches!(inbox.take::<FromHost>(), Err(FrameFault::Length)));
    }
}
