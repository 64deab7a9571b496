//! Groups of tokens: how they start, when they have shown whether they can be used, how they end.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::info;

use super::AppError;
use crate::{
    config::Settings,
    kms::DeclaredKey,
    token::{self, Group, HostEnvironment, HostProgram, Logins, State},
};

/// Tokens by the name that keys give: their group's, or their own.
pub(super) type GroupMap = BTreeMap<String, Arc<Group>>;

/// How long a start waits for tokens that do not answer while another one serves.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(2);

/// How long a reload waits for a new token that is to have a key which another one serves now.
const WAIT_FOR_SUCCESSOR: Duration = Duration::from_secs(5);

/// For how long a token that the configuration no longer has is waited for, beyond what a call may take.
const MARGIN: Duration = Duration::from_secs(5);

/// How often it is looked at the end whether hosts that leave have ended.
const LOOK: Duration = Duration::from_millis(20);

/// The groups of tokens, as they come and go.
pub(super) struct Groups {
    environment: HostEnvironment,
    logins: Logins,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    serving: GroupMap,
    /// Those that the configuration no longer has, and whose hosts end.
    leaving: Vec<Arc<Group>>,
}

/// What a reload has made of the groups.
pub(super) struct ChangedGroups {
    pub(super) now: GroupMap,
    /// Those that are gone, and must take no call any more before they [end](Groups::end_gone).
    gone: Vec<Gone>,
}

/// A group that the configuration no longer has, and how long a call of it may take.
type Gone = (Arc<Group>, Duration);

impl Groups {
    /// Starts the tokens.
    pub(super) fn start(settings: &Settings) -> Arc<Self> {
        let environment = environment(settings);
        let logins = Logins::default();
        let start = (&environment, &logins);
        let serving = start_groups(settings, start, token::Settings::group);
        let running = Running {
            serving,
            leaving: Vec::new(),
        };
        Arc::new(Self {
            environment,
            logins,
            running: Mutex::new(running),
        })
    }

    /// The groups at this moment.
    pub(super) fn now(&self) -> GroupMap {
        self.running().serving.clone()
    }

    /// Has the tokens be what the configuration says by now, which `before` said otherwise. Hosts come and go
    /// by themselves; what is gone is the caller's to end.
    pub(super) fn change(&self, settings: &Settings, before: &Settings) -> Option<ChangedGroups> {
        if settings.token == before.token && settings.new_keys == before.new_keys {
            return None;
        }
        let mut wanted = by_group(settings, token::Settings::group);
        let mut running = self.running();
        let gone: Vec<String> = running
            .serving
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .cloned()
            .collect();
        for (name, group) in &running.serving {
            if let Some(tokens) = wanted.remove(name) {
                group.change(tokens);
            }
        }
        for (name, tokens) in wanted {
            for token in &tokens {
                info!(event = "token_added", token = %token.name, group = name, "the configuration has a new token or group: its hosts start");
            }
            let group = Group::start(&name, tokens, &self.environment, &self.logins);
            running.serving.insert(name, group);
        }
        let gone = gone.iter().filter_map(|name| running.serving.remove(name));
        let gone: Vec<Arc<Group>> = gone.collect();
        for (name, _) in gone.iter().flat_map(|group| group.states()) {
            info!(event = "token_removed", token = %name, "the configuration no longer has the token: its hosts end");
        }
        running.leaving.extend(gone.iter().cloned());
        let limits = before.token.values().map(|token| token.slow_timeout);
        let limit = limits.max().unwrap_or_default() + MARGIN;
        Some(ChangedGroups {
            now: running.serving.clone(),
            gone: gone.into_iter().map(|group| (group, limit)).collect(),
        })
    }

    /// Ends the hosts of groups that take no call any more, each once what it is at has ended.
    pub(super) fn end_gone(self: &Arc<Self>, changed: ChangedGroups) {
        for (group, limit) in changed.gone {
            let groups = Arc::clone(self);
            tokio::spawn(async move {
                group.leave(std::time::Instant::now() + limit).await;
                let is_other = |other: &Arc<Group>| !Arc::ptr_eq(other, &group);
                groups.running().leaving.retain(is_other);
            });
        }
    }

    /// Ends the hosts of all groups, `until` then at the latest.
    pub(super) async fn end(&self, until: std::time::Instant) {
        let all: Vec<Arc<Group>> = {
            let running = self.running();
            let serving = running.serving.values();
            serving.chain(&running.leaving).cloned().collect()
        };
        end_all(all, until).await;
        // Those that leave have been on their way to their end before.
        while !self.running().leaving.is_empty() && std::time::Instant::now() < until {
            sleep(LOOK).await;
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().expect("no holder of this lock panics")
    }
}

/// Starts the tokens; those with one name, as `name` gives it, are one group.
pub(super) fn start_groups(
    settings: &Settings,
    (environment, logins): (&HostEnvironment, &Logins),
    name: impl Fn(&token::Settings) -> &str,
) -> GroupMap {
    by_group(settings, name)
        .into_iter()
        .map(|(name, tokens)| {
            let group = Group::start(&name, tokens, environment, logins);
            (name, group)
        })
        .collect()
}

/// What hosts need besides their settings.
pub(super) fn environment(settings: &Settings) -> HostEnvironment {
    HostEnvironment {
        host: HostProgram::Binary(own_binary()),
        state_dir: settings.state_dir.clone(),
    }
}

fn by_group(
    settings: &Settings,
    name: impl Fn(&token::Settings) -> &str,
) -> BTreeMap<String, Vec<token::Settings>> {
    let mut groups: BTreeMap<String, Vec<token::Settings>> = BTreeMap::new();
    for token in settings.token.values() {
        let group = groups.entry(name(token).to_owned()).or_default();
        group.push(token.clone());
    }
    groups
}

/// Waits for tokens that are to have keys which others serve now, so that calls of these need not wait: until
/// one of each group serves or all have failed, and not longer than [`WAIT_FOR_SUCCESSOR`].
pub(super) async fn wait_for_successors(groups: &GroupMap, now: &Settings, before: &Settings) {
    let until = Instant::now() + WAIT_FOR_SUCCESSOR;
    for (name, group) in groups {
        let comes = |key: &DeclaredKey| {
            let mut known = before.key.iter();
            let known = known.find(|known| known.key_id == key.key_id);
            known.is_some_and(|known| group_of(known, before) != group_of(key, now))
        };
        let mut keys = now.key.iter();
        if !keys.any(|key| group_of(key, now) == Some(name) && comes(key)) {
            continue;
        }
        let mut looks = JoinSet::new();
        for (_, state) in group.states() {
            looks.spawn(async move { first_state(state, WAIT_FOR_SUCCESSOR).await.is_serving() });
        }
        while let Ok(Some(look)) = timeout_at(until, looks.join_next()).await {
            if matches!(look, Ok(true)) {
                break;
            }
        }
    }
}

/// The group that a declared key lies in: it may be left out if there is one.
fn group_of<'a>(key: &'a DeclaredKey, settings: &'a Settings) -> Option<&'a str> {
    let only = || settings.token.values().map(token::Settings::group).next();
    key.token.as_deref().or_else(only)
}

/// Waits until every token has started or failed. Once one serves, the others get [`WAIT_FOR_OTHERS`]:
/// a token that hangs must not keep another from serving.
///
/// # Errors
/// [`AppError::Configuration`]: a token is misconfigured.
pub(super) async fn wait_until_settled(
    settings: &Settings,
    groups: &GroupMap,
) -> Result<(), AppError> {
    let mut looks = JoinSet::new();
    for (name, state) in groups.values().flat_map(|group| group.states()) {
        let limit = settings.token.get(&name).map(|token| token.start_timeout);
        let limit = limit.unwrap_or(WAIT_FOR_OTHERS);
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
                return Err(AppError::Configuration(format!("token.{name}: {reason}")));
            }
            Some(Ok((state, _))) if state.is_serving() => {
                until = until.or_else(|| Some(Instant::now() + WAIT_FOR_OTHERS));
            }
            Some(Ok(_) | Err(_)) => {}
            None => return Ok(()),
        }
    }
}

/// The state of a token once it is no longer starting.
pub(super) async fn first_state(mut state: watch::Receiver<State>, limit: Duration) -> State {
    let settled = timeout(limit, state.wait_for(|state| *state != State::Starting)).await;
    match settled {
        Ok(Ok(state)) => state.clone(),
        Ok(Err(_)) | Err(_) => State::Away(format!("it did not start within {limit:?}")),
    }
}

/// Ends the hosts of these groups, `until` then at the latest.
pub(super) async fn end_all(groups: Vec<Arc<Group>>, until: std::time::Instant) {
    let mut ending = JoinSet::new();
    for group in groups {
        ending.spawn(async move { group.end(until).await });
    }
    ending.join_all().await;
}

/// Makes the state folder, if there is none, and sees whether it can be written.
///
/// # Errors
/// [`AppError::Configuration`]: it cannot.
pub fn prepare_state_dir(settings: &Settings) -> Result<(), AppError> {
    let dir = &settings.state_dir;
    let wrong = |error: io::Error| {
        AppError::Configuration(format!(
            "state_dir: {}: {error}; hsmac keeps the marker of a refused PIN there",
            dir.display()
        ))
    };
    make_folder(dir).map_err(wrong)?;
    // Without a marker in this folder a restart would try a refused PIN again.
    let probe = dir.join(format!(".probe.{}", std::process::id()));
    fs::write(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .map_err(wrong)
}

/// Makes a private folder, and those above it. Whoever runs `hsmac check` as root before the service has
/// run leaves nothing that the service cannot use: a folder belongs to the owner of the one above.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or_else(|| Path::new("/"));
    make_folder(above)?;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    match token::foreign_owner(above) {
        Some(owner) => chown(folder, Some(owner), Some(fs::metadata(above)?.gid())),
        None => Ok(()),
    }
}

/// The binary of this process, even if the file at its path has been replaced.
fn own_binary() -> std::path::PathBuf {
    if cfg!(target_os = "linux") {
        return "/proc/self/exe".into();
    }
    std::env::current_exe().unwrap_or_else(|_| "hsmac".into())
}
