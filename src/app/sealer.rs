//! Has a token seal the audit log, each second in which there is something to seal.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::sleep};
use tracing::{error, info, warn};

use super::groups::Groups;
use crate::{
    audit::{Log, SealedCheckpoint, Wish},
    config::SealKey,
    model::{KeyId, KeySpec},
    token::{CheckValue, Fault, Group, Sealed, TokenKey},
};

/// Starts it; it ends with the runtime, or when it is aborted. None: the log is not to be sealed.
pub(super) fn start(
    key: Option<SealKey>,
    groups: &Arc<Groups>,
    log: Option<&Arc<Log>>,
) -> Option<JoinHandle<()>> {
    let (key, log) = (key?, Arc::clone(log?));
    let groups = Arc::clone(groups);
    let sealer = Sealer {
        token_key: token_key(&key, None),
        key,
        groups,
        log,
        is_trusted: false,
        is_rolled_back: false,
    };
    Some(tokio::spawn(sealer.run()))
}

struct Sealer {
    key: SealKey,
    token_key: Arc<TokenKey>,
    groups: Arc<Groups>,
    log: Arc<Log>,
    /// The key has been seen to have made the newest seal of the log, if there is one.
    is_trusted: bool,
    is_rolled_back: bool,
}

impl Sealer {
    async fn run(mut self) {
        loop {
            sleep(EACH).await;
            // Security: what was changed after it was sealed is never sealed again.
            if !self.is_rolled_back
                && let Some(wish) = self.log.wish()
            {
                self.seal(wish).await;
            }
        }
    }

    async fn seal(&mut self, wish: Wish) {
        let sealed = match self.trusted_group().await {
            Ok(group) => {
                let until = Instant::now() + PATIENCE;
                let (origin, leaves) = (&wish.checkpoint.origin, wish.leaves.clone());
                let sealed = group.seal(&self.token_key, origin, leaves, until);
                sealed.await.map_err(|fault| fault.to_string())
            }
            Err(reason) => Err(reason),
        };
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(reason) => {
                if self.log.not_sealed(wish, &reason) {
                    warn!(event = "audit_seals_wait", token = %self.key.token, reason, "the audit log is not sealed for now");
                }
                return;
            }
        };
        let Sealed { size, root, seal } = sealed;
        match seal {
            Some(seal) if (size, root) == (wish.checkpoint.size, wish.checkpoint.root) => {
                self.log.sealed(wish, &seal);
            }
            Some(_) => {
                self.rolled_back(wish, "the records are not those that were sealed before");
            }
            None => {
                let (log, again) = (Arc::clone(&self.log), wish.clone());
                let read = move || log.sealed_elsewhere(again, size, root);
                if let Ok(Err(reason)) = tokio::task::spawn_blocking(read).await {
                    self.rolled_back(wish, &reason);
                }
            }
        }
    }

    /// The token whose key is seen to be the one that has sealed this log before. Asked once; hsmac's own key is made where it is
    /// missing and nothing was sealed yet.
    async fn trusted_group(&mut self) -> Result<Arc<Group>, String> {
        // A reload may have taken the token away.
        let group = self.groups.now().remove(&self.key.token);
        let group = group.ok_or("the configuration has the token no more")?;
        if self.is_trusted {
            return Ok(group);
        }
        let until = Instant::now() + PATIENCE;
        let newest = self.log.newest_seal()?;
        let known = self.log.seal_key()?;
        let is_new = known.is_none() && newest.is_none();
        let pinned = known.map(|hex| hex.parse::<CheckValue>()).transpose()?;
        self.token_key = token_key(&self.key, pinned);
        // Nobody has sealed this log yet: mostly the key is not there either.
        let made = if self.key.is_own && is_new {
            let made = token_key(&self.key, None);
            match group.generate(&made, until).await {
                Ok(facts) => {
                    info!(event = "audit_seal_key_made", token = %self.key.token, "the token has a key that seals the audit log");
                    Some(facts)
                }
                // It has one, of another log.
                Err(Fault::Key(_)) => None,
                Err(fault) => return Err(fault.to_string()),
            }
        } else {
            None
        };
        let facts = match made {
            Some(facts) => facts,
            None => {
                let described = group.describe(&self.token_key, until).await;
                described.map_err(|fault| fault.to_string())?
            }
        };
        self.log.keep_seal_key(&facts.check_value.to_string())?;
        self.token_key = token_key(&self.key, Some(facts.check_value));
        if let Some(SealedCheckpoint { checkpoint, seal }) = newest {
            let checked = group.check_seal(&self.token_key, checkpoint, seal.into(), until);
            if !checked.await.map_err(|fault| fault.to_string())? {
                return Err("the key has not made the newest seal of the log: it is another key, or the log was changed".to_owned());
            }
        }
        self.is_trusted = true;
        Ok(group)
    }

    fn rolled_back(&mut self, wish: Wish, reason: &str) {
        self.log.not_sealed(wish, reason);
        self.is_rolled_back = true;
        error!(event = "audit_rolled_back", token = %self.key.token, reason, "the audit log was changed after it was sealed");
    }
}

/// As the token's hosts know the key.
pub(super) fn token_key(key: &SealKey, check_value: Option<CheckValue>) -> Arc<TokenKey> {
    let key_id: KeyId = KEY_ID.parse().expect("it is a UUID");
    let (spec, locator) = (KeySpec::Hmac256, key.locator.clone());
    Arc::new(TokenKey::new(key_id, spec, locator, check_value))
}

/// A part of the key's check value. No key of the catalogue has it: those are random.
const KEY_ID: &str = "5ea1a0d1-0000-4000-8000-000000000000";
const EACH: Duration = Duration::from_secs(1);
/// How long a seal may take; what is not sealed by then is sealed later.
const PATIENCE: Duration = Duration::from_secs(10);
