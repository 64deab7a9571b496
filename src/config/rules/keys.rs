//! What `[[key]]` must fulfil.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{Settings, fault::InvalidSettings},
    model::KeyReference,
};

impl Settings {
    pub(super) fn key_faults(
        &self,
        fault: &mut impl FnMut(&str, String),
        invalid: &InvalidSettings,
    ) {
        let mut ids = BTreeSet::new();
        let mut aliases = BTreeMap::new();
        for (index, key) in self.key.iter().enumerate() {
            let setting = |name: &str| format!("key[{index}].{name}");
            if !invalid.covers(&setting("key_id")) && !ids.insert(&key.key_id) {
                fault(&setting("key_id"), format!("{} is there twice", key.key_id));
            }
            match &key.token {
                Some(name) => self.unknown_token(&setting("token"), name, fault, invalid),
                None if self.groups().len() > 1 => fault(
                    &setting("token"),
                    "required, but not set: there are several tokens; name one".into(),
                ),
                None => {}
            }
            for (number, alias) in key.aliases.iter().enumerate() {
                let setting = format!("{}[{number}]", setting("aliases"));
                if !matches!(alias.parse(), Ok(KeyReference::Alias(_))) {
                    fault(
                        &setting,
                        format!(
                            "{alias:?} is no alias: it must be alias/ and letters, digits, /, _ and -, \
                             at most 256 characters"
                        ),
                    );
                } else if let Some(first) = aliases.insert(alias, index) {
                    fault(
                        &setting,
                        format!("{alias} is an alias of key[{first}] already"),
                    );
                }
            }
            if key.description.chars().count() > 8192 {
                fault(
                    &setting("description"),
                    "it must be at most 8192 characters".into(),
                );
            }
            let mac_len = key.key_spec.mac_algorithm().mac_len();
            if let Some(value) = &key.check_value
                && !invalid.covers(&setting("key_spec"))
                && value.bytes().len() != mac_len
            {
                fault(
                    &setting("check_value"),
                    format!(
                        "it has {} hex digits; a key of {} has {}",
                        value.bytes().len() * 2,
                        key.key_spec,
                        mac_len * 2
                    ),
                );
            }
        }
    }
}
