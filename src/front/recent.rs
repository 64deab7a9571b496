//! What failed of late, for operators: calls that failed for a reason of ours, and who was refused.
//!
//! Promises: a call that goes well touches nothing here; what is kept is bounded, whatever peers send.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use super::call::RequestId;
use crate::{
    error::{Error, Kind},
    model::Caller,
};

/// So many failed calls are remembered.
const MOST_FAULTS: usize = 100;
/// So many callers are told apart, by operation and exception.
const MOST_REFUSALS: usize = 32;

/// The last failures of one API.
#[derive(Default)]
pub(super) struct Recent {
    /// The newest first.
    faults: Mutex<VecDeque<RecentFault>>,
    refusals: Mutex<Vec<Refusal>>,
}

/// A call that failed for a reason of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecentFault {
    /// When.
    pub at: SystemTime,
    /// What the client has in its answer, and the log in its lines.
    pub request_id: String,
    /// KMS's name.
    pub operation: &'static str,
    /// What the client was told.
    pub kind: Kind,
    /// Why, for operators; none if nothing is known.
    pub cause: Option<Arc<str>>,
}

/// Calls of one caller that were denied, throttled, or came without a good proof.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The principal's ARN; none: unknown.
    pub caller: Option<String>,
    /// KMS's name.
    pub operation: &'static str,
    /// What the client was told.
    pub kind: Kind,
    /// How often, as far as is known: of more callers than are told apart, those that are refused rarely
    /// may be counted too often.
    pub count: u64,
    /// When it was the last time.
    pub at: SystemTime,
    /// Which call was the last.
    pub request_id: String,
}

impl Recent {
    /// A call of this caller has failed.
    pub(super) fn failed(
        &self,
        operation: &'static str,
        kind: Kind,
        caller: Option<&Caller>,
        cause: Option<Arc<str>>,
        request_id: RequestId,
    ) {
        if kind.is_ours() {
            let mut faults = lock(&self.faults);
            faults.truncate(MOST_FAULTS - 1);
            faults.push_front(RecentFault {
                at: SystemTime::now(),
                request_id: request_id.to_string(),
                operation,
                kind,
                cause,
            });
        } else if kind.is_refusal() {
            let caller = caller.map(Caller::arn);
            note(
                &mut lock(&self.refusals),
                operation,
                kind,
                caller,
                request_id,
            );
        }
    }

    /// The failed calls, the newest first.
    pub(super) fn faults(&self) -> Vec<RecentFault> {
        lock(&self.faults).iter().cloned().collect()
    }

    pub(super) fn refusals(&self) -> Vec<Refusal> {
        lock(&self.refusals).clone()
    }
}

/// Counts in bounded space (Metwally's "space saving"): who is new takes the place, and the count, of the
/// rarest one.
fn note(
    refusals: &mut Vec<Refusal>,
    operation: &'static str,
    kind: Kind,
    caller: Option<&str>,
    request_id: RequestId,
) {
    let known = refusals.iter().position(|one| {
        one.kind == kind && one.operation == operation && one.caller.as_deref() == caller
    });
    let index = known.unwrap_or_else(|| {
        let rarest = refusals.iter().enumerate().min_by_key(|(_, one)| one.count);
        let (index, count) = match rarest {
            Some((index, one)) if refusals.len() >= MOST_REFUSALS => (index, one.count),
            Some(_) | None => (refusals.len(), 0),
        };
        let new = Refusal {
            caller: caller.map(str::to_owned),
            operation,
            kind,
            count,
            at: SystemTime::UNIX_EPOCH,
            request_id: String::new(),
        };
        if index == refusals.len() {
            refusals.push(new);
        } else {
            refusals[index] = new;
        }
        index
    });
    let one = &mut refusals[index];
    one.count += 1;
    one.at = SystemTime::now();
    one.request_id = request_id.to_string();
}

/// The private cause of an error, if operators are shown it.
pub(super) fn shown_cause(error: &Error) -> Option<Arc<str>> {
    let cause = error
        .cause()
        .filter(|_| error.kind().is_ours() || error.kind() == Kind::Throttling)?;
    Some(cause.to_string().into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with this lock held")
}

#[cfg(test)]
mod tests {
    use super::*;
    const MAC: &str = "GenerateMac";

    fn caller(name: &str) -> Caller {
        Caller::parse(&format!("arn:aws:iam::111122223333:user/{name}")).unwrap()
    }

    #[test]
    fn the_last_hundred_failures_of_ours_are_there_and_nobody_else_s() {
        let recent = Recent::default();
        for kind in Kind::ALL {
            recent.failed(MAC, kind, None, None, RequestId::next());
        }
        let seen: Vec<Kind> = recent.faults().iter().map(|fault| fault.kind).collect();
        assert_eq!(
            seen,
            [
                Kind::KeyUnavailable,
                Kind::Internal,
                Kind::DependencyTimeout
            ]
        );
        for number in 0..250 {
            let cause = Some(format!("fault {number}").into());
            recent.failed(MAC, Kind::Internal, None, cause, RequestId::next());
        }
        let seen = recent.faults();
        assert_eq!(seen.len(), MOST_FAULTS);
        assert_eq!(seen[0].cause.as_deref(), Some("fault 249"));
        assert_eq!(seen[99].cause.as_deref(), Some("fault 150"));
    }

    #[test]
    fn refusals_are_counted_by_caller_and_strangers_take_no_room() {
        let recent = Recent::default();
        let refuse = |caller: Option<&Caller>, kind| {
            recent.failed(MAC, kind, caller, None, RequestId::next());
        };
        for _ in 0..500 {
            refuse(Some(&caller("eve")), Kind::AccessDenied);
            refuse(None, Kind::MissingAuthenticationToken);
        }
        for number in 0..1000 {
            refuse(Some(&caller(&number.to_string())), Kind::Throttling);
        }
        let seen = recent.refusals();
        assert_eq!(seen.len(), MOST_REFUSALS);
        let count = |kind, caller: Option<&str>| {
            let mut of = seen.iter().filter(|one| one.kind == kind);
            of.find(|one| one.caller.as_deref() == caller)
                .map(|one| one.count)
        };
        let eve = caller("eve");
        assert_eq!(count(Kind::AccessDenied, Some(eve.arn())), Some(500));
        assert_eq!(count(Kind::MissingAuthenticationToken, None), Some(500));
        assert!(recent.faults().is_empty());
    }
}
