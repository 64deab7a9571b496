//! The groups of tokens that there are, each at a place that it keeps; a reload adds and removes some.

use std::{collections::BTreeMap, future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{kms::catalogue::GroupNames, token::Group};

/// The groups of tokens, by the names that keys give, and which of them makes keys.
#[derive(Clone)]
pub struct TokenGroups {
    /// Each group of tokens, or token without a group, under its name in the configuration.
    pub groups: BTreeMap<String, Arc<Group>>,
    /// The one that makes keys and random bytes; may be left out when there is one.
    pub new_keys: Option<String>,
}

/// The groups at this time.
pub(super) struct Groups {
    table: ArcSwap<Table>,
    /// Grows when there are others.
    changes: watch::Sender<u64>,
}

#[derive(Clone, Default)]
struct Table {
    /// The place of one that is gone stays empty: records that still name it mean no other.
    places: Vec<Option<Place>>,
    new_keys: Option<usize>,
}

#[derive(Clone)]
struct Place {
    name: String,
    /// None: for simulations of policies, which ask no token.
    group: Option<Arc<Group>>,
}

/// What is different from now on.
pub(super) struct GroupChange {
    /// The names of those that there are, by their places.
    pub(super) names: GroupNames,
    /// Those that are new.
    pub(super) added: Vec<Arc<Group>>,
    /// Those that are gone, with their places, at which they are found until they are [removed](Groups::remove).
    pub(super) gone: Vec<(usize, Arc<Group>)>,
}

impl Groups {
    /// # Errors
    /// A sentence: `new_keys` names none of them.
    pub(super) fn new(
        names: &[String],
        groups: Vec<Arc<Group>>,
        new_keys: Option<&str>,
    ) -> Result<Self, String> {
        let mut groups = groups.into_iter();
        let places = names.iter().map(|name| {
            let (name, group) = (name.clone(), groups.next());
            Some(Place { name, group })
        });
        let mut table = Table {
            places: places.collect(),
            new_keys: None,
        };
        table.new_keys = table.choose(new_keys);
        match (new_keys, table.new_keys) {
            (Some(name), None) => Err(format!(
                "new_keys names {name:?}, but there is no token or group of this name"
            )),
            (Some(_), Some(_)) | (None, _) => Ok(Self {
                table: ArcSwap::from_pointee(table),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// The group at a place.
    pub(super) fn get(&self, place: usize) -> Option<Arc<Group>> {
        self.table.load().group(place)
    }

    /// Whether the configuration no longer has the group at a place.
    pub(super) fn is_gone(&self, place: usize) -> bool {
        let table = self.table.load();
        table.places.get(place).is_some_and(Option::is_none)
    }

    /// The group that makes keys and random bytes.
    pub(super) fn new_keys(&self) -> Option<Arc<Group>> {
        let table = self.table.load();
        table.group(table.new_keys?)
    }

    /// All of them, in the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<Group>> {
        let table = self.table.load();
        let places = table.places.iter().flatten();
        let mut groups: Vec<_> = places.filter_map(|place| place.group.clone()).collect();
        groups.sort_by(|one, other| one.name().cmp(other.name()));
        groups
    }

    /// Adds those that are new; whoever makes keys makes them where it is said now.
    pub(super) fn change(&self, wanted: TokenGroups) -> GroupChange {
        let mut table = Table::clone(&self.table.load());
        let TokenGroups {
            mut groups,
            new_keys,
        } = wanted;
        let mut gone = Vec::new();
        for (at, place) in table.places.iter().enumerate() {
            let Some(Place {
                name,
                group: Some(group),
            }) = place
            else {
                continue;
            };
            match groups.get(name) {
                Some(same) if Arc::ptr_eq(same, group) => drop(groups.remove(name)),
                Some(_) | None => gone.push((at, Arc::clone(group))),
            }
        }
        let added: Vec<_> = groups.values().cloned().collect();
        let new = groups.into_iter().map(|(name, group)| {
            let group = Some(group);
            Some(Place { name, group })
        });
        table.places.extend(new);
        let mut left = table.clone();
        left.empty(&gone);
        table.new_keys = left.choose(new_keys.as_deref());
        self.table.store(Arc::new(table));
        let names = left.places.into_iter();
        GroupChange {
            names: names.map(|place| Some(place?.name)).collect(),
            added,
            gone,
        }
    }

    /// Those that are gone are found no longer.
    pub(super) fn remove(&self, gone: &[(usize, Arc<Group>)]) {
        let mut table = Table::clone(&self.table.load());
        table.empty(gone);
        self.table.store(Arc::new(table));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Tells when the groups or their tokens are others.
    pub(super) fn changes(&self) -> TokenChanges {
        // Begun before the groups are looked at: a change after it is told.
        let own = self.changes.subscribe();
        let groups = self.all();
        let groups = groups.iter().map(|group| group.changes());
        TokenChanges(groups.chain([own]).collect())
    }
}

impl Table {
    fn group(&self, place: usize) -> Option<Arc<Group>> {
        self.places.get(place)?.as_ref()?.group.clone()
    }

    fn choose(&self, new_keys: Option<&str>) -> Option<usize> {
        let mut there = self.places.iter().enumerate();
        match new_keys {
            Some(name) => there
                .find(|(_, place)| place.as_ref().is_some_and(|place| place.name == name))
                .map(|(at, _)| at),
            None => {
                let mut there = there.filter(|(_, place)| place.is_some());
                let (only, _) = there.next()?;
                there.next().is_none().then_some(only)
            }
        }
    }

    fn empty(&mut self, gone: &[(usize, Arc<Group>)]) {
        for (at, _) in gone {
            self.places[*at] = None;
        }
    }
}

/// Tells that there are other tokens, or that one is served with other settings.
#[derive(Debug, Default)]
pub struct TokenChanges(Vec<watch::Receiver<u64>>);

impl TokenChanges {
    /// Returns after a change; never if there can be none. May be dropped.
    pub async fn changed(&mut self) {
        any_change(&mut self.0).await;
    }

    /// What a test changes.
    #[cfg(test)]
    pub(crate) fn scripted(changes: &watch::Sender<u64>) -> Self {
        Self(vec![changes.subscribe()])
    }
}

/// Waits until one of these has changed.
pub(super) async fn any_change(watched: &mut [watch::Receiver<u64>]) {
    let changes = watched.iter_mut().map(|one| {
        let change: Pin<Box<dyn Future<Output = ()> + Send + '_>> = Box::pin(async move {
            // Nobody is left to change it.
            if one.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        change
    });
    let mut changes: Vec<_> = changes.collect();
    poll_fn(|context| {
        let mut changes = changes.iter_mut();
        match changes.any(|change| change.as_mut().poll(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}
