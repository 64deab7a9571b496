//! One stream from its first item to its end.

use std::{future::pending, pin::pin, sync::Arc, time::Instant};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{self, sleep_until},
};
use tonic::{Status, Streaming};

use super::{
    super::{super::auth::failure::AuthFailure, MAC_LIMIT, SLACK, call_context::described, status},
    Answered, IDLE, OpenStream, Outcome, StreamContext, StreamItem, StreamOrigin, room, room_of,
};
use crate::{
    error::{Error, Kind},
    kms,
    model::Caller,
    telemetry::CallNotes,
};

/// Takes a stream's items as there is room, and answers them.
pub(super) struct Driver<I: StreamItem> {
    stream: Arc<StreamContext>,
    origin: StreamOrigin,
    incoming: Streaming<I>,
    answers: mpsc::UnboundedSender<Result<Answered<I::Answer>, Status>>,
    room: Arc<Semaphore>,
    /// An item that waits for room.
    read: Option<I>,
    /// The connection's caller, and the same in the lane of stream items.
    known: Option<(Arc<Caller>, Arc<Caller>)>,
    /// Items so far.
    taken: u64,
    _open: OpenStream,
}

impl<I: StreamItem> Driver<I> {
    pub(super) fn new(
        stream: StreamContext,
        origin: StreamOrigin,
        incoming: Streaming<I>,
        answers: mpsc::UnboundedSender<Result<Answered<I::Answer>, Status>>,
        open: OpenStream,
    ) -> Self {
        Self {
            stream: Arc::new(stream),
            origin,
            incoming,
            answers,
            room: room(),
            read: None,
            known: None,
            taken: 0,
            _open: open,
        }
    }

    pub(super) async fn run(mut self) {
        let began = Instant::now();
        let ended = self.serve().await;
        let (items, took_s) = (self.taken, began.elapsed().as_secs_f64());
        let request_id = self.stream.request_id;
        let operation = I::OPERATION.name();
        tracing::debug!(%request_id, operation, items, took_s, "a stream has ended");
        let Err(status) = ended else {
            return;
        };
        // What its peer has done wrong counts as a failed item. A shutdown, a deadline and an idle peer are
        // nobody's fault.
        let failed = status::kind_of_status(&status).filter(|kind| !kind.is_ours());
        if let (Some(failed), Some((caller, _))) = (failed, &self.known) {
            let outcome = Outcome {
                request_id: self.stream.request_id,
                began,
                failed: Some(failed),
                cause: None,
                notes: CallNotes::default(),
            };
            self.stream.tell::<I>(outcome, caller);
        }
        // Whoever does not read any more is not told.
        let _ = self.answers.send(Err(status));
    }

    /// Answers items until the client has no more, or something ends the stream.
    async fn serve(&mut self) -> Result<(), Status> {
        let mut in_flight = FuturesUnordered::new();
        let mut ending = None;
        let mut moved = time::Instant::now();
        let mut idle = pin!(sleep_until(moved + IDLE));
        let mut deadline = pin!(passed(self.stream.own_deadline));
        let mut draining = self.origin.draining.clone();
        loop {
            if in_flight.is_empty()
                && let Some(ending) = ending
            {
                return ending;
            }
            tokio::select! {
                Some(answered) = in_flight.next() => {
                    moved = time::Instant::now();
                    if self.answers.send(Ok(answered)).is_err() {
                        return Ok(());
                    }
                }
                next = self.next(), if ending.is_none() => match next {
                    Ok(Some((item, caller, room))) => {
                        moved = time::Instant::now();
                        in_flight.push(self.stream.clone().answer(caller, item, room));
                    }
                    Ok(None) => ending = Some(Ok(())),
                    Err(status) => ending = Some(Err(status)),
                },
                _ = draining.wait_for(|draining| *draining), if ending.is_none() => {
                    let say = "This hsmac is ending; send the items that have no answer to another one.";
                    ending = Some(Err(self.stream.status(&Error::new(Kind::KeyUnavailable, say))));
                }
                () = deadline.as_mut() => return Err(self.stream.status(&kms::timed_out())),
                () = idle.as_mut() => {
                    if moved.elapsed() >= IDLE {
                        return Err(self.stream.status(&is_idle()));
                    }
                    idle.as_mut().reset(moved + IDLE);
                }
            }
        }
    }

    /// The next item, when there is room for it, and who asks it. Nothing is lost if this is dropped.
    async fn next(&mut self) -> Result<Option<(I, Arc<Caller>, OwnedSemaphorePermit)>, Status> {
        if self.read.is_none() {
            let read = self.incoming.message().await;
            self.read =
                read.map_err(|status| described(status, MAC_LIMIT, self.stream.request_id))?;
        }
        let Some(item) = &self.read else {
            return Ok(None);
        };
        let room = self.room.clone().acquire_many_owned(room_of(item)).await;
        let room = room.expect("nobody closes it");
        // Security: what a reload has taken away is gone with the first item after it.
        let caller = self.caller();
        let caller = caller.map_err(|failure| self.stream.status(&failure.into()))?;
        self.taken += 1;
        Ok(self.read.take().map(|item| (item, caller, room)))
    }

    /// Who is on the other end now.
    fn caller(&mut self) -> Result<Arc<Caller>, AuthFailure> {
        let caller = (self.stream.calls).authenticating(|| self.origin.caller())?;
        if let Some((known, in_lane)) = &self.known
            && Arc::ptr_eq(known, &caller)
        {
            return Ok(in_lane.clone());
        }
        let flow = caller.flow().of_stream_items();
        let in_lane = Arc::new(Caller::clone(&caller).in_flow(flow));
        self.known = Some((caller, in_lane.clone()));
        Ok(in_lane)
    }
}

/// Returns when the caller has given the stream up.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        // Items whose time ended with it are answered before.
        Some(deadline) => sleep_until((deadline + SLACK).into()).await,
        None => pending().await,
    }
}

fn is_idle() -> Error {
    let say = format!("The stream was idle for {} minutes.", IDLE.as_secs() / 60);
    Error::new(Kind::DependencyTimeout, say)
}
