//! How one token is, told from the state of each of its hosts.

use std::time::SystemTime;

use tracing::{error, info, warn};

use crate::{
    model::MacAlgorithm,
    proto::host::Ready,
    token::{
        host::{host_state::HostState, supervisor::Member},
        locks::UNPOISONED,
        status::{Facts, Fault, State, TokenInfo},
    },
};

impl Member {
    /// Sets the state of one host, and with it that of the token.
    pub(super) fn set(&self, place: usize, now: HostState) {
        let mut host_states = self.host_states.lock().expect(UNPOISONED);
        host_states[place] = now;
        let hosts = host_states.len();
        let serving = host_states
            .iter()
            .filter(|place| **place == HostState::Serving);
        let serving = serving.count();
        let coming = host_states.contains(&HostState::Coming);
        let failed = host_states.iter().find_map(|place| match place {
            HostState::Failed(state) => Some(state.clone()),
            HostState::Idle | HostState::Coming | HostState::Serving => None,
        });
        let state = match failed {
            None if serving > 0 => Some(State::Up),
            Some(reason) if serving > 0 => Some(State::Degraded(format!(
                "{serving} of {hosts} hosts serve: {reason}"
            ))),
            Some(down) if !coming => Some(down),
            // A host was lost and its successor is on its way: nothing that callers need to know.
            Some(_) | None => None,
        };
        self.serving.set(serving);
        // Told under the lock, so that two changes are told in their order.
        self.queue
            .set_member_status(self.index, serving > 0, coming);
        if let Some(state) = state {
            self.change(state);
        }
        drop(host_states);
        if serving == 0 && !coming {
            let state = self.state.borrow().to_string();
            let queue = &self.queue;
            queue.refuse(|job| !queue.has_candidate(job), &Fault::Unavailable(state));
        }
    }

    /// Said once for each change, not once for each call.
    fn change(&self, state: State) {
        let token = &self.settings.name;
        self.state.send_if_modified(|before| {
            if *before == state {
                return false;
            }
            match &state {
                State::Up => info!(token, "the token is up"),
                State::Starting => {}
                State::Degraded(reason) => warn!(token, %reason, "the token is degraded"),
                State::Away(_) | State::PinRefused(_) | State::Misconfigured(_) => {
                    error!(token, reason = %state, "the token is unavailable");
                }
            }
            if before.name() != state.name() {
                *self.since.lock().expect(UNPOISONED) = SystemTime::now();
            }
            *before = state;
            true
        });
    }

    pub(super) fn learn(&self, mut warnings: Vec<String>, info: &TokenInfo, ready: &Ready) {
        warnings.extend(ready.warnings.iter().cloned());
        let facts = Facts {
            info: info.clone(),
            module: ready.module.clone(),
            sessions: ready.sessions,
            two_calls: ready.two_calls,
            algorithms: ready
                .digest_bits
                .iter()
                .filter_map(|bits| MacAlgorithm::from_digest_bits(*bits))
                .collect(),
            warnings,
        };
        let before = self.facts.lock().expect(UNPOISONED).replace(facts.clone());
        if before.as_ref() != Some(&facts) {
            for warning in &facts.warnings {
                warn!(token = %self.settings.name, "{warning}");
            }
            info!(
                token = %self.settings.name, module = %facts.module, label = %facts.info.label,
                serial = %facts.info.serial, sessions = facts.sessions, two_calls = facts.two_calls,
                "logged in"
            );
        }
    }
}
