//! The log's thread: brings to disk what must outlive a power cut, writes a checkpoint each second in which there was
//! something, and tries again after a failure.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::{
    files::end,
    frame::Kind,
    log::{Log, is_hung},
    state::{State, begin, checkpoint},
};
use crate::{model::Checkpoint, proto::audit::entry::Entry as Leaf};

/// Looks after a log until it is closed.
pub(super) fn tend(log: &Log) {
    let (mut next, mut strangers) = (Instant::now() + SECOND, Instant::now() + MINUTE);
    loop {
        let ends = log.wait_for_work(next);
        log.sync_for_waiters();
        let now = Instant::now();
        if ends || now >= next {
            next = now + SECOND;
            if ends || now >= strangers {
                strangers = now + MINUTE;
                log.record_strangers();
            }
            log.each_second();
        }
        if ends {
            return log.finish();
        }
    }
}

impl Log {
    /// Waits until somebody wants a sync, the log is closed, or it is `next`; whether it is closed.
    fn wait_for_work(&self, next: Instant) -> bool {
        let mut state = self.state();
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if !state.sync_waiters.is_empty() || state.ends || left.is_zero() {
                return state.ends;
            }
            let woken = self.work.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn sync_for_waiters(&self) {
        let waiters = std::mem::take(&mut self.state().sync_waiters);
        if waiters.is_empty() {
            return;
        }
        let synced = self.sync();
        if let Err(error) = &synced {
            self.fail(&mut self.state(), &error.to_string());
        }
        for waiter in waiters {
            // Who waits no longer has given up.
            let _ = waiter.send(synced.is_ok());
        }
    }

    /// Brings to disk all that is written by now.
    fn sync(&self) -> io::Result<()> {
        let (ended, file) = {
            let mut state = self.state();
            let ended = std::mem::take(&mut state.unsynced);
            (ended, Arc::clone(&state.segment.file))
        };
        for segment in &ended {
            segment.sync_data()?;
        }
        file.sync_data()?;
        if ended.is_empty() {
            Ok(())
        } else {
            self.folder.sync()
        }
    }

    fn each_second(&self) {
        self.look_at_room();
        if self.state().trouble.is_some() {
            return self.resume();
        }
        self.look_at_file();
        self.record_missing();
        let (newest, seal) = {
            let mut state = self.state();
            let newest = self.append_checkpoint(&mut state);
            let seal = state.seal_to_keep.take();
            if let Some(text) = &seal {
                state.append_note(Kind::Seal, text);
            }
            if state.buffer.is_empty() && !state.segment.is_over() {
                return;
            }
            (newest, seal)
        };
        let kept = self.write_now() && self.keep(newest, seal.as_deref());
        if !kept {
            self.state().seal_to_keep = seal;
        }
    }

    /// A checkpoint of what was appended since the last one, if there is anything.
    fn append_checkpoint(&self, state: &mut State) -> Option<Checkpoint> {
        if state.trouble.is_some() || state.tree.size() == state.checked {
            return None;
        }
        let newest = checkpoint(&self.origin, &state.tree);
        state.checked = newest.size;
        state.append_note(Kind::Checkpoint, &newest.to_string());
        if let Some(sealing) = &mut state.sealing {
            sealing.checkpointed(&newest);
        }
        Some(newest)
    }

    /// Brings the log to disk, and then what is kept beside it; false if it could not be.
    fn keep(&self, newest: Option<Checkpoint>, seal: Option<&str>) -> bool {
        let kept = self
            .sync()
            .and_then(|()| {
                newest
                    .iter()
                    .try_for_each(|newest| self.folder.keep(newest))
            })
            .and_then(|()| seal.iter().try_for_each(|seal| self.folder.keep_seal(seal)));
        let mut state = self.state();
        if let Err(error) = kept {
            self.fail(&mut state, &error.to_string());
            return false;
        }
        if let (Some(sealing), Some(newest)) = (&mut state.sealing, newest) {
            sealing.is_on_disk(newest);
        }
        true
    }

    /// Has written what was appended by now; false if it could not be.
    fn write_now(&self) -> bool {
        let (leads, batch) = {
            let mut state = self.state();
            let leads = !std::mem::replace(&mut state.has_leader, true);
            (leads, Arc::clone(&state.batch))
        };
        if leads {
            self.write();
        }
        // Somebody else's write is waited for as long as one may take.
        let until = Instant::now() + SECOND;
        while batch.outcome().is_none() && Instant::now() < until && !leads {
            std::thread::sleep(Duration::from_millis(1));
        }
        batch.outcome() == Some(true)
    }

    fn look_at_room(&self) {
        let reserve = u64::from(self.settings.reserve_mib) << 20;
        let free = self.folder.free_bytes();
        let is_low = free.is_some_and(|free| free < reserve);
        if is_low == self.is_low.swap(is_low, Ordering::Relaxed) {
            return;
        }
        let directory = self.folder.path.display();
        if is_low {
            let reason = self.low();
            warn!(event = "audit_low", reason, %directory, "the audit log takes records of changes of keys alone");
        } else {
            info!(event = "audit_resumed", %directory, "the audit log is written again");
        }
    }

    /// Notices that the file that is written was removed.
    fn look_at_file(&self) {
        let file = Arc::clone(&self.state().segment.file);
        let links = file
            .metadata()
            .map(|file| std::os::unix::fs::MetadataExt::nlink(&file));
        if links.is_ok_and(|links| links == 0) {
            self.fail(&mut self.state(), "the file that was written is removed");
        }
    }

    /// Tells how many calls were not recorded while nothing was wrong with the file itself.
    fn record_missing(&self) {
        if self.is_low.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        if let Some(gap) = state.missing.gap()
            && state.trouble.is_none()
            && !is_hung(&state)
        {
            state.missing.told(&gap);
            state.append(gap);
        }
    }

    /// Tries to begin a segment that says how many calls are missing.
    fn resume(&self) {
        let (old, bytes, written, gap) = {
            let state = self.state();
            // A write that hangs would still come after what is written here.
            if state.writing_since.is_some() {
                return;
            }
            let gap = state
                .missing
                .gap_since(state.trouble.as_deref().unwrap_or_default());
            let segment = &state.segment;
            (
                Arc::clone(&segment.file),
                segment.bytes,
                state.written.clone(),
                gap,
            )
        };
        // Half a frame, or half an end that a full disk took, would hide what follows.
        let next = old
            .set_len(bytes)
            .and_then(|()| end(&old, &self.origin, &written))
            .and_then(|()| old.sync_data())
            .and_then(|()| begin(&self.folder, &self.origin, &written, gap.clone()))
            .and_then(|(segment, tree)| {
                segment.file.sync_data()?;
                self.folder.sync()?;
                Ok((segment, tree))
            });
        let mut state = self.state();
        match next {
            Ok((segment, tree)) => {
                state.go_on_in(segment, tree);
                self.is_failing.store(false, Ordering::Relaxed);
                state.missing.told(&gap);
                info!(event = "audit_resumed", directory = %self.folder.path.display(), "the audit log is written again");
            }
            Err(error) => {
                // If this fails too, the end of the file is found damaged.
                let _ = old.set_len(bytes);
                state.trouble = Some(error.to_string());
            }
        }
    }

    fn record_strangers(&self) {
        let mut state = self.state();
        if state.trouble.is_some() {
            return;
        }
        let counted: Vec<_> = state.strangers.take().collect();
        if counted.is_empty() {
            return;
        }
        for strangers in counted {
            state.append(Leaf::Strangers(strangers));
        }
        drop(state);
        self.write_now();
    }

    fn finish(&self) {
        self.write_now();
        let (file, written, is_good) = {
            let state = self.state();
            let file = Arc::clone(&state.segment.file);
            (file, state.written.clone(), state.trouble.is_none())
        };
        let newest = checkpoint(&self.origin, &written);
        if is_good {
            let ended = end(&file, &self.origin, &written)
                .and_then(|()| self.sync())
                .and_then(|()| self.folder.keep(&newest));
            if let Err(error) = ended {
                error!(event = "audit_failed", reason = %error, directory = %self.folder.path.display(), "the audit log cannot be written");
            }
        }
        let size = newest.size;
        info!(event = "audit_closed", size, "the audit log is closed");
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
