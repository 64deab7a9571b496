//! How many items of streams each principal may have in a group's queue and with its hosts.
//!
//! Promises: streams alone never fill a queue up, so that none of their items is refused for that and calls
//! find room; within a principal first come, first served, and nobody waits for another one. What waits
//! here holds no key. Does not: order what is in the queue.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    model::{Flow, Lane},
    token::status::Fault,
};

/// The places of a group.
pub(super) struct StreamRoom(RwLock<Places>);

struct Places {
    /// For each principal.
    each: usize,
    /// By the number of the principal's flow.
    of_flows: Vec<Arc<Semaphore>>,
}

impl StreamRoom {
    /// Of a queue for so many jobs: a quarter of it.
    pub(super) fn new(capacity: usize) -> Self {
        Self(RwLock::new(Places::new(capacity)))
    }

    /// From now on a quarter of so many jobs. Items that have a place, or wait for one, keep it.
    pub(super) fn set_capacity(&self, capacity: usize) {
        let mut places = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let new = Places::new(capacity);
        if new.each != places.each {
            *places = new;
        }
    }

    /// A place for an item of a stream, as soon as there is one; calls need none.
    ///
    /// # Errors
    /// [`Fault::Deadline`].
    pub(super) async fn enter(
        &self,
        flow: Flow,
        until: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, Fault> {
        if flow.lane() == Lane::Calls {
            return Ok(None);
        }
        let places = self.of(flow);
        match timeout_at(until, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(Some(place)),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(Fault::Deadline("before the queue".into())),
        }
    }

    fn of(&self, flow: Flow) -> Arc<Semaphore> {
        let number = flow.number() as usize;
        let places = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = places.of_flows.get(number) {
            return places.clone();
        }
        drop(places);
        let mut places = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Places { each, of_flows } = &mut *places;
        while of_flows.len() <= number {
            of_flows.push(Arc::new(Semaphore::new(*each)));
        }
        of_flows[number].clone()
    }
}

impl Places {
    fn new(capacity: usize) -> Self {
        Self {
            each: (capacity / 4).max(1),
            of_flows: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_principal_s_items_have_a_quarter_of_the_queue_and_wait_for_their_own_alone() {
        let room = StreamRoom::new(10);
        let until = Instant::now() + Duration::from_secs(5);
        let (one, other) = (Flow::new(3, 1), Flow::new(1, 1));
        let items = one.of_stream_items();
        let mut places = vec![room.enter(items, until).await.unwrap().unwrap()];
        places.push(room.enter(items, until).await.unwrap().unwrap());
        let late = room.enter(items, until).await.unwrap_err();
        assert!(matches!(late, Fault::Deadline(_)), "{late}");
        let until = Instant::now() + Duration::from_secs(5);
        let free = room.enter(other.of_stream_items(), until).await.unwrap();
        assert!(free.is_some());
        assert!(room.enter(one, until).await.unwrap().is_none());
        let (waits, ()) = tokio::join!(room.enter(items, until), async {
            places.pop();
        });
        assert!(waits.unwrap().is_some());
    }
}
