//! Asks a token about the seals of an audit log, with a host of its own.

use std::time::{Duration, Instant};

use super::{
    AppError,
    groups::{end_all, environment, first_state, prepare_state_dir, start_groups},
    sealer::token_key,
};
use crate::{
    audit::SealedCheckpoint,
    config::Settings,
    model::{Checkpoint, Extension},
    token::{self, Fault, Logins, Sealed},
};

/// What a token says of a log's seals.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealExamination {
    /// Whether the log's newest seal was made with the token's key; none: the log has none.
    pub is_genuine: Option<bool>,
    /// What this machine's hosts remember to have sealed of the log; size 0: nothing.
    pub remembered: Checkpoint,
}

/// Asks the token whose key seals the audit log about a log of this name, and about its newest seal.
///
/// # Errors
/// [`AppError::Configuration`]: the log is not to be sealed, or the settings are wrong. [`AppError::Away`]: the token, or
/// its key.
pub async fn examine_seals(
    mut settings: Settings,
    origin: &str,
    newest: Option<SealedCheckpoint>,
) -> Result<SealExamination, AppError> {
    prepare_state_dir(&settings)?;
    let key = settings.seal_key();
    let key = key
        .map_err(|(setting, fault)| AppError::Configuration(format!("audit.{setting}: {fault}")))?
        .ok_or_else(|| {
            AppError::Configuration("audit.seals is false: nothing was sealed".into())
        })?;
    settings.token.retain(|_, token| token.group() == key.token);
    for token in settings.token.values_mut() {
        token.hosts = 1;
    }
    let start = (&environment(&settings), &Logins::default());
    let groups = start_groups(&settings, start, token::Settings::group);
    let away = |reason: String| AppError::Away(format!("token.{}: {reason}", key.token));
    let examination = async {
        let group = &groups[&key.token];
        let (mut serves, mut said) = (false, String::new());
        for (name, state) in group.states() {
            let state = first_state(state, settings.token[&name].start_timeout).await;
            serves |= state.is_serving();
            said = state.to_string();
        }
        if !serves {
            return Err(away(said));
        }
        let faulty = |fault: Fault| away(fault.to_string());
        let key = token_key(&key, None);
        let until = Instant::now() + PATIENCE;
        let nothing = Extension::after(u64::MAX);
        let remembered = group.seal(&key, origin, nothing, until).await;
        let is_genuine = match newest {
            None => None,
            Some(SealedCheckpoint { checkpoint, seal }) => {
                let checked = group.check_seal(&key, checkpoint, seal.into(), until).await;
                Some(checked.map_err(faulty)?)
            }
        };
        let Sealed { size, root, .. } = remembered.map_err(faulty)?;
        let origin = origin.to_owned();
        Ok(SealExamination {
            is_genuine,
            remembered: Checkpoint { origin, size, root },
        })
    };
    let examination = examination.await;
    end_all(groups.into_values().collect(), Instant::now() + PATIENCE).await;
    examination
}

const PATIENCE: Duration = Duration::from_secs(10);
