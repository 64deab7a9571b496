//! GenerateMacs and VerifyMacs: many items on one stream, answered out of order.
//!
//! Promises: an item is judged, limited, counted and logged as the call alone would be, by what holds when
//! it is taken; each item that is taken has one answer, and an error of it is one; a stream holds bounded
//! memory, whether its peer sends too fast or reads too slowly; all answers come before the stream's end.
//! Does not: decide anything about keys, or know how MACs are asked for (that is `mac`).

mod driver;
mod item;
mod open_streams;

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::HeaderValue;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
};
use tonic::{Request, Response, Status, Streaming, codegen::tokio_stream::Stream};
use tracing::Instrument as _;

pub(super) use self::open_streams::OpenStreams;
use self::{driver::Driver, item::StreamItem, open_streams::OpenStream};
use super::{
    super::{
        auth::{connection::ClientConnection, failure::AuthFailure},
        call::{AnsweredCall, ClientIds, RequestId},
        limits::{Limits, Quota},
        metrics::CallMetrics,
        recent::shown_cause,
        recording::{self, Ended, Recording},
    },
    call_context::CallContext,
    span_name, status,
};
use crate::{
    error::{Error, Kind},
    kms::Kms,
    model::Caller,
    proto::audit::Wire,
    telemetry::{self, CallNotes, traces},
};

/// What all streams of a listener share.
pub(super) struct Streams {
    pub(super) limits: Arc<Limits>,
    pub(super) calls: Arc<CallMetrics>,
    /// Of each item.
    pub(super) default_deadline: Duration,
    pub(super) open: OpenStreams,
}

/// The connection of a stream: each item is asked of whoever is on its other end by then.
#[derive(Clone)]
pub(super) struct StreamOrigin {
    pub(super) connection: Arc<ClientConnection>,
    pub(super) user_agent: Option<HeaderValue>,
    /// Whether hsmac ends.
    pub(super) draining: watch::Receiver<bool>,
    /// How many streams the connection has open.
    pub(super) streams: Arc<AtomicUsize>,
}

impl StreamOrigin {
    fn caller(&self) -> Result<Arc<Caller>, AuthFailure> {
        self.connection.caller_by(self.user_agent.as_ref())
    }
}

/// One stream, as its items need it.
struct StreamContext {
    kms: Arc<Kms>,
    limits: Arc<Limits>,
    calls: Arc<CallMetrics>,
    default_deadline: Duration,
    /// The caller's for the whole stream.
    own_deadline: Option<Instant>,
    request_id: RequestId,
    ids: ClientIds,
}

/// The answers of a stream. The stream ends when this is dropped.
pub(super) struct Answers<T> {
    answers: mpsc::UnboundedReceiver<Result<Answered<T>, Status>>,
    driver: AbortHandle,
}

/// An answer, and the room that its item has in the stream until the answer is handed on.
struct Answered<T> {
    answer: T,
    _room: tokio::sync::OwnedSemaphorePermit,
}

/// How one item, or a stream, has ended.
struct Outcome {
    request_id: RequestId,
    began: Instant,
    failed: Option<Kind>,
    cause: Option<Arc<str>>,
    notes: CallNotes,
}

impl Streams {
    /// Begins to answer a stream.
    ///
    /// # Errors
    /// `Throttling`: the principal has as many streams open as it may.
    pub(super) fn open<I: StreamItem>(
        &self,
        kms: Arc<Kms>,
        mut request: Request<Streaming<I>>,
    ) -> Result<Response<Answers<I::Answer>>, Status> {
        let origin = request.extensions_mut().remove::<StreamOrigin>();
        let ids = ClientIds::of(request.metadata().as_ref());
        let (context, caller, incoming) = CallContext::take(request)?;
        let Some(origin) = origin else {
            let error = Error::new(Kind::Internal, "").because("a stream has no connection");
            return Err(context.status(&error));
        };
        let opened = OpenStream::begin(&self.open, caller.arn(), &origin.streams);
        let open = opened.map_err(|error| context.status(&error))?;
        let (sender, answers) = mpsc::unbounded_channel();
        let stream = StreamContext {
            kms,
            limits: self.limits.clone(),
            calls: self.calls.clone(),
            default_deadline: self.default_deadline,
            own_deadline: context.own_deadline,
            request_id: context.request_id,
            ids,
        };
        let driver = Driver::new(stream, origin, incoming, sender, open);
        // In a task of its own: a reader that stops must not stop what its items hold.
        let driver = tokio::spawn(driver.run()).abort_handle();
        Ok(Response::new(Answers { answers, driver }))
    }
}

impl StreamContext {
    /// Answers one item as the call alone would be.
    async fn answer<I: StreamItem>(
        self: Arc<Self>,
        caller: Arc<Caller>,
        item: I,
        room: tokio::sync::OwnedSemaphorePermit,
    ) -> Answered<I::Answer> {
        let (id, request_id, began) = (item.id(), RequestId::next(), Instant::now());
        let until = began + self.default_deadline;
        let until = self.own_deadline.map_or(until, |own| own.min(until));
        let span = tracing::debug_span!(
            "call", %request_id, path = I::PATH, stream = %self.request_id,
            client_request_id = self.ids.request_id(), trace_id = self.ids.trace_id()
        );
        let answered = async {
            // Before anybody looks at what is asked for: items that are denied count too.
            let _permit = self.limits.admit(&caller, Quota::SYMMETRIC)?;
            item.ask(&self.kms, &caller, until).await
        };
        let recording = Recording::of(&self.kms, Wire::Grpc);
        let noted = telemetry::noting(answered).instrument(span);
        let ((mut answered, notes), noted) =
            recording::noting(recording.as_ref(), request_id, &self.ids, noted).await;
        if let Some(recording) = recording {
            let ended = Ended {
                operation: I::OPERATION,
                caller: Some(&caller),
                source: None,
                failed: answered.as_ref().err().map(Error::kind),
            };
            // Security: what is not in the audit log is not answered.
            let recorded = recording.ended(ended, request_id, &self.ids, noted).await;
            answered = recorded.and(answered);
        }
        let error = answered.as_ref().err();
        let outcome = Outcome {
            request_id,
            began,
            failed: error.map(Error::kind),
            cause: error.and_then(shown_cause),
            notes,
        };
        self.tell::<I>(outcome, &caller);
        let answered = answered.map_err(|error| status::item_error(&error, request_id));
        Answered {
            answer: I::answer(id, answered),
            _room: room,
        }
    }

    /// Counts, traces and logs what has ended.
    fn tell<I: StreamItem>(&self, outcome: Outcome, caller: &Caller) {
        let Outcome {
            request_id,
            began,
            failed,
            cause,
            notes,
        } = outcome;
        let operation = I::OPERATION;
        AnsweredCall {
            request_id,
            ids: &self.ids,
            operation: operation.name(),
            failed,
            cause: cause.as_deref(),
            took: self.calls.answered(operation, failed, began),
            wire: "grpc",
            span: traces::is_on().then(|| span_name(operation, I::PATH)),
            is_authenticated: true,
            began,
            notes,
        }
        .tell();
        if let Some(kind) = failed {
            let recent = &self.calls.recent;
            recent.failed(operation.name(), kind, Some(caller), cause, request_id);
        }
    }

    fn status(&self, error: &Error) -> Status {
        status::status(error, self.request_id)
    }
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.answers.poll_recv(context);
        next.map(|next| next.map(|answered| answered.map(|it| it.answer)))
    }
}

impl<T> Drop for Answers<T> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The room of a stream for items that are not answered, or whose answers are not read.
fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM))
}

/// How much of a stream's room an item takes: its bytes, and what answering it costs.
fn room_of(item: &impl StreamItem) -> u32 {
    let bytes = item.encoded_len() + OF_EACH;
    // None is longer than the service takes.
    u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX)
}

/// In bytes: 256 items of the usual length.
const ROOM: usize = 512 << 10;
/// The state of an item under way, and its answer, in bytes.
const OF_EACH: usize = 2 << 10;
/// A stream in which nothing moves for so long ends, as a connection without a call does.
const IDLE: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests;
