//! What the log says of a token's state: a line for each change, and one a minute while the token does not serve
//! as it should.

use std::{
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use crate::{
    model::seconds,
    token::{host::member::Member, locks::UNPOISONED, status::State},
};

impl Member {
    /// Said once for each change, not once for each call.
    pub(super) fn change(&self, state: State, serving: usize) {
        let token = &self.settings.name;
        self.state.send_if_modified(|before| {
            if *before == state {
                return false;
            }
            let mut since = self.since.lock().expect(UNPOISONED);
            // A clock that was set back makes it 0.
            let after_s = seconds(since.elapsed().unwrap_or_default());
            let is_another = before.name() != state.name();
            let is_successor = self.is_successor.load(Ordering::SeqCst);
            match &state {
                State::Degraded(_)
                | State::Away(_)
                | State::PinRefused(_)
                | State::Misconfigured(_)
                    if is_successor =>
                {
                    if is_another {
                        self.tell_waiting(&state);
                    }
                }
                State::Up => info!(
                    event = "token_up",
                    token,
                    hosts = serving,
                    hosts_configured = self.settings.hosts,
                    after_s,
                    "the token is up"
                ),
                State::Starting => {}
                State::Degraded(reason) => {
                    warn!(event = "token_degraded", token, %reason, "the token is degraded");
                }
                // What a token says while it is away may be something else each time that it is asked.
                State::Away(reason) if !is_another => {
                    debug!(token, %reason, "the token is away for another reason");
                }
                State::Away(_) | State::PinRefused(_) | State::Misconfigured(_) => {
                    error!(
                        event = "token_unavailable", token, state = state.name(), reason = %state,
                        "the token is unavailable"
                    );
                }
            }
            if is_another {
                *since = SystemTime::now();
            }
            *before = state;
            true
        });
    }

    /// Hosts with other settings do not come up; nothing is worse than before.
    fn tell_waiting(&self, state: &State) {
        warn!(
            event = "token_settings_pending", token = %self.settings.name, reason = %state,
            "hosts with the token's new settings do not come up; those with the settings from before serve on"
        );
    }

    /// Says once a minute that the token still does not serve as it should. Never ends.
    pub(super) async fn remind(&self) {
        let mut state = self.state.subscribe();
        let is_well = |state: &State| matches!(state, State::Up | State::Starting);
        loop {
            // The sender is this token's own: it is there as long as this waits.
            drop(state.wait_for(|state| !is_well(state)).await);
            let began = Instant::now();
            let mut next = began + MINUTE;
            while timeout_at(next, state.wait_for(is_well)).await.is_err() {
                let (token, age_s) = (&self.settings.name, seconds(began.elapsed()));
                let now = state.borrow().clone();
                let (name, reason) = (now.name(), now.to_string());
                if self.is_successor.load(Ordering::SeqCst) {
                    self.tell_waiting(&now);
                } else if now.is_serving() {
                    warn!(
                        event = "token_degraded",
                        token, reason, age_s, "the token is still degraded"
                    );
                } else {
                    error!(
                        event = "token_unavailable",
                        token,
                        state = name,
                        reason,
                        age_s,
                        "the token is still unavailable"
                    );
                }
                next += MINUTE;
            }
        }
    }
}

/// How often the log says that an outage goes on.
const MINUTE: Duration = Duration::from_mins(1);
