//! The connections on which nobody has proved yet who he is.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

/// The strangers of a listener, the oldest first.
pub(super) struct Strangers {
    most: usize,
    here: Mutex<VecDeque<Arc<Standing>>>,
}

impl Strangers {
    /// So many may be here at a time.
    pub(super) fn at_most(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            here: Mutex::default(),
        })
    }

    /// Lets one more in. If there are too many then, the one that has been here longest and asks for
    /// nothing has to go: a caller asks as soon as it is here, so that those who only sit there
    /// cannot keep it out.
    pub(super) fn admit(self: &Arc<Self>) -> Stay {
        let newcomer = Arc::<Standing>::default();
        let mut here = self.lock();
        if here.len() >= self.most {
            let idle = |one: &Arc<Standing>| !one.asking.load(Ordering::Acquire);
            let oldest = here.iter().position(idle).unwrap_or(0);
            if let Some(oldest) = here.remove(oldest) {
                oldest.leave.notify_one();
            }
        }
        here.push_back(newcomer.clone());
        Stay {
            strangers: self.clone(),
            standing: newcomer,
        }
    }

    fn forget(&self, one: &Arc<Standing>) {
        self.lock().retain(|other| !Arc::ptr_eq(one, other));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Standing>>> {
        self.here.lock().expect("nobody panics with this lock held")
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }
}

/// What is known of a connection's caller.
#[derive(Default)]
struct Standing {
    proven: AtomicBool,
    /// A request has arrived and is not answered yet.
    asking: AtomicBool,
    /// There was a proof: from now on it may stay.
    stay: Notify,
    /// Another one takes its place.
    leave: Notify,
}

/// A connection among the strangers, until a proof or its end.
pub(super) struct Stay {
    strangers: Arc<Strangers>,
    standing: Arc<Standing>,
}

impl Stay {
    /// It is no stranger's any more.
    pub(super) fn prove(&self) {
        if !self.standing.proven.swap(true, Ordering::AcqRel) {
            self.strangers.forget(&self.standing);
            self.standing.stay.notify_one();
        }
    }

    pub(super) fn is_proven(&self) -> bool {
        self.standing.proven.load(Ordering::Acquire)
    }

    /// A request has arrived.
    pub(super) fn asks(&self) {
        self.standing.asking.store(true, Ordering::Release);
    }

    /// It is answered.
    pub(super) fn is_answered(&self) {
        self.standing.asking.store(false, Ordering::Release);
    }

    pub(super) fn is_asking(&self) -> bool {
        self.standing.asking.load(Ordering::Acquire)
    }

    /// Returns when another one takes a stranger's place.
    pub(super) async fn is_displaced(&self) {
        self.standing.leave.notified().await;
        if self.is_proven() {
            pending().await
        }
    }

    /// Returns when a stranger has been here for too long; never, if there was a proof in time.
    pub(super) async fn overstays(&self, limit: Duration) {
        tokio::select! {
            () = sleep(limit) => {}
            () = self.is_displaced() => {}
            () = self.standing.stay.notified() => pending().await,
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.strangers.forget(&self.standing);
    }
}
