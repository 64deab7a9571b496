//! What people are told: the sentence that stands above everything, and what to do.

use std::time::UNIX_EPOCH;

use super::{history::Sample, observation::Observation, readiness::Check};
use crate::{error::Kind, token::State};

const DAY: i64 = 86_400;
/// A certificate that ends so soon is somebody's work today.
const SOON: i64 = 14 * DAY;
/// A sample that is older says nothing about now: one is taken every ten seconds.
const FRESH: u64 = 25;
/// What part of all calls may fail or be refused before it is the first thing that is said.
const SHARE: f64 = 0.01;
/// So long a wait or a MAC is felt by every caller, in seconds.
const LONG: f64 = 0.5;

/// Whether all is well, or the worst of what is not.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Headline {
    pub(super) summary: String,
    pub(super) advice: Option<String>,
    /// The part of the page that is about it.
    pub(super) about: Option<&'static str>,
    pub(super) well: bool,
}

impl Headline {
    /// `newest` is the last sample of the last hour.
    pub(super) fn of(now: &Observation, checks: &[Check], newest: Option<&Sample>) -> Self {
        let trouble = unready(now, checks)
            .or_else(|| ill_token(now))
            .or_else(|| calls(now, newest))
            .or_else(|| keys(now))
            .or_else(|| settings(now))
            .or_else(|| held(now))
            .or_else(|| alarms(now))
            .or_else(|| certificates(now))
            .or_else(|| conditions(now));
        if let Some((summary, advice, about)) = trouble {
            return Self {
                summary,
                advice,
                about: Some(about),
                well: false,
            };
        }
        let waits = !now.pending_restart.is_empty();
        let summary = if waits {
            "All is well; changed settings wait for a restart."
        } else {
            "All is well."
        };
        Self {
            summary: summary.to_owned(),
            advice: None,
            about: waits.then_some("server"),
            well: true,
        }
    }
}

/// A sentence, what to do, and where there is more.
type Trouble = Option<(String, Option<String>, &'static str)>;

fn unready(now: &Observation, checks: &[Check]) -> Trouble {
    let bad = checks.iter().find(|check| !check.is_good)?;
    let (advice, about) = if now.is_ending {
        (None, "server")
    } else {
        (
            ill(now).and_then(|(name, state)| of_token(name, state)),
            "tokens",
        )
    };
    Some((
        sentence(&format!("Not ready: {}", bad.reason)),
        advice,
        about,
    ))
}

fn ill_token(now: &Observation) -> Trouble {
    let (name, state) = ill(now)?;
    let summary = match state {
        State::Degraded(_) => format!("The token {name} is {state}"),
        State::Starting => format!("The token {name} is starting"),
        State::Away(_) | State::PinRefused(_) | State::Misconfigured(_) | State::Up => {
            format!("The token {name} does not serve: {state}")
        }
    };
    Some((sentence(&summary), of_token(name, state), "tokens"))
}

/// The first token that is not as it should be; one that does not serve before one that does.
fn ill(now: &Observation) -> Option<(&str, &State)> {
    let tokens = now.overview.groups.iter().flat_map(|group| &group.tokens);
    tokens
        .filter(|token| token.state != State::Up)
        .min_by_key(|token| token.state.is_serving())
        .map(|token| (token.name.as_str(), &token.state))
}

/// One full stop at the end, whether the reason has one or not.
fn sentence(text: &str) -> String {
    format!("{}.", text.trim_end_matches('.'))
}

/// What callers feel although every token serves.
fn calls(now: &Observation, newest: Option<&Sample>) -> Trouble {
    let at = now.at.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let sample = newest.filter(|sample| at.saturating_sub(sample.at) < FRESH)?;
    let all: f64 = sample.rate.iter().sum();
    let is_many = |part: f64| part > SHARE * all;
    let percent = |part: f64| 100.0 * (part / all).min(1.0);
    let slowest = sample.p99[..2].iter().flatten().copied().reduce(f64::max);
    let (summary, advice, about) = if is_many(sample.our_faults) {
        let percent = percent(sample.our_faults);
        (
            format!("{percent:.0} % of all calls fail for a reason of ours."),
            "The last faults say why, and what to do about each.",
            "faults",
        )
    } else if is_many(sample.throttled) {
        let percent = percent(sample.throttled);
        (
            format!("{percent:.0} % of all calls are refused: a queue is full."),
            "The token is slower than before, or somebody calls more: compare its p99, and see who is refused.",
            "refused",
        )
    } else if let Some(wait) = sample.queue_p99.filter(|wait| *wait > LONG) {
        (
            format!("Calls wait for a token: one in a hundred for {wait} s or longer."),
            "The token is slower than before, or there are more calls: compare its p99; then more sessions or hosts.",
            "tokens",
        )
    } else {
        let took = slowest.filter(|took| *took > LONG)?;
        (
            format!("One MAC in a hundred takes {took} s or longer."),
            "Look at the token's p99: if it is high too, ask whoever runs the HSM.",
            "tokens",
        )
    };
    Some((summary, Some(advice.to_owned()), about))
}

fn keys(now: &Observation) -> Trouble {
    let first = now.overview.troubled.first()?;
    let summary = match now.overview.troubled.len() {
        1 => sentence(&format!("One key cannot serve: {}", first.reason)),
        _ => "Several keys cannot serve.".to_owned(),
    };
    let advice =
        "Compare what the configuration says of it with what the token holds: hsmac check.";
    Some((summary, Some(advice.to_owned()), "keys"))
}

fn held(now: &Observation) -> Trouble {
    now.overview.held.then(|| {
        (
            "The store was restored: no stored key serves until somebody confirms it.".to_owned(),
            Some("Look at the keys, stop hsmac, and run hsmac store confirm.".to_owned()),
            "coming",
        )
    })
}

fn alarms(now: &Observation) -> Trouble {
    let summary = match now.overview.deletion_alarms {
        0 => return None,
        1 => "The object of a deleted key is left alone: it is not what it should be.".to_owned(),
        count => {
            format!(
                "The objects of {count} deleted keys are left alone: they are not what they should be."
            )
        }
    };
    let advice = "Find out who replaced it: the log says ALARM, which key, and why.";
    Some((summary, Some(advice.to_owned()), "coming"))
}

/// A token's new settings with which no host comes up.
fn settings(now: &Observation) -> Trouble {
    let mut tokens = now.overview.groups.iter().flat_map(|group| &group.tokens);
    tokens.find_map(|token| match token.pending_settings.as_ref()? {
        State::Starting | State::Up => None,
        state @ (State::Degraded(_)
        | State::Away(_)
        | State::PinRefused(_)
        | State::Misconfigured(_)) => {
            let name = &token.name;
            let summary =
                format!("No host comes up with the new settings of the token {name}: {state}");
            let advice = "The hosts with the settings from before serve on. Mend what the reason names, or take the edit back, and reload.";
            Some((sentence(&summary), Some(advice.to_owned()), "tokens"))
        }
    })
}

fn certificates(now: &Observation) -> Trouble {
    let today = now.at.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let (listener, kind, ends) = now.certificates.iter().min_by_key(|(.., ends)| *ends)?;
    let left = ends - i64::try_from(today).ok()?;
    let what = format!("{listener}.tls.{kind}");
    let summary = match left {
        ..0 => format!("{what} has ended: callers are refused."),
        0..DAY => format!("{what} ends today."),
        DAY..SOON => format!("{what} ends in {} days.", left / DAY),
        SOON.. => return None,
    };
    let advice = "Put a new file in its place; hsmac takes it by itself, or at SIGHUP.";
    Some((summary, Some(advice.to_owned()), "coming"))
}

fn conditions(now: &Observation) -> Trouble {
    let (name, _) = now.conditions.iter().find(|(_, trouble)| *trouble)?;
    let (words, advice) = of_condition(name);
    let mut said = words.to_owned();
    said[..1].make_ascii_uppercase();
    Some((format!("{said}."), Some(advice.to_owned()), "server"))
}

/// What is to be done about a token, by its name in the configuration.
pub(super) fn of_token(name: &str, state: &State) -> Option<String> {
    match state {
        State::Up | State::Starting => None,
        State::Degraded(_) => Some(
            "It serves with fewer hosts. Look at the reason, and at how many sessions the HSM gives."
                .to_owned(),
        ),
        State::Away(_) => Some(format!(
            "If the reason names a file, mend that; else look at the HSM and at the way to it. hsmac asks again by itself; at once with: hsmac token kick {name}"
        )),
        State::PinRefused(_) => Some(format!(
            "Correct the PIN file; nothing is tried before. If it is right: hsmac token unlock {name}"
        )),
        State::Misconfigured(_) => Some("Find out what is to be edited with: hsmac check".to_owned()),
    }
}

/// What a condition of gRPC's health means, and what is to be done about it.
pub(super) fn of_condition(name: &str) -> (&'static str, &'static str) {
    match name {
        "hsmac.reload" => (
            "the configuration could not be reloaded, and the old settings serve",
            "The log says what is wrong; so does hsmac check. Mend it and send SIGHUP.",
        ),
        "hsmac.keys" => (
            "a declared key cannot serve",
            "Compare the configuration with what the token holds: hsmac check.",
        ),
        "hsmac.store" => (
            "the catalogue cannot be written: keys serve, and nothing about them can be changed",
            "/readyz and the log say why: make room on its disk, or bring its file back.",
        ),
        _ if name.starts_with("hsmac.listener.") => (
            "a listener has as many connections as it may have",
            "Find the client that opens so many, or raise max_connections.",
        ),
        _ => ("something is in trouble", "Look at the log."),
    }
}

/// What is to be done about a call that failed for a reason of ours.
pub(super) fn of_fault(kind: Kind) -> &'static str {
    if kind == Kind::KeyUnavailable {
        "Look at the token's state and at the key in trouble; clients retry."
    } else if kind == Kind::DependencyTimeout {
        "The token was too slow, or the queue too long: look at the wait in the queue and at the hosts."
    } else {
        "Find the request ID in the log. If it says nothing, it is a bug of hsmac or of the module."
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{readiness::checks, testing},
        *,
    };

    fn headline(now: &Observation) -> Headline {
        Headline::of(now, &checks(now), None)
    }

    /// Whatever is in trouble, the worst is said first; each cure lets the next one be seen.
    #[test]
    fn the_worst_is_said_first() {
        let mut now = testing::observation();
        let away = now.overview.groups[0].tokens[1].state.clone();
        now.overview.held = true;
        now.certificates[0].2 = 1_700_000_000 + 3 * DAY;
        let mut said = Vec::new();
        now.overview.groups[0].tokens[0].state = away;
        said.push(headline(&now));
        now.overview.groups[0].tokens[0].state = State::Up;
        said.push(headline(&now));
        now.overview.groups[0].tokens[1].state = State::Up;
        said.push(headline(&now));
        now.overview.troubled.clear();
        let wrong = State::Misconfigured("no slot has a token hsmac-c".to_owned());
        now.overview.groups[0].tokens[0].pending_settings = Some(wrong);
        said.push(headline(&now));
        now.overview.groups[0].tokens[0].pending_settings = Some(State::Starting);
        said.push(headline(&now));
        now.overview.held = false;
        now.overview.deletion_alarms = 2;
        said.push(headline(&now));
        now.overview.deletion_alarms = 0;
        said.push(headline(&now));
        now.certificates.clear();
        said.push(headline(&now));
        now.conditions.clear();
        said.push(headline(&now));
        now.pending_restart.clear();
        said.push(headline(&now));
        let shown: Vec<_> = said
            .iter()
            .map(|one| (one.summary.as_str(), one.about, one.well))
            .collect();
        let away = "no slot has a token hsmac-b";
        let unready = format!("Not ready: 0 of 2 tokens serve; a: {away}; b: {away}.");
        assert_eq!(
            shown,
            [
                (unready.as_str(), Some("tokens"), false),
                (
                    "The token b does not serve: no slot has a token hsmac-b.",
                    Some("tokens"),
                    false
                ),
                (
                    "One key cannot serve: the token has no such object.",
                    Some("keys"),
                    false
                ),
                (
                    "No host comes up with the new settings of the token a: no slot has a token hsmac-c.",
                    Some("tokens"),
                    false
                ),
                (
                    "The store was restored: no stored key serves until somebody confirms it.",
                    Some("coming"),
                    false
                ),
                (
                    "The objects of 2 deleted keys are left alone: they are not what they should be.",
                    Some("coming"),
                    false
                ),
                (
                    "grpc.tls.certificate ends in 3 days.",
                    Some("coming"),
                    false
                ),
                (
                    "The configuration could not be reloaded, and the old settings serve.",
                    Some("server"),
                    false
                ),
                (
                    "All is well; changed settings wait for a restart.",
                    Some("server"),
                    true
                ),
                ("All is well.", None, true),
            ]
        );
        assert!(
            said[0]
                .advice
                .as_ref()
                .unwrap()
                .contains("hsmac token kick a")
        );
    }

    /// Every token is up, and callers are not served as they should be.
    #[test]
    fn what_callers_feel_is_said_though_every_token_serves() {
        let mut now = testing::observation();
        now.overview.groups[0].tokens.truncate(1);
        let fine = Sample {
            at: testing::NOW - 9,
            rate: [100.0, 0.0, 0.0],
            p99: [Some(0.002), None, None],
            our_faults: 1.0,
            throttled: 1.0,
            queue_p99: Some(0.5),
            ..Sample::default()
        };
        let said = |sample: &Sample| {
            let headline = Headline::of(&now, &checks(&now), Some(sample));
            (headline.summary, headline.about)
        };
        let (summary, _) = said(&fine);
        assert!(summary.starts_with("One key cannot serve"), "{summary}");
        let mut bad = fine;
        for (change, begins, about) in [
            (
                (|sample| sample.p99[0] = Some(2.0)) as fn(&mut Sample),
                "One MAC in a hundred takes 2 s or longer.",
                "tokens",
            ),
            (
                |sample| sample.queue_p99 = Some(1.0),
                "Calls wait for a token: one in a hundred for 1 s or longer.",
                "tokens",
            ),
            (
                |sample| sample.throttled = 90.0,
                "90 % of all calls are refused: a queue is full.",
                "refused",
            ),
            (
                |sample| sample.our_faults = 2.0,
                "2 % of all calls fail for a reason of ours.",
                "faults",
            ),
        ] {
            change(&mut bad);
            assert_eq!(said(&bad), (begins.to_owned(), Some(about)));
        }
        bad.at = testing::NOW - FRESH;
        assert!(said(&bad).0.starts_with("One key"), "it is of before");
    }

    #[test]
    fn a_certificate_that_has_ended_is_said_so() {
        let mut now = testing::observation();
        for (left, said) in [(-1, "has ended: callers are refused"), (5, "ends today")] {
            now.certificates[0].2 = 1_700_000_000 + left;
            let (summary, ..) = certificates(&now).unwrap();
            assert!(summary.contains(said), "{summary}");
        }
        now.certificates[0].2 = 1_700_000_000 + SOON;
        assert!(certificates(&now).is_none());
    }
}
