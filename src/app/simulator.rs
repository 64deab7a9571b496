//! The operations for `hsmac policy simulate`: without a token, beside a server that runs.

use std::collections::BTreeSet;

use super::{AppError, kms_settings};
use crate::{
    config::Settings,
    kms::{DeclaredRights, Simulator},
    store::Store,
    token,
};

/// Loads what is declared and, if there is a store, a snapshot of it.
///
/// # Errors
/// [`AppError::Configuration`]: declared and stored keys contradict each other, the
/// catalogue is damaged. [`AppError::Away`]: the store's disk refuses.
pub async fn simulator(settings: &Settings, rights: DeclaredRights) -> Result<Simulator, AppError> {
    let of_kms = kms_settings(settings, rights);
    let groups: BTreeSet<String> = settings
        .token
        .values()
        .map(|token| token::Settings::group(token).to_owned())
        .collect();
    let groups: Vec<String> = groups.into_iter().collect();
    let store = settings.store.as_ref().map(Store::copy).transpose()?;
    Ok(Simulator::new(of_kms, &groups, store.flatten().as_ref()).await?)
}
