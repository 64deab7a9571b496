//! What the kernel says of this process.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

/// What the kernel says of this process; zero where it does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessFigures {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_descriptors: u64,
    pub(super) most_descriptors: u64,
    pub(super) threads: u64,
    /// In seconds since 1970.
    pub(super) start_time: f64,
}

impl ProcessFigures {
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            open_descriptors: fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64),
            most_descriptors: limit.current.unwrap_or(u64::MAX),
            ..Self::of(&stat, &boot)
        }
    }

    /// From the texts of `/proc/self/stat` (proc_pid_stat(5)) and `/proc/stat`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds and ticks are far below 2^52"
    )]
    fn of(stat: &str, boot: &str) -> Self {
        // The second field is a name that may have anything in it; those after it are numbers.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // The first of them is the third in the manual.
        let field = |number: usize| -> u64 {
            let text = fields.get(number - 3);
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let ticks = clock_ticks_per_second() as f64;
        let booted = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|text| text.parse::<u64>().ok());
        Self {
            cpu_seconds: (field(14) + field(15)) as f64 / ticks,
            resident_bytes: field(24) * page_size() as u64,
            threads: field(20),
            start_time: booted.map_or(0.0, |booted| booted as f64 + field(22) as f64 / ticks),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_anything_in_it_does_not_shift_the_fields() {
        let numbers: Vec<String> = (4..=52).map(|number| (number * 100).to_string()).collect();
        let stat = format!("7 (a ) b) S {}", numbers.join(" "));
        let seen = ProcessFigures::of(&stat, "cpu 1 2\nbtime 1000\n");
        assert_eq!(seen.threads, 2000);
        assert_eq!(seen.resident_bytes, 2400 * page_size() as u64);
        let ticks = clock_ticks_per_second() as f64;
        assert!((seen.cpu_seconds - 2900.0 / ticks).abs() < 1e-9);
        assert!((seen.start_time - (1000.0 + 2200.0 / ticks)).abs() < 1e-9);
        assert_eq!(ProcessFigures::of("", ""), ProcessFigures::default());
    }

    #[test]
    fn this_process_has_figures() {
        let seen = ProcessFigures::read();
        assert!(seen.resident_bytes > 0 && seen.open_descriptors > 2 && seen.threads > 0);
        assert!(seen.start_time > 1e9 && seen.most_descriptors > 2);
    }
}
