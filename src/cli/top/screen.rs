//! What is on the screen, and in which order.

use std::cmp::{Ordering, Reverse};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, Wrap},
};

use super::{
    super::status::{Tone, words},
    Look,
    rates::{OperationRate, Rates},
};
use crate::admin::{Sample, StatusReport, TokenReport};

/// What the tables are sorted by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Sort {
    /// What needs somebody comes first.
    #[default]
    Worst,
    Name,
    Rate,
    /// By the p99.
    Slow,
    Faults,
}

impl Sort {
    pub(super) fn of_key(letter: char) -> Option<Self> {
        Some(match letter {
            'w' => Self::Worst,
            'n' => Self::Name,
            'r' => Self::Rate,
            'p' => Self::Slow,
            'f' => Self::Faults,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Name => "name",
            Self::Rate => "rate",
            Self::Slow => "p99",
            Self::Faults => "faults",
        }
    }
}

/// The last look, what it tells together with the one before, and how it is sorted.
#[derive(Debug, Default)]
pub(super) struct Screen {
    report: StatusReport,
    rates: Rates,
    /// Why there was nothing to see at the last look.
    silence: Option<String>,
    pub(super) sort: Sort,
}

impl Screen {
    pub(super) fn take(&mut self, look: Look) {
        match look {
            Ok(report) => {
                // Looks within one second have no rate between them.
                if report.at != self.report.at {
                    self.rates = Rates::between(Some(&self.report), &report);
                    self.report = *report;
                }
                self.silence = None;
            }
            Err(fault) => self.silence = Some(fault),
        }
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let tokens = u16::try_from(self.tokens().len()).unwrap_or(u16::MAX);
        let area = frame.area();
        let [head, plots, tokens, operations, trouble, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(if area.height < 24 { 0 } else { 6 }),
            Constraint::Length(tokens.saturating_add(2).min(area.height / 3)),
            Constraint::Min(3),
            Constraint::Length(self.trouble().len().min(8).try_into().unwrap_or(8)),
            Constraint::Length(1),
        ])
        .areas(area);
        self.draw_head(frame, head);
        self.draw_plots(frame, plots);
        self.draw_tokens(frame, tokens);
        self.draw_operations(frame, operations);
        frame.render_widget(Paragraph::new(self.trouble()), trouble);
        let keys = format!(
            "q quit   sort: w worst  n name  r rate  p p99  f faults   now by {}",
            self.sort.name()
        );
        frame.render_widget(Paragraph::new(keys).style(soft()), foot);
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect) {
        let report = &self.report;
        let (tone, sentence) = match &self.silence {
            Some(fault) => {
                let first = fault.lines().next().unwrap_or_default();
                let told = first.trim_start_matches("hsmac: ");
                (Tone::Bad, format!("What is below is old: {told}"))
            }
            None => {
                let tone = match (report.ready, report.well) {
                    (false, _) => Tone::Bad,
                    (true, false) => Tone::Warn,
                    (true, true) => Tone::Good,
                };
                (tone, report.summary.clone())
            }
        };
        let mut lines = vec![Line::from(vec![
            Span::styled(format!("{} ", tone.sign()), style(tone)),
            Span::styled(sentence, Style::new().add_modifier(Modifier::BOLD)),
        ])];
        if let Some(advice) = &report.advice {
            lines.push(Line::from(format!("  Do: {advice}")));
        }
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
    }

    /// The last hour, as wide as it fits.
    fn draw_plots(&self, frame: &mut Frame<'_>, area: Rect) {
        let samples = &self.report.history;
        let last = samples.last();
        let sum = |sample: &Sample| sample.rate.iter().sum::<f64>();
        let slowest = |sample: &Sample| sample.p99.iter().flatten().copied().reduce(f64::max);
        let micros = |seconds: Option<f64>| seconds.map_or(0, |seconds| whole(seconds * 1e6));
        let hour = |of: &dyn Fn(&Sample) -> u64| by_age(samples, self.report.at, of);
        let plots: [(&str, String, Vec<u64>); 3] = [
            (
                "calls",
                last.map_or_else(|| "–".to_owned(), |sample| words::rate(sum(sample))),
                hour(&|sample| whole(sum(sample))),
            ),
            (
                "p99",
                words::took(last.and_then(slowest)),
                hour(&|sample| micros(slowest(sample))),
            ),
            (
                "faults of ours",
                last.map_or_else(|| "–".to_owned(), |sample| words::rate(sample.our_faults)),
                hour(&|sample| whole(sample.our_faults * 1000.0)),
            ),
        ];
        let places = Layout::horizontal([Constraint::Ratio(1, 3); 3]).split(area);
        for ((name, now, values), place) in plots.into_iter().zip(places.iter()) {
            let block = Block::default()
                .borders(Borders::TOP)
                .title(format!(" {name} {now}, last hour "));
            let width = usize::from(place.width.saturating_sub(1).max(1));
            let values = squeezed(&values, width);
            let line = Sparkline::default()
                .block(block)
                .data(&values)
                .style(Style::new().fg(Color::Cyan));
            let padded = Rect {
                width: place.width.saturating_sub(1),
                ..*place
            };
            frame.render_widget(line, padded);
        }
    }

    fn draw_tokens(&self, frame: &mut Frame<'_>, area: Rect) {
        let now = self.report.at;
        // A narrow terminal has room for what matters.
        let is_narrow = area.width < 100;
        let shown = |column: usize| !(is_narrow && matches!(column, 4 | 7));
        let rows = self.tokens().into_iter().map(|token| {
            let tone = Tone::of_state(&token.state);
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
            let reason = if tone == Tone::Good {
                token.last_fault.as_ref().map_or_else(String::new, |fault| {
                    let ago = words::ago(now, fault.at);
                    format!("{} {} {ago}", fault.function, fault.code)
                })
            } else {
                token.reason.clone()
            };
            let cells = vec![
                Cell::from(token.name.clone()),
                Cell::from(format!("{} {}", tone.sign(), token.state.replace('_', " ")))
                    .style(style(tone)),
                Cell::from(words::span(now.saturating_sub(token.since))),
                Cell::from(format!("{}/{}", token.hosts.len(), token.hosts_configured)),
                Cell::from(format!("{busy}/{sessions}")),
                Cell::from(rate(self.rates.macs.get(&token.name).copied())),
                Cell::from(words::took(token.mac_p99)),
                Cell::from(words::count(token.faults)),
                Cell::from(reason),
            ];
            Row::new(kept(cells, shown))
        });
        let widths = [
            Constraint::Min(8),
            Constraint::Length(15),
            Constraint::Length(8),
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Fill(4),
        ];
        let head = [
            "TOKEN",
            "STATE",
            "FOR",
            "HOSTS",
            "SESSIONS",
            "MACS",
            "P99",
            "FAULTS",
            "WHY, OR LAST FAULT",
        ];
        let (widths, head) = (kept(widths, shown), kept(head, shown));
        frame.render_widget(Table::new(rows, widths).header(header(&head)), area);
    }

    fn draw_operations(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.operations().into_iter().map(|one| {
            let failing = one.failed.is_some_and(|failed| failed > 0.0);
            let tone = if failing {
                style(Tone::Bad)
            } else {
                Style::new()
            };
            Row::new(vec![
                Cell::from(one.name.clone()),
                Cell::from(one.wire.clone()),
                Cell::from(rate(one.rate)),
                Cell::from(words::took(self.p99(&one.name))),
                Cell::from(rate(one.failed)).style(tone),
                Cell::from(words::count(one.count)),
                Cell::from(words::count(one.failures)),
            ])
        });
        let widths = [
            Constraint::Max(26),
            Constraint::Length(5),
            Constraint::Length(10),
            Constraint::Length(7),
            Constraint::Length(10),
            Constraint::Length(15),
            Constraint::Min(10),
        ];
        let head = [
            "OPERATION",
            "API",
            "CALLS",
            "P99",
            "FAILED",
            "SINCE START",
            "FAILED",
        ];
        frame.render_widget(Table::new(rows, widths).header(header(&head)), area);
    }

    /// The p99 of the last ten seconds; operations other than those of MACs share one.
    fn p99(&self, operation: &str) -> Option<f64> {
        let sample = self.report.history.last()?;
        let class = match operation {
            "GenerateMac" => 0,
            "VerifyMac" => 1,
            _ => 2,
        };
        sample.p99[class]
    }

    fn tokens(&self) -> Vec<&TokenReport> {
        let groups = self.report.groups.iter();
        let mut tokens: Vec<&TokenReport> = groups.flat_map(|group| &group.tokens).collect();
        let macs = |token: &TokenReport| self.rates.macs.get(&token.name).copied();
        let badness = |token: &TokenReport| match Tone::of_state(&token.state) {
            Tone::Bad => 0,
            Tone::Warn => 1,
            Tone::Good | Tone::Soft => 2,
        };
        tokens.sort_by(|one, other| {
            match self.sort {
                Sort::Worst => badness(one).cmp(&badness(other)),
                Sort::Name => Ordering::Equal,
                Sort::Rate => most(macs(one), macs(other)),
                Sort::Slow => most(one.mac_p99, other.mac_p99),
                Sort::Faults => Reverse(one.faults).cmp(&Reverse(other.faults)),
            }
            .then_with(|| one.name.cmp(&other.name))
        });
        tokens
    }

    fn operations(&self) -> Vec<&OperationRate> {
        let mut operations: Vec<&OperationRate> = self.rates.operations.iter().collect();
        operations.sort_by(|one, other| {
            match self.sort {
                Sort::Worst => {
                    most(one.failed, other.failed).then_with(|| most(one.rate, other.rate))
                }
                Sort::Name => Ordering::Equal,
                Sort::Rate => most(one.rate, other.rate),
                Sort::Slow => most(self.p99(&one.name), self.p99(&other.name)),
                Sort::Faults => Reverse(one.failures).cmp(&Reverse(other.failures)),
            }
            .then_with(|| (&one.name, &one.wire).cmp(&(&other.name, &other.wire)))
        });
        operations
    }

    /// Keys in trouble and the last calls that failed, a line each.
    fn trouble(&self) -> Vec<Line<'static>> {
        let report = &self.report;
        let mut lines = Vec::new();
        for key in report.troubled_keys.iter().take(3) {
            lines.push(marked(Tone::Bad, format!("{}: {}", key.arn, key.reason)));
        }
        for one in &report.conditions {
            lines.push(marked(Tone::Warn, format!("{}: {}", one.name, one.words)));
        }
        for fault in report.faults.iter().take(4) {
            let ago = words::ago(report.at, fault.at);
            let cause = fault.cause.as_deref().unwrap_or("the log says more");
            lines.push(marked(
                Tone::Bad,
                format!("{ago}: {} {}: {cause}", fault.operation, fault.exception),
            ));
        }
        lines
    }
}

fn marked(tone: Tone, text: String) -> Line<'static> {
    let sign = Span::styled(format!("{} ", tone.sign()), style(tone));
    Line::from(vec![sign, Span::raw(text)])
}

fn header(names: &[&'static str]) -> Row<'static> {
    let style = soft().add_modifier(Modifier::BOLD);
    Row::new(names.iter().map(|name| Cell::from(*name))).style(style)
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "–".to_owned(), words::rate)
}

/// What stands in the columns that are shown.
fn kept<T>(columns: impl IntoIterator<Item = T>, shown: impl Fn(usize) -> bool) -> Vec<T> {
    let numbered = columns.into_iter().enumerate();
    let kept = numbered.filter(|(column, _)| shown(*column));
    kept.map(|(_, value)| value).collect()
}

/// The larger first; none comes last.
fn most(one: Option<f64>, other: Option<f64>) -> Ordering {
    let or_none = |value: Option<f64>| value.unwrap_or(-1.0);
    or_none(other).total_cmp(&or_none(one))
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Warn => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
        Tone::Soft => soft(),
    }
}

fn soft() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is drawn is positive, and `as` saturates"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// The last hour, ten seconds each, the newest last; 0 where nothing is known.
fn by_age(samples: &[Sample], now: u64, of: &dyn Fn(&Sample) -> u64) -> Vec<u64> {
    let mut values = vec![0; 360];
    for sample in samples {
        let age = usize::try_from(now.saturating_sub(sample.at) / 10).unwrap_or(usize::MAX);
        if let Some(place) = 359_usize.checked_sub(age) {
            values[place] = of(sample);
        }
    }
    values
}

/// All values in at most so many: each stands for those beside it, the largest of them.
fn squeezed(values: &[u64], width: usize) -> Vec<u64> {
    let together = values.len().div_ceil(width).max(1);
    let squeezed = values.chunks(together);
    squeezed
        .map(|chunk| chunk.iter().copied().max().unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn report() -> StatusReport {
        serde_json::from_str(include_str!("../status/testing.json")).unwrap()
    }

    /// A second look, two seconds after the first.
    fn screen() -> Screen {
        let mut screen = Screen::default();
        screen.take(Ok(Box::new(report())));
        let mut now = report();
        now.at += 2;
        now.calls[0].count += 2469;
        now.calls[2].count += 3;
        now.groups[0].tokens[0].macs += 2469;
        screen.take(Ok(Box::new(now)));
        screen
    }

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(usize::from(width));
        let mut text = String::new();
        for line in lines {
            let line: String = line.iter().map(|cell| cell.symbol()).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        let seen = drawn(&screen(), 130, 34);
        assert_eq!(seen, include_str!("wide.txt"), "what is shown now:\n{seen}");
    }

    #[test]
    fn a_small_terminal_shows_what_matters() {
        let seen = drawn(&screen(), 80, 20);
        assert_eq!(
            seen,
            include_str!("small.txt"),
            "what is shown now:\n{seen}"
        );
        // However small it is, nothing breaks.
        for (width, height) in [(1, 1), (10, 3), (200, 2), (5, 60)] {
            drawn(&screen(), width, height);
            drawn(&Screen::default(), width, height);
        }
    }

    #[test]
    fn each_key_sorts_both_tables() {
        let mut screen = screen();
        let order = |screen: &Screen| -> (Vec<String>, String) {
            let tokens = screen.tokens().into_iter().map(|token| token.name.clone());
            (tokens.collect(), screen.operations()[0].name.clone())
        };
        let names = |names: [&str; 3]| names.map(str::to_owned).to_vec();
        for (sort, tokens, operation) in [
            (Sort::Worst, ["solo", "west", "east"], "GenerateMac"),
            (Sort::Name, ["east", "solo", "west"], "DescribeKey"),
            (Sort::Rate, ["east", "solo", "west"], "GenerateMac"),
            (Sort::Slow, ["east", "solo", "west"], "GenerateMac"),
            (Sort::Faults, ["east", "solo", "west"], "GenerateMac"),
        ] {
            screen.sort = sort;
            assert_eq!(
                order(&screen),
                (names(tokens), operation.to_owned()),
                "{sort:?}"
            );
        }
    }

    #[test]
    fn a_server_that_falls_silent_leaves_what_was_seen_and_is_told_of() {
        let mut screen = screen();
        let silence = "hsmac: hsmac is not running: it has left /run/hsmac/admin.sock behind\nlog";
        screen.take(Err(silence.to_owned()));
        let seen = drawn(&screen, 130, 34);
        assert!(
            seen.starts_with("✖ What is below is old: hsmac is not running"),
            "{seen}"
        );
        assert!(seen.contains("east"), "{seen}");
        let mut back = report();
        back.at += 60;
        screen.take(Ok(Box::new(back)));
        assert!(!drawn(&screen, 130, 34).contains("is old"));
    }
}
