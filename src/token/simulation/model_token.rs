//! A model of one token, and of who looks after its PIN: what it holds, whether it is there, and what
//! was asked of it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    ledger::Ledger,
    model_host::ModelHost,
    plan::{Plan, StartFault},
    world::World,
};
use crate::{
    host_ipc::InFlightTable,
    proto::host::{LoginVerdict, PinFlags},
    token::{
        locks::UNPOISONED,
        simulated::{ModelHosts, ModelProcess, PipeEnd, mix},
    },
};

/// So many wrong PINs in a row lock the token.
const TRIES: u32 = 10;
/// A token gets so many other settings in a minute at most.
const RELOADS: usize = 15;
/// What a host has said so long ago the front has heard.
const HEARD: Duration = Duration::from_millis(100);
/// The vendor brings a change to the other tokens within so many milliseconds.
const REPLICATION: u64 = 500;

/// The HSMs: the tokens of one group.
pub(super) struct ModelHsm {
    pub(super) tokens: Vec<Arc<ModelToken>>,
}

impl ModelHosts for ModelHsm {
    fn start(
        &self,
        token: &str,
        generation: u32,
        in_flight: InFlightTable,
    ) -> io::Result<(PipeEnd, ModelProcess)> {
        let token = self.tokens.iter().find(|known| known.name == token);
        let token = token.ok_or(io::ErrorKind::NotFound)?;
        let fault = token.start_fault();
        token.count_start();
        if fault == Some(StartFault::NotSpawned) {
            token
                .world
                .note(format_args!("{} {generation} is not spawned", token.name));
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let (front, host) = PipeEnd::pair(token.plan.room);
        let process = ModelHost::spawn(token, generation, in_flight, host, fault);
        Ok((front, process))
    }
}

/// One token.
pub(super) struct ModelToken {
    pub(super) world: Arc<World>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) plan: Arc<Plan>,
    pub(super) name: String,
    pub(super) pin_file: PathBuf,
    /// hsmac is to be killed now.
    pub(super) kill_front: Arc<Notify>,
    state: Mutex<TokenState>,
}

struct TokenState {
    /// No faults any more.
    calm: bool,
    present: bool,
    /// The secret of each key, by its label.
    objects: BTreeMap<String, u64>,
    right_pin: String,
    wrong_in_a_row: u32,
    tried: BTreeMap<String, Tried>,
    /// A person allowed another try of each PIN, and none has begun since.
    allowed: Option<Instant>,
    written_pins: usize,
    kill_in_login: bool,
    starts: Vec<Instant>,
}

/// What became of the logins with one PIN.
#[derive(Clone, Copy, Default)]
struct Tried {
    /// The token refused it, and said so then.
    refused: Option<Instant>,
    /// Logins of which nobody heard whether the PIN was judged, since the last good one.
    unclear: u32,
}

/// What C_Login returned.
pub(super) enum LoggedIn {
    Yes,
    No(LoginVerdict),
}

impl ModelToken {
    pub(super) fn new(
        world: &Arc<World>,
        ledger: &Arc<Ledger>,
        plan: &Arc<Plan>,
        name: String,
        pin_file: PathBuf,
        kill_front: &Arc<Notify>,
    ) -> Self {
        let state = TokenState {
            calm: false,
            present: true,
            objects: BTreeMap::new(),
            right_pin: "pin-0".into(),
            wrong_in_a_row: 0,
            tried: BTreeMap::new(),
            allowed: None,
            written_pins: 0,
            kill_in_login: false,
            starts: Vec::new(),
        };
        let token = Self {
            world: Arc::clone(world),
            ledger: Arc::clone(ledger),
            plan: Arc::clone(plan),
            name,
            pin_file,
            kill_front: Arc::clone(kill_front),
            state: Mutex::new(state),
        };
        token.write_right_pin();
        token
    }

    /// From here on nothing goes wrong.
    pub(super) fn calm_down(&self) {
        self.with(|state| {
            state.calm = true;
            state.present = true;
            state.kill_in_login = false;
        });
    }

    pub(super) fn is_calm(&self) -> bool {
        self.with(|state| state.calm)
    }

    pub(super) fn is_present(&self) -> bool {
        self.with(|state| state.present)
    }

    /// Goes away, or comes back.
    pub(super) fn set_present(&self, present: bool) {
        let present = self.with(|state| {
            state.present = present || state.calm;
            state.present
        });
        self.world
            .note(format_args!("{} is present: {present}", self.name));
    }

    fn start_fault(&self) -> Option<StartFault> {
        if self.is_calm() {
            return None;
        }
        Plan::fault(&self.world, &self.plan.start_faults)
    }

    /// A bucket that holds a minute's starts and fills in a minute lets two minutes' worth through.
    fn count_start(&self) {
        let now = Instant::now();
        let minute = self.with(|state| {
            state.starts.push(now);
            state
                .starts
                .retain(|start| now - *start < Duration::from_secs(60));
            state.starts.len()
        });
        let budget = self.plan.max_starts_per_minute as usize;
        // Other settings have a budget of their own.
        let budgets = if self.plan.reloads { RELOADS } else { 1 };
        self.world.promise(
            minute <= 2 * budget * budgets,
            format_args!("{minute} starts within a minute with a budget of {budget}"),
        );
    }

    /// hsmac is another process now: nothing is left of what the last one counted.
    pub(super) fn front_killed(&self) {
        let now = Instant::now();
        self.with(|state| {
            state.starts.clear();
            for tried in state.tried.values_mut() {
                // Said, and perhaps not heard.
                if tried.refused.is_some_and(|at| now - at < HEARD) {
                    tried.refused = None;
                    tried.unclear += 1;
                }
            }
        });
    }

    /// `hsmac token unlock` allows a try of each PIN.
    pub(super) fn unlocked(&self) {
        self.with(|state| state.allowed = Some(Instant::now()));
        self.world.note(format_args!("{} is unlocked", self.name));
    }

    pub(super) fn kill_in_login(&self) {
        self.with(|state| state.kill_in_login = true);
    }

    pub(super) fn change_pin(&self) {
        let number = self.world.between(1, 2);
        self.with(|state| state.right_pin = format!("pin-{number}"));
        self.world
            .note(format_args!("{} has the PIN pin-{number}", self.name));
    }

    pub(super) fn write_right_pin(&self) {
        self.write_pin(&self.with(|state| state.right_pin.clone()));
    }

    /// One of a few: hsmac remembers so many that were tried.
    pub(super) fn write_wrong_pin(&self) {
        let number = self.world.between(1, 3);
        self.write_pin(&format!("wrong-{number}"));
    }

    /// Each time with another length: a file that is written twice within one tick of the kernel's clock
    /// must not look the same.
    fn write_pin(&self, pin: &str) {
        let times = self.with(|state| {
            state.written_pins += 1;
            state.written_pins
        });
        fs::write(&self.pin_file, format!("{pin}{}", "\n".repeat(times))).unwrap();
        self.world
            .note(format_args!("the PIN file of {} has {pin}", self.name));
    }

    pub(super) fn flags(&self) -> PinFlags {
        self.with(|state| PinFlags {
            count_low: state.wrong_in_a_row > 0,
            final_try: state.wrong_in_a_row == TRIES - 1,
            locked: state.wrong_in_a_row >= TRIES,
        })
    }

    /// C_Login as the token sees it: it judges the PIN, or does not come to.
    pub(super) async fn log_in(&self, pin: &str, fault: Option<StartFault>) -> LoggedIn {
        let before = self.with(|state| {
            if let Some(at) = state.allowed {
                state.tried.clear();
                // One that hsmac had decided on before is not the one that was allowed.
                state.allowed = Some(at).filter(|at| at.elapsed() < HEARD);
            }
            let tried = state.tried.entry(pin.to_owned()).or_default();
            let before = *tried;
            tried.unclear += 1;
            before
        });
        self.world.promise(
            before.refused.is_none(),
            format_args!("{pin} is tried again at {}, which refused it", self.name),
        );
        self.world.promise(
            before.unclear < 2,
            format_args!("{pin} is tried a third time without a clear answer"),
        );
        self.world.pause(1, 40).await;
        let judges = !matches!(
            fault,
            Some(StartFault::CrashInLogin | StartFault::LoginNotJudged)
        ) && (fault != Some(StartFault::LoginUnclear) || self.world.happens(500));
        let is_right = self.with(|state| {
            let is_right = state.right_pin == pin;
            if judges {
                state.wrong_in_a_row = if is_right {
                    0
                } else {
                    state.wrong_in_a_row + 1
                };
            }
            is_right
        });
        self.world.note(format_args!(
            "{} C_Login with {pin}: judged {judges}, right {is_right}, {fault:?}",
            self.name
        ));
        if self.with(|state| std::mem::take(&mut state.kill_in_login)) {
            self.kill_front.notify_one();
            sleep(HEARD).await;
        }
        match fault {
            Some(StartFault::LoginUnclear) => LoggedIn::No(LoginVerdict::Unclear),
            Some(StartFault::LoginNotJudged) => LoggedIn::No(LoginVerdict::NotJudged),
            _ if is_right => LoggedIn::Yes,
            _ => LoggedIn::No(LoginVerdict::Refused),
        }
    }

    /// A host says what C_Login returned.
    pub(super) fn told(&self, pin: &str, said: &LoggedIn) {
        self.with(|state| {
            let tried = state.tried.entry(pin.to_owned()).or_default();
            match said {
                LoggedIn::Yes => *tried = Tried::default(),
                LoggedIn::No(LoginVerdict::Refused) => tried.refused = Some(Instant::now()),
                LoggedIn::No(LoginVerdict::NotJudged) => {
                    tried.unclear = tried.unclear.saturating_sub(1);
                }
                LoggedIn::No(LoginVerdict::Unclear | LoginVerdict::Unspecified) => {}
            }
        });
    }

    pub(super) fn object(&self, label: &str) -> Option<u64> {
        self.with(|state| state.objects.get(label).copied())
    }

    pub(super) fn labels(&self) -> Vec<String> {
        self.with(|state| state.objects.keys().cloned().collect())
    }

    /// Some object other than this one.
    pub(super) fn another_object(&self, label: &str) -> Option<u64> {
        self.with(|state| {
            let mut others = state.objects.iter().filter(|(other, _)| *other != label);
            others.next().map(|(_, secret)| *secret)
        })
    }

    pub(super) fn put(&self, label: &str, secret: u64) {
        self.with(|state| state.objects.insert(label.to_owned(), secret));
    }

    pub(super) fn remove(&self, label: &str) -> Option<u64> {
        self.with(|state| state.objects.remove(label))
    }

    fn with<T>(&self, look: impl FnOnce(&mut TokenState) -> T) -> T {
        look(&mut self.state.lock().expect(UNPOISONED))
    }
}

/// The vendor brings an object, or its end, to the other tokens of the group.
pub(super) fn replicate(from: &ModelToken, label: &str) {
    let (ledger, world) = (Arc::clone(&from.ledger), Arc::clone(&from.world));
    let (name, label) = (from.name.clone(), label.to_owned());
    tokio::spawn(async move {
        world.pause(0, REPLICATION).await;
        let tokens = ledger.tokens();
        let secret = tokens
            .iter()
            .find(|token| token.name == name)
            .and_then(|token| token.object(&label));
        for other in tokens.iter().filter(|token| token.name != name) {
            match secret {
                Some(secret) => other.put(&label, secret),
                None => {
                    other.remove(&label);
                }
            }
        }
    });
}

/// The check value of a key.
pub(super) fn check_value(secret: u64) -> Bytes {
    mac(secret, b"the message that no client can have signed")
}

/// A MAC, as far as models make one: other with another key or another message.
pub(super) fn mac(secret: u64, message: &[u8]) -> Bytes {
    let mut state = mix(secret);
    for byte in message {
        state = mix(state ^ u64::from(*byte));
    }
    let words = (1..=4).flat_map(|word: u64| mix(state ^ mix(word)).to_be_bytes());
    words.collect::<Vec<u8>>().into()
}
