//! The front's end of a host's socket.

use std::io;

use bytes::BytesMut;
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

#[cfg(test)]
use crate::token::simulated::PipeEnd;

/// A socket; in the simulation a pipe in memory.
pub(super) enum HostStream {
    Socket(UnixStream),
    #[cfg(test)]
    Pipe(PipeEnd),
}

impl HostStream {
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.readable().await,
            #[cfg(test)]
            Self::Pipe(pipe) => pipe.readable().await,
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.writable().await,
            #[cfg(test)]
            Self::Pipe(pipe) => pipe.writable().await,
        }
    }

    pub(super) fn try_read_buf(&self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.try_read_buf(into),
            #[cfg(test)]
            Self::Pipe(pipe) => pipe.try_read_buf(into),
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.try_write(bytes),
            #[cfg(test)]
            Self::Pipe(pipe) => pipe.try_write(bytes),
        }
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.write_all(bytes).await,
            #[cfg(test)]
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
        }
    }
}
