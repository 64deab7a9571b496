//! What is noted of a call while it runs, from where it is known to where the call is logged and traced.

use std::{cell::RefCell, time::Instant};

tokio::task_local! {
    static NOTES: RefCell<CallNotes>;
}

/// What was noted of one call.
#[derive(Debug, Default)]
pub struct CallNotes {
    /// The host that had the work last; none if no host had.
    pub served_by: Option<ServedBy>,
    /// Its parts, as they ended; none unless calls are traced.
    pub stages: Vec<Stage>,
}

/// A host of a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServedBy {
    /// The token's name in the configuration.
    pub token: String,
    /// The host's number.
    pub host: u32,
}

/// A part of a call.
#[derive(Clone, Debug)]
pub struct Stage {
    /// `authenticate`, `authorize`, `queue`, or the PKCS#11 function that the token ran.
    pub name: &'static str,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
}

/// Runs a call; gives what was noted while it ran. A large future is pinned before, so that it is not
/// copied.
pub async fn noting<F: Future>(call: F) -> (F::Output, CallNotes) {
    let noted = async {
        let output = call.await;
        (output, NOTES.with(RefCell::take))
    };
    NOTES.scope(RefCell::default(), noted).await
}

/// Notes the host that had the work of this task's call; nothing if the task has no call.
pub fn note_host(token: &str, host: u32) {
    // An error says that nobody asks.
    let _ = NOTES.try_with(|notes| {
        notes.borrow_mut().served_by = Some(ServedBy {
            token: token.to_owned(),
            host,
        });
    });
}

/// Notes a part of this task's call; nothing if the task has no call.
pub fn note_stage(name: &'static str, began: Instant, ended: Instant) {
    let _ = NOTES.try_with(|notes| {
        notes.borrow_mut().stages.push(Stage { name, began, ended });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_host_and_the_parts_are_noted_and_nothing_for_another_call() {
        note_host("nobody asks", 1);
        let call = async {
            note_host("primary", 1);
            tokio::task::yield_now().await;
            note_host("primary", 2);
            let now = Instant::now();
            note_stage("authorize", now, now);
            note_stage("queue", now, now);
            7
        };
        let (output, notes) = noting(call).await;
        let last = ServedBy {
            token: "primary".to_owned(),
            host: 2,
        };
        assert_eq!((output, notes.served_by), (7, Some(last)));
        let names: Vec<_> = notes.stages.iter().map(|stage| stage.name).collect();
        assert_eq!(names, ["authorize", "queue"]);
        let ((), notes) = noting(async {}).await;
        assert!(notes.served_by.is_none() && notes.stages.is_empty());
    }
}
