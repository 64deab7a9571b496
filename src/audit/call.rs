//! What is known of a call while it runs, and its record. What the operations find out on the way (the key, the alias)
//! is noted here by the task that runs the call, as they know no wire and the wires know no keys.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use super::log::Log;
use crate::{
    error::{Error, Kind},
    model::{Caller, MacAlgorithm, Operation},
    proto::audit::Wire,
};

tokio::task_local! {
    static CALL: RefCell<Running>;
}

struct Running {
    log: Arc<Log>,
    wire: Wire,
    request_id: [u8; 16],
    trace_id: Option<[u8; 16]>,
    /// Who asks for what; of calls that may make a change.
    asked: Option<(Arc<str>, Option<IpAddr>, &'static str)>,
    noted: Noted,
}

/// What a call was about.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    key: Option<Arc<str>>,
    algorithm: Option<MacAlgorithm>,
    alias: Option<String>,
    grant_id: Option<String>,
    attempted: bool,
}

/// A call, as it is recorded.
#[derive(Clone, Debug)]
pub struct CallRecord<'a> {
    /// How it came.
    pub wire: Wire,
    /// Its request ID, a UUID; none: hsmac's own act.
    pub request_id: Option<[u8; 16]>,
    /// The client's trace.
    pub trace_id: Option<[u8; 16]>,
    /// `GenerateMac`
    pub operation: &'a str,
    /// The caller's ARN; none: hsmac itself.
    pub principal: Option<&'a str>,
    /// The caller's address; none over a Unix socket.
    pub source: Option<IpAddr>,
    /// The name of the exception; none: it went well.
    pub exception: Option<&'a str>,
    /// What the operations noted.
    pub noted: Noted,
}

impl<'a> CallRecord<'a> {
    /// What hsmac does by itself.
    pub(super) fn own_act(operation: &'a str, key: &Arc<str>) -> Self {
        Self {
            wire: Wire::Unspecified,
            request_id: None,
            trace_id: None,
            operation,
            principal: None,
            source: None,
            exception: None,
            noted: Noted {
                key: Some(Arc::clone(key)),
                attempted: true,
                ..Noted::default()
            },
        }
    }
}

impl CallRecord<'_> {
    pub(super) fn key(&self) -> Option<&str> {
        self.noted.key.as_deref()
    }

    pub(super) fn algorithm(&self) -> Option<&'static str> {
        self.noted.algorithm.map(MacAlgorithm::name)
    }

    pub(super) fn alias(&self) -> &str {
        self.noted.alias.as_deref().unwrap_or_default()
    }

    pub(super) fn grant_id(&self) -> &str {
        self.noted.grant_id.as_deref().unwrap_or_default()
    }

    /// Whether a change was begun: then its outcome has to outlive a power cut, as the change does.
    pub(super) fn is_change(&self) -> bool {
        self.noted.attempted
    }
}

/// Runs a call; gives what was noted while it ran. A large future is pinned before, so that it is not copied.
pub async fn noting<F: Future>(
    log: &Arc<Log>,
    wire: Wire,
    request_id: [u8; 16],
    trace_id: Option<[u8; 16]>,
    call: F,
) -> (F::Output, Noted) {
    let running = Running {
        log: Arc::clone(log),
        wire,
        request_id,
        trace_id,
        asked: None,
        noted: Noted::default(),
    };
    let noted = async {
        let output = call.await;
        (
            output,
            CALL.with(|call| std::mem::take(&mut call.borrow_mut().noted)),
        )
    };
    CALL.scope(RefCell::new(running), noted).await
}

/// Refuses a call whose record could not be written, before it is worked on.
///
/// # Errors
/// [`Kind::Internal`]: the log cannot be written, and `on_failure = "refuse"`.
pub fn admit(caller: &Caller, operation: Operation) -> Result<(), Error> {
    let admitted = CALL.try_with(|call| {
        let mut call = call.borrow_mut();
        let cryptographic = matches!(
            operation,
            Operation::GenerateMac | Operation::VerifyMac | Operation::GenerateRandom
        );
        if !cryptographic && call.asked.is_none() {
            let source = caller.origin().source_ip;
            call.asked = Some((caller.arn().into(), source, operation.name()));
        }
        call.log.admit(cryptographic)
    });
    // No scope: nothing is recorded.
    admitted.unwrap_or(Ok(()))
}

/// Notes the key of this task's call, by its ARN.
pub fn note_key(arn: &Arc<str>) {
    note(|noted| noted.key = Some(Arc::clone(arn)));
}

/// Notes the algorithm that the call asks for.
pub fn note_algorithm(algorithm: MacAlgorithm) {
    note(|noted| noted.algorithm = Some(algorithm));
}

/// Notes the alias that the call is about.
pub fn note_alias(name: &str) {
    note(|noted| noted.alias = Some(name.to_owned()));
}

/// Notes the grant that the call is about.
pub fn note_grant(id: &str) {
    note(|noted| noted.grant_id = Some(id.to_owned()));
}

fn note(note: impl FnOnce(&mut Noted)) {
    // An error says that nothing is recorded.
    let _ = CALL.try_with(|call| note(&mut call.borrow_mut().noted));
}

/// Records that this task's call is about to make a change; returns when that is on disk. Once for each call.
///
/// # Errors
/// [`Kind::Internal`]: it cannot be recorded, and `on_failure = "refuse"`.
pub async fn attempt() -> Result<(), Error> {
    let attempt = CALL.try_with(|call| {
        let mut call = call.borrow_mut();
        if std::mem::replace(&mut call.noted.attempted, true) {
            return None;
        }
        let (principal, source, operation) = call.asked.clone()?;
        let rest = (
            call.wire,
            call.request_id,
            call.trace_id,
            call.noted.clone(),
        );
        Some((Arc::clone(&call.log), principal, source, operation, rest))
    });
    let Ok(Some((log, principal, source, operation, rest))) = attempt else {
        return Ok(());
    };
    let (wire, request_id, trace_id, noted) = rest;
    let record = CallRecord {
        wire,
        request_id: Some(request_id),
        trace_id,
        operation,
        principal: Some(&principal),
        source,
        exception: None,
        noted,
    };
    log.attempt(&record).await
}

/// What a caller is told whose call cannot be recorded; the cause is for the log.
pub(super) fn unrecorded(cause: String) -> Error {
    Error::new(
        Kind::Internal,
        "The request was rejected because an internal exception occurred. The request can be retried.",
    )
    .because(format!("the audit log cannot be written: {cause}"))
}
