//! Models of those who call: each checks what it is answered, and when.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    model_jobs::POISON,
    model_token::{check_value, mac},
    scene::Scene,
};
use crate::{
    model::{Flow, KeyId, KeySpec},
    token::{
        CheckValue, Fault, Group, ObjectLocator, TokenKey, locks::UNPOISONED, status::KeyFacts,
    },
};

/// The runtime's timers are as fine as this; a call's answer may come so long after its deadline.
const BOUND: Duration = Duration::from_millis(5);
/// How long the closing of a key may take: the longest deadline of a call that uses it, or a host
/// that does not obey, is killed and says no more.
const CLOSING: Duration = Duration::from_secs(12);
/// How long a change may take beyond its deadline and `slow_timeout`.
const CHANGING: Duration = Duration::from_secs(6);

/// Hosts serve by then, where nothing goes wrong.
const STARTED: Duration = Duration::from_secs(1);

/// Callers besides those that have the first numbers.
pub(super) const HEALTH: usize = 30;
const RANDOM: usize = 31;
const POISONER: usize = 32;
const CROWD: usize = 33;
const CREATOR: usize = 34;

/// The flow of a caller. Some count more than others.
pub(super) fn flow(caller: usize) -> Flow {
    let caller = u32::try_from(caller % 40).expect("few callers");
    Flow::new(caller + 1, 1 + caller % 3)
}

/// A key that callers use: what is asked for by its label, and which secret it must be.
pub(super) struct KeySlot {
    id: KeyId,
    label: String,
    secret: u64,
    pinned: bool,
    current: Mutex<Arc<TokenKey>>,
}

impl KeySlot {
    /// Number so many; every third is not pinned.
    pub(super) fn new(number: usize, secret: u64) -> Self {
        let pinned = number % 3 != 2;
        let label = format!("{}-{number}", if pinned { "pinned" } else { "trusted" });
        let id = key_id(number as u64);
        let current = Mutex::new(token_key(&id, &label, pinned.then_some(secret)));
        Self {
            id,
            label,
            secret,
            pinned,
            current,
        }
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn secret(&self) -> u64 {
        self.secret
    }

    pub(super) fn current(&self) -> Arc<TokenKey> {
        Arc::clone(&self.current.lock().expect(UNPOISONED))
    }

    /// Another reference to the same object; gives the one that was.
    pub(super) fn renew(&self) -> Arc<TokenKey> {
        let new = token_key(&self.id, &self.label, self.pinned.then_some(self.secret));
        std::mem::replace(&mut *self.current.lock().expect(UNPOISONED), new)
    }
}

fn key_id(number: u64) -> KeyId {
    let id = format!("1234abcd-12ab-34cd-56ef-{number:012x}");
    id.parse().unwrap()
}

fn token_key(id: &KeyId, label: &str, secret: Option<u64>) -> Arc<TokenKey> {
    Arc::new(TokenKey::new(
        id.clone(),
        KeySpec::Hmac256,
        ObjectLocator {
            id: None,
            label: Some(label.to_owned()),
        },
        secret.map(|secret| CheckValue::from(check_value(secret))),
    ))
}

/// Asks for MACs with all keys, one after the other.
pub(super) async fn ask(scene: Arc<Scene>, group: Arc<Group>, caller: usize) {
    let mut number = 0;
    while !scene.is_over() {
        number += 1;
        let slot = &scene.slots[scene.world.index(scene.slots.len())];
        let message = format!("message {number} of {caller}");
        let limit = Duration::from_millis([100, 500, 2000, 5000][scene.world.index(4)]);
        let _ = ask_once(&scene, &group, slot, message.into(), flow(caller), limit).await;
        scene.world.pause(0, 400).await;
    }
}

/// Asks for one MAC, and checks what comes of it.
pub(super) async fn ask_once(
    scene: &Scene,
    group: &Group,
    slot: &KeySlot,
    message: Bytes,
    flow: Flow,
    limit: Duration,
) -> Result<(), Fault> {
    let key = slot.current();
    // Whoever has looked a key up may come when it was closed since.
    if !scene.is_calm() && scene.world.happens(100) {
        scene.world.pause(0, 500).await;
        if scene.is_over() {
            return Ok(());
        }
    }
    let until = Instant::now() + limit;
    let answer = group.mac(&key, message.clone(), flow, until.into_std());
    let what = format!("{} with {}", String::from_utf8_lossy(&message), slot.label);
    let Ok(answer) = timeout_at(until + BOUND, answer).await else {
        scene
            .world
            .violated(format_args!("{what} is not answered by its deadline"));
        return Err(Fault::Deadline("in the simulation".into()));
    };
    match &answer {
        Ok(made) => {
            let right = *made == mac(slot.secret, &message);
            scene
                .world
                .promise(right, format_args!("{what}: a wrong MAC"));
        }
        Err(fault) => {
            let closed = *fault == Fault::Closed && key.is_closed();
            let is_of_crowd = flow == self::flow(CROWD);
            let its_own_doing = match fault {
                Fault::Saturated(_) => true,
                Fault::Deadline(_) => Instant::now() >= until,
                _ => false,
            };
            if !(is_of_crowd && its_own_doing) {
                check_fault(scene, &what, fault, closed, until);
            }
        }
    }
    scene.world.note(format_args!(
        "{what}: {}",
        answer
            .as_ref()
            .map_or_else(ToString::to_string, |_| "answered".into())
    ));
    answer.map(|_| ())
}

/// What no caller may be told, whatever happens behind.
fn check_fault(scene: &Scene, what: &str, fault: &Fault, closed: bool, until: Instant) {
    let world = &scene.world;
    world.promise(
        closed || !scene.plan.is_quiet() || world.elapsed() < STARTED,
        format_args!("{what}: {fault}, where nothing went wrong"),
    );
    match fault {
        Fault::Saturated(reason) => world.violated(format_args!(
            "{what}: a caller who has one call at a time is refused: {reason}"
        )),
        Fault::Closed => world.promise(closed, format_args!("{what}: the key is not closed")),
        Fault::Deadline(reason) => world.promise(
            Instant::now() >= until,
            format_args!("{what}: its deadline has not passed: {reason}"),
        ),
        Fault::Internal(reason) => world.promise(
            !reason.contains("without an answer") && !reason.contains("another question"),
            format_args!("{what}: {reason}"),
        ),
        _ => {}
    }
}

/// Asks for random bytes.
pub(super) async fn ask_for_random(scene: Arc<Scene>, group: Arc<Group>) {
    while !scene.is_over() {
        let until = Instant::now() + scene.world.span(50, 2000);
        let what = "a random call";
        match timeout_at(
            until + BOUND,
            group.random(16, flow(RANDOM), until.into_std()),
        )
        .await
        {
            Err(_) => scene
                .world
                .violated(format_args!("{what} is not answered by its deadline")),
            Ok(Ok(bytes)) => scene
                .world
                .promise(bytes.len() == 16, format_args!("{what}: a wrong length")),
            Ok(Err(fault)) => check_fault(&scene, what, &fault, false, until),
        }
        scene.world.pause(100, 1500).await;
    }
}

/// One of many who call as one principal: their own calls may be refused for it, and nobody else's.
pub(super) async fn crowd(scene: Arc<Scene>, group: Arc<Group>, member: usize) {
    let mut number = 0;
    while !scene.is_over() {
        number += 1;
        let slot = &scene.slots[scene.world.index(scene.slots.len())];
        let message = format!("message {number} of {member} in a crowd");
        let limit = Duration::from_millis([100, 2000, 5000][scene.world.index(3)]);
        let _ = ask_once(&scene, &group, slot, message.into(), flow(CROWD), limit).await;
        // All at once, now and then.
        let now = u64::try_from(scene.world.elapsed().as_millis()).expect("a short time");
        let pause = Duration::from_millis(2000 - now % 2000);
        sleep(pause).await;
    }
}

/// Sends one message again and again of which hosts die.
pub(super) async fn poison(scene: Arc<Scene>, group: Arc<Group>) {
    let message = Bytes::from([POISON, b" message"].concat());
    let mut calls = 0;
    while !scene.is_over() && !scene.is_calm() {
        calls += 1;
        let slot = &scene.slots[0];
        let _ = ask_once(
            &scene,
            &group,
            slot,
            message.clone(),
            flow(POISONER),
            Duration::from_secs(2),
        )
        .await;
        let deaths = scene.ledger.deaths_of(&message);
        scene.world.promise(
            deaths <= 2 * calls,
            format_args!("{deaths} hosts died of {calls} calls with one message"),
        );
        scene.world.pause(200, 2000).await;
    }
}

/// Closes keys now and then, as DisableKey does; each is used under another reference then.
pub(super) async fn close_keys(scene: Arc<Scene>, group: Arc<Group>) {
    while !scene.is_over() {
        let pause = scene.world.span(300, 4000);
        let wanted = timeout(pause, scene.ledger.to_close()).await;
        if scene.is_over() {
            return;
        }
        if wanted.is_ok() {
            scene.world.pause(0, 30).await;
        }
        let any = scene.world.index(scene.slots.len());
        let is_wanted = |slot: &&KeySlot| wanted.as_ref() == Ok(&slot.label);
        let slot = scene.slots.iter().find(is_wanted);
        let slot = slot.unwrap_or(&scene.slots[any]);
        let old = slot.renew();
        scene.world.note(format_args!("{} is closed", slot.label));
        match timeout_at(Instant::now() + CLOSING, group.forget(&old)).await {
            Ok(()) => scene.ledger.closed(old.reference()),
            Err(_) => scene.world.violated(format_args!(
                "the closing of {} does not return",
                slot.label
            )),
        }
        scene
            .world
            .note(format_args!("the closing of {} has returned", slot.label));
    }
}

/// Makes keys and deletes them, as CreateKey and the reaper do: what cannot be asked now is asked
/// later, and what nobody knows of is searched until it is gone.
pub(super) async fn create_and_delete(scene: Arc<Scene>, group: Arc<Group>, front: u64) {
    let mut number = 1000 * (front + 1);
    while !scene.is_over() {
        number += 1;
        scene.world.pause(100, 1500).await;
        if scene.is_over() {
            return;
        }
        let (id, label) = (key_id(number), format!("created-{number}"));
        let until = Instant::now() + Duration::from_secs(3);
        let key = token_key(&id, &label, None);
        let late = until + scene.plan.slow_timeout + CHANGING;
        let made = timeout_at(late, group.generate(&key, until.into_std())).await;
        let made = made.unwrap_or_else(|_| {
            let world = &scene.world;
            world.violated(format_args!("the creation of {label} is not answered"));
            Err(Fault::Unknown("in the simulation".into()))
        });
        scene.world.note(format_args!("{label} is made: {made:?}"));
        let there = scene
            .hsm
            .tokens
            .iter()
            .any(|token| token.object(&label).is_some());
        match made {
            Ok(facts) => {
                let world = &scene.world;
                world.promise(there, format_args!("{label} is not there, and was made"));
                if !scene.is_over() {
                    use_created(&scene, &group, &id, &label, &facts).await;
                }
                delete(&scene, &group, &id, &label, Some(facts.check_value)).await;
            }
            Err(fault) => {
                scene.world.promise(
                    !there || !fault.is_settled(),
                    format_args!(
                        "{label} is there, and it was said to be sure that it is not: {fault}"
                    ),
                );
                delete(&scene, &group, &id, &label, None).await;
            }
        }
    }
}

/// One MAC with a key that was just made.
async fn use_created(scene: &Scene, group: &Group, id: &KeyId, label: &str, facts: &KeyFacts) {
    let locator = ObjectLocator {
        id: None,
        label: Some(label.to_owned()),
    };
    let value = Some(facts.check_value.clone());
    let key = Arc::new(TokenKey::new(id.clone(), KeySpec::Hmac256, locator, value));
    let until = Instant::now() + Duration::from_secs(2);
    let message = Bytes::from(format!("a message for {label}"));
    let made = group
        .mac(&key, message.clone(), flow(CREATOR), until.into_std())
        .await;
    let token = &scene.hsm.tokens[0];
    if let (Ok(made), Some(secret)) = (&made, token.object(label)) {
        let right = *made == mac(secret, &message);
        let world = &scene.world;
        world.promise(right, format_args!("{label}: a wrong MAC"));
    }
    group.forget(&key).await;
    scene.ledger.closed(key.reference());
}

/// Deletes a key, as the reaper does: a member that is away is waited for, longer each time.
async fn delete(scene: &Scene, group: &Group, id: &KeyId, label: &str, value: Option<CheckValue>) {
    let mut done = BTreeSet::new();
    let mut pause = Duration::from_millis(500);
    while !scene.is_over() {
        let locator = ObjectLocator {
            id: None,
            label: Some(label.to_owned()),
        };
        let key = Arc::new(TokenKey::new(
            id.clone(),
            KeySpec::Hmac256,
            locator,
            value.clone(),
        ));
        let until = Instant::now() + Duration::from_secs(3);
        // One member after the other may take its time.
        let each = scene.plan.slow_timeout + CHANGING;
        let late = until + each * u32::try_from(scene.plan.members).expect("few members");
        let destroyed = async {
            match value {
                Some(_) => group.destroy(&key, &mut done, until.into_std()).await,
                None => {
                    group
                        .destroy_orphan(&key, &mut done, until.into_std())
                        .await
                }
            }
        };
        let Ok(destroyed) = timeout_at(late, destroyed).await else {
            scene
                .world
                .violated(format_args!("the deletion of {label} is not answered"));
            return;
        };
        scene
            .world
            .note(format_args!("{label} is deleted: {destroyed:?}"));
        match destroyed {
            Ok(_) => return,
            Err(Fault::Closed | Fault::Message(_)) => scene
                .world
                .violated(format_args!("{label}: no answer to a deletion")),
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(8));
    }
}
