//! Reads the frame headers of an HTTP/2 connection as its bytes pass by (RFC 9113, section 4.1).
//!
//! Promises: the headers are the same however the bytes are cut; no bytes make it panic or allocate.
//! Does not: check that frames are allowed where they are (that is h2's).

/// The nine bytes before each frame's payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FrameHeader {
    /// The length of the payload.
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHeader {
    pub(super) const LEN: usize = 9;
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
    /// Of DATA and HEADERS.
    pub(super) const END_STREAM: u8 = 1;
    /// Of PING and SETTINGS.
    pub(super) const ACK: u8 = 1;

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn read(bytes: [u8; Self::LEN]) -> Self {
        let [a, b, c, kind, flags, e, f, g, h] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            // The first bit is reserved and ignored.
            stream: u32::from_be_bytes([e, f, g, h]) & 0x7fff_ffff,
        }
    }

    pub(super) fn write(self) -> [u8; Self::LEN] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [e, f, g, h] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, e, f, g, h]
    }
}

/// Where in its sequence of frames one direction of a connection is.
#[derive(Debug, Default)]
pub(super) struct FrameScanner {
    header: [u8; FrameHeader::LEN],
    /// How many bytes of `header` have been read.
    filled: usize,
    /// How many bytes of the payload are still to pass by.
    payload: usize,
}

impl FrameScanner {
    /// Takes the next bytes, and calls `each` for every header that is complete with them, and with how
    /// many of the bytes it is.
    ///
    /// # Errors
    /// The first of `each`; then the scanner is where that header ends.
    pub(super) fn scan<E>(
        &mut self,
        all: &[u8],
        mut each: impl FnMut(FrameHeader, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = all;
        while !bytes.is_empty() {
            if self.payload > 0 {
                let passed = self.payload.min(bytes.len());
                self.payload -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (FrameHeader::LEN - self.filled).min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            self.header[self.filled..self.filled + taken].copy_from_slice(now);
            self.filled += taken;
            bytes = later;
            if self.filled == FrameHeader::LEN {
                self.filled = 0;
                let header = FrameHeader::read(self.header);
                self.payload = header.length as usize;
                each(header, all.len() - bytes.len())?;
            }
        }
        Ok(())
    }

    /// How many bytes of a header have passed by whose other bytes have not.
    pub(super) fn of_header(&self) -> usize {
        self.filled
    }

    /// Whether the last byte that passed by was the last of a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.filled == 0 && self.payload == 0
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use h2::{client, server};
    use http::{HeaderMap, Request, Response};
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        sync::mpsc,
    };

    use super::*;

    fn headers(cuts: &[&[u8]]) -> (Vec<FrameHeader>, bool) {
        let mut scanner = FrameScanner::default();
        let mut seen = Vec::new();
        for cut in cuts {
            let kept: Result<(), Infallible> = scanner.scan(cut, |header, _| {
                seen.push(header);
                Ok(())
            });
            kept.unwrap();
        }
        (seen, scanner.is_between_frames())
    }

    fn frame() -> impl Strategy<Value = (FrameHeader, Vec<u8>)> {
        let payload = prop::collection::vec(any::<u8>(), 0..70);
        (payload, any::<u8>(), any::<u8>(), 0..1_u32 << 31).prop_map(
            |(payload, kind, flags, stream)| {
                let length = u32::try_from(payload.len()).unwrap();
                let header = FrameHeader {
                    length,
                    kind,
                    flags,
                    stream,
                };
                (header, payload)
            },
        )
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_their_bytes_are_cut(
            frames in prop::collection::vec(frame(), 0..20),
            sizes in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let bytes: Vec<u8> = frames
                .iter()
                .flat_map(|(header, payload)| [&header.write()[..], payload].concat())
                .collect();
            let mut cuts = Vec::new();
            let mut rest = &bytes[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (cut, later) = rest.split_at((*size).min(rest.len()));
                cuts.push(cut);
                rest = later;
            }
            let wanted: Vec<_> = frames.iter().map(|(header, _)| *header).collect();
            prop_assert_eq!(headers(&cuts), (wanted.clone(), true));
            prop_assert_eq!(headers(&[&bytes]), (wanted, true));
            if let Some(short) = bytes.len().checked_sub(1) {
                prop_assert!(!headers(&[&bytes[..short]]).1);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            headers(&[&bytes]);
        }
    }

    /// One connection between h2's client and h2's server, and the bytes of both directions.
    async fn recorded(bodies: Vec<usize>, resets: usize, pings: usize) -> [Vec<u8>; 2] {
        let (ours, theirs) = duplex(1 << 16);
        let (mid_client, mid_server) = duplex(1 << 16);
        let (to_server, mut from_client) = mpsc::unbounded_channel();
        let (to_client, mut from_server) = mpsc::unbounded_channel();
        let (mut client_read, mut client_write) = tokio::io::split(theirs);
        let (mut server_read, mut server_write) = tokio::io::split(mid_client);
        let copy = |to: mpsc::UnboundedSender<Vec<u8>>| to;
        let (to_server, to_client) = (copy(to_server), copy(to_client));
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 14];
            while let Ok(count @ 1..) = client_read.read(&mut buffer).await {
                to_server.send(buffer[..count].to_vec()).unwrap();
                server_write.write_all(&buffer[..count]).await.unwrap();
            }
            let _ = server_write.shutdown().await;
        });
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 14];
            while let Ok(count @ 1..) = server_read.read(&mut buffer).await {
                to_client.send(buffer[..count].to_vec()).unwrap();
                if client_write.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        });
        let serving = tokio::spawn(async move {
            let mut connection = server::handshake(mid_server).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(Ok(data)) = body.data().await {
                        let _ = body.flow_control().release_capacity(data.len());
                    }
                    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
                        let _ = stream.send_data(Bytes::from_static(b"answer"), false);
                        let _ = stream.send_trailers(HeaderMap::new());
                    }
                });
            }
        });
        let (mut send, mut connection) = client::handshake(ours).await.unwrap();
        let mut ping_pong = connection.ping_pong().unwrap();
        let driving = tokio::spawn(async move { drop(connection.await) });
        for _ in 0..pings {
            ping_pong.ping(h2::Ping::opaque()).await.unwrap();
        }
        for (index, body) in bodies.into_iter().enumerate() {
            let request = Request::post("https://localhost/x").body(()).unwrap();
            send = send.ready().await.unwrap();
            let (response, mut stream) = send.send_request(request, false).unwrap();
            stream.send_data(vec![7; body].into(), false).unwrap();
            if index < resets {
                stream.send_reset(h2::Reason::CANCEL);
                let _ = response.await;
                continue;
            }
            stream.send_data(Bytes::new(), true).unwrap();
            let mut answer = response.await.unwrap().into_body();
            while let Some(data) = answer.data().await {
                let _ = answer.flow_control().release_capacity(data.unwrap().len());
            }
        }
        drop((send, ping_pong));
        driving.await.unwrap();
        serving.await.unwrap();
        let mut both = [Vec::new(), Vec::new()];
        while let Some(bytes) = from_client.recv().await {
            both[0].extend(bytes);
        }
        while let Some(bytes) = from_server.recv().await {
            both[1].extend(bytes);
        }
        both
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn frames_that_h2_writes_are_counted(
            bodies in prop::collection::vec(0_usize..60_000, 1..8),
            resets in 0_usize..4,
            pings in 0_usize..4,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (count, resets) = (bodies.len(), resets.min(bodies.len()));
            let [from_client, from_server] = runtime.block_on(recorded(bodies.clone(), resets, pings));
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            let (seen, whole) = headers(&[from_client.strip_prefix(preface).unwrap()]);
            prop_assert!(whole);
            let of = |kind: u8| seen.iter().filter(move |header| header.kind == kind);
            prop_assert!(of(FrameHeader::HEADERS).count() >= count - resets);
            prop_assert!(of(FrameHeader::RST_STREAM).count() <= resets);
            let ping = |seen: &[FrameHeader]| seen.iter().filter(|it| it.kind == 6).count();
            prop_assert_eq!(ping(&seen), pings);
            let sent: usize = of(FrameHeader::DATA).map(|it| it.length as usize).sum();
            let whole_bodies: usize = bodies[resets..].iter().sum();
            prop_assert!(sent >= whole_bodies);
            let (seen, whole) = headers(&[&from_server]);
            prop_assert!(whole);
            prop_assert_eq!(ping(&seen), pings);
        }
    }
}
