//! What `[token.NAME]` must fulfil, and what may name a token or a group of tokens.

use std::collections::BTreeSet;

use crate::{
    config::{
        Settings,
        fault::{InvalidSettings, nearest},
    },
    token,
};

impl Settings {
    pub(super) fn token_faults(
        &self,
        fault: &mut impl FnMut(&str, String),
        invalid: &InvalidSettings,
    ) {
        if self.token.is_empty() && !invalid.within("token") {
            fault(
                "token",
                "there is none; add [token.NAME] with its uri and pin_file".into(),
            );
        }
        for (name, token) in &self.token {
            let setting = format!("token.{name}");
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            if name.is_empty() || !name.bytes().all(plain) {
                fault(
                    &setting,
                    "a token's name has only letters, digits, - and _".into(),
                );
            }
            for (within, text) in token.faults() {
                fault(&format!("{setting}.{within}"), text);
            }
            if let Some(group) = &token.group {
                let setting = format!("{setting}.group");
                if group.is_empty() || !group.bytes().all(plain) {
                    fault(
                        &setting,
                        "a group's name has only letters, digits, - and _".into(),
                    );
                } else if self.token.contains_key(group) {
                    fault(
                        &setting,
                        format!("{group:?} is a token's name; a group needs a name of its own"),
                    );
                }
            }
            let disagrees = |other: &&token::Settings| {
                other.group() == token.group() && other.replicated_by != token.replicated_by
            };
            if let Some(other) = self.token.values().find(disagrees) {
                fault(
                    &format!("{setting}.replicated_by"),
                    format!(
                        "the token {:?} of the same group does not say the same",
                        other.name
                    ),
                );
            }
        }
        match &self.new_keys {
            Some(name) => self.unknown_token("new_keys", name, fault, invalid),
            None if self.groups().len() > 1 => {
                fault(
                    "new_keys",
                    "required, but not set: there are several tokens; name one".into(),
                );
            }
            None => {}
        }
    }

    pub(super) fn unknown_token(
        &self,
        setting: &str,
        name: &str,
        fault: &mut impl FnMut(&str, String),
        invalid: &InvalidSettings,
    ) {
        let known = self.groups();
        if known.contains(name) || invalid.covers(&format!("token.{name}")) {
            return;
        }
        if let Some(group) = self.token.get(name).and_then(|token| token.group.as_ref()) {
            return fault(
                setting,
                format!("the token {name:?} belongs to the group {group:?}; name the group"),
            );
        }
        match nearest(name, known.iter().copied()) {
            Some(right) => fault(
                setting,
                format!("no token {name:?}; did you mean {right:?}?"),
            ),
            None => {
                let known: Vec<&str> = known.into_iter().collect();
                fault(
                    setting,
                    format!("no token {name:?}; there are: {}", known.join(", ")),
                );
            }
        }
    }

    /// What keys can name: groups, and tokens without one.
    pub(in crate::config) fn groups(&self) -> BTreeSet<&str> {
        self.token.values().map(token::Settings::group).collect()
    }
}
