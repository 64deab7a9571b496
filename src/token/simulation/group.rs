//! A group over model tokens, for the simulation of a room above.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    model_token::mac,
    plan::Event,
    scene::{GROUP, Scene},
    world::World,
};
use crate::token::{Group, simulated::set_chance};

/// The tokens of one group, and what befalls them; a group over them is one life of hsmac.
pub(crate) struct SimulatedGroup {
    scene: Arc<Scene>,
}

impl SimulatedGroup {
    /// The group's name.
    pub(crate) const NAME: &str = GROUP;

    /// Tokens whose faults a seed decides on. This thread's chance is that seed's from here on.
    pub(crate) fn new(seed: u64) -> Self {
        set_chance(!seed);
        Self {
            scene: Arc::new(Scene::new(seed)),
        }
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.scene.world
    }

    /// Starts hosts, as an hsmac does that starts.
    pub(crate) fn start(&self) -> Arc<Group> {
        self.scene.start_group()
    }

    /// hsmac was killed, and its hosts with it; returns when it may start anew.
    pub(crate) async fn killed(&self) {
        self.scene.front_killed().await;
    }

    /// Waits until a fault wants hsmac killed.
    pub(crate) async fn until_killed(&self) {
        self.scene.until_killed().await;
    }

    /// Something happens to one of the tokens, if the seed has such events.
    pub(crate) fn let_happen(&self) {
        let events: Vec<Event> = self.scene.plan.events.clone();
        if !events.is_empty() {
            let event = events[self.scene.world.index(events.len())];
            self.scene.let_happen_to_a_token(event);
        }
    }

    /// Ends all faults of tokens and hosts.
    pub(crate) fn calm_down(&self) {
        self.scene.calm_down();
    }

    /// Puts an object of somebody else's into each token.
    pub(crate) fn put(&self, label: &str) {
        let secret = self.scene.world.between(1, u64::MAX - 1);
        for token in &self.scene.hsm.tokens {
            token.put(label, secret);
        }
    }

    /// How many tokens have an object with this label.
    pub(crate) fn copies(&self, label: &str) -> usize {
        let tokens = self.scene.hsm.tokens.iter();
        tokens.filter(|token| token.object(label).is_some()).count()
    }

    /// The labels of all objects, of whichever token.
    pub(crate) fn labels(&self) -> BTreeSet<String> {
        let tokens = self.scene.hsm.tokens.iter();
        tokens.flat_map(|token| token.labels()).collect()
    }

    /// How many tokens there are.
    pub(crate) fn tokens(&self) -> usize {
        self.scene.hsm.tokens.len()
    }

    /// The MAC that the object with this label makes; `None`: there is none, or two tokens differ.
    pub(crate) fn mac(&self, label: &str, message: &[u8]) -> Option<Bytes> {
        let tokens = self.scene.hsm.tokens.iter();
        let mut secrets = tokens.filter_map(|token| token.object(label));
        let first = secrets.next()?;
        secrets
            .all(|secret| secret == first)
            .then(|| mac(first, message))
    }

    /// Shows each destruction to somebody right before it is made, by the object's label.
    pub(crate) fn show_destructions(&self, witness: impl Fn(&str) + Send + Sync + 'static) {
        self.scene.ledger.show_destructions(Box::new(witness));
    }

    /// The trace, and which promises were broken.
    pub(crate) fn report(&self) -> (Vec<String>, Vec<String>) {
        self.scene.world.report()
    }
}
