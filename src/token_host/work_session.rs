//! A session that does jobs; and whose fault it is when a job fails on two of them.
//!
//! A code says little: modules use CKR_FUNCTION_FAILED for a message that they cannot digest, for a
//! broken key, for load, and for a dead link. So the token is asked another question on a fresh
//! session. What it answers decides: the message's fault, the key's fault, load, or the generation's
//! end. One caller's poison costs that caller's answer, and no host.

use cryptoki::session::Session;

use super::{
    error::{Class, HostError},
    host_key::{HostKey, OpenKey},
    module::Module,
    runtime::HostRuntime,
};
use crate::host_ipc::{monotonic, nanoseconds};

/// A token that answered somebody so lately is busy, not dead, when it says what busy tokens say.
const LATELY: std::time::Duration = std::time::Duration::from_millis(500);

/// One session, or none while it is replaced: a lost session is closed before its successor is opened,
/// since a token with a limit of sessions has no room for both.
pub(super) struct WorkSession<'a> {
    own: &'a mut Option<Session>,
    /// Takes its place where the token has no further session. It cannot be replaced: closing it logs
    /// out.
    login_session: Option<&'a Session>,
}

/// What a call is about, and so what may be at fault besides the session.
#[derive(Clone, Copy)]
pub(super) enum CallSubject<'a> {
    /// A message, with a key that was proved.
    Message(&'a HostKey, &'a OpenKey),
    /// A key that is being proved.
    Key(&'a HostKey),
    /// Nothing but the token.
    Token,
}

impl<'a> WorkSession<'a> {
    /// A session of its own.
    pub(super) fn of(own: &'a mut Option<Session>) -> Self {
        Self {
            own,
            login_session: None,
        }
    }

    /// A session for a moment, opened at its first use; the login session where there is no other.
    pub(super) fn for_a_moment(own: &'a mut Option<Session>, login_session: &'a Session) -> Self {
        Self {
            own,
            login_session: Some(login_session),
        }
    }

    fn ready(&mut self, module: &Module) -> Result<&Session, HostError> {
        if self.own.is_none() {
            match module.open_session() {
                Ok(session) => *self.own = Some(session),
                Err(error) => match self.login_session {
                    Some(login) if error.class == Class::SessionLimit => return Ok(login),
                    Some(_) | None => return Err(error),
                },
            }
        }
        self.own
            .as_ref()
            .ok_or_else(|| HostError::new(Class::Bug, "a session was opened and is not there"))
    }

    fn renew(&mut self, module: &Module) -> Result<&Session, HostError> {
        drop(self.own.take());
        self.ready(module)
    }
}

impl HostRuntime {
    /// Runs a call; if the session is at fault once more on a fresh one; and if that is not the cure,
    /// finds out whose fault it is. The front is told of what a fresh session cured. `retime` tells the front that another call begins.
    ///
    /// # Errors
    /// `MessageFails`, `KeyFails`, `Busy` and `Generation` as told above; what the call says otherwise.
    pub(super) fn on_session<T>(
        &self,
        work: &mut WorkSession<'_>,
        subject: CallSubject<'_>,
        retime: impl Fn(),
        mut call: impl FnMut(&Session) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let session = work
            .ready(&self.module)
            .map_err(|error| self.busy_or_over(error))?;
        let error = match call(session) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if matches!(error.class, Class::Session | Class::SessionLimit) {
            retime();
            let session = work
                .renew(&self.module)
                .map_err(|error| self.busy_or_over(error))?;
            let again = match call(session) {
                Ok(done) => {
                    self.cured(&error);
                    return Ok(done);
                }
                Err(again) => again,
            };
            if !matches!(again.class, Class::Session | Class::SessionLimit) {
                return Err(again);
            }
            let fault = self.whose_fault(work, subject, &retime, again);
            // Faults that come at random look the same twice in a row: once more, now that the token
            // has just shown that it answers.
            if matches!(fault.class, Class::MessageFails | Class::KeyFails)
                && let Ok(session) = work.ready(&self.module)
            {
                retime();
                let done = call(session).map_err(|_| fault)?;
                self.cured(&error);
                return Ok(done);
            }
            return Err(fault);
        }
        #[cfg(feature = "drill-unbound-handles")]
        if error.class == Class::Generation
            && let Ok(fresh) = self.module.log_in_again()
        {
            *work.own = Some(fresh);
            return call(work.ready(&self.module)?);
        }
        // After CKR_BUFFER_TOO_SMALL the operation stays active (PKCS#11 v3.1 §5.2), and most
        // modules can only be rid of it by closing the session.
        if error.class == Class::Caller {
            drop(work.own.take());
        }
        Err(error)
    }

    /// Asks the token something else, on a fresh session. A job after which nothing is answered is named
    /// when the generation ends, so that it does not take host after host.
    fn whose_fault(
        &self,
        work: &mut WorkSession<'_>,
        subject: CallSubject<'_>,
        retime: impl Fn(),
        error: HostError,
    ) -> HostError {
        retime();
        let key = match subject {
            CallSubject::Message(key, open_key) => {
                let session = match work.renew(&self.module) {
                    Ok(session) => session,
                    Err(error) => return self.busy_or_over(error).unanswered(),
                };
                match self
                    .keys
                    .verify_check_value(&self.module, session, key, open_key)
                {
                    Ok(()) => {
                        return error
                            .judged(Class::MessageFails)
                            .about("the token fails with this message and answers others");
                    }
                    // The handle has changed its meaning: the key is opened again.
                    Err(stale) if stale.class == Class::Handle => return stale,
                    Err(_) => retime(),
                }
                Some(key)
            }
            CallSubject::Key(key) => Some(key),
            CallSubject::Token => None,
        };
        let session = match work.renew(&self.module) {
            Ok(session) => session,
            Err(error) => return self.busy_or_over(error).unanswered(),
        };
        let answer = match self.keys.another_open_key(key) {
            Some((other, open_key)) => {
                self.keys
                    .verify_check_value(&self.module, session, &other, &open_key)
            }
            None => session
                .generate_random_vec(CONTROL_BYTES)
                .map(drop)
                .map_err(HostError::from),
        };
        let answers = match &answer {
            Ok(()) => true,
            Err(other) => !matches!(
                other.class,
                Class::Session
                    | Class::SessionLimit
                    | Class::Generation
                    | Class::Away
                    | Class::Pin
                    | Class::Bug
            ),
        };
        match key {
            Some(_) if answers => error
                .judged(Class::KeyFails)
                .about("the token fails with this key and answers others"),
            None if answers => error,
            Some(_) | None => self.busy_or_over(error).unanswered(),
        }
    }

    /// A token that says what busy tokens say, and served somebody lately, has too much to do.
    /// Otherwise this generation is over.
    fn busy_or_over(&self, error: HostError) -> HostError {
        let since = monotonic().saturating_sub(self.last_success());
        match error.class {
            Class::Session | Class::SessionLimit
                if error.may_be_load() && since < nanoseconds(LATELY) =>
            {
                error.judged(Class::Busy)
            }
            Class::Session | Class::SessionLimit => error.judged(Class::Generation),
            Class::Caller
            | Class::Key
            | Class::OtherKey
            | Class::Handle
            | Class::MessageFails
            | Class::KeyFails
            | Class::Busy
            | Class::Generation
            | Class::Away
            | Class::Pin
            | Class::Template
            | Class::Unsupported
            | Class::Configuration
            | Class::Bug => error,
        }
    }
}

/// How many random bytes the control question asks for.
const CONTROL_BYTES: u32 = 8;
