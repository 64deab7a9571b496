//! The tokens of a group as the configuration has them now: how one comes, gets other settings, and goes.
//!
//! A token with other settings is served by hosts of its own, its *successor*, beside those that serve. When
//! these have come up the others end as planned: they answer what they have and take no more.
//! Hosts that do not come up change nothing, and what waits in the queue waits for whoever serves. Does not:
//! know which keys there are; a group that goes as a whole is the caller's to fence.

use std::{
    mem,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tracing::{info, warn};

use crate::token::{
    dispatch::{TokenStatus, TokenTable, queue::Queue},
    host::{
        member::{LEAVES, Member},
        pin::Logins,
    },
    locks::UNPOISONED,
    metrics::TokenSnapshot,
    settings::{HostEnvironment, Settings},
    status::{Facts, State},
};

/// The tokens of a group, their hosts, and what is on its way.
pub(super) struct Roster {
    queue: Arc<Queue>,
    environment: HostEnvironment,
    logins: Logins,
    /// For callers: the tokens without those that are on their way or leave.
    table: Arc<TokenTable>,
    /// Grows with each change of the table.
    changes: watch::Sender<u64>,
    tokens: Mutex<Tokens>,
}

#[derive(Default)]
struct Tokens {
    listed: Vec<Token>,
    /// Each whose hosts have not ended.
    running: Vec<Weak<Member>>,
    tasks: JoinSet<()>,
    /// All of them end, with the group.
    is_ending: bool,
}

/// One token of the configuration.
struct Token {
    serving: Arc<Member>,
    successor: Option<Arc<Member>>,
}

impl Roster {
    /// Without a token yet.
    pub(super) fn new(
        queue: &Arc<Queue>,
        table: &Arc<TokenTable>,
        environment: &HostEnvironment,
        logins: &Logins,
    ) -> Arc<Self> {
        Arc::new(Self {
            queue: Arc::clone(queue),
            environment: environment.clone(),
            logins: logins.clone(),
            table: Arc::clone(table),
            changes: watch::Sender::new(0),
            tokens: Mutex::default(),
        })
    }

    /// Has the group be of these tokens. Returns at once: hosts come and go by themselves.
    pub(super) fn set(self: &Arc<Self>, wanted: Vec<Settings>) {
        let mut tokens = self.tokens.lock().expect(UNPOISONED);
        while tokens.tasks.try_join_next().is_some() {}
        tokens.running.retain(|member| member.strong_count() > 0);
        let mut before = mem::take(&mut tokens.listed);
        for settings in wanted {
            let known = before
                .iter()
                .position(|token| token.serving.settings.name == settings.name);
            let token = match known {
                Some(at) => self.give_settings(&mut tokens, before.remove(at), settings),
                None => Token {
                    serving: self.start(&mut tokens, settings, None),
                    successor: None,
                },
            };
            tokens.listed.push(token);
        }
        self.publish(&tokens.listed);
        for token in before {
            self.let_go(&mut tokens, token);
        }
    }

    /// Grows when the tokens are others, or one is served with other settings.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The tokens at this moment.
    pub(super) fn snapshots(&self) -> Vec<TokenSnapshot> {
        let tokens = self.tokens.lock().expect(UNPOISONED);
        let snapshot = |token: &Token| {
            let successor = token.successor.as_ref();
            TokenSnapshot {
                pending_settings: successor.map(|one| one.state.borrow().clone()),
                ..token.serving.snapshot()
            }
        };
        tokens.listed.iter().map(snapshot).collect()
    }

    /// What a host of the first token that has one found when it logged in.
    pub(super) fn facts(&self) -> Option<Facts> {
        let tokens = self.tokens.lock().expect(UNPOISONED);
        let mut tokens = tokens.listed.iter();
        tokens.find_map(|token| token.serving.facts())
    }

    /// Ends all hosts, in this way: planned, and killed after two seconds. What a host is at and has not ended
    /// by `until` is given up with it.
    pub(super) async fn end(&self, group: &str, how: usize, until: Instant) {
        let mut hosts = {
            let mut tokens = self.tokens.lock().expect(UNPOISONED);
            tokens.is_ending = true;
            for member in tokens.running.iter().filter_map(Weak::upgrade) {
                member.end.set(member.end.get().max(how));
            }
            mem::take(&mut tokens.tasks)
        };
        let ended = async { while hosts.join_next().await.is_some() {} };
        if timeout_at(until, ended).await.is_err() {
            warn!(
                event = "hosts_killed",
                group, "calls of the module have not returned: their hosts are killed"
            );
            // A host's process dies with the task that serves it.
            hosts.shutdown().await;
        }
    }

    /// Ends the hosts at once, as when hsmac itself is killed.
    #[cfg(test)]
    pub(super) fn kill(&self) {
        self.tokens.lock().expect(UNPOISONED).tasks.abort_all();
    }

    fn start(
        self: &Arc<Self>,
        tokens: &mut Tokens,
        settings: Settings,
        predecessor: Option<&Member>,
    ) -> Arc<Member> {
        let index = self.queue.add_member(predecessor.is_none());
        let queue = Arc::clone(&self.queue);
        let environment = &self.environment;
        let member = Member::new(
            settings,
            environment,
            queue,
            index,
            &self.logins,
            predecessor,
        );
        let member = Arc::new(member);
        tokens.running.push(Arc::downgrade(&member));
        let hosts = Arc::clone(&member).keep_hosts();
        let roster = Arc::downgrade(self);
        tokens.tasks.spawn(async move {
            hosts.await;
            if let Some(roster) = roster.upgrade() {
                roster.ended(index);
            }
        });
        member
    }

    /// The hosts of a member have ended.
    fn ended(&self, index: usize) {
        // With the group all jobs are refused, once.
        if !self.tokens.lock().expect(UNPOISONED).is_ending {
            self.queue.remove_member(index);
        }
    }

    fn give_settings(
        self: &Arc<Self>,
        tokens: &mut Tokens,
        mut token: Token,
        settings: Settings,
    ) -> Token {
        let is_wanted = |member: &Arc<Member>| member.settings == settings;
        if token.successor.as_ref().is_some_and(is_wanted) {
            return token;
        }
        if let Some(outdated) = token.successor.take() {
            outdated.end.set(LEAVES);
        }
        if is_wanted(&token.serving) {
            return token;
        }
        let serving = &token.serving;
        let new = self.start(tokens, settings, Some(serving));
        // Nobody serves whom the new hosts would have to wait for.
        if !serving.state.borrow().is_serving() {
            self.replace(&mut token.serving, new);
            return token;
        }
        let successor = Arc::clone(&new);
        let roster = Arc::downgrade(self);
        tokens.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = successor.end.until_positive() => return,
                () = can_take_over(&successor) => {}
            }
            if let Some(roster) = roster.upgrade() {
                roster.hand_over(&successor);
            }
        });
        token.successor = Some(new);
        token
    }

    /// A successor takes its token's place, if it is still to.
    fn hand_over(&self, successor: &Arc<Member>) {
        let mut tokens = self.tokens.lock().expect(UNPOISONED);
        let is_it = |one: &mut Arc<Member>| Arc::ptr_eq(one, successor);
        let found = tokens
            .listed
            .iter_mut()
            .find_map(|token| Some((token.successor.take_if(is_it)?, &mut token.serving)));
        if let Some((new, serving)) = found {
            self.replace(serving, new);
            self.publish(&tokens.listed);
        }
    }

    fn replace(&self, serving: &mut Arc<Member>, new: Arc<Member>) {
        let old = mem::replace(serving, new);
        self.queue.set_required(old.index, false);
        self.queue.set_required(serving.index, true);
        serving.succeed(&old);
        old.end.set(LEAVES);
        let settings = &serving.settings;
        info!(
            event = "token_changed", token = %settings.name, hosts = settings.hosts, sessions = settings.sessions,
            "the token's new settings are in force: the hosts with those from before end"
        );
    }

    /// A token leaves the group: its hosts end once another one serves, if one is on its way.
    fn let_go(self: &Arc<Self>, tokens: &mut Tokens, token: Token) {
        let Token { serving, successor } = token;
        if let Some(successor) = successor {
            successor.end.set(LEAVES);
        }
        self.queue.set_required(serving.index, false);
        let name = serving.settings.name.clone();
        info!(event = "token_removed", token = %name, "the configuration no longer has the token: its hosts end");
        let table = Arc::clone(&self.table);
        tokens.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = serving.end.until_positive() => {}
                () = another_serves(&table) => serving.end.set(LEAVES),
            }
        });
    }

    fn publish(&self, listed: &[Token]) {
        let status = |token: &Token| TokenStatus {
            member: token.serving.index,
            settings: token.serving.settings.clone(),
            state: token.serving.state.clone(),
        };
        let tokens: Vec<TokenStatus> = listed.iter().map(status).collect();
        let capacity = tokens.iter().map(|token| token.settings.queue as usize);
        self.queue.set_capacity(capacity.sum());
        self.table.store(Arc::new(tokens));
        self.changes.send_modify(|changes| *changes += 1);
    }
}

/// Waits until all hosts of a successor serve, so that the token does not serve less for a moment; or as many as
/// come up, or none that needs what its predecessor has.
async fn can_take_over(successor: &Member) {
    let all = async {
        let mut state = successor.state.subscribe();
        // The sender is the member's own: it is there as long as this waits.
        drop(state.wait_for(State::is_serving).await);
        tokio::select! {
            biased;
            () = successor.serving.until(successor.settings.hosts as usize) => {}
            _ = state.wait_for(|state| !matches!(state, State::Up)) => {}
            () = sleep(FOR_ALL) => {}
        }
    };
    tokio::select! {
        biased;
        () = all => {}
        () = successor.wants_sessions.until_positive() => {}
    }
}

/// Waits until a token of the group serves, or none is starting any more.
async fn another_serves(table: &TokenTable) {
    loop {
        let wait = {
            let tokens = table.load();
            let mut states = tokens.iter().map(|token| token.state.borrow());
            let is_starting = |state: &State| *state == State::Starting;
            states.all(|state| !state.is_serving())
                && tokens
                    .iter()
                    .any(|token| is_starting(&token.state.borrow()))
        };
        if !wait {
            return;
        }
        sleep(LOOK).await;
    }
}

/// How long the first host of a successor waits for its siblings.
const FOR_ALL: Duration = Duration::from_secs(10);

/// How often a token that leaves looks whether another one serves.
const LOOK: Duration = Duration::from_millis(50);
