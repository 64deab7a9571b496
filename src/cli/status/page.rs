//! The report in words, from the worst to what one looks up.

use std::fmt::Write as _;

use super::{Paint, Tone, words};
use crate::admin::{GroupReport, StatusReport, TokenReport};

/// A sample that is older says nothing about now: they are taken every ten seconds.
const FRESH: u64 = 25;
/// So many of the last faults and refusals are shown; `--output json` has all.
const MOST: usize = 5;
const OPERATIONS: [&str; 3] = ["GenerateMac", "VerifyMac", "others"];

/// The whole page.
pub(super) fn page(report: &StatusReport, paint: Paint) -> String {
    let mut page = Page {
        text: String::new(),
        paint,
        report,
    };
    page.headline();
    page.readiness();
    page.tokens();
    page.calls();
    page.keys();
    page.coming();
    page.refusals();
    page.throttled();
    page.faults();
    page.server();
    page.text
}

struct Page<'a> {
    text: String,
    paint: Paint,
    report: &'a StatusReport,
}

impl Page<'_> {
    fn headline(&mut self) {
        let report = self.report;
        let tone = match (report.ready, report.well) {
            (false, _) => Tone::Bad,
            (true, false) => Tone::Warn,
            (true, true) => Tone::Good,
        };
        let sign = self.paint.paint(tone, tone.sign());
        let summary = self.paint.bold(&report.summary);
        self.line(&format!("{sign} {summary}"));
        if let Some(advice) = &report.advice {
            self.line(&format!("  Do: {advice}"));
        }
        let up = words::span(seconds_since(report.started, report.at));
        self.soft(&format!("  hsmac {}, up for {up}", report.hsmac));
    }

    fn readiness(&mut self) {
        self.title("Ready");
        for check in &self.report.checks {
            let tone = if check.good { Tone::Good } else { Tone::Bad };
            self.item(tone, &format!("{}: {}", check.name, check.reason));
        }
    }

    fn tokens(&mut self) {
        self.title("Tokens");
        for group in &self.report.groups {
            for token in &group.tokens {
                self.token(token);
            }
            let wait = words::took(group.queue_wait_p99);
            let (queued, limit) = (
                words::count(group.queued as u64),
                words::count(group.queue_limit as u64),
            );
            self.soft(&format!(
                "    queue{}: {queued} of {limit} wait; p99 of the wait since the start {wait}",
                of_group(group)
            ));
        }
        if self.report.groups.is_empty() {
            self.soft("  none is configured");
        }
    }

    fn token(&mut self, token: &TokenReport) {
        let now = self.report.at;
        let tone = Tone::of_state(&token.state);
        let name = self.paint.bold(&token.name);
        let state = self.paint.paint(tone, &token.state.replace('_', " "));
        let since = words::span(now.saturating_sub(token.since));
        self.item(tone, &format!("{name}  {state} for {since}"));
        if tone != Tone::Good {
            self.line(&format!("    {}", token.reason));
        }
        if let Some(advice) = &token.advice {
            self.line(&format!("    Do: {advice}"));
        }
        if let Some(pending) = &token.pending_settings {
            let text = format!("    new settings wait for their hosts: {pending}");
            self.line(&self.paint.paint(Tone::Warn, &text));
        }
        self.line(&format!("    {}", hosts(token, now)));
        let [p50, p99] = [token.mac_p50, token.mac_p99].map(words::took);
        let macs = words::plural(token.macs, "MAC");
        self.line(&format!("    {macs} since the start; p50 {p50}, p99 {p99}"));
        let ends = token.host_ends.iter().filter(|(_, count)| **count > 0);
        let ends: Vec<String> = ends.map(|(how, count)| format!("{how} {count}")).collect();
        if !ends.is_empty() {
            self.line(&format!("    hosts that have ended: {}", ends.join(", ")));
        }
        if let Some(fault) = &token.last_fault {
            let ago = words::ago(now, fault.at);
            let all = words::count(token.faults);
            let reason = if fault.reason.is_empty() || fault.reason.contains(&fault.code) {
                String::new()
            } else {
                format!(": {}", fault.reason)
            };
            self.line(&format!(
                "    last fault {ago}: {} {}{reason} ({all} in all)",
                fault.function, fault.code
            ));
        }
    }

    fn calls(&mut self) {
        self.title("Calls");
        let report = self.report;
        let fresh = |at: u64| report.at.saturating_sub(at) < FRESH;
        let sample = report.history.last().filter(|sample| fresh(sample.at));
        let mut counts = [0_u64; 3];
        let mut failed: Vec<(&str, &str, u64)> = Vec::new();
        for calls in &report.calls {
            let class = OPERATIONS.iter().position(|name| *name == calls.operation);
            counts[class.unwrap_or(2)] += calls.count;
            let Some(exception) = &calls.exception else {
                continue;
            };
            let known = failed
                .iter_mut()
                .find(|(operation, known, _)| *operation == calls.operation && *known == exception);
            match known {
                Some((.., count)) => *count += calls.count,
                None => failed.push((&calls.operation, exception, calls.count)),
            }
        }
        self.soft(&format!(
            "  {:<14}{:>14}{:>10}{:>18}",
            "", "last 10 s", "p99", "since the start"
        ));
        for (class, name) in OPERATIONS.into_iter().enumerate() {
            let (rate, p99) = sample.map_or_else(
                || ("–".to_owned(), "–".to_owned()),
                |sample| {
                    (
                        words::rate(sample.rate[class]),
                        words::took(sample.p99[class]),
                    )
                },
            );
            let count = words::count(counts[class]);
            self.line(&format!("  {name:<14}{rate:>14}{p99:>10}{count:>18}"));
        }
        if let Some(sample) = sample {
            self.line(&format!(
                "  faults of ours {}, throttled {}, over limits {}, denied {}; wait in the queue p99 {}",
                words::rate(sample.our_faults),
                words::rate(sample.throttled),
                words::rate(sample.limited),
                words::rate(sample.denied),
                words::took(sample.queue_p99)
            ));
        }
        failed.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
        let said: Vec<String> = failed
            .iter()
            .map(|(operation, exception, count)| {
                format!("{operation} {exception} {}", words::count(*count))
            })
            .collect();
        if !said.is_empty() {
            self.line(&format!("  failed since the start: {}", said.join(", ")));
        }
    }

    fn keys(&mut self) {
        self.title("Keys");
        let counts = self.report.keys.iter().filter(|(_, count)| **count > 0);
        let counts: Vec<String> = counts
            .map(|(state, count)| format!("{} {state}", words::count(*count as u64)))
            .collect();
        if counts.is_empty() {
            self.soft("  there is no key");
        } else {
            self.line(&format!("  {}", counts.join(", ")));
        }
        for key in &self.report.troubled_keys {
            let description = quoted(&key.description);
            self.item(Tone::Bad, &format!("{}{description}", key.arn));
            self.line(&format!("    {}", key.reason));
        }
    }

    fn coming(&mut self) {
        let report = self.report;
        let mut events: Vec<(i64, String)> = Vec::new();
        for one in &report.certificates {
            events.push((one.ends, format!("{}.tls.{} ends", one.listener, one.kind)));
        }
        for one in &report.deletions {
            let description = quoted(&one.description);
            let at = i64::try_from(one.at).unwrap_or(i64::MAX);
            events.push((at, format!("{}{description} is deleted", one.arn)));
        }
        events.sort();
        self.title("What comes");
        if report.deletions_held {
            self.item(
                Tone::Warn,
                "Deletions, and stored keys that were enabled, wait for hsmac store confirm: the store was restored.",
            );
        }
        if report.deletion_alarms > 0 {
            let count = words::plural(report.deletion_alarms as u64, "object");
            self.item(
                Tone::Bad,
                &format!("{count} of deleted keys left alone, not being what they should be: the log says ALARM"),
            );
        }
        if events.is_empty() {
            self.soft("  no deletion, and no end of a certificate");
        }
        let now = i64::try_from(report.at).unwrap_or(i64::MAX);
        for (at, what) in events {
            let tone = match at.saturating_sub(now) {
                ..259_200 => Tone::Bad,
                259_200..1_209_600 => Tone::Warn,
                _ => Tone::Soft,
            };
            let when = words::until(report.at, at);
            self.item(tone, &format!("{when}: {what}"));
        }
    }

    fn refusals(&mut self) {
        let report = self.report;
        if report.refusals.is_empty() {
            return;
        }
        self.title("Who is refused");
        for one in report.refusals.iter().take(MOST) {
            let who = one.caller.as_deref().unwrap_or("unknown");
            let ago = words::ago(report.at, one.at);
            let count = words::plural(one.count, "time");
            self.line(&format!(
                "  {who}  {} ({}) {}, {count}, the last {ago}, request {}",
                one.operation, one.wire, one.exception, one.request_id
            ));
        }
        self.more(report.refusals.len());
    }

    fn throttled(&mut self) {
        let report = self.report;
        if report.throttled.is_empty() {
            return;
        }
        self.title("Who is over their limits");
        for one in report.throttled.iter().take(MOST) {
            let ago = words::ago(report.at, one.at);
            let count = words::plural(one.count, "time");
            let (principal, quota) = (&one.principal, &one.quota);
            self.line(&format!("  {principal}  {quota}, {count}, the last {ago}"));
        }
        self.more(report.throttled.len());
    }

    fn faults(&mut self) {
        let report = self.report;
        self.title("Last faults of ours");
        if report.faults.is_empty() {
            self.soft("  none");
        }
        for one in report.faults.iter().take(MOST) {
            let ago = words::ago(report.at, one.at);
            let exception = self.paint.paint(Tone::Bad, &one.exception);
            let cause = one.cause.as_deref().map(|cause| format!(": {cause}"));
            self.line(&format!(
                "  {ago}  {} ({}) {exception}{}",
                one.operation,
                one.wire,
                cause.unwrap_or_default()
            ));
            self.line(&format!(
                "    request {}. Do: {}",
                one.request_id, one.advice
            ));
        }
        self.more(report.faults.len());
    }

    fn server(&mut self) {
        let report = self.report;
        self.title("Server");
        for one in &report.conditions {
            self.item(
                Tone::Warn,
                &format!("{}: {}. {}", one.name, one.words, one.advice),
            );
        }
        if !report.pending_restart.is_empty() {
            let settings = report.pending_restart.join(", ");
            self.item(
                Tone::Warn,
                &format!("changed, and waiting for a restart: {settings}"),
            );
        }
        for one in &report.connections {
            self.line(&format!(
                "  connections, {}: {} of {}; of unknown callers {} of {}",
                one.wire,
                one.authenticated,
                one.authenticated_limit,
                one.unauthenticated,
                one.unauthenticated_limit
            ));
        }
    }

    fn title(&mut self, title: &str) {
        let title = self.paint.bold(title);
        self.line("");
        self.line(&title);
    }

    fn item(&mut self, tone: Tone, text: &str) {
        let sign = self.paint.paint(tone, tone.sign());
        self.line(&format!("  {sign} {text}"));
    }

    fn soft(&mut self, text: &str) {
        let text = self.paint.paint(Tone::Soft, text);
        self.line(&text);
    }

    fn more(&mut self, all: usize) {
        if all > MOST {
            self.soft(&format!("  and {} more: --output json", all - MOST));
        }
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}");
    }
}

/// How many hosts serve and how busy they are.
pub(super) fn hosts(token: &TokenReport, now: u64) -> String {
    let serving = token.hosts.len();
    let sessions: u64 = token
        .hosts
        .iter()
        .map(|host| u64::from(host.sessions))
        .sum();
    let busy: u64 = token
        .hosts
        .iter()
        .map(|host| u64::from(host.sessions).min(host.jobs as u64))
        .sum();
    let mut text = format!("{serving} of {} hosts serve", token.hosts_configured);
    if token.hosts_starting > 0 {
        let _ = write!(text, ", {} starting", token.hosts_starting);
    }
    let stuck = token.hosts.iter().filter(|host| host.stuck).count();
    if stuck > 0 {
        let _ = write!(text, ", {stuck} stuck");
    }
    let _ = write!(
        text,
        "; {busy} of {} busy",
        words::plural(sessions, "session")
    );
    if let Some(youngest) = token.hosts.iter().map(|host| host.since).max() {
        let _ = write!(text, "; the youngest began {}", words::ago(now, youngest));
    }
    text
}

fn of_group(group: &GroupReport) -> String {
    match &group.tokens[..] {
        [only] if only.name == group.name => String::new(),
        _ => format!(" of {}", group.name),
    }
}

fn quoted(description: &str) -> String {
    if description.is_empty() {
        String::new()
    } else {
        format!(" \"{description}\"")
    }
}

/// Whole seconds between the start of the process, which has fractions, and now.
fn seconds_since(started: f64, now: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds since 1970 are positive, and `as` saturates"
    )]
    let started = started as u64;
    now.saturating_sub(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> StatusReport {
        serde_json::from_str(include_str!("testing.json")).unwrap()
    }

    #[test]
    fn everything_an_operator_needs_is_on_the_page() {
        let plain = page(&report(), Paint { colours: false });
        assert_eq!(
            plain,
            include_str!("testing.txt"),
            "what is shown now:\n{plain}"
        );
    }

    #[test]
    fn colours_add_nothing_but_colours() {
        let plain = page(&report(), Paint { colours: false });
        let coloured = page(&report(), Paint { colours: true });
        assert!(coloured.contains("\u{1b}[31m✖\u{1b}[0m"), "{coloured}");
        let mut without = coloured;
        for code in [0, 1, 2, 31, 32, 33] {
            without = without.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(without, plain);
    }

    #[test]
    fn a_server_that_says_little_is_shown() {
        let said = page(&StatusReport::default(), Paint { colours: false });
        assert!(
            said.contains("there is no key") && said.contains("none is configured"),
            "{said}"
        );
    }
}
