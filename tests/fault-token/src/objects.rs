//! Object handles that differ from the real module's.
//!
//! A caller's *number* is the real handle until a rule wants it otherwise. A renumbering moves the
//! numbers of all objects of one group around by one, so that an old number names another object that
//! could take its place: a key of the same class and type. Where a group has one object only, its old
//! number names nothing.

use std::collections::{BTreeMap, HashMap};

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SLOT_ID, CK_TRUE, CKA_CLASS, CKA_ID,
    CKA_KEY_TYPE, CKA_LABEL, CKA_TOKEN,
};

use crate::real::{OwnSession, attribute};

/// Above the handles that real modules count up from 1.
const FIRST_FRESH: CK_OBJECT_HANDLE = 0x1_0000;

#[derive(Default)]
pub(crate) struct Objects {
    real_of: HashMap<CK_OBJECT_HANDLE, CK_OBJECT_HANDLE>,
    number_of: HashMap<CK_OBJECT_HANDLE, CK_OBJECT_HANDLE>,
    /// Numbers of objects that have yet to be found again.
    planned: HashMap<Name, Vec<CK_OBJECT_HANDLE>>,
    /// Which C_Initialize this is, where numbers are to differ after each.
    turn: Option<u64>,
    fresh_numbers: CK_OBJECT_HANDLE,
}

/// An object as the real module shows it.
#[derive(Clone)]
pub(crate) struct Found {
    real: CK_OBJECT_HANDLE,
    pub(crate) name: Name,
}

type Value = Option<Vec<u8>>;

/// What stays of an object when its handle changes.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Name {
    group: [Value; 3],
    label: Value,
    id: Value,
}

impl Found {
    /// All objects that the application sees in a slot; none if it can have no session there.
    pub(crate) fn all(real: &'static CK_FUNCTION_LIST, slot: CK_SLOT_ID) -> Vec<Self> {
        let Some(session) = OwnSession::open(real, slot) else {
            return Vec::new();
        };
        let objects = session.objects().into_iter();
        objects
            .map(|object| Self::one(real, session.handle, object))
            .collect()
    }

    /// One object, through a session that sees it.
    pub(crate) fn one(
        real: &CK_FUNCTION_LIST,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
    ) -> Self {
        let value = |kind| attribute(real, session, object, kind);
        let name = Name {
            group: [value(CKA_CLASS), value(CKA_KEY_TYPE), value(CKA_TOKEN)],
            label: value(CKA_LABEL),
            id: value(CKA_ID),
        };
        Self { real: object, name }
    }
}

impl Name {
    /// Whether other processes can find the object.
    pub(crate) fn is_of_the_token(&self) -> bool {
        (self.group[2].as_deref()).is_some_and(|value| value.contains(&CK_TRUE))
    }
}

impl Objects {
    /// Numbers of our own from the first object on, moved by `turn`.
    pub(crate) fn number_from(&mut self, turn: Option<u64>) {
        self.turn = turn;
    }

    /// Whether any number is not the real module's.
    pub(crate) fn differ(&self) -> bool {
        self.turn.is_some() || !self.real_of.is_empty() || !self.planned.is_empty()
    }

    pub(crate) fn know_number(&self, number: CK_OBJECT_HANDLE) -> bool {
        self.real_of.contains_key(&number)
    }

    pub(crate) fn number(&self, real: CK_OBJECT_HANDLE) -> Option<CK_OBJECT_HANDLE> {
        self.number_of.get(&real).copied()
    }

    /// The real handle; `None` if the object that had this number has another now. A number that was
    /// never given out is the real module's to judge.
    pub(crate) fn real(&self, number: CK_OBJECT_HANDLE) -> Option<CK_OBJECT_HANDLE> {
        match self.real_of.get(&number) {
            Some(real) => Some(*real),
            None => (!self.number_of.contains_key(&number)).then_some(number),
        }
    }

    /// Gives a number to each object that has none.
    pub(crate) fn learn(&mut self, mut found: Vec<Found>) {
        found.retain(|found| !self.number_of.contains_key(&found.real));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let mut groups: BTreeMap<[Value; 3], Vec<CK_OBJECT_HANDLE>> = BTreeMap::new();
        for Found { real, name } in found {
            match self.planned.get_mut(&name).and_then(Vec::pop) {
                Some(number) if !self.real_of.contains_key(&number) => self.set(number, real),
                _ => groups.entry(name.group).or_default().push(real),
            }
        }
        for reals in groups.into_values() {
            match self.turn {
                None => {
                    for real in reals {
                        let taken = self.real_of.contains_key(&real);
                        let number = if taken { self.fresh(1) } else { real };
                        self.set(number, real);
                    }
                }
                Some(turn) => {
                    // One place more for an object that is alone: it moves to and fro.
                    let places = reals.len().max(2) as u64;
                    let base = self.fresh(places as CK_OBJECT_HANDLE);
                    for (place, real) in (turn % places..).zip(reals) {
                        self.set(base + (place % places) as CK_OBJECT_HANDLE, real);
                    }
                }
            }
        }
    }

    /// Moves the numbers now.
    pub(crate) fn rotate(&mut self, found: Vec<Found>) {
        for (number, found) in self.rotated(found) {
            self.set(number, found.real);
        }
    }

    /// Moves the numbers when the objects are found again under new handles.
    pub(crate) fn rotate_when_found_again(&mut self, found: Vec<Found>) {
        let planned = self.rotated(found);
        self.planned.clear();
        for (number, found) in planned {
            self.planned.entry(found.name).or_default().push(number);
        }
    }

    /// Empties the tables and returns each object with the number that it is to have next.
    fn rotated(&mut self, found: Vec<Found>) -> Vec<(CK_OBJECT_HANDLE, Found)> {
        self.learn(found.clone());
        let mut groups: BTreeMap<[Value; 3], Vec<(CK_OBJECT_HANDLE, Found)>> = BTreeMap::new();
        for found in found {
            if let Some(number) = self.number(found.real) {
                let group = groups.entry(found.name.group.clone()).or_default();
                group.push((number, found));
            }
        }
        self.real_of.clear();
        self.number_of.clear();
        let mut rotated = Vec::new();
        for mut group in groups.into_values() {
            group.sort_by_key(|(number, _)| *number);
            let (mut numbers, found): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            if numbers.len() == 1 {
                numbers[0] = self.fresh(1);
            }
            numbers.rotate_right(1);
            rotated.extend(numbers.into_iter().zip(found));
        }
        rotated
    }

    fn set(&mut self, number: CK_OBJECT_HANDLE, real: CK_OBJECT_HANDLE) {
        self.real_of.insert(number, real);
        self.number_of.insert(real, number);
    }

    fn fresh(&mut self, count: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        let base = FIRST_FRESH + self.fresh_numbers;
        self.fresh_numbers += count;
        base
    }
}
