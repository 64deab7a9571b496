//! Whether callers should be sent here: a line for each thing that counts.

use super::observation::Observation;

/// One thing that counts for readiness.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) is_good: bool,
    /// Good enough to be sent callers, and still something to be looked at.
    pub(super) is_warning: bool,
    /// A sentence for people.
    pub(super) reason: String,
}

/// What must be good for callers to be sent here. One of two tokens that is away does not count: the other
/// one serves, and a load balancer that takes the server out would make it worse.
pub(super) fn checks(observation: &Observation) -> Vec<Check> {
    let groups = &observation.overview.groups;
    let tokens = || groups.iter().flat_map(|group| &group.tokens);
    let serving = tokens().filter(|token| token.state.is_serving()).count();
    let reasons: Vec<String> = tokens()
        .filter(|token| !token.state.is_serving())
        .map(|token| format!("{}: {}", token.name, token.state))
        .collect();
    let ending = Check {
        name: "serving",
        is_good: !observation.is_ending,
        is_warning: false,
        reason: if observation.is_ending {
            "hsmac is ending: calls in flight are answered".to_owned()
        } else {
            "listening".to_owned()
        },
    };
    let token = Check {
        name: "token",
        is_good: serving > 0 || tokens().next().is_none(),
        is_warning: false,
        reason: if reasons.is_empty() {
            format!("{serving} of {serving} tokens serve")
        } else {
            let all = serving + reasons.len();
            format!("{serving} of {all} tokens serve; {}", reasons.join("; "))
        },
    };
    // Keys serve from memory: a load balancer that takes the server out would make it worse.
    let store = observation.store_trouble.as_ref().map(|trouble| Check {
        name: "store",
        is_good: true,
        is_warning: true,
        reason: format!("keys serve, but nothing about them can be changed: {trouble}"),
    });
    let audit = observation.audit.as_ref().and_then(|audit| {
        let trouble = audit.trouble.as_ref()?;
        let what = if audit.refuses {
            "refused"
        } else {
            "answered without a record"
        };
        Some(Check {
            name: "audit",
            is_good: !audit.refuses,
            is_warning: !audit.refuses,
            reason: format!("calls are {what}: the audit log cannot be written: {trouble}"),
        })
    });
    [ending, token]
        .into_iter()
        .chain(store)
        .chain(audit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::observation, *};
    use crate::token::State;

    fn said(observation: &Observation) -> Vec<(&'static str, bool, String)> {
        let checks = checks(observation).into_iter();
        checks
            .map(|check| (check.name, check.is_good, check.reason))
            .collect()
    }

    #[test]
    fn one_of_two_tokens_that_is_away_is_told_and_does_not_count() {
        let seen = said(&observation());
        let token = "1 of 2 tokens serve; b: no slot has a token hsmac-b".to_owned();
        assert_eq!(seen[0], ("serving", true, "listening".to_owned()));
        assert_eq!(seen[1], ("token", true, token));
    }

    #[test]
    fn no_token_that_serves_counts() {
        let mut observation = observation();
        for state in [
            State::Starting,
            State::Away("unplugged".to_owned()),
            State::PinRefused("the token refuses the PIN".to_owned()),
            State::Misconfigured("no module".to_owned()),
        ] {
            let reason = format!("0 of 2 tokens serve; a: {state}; b: {state}");
            for token in &mut observation.overview.groups[0].tokens {
                token.state = state.clone();
            }
            assert_eq!(said(&observation)[1], ("token", false, reason));
        }
        let degraded = State::Degraded("one host cannot come up".to_owned());
        observation.overview.groups[0].tokens[0].state = degraded;
        assert!(said(&observation)[1].1);
    }

    #[test]
    fn a_store_that_cannot_be_written_is_told_and_does_not_count() {
        let mut observation = observation();
        assert_eq!(checks(&observation).len(), 2);
        observation.store_trouble = Some("catalogue.db was removed".to_owned());
        let told = checks(&observation).pop().unwrap();
        assert!(told.is_good && told.is_warning);
        let reason = "keys serve, but nothing about them can be changed: catalogue.db was removed";
        assert_eq!((told.name, told.reason.as_str()), ("store", reason));
    }

    #[test]
    fn an_audit_log_that_cannot_be_written_counts_if_calls_are_refused_for_it() {
        let mut observation = observation();
        let audit = observation.audit.as_mut().unwrap();
        audit.trouble = Some("its disk hangs".to_owned());
        let reason = "calls are refused: the audit log cannot be written: its disk hangs";
        let refused = checks(&observation).pop().unwrap();
        assert_eq!(
            (refused.name, refused.is_good, refused.reason.as_str()),
            ("audit", false, reason)
        );
        observation.audit.as_mut().unwrap().refuses = false;
        let answered = checks(&observation).pop().unwrap();
        assert!(answered.is_good && answered.is_warning);
    }

    #[test]
    fn who_is_ending_is_not_ready_and_who_has_no_token_at_all_is() {
        let mut observation = observation();
        observation.is_ending = true;
        assert!(!said(&observation)[0].1);
        observation.overview.groups.clear();
        assert_eq!(
            said(&observation)[1],
            ("token", true, "0 of 0 tokens serve".to_owned())
        );
    }
}
