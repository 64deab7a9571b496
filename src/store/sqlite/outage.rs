//! What the disk refuses, and a catalogue that is gone: a line of the log when it begins, one a minute while it
//! goes on, one when it is over.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{error, info};

use crate::model::seconds;

/// How often the log says that it goes on.
const MINUTE: Duration = Duration::from_mins(1);

/// What is wrong with the catalogue now, if something is.
#[derive(Debug)]
pub(super) struct Outage {
    since: Option<Since>,
    /// For operators: why no change can be made.
    trouble: watch::Sender<Option<String>>,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    began: Instant,
    told: Instant,
}

impl Outage {
    pub(super) fn none() -> Self {
        Self {
            since: None,
            trouble: watch::Sender::new(None),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// A change, or a look, failed.
    pub(super) fn goes_on(&mut self, database: &Path, reason: &str) {
        let now = Instant::now();
        let path = database.display();
        match &mut self.since {
            None => {
                error!(
                    event = "store_unwritable", %path, reason,
                    "the catalogue cannot be written: keys serve, and nothing about them can be changed"
                );
                self.since = Some(Since {
                    began: now,
                    told: now,
                });
            }
            Some(since) if now - since.told >= MINUTE => {
                since.told = now;
                let age_s = seconds(now - since.began);
                error!(
                    event = "store_unwritable", %path, reason, age_s,
                    "the catalogue still cannot be written"
                );
            }
            Some(_) => {}
        }
        self.trouble.send_if_modified(|known| {
            let is_another = known.as_deref() != Some(reason);
            if is_another {
                *known = Some(reason.to_owned());
            }
            is_another
        });
    }

    /// A change was made.
    pub(super) fn over(&mut self, database: &Path) {
        let Some(since) = self.since.take() else {
            return;
        };
        let (path, age_s) = (database.display(), seconds(since.began.elapsed()));
        info!(event = "store_writable", %path, age_s, "the catalogue is written again");
        self.trouble.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_while_it_goes_on() {
        let mut outage = Outage::none();
        let known = outage.watch();
        let path = Path::new("/var/lib/hsmac/catalogue.db");
        outage.over(path);
        assert_eq!(*known.borrow(), None);
        outage.goes_on(path, "the disk is full");
        outage.goes_on(path, "it is gone");
        assert_eq!(known.borrow().as_deref(), Some("it is gone"));
        outage.over(path);
        assert_eq!(*known.borrow(), None);
    }
}
