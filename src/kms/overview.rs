//! The keys and tokens at one moment, for operators: nothing here is asked of a token or of the store.

use std::sync::Arc;

use crate::{
    kms::{
        catalogue::{KeyRecord, stored::StoredState},
        service::Kms,
    },
    metrics::Distribution,
    model::{Date, KeyState},
    store::StoreSnapshot,
    token::GroupSnapshot,
};

/// So many keys of a kind are named; how many there are besides is counted.
const NAMED: usize = 20;

/// Keys and tokens at one moment.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The groups of tokens, in the order of their names.
    pub groups: Vec<GroupSnapshot>,
    /// How many keys are in each state; all states are there.
    pub keys: [(KeyState, usize); KeyState::ALL.len()],
    /// Keys that cannot serve although they are enabled, 20 at most.
    pub troubled: Vec<TroubledKey>,
    /// Keys with a deletion date, the next first, 20 at most.
    pub deletions: Vec<ScheduledDeletion>,
    /// The store was restored from a backup: deletions, and keys that were enabled, wait for a person.
    pub held: bool,
    /// MACs that did not match.
    pub mac_mismatches: u64,
    /// Messages that begin with what hsmac keeps for itself.
    pub reserved_messages: u64,
    /// Requests for MACs with a key that is pending deletion: somebody still wants it.
    pub pending_deletion_calls: u64,
    /// Objects that were to be destroyed and are left alone, since they are not what they should be.
    pub deletion_alarms: usize,
    /// What the store did; none: there is no file.
    pub store: Option<StoreSnapshot>,
    /// How long it took to find a key and judge the rights of a request for a MAC; one in sixteen.
    pub authorization: Distribution,
}

/// An enabled key that cannot serve.
#[derive(Clone, Debug)]
pub struct TroubledKey {
    /// Its ARN.
    pub arn: Arc<str>,
    /// What its owner calls it.
    pub description: String,
    /// Why, for operators.
    pub reason: String,
}

/// A key that will be deleted.
#[derive(Clone, Debug)]
pub struct ScheduledDeletion {
    /// Its ARN.
    pub arn: Arc<str>,
    /// What its owner calls it.
    pub description: String,
    /// When.
    pub date: Date,
}

impl Kms {
    /// The keys and tokens as they are now.
    pub fn overview(&self) -> Overview {
        let mut keys = KeyState::ALL.map(|state| (state, 0));
        let (mut troubled, mut deletions) = (Vec::new(), Vec::new());
        for record in self.catalogue.all() {
            let state = record.state();
            for (known, count) in &mut keys {
                *count += usize::from(*known == state);
            }
            if state == KeyState::Unavailable && troubled.len() < NAMED {
                troubled.push(TroubledKey {
                    arn: record.arn.clone(),
                    description: record.body.description.as_str().to_owned(),
                    reason: trouble(&record),
                });
            }
            if let StoredState::PendingDeletion { deletion_date, .. } = record.body.state {
                deletions.push(ScheduledDeletion {
                    arn: record.arn.clone(),
                    description: record.body.description.as_str().to_owned(),
                    date: deletion_date,
                });
            }
        }
        deletions.sort_by_key(|deletion| deletion.date);
        deletions.truncate(NAMED);
        let (metrics, lifecycle) = (&self.metrics, self.lifecycle().ok());
        Overview {
            groups: self.group_snapshots(),
            keys,
            troubled,
            deletions,
            held: self.catalogue.is_held(),
            mac_mismatches: metrics.mac_mismatches.get(),
            reserved_messages: metrics.reserved_messages.get(),
            pending_deletion_calls: metrics.pending_deletion_calls.get(),
            deletion_alarms: lifecycle.map_or(0, |one| one.deletion_alarms()),
            store: lifecycle.and_then(|one| one.store.snapshot()),
            authorization: metrics.authorization.snapshot(),
        }
    }
}

fn trouble(record: &KeyRecord) -> String {
    let failure = record.key.failure();
    failure.unwrap_or_else(|| "the configuration no longer has its token".into())
}
