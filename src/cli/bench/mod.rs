//! `hsmac bench grpc` and `hsmac bench aws`: how fast a server is, seen from a client.
//!
//! Closed loop: each lane sends its next call when the last one is answered; it finds the rate that
//! the server can do. Open loop (`--rate`): calls are sent by the clock, and latency counts from the
//! moment at which a call should have been sent, so that a stalled server cannot hide the calls that
//! it kept from being sent.

pub(super) mod aws;
pub(super) mod grpc;
mod report;
mod signer;

use std::{
    io::{IsTerminal as _, stderr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use self::report::{Conditions, Record, Report};
use super::{Stop, client::duration};

/// A call sent so much after it was due counts as late.
const LATE: Duration = Duration::from_millis(1);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the last calls may take.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// What to ask for, and for how long.
#[derive(clap::Args, Debug)]
struct Load {
    /// Key ID, key ARN, alias name or alias ARN.
    #[arg(long)]
    key_id: String,
    /// The algorithm that the key's spec fits.
    #[arg(long, default_value = "HMAC_SHA_256", value_parser = ["HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"])]
    mac_algorithm: String,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long to call before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    warmup: Duration,
    /// Calls per second to send (open loop), at most as many in flight as there are lanes.
    #[arg(long, value_name = "R")]
    rate: Option<NonZeroU32>,
    /// Length of each message, 1 to 4,096.
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(1..=4096))]
    message_bytes: u32,
    /// What `hsmac bench token` printed, in calls per second: the report gives the ratio to it.
    #[arg(long, value_name = "N")]
    token_rate: Option<f64>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Load {
    fn message(&self) -> Vec<u8> {
        vec![b'm'; self.message_bytes as usize]
    }
}

/// A connection that calls can be made on.
trait Connection: Send + Sync + 'static {
    fn call(&self) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// A call without a MAC.
#[derive(Debug)]
struct Failed {
    /// What the report counts it as.
    reason: String,
    /// For people.
    said: String,
    /// Nothing answered: a closed loop would spin.
    away: bool,
}

/// Connects so often, calls, and prints what was measured.
fn run<C: Connection>(
    load: &Load,
    endpoint: &str,
    connections: u32,
    streams: Option<u32>,
    connect: impl AsyncFn() -> Result<C, String>,
) -> Result<(), Stop> {
    // One thread: it makes more calls than a server on the same machine answers, and takes less of
    // the server's time than several threads that wake each other.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::Bug(error.to_string()))?;
    let report = runtime.block_on(async {
        let mut lanes = Vec::new();
        for _ in 0..connections {
            lanes.push(Arc::new(Lane {
                connection: connect().await.map_err(Stop::Away)?,
                record: Mutex::new(Record::default()),
            }));
        }
        measure(load, endpoint, &lanes, streams).await
    })?;
    super::print(
        if load.json {
            report.json()
        } else {
            report.table()
        }
        .as_bytes(),
    )
}

async fn measure<C: Connection>(
    load: &Load,
    endpoint: &str,
    lanes: &[Arc<Lane<C>>],
    streams: Option<u32>,
) -> Result<Report, Stop> {
    // One call first: a wrong key ID should be a sentence, not a table of errors.
    if let Some(lane) = lanes.first()
        && let Err(failed) = lane.connection.call().await
    {
        return Err(Stop::Away(format!(
            "{endpoint}: {}: {}",
            failed.reason, failed.said
        )));
    }
    let (stop, stopped) = watch::channel(false);
    let start = Instant::now();
    let run = Arc::new(Run {
        measured_from: start + load.warmup,
        until: start + load.warmup + load.duration,
        stopped,
        answered: AtomicU64::new(0),
    });
    let progress = tokio::spawn(show_progress(Arc::clone(&run), load.duration));
    let watched = tokio::spawn(watch_clock(Arc::clone(&run), stop));
    // Each connection as often as it takes calls at a time, in turn.
    let places: Vec<_> = (0..streams.unwrap_or(1))
        .flat_map(|_| lanes.iter().map(Arc::clone))
        .collect();
    match load.rate {
        None => closed_loop(&run, places).await,
        Some(rate) => open_loop(&run, places, rate).await,
    }
    progress.abort();
    let measured = watched
        .await
        .map_err(|error| Stop::Bug(error.to_string()))?;

    let mut total = Record::default();
    for lane in lanes {
        total.add(&lane.record());
    }
    Ok(Report::new(
        &total,
        measured,
        load.token_rate,
        Conditions {
            endpoint: endpoint.to_owned(),
            mac_algorithm: load.mac_algorithm.clone(),
            connections: lanes.len(),
            streams,
            message_bytes: load.message_bytes,
            rate: load.rate.map(NonZeroU32::get),
            seconds: measured.elapsed.as_secs_f64(),
        },
    ))
}

/// What all lanes share.
struct Run {
    measured_from: Instant,
    until: Instant,
    stopped: watch::Receiver<bool>,
    answered: AtomicU64,
}

impl Run {
    fn is_over(&self) -> bool {
        *self.stopped.borrow()
    }
}

/// One connection and what was measured on it.
struct Lane<C> {
    connection: C,
    record: Mutex<Record>,
}

impl<C: Connection> Lane<C> {
    /// Makes one call that was due at `due`.
    async fn call(&self, run: &Run, due: Instant) {
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

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn closed_loop<C: Connection>(run: &Arc<Run>, places: Vec<Arc<Lane<C>>>) {
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

async fn open_loop<C: Connection>(run: &Arc<Run>, places: Vec<Arc<Lane<C>>>, rate: NonZeroU32) {
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
fn pace(run: &Run, rate: NonZeroU32, send: &mpsc::UnboundedSender<Instant>) {
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

/// Waits for the last calls, but not for ever.
async fn finish(run: &Run, mut tasks: JoinSet<()>) {
    let mut stopped = run.stopped.clone();
    // The sender lives in `watch_clock`, which ends only after it has sent.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    let _ = timeout(LAST_CALLS, async {
        while tasks.join_next().await.is_some() {}
    })
    .await;
}

/// What the clocks said of the measured time.
#[derive(Clone, Copy, Debug)]
struct Measured {
    elapsed: Duration,
    cpu: Duration,
}

/// Ends the run at its time or at Ctrl-C, and reads the clocks at both ends.
async fn watch_clock(run: Arc<Run>, stop: watch::Sender<bool>) -> Measured {
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut early = false;
    tokio::select! {
        () = sleep_until(run.measured_from.into()) => {}
        _ = &mut interrupted => early = true,
    }
    let (start, cpu) = (Instant::now(), own_cpu());
    if !early {
        tokio::select! {
            () = sleep_until(run.until.into()) => {}
            _ = &mut interrupted => {}
        }
    }
    let measured = Measured {
        elapsed: start.elapsed(),
        cpu: own_cpu().saturating_sub(cpu),
    };
    stop.send_replace(true);
    measured
}

/// User and system time of this process, all threads.
fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

async fn show_progress(run: Arc<Run>, duration: Duration) {
    if duration <= Duration::from_secs(5) || !stderr().is_terminal() {
        return;
    }
    let mut before = 0;
    while !run.is_over() {
        sleep(Duration::from_secs(1)).await;
        let now = run.answered.load(Ordering::Relaxed);
        let left = run
            .until
            .saturating_duration_since(Instant::now())
            .as_secs();
        eprint!("\r{:>9} calls/s, {left:>4} s left  ", now - before);
        before = now;
    }
    eprintln!();
}
