//! Changes: what a commit writes, and what it expects of records.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Name, Revision};

/// What must hold for a record before a change; otherwise the change is not made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// There is no such record.
    Absent,
    /// The record is there, and this revision wrote it last.
    At(Revision),
    /// Nothing: the record may be there or not.
    Any,
}

impl Expect {
    pub(super) fn holds(self, found: Option<Revision>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::At(revision) => found == Some(revision),
            Self::Any => true,
        }
    }
}

/// One atomic change of any number of records. Expectations are about the store before the change;
/// of two writes to one name the later counts.
#[derive(Clone, Debug, Default)]
pub struct Change {
    expectations: Vec<(Name, Expect)>,
    writes: BTreeMap<Name, Option<Bytes>>,
}

impl Change {
    /// A change that writes and expects nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Expects something of a record that this change does not write.
    #[must_use]
    pub fn require(mut self, name: Name, expect: Expect) -> Self {
        if expect != Expect::Any {
            self.expectations.push((name, expect));
        }
        self
    }

    /// Writes a record, new or over the one that is there.
    #[must_use]
    pub fn put(mut self, name: Name, value: impl Into<Bytes>, expect: Expect) -> Self {
        self = self.require(name.clone(), expect);
        self.writes.insert(name, Some(value.into()));
        self
    }

    /// Removes a record; one that is not there ([`Expect::Any`]) stays away.
    #[must_use]
    pub fn delete(mut self, name: Name, expect: Expect) -> Self {
        self = self.require(name.clone(), expect);
        self.writes.insert(name, None);
        self
    }

    pub(super) fn expectations(&self) -> &[(Name, Expect)] {
        &self.expectations
    }

    /// Every write: the new value, or none for a deletion.
    pub(super) fn into_writes(self) -> impl Iterator<Item = (Name, Option<Bytes>)> {
        self.writes.into_iter()
    }
}
