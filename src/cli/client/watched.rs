//! Connections that remember what ended them, so that a failed call can be explained.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The last error that ended a connection to a server.
///
/// A server that does not trust this client's certificate says so after its handshake (RFC 8446, section 4.4.2.4),
/// when HTTP has the connection already; and HTTP only tells the calls that they are cancelled.
#[derive(Clone, Debug, Default)]
pub(super) struct LastError(Arc<Mutex<Option<Arc<io::Error>>>>);

impl LastError {
    pub(super) fn error(&self) -> Option<Arc<io::Error>> {
        let last_error = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last_error.clone()
    }

    /// Keeps an error; gives a copy for the libraries, which take it by value.
    fn keep(&self, error: io::Error) -> io::Error {
        let (kind, text) = (error.kind(), error.to_string());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error));
        io::Error::new(kind, text)
    }
}

/// A connection whose errors are kept in [`LastError`].
pub(super) struct WatchedStream<S> {
    stream: S,
    heard: bool,
    unwritable: bool,
    last_error: LastError,
}

impl<S> WatchedStream<S> {
    pub(super) fn new(stream: S, last_error: &LastError) -> Self {
        Self {
            stream,
            heard: false,
            unwritable: false,
            last_error: last_error.clone(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WatchedStream<S> {
    fn poll_read_checked(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let first = !self.heard;
        self.heard = true;
        if first && buffer.filled()[before..].starts_with(ALERT) {
            return Poll::Ready(Err(io::Error::other(
                "the server speaks TLS; write https:// for http://",
            )));
        }
        Poll::Ready(Ok(()))
    }

    /// Writes. When that fails the other end has reset the connection, but what it said before is
    /// still there, and says why.
    fn poll_write_with<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if !self.unwritable {
            if let Ok(written) = ready!(write(Pin::new(&mut self.stream), context)) {
                return Poll::Ready(Ok(written));
            }
            self.unwritable = true;
        }
        let mut room = [0; 4096];
        let said = loop {
            let mut heard = ReadBuf::new(&mut room);
            match ready!(self.poll_read_checked(context, &mut heard)) {
                Ok(()) if heard.filled().is_empty() => break None,
                Ok(()) => {}
                Err(error) => break Some(error),
            }
        };
        // The server sent nothing that explains it.
        let error = said.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
        Poll::Ready(Err(self.last_error.keep(error)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let heard = ready!(self.poll_read_checked(context, buffer));
        Poll::Ready(heard.map_err(|error| self.last_error.keep(error)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream, context| {
            stream.poll_write_vectored(context, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_with(context, S::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A record of TLS with an alert (RFC 8446, section 5.1), which only a server that wants TLS sends to
/// one who speaks HTTP. No frame of HTTP/2 and no answer of HTTP/1.1 begins so.
const ALERT: &[u8] = &[21, 3];
