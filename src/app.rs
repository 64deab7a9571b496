//! The composition root: builds every part once, and owns the order in which they start and end.
//!
//! Start: listener (a port in use is found before a PIN is tried) → token hosts → operations →
//! front. End: health says NOT_SERVING → no new connection → calls in flight are answered → hosts
//! end; all of it within `drain_timeout`.

use std::{
    collections::BTreeMap, fs, io, os::unix::fs::DirBuilderExt as _, sync::Arc, time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tracing::{error, info, warn};

use crate::{
    config::Settings,
    front,
    kms::{self, Kms},
    token::{self, State, Surroundings, Token},
};

/// What token hosts get of `drain_timeout`: they are asked, and killed after two seconds.
const HOSTS_END: Duration = Duration::from_millis(2500);

/// Why hsmac does not run.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Only an edit of the configuration, or of what it names, cures it.
    #[error("{0}")]
    Configuration(String),
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
    listener: front::Listener,
    tokens: BTreeMap<String, Arc<Token>>,
    kms: Arc<Kms>,
    end: EndSignals,
}

impl App {
    /// Binds the listener and starts the token hosts. Tokens that are away, or that refuse the PIN,
    /// do not hinder the start: health says so, and they are looked for.
    ///
    /// # Errors
    /// [`Fault::Configuration`] for what waiting cannot cure: the address is in use, a file is no
    /// PKCS#11 library, two tokens match.
    pub async fn start(settings: Settings) -> Result<Self, Fault> {
        prepare_state_dir(&settings)?;
        let listener = front::bind(&settings.grpc)
            .map_err(|fault| Fault::Configuration(format!("grpc.listen: {fault}")))?;
        let tokens = start_tokens(&settings);
        let mut end = EndSignals::watch()?;
        let settled = tokio::select! {
            settled = settled(&settings, &tokens) => settled,
            () = end.asked() => Err(Fault::Ended),
        };
        if let Err(fault) = settled {
            end_tokens(&tokens).await;
            return Err(fault);
        }
        let kms = build_kms(&settings, &tokens).map_err(Fault::Configuration)?;
        Ok(Self {
            settings,
            listener,
            tokens,
            kms,
            end,
        })
    }

    /// The operations, for who wants to call them without the network.
    pub fn kms(&self) -> &Arc<Kms> {
        &self.kms
    }

    /// The tokens, by name.
    pub fn tokens(&self) -> &BTreeMap<String, Arc<Token>> {
        &self.tokens
    }

    /// Serves until SIGTERM or SIGINT, then drains.
    ///
    /// # Errors
    /// SIGHUP cannot be watched.
    pub async fn run(self) -> Result<(), Fault> {
        let mut end = self.end;
        let shutdown = async move {
            end.asked().await;
            info!("ending: calls in flight are answered");
            notify(sd_notify::NotifyState::Stopping);
        };
        ignore_hangups()?;

        let (api, health) = front::grpc::Api::new(Arc::clone(&self.kms), &self.settings.grpc).await;
        info!(address = %self.listener.address(), "listening");
        notify(sd_notify::NotifyState::Ready);
        // Health says NOT_SERVING before the listener closes; hosts get the end of the time.
        let drain = self.settings.drain_timeout;
        let grace = drain.saturating_sub(HOSTS_END).max(drain / 2);
        let left = front::serve(self.listener, api, health.follow(shutdown), grace).await;
        if left > 0 {
            warn!(
                connections = left,
                "drain_timeout is over: calls were dropped"
            );
        }
        end_tokens(&self.tokens).await;
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
        let watched = |kind| {
            signal(kind)
                .map_err(|error| Fault::Internal(format!("signals cannot be watched: {error}")))
        };
        Ok(Self {
            terminate: watched(SignalKind::terminate())?,
            interrupt: watched(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits until every token has shown whether it can be used at all.
async fn settled(settings: &Settings, tokens: &BTreeMap<String, Arc<Token>>) -> Result<(), Fault> {
    for (name, token) in tokens {
        let limit = settings.token[name].start_timeout;
        if let State::Misconfigured(reason) = first_state(token, limit).await {
            return Err(Fault::Configuration(format!("token.{name}: {reason}")));
        }
    }
    Ok(())
}

/// What `hsmac check` found out about one token.
pub struct Examination {
    /// The token's name.
    pub token: String,
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
    let tokens = start_tokens(&settings);
    let mut examinations = Vec::new();
    for (name, token) in &tokens {
        let limits = &settings.token[name];
        let state = first_state(token, limits.start_timeout).await;
        let mut keys = Vec::new();
        if state == State::Up {
            let here = settings.key.iter().filter(|key| {
                key.token
                    .as_ref()
                    .map_or(tokens.len() == 1, |at| at == name)
            });
            for declared in here {
                let key = Arc::new(declared.token_key());
                let until = std::time::Instant::now() + limits.slow_timeout;
                keys.push((declared.clone(), token.describe(&key, until).await));
            }
        }
        examinations.push(Examination {
            token: name.clone(),
            state,
            facts: token.facts(),
            keys,
        });
    }
    end_tokens(&tokens).await;
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

fn start_tokens(settings: &Settings) -> BTreeMap<String, Arc<Token>> {
    let surroundings = Surroundings {
        host_binary: own_binary(),
        state_dir: settings.state_dir.clone(),
    };
    let start = |token: &token::Settings| Token::start(token.clone(), surroundings.clone());
    settings
        .token
        .iter()
        .map(|(name, token)| (name.clone(), start(token)))
        .collect()
}

/// The binary that runs, even if the file at its path was replaced meanwhile.
fn own_binary() -> std::path::PathBuf {
    if cfg!(target_os = "linux") {
        return "/proc/self/exe".into();
    }
    std::env::current_exe().unwrap_or_else(|_| "hsmac".into())
}

fn build_kms(
    settings: &Settings,
    tokens: &BTreeMap<String, Arc<Token>>,
) -> Result<Arc<Kms>, String> {
    let settings = kms::Settings {
        account: settings.account.clone(),
        region: settings.region.clone(),
        new_keys: settings.new_keys.clone(),
        keys: settings.key.clone(),
    };
    Kms::new(settings, tokens.clone())
}

/// How a token is once it is no longer starting.
async fn first_state(token: &Token, limit: Duration) -> State {
    let mut state = token.state();
    let settled = timeout(limit, state.wait_for(|state| *state != State::Starting)).await;
    match settled {
        Ok(Ok(state)) => state.clone(),
        Ok(Err(_)) | Err(_) => State::Away(format!("it did not start within {limit:?}")),
    }
}

async fn end_tokens(tokens: &BTreeMap<String, Arc<Token>>) {
    let mut ending = tokio::task::JoinSet::new();
    for token in tokens.values() {
        let token = Arc::clone(token);
        ending.spawn(async move { token.end().await });
    }
    ending.join_all().await;
}

/// SIGHUP must not end a service; what it will reload comes with certificates and policies.
fn ignore_hangups() -> Result<(), Fault> {
    let mut hangups = signal(SignalKind::hangup())
        .map_err(|error| Fault::Internal(format!("signals cannot be watched: {error}")))?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            info!("SIGHUP: this version has nothing to reload");
        }
    });
    Ok(())
}

fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        error!(%error, "systemd cannot be told");
    }
}
