//! A request's body, that has to arrive in time and within the budget of its caller.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    super::{call::RequestId, receive_budget::ReceivedBytes},
    status::status,
};
use crate::{
    error::{Error, Kind},
    model::Caller,
};

type BoxError = Box<dyn StdError + Send + Sync>;

/// The body of a request whose caller is known.
pub(super) struct ArrivingBody<B> {
    body: B,
    caller: Arc<Caller>,
    request_id: RequestId,
    /// When all of it must be here; none: it is a stream, which may take its time.
    until: Option<Instant>,
    /// Made when there is something to wait for: most bodies are here before they are looked at.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that have been passed on and that the budget does not count yet.
    uncounted: usize,
    /// Made when there is something to wait for, too.
    held: Option<ReceivedBytes>,
}

impl<B> ArrivingBody<B> {
    pub(super) fn new(
        body: B,
        caller: Arc<Caller>,
        request_id: RequestId,
        until: Option<Instant>,
    ) -> Self {
        Self {
            body,
            caller,
            request_id,
            until,
            timer: None,
            uncounted: 0,
            held: None,
        }
    }

    /// Counts what has come while the rest is waited for.
    fn hold(&mut self) -> Result<(), Error> {
        let bytes = std::mem::take(&mut self.uncounted);
        if bytes == 0 {
            return Ok(());
        }
        let caller = &self.caller;
        let held = self
            .held
            .get_or_insert_with(|| ReceivedBytes::of(caller.arn()));
        held.add(bytes)
    }

    /// gRPC's own error, which the library passes on as it is.
    fn fail(&self, error: &Error) -> BoxError {
        status(error, self.request_id).into()
    }
}

impl<B> Body for ArrivingBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.uncounted += frame.data_ref().map_or(0, Bytes::len);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                this.held = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                // What is a stream is not kept.
                let Some(until) = this.until else {
                    return Poll::Pending;
                };
                if let Err(error) = this.hold() {
                    return Poll::Ready(Some(Err(this.fail(&error))));
                }
                let timer = this
                    .timer
                    .get_or_insert_with(|| Box::pin(sleep_until(until)));
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                let late = Error::new(
                    Kind::DependencyTimeout,
                    format!("The request's message did not arrive within {ARRIVAL:?}."),
                );
                Poll::Ready(Some(Err(this.fail(&late))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long a message may take to arrive, whatever the caller's deadline is.
pub(super) const ARRIVAL: Duration = Duration::from_secs(10);
