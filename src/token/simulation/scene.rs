//! One simulation from its beginning to its end: a group over model tokens, those who call it, and what
//! happens to them.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    callers::{self, HEALTH, KeySlot, ask_once},
    ledger::Ledger,
    model_token::{ModelHsm, ModelToken},
    plan::{Event, Plan},
    world::World,
};
use crate::token::{Group, HostEnvironment, HostProgram, Logins, Settings, State, kick, unlock};

/// When all faults have ended everything serves again by then: the longest time for which a key is
/// refused after it failed again and again, and some.
const HEALED: Duration = Duration::from_secs(400);
/// How long calls that are on their way at the end may take.
const LAST_CALLS: Duration = Duration::from_secs(30);
/// How long hosts may take to end: what they are at is given up with them.
const END: Duration = Duration::from_secs(5);
/// The same, with a process that outlives SIGKILL for a while.
const GONE: Duration = Duration::from_secs(20);

/// So many settings of a token may have processes at once.
const MOST_CHANGES: usize = 4;

/// The group's name.
pub(super) const GROUP: &str = "group";

/// What all who take part share.
pub(super) struct Scene {
    pub(super) world: Arc<World>,
    pub(super) plan: Arc<Plan>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) hsm: Arc<ModelHsm>,
    pub(super) slots: Vec<KeySlot>,
    folder: TempDir,
    kill_front: Arc<Notify>,
    fronts: AtomicU64,
    calm: AtomicBool,
    over: AtomicBool,
}

/// One life of hsmac.
struct Front {
    group: Arc<Group>,
    tasks: JoinSet<()>,
}

/// Runs a simulation on a runtime whose clock is paused.
pub(super) async fn run(seed: u64) -> (Vec<String>, Vec<String>) {
    let scene = Arc::new(Scene::new(seed));
    let mut front = scene.start_front();
    front = scene.bring_chaos(front).await;
    if scene.plan.ends_early {
        scene.end(front).await;
    } else {
        scene.calm_down();
        front.group.change(scene.usual_settings());
        scene.heal(&front.group).await;
        scene.end(front).await;
    }
    let (trace, violations) = scene.world.report();
    // Its name is another one each time.
    let folder = scene.folder.path().display().to_string();
    let named = |line: String| line.replace(&folder, "/state");
    (
        trace.into_iter().map(named).collect(),
        violations.into_iter().map(named).collect(),
    )
}

impl Scene {
    pub(super) fn new(seed: u64) -> Self {
        let world = Arc::new(World::new(seed));
        let plan = Arc::new(Plan::draw(&world));
        world.note(format_args!("{plan:?}"));
        // In memory where there is such a folder: notes of logins are synced.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => TempDir::new_in(memory),
            false => TempDir::new(),
        };
        let folder = folder.unwrap();
        // With each other settings a token has as many processes again, until those of before have ended.
        let members = if plan.reloads { MOST_CHANGES } else { 1 };
        let ledger = Arc::new(Ledger::new(&world, plan.hosts, members));
        let kill_front = Arc::<Notify>::default();
        let token = |number: usize| {
            let name = format!("token-{number}");
            let pin_file = pin_file(folder.path(), &name);
            let token = ModelToken::new(&world, &ledger, &plan, name, pin_file, &kill_front);
            Arc::new(token)
        };
        let hsm = Arc::new(ModelHsm {
            tokens: (0..plan.members).map(token).collect(),
        });
        ledger.begins(&hsm);
        let slots: Vec<_> = (0..plan.keys)
            .map(|number| KeySlot::new(number, world.between(1, u64::MAX - 1)))
            .collect();
        for (token, slot) in hsm
            .tokens
            .iter()
            .flat_map(|token| slots.iter().map(move |slot| (token, slot)))
        {
            token.put(slot.label(), slot.secret());
        }
        Self {
            world,
            plan,
            ledger,
            hsm,
            slots,
            folder,
            kill_front,
            fronts: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// Whether faults have ended.
    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Whether callers are to leave.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn start_front(self: &Arc<Self>) -> Front {
        let number = self.fronts.fetch_add(1, Ordering::Relaxed);
        let group = self.start_group();
        let mut tasks = JoinSet::new();
        for caller in 0..self.plan.callers {
            let caller = 10 * usize::try_from(number).expect("few lives") + caller;
            tasks.spawn(callers::ask(self.clone(), group.clone(), caller));
        }
        tasks.spawn(callers::ask_for_random(self.clone(), group.clone()));
        tasks.spawn(callers::close_keys(self.clone(), group.clone()));
        tasks.spawn(callers::create_and_delete(
            self.clone(),
            group.clone(),
            number,
        ));
        for member in 0..self.plan.crowd {
            tasks.spawn(callers::crowd(self.clone(), group.clone(), member));
        }
        if self.plan.poison {
            tasks.spawn(callers::poison(self.clone(), group.clone()));
        }
        Front { group, tasks }
    }

    pub(super) fn start_group(&self) -> Arc<Group> {
        let environment = HostEnvironment {
            host: HostProgram::Model(self.hsm.clone()),
            state_dir: self.folder.path().to_owned(),
        };
        Group::start(
            GROUP,
            self.usual_settings(),
            &environment,
            &Logins::default(),
        )
    }

    fn usual_settings(&self) -> Vec<Settings> {
        let tokens = self.hsm.tokens.iter();
        tokens.map(|token| self.settings(&token.name)).collect()
    }

    /// The configuration says something else of the tokens, and one of two may not be there.
    fn reload(&self, group: &Group) {
        let mut settings = self.usual_settings();
        if settings.len() > 1 && self.world.happens(400) {
            settings.swap_remove(self.world.index(2));
        }
        for token in &mut settings {
            // Nothing that shows in what is promised.
            token.probe_interval += Duration::from_millis(self.world.between(0, 2));
        }
        let names: Vec<&str> = settings.iter().map(|token| token.name.as_str()).collect();
        self.world
            .note(format_args!("{} are configured anew", names.join(" and ")));
        group.change(settings);
    }

    fn settings(&self, name: &str) -> Settings {
        let settings =
            serde_json::json!({ "uri": format!("pkcs11:token={name}?module-path=/no/module.so") });
        let mut settings: Settings = serde_json::from_value(settings).unwrap();
        let plan = &self.plan;
        settings.name = name.to_owned();
        settings.pin_file = plan.pin.then(|| pin_file(self.folder.path(), name));
        settings.replicated_by = Some(crate::token::ReplicatedBy::Vendor);
        settings.hosts = plan.hosts;
        settings.sessions = plan.sessions;
        settings.queue = plan.queue;
        settings.max_starts_per_minute = plan.max_starts_per_minute;
        settings.start_timeout = plan.start_timeout;
        settings.call_timeout = plan.call_timeout;
        settings.slow_timeout = plan.slow_timeout;
        settings.hedge_after = plan.hedge_after;
        settings.probe_interval = plan.probe_interval;
        settings
    }

    /// Lets things go wrong for a while.
    async fn bring_chaos(self: &Arc<Self>, mut front: Front) -> Front {
        let over = Instant::now() + self.plan.chaos;
        while Instant::now() < over {
            let next = (Instant::now() + self.world.span(500, 4000)).min(over);
            tokio::select! {
                biased;
                () = self.kill_front.notified() => front = self.kill(front).await,
                () = sleep_until(next) => front = self.let_happen(front).await,
            }
        }
        front
    }

    async fn let_happen(self: &Arc<Self>, front: Front) -> Front {
        if self.plan.reloads && self.world.happens(500) {
            self.reload(&front.group);
            return front;
        }
        if self.plan.events.is_empty() {
            return front;
        }
        let event = self.plan.events[self.world.index(self.plan.events.len())];
        if event == Event::FrontKilled {
            return self.kill(front).await;
        }
        self.let_happen_to_a_token(event);
        front
    }

    pub(super) fn let_happen_to_a_token(self: &Arc<Self>, event: Event) {
        let token = Arc::clone(&self.hsm.tokens[self.world.index(self.hsm.tokens.len())]);
        self.world
            .note(format_args!("{event:?} happens to {}", token.name));
        let scene = Arc::clone(self);
        match event {
            Event::TokenAway => {
                token.set_present(false);
                tokio::spawn(async move {
                    scene.world.pause(100, 8000).await;
                    token.set_present(true);
                });
            }
            Event::PinChanged => {
                token.change_pin();
                tokio::spawn(async move {
                    scene.world.pause(100, 5000).await;
                    token.write_right_pin();
                });
            }
            Event::WrongPinFile => {
                token.write_wrong_pin();
                tokio::spawn(async move {
                    scene.world.pause(100, 5000).await;
                    token.write_right_pin();
                });
            }
            Event::Unlocked => self.unlock(&token),
            Event::FrontKilled => self.kill_front.notify_one(),
            Event::FrontKilledInLogin => token.kill_in_login(),
        }
    }

    /// Kills hsmac, hosts and all, and starts it anew.
    async fn kill(self: &Arc<Self>, mut front: Front) -> Front {
        self.world.note(format_args!("hsmac is killed"));
        front.tasks.shutdown().await;
        drop(front);
        self.front_killed().await;
        for slot in &self.slots {
            slot.renew();
        }
        self.world.note(format_args!("hsmac starts anew"));
        self.start_front()
    }

    pub(super) async fn front_killed(&self) {
        self.ledger.front_killed();
        for token in &self.hsm.tokens {
            token.front_killed();
        }
        sleep(Duration::from_millis(200)).await;
    }

    /// hsmac is to be killed now.
    pub(super) async fn until_killed(&self) {
        self.kill_front.notified().await;
    }

    /// Ends all faults; a person mends what only a person can.
    pub(super) fn calm_down(&self) {
        self.world.note(format_args!("all faults have ended"));
        self.calm.store(true, Ordering::Relaxed);
        for token in &self.hsm.tokens {
            token.calm_down();
            token.write_right_pin();
            self.unlock(token);
            kick(self.folder.path(), &token.name).unwrap();
        }
    }

    /// `hsmac token unlock`
    fn unlock(&self, token: &ModelToken) {
        token.unlocked();
        unlock(self.folder.path(), &token.name).unwrap();
    }

    /// Waits until everything serves again.
    async fn heal(&self, group: &Group) {
        let limit = Instant::now() + HEALED;
        let mut round = 0;
        loop {
            let ill = self.look(group, round).await;
            let Some(ill) = ill else { break };
            if Instant::now() > limit {
                return self.world.violated(format_args!(
                    "faults have ended, and not all is well: {ill}"
                ));
            }
            round += 1;
            sleep(Duration::from_secs(1)).await;
        }
        self.world.note(format_args!("everything serves again"));
    }

    /// What is not as it should be.
    async fn look(&self, group: &Group, round: usize) -> Option<String> {
        for slot in &self.slots {
            let message = format!("message for health {round}").into();
            let flow = callers::flow(HEALTH);
            let asked = ask_once(self, group, slot, message, flow, Duration::from_secs(2)).await;
            if let Err(fault) = asked {
                return Some(format!("{}: {fault}", slot.label()));
            }
        }
        for (name, state) in group.states() {
            let state = state.borrow();
            if *state != State::Up {
                return Some(format!("{name}: {}", *state));
            }
        }
        let hosts = self.plan.hosts as usize;
        let wrong = self
            .hsm
            .tokens
            .iter()
            .find(|token| self.ledger.alive(&token.name) != hosts)?;
        Some(format!(
            "{} has {} hosts",
            wrong.name,
            self.ledger.alive(&wrong.name)
        ))
    }

    /// Ends hsmac as SIGTERM does: no call comes, the calls on their way are answered, the hosts end.
    async fn end(&self, mut front: Front) {
        self.world.note(format_args!("hsmac is ended"));
        self.over.store(true, Ordering::Relaxed);
        // Calls have a while to come to their end; those that take longer are given up.
        self.world.pause(0, 3000).await;
        let ends = front.group.end((Instant::now() + END).into_std());
        let ended = timeout(END + Duration::from_secs(1), ends).await;
        self.world
            .promise(ended.is_ok(), format_args!("the end does not end"));
        let calls = async { while front.tasks.join_next().await.is_some() {} };
        let answered = timeout(LAST_CALLS, calls).await;
        self.world.promise(
            answered.is_ok(),
            format_args!("calls that were on their way at the end are not answered"),
        );
        let left = front.group.dispatcher.queue.len();
        self.world
            .promise(left == 0, format_args!("{left} jobs are left in the queue"));
        sleep(GONE).await;
        for token in &self.hsm.tokens {
            let left = self.ledger.alive(&token.name);
            self.world.promise(
                left == 0,
                format_args!("{left} hosts of {} are left after the end", token.name),
            );
        }
    }
}

fn pin_file(folder: &Path, token: &str) -> PathBuf {
    folder.join(format!("pin.{token}"))
}
