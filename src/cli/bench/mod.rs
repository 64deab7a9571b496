//! `hsmac bench grpc` and `hsmac bench aws`: how fast a server is, seen from a client.
//!
//! Closed loop: each lane sends its next call when the last one is answered; it finds the rate that
//! the server can do. Open loop (`--rate`): calls are sent by the clock, and latency counts from the
//! moment at which a call should have been sent, so that a stalled server cannot hide the calls that
//! it kept from being sent.

pub(super) mod aws;
mod clock;
pub(super) mod grpc;
mod lanes;
mod report;
mod signer;

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use self::{
    clock::{show_progress, watch_clock},
    lanes::{BenchRun, Lane, closed_loop, open_loop},
    report::{Conditions, Measurements, Report},
};
use super::{CliError, client::duration};

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// What to ask for, and for how long.
#[derive(clap::Args, Debug)]
struct LoadArguments {
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

impl LoadArguments {
    fn message(&self) -> Vec<u8> {
        vec![b'm'; self.message_bytes as usize]
    }
}

/// A connection that calls can be made on.
trait BenchConnection: Send + Sync + 'static {
    fn call(&self) -> impl Future<Output = Result<(), FailedCall>> + Send;
}

/// A call that failed.
#[derive(Debug)]
struct FailedCall {
    /// The name under which the report counts it.
    reason: String,
    /// For people.
    said: String,
    /// No server answered: the lane pauses, so that a closed loop does not spin.
    away: bool,
}

/// Makes the connections, calls, and prints the report.
fn run<C: BenchConnection>(
    load: &LoadArguments,
    endpoint: &str,
    connections: u32,
    streams: Option<u32>,
    connect: impl AsyncFn() -> Result<C, String>,
) -> Result<(), CliError> {
    // One thread: it makes more calls than a server on the same machine answers, and takes less of
    // the server's time than several threads that wake each other.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Bug(error.to_string()))?;
    let report = runtime.block_on(async {
        let mut lanes = Vec::new();
        for _ in 0..connections {
            lanes.push(Arc::new(Lane {
                connection: connect().await.map_err(CliError::Away)?,
                record: Mutex::new(Measurements::default()),
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

async fn measure<C: BenchConnection>(
    load: &LoadArguments,
    endpoint: &str,
    lanes: &[Arc<Lane<C>>],
    streams: Option<u32>,
) -> Result<Report, CliError> {
    // One call first, so that a wrong key ID gives a sentence, not a table of errors.
    if let Some(lane) = lanes.first()
        && let Err(failed) = lane.connection.call().await
    {
        return Err(CliError::Away(format!(
            "{endpoint}: {}: {}",
            failed.reason, failed.said
        )));
    }
    let (stop, stopped) = watch::channel(false);
    let start = Instant::now();
    let run = Arc::new(BenchRun {
        measured_from: start + load.warmup,
        until: start + load.warmup + load.duration,
        stopped,
        answered: AtomicU64::new(0),
    });
    let progress = tokio::spawn(show_progress(Arc::clone(&run), load.duration));
    let watched = tokio::spawn(watch_clock(Arc::clone(&run), stop));
    // Each connection once for each call that it takes at a time, in turn.
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
        .map_err(|error| CliError::Bug(error.to_string()))?;

    let mut total = Measurements::default();
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
