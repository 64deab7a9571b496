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

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use tokio::{task::yield_now, time::advance};

    use super::*;
    use crate::token::{
        dispatch::queue::Queue,
        host::pin::Logins,
        settings::{HostEnvironment, HostProgram, Settings},
    };

    /// Keeps the log of this thread.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        /// The lines since the last look, each with its level and what follows the module's name.
        fn news(&self) -> Vec<String> {
            let text = std::mem::take(&mut *self.0.lock().unwrap());
            let text = String::from_utf8(text).unwrap();
            let told = |line: &str| line.trim().replace(&format!("{}: ", module_path!()), "");
            let own = |line: String| line.replace("hsmac::token::host::outage: ", "");
            text.lines().map(told).map(own).collect()
        }
    }

    fn member(is_successor: bool) -> Arc<Member> {
        let uri = "pkcs11:token=a?module-path=/no/module.so";
        let mut settings: Settings =
            serde_json::from_value(serde_json::json!({ "uri": uri })).unwrap();
        settings.name = "a".to_owned();
        let environment = HostEnvironment {
            host: HostProgram::Binary("/bin/true".into()),
            state_dir: "/".into(),
        };
        let queue = Arc::new(Queue::new(9));
        let index = queue.add_member(true);
        let logins = Logins::default();
        let member = Member::new(settings, &environment, queue, index, &logins, None);
        member.is_successor.store(is_successor, Ordering::SeqCst);
        Arc::new(member)
    }

    /// Lets `reminders` run so many seconds, while the token is asked each second and says something else.
    async fn lasts(member: &Member, seconds: u64, log: &Log) -> Vec<(u64, String)> {
        let mut told = Vec::new();
        for second in 1..=seconds {
            advance(Duration::from_secs(1)).await;
            member.change(State::Away(format!("asked {second} times")), 0);
            yield_now().await;
            told.extend(log.news().into_iter().map(|line| (second, line)));
        }
        told
    }

    fn keep_log() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_a_line_when_it_begins_one_a_minute_with_its_age_and_one_when_it_ends() {
        let (log, _kept) = keep_log();
        let member = member(false);
        let reminding = Arc::clone(&member);
        let reminders = tokio::spawn(async move { reminding.remind().await });
        member.change(State::Up, 1);
        yield_now().await;
        assert_eq!(log.news().len(), 1);

        for _ in 0..2 {
            member.change(State::Away("unplugged".into()), 0);
            yield_now().await;
            let begins = log.news();
            assert_eq!(begins.len(), 1, "{begins:?}");
            let begins = &begins[0];
            assert!(
                begins.starts_with("ERROR the token is unavailable"),
                "{begins}"
            );
            assert!(
                begins.contains("unplugged") && !begins.contains("age_s"),
                "{begins}"
            );

            let told = lasts(&member, 630, &log).await;
            let minutes: Vec<u64> = (1..=10).map(|minute| 60 * minute).collect();
            let seconds: Vec<u64> = told.iter().map(|(second, _)| *second).collect();
            assert_eq!(seconds, minutes, "{told:?}");
            for (second, line) in told {
                let words = "ERROR the token is still unavailable";
                assert!(line.starts_with(words), "{line}");
                assert!(line.contains(&format!("age_s={second}.0")), "{line}");
                // What it said last.
                assert!(
                    line.contains("asked ") && line.contains("state=\"away\""),
                    "{line}"
                );
            }

            member.change(State::Up, 1);
            let ends = log.news();
            assert_eq!(ends.len(), 1, "{ends:?}");
            assert!(ends[0].starts_with("INFO the token is up"), "{ends:?}");
            advance(Duration::from_hours(2)).await;
            yield_now().await;
            assert_eq!(log.news(), [""; 0], "it is over");
        }
        reminders.abort();
    }

    /// New settings with which no host comes up are no outage: others serve.
    #[tokio::test(start_paused = true)]
    async fn settings_that_do_not_work_are_told_once_a_minute_and_called_no_outage() {
        let (log, _kept) = keep_log();
        let member = member(true);
        let reminding = Arc::clone(&member);
        let reminders = tokio::spawn(async move { reminding.remind().await });
        member.change(State::Away("unplugged".into()), 0);
        yield_now().await;
        let mut told: Vec<String> = log.news();
        told.extend(
            lasts(&member, 130, &log)
                .await
                .into_iter()
                .map(|(_, line)| line),
        );
        assert_eq!(told.len(), 3, "{told:?}");
        for line in told {
            let words = "WARN hosts with the token's new settings do not come up";
            assert!(line.starts_with(words), "{line}");
        }
        reminders.abort();
    }
}
