//! Lanes: each makes one call at a time, in a closed or in an open loop.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{BenchConnection, report::Measurements};

/// A call sent so much after it was due counts as late.
const LATE: Duration = Duration::from_millis(1);
/// How long the last calls may take.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// The state that all lanes share.
pub(super) struct BenchRun {
    pub(super) measured_from: Instant,
    pub(super) until: Instant,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) answered: AtomicU64,
}

impl BenchRun {
    pub(super) fn is_over(&self) -> bool {
        *self.stopped.borrow()
    }
}

/// One connection and what was measured on it.
pub(super) struct Lane<C> {
    pub(super) connection: C,
    pub(super) record: Mutex<Measurements>,
}

impl<C: BenchConnection> Lane<C> {
    /// Makes one call that was due at `due`.
    async fn call(&self, run: &BenchRun, due: Instant) {
        let sent = Instant::now();
        let failed = self.connection.call().await.err();
        let done = Instant::now();
        run.answered.fetch_add(1, Ordering::Relaxed);
        let away = failed.as_ref().is_some_and(|failed| failed.away);
        // Counted by its end: in an overloaded open loop all calls of the measured time may have
        // been due in the warm-up.
        if done >= run.measured_from {
            let mut record = self.record();
            record.late += u64::from(sent - due > LATE);
            match failed {
                None => record.answer(done - due),
                Some(failed) => record.error(failed.reason),
            }
        }
        if away {
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Measurements> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn closed_loop<C: BenchConnection>(
    run: &Arc<BenchRun>,
    places: Vec<Arc<Lane<C>>>,
) {
    let mut loops = JoinSet::new();
    for lane in places {
        let run = Arc::clone(run);
        loops.spawn(async move {
            while !run.is_over() {
                lane.call(&run, Instant::now()).await;
            }
        });
    }
    finish(run, loops).await;
}

pub(super) async fn open_loop<C: BenchConnection>(
    run: &Arc<BenchRun>,
    places: Vec<Arc<Lane<C>>>,
    rate: NonZeroU32,
) {
    let (send, mut due_times) = mpsc::unbounded_channel();
    let pacer = {
        let run = Arc::clone(run);
        thread::spawn(move || pace(&run, rate, &send))
    };
    let first = places.first().cloned();
    let (give_back, mut free) = mpsc::unbounded_channel();
    for lane in places {
        // The other end is here.
        let _ = give_back.send(lane);
    }
    let mut calls = JoinSet::new();
    let mut not_sent = 0;
    while let Some(due) = due_times.recv().await {
        let mut stopped = run.stopped.clone();
        let lane = tokio::select! {
            lane = free.recv() => lane,
            _ = stopped.wait_for(|stopped| *stopped) => None,
        };
        let Some(lane) = lane else {
            not_sent += 1 + due_times.len() as u64;
            break;
        };
        let (run, give_back) = (Arc::clone(run), give_back.clone());
        calls.spawn(async move {
            lane.call(&run, due).await;
            let _ = give_back.send(lane);
        });
        while calls.try_join_next().is_some() {}
    }
    if let Some(lane) = first {
        lane.record().not_sent += not_sent;
    }
    finish(run, calls).await;
    // It ends within one period of the clock; a panic there would have ended the loop above.
    let _ = pacer.join();
}

/// Says when calls are due. A thread of its own: tokio's timers tick in whole milliseconds.
fn pace(run: &BenchRun, rate: NonZeroU32, send: &mpsc::UnboundedSender<Instant>) {
    let start = Instant::now();
    for call in 0_u64.. {
        let due = start + Duration::from_secs_f64(call as f64 / f64::from(rate.get()));
        while let Some(early) = due
            .checked_duration_since(Instant::now())
            .filter(|d| !d.is_zero())
        {
            if run.is_over() {
                return;
            }
            thread::sleep(early.min(Duration::from_millis(100)));
        }
        if run.is_over() || send.send(due).is_err() {
            return;
        }
    }
}

/// Waits for the last calls, at most [`LAST_CALLS`].
async fn finish(run: &BenchRun, mut tasks: JoinSet<()>) {
    let mut stopped = run.stopped.clone();
    // The sender lives in `watch_clock`, which ends only after it has sent.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    let _ = timeout(LAST_CALLS, async {
        while tasks.join_next().await.is_some() {}
    })
    .await;
}
