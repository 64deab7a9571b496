//! The clocks of a run: when it begins and ends, and the CPU time that this process took.

use std::{
    io::{IsTerminal as _, stderr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};

use super::{lanes::BenchRun, report::ClockReadings};

/// Ends the run at its time or at Ctrl-C, and reads the clocks at both ends.
pub(super) async fn watch_clock(run: Arc<BenchRun>, stop: watch::Sender<bool>) -> ClockReadings {
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
    let measured = ClockReadings {
        elapsed: start.elapsed(),
        cpu: own_cpu().saturating_sub(cpu),
    };
    stop.send_replace(true);
    measured
}

pub(super) async fn show_progress(run: Arc<BenchRun>, duration: Duration) {
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

/// User and system time of this process, all threads.
fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
