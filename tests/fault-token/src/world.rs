//! What this module knows of the caller's sessions, and what happens to all of them at once.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use cryptoki_sys::{CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID};

use crate::{
    files::{self, ProcessFile},
    objects::{Found, Name, Objects},
    real::{ask, token_label},
    rule::{Event, Happening, Rules, Scope, SessionLimit},
    token::{FaultToken, failed, lock},
    when::KeyName,
};

#[derive(Default)]
pub(crate) struct World {
    sessions: Mutex<Sessions>,
    /// Sessions that a hidden token took with it.
    removed: Mutex<HashSet<CK_SESSION_HANDLE>>,
    objects: Mutex<Objects>,
    /// Whether `objects` has other numbers than the real module, so that most calls need no lock.
    renumbered: AtomicBool,
    /// The `slot offset` that C_Initialize found.
    slot_offset: Mutex<CK_SLOT_ID>,
    /// The token objects that a process sees which learns of none that others make.
    seen: Mutex<HashMap<CK_SLOT_ID, HashSet<Name>>>,
}

/// The caller's open sessions.
#[derive(Default)]
struct Sessions {
    open: HashMap<CK_SESSION_HANDLE, Session>,
    /// How many have been opened since C_Initialize.
    opened: u64,
    /// What tells other processes how many there are.
    file: Option<ProcessFile>,
}

struct Session {
    /// The real module's.
    slot: CK_SLOT_ID,
    number: u64,
    /// The key of its operation, if a rule asks for keys.
    key: Option<KeyName>,
}

impl World {
    /// C_Initialize succeeded; `turn` counts C_Initialize where handles are to differ each time.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR if the files next to the control file cannot be written; stderr says why.
    pub(crate) fn initialized(
        &self,
        token: &FaultToken,
        turn: Option<u64>,
        rules: &Rules,
    ) -> Result<(), CK_RV> {
        self.finalized();
        let offset = match &rules.slot_offset_at_initialize {
            Some((offset, line)) => {
                token.applied(line);
                *offset
            }
            None => 0,
        };
        *lock(&self.slot_offset) = offset;
        lock(&self.objects).number_from(turn);
        self.renumbered.store(turn.is_some(), Relaxed);
        if let Some(control) = token.control.path() {
            let file = ProcessFile::create(control).map_err(|error| failed(control, &error))?;
            lock(&self.sessions).file = Some(file);
        }
        Ok(())
    }

    /// C_Finalize succeeded.
    pub(crate) fn finalized(&self) {
        if let Some(file) = std::mem::take(&mut *lock(&self.sessions)).file {
            file.remove();
        }
        lock(&self.removed).clear();
        lock(&self.seen).clear();
        *lock(&self.objects) = Objects::default();
        self.renumbered.store(false, Relaxed);
    }

    /// Opens a session, unless there are too many of them.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR if other processes' sessions cannot be counted; stderr says why.
    pub(crate) fn open(
        &self,
        token: &FaultToken,
        slot: CK_SLOT_ID,
        limit: Option<&SessionLimit>,
        open: impl FnOnce() -> Option<CK_SESSION_HANDLE>,
    ) -> Result<bool, CK_RV> {
        let mut sessions = lock(&self.sessions);
        let control = token.control.path();
        // Of two processes that count at the same time each would find room for one.
        let mut _alone = None;
        if let Some(limit) = limit {
            let mine = sessions.open.len() as u64;
            let now = match (limit.scope, control) {
                (Scope::Process, _) | (_, None) => mine,
                (scope, Some(control)) => {
                    let failed = |error| failed(control, &error);
                    _alone = Some(files::alone(control, "sessions").map_err(failed)?);
                    files::sessions_of_all(control, scope == Scope::Leaking).map_err(failed)?
                }
            };
            if now >= limit.most {
                return Ok(false);
            }
        }
        if let Some(handle) = open() {
            sessions.opened += 1;
            let session = Session {
                slot,
                number: sessions.opened,
                key: None,
            };
            sessions.open.insert(handle, session);
            sessions.tell();
            lock(&self.removed).remove(&handle);
        }
        Ok(true)
    }

    pub(crate) fn closed(&self, session: CK_SESSION_HANDLE) {
        let mut sessions = lock(&self.sessions);
        sessions.open.remove(&session);
        sessions.tell();
    }

    pub(crate) fn all_closed(&self, slot: CK_SLOT_ID) {
        let mut sessions = lock(&self.sessions);
        sessions.open.retain(|_, session| session.slot != slot);
        sessions.tell();
    }

    /// Which of the sessions opened since C_Initialize this is.
    pub(crate) fn session_number(&self, session: CK_SESSION_HANDLE) -> Option<u64> {
        let sessions = lock(&self.sessions);
        sessions.open.get(&session).map(|session| session.number)
    }

    /// Remembers with which key the session works from now on.
    pub(crate) fn works_with(&self, session: CK_SESSION_HANDLE, key: Option<KeyName>) {
        if let Some(session) = lock(&self.sessions).open.get_mut(&session) {
            session.key = key;
        }
    }

    /// The key that the session works with.
    pub(crate) fn key_of(&self, session: CK_SESSION_HANDLE) -> Option<KeyName> {
        let sessions = lock(&self.sessions);
        sessions.open.get(&session)?.key.clone()
    }

    fn slot_of(&self, session: CK_SESSION_HANDLE) -> Option<CK_SLOT_ID> {
        let sessions = lock(&self.sessions);
        sessions.open.get(&session).map(|session| session.slot)
    }

    /// Takes what is in the token now for all that the process will ever see of others' making.
    pub(crate) fn look_at_objects(
        &self,
        real: &'static CK_FUNCTION_LIST,
        session: CK_SESSION_HANDLE,
    ) {
        if let Some(slot) = self.slot_of(session) {
            let found = Found::all(real, slot).into_iter();
            let names = found.map(|found| found.name).collect();
            lock(&self.seen).insert(slot, names);
        }
    }

    /// Whether this object came into the token after the process had looked.
    pub(crate) fn has_not_seen(
        &self,
        real: &'static CK_FUNCTION_LIST,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
    ) -> bool {
        let Some(slot) = self.slot_of(session) else {
            return false;
        };
        if !lock(&self.seen).contains_key(&slot) {
            self.look_at_objects(real, session);
        }
        let name = Found::one(real, session, object).name;
        let seen = lock(&self.seen);
        name.is_of_the_token() && seen.get(&slot).is_some_and(|seen| !seen.contains(&name))
    }

    /// The process has made an object itself.
    pub(crate) fn made(
        &self,
        real: &'static CK_FUNCTION_LIST,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
    ) {
        if let Some(slot) = self.slot_of(session)
            && let Some(seen) = lock(&self.seen).get_mut(&slot)
        {
            seen.insert(Found::one(real, session, object).name);
        }
    }

    /// Whether the session's token is hidden.
    pub(crate) fn is_removed(&self, session: CK_SESSION_HANDLE) -> bool {
        lock(&self.removed).contains(&session)
    }

    pub(crate) fn slot_offset(&self, rules: &Rules) -> CK_SLOT_ID {
        rules
            .slot_offset
            .as_ref()
            .map(|(offset, _)| *offset)
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
        let slot = self.slot_of(session);
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
        let slot = self.slot_of(session);
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

    /// Does what happens once, and counts it if there was anything to do. No call is under way.
    pub(crate) fn happen(&mut self, token: &FaultToken, event: &Event, rules: &Rules) {
        let real = token.real;
        let slots = self.slots();
        match event.what {
            Happening::LoginLost => {
                for slot in &slots {
                    if let Some(session) = self.any_session(*slot) {
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
                if let Some(line) = &rules.renumber_on_session_loss {
                    let found = self.all_objects(real);
                    let objects = get_mut(&mut self.objects);
                    objects.rotate_when_found_again(found);
                    if objects.differ() {
                        token.applied(line);
                        *self.renumbered.get_mut() = true;
                    }
                }
                for slot in &slots {
                    ask!(real, C_CloseAllSessions(*slot));
                }
                let sessions = get_mut(&mut self.sessions);
                sessions.open.clear();
                sessions.tell();
            }
        }
        if !slots.is_empty() {
            token.applied(&event.line());
        }
    }

    /// Takes the sessions of tokens that are hidden now; forgets those of tokens that are back.
    pub(crate) fn hide(&mut self, token: &FaultToken, rules: &Rules) {
        if rules.hidden_tokens.is_empty() {
            get_mut(&mut self.removed).clear();
            return;
        }
        let real = token.real;
        for slot in self.slots() {
            if let Some(line) = rules.hide_token(|| token_label(real, slot)) {
                token.applied(line);
                ask!(real, C_CloseAllSessions(slot));
                let removed = get_mut(&mut self.removed);
                let sessions = get_mut(&mut self.sessions);
                sessions.open.retain(|handle, session| {
                    if session.slot == slot {
                        removed.insert(*handle);
                    }
                    session.slot != slot
                });
                sessions.tell();
            }
        }
    }

    fn slots(&mut self) -> BTreeSet<CK_SLOT_ID> {
        let sessions = get_mut(&mut self.sessions).open.values();
        sessions.map(|session| session.slot).collect()
    }

    fn any_session(&mut self, slot: CK_SLOT_ID) -> Option<CK_SESSION_HANDLE> {
        let mut sessions = get_mut(&mut self.sessions).open.iter();
        let of_slot = sessions.find(|(_, session)| session.slot == slot);
        of_slot.map(|(handle, _)| *handle)
    }

    fn all_objects(&mut self, real: &'static CK_FUNCTION_LIST) -> Vec<Found> {
        let slots = self.slots().into_iter();
        slots.flat_map(|slot| Found::all(real, slot)).collect()
    }
}

impl Sessions {
    /// Tells other processes how many there are.
    fn tell(&self) {
        if let Some(file) = &self.file {
            file.set_sessions(self.open.len());
        }
    }
}

fn get_mut<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}
