//! What this module knows of the caller's sessions, and what happens to all of them at once.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use cryptoki_sys::{CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SLOT_ID};

use crate::{
    objects::{Found, Objects},
    real::{ask, token_label},
    rule::{Happening, Rules},
    token::lock,
};

#[derive(Default)]
pub(crate) struct World {
    /// The caller's open sessions, with the real module's slot ids.
    sessions: Mutex<HashMap<CK_SESSION_HANDLE, CK_SLOT_ID>>,
    /// Sessions that a hidden token took with it.
    removed: Mutex<HashSet<CK_SESSION_HANDLE>>,
    objects: Mutex<Objects>,
    /// Whether `objects` has other numbers than the real module, so that most calls need no lock.
    renumbered: AtomicBool,
    /// The `slot offset` that C_Initialize found.
    slot_offset: Mutex<CK_SLOT_ID>,
}

impl World {
    /// C_Initialize succeeded; `turn` counts C_Initialize where handles are to differ each time.
    pub(crate) fn initialized(&self, turn: Option<u64>, rules: &Rules) {
        self.finalized();
        let offset = rules.slot_offset_at_initialize.unwrap_or(0);
        *lock(&self.slot_offset) = offset;
        lock(&self.objects).number_from(turn);
        self.renumbered.store(turn.is_some(), Relaxed);
    }

    /// C_Finalize succeeded.
    pub(crate) fn finalized(&self) {
        lock(&self.sessions).clear();
        lock(&self.removed).clear();
        *lock(&self.objects) = Objects::default();
        self.renumbered.store(false, Relaxed);
    }

    /// Opens a session, unless there are `limit` of them.
    pub(crate) fn open(
        &self,
        slot: CK_SLOT_ID,
        limit: Option<usize>,
        open: impl FnOnce() -> Option<CK_SESSION_HANDLE>,
    ) -> bool {
        let mut sessions = lock(&self.sessions);
        if limit.is_some_and(|limit| sessions.len() >= limit) {
            return false;
        }
        if let Some(session) = open() {
            sessions.insert(session, slot);
            lock(&self.removed).remove(&session);
        }
        true
    }

    pub(crate) fn closed(&self, session: CK_SESSION_HANDLE) {
        lock(&self.sessions).remove(&session);
    }

    pub(crate) fn all_closed(&self, slot: CK_SLOT_ID) {
        lock(&self.sessions).retain(|_, of| *of != slot);
    }

    /// Whether the session's token is hidden.
    pub(crate) fn is_removed(&self, session: CK_SESSION_HANDLE) -> bool {
        lock(&self.removed).contains(&session)
    }

    pub(crate) fn slot_offset(&self, rules: &Rules) -> CK_SLOT_ID {
        rules
            .slot_offset
            .unwrap_or_else(|| *lock(&self.slot_offset))
    }

    /// The real module's handle of an object that the caller knows by `number`; `None` if the number
    /// names nothing.
    pub(crate) fn object(
        &self,
        real: &'static CK_FUNCTION_LIST,
        session: CK_SESSION_HANDLE,
        number: CK_OBJECT_HANDLE,
    ) -> Option<CK_OBJECT_HANDLE> {
        if !self.renumbered.load(Relaxed) {
            return Some(number);
        }
        let slot = lock(&self.sessions).get(&session).copied();
        let mut objects = lock(&self.objects);
        if !objects.know_number(number)
            && let Some(slot) = slot
        {
            objects.learn(Found::all(real, slot));
        }
        objects.real(number)
    }

    /// The number by which the caller gets to know an object.
    pub(crate) fn number(
        &self,
        real: &'static CK_FUNCTION_LIST,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
    ) -> CK_OBJECT_HANDLE {
        if !self.renumbered.load(Relaxed) {
            return object;
        }
        let slot = lock(&self.sessions).get(&session).copied();
        let mut objects = lock(&self.objects);
        if objects.number(object).is_none()
            && let Some(slot) = slot
        {
            objects.learn(Found::all(real, slot));
        }
        // What a session of ours does not see, the caller's does.
        if objects.number(object).is_none() {
            objects.learn(vec![Found::one(real, session, object)]);
        }
        objects.number(object).unwrap_or(object)
    }

    /// Does what happens once. No call is under way.
    pub(crate) fn happen(
        &mut self,
        real: &'static CK_FUNCTION_LIST,
        what: Happening,
        rules: &Rules,
    ) {
        match what {
            Happening::LoginLost => {
                for slot in self.slots() {
                    if let Some(session) = self.any_session(slot) {
                        ask!(real, C_Logout(session));
                    }
                }
            }
            Happening::Renumbered => {
                let found = self.all_objects(real);
                let objects = get_mut(&mut self.objects);
                objects.rotate(found);
                *self.renumbered.get_mut() |= objects.differ();
            }
            Happening::SessionsLost => {
                if rules.renumber_on_session_loss {
                    let found = self.all_objects(real);
                    let objects = get_mut(&mut self.objects);
                    objects.rotate_when_found_again(found);
                    *self.renumbered.get_mut() |= objects.differ();
                }
                for slot in self.slots() {
                    ask!(real, C_CloseAllSessions(slot));
                }
                get_mut(&mut self.sessions).clear();
            }
        }
    }

    /// Takes the sessions of tokens that are hidden now; forgets those of tokens that are back.
    pub(crate) fn hide(&mut self, real: &'static CK_FUNCTION_LIST, rules: &Rules) {
        if rules.hidden_tokens.is_empty() {
            get_mut(&mut self.removed).clear();
            return;
        }
        for slot in self.slots() {
            if rules.hide_token(|| token_label(real, slot)) {
                ask!(real, C_CloseAllSessions(slot));
                let removed = get_mut(&mut self.removed);
                get_mut(&mut self.sessions).retain(|session, of| {
                    if *of == slot {
                        removed.insert(*session);
                    }
                    *of != slot
                });
            }
        }
    }

    fn slots(&mut self) -> BTreeSet<CK_SLOT_ID> {
        get_mut(&mut self.sessions).values().copied().collect()
    }

    fn any_session(&mut self, slot: CK_SLOT_ID) -> Option<CK_SESSION_HANDLE> {
        let sessions = get_mut(&mut self.sessions).iter();
        let mut of_slot = sessions.filter(|(_, of)| **of == slot);
        of_slot.next().map(|(session, _)| *session)
    }

    fn all_objects(&mut self, real: &'static CK_FUNCTION_LIST) -> Vec<Found> {
        let slots = self.slots().into_iter();
        slots.flat_map(|slot| Found::all(real, slot)).collect()
    }
}

fn get_mut<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}
