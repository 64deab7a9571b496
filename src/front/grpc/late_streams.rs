//! Streams that a peer opened too late on a connection that ends.
//!
//! At a graceful end h2 sends GOAWAY and a PING. With the answer to that PING it settles which stream was
//! the last one, and ignores what comes of later ones: the peer had not read GOAWAY yet, and asks again
//! elsewhere. But a WINDOW_UPDATE of such a stream is a connection error to h2 (0.4.20), and grpcio sends
//! one right after its HEADERS: the connection ended with PROTOCOL_ERROR, and calls were lost that way when
//! a hsmac behind a load balancer was replaced. So these frames are made ones that everybody ignores (RFC
//! 9113, section 4.1). When h2 ignores them by itself, this file goes.

use tokio::io::ReadBuf;

use super::frames::FrameHeader;

/// A kind of frame that nobody knows; RFC 7540 kept it for experiments.
const IGNORED: u8 = 0xfb;
/// Where in a header the kind is.
const KIND: usize = 3;

/// Which frames of a connection come too late.
#[derive(Debug, Default)]
pub(super) struct LateStreams {
    said_goodbye: bool,
    /// PINGs of ours that are not answered yet.
    pings: u64,
    /// How many answers to PINGs come before the one that settles the last stream, that one included.
    answers_left: Option<u64>,
    /// The last stream that the peer opened before that answer.
    last_stream: u32,
    /// Where headers of frames end that come too late, in the buffer that is being read into.
    late: Vec<usize>,
    /// Bytes that are read and not handed on: of a header whose kind may have to be another one.
    held: Vec<u8>,
}

impl LateStreams {
    /// Whether the last stream is settled: headers have to be whole then when they are handed on.
    pub(super) fn is_settled(&self) -> bool {
        self.answers_left == Some(0)
    }

    /// Sees a frame that we send.
    pub(super) fn sent(&mut self, header: FrameHeader) {
        match header.kind {
            FrameHeader::GOAWAY => self.said_goodbye = true,
            FrameHeader::PING if !header.has(FrameHeader::ACK) => {
                self.pings += 1;
                if self.said_goodbye && self.answers_left.is_none() {
                    self.answers_left = Some(self.pings);
                }
            }
            _ => {}
        }
    }

    /// Sees a frame that the peer sends, whose header ends at `end` of the buffer.
    pub(super) fn received(&mut self, header: FrameHeader, end: usize) {
        match header.kind {
            FrameHeader::HEADERS if !self.is_settled() => {
                self.last_stream = self.last_stream.max(header.stream);
            }
            // PINGs are answered in their order. A peer that answers one that was never sent spoils
            // what it asks for itself.
            FrameHeader::PING if header.has(FrameHeader::ACK) => {
                self.pings = self.pings.saturating_sub(1);
                if let Some(left) = &mut self.answers_left {
                    *left = left.saturating_sub(1);
                }
            }
            FrameHeader::WINDOW_UPDATE if self.is_settled() && header.stream > self.last_stream => {
                self.late.push(end);
            }
            _ => {}
        }
    }

    /// Changes the kind of the frames that come too late. `bytes` begin at `start` of the buffer.
    pub(super) fn disguise(&mut self, bytes: &mut [u8], start: usize) {
        for end in self.late.drain(..) {
            let kind = (end + KIND).checked_sub(FrameHeader::LEN + start);
            // Handed on already: it is not held where it does not fit.
            if let Some(byte) = kind.and_then(|at| bytes.get_mut(at)) {
                *byte = IGNORED;
            }
        }
    }

    /// Takes the last bytes back out of the buffer, until those come that follow them.
    pub(super) fn hold(&mut self, buffer: &mut ReadBuf<'_>, count: usize) {
        let kept = buffer.filled().len() - count.min(buffer.filled().len());
        self.held.extend_from_slice(&buffer.filled()[kept..]);
        buffer.set_filled(kept);
    }

    /// Puts what is held into the buffer again, as far as it has room.
    pub(super) fn give_back(&mut self, buffer: &mut ReadBuf<'_>) {
        let fits = buffer.remaining().min(self.held.len());
        buffer.put_slice(&self.held[..fits]);
        self.held.drain(..fits);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use h2::server;
    use http::Response;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        sync::mpsc,
    };

    use super::{
        super::flood::{FloodLimits, GuardedIo},
        *,
    };

    const SETTINGS: u8 = 4;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// POST http://a/ (RFC 7541, appendix A).
    const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'a'];
    const END_HEADERS: u8 = 4;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            length: u32::try_from(payload.len()).unwrap(),
            kind,
            flags,
            stream,
        };
        [&header.write()[..], payload].concat()
    }

    /// What grpcio sends for a call.
    fn call(stream: u32) -> Vec<u8> {
        [
            frame(FrameHeader::HEADERS, END_HEADERS, stream, POST),
            frame(FrameHeader::WINDOW_UPDATE, 0, stream, &[0, 0, 0, 5]),
            frame(FrameHeader::DATA, FrameHeader::END_STREAM, stream, b"hello"),
        ]
        .concat()
    }

    /// h2's server, which ends as soon as it has answered a call, and whose peer sends `late` after the
    /// answer to h2's PING. The socket hands on at most `cut` bytes at once. Gives the error codes of h2's
    /// GOAWAYs, and the streams that h2 answered.
    async fn ended(late: &[u8], cut: usize) -> (Vec<u32>, Vec<u32>) {
        let (peer, ours) = duplex(cut);
        let serving = tokio::spawn(async move {
            let io = GuardedIo::new(ours, PREFACE, FloodLimits::of_caller());
            let mut connection = server::handshake(io).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut answer = respond.send_response(Response::new(()), false).unwrap();
                answer
                    .send_data(Bytes::from_static(b"answer"), true)
                    .unwrap();
                connection.graceful_shutdown();
            }
        });
        let (mut reader, mut writer) = tokio::io::split(peer);
        let (send, mut sent) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            while let Some(bytes) = sent.recv().await {
                // h2 may have closed by then.
                let _ = writer.write_all(&bytes).await;
            }
        });
        send.send(frame(SETTINGS, 0, 0, &[])).unwrap();
        send.send(call(1)).unwrap();
        let (mut codes, mut answered) = (Vec::new(), Vec::new());
        let mut header = [0; FrameHeader::LEN];
        while reader.read_exact(&mut header).await.is_ok() {
            let header = FrameHeader::read(header);
            let mut payload = vec![0; header.length as usize];
            reader.read_exact(&mut payload).await.unwrap();
            match header.kind {
                FrameHeader::HEADERS => answered.push(header.stream),
                FrameHeader::GOAWAY => {
                    codes.push(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
                FrameHeader::PING if !header.has(FrameHeader::ACK) => {
                    let pong = frame(FrameHeader::PING, FrameHeader::ACK, 0, &payload);
                    send.send([&pong[..], late].concat()).unwrap();
                }
                _ => {}
            }
        }
        serving.await.unwrap();
        (codes, answered)
    }

    #[tokio::test]
    async fn a_stream_that_comes_too_late_is_no_error_however_its_bytes_are_cut() {
        for cut in 1..60 {
            let (codes, answered) = ended(&[call(3), call(5)].concat(), cut).await;
            assert!(codes.len() >= 2, "{cut}: {codes:?}");
            assert!(codes.iter().all(|code| *code == 0), "{cut}: {codes:?}");
            assert_eq!(answered, [1], "{cut}");
        }
    }
}
