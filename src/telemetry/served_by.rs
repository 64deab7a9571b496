//! Which host had the work of a call, from where it is known to where the call is logged.

use std::cell::RefCell;

tokio::task_local! {
    static SERVED_BY: RefCell<Option<ServedBy>>;
}

/// A host of a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServedBy {
    /// The token's name in the configuration.
    pub token: String,
    /// The host's number.
    pub host: u32,
}

/// Runs a call; gives the host that was noted last while it ran. A large future is pinned before, so that
/// it is not copied.
pub async fn noting<F: Future>(call: F) -> (F::Output, Option<ServedBy>) {
    let noted = async {
        let output = call.await;
        (output, SERVED_BY.with(RefCell::take))
    };
    SERVED_BY.scope(RefCell::default(), noted).await
}

/// Notes the host that had the work of this task's call; nothing if the task has no call.
pub fn note(token: &str, host: u32) {
    // An error says that nobody asks.
    let _ = SERVED_BY.try_with(|served_by| {
        served_by.replace(Some(ServedBy {
            token: token.to_owned(),
            host,
        }))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_host_is_noted_and_none_for_another_call() {
        note("nobody asks", 1);
        let call = async {
            note("primary", 1);
            tokio::task::yield_now().await;
            note("primary", 2);
            7
        };
        let (output, served_by) = noting(call).await;
        let last = ServedBy {
            token: "primary".to_owned(),
            host: 2,
        };
        assert_eq!((output, served_by), (7, Some(last)));
        assert_eq!(noting(async {}).await, ((), None));
    }
}
