//! What a seed decides on: how big the group is, its limits, and which faults there are, how often.
//!
//! Each seed has a few kinds of faults, and not a little of each: what hides behind a rare
//! combination comes out where nothing else disturbs it.

use std::time::Duration;

use super::world::World;

/// What may befall a job in a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum JobFault {
    /// The host dies with the call in the library's hands.
    CrashBefore,
    /// The host dies when it has answered.
    CrashAfter,
    /// The call does not return.
    Hang,
    /// The host loses the job: no session has it, and nobody answers.
    Lost,
    /// The call takes long, and returns.
    Slow,
    /// The library says that the token has too much to do.
    Busy,
    /// The library fails, and another host may do better.
    Retry,
    /// The token does not answer this call.
    Away,
    /// The token fails with the message.
    MessageFails,
    /// The token fails with the key.
    KeyFails,
    /// The object is not seen.
    KeyMissing,
    /// The object is another key, and the host says so.
    KeyDiffers,
    /// The host opens another object, says its check value, and works with it.
    OtherObject,
    /// Handles get another meaning in the middle of the generation; the host proves its keys anew.
    Renumbered,
    /// The login is lost: the host says so and ends.
    LoginLost,
    /// The token refuses the PIN to a host that had logged in.
    PinExpired,
    /// The host answers with half a MAC.
    WrongLength,
    /// The host answers twice.
    SecondAnswer,
    /// The host answers for another generation.
    OtherGeneration,
}

const JOB_FAULTS: [JobFault; 19] = [
    JobFault::CrashBefore,
    JobFault::CrashAfter,
    JobFault::Hang,
    JobFault::Lost,
    JobFault::Slow,
    JobFault::Busy,
    JobFault::Retry,
    JobFault::Away,
    JobFault::MessageFails,
    JobFault::KeyFails,
    JobFault::KeyMissing,
    JobFault::KeyDiffers,
    JobFault::OtherObject,
    JobFault::Renumbered,
    JobFault::LoginLost,
    JobFault::PinExpired,
    JobFault::WrongLength,
    JobFault::SecondAnswer,
    JobFault::OtherGeneration,
];

/// What may befall the start of a host, its login included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StartFault {
    /// The process cannot be started.
    NotSpawned,
    /// It dies before it has found the token.
    Crash,
    /// C_Initialize does not return.
    Hang,
    /// It starts, slowly.
    Slow,
    /// The module refuses.
    Refused,
    /// Only an edit would cure it, the host says.
    Configuration,
    /// It dies in C_Login, before the token has judged the PIN.
    CrashInLogin,
    /// It dies in C_Login, when the token has judged the PIN.
    CrashAfterLogin,
    /// C_Login does not return.
    LoginHangs,
    /// C_Login returns a vendor's code: whether the PIN was judged nobody knows.
    LoginUnclear,
    /// C_Login fails, and no PIN can have been judged.
    LoginNotJudged,
    /// It dies between the login and its first job.
    CrashBeforeReady,
}

const START_FAULTS: [StartFault; 12] = [
    StartFault::NotSpawned,
    StartFault::Crash,
    StartFault::Hang,
    StartFault::Slow,
    StartFault::Refused,
    StartFault::Configuration,
    StartFault::CrashInLogin,
    StartFault::CrashAfterLogin,
    StartFault::LoginHangs,
    StartFault::LoginUnclear,
    StartFault::LoginNotJudged,
    StartFault::CrashBeforeReady,
];

/// What happens besides, now and then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// A token goes away and comes back.
    TokenAway,
    /// A token gets another PIN, and its file gets it later.
    PinChanged,
    /// A PIN file gets a wrong PIN, and the right one later.
    WrongPinFile,
    /// A person unlocks a token, whatever its PIN file has.
    Unlocked,
    /// hsmac itself is killed and starts anew.
    FrontKilled,
    /// hsmac is killed in the middle of the next login.
    FrontKilledInLogin,
}

const EVENTS: [Event; 6] = [
    Event::TokenAway,
    Event::PinChanged,
    Event::WrongPinFile,
    Event::Unlocked,
    Event::FrontKilled,
    Event::FrontKilledInLogin,
];

/// What a seed decides on.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) members: usize,
    pub(super) hosts: u32,
    pub(super) sessions: u32,
    pub(super) queue: u32,
    pub(super) max_starts_per_minute: u32,
    pub(super) start_timeout: Duration,
    pub(super) call_timeout: Duration,
    pub(super) slow_timeout: Duration,
    pub(super) hedge_after: Duration,
    pub(super) probe_interval: Duration,
    /// Room of a pipe, in bytes.
    pub(super) room: usize,
    /// Whether hosts log in with a PIN.
    pub(super) pin: bool,
    pub(super) keys: usize,
    pub(super) callers: usize,
    /// Of a thousand calls of a host, how many meet with which fault.
    pub(super) job_faults: Vec<(JobFault, u64)>,
    /// Of a thousand starts.
    pub(super) start_faults: Vec<(StartFault, u64)>,
    pub(super) events: Vec<Event>,
    /// Of a thousand orders to forget a key, how many a host leaves undone.
    pub(super) deaf: u64,
    /// Of a thousand processes that are killed, how many take their time.
    pub(super) unkillable: u64,
    /// How many calls one more principal makes at once, who may be refused for it; 0: nobody does.
    pub(super) crowd: usize,
    /// Whether somebody sends a message again and again that kills hosts.
    pub(super) poison: bool,
    /// How long there are faults.
    pub(super) chaos: Duration,
    /// Whether hsmac is ended in the middle of it.
    pub(super) ends_early: bool,
    /// Whether tokens get other settings, leave their group and come back.
    pub(super) reloads: bool,
}

impl Plan {
    pub(super) fn draw(world: &World) -> Self {
        // One of ten has no faults at all: there each call must succeed.
        let quiet = world.happens(100);
        let rate = || [3, 10, 30, 100][world.index(4)];
        let some = |one_of: u64| !quiet && world.between(1, one_of) == 1;
        let mut plan = Self {
            members: 1 + world.index(2),
            hosts: u32::try_from(world.between(1, 3)).expect("three at most"),
            sessions: u32::try_from(world.between(1, 4)).expect("four at most"),
            queue: [16, 64, 1024][world.index(3)],
            max_starts_per_minute: [10, 30, 60][world.index(3)],
            start_timeout: world.span(2000, 4000),
            call_timeout: world.span(1000, 3000),
            slow_timeout: world.span(3000, 5000),
            hedge_after: Duration::from_millis([0, 50, 250][world.index(3)]),
            probe_interval: Duration::from_millis([0, 5000, 30_000][world.index(3)]),
            room: [2048, 8192, 200_000][world.index(3)],
            pin: world.happens(800),
            keys: 2 + world.index(4),
            callers: 2 + world.index(4),
            job_faults: Vec::new(),
            start_faults: Vec::new(),
            events: Vec::new(),
            deaf: 0,
            unkillable: 0,
            crowd: [0, 0, 20, 100][world.index(4)],
            poison: some(4),
            chaos: world.span(8000, 25_000),
            ends_early: world.happens(150),
            reloads: false,
        };
        for fault in JOB_FAULTS {
            if some(5) {
                plan.job_faults.push((fault, rate()));
            }
        }
        for fault in START_FAULTS {
            if some(6) {
                plan.start_faults.push((fault, 3 * rate()));
            }
        }
        for event in EVENTS {
            if some(4) {
                plan.events.push(event);
            }
        }
        if some(4) {
            plan.deaf = 5 * rate();
        }
        if some(4) {
            plan.unkillable = 500;
        }
        // Without any fault too: no call may be lost by it.
        plan.reloads = world.happens(400);
        plan
    }

    /// Whether nothing goes wrong. A reload is nothing wrong.
    pub(super) fn is_quiet(&self) -> bool {
        self.job_faults.is_empty()
            && self.start_faults.is_empty()
            && self.events.is_empty()
            && self.deaf == 0
            && !self.poison
            && !self.ends_early
    }

    /// The first of the faults that the dice say, or none.
    pub(super) fn fault<F: Copy>(world: &World, faults: &[(F, u64)]) -> Option<F> {
        let mut rolled = world.between(0, 999);
        for (fault, permille) in faults {
            if rolled < *permille {
                return Some(*fault);
            }
            rolled -= permille;
        }
        None
    }
}
