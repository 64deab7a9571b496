//! What this process knows of the logins to a token, whatever the disk says. All hosts that log in there
//! share it, whichever settings they have: a reload gives nobody a new try.

use std::sync::{Arc, Mutex, Weak};

use crate::token::{host::pin::marker::Marker, locks::UNPOISONED, uri::TokenUri};

/// What is known of one token.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) marker: Marker,
    /// The disk lacks a refusal that this process knows.
    pub(super) unwritten: bool,
    /// A person allowed a try that the token calls the last.
    pub(super) final_try_allowed: bool,
    /// How often a person has allowed a try.
    pub(super) permissions: u64,
}

impl Memory {
    /// A person allowed one more try: whatever was refused is forgotten.
    pub(super) fn allow(&mut self) {
        self.marker.tried.clear();
        self.unwritten = false;
        self.final_try_allowed = true;
        self.permissions += 1;
    }
}

/// The logins of a process: to each token those of all its hosts, also while some have other settings.
#[derive(Clone, Debug, Default)]
pub struct Logins(Arc<Mutex<Vec<Known>>>);

#[derive(Debug)]
struct Known {
    name: String,
    /// Which token it is.
    uri: TokenUri,
    memory: Weak<Mutex<Memory>>,
}

impl Logins {
    /// What is known of a token, by its name and by which token that is. The module is only the way there.
    pub(super) fn memory_of(&self, name: &str, uri: &TokenUri) -> Arc<Mutex<Memory>> {
        let uri = TokenUri {
            module_path: "".into(),
            ..uri.clone()
        };
        let mut all = self.0.lock().expect(UNPOISONED);
        all.retain(|known| known.memory.strong_count() > 0);
        let mut same = all
            .iter()
            .filter(|known| known.name == name && known.uri == uri);
        if let Some(memory) = same.find_map(|known| known.memory.upgrade()) {
            return memory;
        }
        let memory = Arc::<Mutex<Memory>>::default();
        all.push(Known {
            name: name.to_owned(),
            uri,
            memory: Arc::downgrade(&memory),
        });
        memory
    }

    /// What is known of each token that has the name, or had it and still has hosts.
    pub(super) fn all_of(&self, name: &str) -> Vec<Arc<Mutex<Memory>>> {
        let all = self.0.lock().expect(UNPOISONED);
        let named = all.iter().filter(|known| known.name == name);
        named.filter_map(|known| known.memory.upgrade()).collect()
    }
}
