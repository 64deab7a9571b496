//! `hsmac bench grpc`: how fast a server is, seen from a client.
//!
//! Closed loop: each lane sends its next call when the last one is answered; it finds the rate that
//! the server can do. Open loop (`--rate`): calls are sent by the clock, and latency counts from the
//! moment at which a call should have been sent, so that a stalled server cannot hide the calls that
//! it kept from being sent.

mod report;

use std::{
    io::{IsTerminal as _, stderr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tonic::{Status, transport::Channel};

use self::report::{Conditions, Record, Report};
use super::{
    Stop,
    client::{Endpoint, Failure, duration},
};
use crate::proto::v1::{GenerateMacRequest, MacAlgorithm, mac_service_client::MacServiceClient};

pub(super) const EXAMPLES: &str = "\
Examples:
  hsmac bench grpc --key-id alias/demo
  hsmac bench grpc --key-id alias/demo --connections 16 --streams 8 --duration 30s
  hsmac bench grpc --key-id alias/demo --rate 5000 --json

Without --rate each of connections × streams lanes waits for its answer before it sends again: what
the server can do. With --rate calls are sent by the clock, and latency counts from the moment at
which a call was due: what users would see. Ctrl-C ends early and prints what was measured.
The client takes CPU time too; on a shared machine look at \"own CPU\".";

/// A call sent so much after it was due counts as late.
const LATE: Duration = Duration::from_millis(1);
/// How long the last calls may take.
const LAST_CALLS: Duration = Duration::from_secs(10);

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// http://HOST:PORT or unix:/PATH. Default: $HSMAC_ENDPOINT, else http://127.0.0.1:50051.
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// Key ID, key ARN, alias name or alias ARN.
    #[arg(long)]
    key_id: String,
    /// The algorithm that the key's spec fits.
    #[arg(long, default_value = "HMAC_SHA_256", value_parser = ["HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"])]
    mac_algorithm: String,
    /// Connections.
    #[arg(long, value_name = "C", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Calls at a time on each connection.
    #[arg(long, value_name = "M", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    streams: u32,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long to call before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    warmup: Duration,
    /// Calls per second to send (open loop), at most connections × streams in flight.
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

pub(super) fn run(arguments: &Arguments) -> Result<(), Stop> {
    let endpoint = Endpoint::chosen(arguments.endpoint.as_ref()).map_err(Stop::Usage)?;
    // One thread: it makes more calls than a server on the same machine answers, and takes less of
    // the server's time than several threads that wake each other.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::Bug(error.to_string()))?;
    let report = runtime.block_on(measure(&endpoint, arguments))?;
    super::print(
        if arguments.json {
            report.json()
        } else {
            report.table()
        }
        .as_bytes(),
    )
}

async fn measure(endpoint: &Endpoint, arguments: &Arguments) -> Result<Report, Stop> {
    let request = GenerateMacRequest {
        key_id: arguments.key_id.clone(),
        message: Bytes::from(vec![b'm'; arguments.message_bytes as usize]),
        // clap lets only names of the contract pass.
        mac_algorithm: MacAlgorithm::from_str_name(&arguments.mac_algorithm)
            .unwrap_or_default()
            .into(),
        ..Default::default()
    };
    let (stop, stopped) = watch::channel(false);
    let start = Instant::now();
    let run = Arc::new(Run {
        request,
        measured_from: start + arguments.warmup,
        until: start + arguments.warmup + arguments.duration,
        stopped,
        answered: AtomicU64::new(0),
    });
    let mut lanes = Vec::new();
    for _ in 0..arguments.connections {
        let channel = endpoint
            .connect(Duration::from_secs(5))
            .await
            .map_err(Stop::Away)?;
        lanes.push(Arc::new(Lane {
            client: MacServiceClient::new(channel),
            record: Mutex::new(Record::default()),
        }));
    }
    // One call first: a wrong key ID should be a sentence, not a table of errors.
    if let Some(lane) = lanes.first()
        && let Err(status) = lane.client.clone().generate_mac(run.request.clone()).await
    {
        return Err(Stop::Away(format!(
            "{endpoint}: {}: {}",
            reason(&status),
            status.message()
        )));
    }

    let progress = tokio::spawn(show_progress(Arc::clone(&run), arguments.duration));
    let watched = tokio::spawn(watch_clock(Arc::clone(&run), stop));
    let in_flight = arguments.connections * arguments.streams;
    match arguments.rate {
        None => closed_loop(&run, &lanes, arguments.streams).await,
        Some(rate) => open_loop(&run, &lanes, in_flight, rate).await,
    }
    progress.abort();
    let measured = watched
        .await
        .map_err(|error| Stop::Bug(error.to_string()))?;

    let mut total = Record::default();
    for lane in &lanes {
        total.add(&lane.record.lock().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(Report::new(
        &total,
        measured,
        arguments.token_rate,
        Conditions {
            endpoint: endpoint.to_string(),
            mac_algorithm: arguments.mac_algorithm.clone(),
            connections: arguments.connections,
            streams: arguments.streams,
            message_bytes: arguments.message_bytes,
            rate: arguments.rate.map(NonZeroU32::get),
            seconds: measured.elapsed.as_secs_f64(),
        },
    ))
}

/// What all lanes share.
struct Run {
    request: GenerateMacRequest,
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
struct Lane {
    client: MacServiceClient<Channel>,
    record: Mutex<Record>,
}

impl Lane {
    /// Makes one call that was due at `due`.
    async fn call(&self, run: &Run, due: Instant) {
        let sent = Instant::now();
        let reply = self.client.clone().generate_mac(run.request.clone()).await;
        let done = Instant::now();
        run.answered.fetch_add(1, Ordering::Relaxed);
        let failed = reply.err().map(|status| reason(&status));
        let off_line = failed.as_ref().is_some_and(|reason| !reason.contains('_'));
        // Counted by its end: in an overloaded open loop all calls of the measured time may have
        // been due in the warm-up.
        if done >= run.measured_from {
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            record.late += u64::from(sent - due > LATE);
            match failed {
                None => record.answer(done - due),
                Some(reason) => record.error(reason),
            }
        }
        if off_line {
            // The server is gone: a closed loop would spin.
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn closed_loop(run: &Arc<Run>, lanes: &[Arc<Lane>], streams: u32) {
    let mut loops = JoinSet::new();
    for lane in lanes {
        for _ in 0..streams {
            let (run, lane) = (Arc::clone(run), Arc::clone(lane));
            loops.spawn(async move {
                while !run.is_over() {
                    lane.call(&run, Instant::now()).await;
                }
            });
        }
    }
    finish(run, loops).await;
}

async fn open_loop(run: &Arc<Run>, lanes: &[Arc<Lane>], in_flight: u32, rate: NonZeroU32) {
    let (send, mut due_times) = mpsc::unbounded_channel();
    let pacer = {
        let run = Arc::clone(run);
        thread::spawn(move || pace(&run, rate, &send))
    };
    let room = Arc::new(Semaphore::new(in_flight as usize));
    let mut calls = JoinSet::new();
    let mut not_sent = 0;
    for lane in lanes.iter().cycle() {
        let Some(due) = due_times.recv().await else {
            break;
        };
        let mut stopped = run.stopped.clone();
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => permit,
            _ = stopped.wait_for(|stopped| *stopped) => {
                not_sent += 1 + due_times.len() as u64;
                break;
            }
        };
        let (run, lane) = (Arc::clone(run), Arc::clone(lane));
        calls.spawn(async move {
            lane.call(&run, due).await;
            drop(permit);
        });
        while calls.try_join_next().is_some() {}
    }
    if let Some(lane) = lanes.first() {
        lane.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .not_sent += not_sent;
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

/// `THROTTLING`, or gRPC's own name of what went wrong.
fn reason(status: &Status) -> String {
    match Failure::of(status) {
        Failure::Service { reason, .. } => reason,
        Failure::TimedOut | Failure::Transport => format!("gRPC {:?}", status.code()),
    }
}
