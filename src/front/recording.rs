//! The record of a call, written before its answer is sent: one place for both wires.

use std::{net::IpAddr, sync::Arc};

use super::{
    call::{ClientIds, RequestId},
    metrics::CalledOperation,
};
use crate::{
    audit::{self, CallRecord, Log, Noted},
    error::{Error, Kind},
    kms::Kms,
    model::{Caller, decode_hex},
    proto::audit::Wire,
};

/// Where the calls of a wire are recorded.
#[derive(Clone)]
pub(super) struct Recording {
    pub(super) log: Arc<Log>,
    pub(super) wire: Wire,
}

/// How a call ended.
pub(super) struct Ended<'a> {
    pub(super) operation: CalledOperation,
    /// None: nobody has proved who it is.
    pub(super) caller: Option<&'a Caller>,
    /// Where it came from, if nobody has.
    pub(super) source: Option<IpAddr>,
    pub(super) failed: Option<Kind>,
}

/// Runs a call; gives what is to be recorded of it, if anything is.
pub(super) async fn noting<F: Future>(
    recording: Option<&Recording>,
    request_id: RequestId,
    ids: &ClientIds,
    call: F,
) -> (F::Output, Noted) {
    match recording {
        None => (call.await, Noted::default()),
        Some(Recording { log, wire }) => {
            audit::noting(log, *wire, request_id.bytes(), trace_id(ids), call).await
        }
    }
}

impl Recording {
    /// None: calls are not recorded.
    pub(super) fn of(kms: &Kms, wire: Wire) -> Option<Self> {
        let log = Arc::clone(kms.audit()?);
        Some(Self { log, wire })
    }

    /// Records how a call ended. A call of nobody is counted; one of no operation, such as a health check, is not
    /// recorded.
    ///
    /// # Errors
    /// [`Kind::Internal`]: it could not be recorded, and must be answered with this.
    pub(super) async fn ended(
        &self,
        ended: Ended<'_>,
        request_id: RequestId,
        ids: &ClientIds,
        noted: Noted,
    ) -> Result<(), Error> {
        let exception = ended.failed.map(Kind::exception);
        let Some(caller) = ended.caller else {
            if let Some(exception) = exception {
                self.log.stranger(ended.source, exception);
            }
            return Ok(());
        };
        if ended.operation == CalledOperation::OTHER {
            return Ok(());
        }
        let record = CallRecord {
            wire: self.wire,
            request_id: Some(request_id.bytes()),
            trace_id: trace_id(ids),
            operation: ended.operation.name(),
            principal: Some(caller.arn()),
            source: caller.origin().source_ip,
            exception,
            noted,
        };
        self.log.outcome(&record).await
    }
}

fn trace_id(ids: &ClientIds) -> Option<[u8; 16]> {
    decode_hex(ids.trace_id()?)?.try_into().ok()
}
