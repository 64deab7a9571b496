//! Creations, deletions and the reaper in a deterministic simulation: the real operations over a group of
//! model tokens and over a store with faults, on a paused clock, with an hsmac that dies between any two
//! steps and a time of day that jumps.
//!
//! Promises, for each seed:
//!
//! * an object is destroyed only when its key's deletion date has come, or when no key record names it
//!   and none ever will; what is not ours is never touched;
//! * a key that its caller was told of stays, and makes the MACs of its object, until then;
//! * a key whose deletion was scheduled makes no MAC, and one whose deletion was cancelled does again;
//! * when all faults have ended, keys that are due are gone, record and objects; every other record has its
//!   object in each token, and every object that hsmac made has a record; no intent is left.
//!
//! Run one alone, with its trace: `SEED=7 cargo test --lib lifecycle_simulation -- --nocapture`.

use std::{
    collections::BTreeMap,
    fmt::Arguments,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::*;
use crate::{
    kms::{
        catalogue::tests::ALL,
        lifecycle::show_fault_points,
        principals::PrincipalPolicies,
        settings::{DeclaredRights, Settings},
    },
    model::{MacAlgorithm, PrincipalAttributes, simulated::simulate},
    store::{
        CommitFault, Prefix,
        simulated::{CommitFate, SimulatedDisk, StoreFaults},
    },
    token::{
        Group,
        simulation::{SimulatedGroup, World, keeps_its_promises, takes_one_way},
    },
};

/// The time of day when a simulation begins.
const NOON: Date = Date::of_millis(1_790_000_000_000);
/// A time of day that is ahead by less is believed.
const BELIEVED: Duration = Duration::from_secs(5 * 60);
/// When all faults have ended everything is in order by then: a jump of the time of day is held for a day,
/// and what a creation may have left is searched for as long.
const IN_ORDER: Duration = Duration::from_secs(60 * 3600);
/// A deletion date that does not come while things go wrong.
const FAR: Duration = Duration::from_secs(20 * 60);
/// One simulation of so many lasts longer than a day: jumps of the time of day are held, and intents kept,
/// for so long.
const LONGER: u64 = 32;
/// What others have in the tokens.
const FOREIGN: [&str; 2] = ["payroll", "hsmac:not-a-key"];

#[test]
fn no_key_is_lost_and_no_object_is_left_whatever_befalls() {
    keeps_its_promises("lifecycle_simulation", run);
}

#[test]
fn a_seed_of_a_lifecycle_does_the_same_each_time() {
    takes_one_way(1000..1005, run);
}

fn run(seed: u64) -> (Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let scene = Arc::new(Scene::new(seed));
        let mut front = scene.start().await;
        front = scene.bring_chaos(front).await;
        scene.calm_down();
        scene.come_to_order(&front).await;
        front.tasks.shutdown().await;
        scene.hsm.report()
    })
}

/// What all who take part share.
struct Scene {
    hsm: SimulatedGroup,
    world: Arc<World>,
    disk: SimulatedDisk,
    books: Arc<Mutex<Books>>,
    /// How far the time of day is ahead of the true one, in milliseconds.
    ahead: Arc<AtomicI64>,
    began: Instant,
    calm: Arc<AtomicBool>,
    /// The life of now.
    life: Arc<Mutex<Arc<Life>>>,
    /// Of a thousand commits, so many fail; of a thousand steps, so many are the last.
    commit_faults: u64,
    deaths: u64,
    jumps: bool,
    waits_for_intents: bool,
}

/// Keys that somebody was told of, by their ID.
type Books = BTreeMap<String, Fate>;

/// What a key's owner knows of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// It serves.
    Serves,
    /// Its deletion is scheduled, for a day that does not come here.
    Scheduled,
    /// Its deletion date comes so long after the beginning.
    Due(Duration),
    /// So it does, unless a cancellation that is under way, or whose hsmac has died, came before.
    Cancelling(Duration),
    /// An answer about it was a fault, or is still to come.
    Unclear,
}

/// One life of hsmac.
struct Front {
    kms: Arc<Kms>,
    group: Arc<Group>,
    tasks: JoinSet<()>,
}

/// What one process is to its store: it may die at any moment, and changes nothing from then on.
struct Life {
    world: Arc<World>,
    calm: Arc<AtomicBool>,
    commit_faults: u64,
    dead: AtomicBool,
    died: Notify,
}

impl Life {
    fn die(&self, of: Arguments<'_>) {
        if !self.dead.swap(true, Ordering::SeqCst) {
            self.world.note(format_args!("hsmac dies: {of}"));
            self.died.notify_one();
        }
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn fails(&self) -> bool {
        !self.calm.load(Ordering::SeqCst) && self.world.happens(self.commit_faults)
    }
}

impl StoreFaults for Life {
    fn commit(&self) -> (Duration, CommitFate) {
        let takes = self.world.span(0, 20);
        let fate = match () {
            () if self.is_dead() => CommitFate::Dead,
            () if !self.fails() => CommitFate::Good,
            () if self.world.happens(500) => CommitFate::Away,
            () => CommitFate::Unknown {
                made: self.world.happens(500),
            },
        };
        (takes, fate)
    }

    fn can_read(&self) -> bool {
        !self.fails()
    }
}

impl Scene {
    fn new(seed: u64) -> Self {
        let hsm = SimulatedGroup::new(seed);
        let world = Arc::clone(hsm.world());
        let (began, ahead) = (Instant::now(), Arc::<AtomicI64>::default());
        let time = Arc::clone(&ahead);
        let now = move || time_of_day(began, time.load(Ordering::SeqCst));
        let dice = Arc::clone(&world);
        let chance = move || {
            u128::from(dice.between(0, u64::MAX - 1)) << 64
                | u128::from(dice.between(0, u64::MAX - 1))
        };
        simulate(now, chance);
        let calm = Arc::<AtomicBool>::default();
        let commit_faults = [0, 20, 100][world.index(3)];
        let life = Arc::new(Mutex::new(Arc::new(Life {
            world: Arc::clone(&world),
            calm: Arc::clone(&calm),
            commit_faults,
            dead: AtomicBool::new(true),
            died: Notify::new(),
        })));
        let scene = Self {
            disk: SimulatedDisk::default(),
            books: Arc::default(),
            ahead,
            began,
            calm,
            life,
            commit_faults,
            deaths: [0, 10, 50][world.index(3)],
            jumps: seed.is_multiple_of(LONGER) && world.happens(800),
            waits_for_intents: seed.is_multiple_of(LONGER),
            world,
            hsm,
        };
        for label in FOREIGN {
            scene.hsm.put(label);
        }
        // As if hsmac had looked at the time a moment ago: nothing is held at the first start.
        let written = serde_json::json!({ "at": NOON, "held": 0 }).to_string();
        let change = Change::new().put(Name::new("clock").unwrap(), written, Expect::Absent);
        scene.disk.commit(change).unwrap();
        scene.watch();
        scene
    }

    /// Looks at each destruction before it is made, and lets hsmac die between steps.
    fn watch(&self) {
        let (books, disk) = (Arc::clone(&self.books), self.disk.clone());
        let (world, began) = (Arc::clone(&self.world), self.began);
        self.hsm.show_destructions(move |label| {
            if let Some(wrong) =
                wrongly_destroyed(label, began.elapsed(), &disk, &books.lock().unwrap())
            {
                world.violated(format_args!("{label} is destroyed: {wrong}"));
            }
        });
        let (life, deaths) = (Arc::clone(&self.life), self.deaths);
        show_fault_points(move |point| {
            let life = life.lock().unwrap();
            if !life.calm.load(Ordering::SeqCst) && life.world.happens(deaths) {
                life.die(format_args!("at {point}"));
            }
        });
    }

    /// Starts hsmac, again and again until it starts.
    async fn start(self: &Arc<Self>) -> Front {
        let group = self.hsm.start();
        let life = Arc::new(Life {
            world: Arc::clone(&self.world),
            calm: Arc::clone(&self.calm),
            commit_faults: self.commit_faults,
            dead: AtomicBool::new(false),
            died: Notify::new(),
        });
        *self.life.lock().unwrap() = Arc::clone(&life);
        let kms = loop {
            let groups = BTreeMap::from([(SimulatedGroup::NAME.to_owned(), Arc::clone(&group))]);
            let store = self.disk.open(life.clone());
            match Kms::open(settings_without_keys(), groups, store, None).await {
                Ok(kms) => break kms,
                Err(fault) => self
                    .world
                    .note(format_args!("hsmac does not start: {fault}")),
            }
            sleep(Duration::from_millis(200)).await;
        };
        self.world.note(format_args!("hsmac starts"));
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            tasks.spawn(create_keys(
                Arc::clone(self),
                Arc::clone(&kms),
                Arc::clone(&life),
            ));
        }
        tasks.spawn(delete_keys(
            Arc::clone(self),
            Arc::clone(&kms),
            Arc::clone(&life),
        ));
        tasks.spawn(use_keys(Arc::clone(self), Arc::clone(&kms)));
        Front { kms, group, tasks }
    }

    async fn bring_chaos(self: &Arc<Self>, mut front: Front) -> Front {
        let over = Instant::now() + self.world.span(20_000, 60_000);
        while Instant::now() < over {
            let next = (Instant::now() + self.world.span(1000, 8000)).min(over);
            let life = Arc::clone(&self.life.lock().unwrap());
            tokio::select! {
                biased;
                () = self.hsm.until_killed() => life.die(format_args!("as a token's fault wants")),
                () = life.died.notified() => {}
                () = sleep_until(next) => self.let_happen(&life),
            }
            if life.is_dead() {
                front = self.start_anew(front).await;
            }
        }
        front
    }

    fn let_happen(self: &Arc<Self>, life: &Life) {
        self.hsm.let_happen();
        if self.deaths > 0 && self.world.happens(150) {
            life.die(format_args!("without a reason"));
        }
        if self.jumps && self.world.happens(300) {
            self.jump();
        }
    }

    /// Somebody sets the time of day wrong, and right again before it is believed.
    fn jump(self: &Arc<Self>) {
        let hours = self.world.between(1, 30);
        let ahead = match self.world.happens(700) {
            true => hours.cast_signed(),
            false => -hours.cast_signed(),
        };
        self.world
            .note(format_args!("the time of day is {ahead} h ahead"));
        self.ahead.store(ahead * 3_600_000, Ordering::SeqCst);
        let scene = Arc::clone(self);
        tokio::spawn(async move {
            scene.world.pause(1000, 30_000).await;
            scene.world.note(format_args!("the time of day is right"));
            scene.ahead.store(0, Ordering::SeqCst);
        });
    }

    async fn start_anew(self: &Arc<Self>, mut front: Front) -> Front {
        front.tasks.shutdown().await;
        front.group.kill();
        drop(front);
        self.hsm.killed().await;
        self.start().await
    }

    fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
        self.ahead.store(0, Ordering::SeqCst);
        self.hsm.calm_down();
    }

    /// Waits until everything is as it should be.
    async fn come_to_order(&self, front: &Front) {
        let limit = Instant::now() + IN_ORDER;
        while let Some(wrong) = self.out_of_order(&front.kms).await {
            if Instant::now() > limit {
                let world = &self.world;
                return world.violated(format_args!(
                    "faults have ended, and not all is well: {wrong}"
                ));
            }
            sleep(Duration::from_secs(60)).await;
        }
        self.world.note(format_args!("everything is in order"));
    }

    async fn out_of_order(&self, kms: &Kms) -> Option<String> {
        let told = self.books().clone();
        for (key_id, fate) in &told {
            let there = self.state(key_id).is_some() || self.hsm.copies(&label(key_id)) > 0;
            match fate {
                Fate::Serves => {
                    if let Err(fault) = self.mac(kms, key_id).await {
                        return Some(format!("{key_id} makes no MAC: {fault}"));
                    }
                }
                Fate::Due(_) if there => return Some(format!("{key_id} is due and there")),
                Fate::Due(_) | Fate::Cancelling(_) | Fate::Scheduled | Fate::Unclear => {}
            }
        }
        let records = self.disk.list(&Prefix::new("key/").unwrap());
        for record in &records {
            let key: StoredKey = stored::read(record).unwrap();
            let copies = self.hsm.copies(&label(key.key_id.as_str()));
            if copies < self.hsm.tokens() {
                return Some(format!(
                    "{} has {copies} objects: {:?}",
                    key.key_id, key.state
                ));
            }
        }
        let ours =
            |label: &String| label.starts_with("hsmac:") && !FOREIGN.contains(&label.as_str());
        for object in self.hsm.labels().into_iter().filter(ours) {
            if self.state(&object["hsmac:".len()..]).is_none() {
                return Some(format!("{object} is an orphan"));
            }
        }
        for foreign in FOREIGN {
            self.world.promise(
                self.hsm.copies(foreign) == self.hsm.tokens(),
                format_args!("{foreign} is gone"),
            );
        }
        if !self.waits_for_intents {
            return None;
        }
        let intents = self.disk.list(&Prefix::new("intent/").unwrap());
        intents
            .first()
            .map(|intent| format!("{} is left", intent.name))
    }

    /// The state of a key's record, if it has one.
    fn state(&self, key_id: &str) -> Option<StoredState> {
        state(&self.disk, key_id)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    fn know(&self, key_id: &str, fate: Fate) {
        self.world.note(format_args!("{key_id}: {fate:?}"));
        self.books().insert(key_id.to_owned(), fate);
    }

    /// One of the keys that were told of, if there is any.
    fn any_key(&self, is_wanted: impl Fn(Fate) -> bool) -> Option<(String, Fate)> {
        let books = self.books();
        let wanted: Vec<_> = books.iter().filter(|(_, fate)| is_wanted(**fate)).collect();
        let (key_id, fate) = wanted.get(self.world.index(wanted.len().max(1)))?;
        Some(((*key_id).clone(), **fate))
    }

    /// A MAC with a key, which must be its object's.
    async fn mac(&self, kms: &Kms, key_id: &str) -> Result<(), Error> {
        let message = Bytes::from(format!("message {}", self.world.between(0, 1_000_000)));
        let right = self.hsm.mac(&label(key_id), &message);
        let request = GenerateMac {
            key_id: Some(key_id.to_owned()),
            message: Some(message),
            mac_algorithm: EnumMember::Known(MacAlgorithm::HmacSha256),
            grant_tokens: Vec::new(),
            dry_run: false,
        };
        let made = kms
            .generate_mac(&caller(ACCOUNT), request, within(3))
            .await?;
        self.world.promise(
            right == Some(made.mac),
            format_args!("{key_id} makes a wrong MAC"),
        );
        Ok(())
    }
}

fn time_of_day(began: Instant, ahead: i64) -> Date {
    let passed = i64::try_from(began.elapsed().as_millis()).unwrap();
    let now = NOON.millis().checked_add_signed(passed + ahead);
    Date::of_millis(now.unwrap())
}

/// Why an object must not be destroyed now, if so.
fn wrongly_destroyed(
    label: &str,
    now: Duration,
    disk: &SimulatedDisk,
    books: &Books,
) -> Option<String> {
    let key_id = label
        .strip_prefix("hsmac:")
        .filter(|_| !FOREIGN.contains(&label));
    let Some(key_id) = key_id else {
        return Some("it is not ours".into());
    };
    let state = state(disk, key_id);
    match (state, books.get(key_id)) {
        (None, None) => None,
        (None | Some(StoredState::Deleting), Some(Fate::Due(at) | Fate::Cancelling(at))) => {
            let early = at.saturating_sub(now);
            (early > BELIEVED).then(|| format!("its deletion date comes in {early:?}"))
        }
        (state, fate) => Some(format!(
            "its record is {state:?}, and its owner knows {fate:?}"
        )),
    }
}

fn state(disk: &SimulatedDisk, key_id: &str) -> Option<StoredState> {
    let key_id = key_id.parse().ok()?;
    let record = disk.read(&stored::key_name(&ACCOUNT.parse().unwrap(), &key_id))?;
    Some(stored::read::<StoredKey>(&record).unwrap().state)
}

fn label(key_id: &str) -> String {
    format!("hsmac:{key_id}")
}

fn within(seconds: u64) -> std::time::Instant {
    (Instant::now() + Duration::from_secs(seconds)).into_std()
}

fn settings_without_keys() -> Settings {
    let principals = vec![PrincipalPolicies {
        attributes: PrincipalAttributes::default(),
        caller: caller(ACCOUNT),
        policies: vec![policy(ALL)],
    }];
    Settings {
        account: ACCOUNT.parse().unwrap(),
        region: "us-west-2".into(),
        new_keys: None,
        keys: Vec::new(),
        rights: DeclaredRights::new(principals, None, Vec::new()),
    }
}

/// CreateKey: who is told of a key relies on it; who is not may not know that there is one.
async fn create_keys(scene: Arc<Scene>, kms: Arc<Kms>, life: Arc<Life>) {
    while !life.calm.load(Ordering::SeqCst) {
        scene.world.pause(200, 4000).await;
        let made = kms
            .create_key(&caller(ACCOUNT), new_hmac_key(), within(3))
            .await;
        match made {
            Ok(key) if !life.is_dead() => scene.know(key.key_id.as_str(), Fate::Serves),
            Ok(_) => {}
            Err(error) => scene.world.note(format_args!("no key is made: {error}")),
        }
    }
}

/// ScheduleKeyDeletion, and then: the days pass, or somebody cancels it.
async fn delete_keys(scene: Arc<Scene>, kms: Arc<Kms>, life: Arc<Life>) {
    let caller = caller(ACCOUNT);
    while !life.calm.load(Ordering::SeqCst) {
        scene.world.pause(500, 4000).await;
        let Some((key_id, _)) = scene.any_key(|fate| fate == Fate::Serves) else {
            continue;
        };
        let know = |fate| {
            if !life.is_dead() {
                scene.know(&key_id, fate);
            }
        };
        know(Fate::Unclear);
        let request = ScheduleKeyDeletion {
            key_id: Some(key_id.clone()),
            pending_window_in_days: Some(7),
        };
        if kms
            .schedule_key_deletion(&caller, &request, within(3))
            .await
            .is_err()
        {
            continue;
        }
        know(Fate::Scheduled);
        scene.world.pause(0, 2000).await;
        if scene.world.happens(700) {
            let wait = match scene.world.happens(700) {
                true => scene.world.span(0, 20_000),
                // Nothing but the hold of a jump of the time of day stands between it and its end.
                false => FAR,
            };
            let due = scene.began.elapsed() + wait;
            if bring_near(&scene, &key_id, due).is_ok() {
                scene.know(&key_id, Fate::Due(due));
            }
            if scene.world.happens(700) {
                continue;
            }
            scene.world.pause(0, 20_000).await;
        }
        // Perhaps in the moment in which it is too late.
        let before = scene.books().get(&key_id).copied();
        if let Some(Fate::Due(due)) = before {
            know(Fate::Cancelling(due));
        }
        let request = CancelKeyDeletion {
            key_id: Some(key_id.clone()),
        };
        let cancelled = kms.cancel_key_deletion(&caller, &request, within(3)).await;
        scene
            .world
            .note(format_args!("{key_id}: cancelled: {}", cancelled.is_ok()));
        match (cancelled, before) {
            (Ok(_), _) => know(Fate::Unclear),
            (Err(error), Some(due @ Fate::Due(_))) if error.kind() == Kind::NotFound => {
                know(due);
                continue;
            }
            (Err(_), before) => {
                // Whether it was cancelled the record tells.
                let is_due = matches!(
                    scene.state(&key_id),
                    None | Some(StoredState::Deleting | StoredState::PendingDeletion { .. })
                );
                know(before.filter(|_| is_due).unwrap_or(Fate::Unclear));
                continue;
            }
        }
        let request = EnableKey {
            key_id: Some(key_id.clone()),
        };
        if kms.enable_key(&caller, &request, within(3)).await.is_ok() {
            know(Fate::Serves);
        }
    }
}

/// The deletion date of a key comes so long after the beginning, as if the days until then had passed.
fn bring_near(scene: &Scene, key_id: &str, due: Duration) -> Result<(), CommitFault> {
    let name = stored::key_name(&ACCOUNT.parse().unwrap(), &key_id.parse().unwrap());
    let record = scene.disk.read(&name).expect("it is not due yet");
    let mut key: StoredKey = stored::read(&record).unwrap();
    key.state = StoredState::PendingDeletion {
        deletion_date: NOON.plus(due),
        pending_window_in_days: 7,
    };
    let change = Change::new().put(name, stored::write(&key), Expect::At(record.revision));
    scene.disk.commit(change).map(drop)
}

/// GenerateMac with keys that serve and with keys that must not.
async fn use_keys(scene: Arc<Scene>, kms: Arc<Kms>) {
    while !scene.calm.load(Ordering::SeqCst) {
        scene.world.pause(50, 1000).await;
        let Some((key_id, fate)) = scene.any_key(|_| true) else {
            continue;
        };
        let made = scene.mac(&kms, &key_id).await;
        let closed = matches!(fate, Fate::Scheduled | Fate::Due(_));
        let still = scene.books().get(&key_id) == Some(&fate);
        scene.world.promise(
            !(closed && still && made.is_ok()),
            format_args!("{key_id} makes a MAC, and its deletion is scheduled"),
        );
    }
}
