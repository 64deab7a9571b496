//! Whether tokens serve, for health checks.

use tokio::sync::watch;

use crate::token::State;

/// Whether one token serves, for health checks.
#[derive(Clone, Debug)]
pub struct Serving {
    token: String,
    state: watch::Receiver<State>,
}

impl Serving {
    pub(super) fn new(token: &str, state: watch::Receiver<State>) -> Self {
        Self {
            token: token.to_owned(),
            state,
        }
    }

    /// The token's name in the configuration.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether the token can answer now; [`changed`](Self::changed) tells of what comes after.
    pub fn is_up(&mut self) -> bool {
        self.state.borrow_and_update().is_serving()
    }

    /// Returns when the state has changed, never if nobody is left to change it. May be dropped.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// A token that a test switches on and off.
    #[cfg(test)]
    pub(crate) fn scripted(token: &str) -> (impl Fn(bool) + use<>, Self) {
        let (switch, state) = watch::channel(State::Starting);
        let set = move |up| {
            switch.send_replace(if up {
                State::Up
            } else {
                State::Away("unplugged".into())
            });
        };
        (set, Self::new(token, state))
    }
}
