//! The composition root: builds every part once, and owns the order in which they start and end.
//!
//! Start: listeners and store (a port or a file in use is found before a PIN is tried) → token hosts
//! → operations → front. End: health says NOT_SERVING → no new connection → calls in flight are
//! answered → hosts end → the store closes; all of it within `drain_timeout`.

mod reload;
mod simulator;
mod wires;

use std::{
    collections::BTreeMap, fs, io, os::unix::fs::DirBuilderExt as _, sync::Arc, time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, info, warn};

pub use self::simulator::simulator;
use self::{
    reload::{Marks, Reload},
    wires::{Access, Apis, Gates, Wires},
};
use crate::{
    config::Settings,
    front,
    kms::{self, Kms},
    store::{self, Store},
    token::{self, Group, State, Surroundings},
};

/// What token hosts get of `drain_timeout`: they are asked, and killed after two seconds.
const HOSTS_END: Duration = Duration::from_millis(2500);

/// Tokens by the name that keys give: their group's, or their own.
type Groups = BTreeMap<String, Arc<Group>>;

/// How long a start waits for tokens that do not answer when another one serves.
const OTHERS: Duration = Duration::from_secs(2);

/// Why hsmac does not run.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Only an edit of the configuration, or of what it names, cures it.
    #[error("{0}")]
    Configuration(String),
    /// Something that hsmac cannot start without is away; it may come back.
    #[error("{0}")]
    Away(String),
    /// A bug, or a system that is out of resources.
    #[error("{0}")]
    Internal(String),
    /// The end was asked for before anything served; no fault.
    #[error("ended before it served")]
    Ended,
}

/// A bridge that is ready to serve.
pub struct App {
    settings: Settings,
    /// How the files were before anything was read from them.
    marks: Marks,
    gates: Gates,
    wires: Wires,
    groups: Groups,
    store: Option<Store>,
    kms: Arc<Kms>,
    end: EndSignals,
}

impl App {
    /// Binds the listeners and starts the token hosts. Tokens that are away, or that refuse the PIN,
    /// do not hinder the start: health says so, and they are looked for.
    ///
    /// # Errors
    /// [`Fault::Configuration`] for what waiting cannot cure: the address is in use, a file is no
    /// PKCS#11 library, two tokens match, the store is damaged. [`Fault::Away`]: the store's disk
    /// refuses.
    pub async fn start(settings: Settings) -> Result<Self, Fault> {
        prepare_state_dir(&settings)?;
        let marks = Marks::of(&settings);
        let Access { gates, rights } = Access::read(&settings).map_err(Fault::Configuration)?;
        let wires = Wires::bind(&settings)?;
        let store = settings.store.as_ref().map(Store::open).transpose()?;
        let groups = start_groups(&settings, token::Settings::group);
        let mut end = EndSignals::watch()?;
        let settled = tokio::select! {
            settled = settled(&settings, &groups) => settled,
            () = end.asked() => Err(Fault::Ended),
        };
        let kms = match settled {
            Ok(()) => build_kms(&settings, &groups, store.clone()).await,
            Err(fault) => Err(fault),
        };
        let kms = match kms {
            Ok(kms) => kms,
            Err(fault) => {
                end_groups(&groups).await;
                close(store).await;
                return Err(fault);
            }
        };
        kms.declare(rights);
        Ok(Self {
            settings,
            marks,
            gates,
            wires,
            groups,
            store,
            kms,
            end,
        })
    }

    /// The operations, for who wants to call them without the network.
    pub fn kms(&self) -> &Arc<Kms> {
        &self.kms
    }

    /// Where the listener for AWS's clients is, if there is one.
    pub fn aws_address(&self) -> Option<String> {
        self.wires.aws.as_ref().map(front::Listener::address)
    }

    /// How each token is, by its name.
    pub fn states(&self) -> impl Iterator<Item = (&str, State)> {
        let states = self.groups.values().flat_map(|group| group.states());
        states.map(|(name, state)| (name, state.borrow().clone()))
    }

    /// Serves until SIGTERM or SIGINT, then drains.
    ///
    /// # Errors
    /// SIGHUP cannot be watched.
    pub async fn run(self) -> Result<(), Fault> {
        let mut end = self.end;
        let (ending, ended) = watch::channel(false);
        let shutdown = async move {
            end.asked().await;
            info!("ending: calls in flight are answered");
            notify(&[sd_notify::NotifyState::Stopping]);
            ending.send_replace(true);
        };
        // From now on a hangup does not end hsmac.
        let hangups = signal(SignalKind::hangup()).map_err(unwatched)?;
        let (apis, health) = Apis::new(&self.kms, &self.settings, self.gates).await;
        let apis = Arc::new(apis);
        info!(address = %self.wires.grpc.address(), "listening");
        // Hosts get the end of the time.
        let drain = self.settings.drain_timeout;
        let grace = drain.saturating_sub(HOSTS_END).max(drain / 2);
        let aws = apis.serve_aws(self.wires.aws, ended, grace);
        // Health says NOT_SERVING before a listener closes.
        let grpc = front::serve(
            self.wires.grpc,
            apis.grpc.clone(),
            health.follow(shutdown),
            grace,
        );
        let reload = Reload::new(apis.clone(), self.settings, self.marks);
        let reload = tokio::spawn(reload.run(hangups));
        notify(&[sd_notify::NotifyState::Ready]);
        let (of_grpc, of_aws) = tokio::join!(grpc, aws);
        reload.abort();
        let left = of_grpc + of_aws;
        if left > 0 {
            warn!(
                connections = left,
                "drain_timeout is over: calls were dropped"
            );
        }
        end_groups(&self.groups).await;
        self.kms.end().await;
        close(self.store).await;
        info!("ended");
        Ok(())
    }
}

/// SIGTERM and SIGINT.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// From now on these signals end hsmac in order, not at once.
    fn watch() -> Result<Self, Fault> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(unwatched)?,
            interrupt: signal(SignalKind::interrupt()).map_err(unwatched)?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits until every token has shown whether it can be used at all; for those beside one that serves
/// already not long, since a token that hangs must not keep its twin from serving.
async fn settled(settings: &Settings, groups: &Groups) -> Result<(), Fault> {
    let mut looks = JoinSet::new();
    for (name, state) in groups.values().flat_map(|group| group.states()) {
        let (name, limit) = (name.to_owned(), settings.token[name].start_timeout);
        looks.spawn(async move { (first_state(state, limit).await, name) });
    }
    let mut until = None;
    loop {
        let look = looks.join_next();
        let looked = match until {
            None => look.await,
            Some(until) => timeout_at(until, look).await.unwrap_or(None),
        };
        match looked {
            Some(Ok((State::Misconfigured(reason), name))) => {
                return Err(Fault::Configuration(format!("token.{name}: {reason}")));
            }
            Some(Ok((state, _))) if state.is_serving() => {
                until = until.or_else(|| Some(Instant::now() + OTHERS));
            }
            Some(Ok(_) | Err(_)) => {}
            None => return Ok(()),
        }
    }
}

/// What `hsmac check` found out about one token.
pub struct Examination {
    /// The token's name.
    pub token: String,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// How it is.
    pub state: State,
    /// What it said when a host logged in.
    pub facts: Option<token::Facts>,
    /// Each declared key with what the token says of it, or why it cannot serve.
    pub keys: Vec<(kms::DeclaredKey, Result<token::KeyFacts, token::Fault>)>,
}

/// Loads, logs in once, and makes a MAC with each declared key.
///
/// # Errors
/// The state folder cannot be made.
pub async fn examine(mut settings: Settings) -> Result<Vec<Examination>, Fault> {
    prepare_state_dir(&settings)?;
    for token in settings.token.values_mut() {
        token.hosts = 1;
    }
    // Each token by itself: what one of a group lacks no other may answer for.
    let groups = start_groups(&settings, |token| &token.name);
    let mut examinations = Vec::new();
    for (name, group) in &groups {
        let limits = &settings.token[name];
        let (_, state) = group.states().next().expect("a group has a token");
        let state = first_state(state, limits.start_timeout).await;
        let mut keys = Vec::new();
        if state.is_serving() {
            let here = settings.key.iter().filter(|key| {
                key.token
                    .as_ref()
                    .is_none_or(|token| token == limits.group())
            });
            for declared in here {
                let key = Arc::new(declared.token_key());
                let until = std::time::Instant::now() + limits.slow_timeout;
                keys.push((declared.clone(), group.describe(&key, until).await));
            }
        }
        examinations.push(Examination {
            token: name.clone(),
            group: limits.group.clone(),
            state,
            facts: group.facts(),
            keys,
        });
    }
    end_groups(&groups).await;
    Ok(examinations)
}

fn prepare_state_dir(settings: &Settings) -> Result<(), Fault> {
    let dir = &settings.state_dir;
    let wrong = |error: io::Error| {
        Fault::Configuration(format!(
            "state_dir: {}: {error}; hsmac keeps the marker of a refused PIN there",
            dir.display()
        ))
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(wrong)?;
    // A folder that cannot be written would let a restart try a refused PIN again.
    let probe = dir.join(format!(".probe.{}", std::process::id()));
    fs::write(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .map_err(wrong)
}

/// Starts the tokens, those under one name as one group.
fn start_groups(settings: &Settings, name: impl Fn(&token::Settings) -> &str) -> Groups {
    let surroundings = Surroundings {
        host_binary: own_binary(),
        state_dir: settings.state_dir.clone(),
    };
    let mut groups: BTreeMap<String, Vec<token::Settings>> = BTreeMap::new();
    for token in settings.token.values() {
        let group = groups.entry(name(token).to_owned()).or_default();
        group.push(token.clone());
    }
    groups
        .into_iter()
        .map(|(name, tokens)| {
            let group = Group::start(&name, tokens, &surroundings);
            (name, group)
        })
        .collect()
}

/// The binary that runs, even if the file at its path was replaced meanwhile.
fn own_binary() -> std::path::PathBuf {
    if cfg!(target_os = "linux") {
        return "/proc/self/exe".into();
    }
    std::env::current_exe().unwrap_or_else(|_| "hsmac".into())
}

async fn close(store: Option<Store>) {
    if let Some(store) = store {
        store.close().await;
    }
}

async fn build_kms(
    settings: &Settings,
    groups: &Groups,
    store: Option<Store>,
) -> Result<Arc<Kms>, Fault> {
    let settings = kms::Settings {
        account: settings.account.clone(),
        region: settings.region.clone(),
        new_keys: settings.new_keys.clone(),
        keys: settings.key.clone(),
        // They come with the other rights, which can be read again.
        principals: Vec::new(),
    };
    match store {
        None => Kms::new(settings, groups.clone()).map_err(Fault::Configuration),
        Some(store) => Ok(Kms::open(settings, groups.clone(), store).await?),
    }
}

impl From<store::OpenFault> for Fault {
    fn from(fault: store::OpenFault) -> Self {
        match fault {
            store::OpenFault::Configuration(text) => Self::Configuration(text),
            store::OpenFault::Away(text) => Self::Away(text),
        }
    }
}

impl From<kms::OpenFault> for Fault {
    fn from(fault: kms::OpenFault) -> Self {
        match fault {
            kms::OpenFault::Contradiction(text) => Self::Configuration(text),
            kms::OpenFault::Store(store::Fault::Damaged(text)) => Self::Configuration(text),
            kms::OpenFault::Store(fault) => Self::Away(fault.to_string()),
        }
    }
}

/// How a token is once it is no longer starting.
async fn first_state(mut state: watch::Receiver<State>, limit: Duration) -> State {
    let settled = timeout(limit, state.wait_for(|state| *state != State::Starting)).await;
    match settled {
        Ok(Ok(state)) => state.clone(),
        Ok(Err(_)) | Err(_) => State::Away(format!("it did not start within {limit:?}")),
    }
}

async fn end_groups(groups: &Groups) {
    let mut ending = JoinSet::new();
    for group in groups.values() {
        let group = Arc::clone(group);
        ending.spawn(async move { group.end().await });
    }
    ending.join_all().await;
}

fn unwatched(error: io::Error) -> Fault {
    Fault::Internal(format!("signals cannot be watched: {error}"))
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        error!(%error, "systemd cannot be told");
    }
}
