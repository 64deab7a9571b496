//! The key that seals the audit log: which token has it, and what finds it there.

use crate::{
    config::Settings,
    token::{ObjectLocator, ObjectUri},
};

/// The object that seals the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct SealKey {
    /// The token, or group of tokens, that has it.
    pub token: String,
    /// What finds it there.
    pub locator: ObjectLocator,
    /// It is hsmac's own, and made where it is missing.
    pub is_own: bool,
}

/// CKA_LABEL and CKA_ID of hsmac's own.
const LABEL: &str = "hsmac-audit-seal";

impl Settings {
    /// What seals the audit log; none: nothing does.
    ///
    /// # Errors
    /// The setting of `[audit]` that is wrong, and a sentence.
    pub fn seal_key(&self) -> Result<Option<SealKey>, (&'static str, String)> {
        let Some(audit) = self.audit.as_ref().filter(|audit| audit.seals) else {
            return Ok(None);
        };
        let (locator, is_own) = match &audit.seal_object {
            Some(uri) => {
                let uri = ObjectUri::try_from(uri.clone());
                (uri.map_err(|fault| ("seal_object", fault))?.0, false)
            }
            None if self.store.is_some() => (own(), true),
            None => {
                let text = "required, but not set: without [store] hsmac makes no key for seals; name an object that \
                     nothing else uses, or say seals = false";
                return Err(("seal_object", text.to_owned()));
            }
        };
        let groups = self.groups();
        let only = groups.first().copied().filter(|_| groups.len() == 1);
        let named = audit.seal_token.as_ref().or(self.new_keys.as_ref());
        let token = named.map(String::as_str).or(only);
        let token = token.ok_or_else(|| {
            let text = "required, but not set: there are several tokens; name one".to_owned();
            ("seal_token", text)
        })?;
        Ok(Some(SealKey {
            token: token.to_owned(),
            locator,
            is_own,
        }))
    }
}

fn own() -> ObjectLocator {
    ObjectLocator {
        id: Some(LABEL.as_bytes().to_vec()),
        label: Some(LABEL.to_owned()),
    }
}
