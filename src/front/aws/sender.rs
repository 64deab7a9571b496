//! The other end of a connection, as far as its requests have proved who it is.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use tokio::time::sleep;

use super::super::{
    auth::{
        connection::ClientConnection,
        failure::AuthFailure,
        pre_auth::{Evicted, PreAuthSlot},
    },
    receive_budget::ReceivedBytes,
};
use crate::{error::Error, model::Caller};

/// Who sends the requests of a connection.
pub(super) struct Sender<'a> {
    pub(super) connection: &'a ClientConnection,
    /// Who signed the last request that was signed well.
    signed_by: Mutex<Option<Arc<Caller>>>,
    /// How many requests were refused before one was signed well.
    refused: AtomicU32,
}

impl<'a> Sender<'a> {
    pub(super) fn new(connection: &'a ClientConnection) -> Self {
        Self {
            connection,
            signed_by: Mutex::default(),
            refused: AtomicU32::new(0),
        }
    }

    /// The principal of the certificate, if the peer has shown one.
    pub(super) fn certificate_caller(&self) -> Option<Result<Arc<Caller>, AuthFailure>> {
        self.connection.certificate_caller()
    }

    /// A caller, with the way that this request came.
    pub(super) fn locate(&self, caller: &Caller, user_agent: Option<&HeaderValue>) -> Arc<Caller> {
        self.connection.locate(caller, user_agent)
    }

    /// A request has proved who has sent it.
    pub(super) fn mark_authenticated(&self, caller: &Arc<Caller>) {
        self.slot().mark_authenticated();
        *self.lock() = Some(caller.clone());
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.slot().is_authenticated()
    }

    /// What has arrived of a request may prove who has sent it.
    pub(super) fn request_is_promising(&self) {
        self.slot().request_is_promising();
    }

    /// What a request may hold while its body arrives.
    pub(super) fn body_budget(&self) -> BodyBudget<'_> {
        let certified = self.certificate_caller().and_then(Result::ok);
        match certified.or_else(|| self.lock().clone()) {
            Some(caller) => BodyBudget::Caller(ReceivedBytes::of(caller.arn())),
            None => BodyBudget::PreAuth(self.slot()),
        }
    }

    fn slot(&self) -> &PreAuthSlot {
        &self.connection.slot
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Caller>>> {
        self.signed_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender<'_> {
    /// Returns when the connection has to go, so that nothing more is kept of its request.
    pub(super) async fn evicted(&self) {
        self.slot().evicted().await;
    }

    /// Counts a request that was refused. Security: who is not known may try a few times; then the
    /// answers come slowly, and then the connection ends.
    pub(super) async fn refused(&self) -> RefusalBudget {
        if self.is_authenticated() {
            return RefusalBudget::Left;
        }
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if refused > FREE_REFUSALS {
            sleep(REFUSAL_PAUSE).await;
        }
        if refused < MOST_REFUSALS {
            RefusalBudget::Left
        } else {
            RefusalBudget::Spent
        }
    }
}

/// Whether a connection may ask again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RefusalBudget {
    Left,
    Spent,
}

/// The budget that the bytes of a body count in.
pub(super) enum BodyBudget<'a> {
    PreAuth(&'a PreAuthSlot),
    Caller(ReceivedBytes),
}

impl BodyBudget<'_> {
    /// # Errors
    /// There are too many bytes. Without an error for the client, the connection is being closed.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), Option<Error>> {
        match self {
            Self::PreAuth(slot) => slot.hold(bytes).map_err(|Evicted| None),
            Self::Caller(received) => received.add(bytes).map_err(Some),
        }
    }
}

/// So many refusals are answered at once.
const FREE_REFUSALS: u32 = 4;
const MOST_REFUSALS: u32 = 16;
/// The others wait so long.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);
