//! Groups of tokens: how they start, when they have shown whether they can be used, how they end.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::AppError;
use crate::{
    config::Settings,
    token::{self, Group, HostEnvironment, HostProgram, State},
};

/// Tokens by the name that keys give: their group's, or their own.
pub(super) type Groups = BTreeMap<String, Arc<Group>>;

/// How long a start waits for tokens that do not answer while another one serves.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(2);

/// Starts the tokens; those with one name, as `name` gives it, are one group.
pub(super) fn start_groups(settings: &Settings, name: impl Fn(&token::Settings) -> &str) -> Groups {
    let environment = HostEnvironment {
        host: HostProgram::Binary(own_binary()),
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
            let group = Group::start(&name, tokens, &environment);
            (name, group)
        })
        .collect()
}

/// Waits until every token has started or failed. Once one serves, the others get [`WAIT_FOR_OTHERS`]:
/// a token that hangs must not keep another from serving.
///
/// # Errors
/// [`AppError::Configuration`]: a token is misconfigured.
pub(super) async fn wait_until_settled(
    settings: &Settings,
    groups: &Groups,
) -> Result<(), AppError> {
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

/// Ends the hosts of all groups, `until` then at the latest.
pub(super) async fn end_groups(groups: &Groups, until: std::time::Instant) {
    let mut ending = JoinSet::new();
    for group in groups.values() {
        let group = Arc::clone(group);
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
