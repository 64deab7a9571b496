//! What `hsmac check` finds out about tokens and their keys.

use std::{sync::Arc, time::Instant};

use super::{
    AppError, HOSTS_END,
    groups::{end_groups, first_state, prepare_state_dir, start_groups},
};
use crate::{
    config::Settings,
    kms,
    token::{self, State},
};

/// The examination of one token by `hsmac check`.
pub struct TokenExamination {
    /// The token's name.
    pub token: String,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// Its state.
    pub state: State,
    /// What the token and its module told the host that logged in.
    pub facts: Option<token::Facts>,
    /// Each declared key with the attributes that the token has for it, or why it cannot serve.
    pub keys: Vec<(kms::DeclaredKey, Result<token::KeyFacts, token::Fault>)>,
}

/// Loads each module, logs in once, and makes a MAC with each declared key.
///
/// # Errors
/// [`AppError::Configuration`]: the state folder cannot be made.
pub async fn examine(mut settings: Settings) -> Result<Vec<TokenExamination>, AppError> {
    prepare_state_dir(&settings)?;
    for token in settings.token.values_mut() {
        token.hosts = 1;
    }
    // Each token alone: in a group another token would answer for a key that this one lacks.
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
                let until = Instant::now() + limits.slow_timeout;
                keys.push((declared.clone(), group.describe(&key, until).await));
            }
        }
        examinations.push(TokenExamination {
            token: name.clone(),
            group: limits.group.clone(),
            state,
            facts: group.facts(),
            keys,
        });
    }
    end_groups(&groups, Instant::now() + HOSTS_END).await;
    Ok(examinations)
}
