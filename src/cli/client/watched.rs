use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What ended a server's connections, the last of them.
///
/// A server that does not believe this client says so after its handshake (RFC 8446, section 4.4.2.4),
/// when HTTP has the connection already; and HTTP only tells the calls that they are cancelled.
#[derive(Clone, Debug, Default)]
pub(super) struct Noticed(Arc<Mutex<Option<Arc<io::Error>>>>);

impl Noticed {
    pub(super) fn error(&self) -> Option<Arc<io::Error>> {
        let noticed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.clone()
    }

    /// Keeps an error; gives one for the libraries, which want it as their own.
    fn notice(&self, error: io::Error) -> io::Error {
        let (kind, text) = (error.kind(), error.to_string());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error));
        io::Error::new(kind, text)
    }
}

/// A connection whose errors are noticed.
pub(super) struct Watched<S> {
    stream: S,
    heard: bool,
    unwritable: bool,
    noticed: Noticed,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, noticed: &Noticed) -> Self {
        Self {
            stream,
            heard: false,
            unwritable: false,
            noticed: noticed.clone(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    fn poll_hear(
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
    fn poll_tell<T>(
        &mut self,
        context: &mut Context<'_>,
        tell: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if !self.unwritable {
            if let Ok(told) = ready!(tell(Pin::new(&mut self.stream), context)) {
                return Poll::Ready(Ok(told));
            }
            self.unwritable = true;
        }
        let mut room = [0; 4096];
        let said = loop {
            let mut heard = ReadBuf::new(&mut room);
            match ready!(self.poll_hear(context, &mut heard)) {
                Ok(()) if heard.filled().is_empty() => break None,
                Ok(()) => {}
                Err(error) => break Some(error),
            }
        };
        // Nothing that explains it: then it is only an end.
        let error = said.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
        Poll::Ready(Err(self.noticed.notice(error)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let heard = ready!(self.poll_hear(context, buffer));
        Poll::Ready(heard.map_err(|error| self.noticed.notice(error)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_tell(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_tell(context, |stream, context| {
            stream.poll_write_vectored(context, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_tell(context, S::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A record of TLS with an alert (RFC 8446, section 5.1), which only a server that wants TLS sends to
/// one who speaks HTTP. No frame of HTTP/2 and no answer of HTTP/1.1 begins so.
const ALERT: &[u8] = &[21, 3];
