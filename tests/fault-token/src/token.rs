//! The one instance in a process: the real module, the rules, and what has happened so far.

use std::{
    env,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
};

use cryptoki_sys::CK_FUNCTION_LIST;

use crate::{control::Control, files::Log, real, world::World};

pub(crate) struct FaultToken {
    pub(crate) real: &'static CK_FUNCTION_LIST,
    pub(crate) control: Control,
    pub(crate) log: Log,
    /// Read by every call for as long as it is with the real module, written by what happens to all
    /// sessions or objects at once: nothing of that kind happens beneath a call.
    pub(crate) world: RwLock<World>,
}

impl FaultToken {
    /// The instance, made at the first look; `None` if that failed, for good.
    pub(crate) fn loaded() -> Option<&'static Self> {
        static TOKEN: OnceLock<Option<FaultToken>> = OnceLock::new();
        TOKEN
            .get_or_init(|| match Self::load() {
                Ok(token) => Some(token),
                Err(why) => {
                    eprintln!("fault-token: {why}");
                    None
                }
            })
            .as_ref()
    }

    fn load() -> Result<Self, String> {
        let token = Self {
            real: real::load()?,
            control: Control::new(env::var_os("FAULT_TOKEN_CONTROL").map(Into::into)),
            log: Log::open(env::var_os("FAULT_TOKEN_LOG").as_deref())?,
            world: RwLock::default(),
        };
        token.control.look(&token);
        Ok(token)
    }
}

/// Locks. A panic elsewhere is no reason to fail here: it has ended the process by now.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
