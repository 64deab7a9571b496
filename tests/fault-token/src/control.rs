//! The control file: read again when it changes, while the module runs.

use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    rule::{Event, Rules},
    token::{FaultToken, lock},
};

/// How long a rule may go unseen.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct Control {
    path: Option<PathBuf>,
    rules: RwLock<Arc<Rules>>,
    seen: Mutex<Seen>,
    began: Instant,
    /// When to look at the file again, in nanoseconds since `began`.
    next_look: AtomicU64,
}

#[derive(Default)]
struct Seen {
    stamp: Stamp,
    happened: HashSet<Event>,
}

/// What tells one version of the file from the next.
#[derive(Default, Eq, PartialEq)]
enum Stamp {
    #[default]
    NoFile,
    File {
        inode: u64,
        modified: (i64, i64),
        size: u64,
    },
    Unreadable(io::ErrorKind),
}

impl Control {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            rules: RwLock::default(),
            seen: Mutex::default(),
            began: Instant::now(),
            next_look: AtomicU64::new(0),
        }
    }

    /// The file, if there is to be one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The rules in force, at most [`PAUSE`] behind the file.
    pub(crate) fn rules(&self, token: &FaultToken) -> Arc<Rules> {
        if self.path.is_some() {
            let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let due = self.next_look.load(Relaxed);
            let next = now.saturating_add(PAUSE.as_nanos() as u64);
            // One thread looks, the others go on with what was known until now.
            if now >= due
                && (self.next_look)
                    .compare_exchange(due, next, Relaxed, Relaxed)
                    .is_ok()
            {
                self.look(token);
            }
        }
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.clone()
    }

    /// Reads the file if it has changed, lets happen what is new in it, and puts its rules in force.
    pub(crate) fn look(&self, token: &FaultToken) {
        let Some(path) = &self.path else {
            return;
        };
        let mut seen = lock(&self.seen);
        if Stamp::of(&fs::metadata(path)) == seen.stamp {
            return;
        }
        let before = (self.rules.read())
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (stamp, text) = read(path);
        seen.stamp = stamp;
        let rules = match text {
            Ok(text) => Rules::parse(&text, path, &before),
            Err(error) => Rules::bad(format!("{}: {error}", path.display())),
        };
        if let Some(why) = &rules.bad {
            eprintln!("fault-token: {why}; every call fails until this is mended");
        }
        let new: Vec<&Event> = (rules.events.iter())
            .filter(|event| seen.happened.insert((*event).clone()))
            .collect();
        if !new.is_empty() || !rules.hidden_tokens.is_empty() || !before.hidden_tokens.is_empty() {
            let mut world = (token.world.write()).unwrap_or_else(PoisonError::into_inner);
            for event in new {
                world.happen(token, event, &rules);
            }
            world.hide(token, &rules);
        }
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}

impl Stamp {
    fn of(metadata: &io::Result<Metadata>) -> Self {
        match metadata {
            Ok(file) => Self::File {
                inode: file.ino(),
                modified: (file.mtime(), file.mtime_nsec()),
                size: file.size(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::NoFile,
            Err(error) => Self::Unreadable(error.kind()),
        }
    }
}

/// The file's text with the stamp of the very file that it came from. No file is an empty one.
fn read(path: &Path) -> (Stamp, io::Result<String>) {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return (Stamp::NoFile, Ok(String::new()));
        }
        Err(error) => return (Stamp::of(&fs::metadata(path)), Err(error)),
    };
    let stamp = Stamp::of(&file.metadata());
    let mut text = String::new();
    let text = file.read_to_string(&mut text).map(|_| text);
    (stamp, text)
}
