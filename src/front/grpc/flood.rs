//! Counts the frames that a peer of HTTP/2 sends and that cost us more than the peer: a peer that sends
//! too many is told ENHANCE_YOUR_CALM and cut off (CVE-2019-9511 to 9518, CVE-2023-44487,
//! CVE-2024-27316).
//!
//! The HTTP/2 library does not tell of PINGs, SETTINGS and the like, so they are counted in the bytes
//! of the socket. That stands between the socket, or TLS, and the library.

use std::{
    convert::Infallible,
    fmt, io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    frames::{FrameHeader, FrameScanner},
    late_streams::LateStreams,
};

/// How many frames a peer may send.
pub(super) struct FloodLimits {
    /// Frames of every kind; none: as many as it likes.
    frames: Option<Rate>,
    /// Frames that ask for nothing: PING, SETTINGS, WINDOW_UPDATE, PRIORITY, empty DATA, and kinds
    /// that nobody knows.
    control: Rate,
    /// RST_STREAM.
    resets: Rate,
    /// How many control frames each request allows besides: a client measures its network with a PING
    /// for each burst of data, and returns windows as it reads.
    control_per_request: u32,
    /// How many each frame of an answer allows, and each 256 bytes of it: one request may have a stream
    /// of answers, and some clients return the window message by message.
    control_per_answer: u32,
}

impl FloodLimits {
    /// For a peer that has not proved who it is.
    pub(super) fn before_authentication() -> Self {
        Self {
            frames: Some(Rate::new(400, 40)),
            control: Rate::new(100, 10),
            resets: Rate::new(20, 2),
            control_per_request: 1,
            control_per_answer: 0,
        }
    }

    /// For a known caller, who may use one connection for all that it does. Calls whose deadline passes
    /// are reset by clients, all of them if a token is slow.
    pub(super) fn of_caller() -> Self {
        Self {
            frames: None,
            control: Rate::new(2_000, 200),
            resets: Rate::new(10_000, 2_000),
            control_per_request: 4,
            control_per_answer: 3,
        }
    }
}

/// So many at once, and so many more each second.
#[derive(Debug)]
struct Rate {
    burst: u32,
    per_second: u32,
    used: u32,
    /// When `used` was last reduced.
    since: Instant,
}

impl Rate {
    fn new(burst: u32, per_second: u32) -> Self {
        Self {
            burst,
            per_second,
            used: 0,
            since: Instant::now(),
        }
    }

    /// Counts one; false if that is one too many.
    fn take(&mut self) -> bool {
        if self.used < self.burst {
            self.used += 1;
            return true;
        }
        // The clock is looked at only when the burst is used up.
        let millis = self.since.elapsed().as_millis();
        let regained = millis * u128::from(self.per_second) / 1000;
        let Ok(regained @ 1..) = u32::try_from(regained) else {
            return false;
        };
        self.since += Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        self.used = self.used.saturating_sub(regained) + 1;
        true
    }

    /// Takes some of what was counted back.
    fn give(&mut self, count: u32) {
        self.used = self.used.saturating_sub(count);
    }
}

/// What a peer sent too much of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flood {
    Frames,
    Control,
    Resets,
    Continuations,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Frames => "frames without a proof of who it is",
            Self::Control => "PING, SETTINGS, WINDOW_UPDATE or empty DATA frames",
            Self::Resets => "RST_STREAM frames",
            Self::Continuations => "CONTINUATION frames",
        };
        write!(f, "the peer sent too many {what}")
    }
}

impl std::error::Error for Flood {}

/// Judges each frame that a peer sends.
struct FloodMeter {
    limits: FloodLimits,
    /// CONTINUATION frames since the last HEADERS.
    continuations: u32,
    last_stream: u32,
}

impl FloodMeter {
    fn new(limits: FloodLimits) -> Self {
        Self {
            limits,
            continuations: 0,
            last_stream: 0,
        }
    }

    /// Sees a frame that we send.
    fn sent(&mut self, header: FrameHeader) {
        if header.kind == FrameHeader::DATA && header.length > 0 {
            let allowed = self.limits.control_per_answer;
            (self.limits.control).give(allowed * (1 + header.length / 256));
        }
    }

    fn count(&mut self, header: FrameHeader) -> Result<(), Flood> {
        let limits = &mut self.limits;
        if let Some(frames) = &mut limits.frames
            && !frames.take()
        {
            return Err(Flood::Frames);
        }
        let (is_allowed, flood) = match header.kind {
            FrameHeader::DATA if header.length > 0 || header.has(FrameHeader::END_STREAM) => {
                (true, Flood::Control)
            }
            FrameHeader::HEADERS => {
                self.continuations = 0;
                self.last_stream = self.last_stream.max(header.stream);
                limits.control.give(limits.control_per_request);
                (true, Flood::Control)
            }
            FrameHeader::CONTINUATION => {
                self.continuations += 1;
                (self.continuations <= CONTINUATIONS, Flood::Continuations)
            }
            FrameHeader::RST_STREAM => (limits.resets.take(), Flood::Resets),
            _ => (limits.control.take(), Flood::Control),
        };
        if is_allowed { Ok(()) } else { Err(flood) }
    }
}

/// A connection whose preface was read ahead, that counts what the peer sends, and that writes what
/// answers together.
pub(super) struct GuardedIo<S> {
    stream: S,
    /// What is left of the preface for the library to read.
    preface: &'static [u8],
    incoming: FrameScanner,
    outgoing: FrameScanner,
    meter: FloodMeter,
    late: LateStreams,
    /// Shared with whoever wants to know why the connection has ended: the library does not tell.
    flood: Arc<OnceLock<Flood>>,
    gathered: bool,
}

impl<S> GuardedIo<S> {
    /// `preface` are the bytes that were read from the stream before.
    pub(super) fn new(stream: S, preface: &'static [u8], limits: FloodLimits) -> Self {
        Self {
            stream,
            preface,
            incoming: FrameScanner::default(),
            outgoing: FrameScanner::default(),
            meter: FloodMeter::new(limits),
            late: LateStreams::default(),
            flood: Arc::default(),
            gathered: false,
        }
    }

    /// What the peer will have sent too much of, if that ends the connection.
    pub(super) fn flood(&self) -> Arc<OnceLock<Flood>> {
        self.flood.clone()
    }

    /// Lets every task that is ready run once before a write, so that the answers of calls that
    /// ended together leave in one system call: each alone would cost more than making it.
    fn gather(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.gathered = !self.gathered;
        if self.gathered {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Follows what the library has written.
    fn wrote(&mut self, bytes: &[u8]) {
        let Self {
            outgoing,
            meter,
            late,
            ..
        } = self;
        let Ok(()) = outgoing.scan(bytes, |header, _| {
            meter.sent(header);
            late.sent(header);
            Ok::<_, Infallible>(())
        });
    }
}

impl<S: AsyncWrite + Unpin> GuardedIo<S> {
    /// Says why the connection ends, if there is room for it now and no frame of the library's is half
    /// written. Nothing waits for the peer.
    fn say_goodbye(&mut self, context: &mut Context<'_>) {
        if self.outgoing.is_between_frames() {
            let goodbye = goaway(self.meter.last_stream);
            let _ = Pin::new(&mut self.stream).poll_write(context, &goodbye);
            let _ = Pin::new(&mut self.stream).poll_flush(context);
        }
        let _ = Pin::new(&mut self.stream).poll_shutdown(context);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for GuardedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.preface.is_empty() {
            let (now, later) = self
                .preface
                .split_at(buffer.remaining().min(self.preface.len()));
            buffer.put_slice(now);
            self.preface = later;
            return Poll::Ready(Ok(()));
        }
        if let Some(flood) = self.flood.get().copied() {
            return Poll::Ready(Err(io::Error::other(flood)));
        }
        let this = &mut *self;
        let before = buffer.filled().len();
        loop {
            this.late.give_back(buffer);
            let read = buffer.filled().len();
            let Poll::Ready(ended) = Pin::new(&mut this.stream).poll_read(context, buffer) else {
                this.late.hold(buffer, read - before);
                return Poll::Pending;
            };
            ended?;
            let (meter, late) = (&mut this.meter, &mut this.late);
            let is_end = buffer.filled().len() == read;
            let counted = this
                .incoming
                .scan(&buffer.filled()[read..], |header, length| {
                    meter.count(header)?;
                    late.received(header, read + length);
                    Ok(())
                });
            if let Err(flood) = counted {
                buffer.set_filled(before);
                let _ = this.flood.set(flood);
                this.say_goodbye(context);
                return Poll::Ready(Err(io::Error::other(flood)));
            }
            late.disguise(&mut buffer.filled_mut()[before..], before);
            if !is_end && late.is_settled() {
                late.hold(buffer, this.incoming.of_header());
            }
            // No byte at all would be the end to whoever reads.
            if is_end || buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(flood) = self.flood.get().copied() {
            return Poll::Ready(Err(io::Error::other(flood)));
        }
        ready!(self.gather(context));
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.wrote(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(flood) = self.flood.get().copied() {
            return Poll::Ready(Err(io::Error::other(flood)));
        }
        ready!(self.gather(context));
        let mut count = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        let written = count;
        for slice in slices {
            let part = count.min(slice.len());
            self.wrote(&slice[..part]);
            count -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, section 6.8).
fn goaway(last_stream: u32) -> Vec<u8> {
    let text = b"too many frames that ask for nothing";
    let header = FrameHeader {
        length: 8 + u32::try_from(text.len()).expect("a short text"),
        kind: FrameHeader::GOAWAY,
        flags: 0,
        stream: 0,
    };
    [
        &header.write()[..],
        &last_stream.to_be_bytes(),
        &ENHANCE_YOUR_CALM.to_be_bytes(),
        text,
    ]
    .concat()
}

/// RFC 9113, section 7.
const ENHANCE_YOUR_CALM: u32 = 0xb;
/// Headers of 16 KiB fit in two frames of 16 KiB.
const CONTINUATIONS: u32 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn header(kind: u8, length: u32, flags: u8) -> FrameHeader {
        FrameHeader {
            length,
            kind,
            flags,
            stream: 1,
        }
    }

    fn accepted(limits: FloodLimits, header: FrameHeader) -> (usize, Flood) {
        let mut meter = FloodMeter::new(limits);
        for count in 0.. {
            if let Err(flood) = meter.count(header) {
                return (count, flood);
            }
        }
        unreachable!("the numbers do not end")
    }

    const PING: u8 = 6;
    const SETTINGS: u8 = 4;

    #[test]
    fn each_kind_of_flood_has_its_limit() {
        let stranger = FloodLimits::before_authentication;
        for (kind, length, flags, most, flood) in [
            (PING, 8, 0, 100, Flood::Control),
            // An acknowledgement of a PING that nobody sent.
            (PING, 8, 1, 100, Flood::Control),
            (SETTINGS, 0, 0, 100, Flood::Control),
            (8, 4, 0, 100, Flood::Control),
            (99, 0, 0, 100, Flood::Control),
            (FrameHeader::DATA, 0, 0, 100, Flood::Control),
            (FrameHeader::DATA, 1, 0, 400, Flood::Frames),
            (FrameHeader::HEADERS, 9, 4, 400, Flood::Frames),
            (FrameHeader::RST_STREAM, 4, 0, 20, Flood::Resets),
            (FrameHeader::CONTINUATION, 9, 0, 8, Flood::Continuations),
        ] {
            let (count, found) = accepted(stranger(), header(kind, length, flags));
            assert_eq!(found, flood, "{kind}");
            assert!((most..most + 50).contains(&count), "{kind}: {count}");
        }
        let caller = FloodLimits::of_caller;
        for (kind, most) in [(PING, 2_000), (FrameHeader::RST_STREAM, 10_000)] {
            assert!(accepted(caller(), header(kind, 8, 0)).0 >= most);
        }
    }

    #[test]
    fn a_caller_may_ping_for_each_call_and_never_runs_out() {
        let mut meter = FloodMeter::new(FloodLimits::of_caller());
        for _ in 0..100_000 {
            meter.count(header(FrameHeader::HEADERS, 9, 4)).unwrap();
            meter.count(header(FrameHeader::DATA, 40, 1)).unwrap();
            meter.count(header(PING, 8, 0)).unwrap();
            meter.count(header(8, 4, 0)).unwrap();
        }
    }

    #[test]
    fn a_rate_regains_with_time() {
        let mut rate = Rate::new(10, 100);
        while rate.take() {}
        rate.since -= Duration::from_millis(50);
        let more = std::iter::from_fn(|| rate.take().then_some(())).count();
        assert!((5..9).contains(&more), "{more}");
    }

    #[tokio::test]
    async fn a_flood_ends_with_goaway_and_is_not_read_on() {
        let (client, server) = duplex(1 << 20);
        let mut io = GuardedIo::new(server, b"", FloodLimits::before_authentication());
        let (mut read, mut write) = tokio::io::split(client);
        let ping = [&header(PING, 8, 1).write()[..], &[0; 8]].concat();
        write.write_all(&ping.repeat(10_000)).await.unwrap();
        let mut through = Vec::new();
        let fault = io.read_to_end(&mut through).await.unwrap_err();
        assert!(fault.to_string().contains("PING"), "{fault}");
        assert!(io.read(&mut [0; 9]).await.is_err());
        assert!(io.write(b"more").await.is_err());
        drop(io);
        let mut told = Vec::new();
        let _ = read.read_to_end(&mut told).await;
        let (head, body) = told.split_at(FrameHeader::LEN);
        let head = FrameHeader::read(head.try_into().unwrap());
        assert_eq!(
            (head.kind, head.length as usize),
            (FrameHeader::GOAWAY, body.len())
        );
        assert_eq!(body[4..8], ENHANCE_YOUR_CALM.to_be_bytes());
    }

    #[tokio::test]
    async fn no_goaway_is_put_into_the_middle_of_a_frame() {
        let (mut client, server) = duplex(1 << 20);
        let mut io = GuardedIo::new(server, b"", FloodLimits::before_authentication());
        let half = [&header(FrameHeader::DATA, 100, 0).write()[..], &[1; 50]].concat();
        io.write_all(&half).await.unwrap();
        let ping = [&header(PING, 8, 0).write()[..], &[0; 8]].concat();
        client.write_all(&ping.repeat(1_000)).await.unwrap();
        assert!(io.read_to_end(&mut Vec::new()).await.is_err());
        drop(io);
        let mut told = Vec::new();
        let _ = client.read_to_end(&mut told).await;
        assert_eq!(told, half);
    }

    proptest! {
        #[test]
        fn what_is_no_flood_passes_unchanged(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
            step in 1_usize..200,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut client, server) = duplex(step);
                let mut io = GuardedIo::new(server, b"PRI", FloodLimits::of_caller());
                let sent = bytes.clone();
                let sending = tokio::spawn(async move {
                    client.write_all(&sent).await.unwrap();
                });
                let mut through = Vec::new();
                let read = io.read_to_end(&mut through).await;
                sending.abort();
                match read {
                    Ok(_) => assert_eq!(through, [b"PRI", &bytes[..]].concat()),
                    // Random bytes may be a ninth CONTINUATION.
                    Err(fault) => assert!(fault.to_string().contains("CONTINUATION"), "{fault}"),
                }
            });
        }
    }
}
