//! CreateKey's back half: the object in the token, and the record that names it.

use std::{sync::Arc, time::Instant};

use super::{Kms, catalogue::Record};
use crate::{
    error::{Error, Kind},
    model::{AccountId, Description, KeySpec, Tags},
};

/// A key that may be made: every constraint holds, the caller is allowed, the account has room.
#[derive(Clone, Debug)]
pub(super) struct NewKey {
    pub(super) account: AccountId,
    pub(super) spec: KeySpec,
    pub(super) description: Description,
    pub(super) tags: Tags,
}

/// Makes the object and commits the record; gives it as the catalogue has it.
pub(super) async fn create_key(
    kms: &Kms,
    new: NewKey,
    until: Instant,
) -> Result<Arc<Record>, Error> {
    let _ = (kms, until, new.spec, new.tags, new.description, new.account);
    Err(Error::new(
        Kind::UnsupportedOperation,
        "This version of hsmac cannot make keys in a token; declare keys that are there in its configuration.",
    ))
}
