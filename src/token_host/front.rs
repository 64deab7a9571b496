//! The host's end of the socket to its front.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
};

use bytes::BytesMut;

use crate::{
    host_ipc::{Inbox, write_frame},
    proto::host::{FromHost, ToHost, from_host, to_host},
};

/// The front's end of the socket, while one thread alone uses it.
pub(super) struct FrontConnection {
    pub(super) socket: UnixStream,
    pub(super) inbox: Inbox,
}

impl FrontConnection {
    /// The next frame; waits for it.
    pub(super) fn next(&mut self) -> io::Result<to_host::Frame> {
        loop {
            if let Some(frame) = self.inbox.take::<ToHost>().map_err(io::Error::other)? {
                return frame
                    .frame
                    .ok_or_else(|| io::Error::other("an empty frame"));
            }
            self.receive()?;
        }
    }

    /// Reads what has arrived; waits for something.
    pub(super) fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        loop {
            return match self.socket.read(&mut chunk) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.inbox.space().extend_from_slice(&chunk[..length]);
                    Ok(())
                }
                // A signal is no end-of-file: vendor libraries bring signal handlers and timers.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Writes a frame.
    pub(super) fn send(&mut self, frame: from_host::Frame) -> io::Result<()> {
        let mut out = BytesMut::new();
        write_frame(&FromHost { frame: Some(frame) }, &mut out);
        self.socket.write_all(&out)
    }
}
