//! The engine in memory with faults, for simulations: what is committed may fail, or be made without
//! anybody hearing of it, and a process that has died commits nothing more.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    Change, CommitFault, Fault, Name, Prefix, Record, Revision, Store, memory::MemoryEngine,
};

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CommitFate {
    /// It is as it should be.
    Good,
    /// The disk refuses, and nothing is changed.
    Away,
    /// The disk fails, and the change is made, or is not.
    Unknown { made: bool },
    /// The process is dead.
    Dead,
}

/// Who decides.
pub(crate) trait StoreFaults: Send + Sync {
    /// How long a commit takes, and what becomes of it.
    fn commit(&self) -> (Duration, CommitFate);

    /// Whether the disk can be read.
    fn can_read(&self) -> bool;
}

/// Records in memory, behind faults.
#[derive(Clone)]
pub struct SimulatedEngine {
    pub(super) memory: MemoryEngine,
    faults: Arc<dyn StoreFaults>,
}

impl fmt::Debug for SimulatedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated store")
    }
}

/// The records that several processes have one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedDisk(MemoryEngine);

impl SimulatedDisk {
    /// The store as one process has it.
    pub(crate) fn open(&self, faults: Arc<dyn StoreFaults>) -> Store {
        Store::Simulated(SimulatedEngine {
            memory: self.0.clone(),
            faults,
        })
    }

    /// What is there, without faults.
    pub(crate) fn read(&self, name: &Name) -> Option<Record> {
        self.0.read(name).expect("the memory has no faults")
    }

    /// All that is there, without faults.
    pub(crate) fn list(&self, under: &Prefix) -> Vec<Record> {
        let all = self.0.list(under, None, usize::MAX);
        all.expect("the memory has no faults")
    }

    /// Changes what is there, as an operator's tool does.
    ///
    /// # Errors
    /// [`CommitFault::Stale`]
    pub(crate) fn commit(&self, change: Change) -> Result<Revision, CommitFault> {
        self.0.commit(change)
    }
}

impl SimulatedEngine {
    pub(super) fn read(&self, name: &Name) -> Result<Option<Record>, Fault> {
        self.look()?;
        self.memory.read(name)
    }

    pub(super) fn list(
        &self,
        under: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Record>, Fault> {
        self.look()?;
        self.memory.list(under, after, limit)
    }

    pub(super) fn revision(&self) -> Result<Revision, Fault> {
        self.look()?;
        self.memory.revision()
    }

    pub(super) async fn commit(&self, change: Change) -> Result<Revision, CommitFault> {
        let (takes, _) = self.faults.commit();
        sleep(takes).await;
        let (answers, fate) = self.faults.commit();
        let committed = match fate {
            CommitFate::Good => self.memory.commit(change),
            CommitFate::Away => Err(Fault::Away("as the dice say".into()).into()),
            CommitFate::Dead => Err(Fault::Closed.into()),
            CommitFate::Unknown { made } => {
                if made {
                    self.memory.commit(change)?;
                }
                Err(Fault::Unknown("as the dice say".into()).into())
            }
        };
        sleep(answers).await;
        committed
    }

    fn look(&self) -> Result<(), Fault> {
        match self.faults.can_read() {
            true => Ok(()),
            false => Err(Fault::Away("as the dice say".into())),
        }
    }
}
