//! The operations as `hsmac policy simulate` asks them: without a token, beside a server that runs.

use std::collections::BTreeSet;

use super::{Fault, wires::read_principals};
use crate::{
    config::Settings,
    kms::{self, Simulator},
    store::Store,
    token,
};

/// Takes in what is declared and, if there is a store, what it has at this moment.
///
/// # Errors
/// [`Fault::Configuration`]: a policy is none, declared and stored keys contradict each other, the
/// catalogue is damaged. [`Fault::Away`]: the store's disk refuses.
pub async fn simulator(settings: &Settings) -> Result<Simulator, Fault> {
    let of_kms = kms::Settings {
        account: settings.account.clone(),
        region: settings.region.clone(),
        new_keys: settings.new_keys.clone(),
        keys: settings.key.clone(),
        principals: read_principals(settings).map_err(Fault::Configuration)?,
    };
    let groups: BTreeSet<String> = settings
        .token
        .values()
        .map(|token| token::Settings::group(token).to_owned())
        .collect();
    let groups: Vec<String> = groups.into_iter().collect();
    let store = settings.store.as_ref().map(Store::copy).transpose()?;
    Ok(Simulator::new(of_kms, &groups, store.flatten().as_ref()).await?)
}
